//! Attaching the program to interfaces, by links that are pinned.
//!
//! A link's pin is named after the interface's index and the mode, `link-2-native`, so that a later
//! daemon knows what it finds.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
};

use anyhow::ensure;
use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};
use nix::{errno::Errno, net::if_::if_nametoindex};
use serde::Serialize;

use super::{Dataplane, DataplaneError, PinDirectory, detach};
use crate::config::{AttachMode, Interface};

/// What the names of pinned links begin with.
pub(super) const LINK: &str = "link-";

/// How an attached program gets its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From the driver, before the kernel has made anything of them.
    Native,
    /// From the kernel's stack: works with every interface, but is slower.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// An interface with the program attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// How it is attached.
    pub mode: Mode,
    /// Why it is generic where native was tried first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// The indices of those of these interfaces that there are.
#[must_use]
pub fn ports(interfaces: &[Interface]) -> BTreeSet<u32> {
    let all = interfaces.iter();
    all.filter_map(|interface| index_of(&interface.name).ok())
        .collect()
}

/// The index of an interface.
///
/// # Errors
///
/// If it does not exist.
pub fn index_of(interface: &str) -> Result<u32, DataplaneError> {
    if_nametoindex(interface).map_err(|_| DataplaneError::NoInterface {
        interface: interface.to_owned(),
    })
}

impl Dataplane {
    /// Attaches the program to `interface`, or replaces the program in the link that is there.
    ///
    /// # Errors
    ///
    /// If the interface does not exist, has another program, or does not take the mode asked for.
    pub fn attach(&mut self, interface: &Interface) -> Result<Attachment, DataplaneError> {
        let pins = self.pins.clone();
        attach(&pins, self.program()?, interface)
    }

    /// Whether the program of this daemon is where `attachment` says, as far as is known: the interface has neither
    /// gone nor got another index, and nobody has taken the link away. What cannot be found out, for want of file
    /// descriptors say, is no reason to doubt it.
    #[must_use]
    pub fn is_attached(&mut self, attachment: &Attachment) -> bool {
        let pin = pin_of(&self.pins, attachment.ifindex, attachment.mode);
        let is_there = match if_nametoindex(attachment.interface.as_str()) {
            Ok(ifindex) => ifindex == attachment.ifindex,
            Err(errno) => !matches!(errno, Errno::ENODEV | Errno::ENXIO),
        };
        let program = self
            .program()
            .and_then(|it| it.info().map_err(DataplaneError::Load));
        let Ok(program) = program.map(|info| info.id()) else {
            return is_there;
        };
        let expected = detach::Attached {
            ifindex: attachment.ifindex,
            program,
        };
        let is_pinned = match detach::attached(&pin) {
            Ok(found) => found == expected,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        is_there && is_pinned
    }

    /// Detaches from the interfaces that are not among `wanted` any more.
    ///
    /// # Errors
    ///
    /// If a link cannot be unpinned.
    pub fn detach_others(&mut self, wanted: &[u32]) -> Result<(), DataplaneError> {
        detach_others(&self.pins, wanted)
    }
}

/// As [`Dataplane::attach`], for any program and pin directory.
pub(super) fn attach(
    pins: &PinDirectory,
    program: &mut Xdp,
    interface: &Interface,
) -> Result<Attachment, DataplaneError> {
    let name = interface.name.as_str();
    let ifindex = index_of(name)?;
    let mut links = Links { pins, program };
    let attached = |mode, fallback| Attachment {
        interface: name.to_owned(),
        ifindex,
        mode,
        fallback,
    };
    if let Some(mode) = links.replace(ifindex, interface.mode)? {
        return Ok(attached(mode, None));
    }
    match interface.mode {
        AttachMode::Native => links
            .create(name, ifindex, Mode::Native)
            .map(|()| attached(Mode::Native, None)),
        AttachMode::Generic => links
            .create(name, ifindex, Mode::Generic)
            .map(|()| attached(Mode::Generic, None)),
        AttachMode::Auto => match links.create(name, ifindex, Mode::Native) {
            Ok(()) => Ok(attached(Mode::Native, None)),
            Err(DataplaneError::Attach { reason, .. }) => {
                links.create(name, ifindex, Mode::Generic)?;
                Ok(attached(Mode::Generic, Some(reason)))
            }
            Err(error) => Err(error),
        },
    }
}

/// Detaches from the interfaces that have a link pinned in `pins` and are not among `wanted`.
pub(super) fn detach_others(pins: &PinDirectory, wanted: &[u32]) -> Result<(), DataplaneError> {
    for pin in pins.named(LINK)? {
        let keep = parse(&pin).is_some_and(|(ifindex, _)| wanted.contains(&ifindex));
        if !keep {
            pins.unpin(&pin)?;
        }
    }
    Ok(())
}

/// The link of the interface `ifindex` that is pinned in `pins`, and its mode.
pub(super) fn pinned(
    pins: &PinDirectory,
    ifindex: u32,
) -> Result<Option<(PathBuf, Mode)>, DataplaneError> {
    let pins = pins.named(LINK)?.into_iter();
    let mut found = pins.filter_map(|pin| {
        let (pinned, mode) = parse(&pin)?;
        (pinned == ifindex).then_some((pin, mode))
    });
    Ok(found.next())
}

/// A program and where its links are pinned.
struct Links<'a> {
    pins: &'a PinDirectory,
    program: &'a mut Xdp,
}

