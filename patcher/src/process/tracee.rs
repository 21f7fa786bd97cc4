//! One traced thread: its stops, told apart, and the rules for what was interrupted.
//!
//! Knows ptrace(2) and what the kernel leaves in the registers of an interrupted system call. Doesn't decide whom to
//! stop or why. Never single-steps and never writes a breakpoint: both can outlive a killed tracer (FACTS section 6).

use std::io;
use std::time::{Duration, Instant};

use upatch_trampolines::Avma;

use super::memory::Memory;
use super::sys::{self, Regs};

/// Why a traced thread has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Because we asked.
    Interrupt,
    /// Because the whole process is stopped by this signal.
    Group(i32),
    /// Because this signal is about to be delivered.
    Signal(i32),
    /// At the entry or the exit of a system call.
    Syscall,
    /// It has given birth to this task, which is traced from its first moment.
    Birth(i32),
    /// Another event that we didn't ask for.
    Other,
    /// It has ended.
    Gone,
}

/// `TRACECLONE | TRACEFORK | TRACEVFORK`: whoever is born by a traced thread is traced.
pub(super) const TRACE_BIRTHS: i32 =
    libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;

/// Tells stops of a seized thread apart by the raw status; ptrace(2), "Stopped states".
fn decode(tid: i32, status: i32) -> Stop {
    if !libc::WIFSTOPPED(status) {
        return Stop::Gone;
    }
    let signal = libc::WSTOPSIG(status);
    match (status >> 16, signal) {
        (0, s) if s == libc::SIGTRAP | 0x80 => Stop::Syscall,
        (0, s) => Stop::Signal(s),
        (libc::PTRACE_EVENT_STOP, libc::SIGTRAP) => Stop::Interrupt,
        (libc::PTRACE_EVENT_STOP, s) => Stop::Group(s),
        (libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK, _) => {
            match sys::event_message(tid).map(i32::try_from) {
                Ok(Ok(born)) => Stop::Birth(born),
                Ok(Err(_)) | Err(_) => Stop::Other,
            }
        }
        (_, _) => Stop::Other,
    }
}

/// The stop that `tid` has to report, if there is one. A thread that vanished counts as [`Stop::Gone`].
pub(super) fn stop_now(tid: i32) -> io::Result<Option<Stop>> {
    match sys::wait_now(tid) {
        Ok(status) => Ok(status.map(|status| decode(tid, status))),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ECHILD | libc::ESRCH)) => {
            Ok(Some(Stop::Gone))
        }
        Err(error) => Err(error),
    }
}

