//! What a conditional branch shows about the register that was compared before it.
//!
//! Knows `cmp` and `test` with constants only. Invariant: a path is only called impossible if no value in the register's range
//! takes it.

use iced_x86::ConditionCode;

use super::state::{Compared, State};
use super::value::{Value, mask};

/// What a conditional branch shows about the register that was compared; `false` if it can't go that way.
pub(crate) fn refine(state: &mut State, condition: ConditionCode, taken: bool) -> bool {
    use ConditionCode as C;
    let Some(Compared {
        register,
        bits,
        with,
    }) = state.compared
    else {
        return true;
    };
    let Value::Num(low, high) = state.number(state.reg(register)) else {
        return true;
    };
    if high > mask(bits) {
        return true;
    }
    // Where neither side has its sign bit set, signed order is unsigned order.
    let positive = high <= mask(bits - 1) && with <= mask(bits - 1);
    let below = |limit: Option<u64>| limit.map(|limit| (low, high.min(limit)));
    let above = |limit: Option<u64>| limit.map(|limit| (low.max(limit), high));
    let narrowed = match (condition, taken) {
        (C::e, true) | (C::ne, false) => Some((low.max(with), high.min(with))),
        (C::e, false) | (C::ne, true) if low == with => low.checked_add(1).map(|low| (low, high)),
        (C::e, false) | (C::ne, true) if high == with => {
            high.checked_sub(1).map(|high| (low, high))
        }
        (C::e, false) | (C::ne, true) => Some((low, high)),
        (C::b, true) | (C::ae, false) => below(with.checked_sub(1)),
        (C::b, false) | (C::ae, true) => above(Some(with)),
        (C::be, true) | (C::a, false) => below(Some(with)),
        (C::be, false) | (C::a, true) => above(with.checked_add(1)),
        (C::l, true) | (C::ge, false) if positive => below(with.checked_sub(1)),
        (C::l, false) | (C::ge, true) if positive => above(Some(with)),
        (C::le, true) | (C::g, false) if positive => below(Some(with)),
        (C::le, false) | (C::g, true) if positive => above(with.checked_add(1)),
        _ => return true,
    };
    match narrowed {
        Some((low, high)) if low <= high => {
            state.refine(register, low, high);
            true
        }
        Some(_) | None => false,
    }
}
