//! Which registers are read later, over all paths, and which instructions are therefore without effect.
//!
//! Backward data flow until nothing changes (Muchnick, *Advanced Compiler Design*, §14.1.3). A base of a ctx access is not
//! a read: those become registers. Invariant: a register outside a live set can hold anything there.

use upatch_verifier::facts::{Facts, Verdict};
use upatch_verifier::insn::{Insn, Pc, Reg};
use upatch_verifier::program::{Program, ProgramKind};

use super::{Op, RegSet};

/// The program to analyse.
pub(crate) struct Flow<'a> {
    pub(crate) program: &'a Program,
    pub(crate) facts: &'a Facts,
    /// r0 at the end of the program itself counts.
    pub(crate) keep_result: bool,
}

/// The result.
pub(crate) struct Live {
    /// Per slot: what is live after it.
    pub(crate) out: Vec<RegSet>,
    /// Per subprogram: what is live at its start.
    pub(crate) live_in: Vec<RegSet>,
}

impl Flow<'_> {
    /// Computes liveness; what a subprogram reads is found together with what its callers pass.
    pub(crate) fn liveness(&self, ops: &[Op]) -> Live {
        let mut live = Live {
            out: vec![RegSet::EMPTY; ops.len()],
            live_in: vec![RegSet::EMPTY; self.program.subprogs().len()],
        };
        let mut before = vec![RegSet::EMPTY; ops.len() + 1];
        loop {
            let mut changed = false;
            for (at, op) in ops.iter().enumerate().rev() {
                let out = self.after(at, op, &before);
                let effect = self.effect(at, op, &live.live_in);
                let input = out.minus(effect.writes).minus(effect.kills).union(
                    if effect.lasting || !is_dead(&effect, out) {
                        effect.reads
                    } else {
                        RegSet::EMPTY
                    },
                );
                if let (Some(place), Some(place_out)) = (before.get_mut(at), live.out.get_mut(at)) {
                    changed |= *place != input;
                    *place = input;
                    *place_out = out;
                }
            }
            for (subprog, live_in) in self.program.subprogs().iter().zip(&mut live.live_in) {
                let start = before.get(subprog.start.index()).copied();
                let start = start.unwrap_or_default();
                changed |= *live_in != start;
                *live_in = start;
            }
            if !changed {
                return live;
            }
        }
    }

    /// What is live after slot `at`: the union over where control goes.
    fn after(&self, at: usize, op: &Op, before: &[RegSet]) -> RegSet {
        let at_pc = |pc: Pc| before.get(pc.index()).copied().unwrap_or_default();
        let next = before.get(at + 1).copied().unwrap_or_default();
        match op {
            Op::Plain(Insn::Jump { target }) => at_pc(*target),
            Op::Plain(Insn::JumpIf { target, .. } | Insn::MayGoto { target }) => {
                next.union(at_pc(*target))
            }
            Op::Plain(Insn::Exit) => RegSet::EMPTY,
            Op::Nothing
            | Op::Plain(_)
            | Op::Update { .. }
            | Op::Loop { .. }
            | Op::Strncmp { .. } => next,
        }
    }

    /// Removes ops that only write registers nobody reads, and jumps to where control goes anyway.
    pub(crate) fn remove_dead(&self, ops: &mut [Op], live: &Live) {
        // Backwards, so that what a jump skips is already gone; `next` is the first slot from here on with something left.
        let mut next = ops.len();
        for at in (0..ops.len()).rev() {
            let Some(op) = ops.get_mut(at) else { continue };
            let effect = self.effect(at, op, &live.live_in);
            let out = live.out.get(at).copied().unwrap_or_default();
            let goes_on = match op {
                Op::Plain(Insn::Jump { target } | Insn::JumpIf { target, .. }) => {
                    target.index() > at && target.index() <= next
                }
                Op::Nothing
                | Op::Plain(_)
                | Op::Update { .. }
                | Op::Loop { .. }
                | Op::Strncmp { .. } => false,
            };
            if goes_on || !effect.lasting && is_dead(&effect, out) {
                *op = Op::Nothing;
            }
            if *op != Op::Nothing {
                next = at;
            }
        }
    }

    /// What the exit at slot `at` hands on.
    pub(crate) fn result_at(&self, at: usize) -> RegSet {
        let result = RegSet::EMPTY.with(Reg::R0);
        let main = self.program.subprogs().first();
        if main.is_none_or(|main| at >= main.end.index()) || self.keep_result {
            return result;
        }
        let verdict = self.facts.verdict.get(at).copied().flatten();
        match (verdict, self.program.kind()) {
            (Some(Verdict::Dynamic), _) => result,
            (Some(Verdict::Ignored) | None, ProgramKind::Memory { .. }) => result,
            (Some(Verdict::Continue | Verdict::Return | Verdict::Ignored) | None, _) => {
                RegSet::EMPTY
            }
        }
    }

    /// What the subprogram at `target` reads of its caller's registers.
    pub(crate) fn live_in_of(&self, target: Pc, live_in: &[RegSet]) -> RegSet {
        let index = self
            .program
            .subprogs()
            .binary_search_by_key(&target, |subprog| subprog.start);
        let known = index.ok().and_then(|index| live_in.get(index));
        known.copied().unwrap_or_default()
    }
}

fn is_dead(effect: &super::Effect, out: RegSet) -> bool {
    effect.writes.intersection(out) == RegSet::EMPTY
}
