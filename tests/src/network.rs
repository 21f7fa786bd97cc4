//! A network of a test's own, and what the kernel holds for patches.
//!
//! The namespace lives as long as the thread that made it and the children started from there; nothing of it outlives a test.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;

use anyhow::{Context, Result, anyhow};

/// Runs `work` on a thread with a network namespace of its own, in which only `lo` exists, and is up. Children that it
/// starts live there too.
///
/// # Errors
/// There is none to be had (not root), or `work` fails.
pub fn in_namespace<R: Send>(work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .context("no network namespace")?;
            raise_loopback().context("no loopback device")?;
            work()
        });
        inside
            .join()
            .map_err(|_| anyhow!("the test panicked in its namespace"))?
    })
}

/// Why a test that needs a namespace and kernel programs can't run here.
#[must_use]
pub fn missing_privilege() -> Option<&'static str> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("needs root: a network namespace, and bpf(2)");
    }
    let probe = in_namespace(|| Ok(()));
    if probe.is_err() {
        return Some("no network namespace to be had");
    }
    match next_id(MAP_GET_NEXT_ID, 0) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Some("bpf(2) is not permitted"),
        Ok(_) | Err(_) => None,
    }
}

fn raise_loopback() -> io::Result<()> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: a plain structure of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads one ifreq.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const PROG_GET_NEXT_ID: libc::c_int = 11;
const MAP_GET_NEXT_ID: libc::c_int = 12;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

fn bpf(command: libc::c_int, attr: &mut [u32; 4]) -> io::Result<i32> {
    // SAFETY: callers pass commands whose only pointer, if there is one, is valid for what the kernel does with it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn next_id(command: libc::c_int, before: u32) -> io::Result<u32> {
    let mut attr = [before, 0, 0, 0];
    bpf(command, &mut attr)?;
    Ok(attr[1])
}

/// Programs and maps in the kernel that are named after the patch, as `program 12`.
///
/// # Errors
/// We may not ask.
pub fn kernel_objects(patch: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // Where the name lies in `bpf_prog_info` and `bpf_map_info`.
    for (kind, next, open, name_at) in [
        ("program", PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID, 64),
        ("map", MAP_GET_NEXT_ID, MAP_GET_FD_BY_ID, 24),
    ] {
        let mut id = 0;
        loop {
            id = match next_id(next, id) {
                Ok(id) => id,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error.into()),
            };
            // Gone again, perhaps.
            let Ok(fd) = bpf(open, &mut [id, 0, 0, 0]) else {
                continue;
            };
            // SAFETY: a fresh descriptor.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let mut info = [0_u8; 80];
            let at = info.as_mut_ptr() as u64;
            let (low, high) = ((at & 0xffff_ffff) as u32, (at >> 32) as u32);
            bpf(
                OBJ_GET_INFO_BY_FD,
                &mut [fd.as_raw_fd().unsigned_abs(), 80, low, high],
            )?;
            let name = info[name_at..name_at + 16].split(|&byte| byte == 0).next();
            if name == Some(format!("upatch_{patch}").as_bytes()) {
                found.push(format!("{kind} {id}"));
            }
        }
    }
    Ok(found)
}
