//! The machine-code check: follows an image's instructions on all paths and proves what a hook must keep to.
//!
//! Shares nothing with the JIT but the x86 manual: it sees bytes, an address and a policy. Knows no BPF. Subroutines
//! inside the image are followed once per call path, so that pointers into their callers' frames keep their meaning;
//! recursion is refused. What it can't follow it refuses: a refusal of good code costs a patch, an accepted bad one a
//! process. Invariant: states are only ever joined upwards, and every instruction whose address is reached is checked
//! in a state that covers each execution that reaches it.

mod allowed;
mod compute;
mod displaced;
mod exit;
mod explore;
mod link;
mod memory;
mod needed;
mod number;
mod operand;
mod range;
mod refine;
mod state;
mod step;
mod syscall;
mod value;
mod vectors;

use crate::address::{Avma, AvmaRange};
use crate::fragment::GprSet;
use crate::image::{CheckedImage, TrampolineImage};

/// A range of thread-local storage, relative to `fs`'s base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlsWindow {
    /// First byte, often negative.
    pub offset: i64,
    /// Bytes.
    pub len: u32,
}

/// How vector registers may be saved around calls of the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VectorState {
    /// State components (bits of XCR0) that must be saved, all that the application may use.
    pub mask: u64,
    /// Bytes of the XSAVE area for them (CPUID leaf 0xd, the larger of the standard and the compacted format).
    pub bytes: u32,
}

/// What a hook may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckPolicy {
    /// Registers whose value at the entry matters to nobody: may hold anything when the call continues.
    pub free: GprSet,
    /// Registers that callers can't count on: may hold anything when the call is refused (rax and rdx always may).
    /// A superset of `free`: an argument that the function would have overwritten belongs here, not there.
    pub clobberable: GprSet,
    /// Registers that the patch means to change for the function that continues.
    pub may_write: GprSet,
    /// Are the flags dead at the entry? At `function+offset` they never are, whatever this says.
    pub flags_free: bool,
    /// Functions of the application that may be called.
    pub externs: Vec<Avma>,
    /// The one of them that is the C library's `__errno_location`, whose result may be written through.
    pub errno_location: Option<Avma>,
    /// Shared memory that may be read and written. May be empty.
    pub arena: AvmaRange,
    /// The image's private data, that may be read and written. May be empty.
    pub private: AvmaRange,
    /// The gate byte of a patch with several sites: may be read, never written.
    pub gate: Option<Avma>,
    /// System calls that may be made, by number.
    pub syscalls: Vec<u32>,
    /// Thread-local words that may be read.
    pub tls_reads: Vec<TlsWindow>,
    /// Thread-local words that may be written.
    pub tls_writes: Vec<TlsWindow>,
    /// Vector state to save around calls of the application; without it there can be no such calls.
    pub vectors: Option<VectorState>,
    /// Most bytes of stack below the entry's rsp, called functions of the application excluded.
    pub max_stack: u32,
    /// Instructions stepped path by path, where joined paths show too little, before the image is refused. It decides
    /// how long a refusal may take (10,000 take milliseconds), never what is safe.
    pub path_steps: u32,
}

impl CheckPolicy {
    /// Allows nothing but computing: no free register, no memory but `max_stack` bytes of frame. A start for struct
    /// update syntax.
    #[must_use]
    pub const fn strict(max_stack: u32) -> Self {
        const NOWHERE: AvmaRange = AvmaRange {
            start: Avma(0),
            end: Avma(0),
        };
        Self {
            free: GprSet::EMPTY,
            clobberable: GprSet::EMPTY,
            may_write: GprSet::EMPTY,
            flags_free: true,
            externs: Vec::new(),
            errno_location: None,
            arena: NOWHERE,
            private: NOWHERE,
            gate: None,
            syscalls: Vec::new(),
            tls_reads: Vec::new(),
            tls_writes: Vec::new(),
            vectors: None,
            max_stack,
            path_steps: 100_000,
        }
    }
}

