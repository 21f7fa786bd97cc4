//! Routines in machine code that a patch brings along: built-in helpers, the guard, the way into the application.
//!
//! A routine is emitted once per image, only if it is used, and called with `call rel32`: arguments in rdi, rsi, rdx, rcx,
//! r8, the result in rax. They make raw system calls (which leave errno alone), touch no vector register, bake in no pid,
//! and keep what they need across a system call in registers that it preserves. Invariant: a routine overwrites only the
//! registers that [`Routine::clobbers`] names, and uses at most [`Routine::stack`] bytes of stack.

mod application;
mod comm;
mod guard;
mod ids;
mod strncmp;
mod user;

use upatch_abi::helpers::UPATCH_BASE;

use crate::asm::{Assembler, Gpr, GprSet, Label};
use crate::options::VectorState;

/// `bpf_strncmp`.
pub(crate) const STRNCMP: u32 = 182;

/// A routine. The order is the order in which they are emitted; one may call a later one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Routine {
    KtimeGetNs,
    GetPrandomU32,
    GetSmpProcessorId,
    GetCurrentPidTgid,
    GetCurrentUidGid,
    GetCurrentComm,
    ProbeWriteUser,
    ProbeReadUser,
    ProbeReadUserStr,
    Strncmp,
    /// `upatch_set_errno`, by the C library's `__errno_location`.
    SetErrno,
    /// Calls the function in r11 with everything saved that the application may change.
    CallApplication,
    /// Claims this thread's guard: rax is its offset, negative if the thread is inside already.
    GuardEnter,
    /// Gives the guard at offset rax back.
    GuardLeave,
}

/// What emitting a routine needs to know.
pub(crate) struct Surroundings {
    /// Vector state to save around calls of the application.
    pub(crate) vectors: VectorState,
    /// The number of `__errno_location` among the external functions.
    pub(crate) errno_location: u32,
    /// Where [`Routine::CallApplication`] is.
    pub(crate) call_application: Label,
}

impl Routine {
    /// The routine of a helper; `None` for `bpf_loop`, which is not one.
    pub(crate) fn of(id: u32) -> Option<Self> {
        const SET_ERRNO: u32 = UPATCH_BASE + 1;
        Some(match id {
            5 => Self::KtimeGetNs,
            7 => Self::GetPrandomU32,
            8 => Self::GetSmpProcessorId,
            14 => Self::GetCurrentPidTgid,
            15 => Self::GetCurrentUidGid,
            16 => Self::GetCurrentComm,
            36 => Self::ProbeWriteUser,
            112 => Self::ProbeReadUser,
            114 => Self::ProbeReadUserStr,
            STRNCMP => Self::Strncmp,
            SET_ERRNO => Self::SetErrno,
            _ => return None,
        })
    }

