//! Programs of a few instructions for the cables, loaded without an object file and a loader.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;

use super::Host;

const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const LINK_CREATE: libc::c_long = 28;
const ATTACH_TYPE_XDP: u32 = 37;
const NATIVE: u32 = 1 << 2;

/// An instruction, as the kernel reads it.
pub(super) type Instruction = [u8; 8];

/// What a program is for; the values are the kernel's.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Kind {
    /// For tc, in its direct-action mode.
    SchedCls = 3,
    Xdp = 6,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest for zeros.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The beginning of `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads a program.
pub(super) fn load(kind: Kind, instructions: &[Instruction]) -> Result<OwnedFd> {
    let load = ProgLoad {
        prog_type: kind as u32,
        insn_cnt: u32::try_from(instructions.len())?,
        insns: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    let fd = call(PROG_LOAD, &load).context("cannot load the program")?;
    // SAFETY: the command returns a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches an XDP program to an interface, in native mode; dropping the result takes it away.
pub(super) fn attach_xdp(host: &Host, interface: &str, program: &OwnedFd) -> Result<OwnedFd> {
    let create = LinkCreate {
        prog_fd: u32::try_from(program.as_raw_fd())?,
        target_ifindex: host.ifindex(interface)?,
        attach_type: ATTACH_TYPE_XDP,
        flags: NATIVE,
    };
    // An interface's index counts within its network namespace.
    let fd = host
        .run(|| call(LINK_CREATE, &create))
        .with_context(|| format!("cannot attach XDP to {interface} on {}", host.name()))?;
    // SAFETY: the command returns a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins a program in a host's bpffs, which goes with the host.
pub(super) fn pin(host: &Host, program: &OwnedFd, path: &str) -> Result<()> {
    let name = CString::new(path)?;
    let pin = ObjPin {
        pathname: name.as_ptr() as u64,
        bpf_fd: u32::try_from(program.as_raw_fd())?,
        file_flags: 0,
    };
    host.run(|| call(OBJ_PIN, &pin))
        .with_context(|| format!("cannot pin a program at {path} on {}", host.name()))?;
    Ok(())
}

// The kernel reads the bytes between fields as well: there may be none, since they would have any value.
const _: () = assert!(size_of::<ProgLoad>() == 2 * size_of::<u32>() + 2 * size_of::<u64>());
const _: () = assert!(size_of::<ObjPin>() == size_of::<u64>() + 2 * size_of::<u32>());
const _: () = assert!(size_of::<LinkCreate>() == 4 * size_of::<u32>());

/// Returns what the command does: a descriptor, or zero.
fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: the kernel reads `size` bytes of `attributes`, and what those point to lives as long.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    let value = i32::try_from(answer).map_err(io::Error::other)?;
    if value < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}
