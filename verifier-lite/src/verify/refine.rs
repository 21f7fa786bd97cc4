//! What a comparison that came out one way says about both operands.
//!
//! Pure functions on [`Range`]s of one width; `None` means that the comparison can't come out that way.

use super::range::Range;
use super::tnum::{Bits, Tnum};
use crate::insn::CmpOp;

/// Both operands after `a op b` came out as `taken`, or `None` if it can't.
pub(crate) fn refine(
    op: CmpOp,
    a: Range,
    b: Range,
    taken: bool,
    bits: Bits,
) -> Option<(Range, Range)> {
    let swapped = |pair: Option<(Range, Range)>| pair.map(|(b, a)| (a, b));
    match (op, taken) {
        (CmpOp::Eq, true) | (CmpOp::Ne, false) => equal(a, b, bits),
        (CmpOp::Ne, true) | (CmpOp::Eq, false) => unequal(a, b, bits),
        (CmpOp::Lt, true) | (CmpOp::Ge, false) => below(a, b, bits),
        (CmpOp::Le, true) | (CmpOp::Gt, false) => at_most(a, b, bits),
        (CmpOp::Gt, true) | (CmpOp::Le, false) => swapped(below(b, a, bits)),
        (CmpOp::Ge, true) | (CmpOp::Lt, false) => swapped(at_most(b, a, bits)),
        (CmpOp::SLt, true) | (CmpOp::SGe, false) => signed_below(a, b, bits),
        (CmpOp::SLe, true) | (CmpOp::SGt, false) => signed_at_most(a, b, bits),
        (CmpOp::SGt, true) | (CmpOp::SLe, false) => swapped(signed_below(b, a, bits)),
        (CmpOp::SGe, true) | (CmpOp::SLt, false) => swapped(signed_at_most(b, a, bits)),
        (CmpOp::Set, true) => share_a_bit(a, b, bits),
        (CmpOp::Set, false) => share_no_bit(a, b, bits),
    }
}

fn equal(a: Range, b: Range, bits: Bits) -> Option<(Range, Range)> {
    let both = a.meet(b, bits)?;
    Some((both, both))
}

fn unequal(a: Range, b: Range, bits: Bits) -> Option<(Range, Range)> {
    let left = match b.as_constant() {
        Some(value) => without(a, value, bits)?,
        None => a,
    };
    let right = match a.as_constant() {
        Some(value) => without(b, value, bits)?,
        None => b,
    };
    Some((left, right))
}

/// Cuts `value` off where it is an end of the range.
fn without(mut range: Range, value: u64, bits: Bits) -> Option<Range> {
    let signed = bits.signed(value);
    if range.as_constant() == Some(value) || (range.smin == signed && range.smax == signed) {
        return None;
    }
    if range.umin == value {
        range.umin += 1;
    } else if range.umax == value {
        range.umax -= 1;
    }
    if range.smin == signed {
        range.smin += 1;
    } else if range.smax == signed {
        range.smax -= 1;
    }
    range.tighten(bits)
}

fn below(mut a: Range, mut b: Range, bits: Bits) -> Option<(Range, Range)> {
    a.umax = a.umax.min(b.umax.checked_sub(1)?);
    b.umin = b.umin.max(a.umin.checked_add(1)?);
    Some((a.tighten(bits)?, b.tighten(bits)?))
}

fn at_most(mut a: Range, mut b: Range, bits: Bits) -> Option<(Range, Range)> {
    a.umax = a.umax.min(b.umax);
    b.umin = b.umin.max(a.umin);
    Some((a.tighten(bits)?, b.tighten(bits)?))
}

fn signed_below(mut a: Range, mut b: Range, bits: Bits) -> Option<(Range, Range)> {
    a.smax = a.smax.min(b.smax.checked_sub(1)?);
    b.smin = b.smin.max(a.smin.checked_add(1)?);
    Some((a.tighten(bits)?, b.tighten(bits)?))
}

fn signed_at_most(mut a: Range, mut b: Range, bits: Bits) -> Option<(Range, Range)> {
    a.smax = a.smax.min(b.smax);
    b.smin = b.smin.max(a.smin);
    Some((a.tighten(bits)?, b.tighten(bits)?))
}

fn share_a_bit(mut a: Range, mut b: Range, bits: Bits) -> Option<(Range, Range)> {
    let possible = a.tnum.max() & b.tnum.max();
    if possible == 0 {
        return None;
    }
    // Only one bit can be the shared one: then it is set in both.
    if possible.is_power_of_two() {
        a.tnum = a.tnum.meet(with_ones(possible, bits))?;
        b.tnum = b.tnum.meet(with_ones(possible, bits))?;
    }
    // Either way neither is zero.
    let (a, b) = (
        without(a.tighten(bits)?, 0, bits)?,
        without(b.tighten(bits)?, 0, bits)?,
    );
    Some((a, b))
}

fn with_ones(ones: u64, bits: Bits) -> Tnum {
    Tnum {
        value: ones,
        mask: bits.mask() & !ones,
    }
}

fn share_no_bit(mut a: Range, mut b: Range, bits: Bits) -> Option<(Range, Range)> {
    let (ones_of_a, ones_of_b) = (a.tnum.value, b.tnum.value);
    a.tnum = a.tnum.meet(with_zeros(ones_of_b, bits))?;
    b.tnum = b.tnum.meet(with_zeros(ones_of_a, bits))?;
    Some((a.tighten(bits)?, b.tighten(bits)?))
}

fn with_zeros(zeros: u64, bits: Bits) -> Tnum {
    Tnum {
        value: 0,
        mask: bits.mask() & !zeros,
    }
}
