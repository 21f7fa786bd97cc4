//! Arithmetic on [`Range`]s: every function returns a range that holds the result for every choice of operands.
//!
//! Division by zero gives 0 and remainder by zero the dividend (RFC 9669 §4.1); shift counts are masked to the width.

use super::range::Range;
use super::tnum::{Bits, Tnum};

/// Meets what several views of one result say. Views of a real result can't contradict each other; should a bug make
/// them, nothing is claimed.
fn agree(first: Range, second: Range, bits: Bits) -> Range {
    first.meet(second, bits).unwrap_or(Range::top(bits))
}

fn build(
    tnum: Tnum,
    unsigned: Option<(u64, u64)>,
    signed: Option<(i64, i64)>,
    bits: Bits,
) -> Range {
    let top = Range::top(bits);
    let (umin, umax) = unsigned.unwrap_or((top.umin, top.umax));
    let (smin, smax) = signed.unwrap_or((top.smin, top.smax));
    Range {
        tnum,
        umin,
        umax,
        smin,
        smax,
    }
    .tighten(bits)
    .unwrap_or(top)
}

/// Bounds that were computed without wrapping, brought back into the width: exact when both wrapped equally often.
fn wrap_unsigned(low: i128, high: i128, bits: Bits) -> Option<(u64, u64)> {
    let modulus = 1i128 << bits.0;
    (low.div_euclid(modulus) == high.div_euclid(modulus)).then(|| {
        (
            low.rem_euclid(modulus) as u64,
            high.rem_euclid(modulus) as u64,
        )
    })
}

fn wrap_signed(low: i128, high: i128, bits: Bits) -> Option<(i64, i64)> {
    let half = 1i128 << (bits.0 - 1);
    let modulus = 1i128 << bits.0;
    ((low + half).div_euclid(modulus) == (high + half).div_euclid(modulus)).then(|| {
        (
            ((low + half).rem_euclid(modulus) - half) as i64,
            ((high + half).rem_euclid(modulus) - half) as i64,
        )
    })
}

pub(crate) fn add(a: Range, b: Range, bits: Bits) -> Range {
    build(
        a.tnum.add(b.tnum, bits),
        wrap_unsigned(
            i128::from(a.umin) + i128::from(b.umin),
            i128::from(a.umax) + i128::from(b.umax),
            bits,
        ),
        wrap_signed(
            i128::from(a.smin) + i128::from(b.smin),
            i128::from(a.smax) + i128::from(b.smax),
            bits,
        ),
        bits,
    )
}

pub(crate) fn sub(a: Range, b: Range, bits: Bits) -> Range {
    build(
        a.tnum.sub(b.tnum, bits),
        wrap_unsigned(
            i128::from(a.umin) - i128::from(b.umax),
            i128::from(a.umax) - i128::from(b.umin),
            bits,
        ),
        wrap_signed(
            i128::from(a.smin) - i128::from(b.smax),
            i128::from(a.smax) - i128::from(b.smin),
            bits,
        ),
        bits,
    )
}

pub(crate) fn mul(a: Range, b: Range, bits: Bits) -> Range {
    let unsigned = a
        .umax
        .checked_mul(b.umax)
        .filter(|high| *high <= bits.mask())
        .map(|high| (a.umin.wrapping_mul(b.umin), high));
    let corners = [
        i128::from(a.smin) * i128::from(b.smin),
        i128::from(a.smin) * i128::from(b.smax),
        i128::from(a.smax) * i128::from(b.smin),
        i128::from(a.smax) * i128::from(b.smax),
    ];
    let (low, high) = hull(&corners);
    build(
        a.tnum.mul(b.tnum, bits),
        unsigned,
        wrap_signed(low, high, bits),
        bits,
    )
}

fn hull(corners: &[i128]) -> (i128, i128) {
    corners
        .iter()
        .fold((i128::MAX, i128::MIN), |(low, high), corner| {
            (low.min(*corner), high.max(*corner))
        })
}

pub(crate) fn and(a: Range, b: Range, bits: Bits) -> Range {
    build(
        a.tnum.and(b.tnum),
        Some((0, a.umax.min(b.umax))),
        None,
        bits,
    )
}

pub(crate) fn or(a: Range, b: Range, bits: Bits) -> Range {
    build(
        a.tnum.or(b.tnum),
        Some((a.umin.max(b.umin), bits.mask())),
        None,
        bits,
    )
}

pub(crate) fn xor(a: Range, b: Range, bits: Bits) -> Range {
    build(a.tnum.xor(b.tnum), None, None, bits)
}

/// Joins `shift(k)` over every count that `count`, masked to the width, may have.
fn over_counts(count: Range, bits: Bits, shift: impl Fn(u32) -> Range) -> Range {
    let mut result: Option<Range> = None;
    // The mask of a width that is no power of two exists in tests only; programs shift by 32- and 64-bit masks.
    let mask = u64::from(bits.0.next_power_of_two() - 1);
    let masked = if count.umax <= mask {
        count
    } else {
        build(
            count.tnum.and(Tnum::constant(mask)),
            Some((0, mask)),
            None,
            bits,
        )
    };
    for k in 0..bits.0 {
        if masked.contains(u64::from(k), bits) {
            let shifted = shift(k);
            result = Some(result.map_or(shifted, |sofar| sofar.join(shifted, bits)));
        }
    }
    result.unwrap_or(Range::top(bits))
}

