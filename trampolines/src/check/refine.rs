//! What a conditional branch shows about the operands that were compared before it.
//!
//! Knows `cmp` and `test`, not where their operands are. Invariant: a path is only called impossible if no values in the
//! operands' ranges take it.

use iced_x86::ConditionCode;

use super::number::Number;
use super::range::Range;
use super::state::{Compared, Comparison, State};
use super::value::Value;

/// An order of two numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    NotEqual,
    Below,
    AtMost,
    SignedBelow,
    SignedAtMost,
}

/// The order that the branch shows, and whether it is of right to left.
fn order(condition: ConditionCode, taken: bool) -> Option<(Order, bool)> {
    use ConditionCode as C;
    Some(match (condition, taken) {
        (C::e, true) | (C::ne, false) => (Order::Equal, false),
        (C::ne, true) | (C::e, false) => (Order::NotEqual, false),
        (C::b, true) | (C::ae, false) => (Order::Below, false),
        (C::be, true) | (C::a, false) => (Order::AtMost, false),
        (C::a, true) | (C::be, false) => (Order::Below, true),
        (C::ae, true) | (C::b, false) => (Order::AtMost, true),
        (C::l, true) | (C::ge, false) => (Order::SignedBelow, false),
        (C::le, true) | (C::g, false) => (Order::SignedAtMost, false),
        (C::g, true) | (C::le, false) => (Order::SignedBelow, true),
        (C::ge, true) | (C::l, false) => (Order::SignedAtMost, true),
        _ => return None,
    })
}

/// Narrows what `state` knows by the branch; `false` if it can't go that way.
pub(crate) fn refine(state: &mut State, condition: ConditionCode, taken: bool) -> bool {
    let Some(comparison) = state.compared else {
        return true;
    };
    let Some((order, swapped)) = order(condition, taken) else {
        return true;
    };
    if comparison.bitwise {
        return bits_of(state, comparison, order);
    }
    let (left, right) = if swapped {
        (comparison.right, comparison.left)
    } else {
        (comparison.left, comparison.right)
    };
    match (left.value, right.value) {
        (Value::Num(a, _), Value::Num(b, _)) => {
            let signed = matches!(order, Order::SignedBelow | Order::SignedAtMost);
            let narrowed = match comparison.bits {
                64 => whole(a, b, order),
                32 => halves(a, b, order),
                // Cut to their width, the operands are all in the low half; their sign is elsewhere.
                _ if signed => return true,
                _ => halves(a, b, order),
            };
            narrowed.is_some_and(|(a, b)| learn(state, left, a) && learn(state, right, b))
        }
        (Value::Stack(anchor, a, b), Value::Stack(other, c, d))
            if anchor == other && comparison.bits == 64 =>
        {
            addresses(state, (left, a, b), (right, c, d), order)
        }
        _ => true,
    }
}

/// Of two whole numbers.
fn whole(mut a: Number, mut b: Number, order: Order) -> Option<(Number, Number)> {
    (a.wide, b.wide) = narrowed(a.wide, b.wide, order)?;
    if order == Order::Equal {
        a.low = a.low.meet(b.low)?;
        b.low = a.low;
    }
    Some((a.meet(Number::TOP)?, b.meet(Number::TOP)?))
}

/// Of their low halves.
fn halves(mut a: Number, mut b: Number, order: Order) -> Option<(Number, Number)> {
    (a.low, b.low) = narrowed(a.low, b.low, order)?;
    Some((a.meet(Number::TOP)?, b.meet(Number::TOP)?))
}

fn narrowed<const BITS: u32>(
    a: Range<BITS>,
    b: Range<BITS>,
    order: Order,
) -> Option<(Range<BITS>, Range<BITS>)> {
    let largest = Range::<BITS>::MASK;
    let (least, most) = (largest / 2 + 1, largest / 2);
    match order {
        Order::Equal => {
            let both = a.meet(b)?;
            Some((both, both))
        }
        Order::NotEqual => Some((a.without(b.as_constant())?, b.without(a.as_constant())?)),
        Order::Below => Some((
            a.meet(Range::between(0, b.umax().checked_sub(1)?))?,
            b.meet(Range::between(
                a.umin().checked_add(1).filter(|low| *low <= largest)?,
                largest,
            ))?,
        )),
        Order::AtMost => Some((
            a.meet(Range::between(0, b.umax()))?,
            b.meet(Range::between(a.umin(), largest))?,
        )),
        Order::SignedBelow => {
            let (highest, lowest) = (b.smax() as u64 & largest, a.smin() as u64 & largest);
            if highest == least || lowest == most {
                return None;
            }
            Some((
                a.meet(Range::between(least, highest.wrapping_sub(1)))?,
                b.meet(Range::between(lowest.wrapping_add(1), most))?,
            ))
        }
        Order::SignedAtMost => Some((
            a.meet(Range::between(least, b.smax() as u64))?,
            b.meet(Range::between(a.smin() as u64, most))?,
        )),
    }
}

