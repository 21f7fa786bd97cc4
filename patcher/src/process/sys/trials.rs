//! System calls that `upatch doctor` makes on itself and on its own child to see whether they work here.
//!
//! Each undoes what it did before it returns, or gives a descriptor whose closing undoes it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

// include/uapi/linux/bpf.h
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_TYPE_ARENA: u32 = 33;
const BPF_F_MMAPABLE: u32 = 1 << 10;
const BPF_TCX_INGRESS: u32 = 46;

fn descriptor(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the callers pass a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor of another process, as one of ours (Linux 5.6).
pub(crate) fn borrow_descriptor(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    descriptor(check(unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0)
    })?)
}

/// bpf(2) with these 128 bytes of attributes: more than any kernel knows, the rest zero.
fn bpf(command: libc::c_long, words: [u32; 12]) -> io::Result<libc::c_long> {
    let mut attr = [0_u64; 16];
    for (at, word) in words.into_iter().enumerate() {
        if let Some(place) = attr.get_mut(at / 2) {
            *place |= u64::from(word) << (32 * (at % 2));
        }
    }
    // SAFETY: the kernel reads and writes at most the given size of `attr`; no attribute used here is a pointer.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attr.as_mut_ptr(),
            size_of_val(&attr),
        )
    })
}

/// Creates a BPF arena of one page.
pub(crate) fn create_arena() -> io::Result<OwnedFd> {
    // map_type, key_size, value_size, max_entries, map_flags
    let mut words = [0; 12];
    words[..5].copy_from_slice(&[BPF_MAP_TYPE_ARENA, 0, 0, 1, BPF_F_MMAPABLE]);
    descriptor(bpf(BPF_MAP_CREATE, words)?)
}

/// Asks how many tcx programs the loopback interface has: EINVAL where the kernel knows no tcx.
pub(crate) fn query_tcx() -> io::Result<()> {
    // target_ifindex (1 is the loopback in every network namespace), attach_type
    let mut words = [0; 12];
    words[..2].copy_from_slice(&[1, BPF_TCX_INGRESS]);
    bpf(BPF_PROG_QUERY, words).map(drop)
}

/// A uprobe without a program in one process, at an offset in a file; gone when the descriptor is closed.
pub(crate) fn open_uprobe(kind: u32, path: &CStr, offset: u64, pid: i32) -> io::Result<OwnedFd> {
    // struct perf_event_attr, PERF_ATTR_SIZE_VER1 (include/uapi/linux/perf_event.h): type, size; …; config1 at 56,
    // config2 at 64.
    let mut attr = [0_u64; 9];
    attr[0] = u64::from(kind) | 72 << 32;
    attr[7] = path.as_ptr() as u64;
    attr[8] = offset;
    const PERF_FLAG_FD_CLOEXEC: libc::c_long = 8;
    // SAFETY: `attr` and `path` outlive the call; the kernel reads as many bytes as `attr` says it has.
    descriptor(check(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attr.as_ptr(),
            pid,
            -1,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    })?)
}

/// Maps the first page of a memory file read-execute, private, and unmaps it.
pub(crate) fn map_executable(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a new mapping at a place of the kernel's choice; nobody gets to know its address.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping made above, which nobody refers to.
    check(unsafe { libc::munmap(at, 4096) }.into()).map(drop)
}

/// How many of `tries` empty hardware transactions commit. Only where CPUID says that there are any.
pub(crate) fn committed_transactions(tries: u32) -> u32 {
    let mut committed = 0;
    for _ in 0..tries {
        let status: u32;
        // SAFETY: an empty transaction: it changes eax on an abort and nothing else (SDM vol. 1 §16.3).
        unsafe {
            std::arch::asm!(
                "mov eax, 0xffffffff",
                "xbegin 2f",
                "xend",
                "2:",
                out("eax") status,
                options(nostack, nomem),
            );
        }
        committed += u32::from(status == u32::MAX);
    }
    committed
}

/// Seizes a task and lets it go again, by the end of the thread that did it.
pub(crate) fn try_to_trace(pid: i32) -> io::Result<()> {
    let trial = std::thread::spawn(move || super::seize(pid, 0));
    trial
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread of the trial panicked")))
}

/// Makes the calling thread real-time and ordinary again.
pub(crate) fn try_realtime() -> io::Result<()> {
    super::become_realtime()?;
    super::become_ordinary()
}

/// Locks all pages and unlocks them.
pub(crate) fn try_memory_lock() -> io::Result<()> {
    super::lock_memory()?;
    super::unlock_memory()
}

/// Has the stopped task registered restartable sequences?
pub(crate) fn has_rseq(tid: i32) -> io::Result<bool> {
    Ok(super::rseq_configuration(tid)?.rseq_abi_pointer != 0)
}

/// A descriptor for the process.
pub(crate) fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    super::pidfd_open(pid)
}
