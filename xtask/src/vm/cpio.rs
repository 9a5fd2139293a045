//! Writes cpio archives in the "newc" form, of which Linux makes its first root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Everything belongs to root.

use std::io::{self, Write};

/// What an entry is, as the upper bits of its mode say.
#[derive(Clone, Copy)]
enum Kind {
    Folder = 0o040_000,
    File = 0o100_000,
    CharacterDevice = 0o020_000,
}

/// Major and minor number.
type Device = (u32, u32);

/// An archive that is being written; names have no slash in front.
pub(super) struct Archive<W> {
    out: W,
    /// Number of the last entry.
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// Adds a folder. It has to come before what is in it.
    pub(super) fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, Kind::Folder as u32 | 0o755, (0, 0), &[])
    }

    /// Adds a file that may be executed.
    pub(super) fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, Kind::File as u32 | 0o755, (0, 0), content)
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, name: &str, device: Device) -> io::Result<()> {
        self.entry(name, Kind::CharacterDevice as u32 | 0o600, device, &[])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        (major, minor): Device,
        content: &[u8],
    ) -> io::Result<()> {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        let (size, name_size) = (length(content.len())?, length(name.len() + 1)?);
        let (owner, group, links, time, own_device, checksum) = (0, 0, 1, 0, (0, 0), 0);
        self.out.write_all(b"070701")?;
        for field in [
            self.entries,
            mode,
            owner,
            group,
            links,
            time,
            size,
            own_device.0,
            own_device.1,
            major,
            minor,
            name_size,
            checksum,
        ] {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        // The header's 110 bytes, the name and its end, and the content are padded to words.
        let padding = |length: usize| &[0; 3][..(4 - length % 4) % 4];
        self.out.write_all(&[0])?;
        self.out.write_all(padding(110 + name.len() + 1))?;
        self.out.write_all(content)?;
        self.out.write_all(padding(content.len()))
    }
}

#[cfg(test)]
mod tests;
