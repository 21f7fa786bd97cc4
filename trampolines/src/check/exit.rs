//! What must hold where a hook ends: at the displaced instructions (continue) and at its own `ret` (refusal).

use super::Problem;
use super::memory::Memory;
use super::state::{RSP, State};
use super::value::{Anchor, Kept, Value};
use crate::fragment::{GPR_NAMES, GprSet};
use crate::function::SiteKind;

/// Checks the state in which the displaced instructions are reached.
pub(crate) fn at_continue(memory: Memory<'_>, state: &State) -> Result<(), Problem> {
    let policy = memory.policy;
    let offset = memory.image.displaced.kind() == SiteKind::Offset;
    // Inside a function everything is live, whatever the caller believes to be free.
    let free = if offset { GprSet::EMPTY } else { policy.free };
    kept(
        state,
        free.minus(GprSet::CALLEE_SAVED).union(policy.may_write),
        "continue",
    )?;
    if state.flags != Kept::Entry && (offset || !policy.flags_free) {
        return Err(Problem::FlagsNotKept);
    }
    vectors(state)
}

/// Checks the state in which the hook returns in the function's stead.
pub(crate) fn at_return(memory: Memory<'_>, state: &State) -> Result<(), Problem> {
    if memory.image.displaced.kind() == SiteKind::Offset {
        return Err(Problem::ReturnsInside);
    }
    const RESULT: GprSet = GprSet::of(&[0, 2]);
    let clobberable = memory
        .policy
        .clobberable
        .union(memory.policy.free)
        .union(RESULT);
    kept(state, clobberable.minus(GprSet::CALLEE_SAVED), "return")?;
    vectors(state)
}

/// rsp and all registers but `lost` hold what they held at the entry.
fn kept(state: &State, lost: GprSet, exit: &'static str) -> Result<(), Problem> {
    if state.reg(RSP) != Value::Stack(Anchor::Entry, 0, 0) {
        return Err(Problem::Unbalanced {
            exit,
            known: state.reg(RSP).to_string(),
        });
    }
    let must_hold = GprSet::ALL.minus(GprSet::of(&[RSP])).minus(lost);
    for number in must_hold.iter() {
        let value = state.reg(number);
        if value != Value::Entry(number) {
            let register = GPR_NAMES[usize::from(number)];
            return Err(Problem::NotKept {
                exit,
                register,
                known: value.to_string(),
            });
        }
    }
    Ok(())
}

fn vectors(state: &State) -> Result<(), Problem> {
    if state.vectors == Kept::Entry {
        Ok(())
    } else {
        Err(Problem::VectorsNotKept)
    }
}