fn learn(state: &mut State, operand: Compared, known: Number) -> bool {
    match operand.value.link() {
        Some(link) => state.learn(link, known),
        None => true,
    }
}

/// `test` with a constant: whether a number has one of its bits.
fn bits_of(state: &mut State, comparison: Comparison, order: Order) -> bool {
    let Comparison {
        left, right, bits, ..
    } = comparison;
    let (Value::Num(number, link), Some(mask)) = (left.value, right.value.as_constant()) else {
        return true;
    };
    // No bit above a limit is set: the number is no larger.
    let limit = !mask & super::range::mask(bits);
    if order != Order::Equal || limit & limit.wrapping_add(1) != 0 {
        return true;
    }
    let limit = Number::constant(limit);
    let narrowed = match bits {
        64 => whole(number, limit, Order::AtMost),
        _ => halves(number, limit, Order::AtMost),
    };
    match (narrowed, link) {
        (None, _) => false,
        (Some((known, _)), Some(link)) => state.learn(link, known),
        (Some(_), None) => true,
    }
}

/// Addresses in one frame, which compare as their offsets do: near the stack pointer nothing wraps.
fn addresses(
    state: &mut State,
    (left, a, b): (Compared, i64, i64),
    (right, c, d): (Compared, i64, i64),
    order: Order,
) -> bool {
    /// Nothing is mapped in the first 64 KiB (the kernel's mmap_min_addr).
    const NEAR: i64 = 0x8000;
    let near = |low: i64, high: i64| low >= -NEAR && high <= NEAR;
    let ((a, b), (c, d)) = match order {
        Order::Equal => ((a.max(c), b.min(d)), (a.max(c), b.min(d))),
        Order::NotEqual if a == b && c == d && a == c => return false,
        Order::NotEqual => {
            // An end of one that is all of the other is left out.
            let without = |low: i64, high: i64, other: i64| match other {
                _ if other == low && low < high => (low + 1, high),
                _ if other == high && low < high => (low, high - 1),
                _ => (low, high),
            };
            (
                if c == d { without(a, b, c) } else { (a, b) },
                if a == b { without(c, d, a) } else { (c, d) },
            )
        }
        _ if !near(a, b) || !near(c, d) => return true,
        Order::Below | Order::SignedBelow => ((a, b.min(d - 1)), (c.max(a + 1), d)),
        Order::AtMost | Order::SignedAtMost => ((a, b.min(d)), (c.max(a), d)),
    };
    if a > b || c > d {
        return false;
    }
    if let Some(register) = left.register {
        state.narrow_stack(register, a, b);
    }
    if let Some(register) = right.register {
        state.narrow_stack(register, c, d);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Range<4>> {
        let pairs = (0..16).flat_map(|low| (0..16).map(move |high| (low, high)));
        pairs.map(|(low, high)| Range::between(low, high)).collect()
    }

    fn is(order: Order, a: u64, b: u64) -> bool {
        let signed = |number| super::super::range::sign_extended(number, 4);
        match order {
            Order::Equal => a == b,
            Order::NotEqual => a != b,
            Order::Below => a < b,
            Order::AtMost => a <= b,
            Order::SignedBelow => signed(a) < signed(b),
            Order::SignedAtMost => signed(a) <= signed(b),
        }
    }

    #[test]
    fn no_pair_that_fits_is_lost() {
        let orders = [
            Order::Equal,
            Order::NotEqual,
            Order::Below,
            Order::AtMost,
            Order::SignedBelow,
            Order::SignedAtMost,
        ];
        for order in orders {
            for a in all() {
                for b in all() {
                    let left = narrowed(a, b, order);
                    let within = |range: Range<4>, number| range.covers(Range::constant(number));
                    for x in (0..16).filter(|x| within(a, *x)) {
                        for y in (0..16).filter(|y| within(b, *y) && is(order, x, *y)) {
                            let kept = left.is_some_and(|(a, b)| within(a, x) && within(b, y));
                            assert!(kept, "{a:?} {b:?}: {x} {y}");
                        }
                    }
                }
            }
        }
    }
}
