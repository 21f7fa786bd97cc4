//! Facts as they come in from every explored state, merged over all paths.

use std::collections::BTreeSet;

use upatch_abi::ctx::CtxField;

use super::place::{Place, Span};
use crate::facts::{Access, Verdict};
use crate::insn::Pc;
use crate::program::Program;

/// What one memory instruction was seen to reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reach {
    access: Access,
    /// Some path reaches memory that is not the arena's: masking would be wrong.
    outside_arena: bool,
}

/// Facts so far.
pub(crate) struct Record {
    pub(crate) reachable: Vec<bool>,
    reach: Vec<Option<Reach>>,
    pub(crate) verdict: Vec<Option<Verdict>>,
    pub(crate) stack: Vec<u16>,
    pub(crate) helpers: BTreeSet<u32>,
    pub(crate) externs: BTreeSet<u32>,
    pub(crate) ctx_reads: BTreeSet<CtxField>,
    pub(crate) ctx_writes: BTreeSet<CtxField>,
    /// Per slot: the arena bytes that it may begin at.
    pub(crate) arena_spans: Vec<Option<Span>>,
}

impl Record {
    pub(crate) fn new(program: &Program) -> Self {
        let slots = program.insns().len();
        Self {
            reachable: vec![false; slots],
            reach: vec![None; slots],
            verdict: vec![None; slots],
            stack: vec![0; program.subprogs().len()],
            helpers: BTreeSet::new(),
            externs: BTreeSet::new(),
            ctx_reads: BTreeSet::new(),
            ctx_writes: BTreeSet::new(),
            arena_spans: vec![None; slots],
        }
    }

    /// The instruction at `pc` reaches `place`. False: on another path it reaches memory of another kind, and no one
    /// machine instruction does for both.
    #[must_use]
    pub(crate) fn access(&mut self, pc: Pc, place: Place) -> bool {
        if let Place::Arena(span) = place
            && let Some(slot) = self.arena_spans.get_mut(pc.index())
        {
            *slot = Some(slot.map_or(span, |known| Span {
                low: known.low.min(span.low),
                high: known.high.max(span.high),
            }));
        }
        let new = match place {
            Place::Ctx(offset) => Reach {
                access: Access::Ctx { offset },
                outside_arena: true,
            },
            Place::Stack(..) | Place::Data(..) | Place::Memory => Reach {
                access: Access::Plain,
                outside_arena: true,
            },
            Place::Arena(_) => Reach {
                access: Access::Plain,
                outside_arena: false,
            },
            Place::ArenaMasked => Reach {
                access: Access::ArenaMasked,
                outside_arena: false,
            },
        };
        let Some(slot) = self.reach.get_mut(pc.index()) else {
            return false;
        };
        let Some(old) = *slot else {
            *slot = Some(new);
            return true;
        };
        let outside_arena = old.outside_arena || new.outside_arena;
        let access = match (old.access, new.access) {
            (Access::Ctx { offset }, Access::Ctx { offset: other }) if offset == other => {
                old.access
            }
            (Access::Plain, Access::Plain) => Access::Plain,
            (Access::ArenaMasked, Access::Plain | Access::ArenaMasked)
            | (Access::Plain, Access::ArenaMasked)
                if !outside_arena =>
            {
                Access::ArenaMasked
            }
            (
                Access::Ctx { .. } | Access::Plain | Access::ArenaMasked,
                Access::Ctx { .. } | Access::Plain | Access::ArenaMasked,
            ) => return false,
        };
        *slot = Some(Reach {
            access,
            outside_arena,
        });
        true
    }

    /// The function `subprog` touches its stack from `offset` (negative) on.
    pub(crate) fn stack_use(&mut self, subprog: usize, offset: i64) {
        let bytes = offset.unsigned_abs().next_multiple_of(8);
        if let (Some(slot), Ok(bytes)) = (self.stack.get_mut(subprog), u16::try_from(bytes)) {
            *slot = (*slot).max(bytes);
        }
    }

    pub(crate) fn verdict(&mut self, pc: Pc, verdict: Verdict) {
        if let Some(slot) = self.verdict.get_mut(pc.index()) {
            *slot = Some(match *slot {
                None => verdict,
                Some(known) if known == verdict => verdict,
                Some(_) => Verdict::Dynamic,
            });
        }
    }

    pub(crate) fn accesses(&self) -> Vec<Option<Access>> {
        self.reach
            .iter()
            .map(|reach| reach.map(|reach| reach.access))
            .collect()
    }
}
