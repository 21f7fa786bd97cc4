//! What verification found out and the JIT relies on.

use std::collections::BTreeSet;

use upatch_abi::ctx::CtxField;

use crate::insn::Pc;
use crate::program::{Program, ProgramKind};

/// How one load, store or atomic reaches memory, the same on every path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// ctx at this constant byte offset (aligned to the access's size, inside one field).
    Ctx {
        /// Byte offset in ctx.
        offset: u16,
    },
    /// Memory proven in bounds (stack, read-only data, helper memory, arena): a plain access.
    Plain,
    /// The arena without a proof of bounds: the JIT confines the address to the window.
    ArenaMasked,
}

/// What is known of R0 at an exit of the program itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Always UPATCH_CONTINUE.
    Continue,
    /// Always UPATCH_RETURN.
    Return,
    /// Either, by R0 at run time (0 or 1, proven).
    Dynamic,
    /// R0 is ignored (probes) or is the result (`ProgramKind::Memory`).
    Ignored,
}

/// Facts about a program that was verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Per slot: is it reachable?
    pub reachable: Vec<bool>,
    /// Per slot: how a memory instruction reaches memory; `None` elsewhere and where unreachable.
    pub access: Vec<Option<Access>>,
    /// Per slot: verdict at an exit of the program itself; `None` elsewhere.
    pub verdict: Vec<Option<Verdict>>,
    /// Per subprogram (index as in [`Program::subprogs`]): bytes of BPF stack it uses, a multiple of 8, at most 512.
    pub stack: Vec<u16>,
    /// Deepest sum of BPF stack over all call chains, in bytes.
    pub total_stack: u32,
    /// Helpers called on some path.
    pub helpers: BTreeSet<u32>,
    /// External functions called on some path.
    pub externs: BTreeSet<u32>,
    /// ctx fields read on some path.
    pub ctx_reads: BTreeSet<CtxField>,
    /// ctx fields written on some path.
    pub ctx_writes: BTreeSet<CtxField>,
    /// Worst-case number of executed instructions, callbacks and may_goto iterations included.
    pub max_steps: u64,
    /// Iterations that all may_goto of one run may take together before they jump; 0 if there is none.
    pub may_goto_budget: u64,
    /// Findings that do not refuse the program, each with its place.
    pub warnings: Vec<(Pc, String)>,
}

/// A program that is proven safe: only [`crate::verify()`] makes one.
///
/// Holding a `VerifiedProgram` tells you: it terminates within `facts().max_steps` instructions; it reads no
/// uninitialised register or stack byte; every access is in bounds or confined as `facts().access` says; every helper
/// and external function gets arguments that satisfy its prototype; ctx is used and the verdict returned by the rules
/// of its section.
///
/// It cannot be forged:
/// ```compile_fail,E0451
/// # fn forge(program: upatch_verifier::Program, facts: upatch_verifier::Facts) {
/// let _ = upatch_verifier::VerifiedProgram { program, facts };
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct VerifiedProgram {
    pub(crate) program: Program,
    pub(crate) facts: Facts,
}

impl VerifiedProgram {
    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What is proven about it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// A program that nobody proved safe, for conformance cases and `upatch run --raw` only: it is compiled to another type
/// than a patch, and `apply` has no way to take it.
#[derive(Clone, Debug)]
pub struct RawProgram {
    program: Program,
    facts: Facts,
}

impl RawProgram {
    /// Takes a program of [`ProgramKind::Memory`] as it is: every access plain, everything reachable, 512 bytes of
    /// stack per subprogram. `None` for a patch or a probe.
    #[must_use]
    pub fn new(program: Program) -> Option<Self> {
        let ProgramKind::Memory { .. } = program.kind() else {
            return None;
        };
        let slots = program.insns().len();
        let facts = Facts {
            reachable: vec![true; slots],
            access: vec![Some(Access::Plain); slots],
            verdict: vec![Some(Verdict::Ignored); slots],
            stack: vec![512; program.subprogs().len()],
            total_stack: 512 * 8,
            helpers: BTreeSet::new(),
            externs: BTreeSet::new(),
            ctx_reads: BTreeSet::new(),
            ctx_writes: BTreeSet::new(),
            max_steps: u64::MAX,
            may_goto_budget: 1 << 23,
            warnings: Vec::new(),
        };
        Some(Self { program, facts })
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// What is assumed about it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}