/// Why an image is refused, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{at} `{text}`: {problem}")]
pub struct CheckFailure {
    /// Address of the instruction, in the image.
    pub at: Avma,
    /// The instruction, or what stands there instead.
    pub text: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What an image's code does that it must not, or that can't be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// The bytes are no instruction.
    #[error("not an instruction")]
    Undecodable,
    /// Control leaves the hook's code.
    #[error("control goes to {to}, outside the hook's code")]
    LeavesCode {
        /// Where to.
        to: Avma,
    },
    /// Two instructions that can both be reached share bytes.
    #[error("overlaps the instruction at {other}")]
    Overlaps {
        /// The other one.
        other: Avma,
    },
    /// An instruction that hooks have no business executing, or that is not modelled.
    #[error("the instruction is not allowed in a hook")]
    NotAllowed,
    /// A register other than the general-purpose ones.
    #[error("touches register {register}")]
    Register {
        /// Its name.
        register: String,
    },
    /// An access outside what is allowed, or at an address that is not known well enough.
    #[error(
        "{access} of {size} bytes at {address} is not known to be in the frame, the arena or private data"
    )]
    Memory {
        /// `load` or `store`.
        access: &'static str,
        /// What is known of the address.
        address: String,
        /// Bytes.
        size: u64,
    },
    /// A store at or above the entry's rsp: the return address and the caller's frame.
    #[error("store of {size} bytes at entry rsp{offset:+}, in the caller's frame")]
    AboveFrame {
        /// Highest offset from the entry's rsp.
        offset: i64,
        /// Bytes.
        size: u64,
    },
    /// An access to stack that a signal handler may overwrite at any time.
    #[error("the stack at entry rsp{offset:+} lies more than 128 bytes below rsp")]
    BelowRedZone {
        /// Lowest offset from the entry's rsp.
        offset: i64,
    },
    /// A segment override that the policy doesn't allow.
    #[error("thread-local access `{text}` is not allowed")]
    ThreadLocal {
        /// The instruction.
        text: String,
    },
    /// rsp is no longer known.
    #[error("rsp is {known} afterwards, not a known place in the frame")]
    RspUnknown {
        /// What is known.
        known: String,
    },
    /// rsp is outside the frame.
    #[error("rsp would be at entry rsp{offset:+}, the frame has {stack_bytes} bytes")]
    RspOutside {
        /// Offset from the entry's rsp.
        offset: i64,
        /// Size of the frame.
        stack_bytes: u32,
    },
    /// The image says that it needs more stack than allowed.
    #[error("the hook declares {declared} bytes of stack, {allowed} are allowed")]
    StackTooLarge {
        /// Declared.
        declared: u32,
        /// Allowed.
        allowed: u32,
    },
    /// rsp is not what it was at the entry.
    #[error("rsp is {known} at the {exit}, not what it was at the entry")]
    Unbalanced {
        /// `continue` or `return`.
        exit: &'static str,
        /// What is known.
        known: String,
    },
    /// A register that must survive doesn't.
    #[error("{register} is {known} at the {exit}, not what it was at the entry")]
    NotKept {
        /// `continue` or `return`.
        exit: &'static str,
        /// The register.
        register: &'static str,
        /// What is known of it.
        known: String,
    },
    /// Flags that must survive don't.
    #[error("the flags are not what they were at the entry")]
    FlagsNotKept,
    /// Vector registers don't survive.
    #[error("the vector registers are not what they were at the entry")]
    VectorsNotKept,
    /// A verdict inside a function.
    #[error("returns from a hook that is not at a function's entry")]
    ReturnsInside,
    /// `ret` with something else than a return address on the stack.
    #[error("returns to {known}")]
    ReturnAddress {
        /// What is on the stack.
        known: String,
    },
    /// A jump to the displaced instructions from within a subroutine.
    #[error("continues from within a subroutine")]
    ContinuesInside,
    /// A subroutine that can call itself.
    #[error("recursion into {target}")]
    Recursion {
        /// The subroutine.
        target: Avma,
    },
    /// A call or jump through something that is no allowed constant.
    #[error("goes to {known}, which is no function that may be called")]
    Indirect {
        /// What is known of the target.
        known: String,
    },
    /// A call of the application from an image that says it makes none, or with no vector state declared.
    #[error("calls the application, which was not declared")]
    UndeclaredCall,
    /// rsp is not a multiple of 16 at a call of the application (psABI §3.2.2).
    #[error("the stack is not aligned at a call of the application")]
    CallAlignment,
    /// `popfq` of something else than saved flags, which could set the direction or trap flag.
    #[error("pops {known} into the flags")]
    PopsFlags {
        /// What is on the stack.
        known: String,
    },
    /// `and rsp, -64` in a state that it can't be followed in.
    #[error("rsp is aligned in a way that can't be followed")]
    Alignment,
    /// A division that is not known to give a quotient.
    #[error("division by {divisor} is not known to have a result")]
    Division {
        /// What is known of the divisor.
        divisor: String,
    },
    /// XSAVE or XRSTOR that isn't known to be right.
    #[error("saving or restoring vector registers: {reason}")]
    Xsave {
        /// What is missing.
        reason: &'static str,
    },
    /// A system call whose number is not a known, allowed constant.
    #[error("system call {known} is not allowed")]
    Syscall {
        /// What is known of rax.
        known: String,
    },
    /// A system call whose arguments are not known to be harmless.
    #[error("argument {argument} of system call {number} is {known}")]
    SyscallArgument {
        /// The call.
        number: u32,
        /// The register.
        argument: &'static str,
        /// What is known of it.
        known: String,
    },
    /// A displaced instruction's copy doesn't do what the original did.
    #[error("is not the copy of `{original}`")]
    NotACopy {
        /// The original.
        original: String,
    },
    /// More paths than the check will follow.
    #[error("too many paths to follow")]
    TooComplex,
}

/// Follows all paths of `image` and proves that they keep to `policy`.
///
/// # Errors
///
/// The first thing found that is wrong or can't be followed.
pub fn check(image: &TrampolineImage, policy: &CheckPolicy) -> Result<CheckedImage, CheckFailure> {
    if image.stack_bytes > policy.max_stack {
        let problem = Problem::StackTooLarge {
            declared: image.stack_bytes,
            allowed: policy.max_stack,
        };
        return Err(CheckFailure {
            at: image.at,
            text: "entry".to_owned(),
            problem,
        });
    }
    displaced::check(image)?;
    explore::explore(memory::Memory { image, policy })?;
    Ok(CheckedImage {
        image: image.clone(),
    })
}
