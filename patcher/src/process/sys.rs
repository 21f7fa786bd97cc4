//! Every `unsafe` of the patcher, with the files in the folder `sys`: system calls that no safe crate offers, one thin
//! function each.
//!
//! Decides nothing. nix is not used for ptrace and wait, because its types have no room for real-time signals: a
//! `waitpid` that fails to parse its own answer would lose the stop of a thread of somebody else's process.

pub(crate) mod native;
pub(crate) mod trials;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Registers of a stopped thread, as `PTRACE_GETREGS` gives them.
pub(crate) type Regs = libc::user_regs_struct;

/// A thread's registration of restartable sequences; `struct ptrace_rseq_configuration` of linux/ptrace.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RseqConfiguration {
    /// Address of the thread's `struct rseq`, 0 if it registered none.
    pub(crate) rseq_abi_pointer: u64,
    /// Its size.
    pub(crate) rseq_abi_size: u32,
    /// The word before each abort handler.
    pub(crate) signature: u32,
    /// Registration flags.
    pub(crate) flags: u32,
    /// Padding.
    pub(crate) pad: u32,
}

const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const KCMP_VM: libc::c_long = 1;
const KCMP_FILES: libc::c_long = 2;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A ptrace request whose address and data arguments are numbers to the kernel, not pointers.
fn ptrace(request: libc::c_uint, tid: i32, data: usize) -> io::Result<()> {
    // SAFETY: for the requests passed by this module's callers the kernel reads no memory of ours.
    check(unsafe { libc::ptrace(request, tid, 0_usize, data) }).map(drop)
}

/// Attaches without stopping. Errors: ESRCH gone, EPERM not allowed or already traced or a zombie.
pub(crate) fn seize(tid: i32, options: libc::c_int) -> io::Result<()> {
    ptrace(
        libc::PTRACE_SEIZE,
        tid,
        usize::try_from(options).unwrap_or(0),
    )
}

/// Asks a seized thread to stop; it does before it executes another instruction of user code.
pub(crate) fn interrupt(tid: i32) -> io::Result<()> {
    ptrace(libc::PTRACE_INTERRUPT, tid, 0)
}

/// Lets a stopped thread run, with `signal` delivered if it is in a signal-delivery-stop.
pub(crate) fn cont(tid: i32, signal: i32) -> io::Result<()> {
    ptrace(libc::PTRACE_CONT, tid, usize::try_from(signal).unwrap_or(0))
}

/// Lets a stopped thread run until it enters or leaves a system call.
pub(crate) fn cont_to_syscall(tid: i32) -> io::Result<()> {
    ptrace(libc::PTRACE_SYSCALL, tid, 0)
}

/// Lets go of a stopped thread.
pub(crate) fn detach(tid: i32, signal: i32) -> io::Result<()> {
    ptrace(
        libc::PTRACE_DETACH,
        tid,
        usize::try_from(signal).unwrap_or(0),
    )
}

/// The registers of a stopped thread.
pub(crate) fn registers(tid: i32) -> io::Result<Regs> {
    let mut regs = std::mem::MaybeUninit::<Regs>::zeroed();
    // SAFETY: the kernel writes one user_regs_struct to the pointer.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, 0_usize, regs.as_mut_ptr()) })?;
    // SAFETY: a plain struct of integers; zeroed, then written by the kernel.
    Ok(unsafe { regs.assume_init() })
}

/// All zeros: for a thread that hasn't stopped yet.
pub(crate) fn no_registers() -> Regs {
    // SAFETY: a plain struct of integers.
    unsafe { std::mem::zeroed() }
}

/// Replaces the registers of a stopped thread.
pub(crate) fn set_registers(tid: i32, regs: &Regs) -> io::Result<()> {
    // SAFETY: the kernel reads one user_regs_struct from the pointer.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, tid, 0_usize, std::ptr::from_ref(regs)) })
        .map(drop)
}

/// What a `PTRACE_EVENT_*` stop carries: the new task's id at clone, fork and vfork.
pub(crate) fn event_message(tid: i32) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one unsigned long to the pointer.
    check(unsafe {
        libc::ptrace(
            libc::PTRACE_GETEVENTMSG,
            tid,
            0_usize,
            std::ptr::from_mut(&mut message),
        )
    })?;
    Ok(message)
}

/// The stopped thread's rseq registration (Linux 5.13); an error where the kernel has no rseq.
pub(crate) fn rseq_configuration(tid: i32) -> io::Result<RseqConfiguration> {
    let mut configuration = RseqConfiguration::default();
    let size = size_of::<RseqConfiguration>();
    // SAFETY: the kernel writes at most `size` bytes to the pointer, a struct of integers of that size.
    check(unsafe {
        libc::ptrace(
            PTRACE_GET_RSEQ_CONFIGURATION,
            tid,
            size,
            std::ptr::from_mut(&mut configuration),
        )
    })?;
    Ok(configuration)
}

