//! Makes the far end of a director's cable take what XDP transmits there.
//!
//! A driver's `XDP_TX` needs a partner on the wire. Between two veths that is a native XDP program
//! on the peer: without one the kernel puts the frames into the peer's ring and never looks there
//! (`veth_xdp_flush` asks for the peer's program; GRO on the peer helps redirected frames only). So
//! a program that passes everything goes there, of two instructions, for which no object file and
//! no loader is needed.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;

use super::Host;

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const NATIVE: u32 = 1 << 2;

/// `r0 = XDP_PASS; exit`, as the kernel reads them.
const PASS_ALL: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest for zeros.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The program on the far end of a director's cable; taken away when dropped.
#[derive(Debug)]
pub(super) struct Wire {
    _link: OwnedFd,
}

impl Wire {
    /// Prepares the cable from `fabric` to the host `director`.
    pub(super) fn prepare(fabric: &Host, director: &str) -> Result<Self> {
        let link = attach(fabric, director)
            .with_context(|| format!("cannot attach XDP to the far end of {director}'s cable"))?;
        Ok(Self { _link: link })
    }
}

fn attach(host: &Host, interface: &str) -> Result<OwnedFd> {
    let load = ProgLoad {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: 2,
        insns: PASS_ALL.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    let program = bpf(PROG_LOAD, &load).context("cannot load the program")?;
    let create = LinkCreate {
        prog_fd: u32::try_from(program.as_raw_fd())?,
        target_ifindex: host.ifindex(interface)?,
        attach_type: ATTACH_TYPE_XDP,
        flags: NATIVE,
    };
    // An interface's index counts within its network namespace.
    Ok(host.run(|| bpf(LINK_CREATE, &create))?)
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let size = size_of::<T>();
    // SAFETY: the kernel reads `size` bytes of `attributes`, and what those point to is constant.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    let fd = i32::try_from(answer).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
