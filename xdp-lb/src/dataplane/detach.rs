//! What aya does not do with pinned links: detaching one at once, and finding out whether it is attached.
//!
//! A link ends when nothing refers to it any more, and the kernel lets go of a removed pin only some
//! time later, when no CPU can be looking at it. Who detaches means now.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Commands of `bpf(2)`.
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_DETACH: libc::c_int = 34;

/// The type of a link to an interface's XDP hook.
const BPF_LINK_TYPE_XDP: u32 = 6;

/// What `BPF_OBJ_GET` takes.
#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// What `BPF_OBJ_GET_INFO_BY_FD` takes.
#[repr(C)]
#[derive(Default)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, as it is for XDP.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    ifindex: u32,
    padding: [u32; 7],
}

/// Where a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// Index of the interface; 0 where that is gone, or the link was detached.
    pub(super) ifindex: u32,
    /// Id of its program.
    pub(super) program: u32,
}

/// Where the XDP link is that is pinned at `pin`.
///
/// # Errors
///
/// If there is no such link.
pub(super) fn attached(pin: &Path) -> io::Result<Attached> {
    let link = open(pin)?;
    let mut info = LinkInfo::default();
    let attributes = InfoAttributes {
        fd: link.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of::<LinkInfo>()).unwrap_or(0),
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes)?;
    if info.kind != BPF_LINK_TYPE_XDP {
        return Err(io::Error::other("it is no link of an XDP program"));
    }
    Ok(Attached {
        ifindex: info.ifindex,
        program: info.program,
    })
}

/// Detaches the link that is pinned at `pin`.
///
/// # Errors
///
/// If it is not a link, or one that the kernel cannot detach (before Linux 5.9).
pub(super) fn detach(pin: &Path) -> io::Result<()> {
    let link = open(pin)?;
    bpf(BPF_LINK_DETACH, &link.as_raw_fd().cast_unsigned()).map(drop)
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = ObjectAttributes {
        path: path.as_ptr() as u64,
        ..ObjectAttributes::default()
    };
    let fd = bpf(BPF_OBJ_GET, &attributes)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Calls `bpf(2)` with attributes that it only reads, but for the memory that they may lead to.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are there for as long as the call takes, with their size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