/// Waits for the next stop of `tid`: looks a few times without sleeping, then sleeps between looks. `None`: deadline.
pub(super) fn stop_by(tid: i32, deadline: Instant) -> io::Result<Option<Stop>> {
    let mut nap = Nap::default();
    loop {
        if let Some(stop) = stop_now(tid)? {
            return Ok(Some(stop));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        nap.take();
    }
}

/// Growing pauses between looks. A tracer that spins at real-time priority would keep the processor from the very
/// thread that it waits for.
#[derive(Default)]
pub(super) struct Nap {
    taken: u32,
}

impl Nap {
    pub(super) fn take(&mut self) {
        self.taken += 1;
        let micros = match self.taken {
            0..20 => return std::hint::spin_loop(),
            20..100 => 10,
            100..200 => 100,
            _ => 1000,
        };
        std::thread::sleep(Duration::from_micros(micros));
    }
}

const ERESTARTSYS: i64 = -512;
const ERESTARTNOINTR: i64 = -513;
const ERESTARTNOHAND: i64 = -514;
const ERESTART_RESTARTBLOCK: i64 = -516;
const EINTR: i64 = -(libc::EINTR as i64);

/// Was the thread inside a system call when it stopped?
pub(super) fn in_syscall(regs: &Regs) -> bool {
    regs.orig_rax.cast_signed() >= 0
}

/// System calls that the mere stop makes fail with EINTR although no signal was there (signal(7), "interruption of
/// system calls by stop signals"), and that have done nothing when they fail so.
fn is_interrupted_by_stops(number: i64) -> bool {
    matches!(
        number,
        libc::SYS_epoll_wait
            | libc::SYS_epoll_pwait
            | libc::SYS_epoll_pwait2
            | libc::SYS_rt_sigtimedwait
            | libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_semop
            | libc::SYS_semtimedop
            | libc::SYS_io_getevents
            | libc::SYS_io_uring_enter
            // On a socket with a timeout of its own (socket(7), SO_RCVTIMEO and SO_SNDTIMEO); having moved a byte they
            // would tell how many instead.
            | libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_preadv2
            | libc::SYS_write
            | libc::SYS_writev
            | libc::SYS_pwritev2
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg
            | libc::SYS_connect
    )
}

/// Makes a stop invisible to a system call that can't restart by itself: EINTR becomes "restart unless a handler runs",
/// and the kernel decides at the resume, when it knows whether a signal is there. Gives true if `regs` changed.
pub(super) fn mend_interrupted(regs: &mut Regs) -> bool {
    let hit = in_syscall(regs)
        && regs.rax.cast_signed() == EINTR
        && is_interrupted_by_stops(regs.orig_rax.cast_signed());
    if hit {
        regs.rax = ERESTARTNOHAND.cast_unsigned();
    }
    hit
}

/// The registers with which user code goes on if the kernel's restart logic doesn't see them: the restart done by hand.
pub(super) fn restarted_by_hand(regs: &Regs) -> Regs {
    let mut resumed = *regs;
    if in_syscall(regs) {
        match regs.rax.cast_signed() {
            ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND => {
                resumed.rax = regs.orig_rax;
                resumed.rip = regs.rip.wrapping_sub(2);
            }
            ERESTART_RESTARTBLOCK => {
                resumed.rax = libc::SYS_restart_syscall.cast_unsigned();
                resumed.rip = regs.rip.wrapping_sub(2);
            }
            _ => {}
        }
    }
    resumed
}

/// Will the kernel set the ip two bytes back when the thread resumes?
pub(super) fn will_restart(regs: &Regs) -> bool {
    restarted_by_hand(regs).rip != regs.rip
}

/// Does the thread's ip lie in its active rseq critical section? Moving its registers away would lose the abort.
/// linux/rseq.h: `rseq_cs` at offset 8; the descriptor is `{u32 version, u32 flags, u64 start, u64 length, u64 abort}`.
pub(super) fn in_rseq_section(tid: i32, memory: &Memory, ip: Avma) -> bool {
    let Ok(configuration) = sys::rseq_configuration(tid) else {
        return false;
    };
    if configuration.rseq_abi_pointer == 0 {
        return false;
    }
    let Ok(descriptor) = memory.read_u64(Avma(configuration.rseq_abi_pointer).plus(8)) else {
        return true;
    };
    if descriptor == 0 {
        return false;
    }
    let (start, len) = (
        memory.read_u64(Avma(descriptor).plus(8)),
        memory.read_u64(Avma(descriptor).plus(16)),
    );
    match (start, len) {
        (Ok(start), Ok(len)) => ip.0.wrapping_sub(start) < len,
        // Unreadable: the kernel would kill the thread for it, and we don't add to that.
        (_, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regs(orig_rax: i64, rax: i64) -> Regs {
        let mut regs = sys::no_registers();
        regs.orig_rax = orig_rax.cast_unsigned();
        regs.rax = rax.cast_unsigned();
        regs.rip = 0x1002;
        regs
    }

    #[test]
    fn restarts_what_the_kernel_would_restart() {
        for (rax, expected) in [(-512, 7), (-513, 7), (-514, 7), (-516, 219)] {
            let resumed = restarted_by_hand(&regs(7, rax));
            assert_eq!((resumed.rax, resumed.rip), (expected, 0x1000));
        }
        for untouched in [regs(7, -4), regs(7, 12), regs(-1, -512)] {
            assert!(!will_restart(&untouched));
        }
    }

    #[test]
    fn mends_only_what_stops_break() {
        for call in [libc::SYS_epoll_wait, libc::SYS_read, libc::SYS_connect] {
            let mut broken = regs(call, -4);
            assert!(mend_interrupted(&mut broken) && will_restart(&broken));
        }
        for mut other in [
            // Interrupted for good: the descriptor is closed.
            regs(libc::SYS_close, -4),
            regs(libc::SYS_epoll_wait, 3),
            regs(-1, -4),
        ] {
            assert!(!mend_interrupted(&mut other));
        }
    }

    #[test]
    fn tells_stops_apart() {
        assert_eq!(decode(0, 0x0080_057f), Stop::Interrupt);
        assert_eq!(decode(0, 0x0080_137f), Stop::Group(libc::SIGSTOP));
        assert_eq!(decode(0, 0x0000_857f), Stop::Syscall);
        assert_eq!(decode(0, 0x0000_0a7f), Stop::Signal(libc::SIGUSR1));
        assert_eq!(decode(0, 0x0000_407f), Stop::Signal(64));
        assert_eq!(decode(0, 0x0000_0009), Stop::Gone);
    }
}
