//! Detaching a link at once.
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
const BPF_LINK_DETACH: libc::c_int = 34;

/// What `BPF_OBJ_GET` takes.
#[repr(C)]
#[derive(Default)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Detaches the link that is pinned at `pin`.
///
/// # Errors
///
/// If it is not a link, or one that the kernel cannot detach (before Linux 5.9).
pub(super) fn detach(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = ObjectAttributes {
        path: path.as_ptr() as u64,
        ..ObjectAttributes::default()
    };
    let fd = bpf(BPF_OBJ_GET, &attributes)?;
    // SAFETY: the kernel has just given it to us.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    bpf(BPF_LINK_DETACH, &link.as_raw_fd().cast_unsigned()).map(drop)
}

/// Calls `bpf(2)` with attributes that it only reads.
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