/// The raw status of one tracee, if it has one to report. Never blocks.
pub(crate) fn wait_now(tid: i32) -> io::Result<Option<i32>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int to the pointer.
    let found = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
    match check(found.into())? {
        0 => Ok(None),
        _ => Ok(Some(status)),
    }
}

/// A descriptor for a process; stays with this process when the number is reused.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks whether the process still exists (signal 0). ESRCH: it doesn't.
pub(crate) fn pidfd_probe(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the siginfo pointer is null, which the system call allows.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            0,
            0_usize,
            0,
        )
    })
    .map(drop)
}

/// A descriptor of our own for what `fd` means in the process (Linux 5.6). EPERM: we may not trace it.
pub(crate) fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Do two tasks run in one address space? ENOSYS where the kernel was built without kcmp.
pub(crate) fn share_memory(a: i32, b: i32) -> io::Result<bool> {
    // SAFETY: no pointers.
    Ok(check(unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_VM, 0, 0) })? == 0)
}

/// Do two tasks use one table of descriptors? ENOSYS as above.
pub(crate) fn share_descriptors(a: i32, b: i32) -> io::Result<bool> {
    // SAFETY: no pointers.
    Ok(check(unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_FILES, 0, 0) })? == 0)
}

/// The calling thread's id.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: no arguments, can't fail.
    unsafe { libc::gettid() }
}

/// Makes the calling thread real-time (first in, first out, priority 10); its children start as ordinary ones.
pub(crate) fn become_realtime() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 10 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel reads one sched_param; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const param) }.into()).map(drop)
}

/// Makes the calling thread an ordinary one again.
pub(crate) fn become_ordinary() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one sched_param; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const param) }.into())
        .map(drop)
}

/// Keeps all of our pages in memory, so that nothing of ours is paged in while a process is stopped.
pub(crate) fn lock_memory() -> io::Result<()> {
    // SAFETY: no pointers; changes no content.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT) }.into()).map(drop)
}

/// Takes [`lock_memory`] back.
pub(crate) fn unlock_memory() -> io::Result<()> {
    // SAFETY: no pointers; changes no content.
    check(unsafe { libc::munlockall() }.into()).map(drop)
}

/// Ends the whole process at once, without running anything of ours: the watchdog's last word. The kernel then lets
/// every traced thread go.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns; exit handlers are skipped on purpose.
    unsafe { libc::_exit(code) }
}

/// Does the stopped task have its system calls delivered as SIGSYS (prctl(2), PR_SET_SYSCALL_USER_DISPATCH)? Kernels before
/// 6.4 can't say; programs that do it there are as rare as the kernels.
pub(crate) fn dispatches_syscalls(tid: i32) -> bool {
    /// `PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG` and its `struct ptrace_sud_config` (include/uapi/linux/ptrace.h).
    const GET_CONFIG: libc::c_uint = 0x4211;
    let mut config = [0_u64; 4];
    // SAFETY: the kernel writes at most the given size into `config`.
    let result =
        unsafe { libc::ptrace(GET_CONFIG, tid, size_of_val(&config), config.as_mut_ptr()) };
    result == 0 && config[0] != 0
}

/// Kills this process as `kill -9` would: what failpoints do.
pub(crate) fn kill_self() {
    // SAFETY: no pointers.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// Maps a whole file for reading, private. Reading the map raises SIGBUS if somebody truncates the file meanwhile, which ends
/// `upatch`: for files too large to be read, before anything of the target is held.
pub(crate) fn map_for_reading(file: &std::fs::File) -> io::Result<memmap2::Mmap> {
    // SAFETY: nobody of ours writes the file; bytes that others change meanwhile are only parsed, by readers that
    // believe nothing they read before.
    unsafe { memmap2::Mmap::map(file) }
}

/// Runs machine code of ours as `u64 f(u8 *memory, u64 len)` in this process: for `upatch run`, which starts a child process
/// for it.
pub(crate) fn execute(code: &[u8], memory: &mut [u8]) -> io::Result<u64> {
    let at = map_code(code)?;
    // SAFETY: the compiler's code follows the C calling convention. What the program itself does to memory nobody has
    // proven; that is why this is a child process that holds nothing.
    let function: extern "C" fn(*mut u8, u64) -> u64 = unsafe { std::mem::transmute(at) };
    Ok(function(memory.as_mut_ptr(), memory.len() as u64))
}

/// A mapping with this code, written first and executable only then; it stays until the process ends.
fn map_code(code: &[u8]) -> io::Result<*mut libc::c_void> {
    let len = code.len().max(1);
    // SAFETY: a new private mapping; nothing of ours lies there.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is writable and `len` bytes long, and nobody else knows it.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), at.cast(), code.len()) };
    // SAFETY: our own mapping.
    if unsafe { libc::mprotect(at, len, libc::PROT_READ | libc::PROT_EXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(at)
}