    /// What it is called in listings: a helper's own name, if it is one.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KtimeGetNs => "bpf_ktime_get_ns",
            Self::GetPrandomU32 => "bpf_get_prandom_u32",
            Self::GetSmpProcessorId => "bpf_get_smp_processor_id",
            Self::GetCurrentPidTgid => "bpf_get_current_pid_tgid",
            Self::GetCurrentUidGid => "bpf_get_current_uid_gid",
            Self::GetCurrentComm => "bpf_get_current_comm",
            Self::ProbeWriteUser => "bpf_probe_write_user",
            Self::ProbeReadUser => "bpf_probe_read_user",
            Self::ProbeReadUserStr => "bpf_probe_read_user_str",
            Self::Strncmp => "bpf_strncmp",
            Self::SetErrno => "upatch_set_errno",
            Self::CallApplication => "call of the application",
            Self::GuardEnter => "re-entry guard: enter",
            Self::GuardLeave => "re-entry guard: leave",
        }
    }

    /// A routine that it calls.
    pub(crate) fn calls(self) -> Option<Self> {
        match self {
            Self::SetErrno => Some(Self::CallApplication),
            Self::KtimeGetNs
            | Self::GetPrandomU32
            | Self::GetSmpProcessorId
            | Self::GetCurrentPidTgid
            | Self::GetCurrentUidGid
            | Self::GetCurrentComm
            | Self::ProbeWriteUser
            | Self::ProbeReadUser
            | Self::ProbeReadUserStr
            | Self::Strncmp
            | Self::CallApplication
            | Self::GuardEnter
            | Self::GuardLeave => None,
        }
    }

    /// Registers that it may change, its arguments included.
    pub(crate) fn clobbers(self) -> GprSet {
        use Gpr::{R8, R9, R10, R11, R12, Rax, Rcx, Rdi, Rdx, Rsi};
        // SYSCALL stores rip in rcx and rflags in r11 (SDM vol. 2B).
        const SYSCALL: GprSet = GprSet::of(&[Rax, Rcx, R11]);
        match self {
            Self::KtimeGetNs => SYSCALL.with(Rdi).with(Rsi),
            Self::GetPrandomU32 => GprSet::of(&[Rax, Rcx, Rdx]),
            Self::GetSmpProcessorId => SYSCALL.with(Rdi).with(Rsi).with(Rdx),
            Self::GetCurrentPidTgid | Self::GetCurrentUidGid => SYSCALL.with(Rdx),
            Self::GetCurrentComm => SYSCALL.with(Rdi).with(Rsi).with(R8).with(R9),
            Self::ProbeWriteUser | Self::ProbeReadUser | Self::ProbeReadUserStr => {
                SYSCALL.union(GprSet::of(&[Rdi, Rsi, Rdx, R8, R9, R10, R12]))
            }
            Self::Strncmp => GprSet::of(&[Rax, Rcx, Rdx, Rsi, Rdi, R8, R9]),
            Self::SetErrno | Self::CallApplication => GprSet::CALLER_SAVED,
            Self::GuardEnter => GprSet::of(&[Rax, Rcx, Rdx, R8, R9, R11]),
            Self::GuardLeave => GprSet::of(&[Rax, Rcx, Rdx, R11]),
        }
    }

    /// Most bytes of stack below the rsp with which it is entered, called functions of the application excluded.
    pub(crate) fn stack(self, vectors: VectorState) -> u32 {
        match self {
            Self::GetPrandomU32 | Self::Strncmp | Self::GuardEnter | Self::GuardLeave => 0,
            Self::KtimeGetNs | Self::GetCurrentComm => 24,
            Self::GetSmpProcessorId => 8,
            Self::GetCurrentPidTgid | Self::GetCurrentUidGid => 0,
            Self::ProbeWriteUser | Self::ProbeReadUser => 8 + user::VECTORS,
            Self::ProbeReadUserStr => 8 + user::VECTORS,
            Self::SetErrno => 16 + Self::CallApplication.stack(vectors),
            Self::CallApplication => application::stack(vectors),
        }
    }

    /// Numbers of the system calls that it makes.
    pub(crate) fn syscalls(self) -> &'static [u32] {
        match self {
            Self::KtimeGetNs => &[ids::CLOCK_GETTIME],
            Self::GetSmpProcessorId => &[ids::GETCPU],
            Self::GetCurrentPidTgid => &[ids::GETPID, ids::GETTID],
            Self::GetCurrentUidGid => &[ids::GETUID, ids::GETGID],
            Self::GetCurrentComm => &[comm::PRCTL],
            Self::ProbeWriteUser => &[ids::GETPID, user::PROCESS_VM_WRITEV],
            Self::ProbeReadUser | Self::ProbeReadUserStr => &[ids::GETPID, user::PROCESS_VM_READV],
            Self::GetPrandomU32
            | Self::Strncmp
            | Self::SetErrno
            | Self::CallApplication
            | Self::GuardEnter
            | Self::GuardLeave => &[],
        }
    }

    /// Does it use the private memory?
    pub(crate) fn uses_private(self) -> bool {
        matches!(
            self,
            Self::GetPrandomU32 | Self::GuardEnter | Self::GuardLeave
        )
    }

    /// Appends its code.
    pub(crate) fn emit(self, asm: &mut Assembler, around: &Surroundings) {
        match self {
            Self::KtimeGetNs => ids::ktime_get_ns(asm),
            Self::GetPrandomU32 => ids::prandom_u32(asm),
            Self::GetSmpProcessorId => ids::smp_processor_id(asm),
            Self::GetCurrentPidTgid => ids::pid_tgid(asm),
            Self::GetCurrentUidGid => ids::uid_gid(asm),
            Self::GetCurrentComm => comm::current_comm(asm),
            Self::ProbeWriteUser => user::probe_write(asm),
            Self::ProbeReadUser => user::probe_read(asm),
            Self::ProbeReadUserStr => user::probe_read_str(asm),
            Self::Strncmp => strncmp::strncmp(asm),
            Self::SetErrno => application::set_errno(asm, around),
            Self::CallApplication => application::call(asm, around.vectors),
            Self::GuardEnter => guard::enter(asm),
            Self::GuardLeave => guard::leave(asm),
        }
    }
}

/// `mov eax, number; syscall`.
fn syscall(asm: &mut Assembler, number: u32) {
    asm.mov_ri(Gpr::Rax, number.into());
    asm.syscall();
}