/// Left shift by a known count less than the width: the bits that stay, moved up.
pub(crate) fn shift_left_by(a: Range, k: u32, bits: Bits) -> Range {
    if k == 0 {
        return a;
    }
    let staying = a.truncate(bits, Bits(bits.0 - k));
    shift_up(staying, k, bits)
}

/// `low` has `bits - k` bits; none is lost by moving them up.
pub(crate) fn shift_up(low: Range, k: u32, bits: Bits) -> Range {
    build(
        low.tnum.shift_left(k, bits),
        Some((low.umin << k, low.umax << k)),
        Some((low.smin << k, low.smax << k)),
        bits,
    )
}

pub(crate) fn lsh(a: Range, count: Range, bits: Bits) -> Range {
    over_counts(count, bits, |k| shift_left_by(a, k, bits))
}

pub(crate) fn rsh(a: Range, count: Range, bits: Bits) -> Range {
    over_counts(count, bits, |k| {
        build(
            a.tnum.shift_right(k),
            Some((a.umin >> k, a.umax >> k)),
            None,
            bits,
        )
    })
}

pub(crate) fn arsh(a: Range, count: Range, bits: Bits) -> Range {
    over_counts(count, bits, |k| {
        build(
            a.tnum.shift_right_signed(k, bits),
            None,
            Some((a.smin >> k, a.smax >> k)),
            bits,
        )
    })
}

pub(crate) fn div(a: Range, b: Range, bits: Bits) -> Range {
    let zero = Range::constant(0, bits);
    if b.umax == 0 {
        return zero;
    }
    let quotient = Range::unsigned(a.umin / b.umax, a.umax / b.umin.max(1), bits);
    if b.umin == 0 {
        quotient.join(zero, bits)
    } else {
        quotient
    }
}

pub(crate) fn rem(a: Range, b: Range, bits: Bits) -> Range {
    if b.umax == 0 || a.umax < b.umin {
        return a;
    }
    if let (Some(x), Some(y)) = (a.as_constant(), b.as_constant()) {
        return Range::constant(if y == 0 { x } else { x % y }, bits);
    }
    let mut remainder = Range::unsigned(0, a.umax.min(b.umax - 1), bits);
    if let Some(divisor) = b.as_constant()
        && divisor.is_power_of_two()
    {
        let low = and(a, Range::constant(divisor - 1, bits), bits);
        remainder = agree(remainder, low, bits);
    }
    if b.umin == 0 {
        remainder.join(a, bits)
    } else {
        remainder
    }
}

pub(crate) fn sdiv(a: Range, b: Range, bits: Bits) -> Range {
    let mut parts: Vec<Range> = Vec::with_capacity(3);
    if b.smin <= 0 && 0 <= b.smax {
        parts.push(Range::constant(0, bits));
    }
    for (low, high) in [(b.smin, b.smax.min(-1)), (b.smin.max(1), b.smax)] {
        if low > high {
            continue;
        }
        let mut corners = Vec::with_capacity(4);
        for x in [a.smin, a.smax] {
            for y in [low, high] {
                corners.push(i128::from(x) / i128::from(y));
            }
        }
        let (least, most) = hull(&corners);
        // MIN / -1 is the one quotient that wraps.
        parts.push(match wrap_signed(least, most, bits) {
            Some((least, most)) => Range::signed(least, most, bits),
            None => Range::top(bits),
        });
    }
    join_all(&parts, bits)
}

pub(crate) fn srem(a: Range, b: Range, bits: Bits) -> Range {
    if let (Some(x), Some(y)) = (a.as_constant(), b.as_constant()) {
        let (x, y) = (bits.signed(x), bits.signed(y));
        let value = if y == 0 { x } else { x.wrapping_rem(y) };
        return Range::constant(bits.unsigned(value), bits);
    }
    // |remainder| < |divisor|, |remainder| <= |dividend|, sign of the dividend.
    let largest_divisor = b.smin.unsigned_abs().max(b.smax.unsigned_abs());
    if largest_divisor == 0 {
        return a;
    }
    let bound = i64::try_from(largest_divisor - 1).unwrap_or(i64::MAX);
    let low = if a.smin < 0 { a.smin.max(-bound) } else { 0 };
    let high = if a.smax > 0 { a.smax.min(bound) } else { 0 };
    let remainder = Range::signed(low, high, bits);
    if b.contains(0, bits) {
        remainder.join(a, bits)
    } else {
        remainder
    }
}

fn join_all(parts: &[Range], bits: Bits) -> Range {
    parts
        .iter()
        .copied()
        .reduce(|sofar, part| sofar.join(part, bits))
        .unwrap_or(Range::top(bits))
}

/// The low `low` bits in reverse byte order, zero-extended.
pub(crate) fn swap_bytes(a: Range, low: Bits, bits: Bits) -> Range {
    Range::from_tnum(a.tnum.truncate(low).swap_bytes(low), bits)
}
