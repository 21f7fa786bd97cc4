//! Where a path may end because an earlier one stands for it, and where states are widened.

use super::{Explorer, Run, endless};
use crate::insn::{AluOp, Insn, Operand, Pc};
use crate::verify::graph::NodeId;
use crate::verify::obligations::Obligation;
use crate::verify::rejection::Refused;
use crate::verify::saved::Saved;
use crate::verify::state::State;
use crate::verify::value::Value;

/// Widenings at one place from one limit to the next; after as many again without limits everything that still changes is
/// given up.
const PATIENCE: usize = 12;
/// Limits that are tried.
const LIMITS: usize = 256;

/// What a look at the remembered states says.
pub(super) enum Found {
    /// The path ends in an explored node.
    Covered(NodeId),
    /// Go on, possibly with a widened state.
    New,
}

impl Explorer<'_, '_> {
    /// Does this path end here? If not, the state is what to go on with: cleaned, and widened at a may_goto.
    pub(super) fn look_up(
        &mut self,
        run: &mut Run,
        node: NodeId,
        state: &mut State,
        pc: Pc,
    ) -> Result<Found, Box<Refused>> {
        state.clean(pc, &self.liveness);
        let Run { saved, graph, .. } = run;
        let Some(saved) = saved.get_mut(&pc) else {
            return Ok(Found::New);
        };
        let is_open = |other: NodeId| other == node || graph.is_open(other);
        let covering = saved.candidates(state).find(|candidate| {
            let ends_here = !is_open(candidate.node) || graph.consumed_since(candidate.node, node);
            ends_here && candidate.state.covers(state)
        });
        if let Some(candidate) = covering {
            return Ok(Found::Covered(candidate.node));
        }
        let mut open: Option<(&Saved, usize)> = None;
        let mut endless_loop = false;
        for candidate in saved.open(is_open) {
            if graph.consumed_since(candidate.node, node) {
                if candidate.state.is_same_shape(state) {
                    open = Some(match open {
                        None => (candidate, 1),
                        Some((latest, count)) => (latest, count + 1),
                    });
                }
            } else if state.covers(&candidate.state) {
                endless_loop = true;
                break;
            }
        }
        if endless_loop {
            return Err(self.refused(run, node, pc, Obligation::Terminates, endless()));
        }
        let at_may_goto = matches!(
            self.rules.program.insns().get(pc.index()),
            Some(Insn::MayGoto { .. })
        );
        if let (Some((latest, count)), true) = (open, at_may_goto) {
            *state = widen(&latest.state, state, count, &self.limits);
        }
        Ok(Found::New)
    }

    pub(super) fn remember(&mut self, run: &mut Run, node: NodeId, state: &State, pc: Pc) {
        let at_may_goto = matches!(
            self.rules.program.insns().get(pc.index()),
            Some(Insn::MayGoto { .. })
        );
        let Run { saved, graph, .. } = run;
        let saved = saved.entry(pc).or_default();
        self.remembered -= saved.make_room(|other| other == node || graph.is_open(other));
        if self.remembered < self.rules.policy.max_states || at_may_goto {
            self.remembered += state.weight();
            saved.push(Saved {
                state: state.clone(),
                node,
            });
        }
    }
}

/// Numbers that the program compares with, and their neighbours: where the bounds of loop counters end.
pub(super) fn limits(insns: &[Insn]) -> Vec<i64> {
    let mut limits = vec![-1, 0, 1];
    for insn in insns {
        match *insn {
            Insn::JumpIf {
                src: Operand::Imm(imm),
                ..
            } => {
                let imm = i64::from(imm);
                limits.extend([imm - 1, imm, imm + 1]);
            }
            Insn::Alu {
                op: AluOp::And,
                src: Operand::Imm(imm),
                ..
            } => limits.push(imm.into()),
            Insn::Alu { .. }
            | Insn::MovSx { .. }
            | Insn::Neg { .. }
            | Insn::Endian { .. }
            | Insn::AddrSpaceCast { .. }
            | Insn::LdImm64 { .. }
            | Insn::LdImm64Tail
            | Insn::Load { .. }
            | Insn::Store { .. }
            | Insn::Atomic { .. }
            | Insn::LoadAcquire { .. }
            | Insn::StoreRelease { .. }
            | Insn::Jump { .. }
            | Insn::JumpIf { .. }
            | Insn::MayGoto { .. }
            | Insn::Call { .. }
            | Insn::Exit => {}
        }
    }
    limits.sort_unstable();
    limits.dedup();
    limits.truncate(LIMITS);
    limits
}

/// A state that covers both, on the way to one that no iteration changes.
pub(super) fn widen(old: &State, new: &State, rounds: usize, limits: &[i64]) -> State {
    if rounds <= PATIENCE {
        old.merge(new, |old, new| old.widen(new, limits))
    } else if rounds <= 2 * PATIENCE {
        old.merge(new, |old, new| old.widen(new, &[]))
    } else {
        old.merge(new, Value::give_up)
    }
}
