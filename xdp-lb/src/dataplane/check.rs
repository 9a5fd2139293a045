//! The tc programs that take health checks the way of clients' packets: loading, attaching, and telling
//! them what is to become of which mark's packets.
//!
//! Nothing is pinned: without the daemon there are no checks. BPF links end with the process. The netlink
//! filters of kernels without such links for tc do not, so those that an earlier daemon left behind are
//! removed by their names.
//!
//! Answers are told apart by addresses and ports alone, and a VIP has many backends. So a check's socket
//! is to have a local port (or echo identifier) that no other check to the same VIP has: it is bound to
//! one before it is connected. A port that the kernel chooses on connecting may be in use for another
//! backend.

use std::{collections::BTreeMap, io, os::fd::AsFd as _, sync::Arc};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcError, qdisc_add_clsact,
            qdisc_detach_program,
        },
    },
};
use nix::errno::Errno;
use xdp_lb_common::{
    abi::FlowKey,
    check::{ENTRIES, FlowEntry, Target, map},
};

use super::{DataplaneError, attach::index_of, lift_memory_limit, take};

/// The programs, as the build script made them. Empty where it had no BPF toolchain.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-lb-check"));

/// What was sent to VIPs: see [`map::FLOWS`].
pub type Flows = HashMap<MapData, FlowKey<[u8; 16]>, FlowEntry>;

/// A program, by the way of the packets that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Questions on their way out.
    Out,
    /// Answers on their way in.
    In,
}

impl Way {
    /// Name of the program in the object, and of its filters.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Out => "xdp_lb_steer",
            Self::In => "xdp_lb_answer",
        }
    }

    fn attach_type(self) -> TcAttachType {
        match self {
            Self::Out => TcAttachType::Egress,
            Self::In => TcAttachType::Ingress,
        }
    }
}

/// What a program is attached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A BPF link (Linux 6.6 and later).
    Tcx,
    /// A filter of the queueing discipline `clsact`, which is added where it is missing and stays, since
    /// others may come to use it.
    Clsact,
}

/// The loaded programs with their maps. Dropping it detaches them.
pub struct Steering {
    /// Before the programs, by the indices of their interfaces.
    links: BTreeMap<u32, [SchedClassifierLink; 2]>,
    ebpf: Ebpf,
    targets: HashMap<MapData, u32, Target>,
    flows: Flows,
    steered: Steered,
}

impl Steering {
    /// Loads the programs. They do nothing before they are attached.
    ///
    /// # Errors
    ///
    /// If the kernel refuses them.
    pub fn load() -> Result<Self, DataplaneError> {
        if OBJECT.is_empty() {
            return Err(DataplaneError::NoObject);
        }
        lift_memory_limit();
        let mut ebpf = Ebpf::load(OBJECT).map_err(DataplaneError::Object)?;
        for way in [Way::Out, Way::In] {
            let program = classifier(&mut ebpf, way)?;
            program.load().map_err(DataplaneError::Load)?;
        }
        let data = match ebpf.map(map::TARGETS) {
            Some(Map::HashMap(data)) => again(data),
            _ => return Err(DataplaneError::MissingMap { name: map::TARGETS }),
        };
        let steered = data
            .and_then(|data| HashMap::try_from(Map::HashMap(data)))
            .map_err(|source| DataplaneError::map(map::TARGETS, source))?;
        Ok(Self {
            links: BTreeMap::new(),
            targets: take(&mut ebpf, map::TARGETS)?,
            flows: take(&mut ebpf, map::FLOWS)?,
            ebpf,
            steered: Steered(Arc::new(steered)),
        })
    }

    /// Attaches the programs to `interface`, before those of others; where they are attached already that
    /// is all. Call it again when there is an interface anew, by the same name.
    ///
    /// # Errors
    ///
    /// If the interface does not exist, or the kernel has neither BPF links for tc nor `clsact`.
    pub fn attach(&mut self, interface: &str) -> Result<Hook, DataplaneError> {
        match self.attach_links(interface, Hook::Tcx) {
            Ok(()) => Ok(Hook::Tcx),
            // What kernels say to a kind of link that they do not know.
            Err(failure) if failure.is(Errno::EINVAL) => {
                self.attach_by(interface, Hook::Clsact)?;
                Ok(Hook::Clsact)
            }
            Err(failure) => Err(failure.at(interface)),
        }
    }

    /// As [`attach`](Self::attach), by this hook and no other.
    ///
    /// # Errors
    ///
    /// As `attach`.
    pub fn attach_by(&mut self, interface: &str, hook: Hook) -> Result<(), DataplaneError> {
        let attached = self.attach_links(interface, hook);
        attached.map_err(|failure| failure.at(interface))
    }

    fn attach_links(&mut self, interface: &str, hook: Hook) -> Result<(), Failure> {
        let ifindex = index_of(interface)?;
        if hook == Hook::Clsact {
            // Filters of the same names are removed below, whoever's they are.
            self.links.remove(&ifindex);
            prepare_clsact(interface)?;
        }
        // No question leaves before its answer would be known.
        let answers = match self.link(interface, Way::In, hook) {
            // A program is attached to an interface once. The index may have had another interface.
            Err(failure) if failure.is(Errno::EEXIST) && self.links.contains_key(&ifindex) => {
                return Ok(());
            }
            answers => answers?,
        };
        let questions = self.link(interface, Way::Out, hook)?;
        self.links.insert(ifindex, [questions, answers]);
        Ok(())
    }