impl Links<'_> {
    /// Puts this program into the link that an earlier daemon pinned, if there is one of a fitting
    /// mode. Packets see the old program or the new one, never none.
    fn replace(
        &mut self,
        ifindex: u32,
        wanted: AttachMode,
    ) -> Result<Option<Mode>, DataplaneError> {
        for pin in self.pins.named(LINK)? {
            let Some((pinned, mode)) = parse(&pin) else {
                continue;
            };
            if pinned != ifindex {
                continue;
            }
            let fits = match wanted {
                AttachMode::Auto => true,
                AttachMode::Native => mode == Mode::Native,
                AttachMode::Generic => mode == Mode::Generic,
            };
            if fits && self.update(&pin, ifindex).is_ok() {
                return Ok(Some(mode));
            }
            // Another mode is asked for, or the interface that the link was for is gone and its
            // index has gone to another one.
            self.pins.unpin(&pin)?;
        }
        Ok(None)
    }

    fn update(&mut self, pin: &Path, ifindex: u32) -> anyhow::Result<()> {
        // The link of an interface that is gone takes another program, and does nothing with it.
        let attached = detach::attached(pin)?;
        ensure!(attached.ifindex == ifindex, "its interface is gone");
        let link = XdpLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
        let id = self.program.attach_to_link(link)?;
        // The pin holds the link; taking it out keeps aya from detaching it with the program.
        drop(self.program.take_link(id)?);
        Ok(())
    }

    fn create(&mut self, name: &str, ifindex: u32, mode: Mode) -> Result<(), DataplaneError> {
        let failed = |reason: String| DataplaneError::Attach {
            interface: name.to_owned(),
            reason,
        };
        let pin = pin_of(self.pins, ifindex, mode);
        let flags = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        let id = self
            .program
            .attach_to_if_index(ifindex, flags)
            .map_err(|error| match error {
                ProgramError::SyscallError(error)
                    if error.io_error.raw_os_error() == Some(Errno::EBUSY as i32) =>
                {
                    DataplaneError::Busy {
                        interface: name.to_owned(),
                    }
                }
                ProgramError::SyscallError(error) => {
                    failed(format!("{mode} XDP: {}", error.io_error))
                }
                error => failed(format!("{mode} XDP: {error}")),
            })?;
        let link = self.program.take_link(id).map_err(DataplaneError::Load)?;
        let link = FdLink::try_from(link).map_err(|_| {
            failed("the kernel has no BPF links for XDP; 5.9 is the first that has".into())
        })?;
        link.pin(&pin)
            .map_err(|source| DataplaneError::PinLink { path: pin, source })?;
        Ok(())
    }
}

/// Where the link to an interface is pinned.
fn pin_of(pins: &PinDirectory, ifindex: u32, mode: Mode) -> PathBuf {
    pins.path().join(format!("{LINK}{ifindex}-{mode}"))
}

/// Interface index and mode of a pinned link, from its name.
fn parse(pin: &Path) -> Option<(u32, Mode)> {
    let (ifindex, mode) = pin
        .file_name()?
        .to_str()?
        .strip_prefix(LINK)?
        .split_once('-')?;
    let mode = match mode {
        "native" => Mode::Native,
        "generic" => Mode::Generic,
        _ => return None,
    };
    Some((ifindex.parse().ok()?, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pins_name_tells_interface_and_mode() {
        assert_eq!(
            parse(Path::new("/p/link-2-native")),
            Some((2, Mode::Native))
        );
        assert_eq!(
            parse(Path::new("/p/link-17-generic")),
            Some((17, Mode::Generic))
        );
        for other in [
            "/p/link-2",
            "/p/link--native",
            "/p/link-2-fast",
            "/p/SLOTS",
            "/",
        ] {
            assert_eq!(parse(Path::new(other)), None, "{other}");
        }
    }
}
