//! The interpreter's outside: what goes into a run, what comes out, and what can go wrong.
//!
//! Lays out the memory of a run; executes nothing itself (`run` does).

use upatch_abi::{arena, ctx};
use upatch_verifier::facts::{Access, Facts, RawProgram, Verdict, VerifiedProgram};
use upatch_verifier::insn::{Pc, Reg};
use upatch_verifier::program::{Program, ProgramKind};

use super::helpers::{HelperFault, Helpers};
use super::memory::{
    CTX_BASE, DATA_BASE, MEMORY_BASE, Memory, MemoryFault, Region, Writable, arena_size,
};
use super::run::Run;

/// Most frames at a time (Linux: MAX_CALL_FRAMES).
pub const MAX_FRAMES: usize = 8;

/// Why a program could not go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum Fault {
    #[error("slot {}: {fault}", at.0)]
    Memory { at: Pc, fault: MemoryFault },
    #[error("slot {}: {fault}", at.0)]
    Helper { at: Pc, fault: HelperFault },
    #[error("slot {}: r{} is read before it is written", at.0, reg.number())]
    UninitRegister { at: Pc, reg: Reg },
    #[error("slot {}: more than {MAX_FRAMES} calls deep", at.0)]
    TooDeep { at: Pc },
    #[error("slot {}: {limit} instructions are used up", at.0)]
    StepLimit { at: Pc, limit: u64 },
    #[error("slot {}: {value:#x} is not a callback", at.0)]
    BadCallback { at: Pc, value: u64 },
    #[error("slot {}: proven to be unreachable, but reached", at.0)]
    Unreachable { at: Pc },
    #[error("slot {}: reaches {addr:#x}, proven to be {proven:?}", at.0)]
    WrongAccess { at: Pc, addr: u64, proven: Access },
    #[error("slot {}: returns {r0:#x}, proven to be {proven:?}", at.0)]
    WrongVerdict { at: Pc, r0: u64, proven: Verdict },
    #[error("slot {}: there is no instruction", at.0)]
    NoInstruction { at: Pc },
    #[error("an arena of {len} bytes does not exist")]
    NoArena { len: u64 },
}

/// What a run begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// ctx of a patch or probe.
    pub ctx: [u8; ctx::SIZE as usize],
    /// What r1 of a [`ProgramKind::Memory`] program points at; cut or filled with zeros to its length.
    pub memory: Vec<u8>,
    /// Where the arena lies; a multiple of its window.
    pub arena_base: u64,
    /// The arena's first bytes; the rest of window and slack is zero.
    pub arena: Vec<u8>,
    /// Instructions to execute at most.
    pub step_limit: u64,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            ctx: [0; ctx::SIZE as usize],
            memory: Vec::new(),
            arena_base: 0x4000_0000_0000,
            arena: Vec::new(),
            step_limit: 10_000_000,
        }
    }
}

/// What a run ends with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// r0 at the end, or why there was no end.
    pub r0: Result<u64, Fault>,
    /// Executed instructions, a 64-bit immediate counting once.
    pub steps: u64,
    /// ctx afterwards; empty for a [`ProgramKind::Memory`] program.
    pub ctx: Vec<u8>,
    /// The memory argument afterwards.
    pub memory: Vec<u8>,
    /// The arena afterwards, with its slack.
    pub arena: Vec<u8>,
}

/// A program, ready to run.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'p> {
    pub(super) program: &'p Program,
    pub(super) facts: &'p Facts,
    /// Hold the program to its facts.
    pub(super) strict: bool,
}

impl<'p> Machine<'p> {
    /// Runs a verified program and checks it against what was proven.
    #[must_use]
    pub fn verified(verified: &'p VerifiedProgram) -> Self {
        Self {
            program: verified.program(),
            facts: verified.facts(),
            strict: true,
        }
    }

    /// Runs a program that nobody verified.
    #[must_use]
    pub fn raw(raw: &'p RawProgram) -> Self {
        Self {
            program: raw.program(),
            facts: raw.facts(),
            strict: false,
        }
    }

    /// Runs it to its end, or to a fault.
    pub fn run(&self, input: &Input, helpers: &mut dyn Helpers) -> Output {
        self.run_observed(input, helpers, &mut |_, _| {})
    }

    /// Runs it and shows `observer` the place and r0 to r10 before each instruction.
    pub fn run_observed(
        &self,
        input: &Input,
        helpers: &mut dyn Helpers,
        observer: &mut dyn FnMut(Pc, &[u64; 11]),
    ) -> Output {
        let window = arena::window_for(self.program.arena().len).unwrap_or(arena::PAGE);
        let Some(regions) = self.regions(input) else {
            let len = self.program.arena().len;
            return Output {
                r0: Err(Fault::NoArena { len }),
                steps: 0,
                ctx: Vec::new(),
                memory: Vec::new(),
                arena: Vec::new(),
            };
        };
        let arena_at = (input.arena_base, window);
        let mut run = Run::new(
            *self,
            helpers,
            Memory::new(regions),
            arena_at,
            input.step_limit,
        );
        let r0 = run.execute(observer);
        Output {
            r0,
            steps: run.steps(),
            ctx: run.take(CTX_BASE),
            memory: run.take(MEMORY_BASE),
            arena: run.take(input.arena_base),
        }
    }

    fn regions(&self, input: &Input) -> Option<Vec<Region>> {
        let mut regions = Vec::new();
        match self.program.kind() {
            ProgramKind::Memory { mem_len } => {
                let mut bytes = input.memory.clone();
                bytes.resize(mem_len as usize, 0);
                regions.push(Region::new(MEMORY_BASE, bytes, Writable::Yes));
            }
            kind @ (ProgramKind::PatchEntry | ProgramKind::PatchOffset | ProgramKind::Probe) => {
                let bytes = input.ctx.to_vec();
                regions.push(Region::new(CTX_BASE, bytes, Writable::Ctx(kind)));
            }
        }
        if self.program.arena().len > 0 {
            let mut bytes = input.arena.clone();
            bytes.resize(arena_size(self.program.arena().len)?, 0);
            regions.push(Region::new(input.arena_base, bytes, Writable::Yes));
        }
        for (base, data) in self.data_bases().zip(self.program.data()) {
            regions.push(Region::new(base, data.bytes.clone(), Writable::No));
        }
        Some(regions)
    }

    /// Address of each data object: 16 bytes apart at least, so that one past the end of one is not another.
    pub(super) fn data_bases(&self) -> impl Iterator<Item = u64> {
        self.program.data().iter().scan(DATA_BASE, |next, data| {
            let base = *next;
            *next += (data.bytes.len() as u64 + 31) & !15;
            Some(base)
        })
    }
}