    fn link(
        &mut self,
        interface: &str,
        way: Way,
        hook: Hook,
    ) -> Result<SchedClassifierLink, Failure> {
        let options = match hook {
            Hook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
            // Without a priority, the kernel chooses one before all others.
            Hook::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
        };
        let program = self.program(way)?;
        let id = program.attach_with_options(interface, way.attach_type(), options)?;
        Ok(program.take_link(id)?)
    }

    /// Detaches from the interfaces whose indices are not among `wanted`.
    pub fn detach_others(&mut self, wanted: &[u32]) {
        self.links.retain(|ifindex, _| wanted.contains(ifindex));
    }

    /// From now on the packets with this mark become what `target` says. The count of packets goes on
    /// from what is in it.
    ///
    /// # Errors
    ///
    /// If there are too many targets, or the kernel does not let the map be written.
    pub fn set_target(&mut self, mark: u32, target: &Target) -> Result<(), DataplaneError> {
        match self.targets.insert(mark, target, 0) {
            Err(error) if errno(&error) == Some(Errno::E2BIG as i32) => {
                Err(DataplaneError::TooManyTargets { most: ENTRIES })
            }
            outcome => outcome.map_err(|source| DataplaneError::map(map::TARGETS, source)),
        }
    }

    /// From now on the packets with this mark are not steered any more: they go to the backend's own
    /// address. Close the sockets that bear it before. Nothing happens where it has no target.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be written.
    pub fn remove_target(&mut self, mark: u32) -> Result<(), DataplaneError> {
        match self.targets.remove(&mark) {
            Err(error) if errno(&error) == Some(Errno::ENOENT as i32) => Ok(()),
            outcome => outcome.map_err(|source| DataplaneError::map(map::TARGETS, source)),
        }
    }

    /// A handle by which other tasks learn how many packets were steered.
    #[must_use]
    pub fn steered(&self) -> Steered {
        self.steered.clone()
    }

    /// A loaded program, for what tests do with it.
    ///
    /// # Errors
    ///
    /// Never in practice: the program was there when it was loaded.
    pub fn program(&mut self, way: Way) -> Result<&mut SchedClassifier, DataplaneError> {
        classifier(&mut self.ebpf, way)
    }

    /// What was sent to VIPs, for what tests do with it.
    pub fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }
}

/// Tells how many packets were steered. Cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Steered(Arc<HashMap<MapData, u32, Target>>);

impl Steered {
    /// How many packets with this mark were steered since its target was set; None where it has none. A
    /// check for which this has not grown did not go the way of clients' packets.
    ///
    /// # Errors
    ///
    /// If the kernel does not let the map be read.
    pub fn packets(&self, mark: u32) -> Result<Option<u64>, DataplaneError> {
        match self.0.get(&mark, 0) {
            Ok(target) => Ok(Some(target.packets)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(DataplaneError::map(map::TARGETS, source)),
        }
    }
}

/// Why a program could not be attached.
enum Failure {
    /// It has nothing to do with the kernel's refusing it.
    Other(DataplaneError),
    Kernel(ProgramError),
    Clsact(TcError),
}

impl From<DataplaneError> for Failure {
    fn from(error: DataplaneError) -> Self {
        Self::Other(error)
    }
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        Self::Kernel(error)
    }
}

impl Failure {
    /// Whether the kernel said this.
    fn is(&self, errno: Errno) -> bool {
        let Self::Kernel(ProgramError::SyscallError(error)) = self else {
            return false;
        };
        error.io_error.raw_os_error() == Some(errno as i32)
    }

    fn at(self, interface: &str) -> DataplaneError {
        let reason = match self {
            Self::Other(error) => return error,
            Self::Kernel(ProgramError::SyscallError(error)) => format!("tc: {}", error.io_error),
            Self::Kernel(error) => format!("tc: {error}"),
            Self::Clsact(error) => format!(
                "clsact: {error}; it takes the kernel modules sch_ingress and cls_bpf, or Linux 6.6"
            ),
        };
        DataplaneError::Attach {
            interface: interface.to_owned(),
            reason,
        }
    }
}

/// Adds `clsact` to an interface that has none, and removes filters of ours.
fn prepare_clsact(interface: &str) -> Result<(), Failure> {
    match qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
        }
        outcome => outcome.map_err(Failure::Clsact)?,
    }
    for way in [Way::Out, Way::In] {
        match qdisc_detach_program(interface, way.attach_type(), way.program()) {
            Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome.map_err(Failure::Clsact)?,
        }
    }
    Ok(())
}

fn classifier(ebpf: &mut Ebpf, way: Way) -> Result<&mut SchedClassifier, DataplaneError> {
    let name = way.program();
    let program = ebpf.program_mut(name);
    program
        .ok_or(DataplaneError::NoProgram { name })?
        .try_into()
        .map_err(DataplaneError::Load)
}

/// The same map by another descriptor.
fn again(data: &MapData) -> Result<MapData, MapError> {
    let fd = data.fd().as_fd().try_clone_to_owned();
    MapData::from_fd(fd.map_err(MapError::IoError)?)
}

/// What the kernel said.
fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
