//! Range arithmetic and refinement, exhaustively at 4 bits: every pair of abstract values that 4 bits have as bit
//! patterns and intervals, every operation, every pair of concrete numbers in them.

use crate::insn::CmpOp;
use crate::verify::range::Range;
use crate::verify::tnum::{Bits, Tnum};
use crate::verify::{arith, refine};

const W: Bits = Bits(4);

fn tnums(bits: Bits) -> impl Iterator<Item = Tnum> {
    (0..=bits.mask()).flat_map(move |mask| {
        (0..=bits.mask())
            .filter(move |value| value & mask == 0)
            .map(move |value| Tnum { value, mask })
    })
}

/// Every bit pattern, every unsigned and every signed interval.
fn ranges(bits: Bits) -> Vec<Range> {
    let mut all: Vec<Range> = tnums(bits)
        .map(|tnum| Range::from_tnum(tnum, bits))
        .collect();
    for low in 0..=bits.mask() {
        for high in low..=bits.mask() {
            all.push(Range::unsigned(low, high, bits));
        }
    }
    for low in bits.smin()..=bits.smax() {
        for high in low..=bits.smax() {
            all.push(Range::signed(low, high, bits));
        }
    }
    all.dedup();
    all
}

fn members(range: Range, bits: Bits) -> Vec<u64> {
    (0..=bits.mask())
        .filter(|value| range.contains(*value, bits))
        .collect()
}

#[test]
fn construction_keeps_exactly_the_described_numbers() {
    for tnum in tnums(W) {
        let range = Range::from_tnum(tnum, W);
        for value in 0..=W.mask() {
            assert_eq!(
                tnum.contains(value),
                range.contains(value, W),
                "{tnum:?} {value}"
            );
        }
    }
    for low in 0..=W.mask() {
        for high in low..=W.mask() {
            let range = Range::unsigned(low, high, W);
            assert_eq!(members(range, W), (low..=high).collect::<Vec<_>>());
        }
    }
    for low in W.smin()..=W.smax() {
        for high in low..=W.smax() {
            let range = Range::signed(low, high, W);
            for value in 0..=W.mask() {
                assert_eq!(
                    (low..=high).contains(&W.signed(value)),
                    range.contains(value, W)
                );
            }
        }
    }
}

#[test]
fn tightening_loses_nothing_and_is_not_empty_by_mistake() {
    let all = ranges(W);
    for a in &all {
        for b in &all {
            let met = a.meet(*b, W);
            for value in 0..=W.mask() {
                let in_both = a.contains(value, W) && b.contains(value, W);
                let in_met = met.is_some_and(|met| met.contains(value, W));
                assert_eq!(in_both, in_met, "{a:?} meet {b:?}: {value}");
            }
            let joined = a.join(*b, W);
            let widened = a.widen(*b, W, &[-3, 0, 2, 9]);
            for value in members(*a, W).into_iter().chain(members(*b, W)) {
                assert!(joined.contains(value, W), "{a:?} join {b:?}: {value}");
                assert!(widened.contains(value, W), "{a:?} widen {b:?}: {value}");
            }
            if b.is_within(*a) {
                for value in members(*b, W) {
                    assert!(a.contains(value, W), "{b:?} within {a:?}: {value}");
                }
            }
        }
    }
}

type Abstract = fn(Range, Range, Bits) -> Range;
type Concrete = fn(u64, u64, Bits) -> u64;

fn shift_count(b: u64, bits: Bits) -> u32 {
    (b & u64::from(bits.0 - 1)) as u32
}

const OPERATIONS: [(&str, Abstract, Concrete); 13] = [
    ("add", arith::add, |a, b, w| a.wrapping_add(b) & w.mask()),
    ("sub", arith::sub, |a, b, w| a.wrapping_sub(b) & w.mask()),
    ("mul", arith::mul, |a, b, w| a.wrapping_mul(b) & w.mask()),
    ("and", arith::and, |a, b, _| a & b),
    ("or", arith::or, |a, b, _| a | b),
    ("xor", arith::xor, |a, b, _| a ^ b),
    ("lsh", arith::lsh, |a, b, w| {
        (a << shift_count(b, w)) & w.mask()
    }),
    ("rsh", arith::rsh, |a, b, w| a >> shift_count(b, w)),
    ("arsh", arith::arsh, |a, b, w| {
        w.unsigned(w.signed(a) >> shift_count(b, w))
    }),
    ("div", arith::div, |a, b, _| a.checked_div(b).unwrap_or(0)),
    ("mod", arith::rem, |a, b, _| a.checked_rem(b).unwrap_or(a)),
    ("sdiv", arith::sdiv, |a, b, w| {
        let (x, y) = (w.signed(a), w.signed(b));
        w.unsigned(if y == 0 { 0 } else { x.wrapping_div(y) })
    }),
    ("smod", arith::srem, |a, b, w| {
        let (x, y) = (w.signed(a), w.signed(b));
        w.unsigned(if y == 0 { x } else { x.wrapping_rem(y) })
    }),
];

#[test]
fn arithmetic_contains_every_concrete_result() {
    let all = ranges(W);
    let members: Vec<Vec<u64>> = all.iter().map(|range| members(*range, W)).collect();
    for (name, transfer, concrete) in OPERATIONS {
        let table: Vec<u64> = (0..256)
            .map(|pair| concrete(pair >> 4, pair & 15, W))
            .collect();
        for (a, in_a) in all.iter().zip(&members) {
            for (b, in_b) in all.iter().zip(&members) {
                let result = transfer(*a, *b, W);
                let possible: u32 = (0..16)
                    .filter(|value| result.contains(*value, W))
                    .fold(0, |set, value| set | 1 << value);
                for x in in_a {
                    for y in in_b {
                        let exact = table[(x << 4 | y) as usize];
                        assert!(
                            possible >> exact & 1 == 1,
                            "{name}: {x} op {y} = {exact}; {a:?} op {b:?} = {result:?}"
                        );
                    }
                }
            }
        }
    }
}

/// Arithmetic at least as precise as one would expect by hand, where that is exact.
#[test]
fn arithmetic_of_constants_is_exact() {
    for (name, transfer, concrete) in OPERATIONS {
        for x in 0..16 {
            for y in 0..16 {
                let result = transfer(Range::constant(x, W), Range::constant(y, W), W);
                assert_eq!(
                    result.as_constant(),
                    Some(concrete(x, y, W)),
                    "{name} {x} {y}"
                );
            }
        }
    }
}

fn holds(op: CmpOp, a: u64, b: u64, w: Bits) -> bool {
    let (x, y) = (w.signed(a), w.signed(b));
    match op {
        CmpOp::Eq => a == b,
        CmpOp::Ne => a != b,
        CmpOp::Gt => a > b,
        CmpOp::Ge => a >= b,
        CmpOp::Lt => a < b,
        CmpOp::Le => a <= b,
        CmpOp::SGt => x > y,
        CmpOp::SGe => x >= y,
        CmpOp::SLt => x < y,
        CmpOp::SLe => x <= y,
        CmpOp::Set => a & b != 0,
    }
}

pub(super) const COMPARISONS: [CmpOp; 11] = [
    CmpOp::Eq,
    CmpOp::Ne,
    CmpOp::Gt,
    CmpOp::Ge,
    CmpOp::Lt,
    CmpOp::Le,
    CmpOp::SGt,
    CmpOp::SGe,
    CmpOp::SLt,
    CmpOp::SLe,
    CmpOp::Set,
];

#[test]
fn refinement_keeps_every_pair_that_agrees() {
    let all = ranges(W);
    let members: Vec<Vec<u64>> = all.iter().map(|range| members(*range, W)).collect();
    for op in COMPARISONS {
        for (a, in_a) in all.iter().zip(&members) {
            for (b, in_b) in all.iter().zip(&members) {
                for taken in [true, false] {
                    let refined = refine::refine(op, *a, *b, taken, W);
                    let mut agrees = 0;
                    for x in in_a {
                        for y in in_b {
                            if holds(op, *x, *y, W) == taken {
                                agrees += 1;
                                let kept = refined.is_some_and(|(left, right)| {
                                    left.contains(*x, W) && right.contains(*y, W)
                                });
                                assert!(
                                    kept,
                                    "{op:?} {taken}: {x} {y} of {a:?} {b:?} lost: {refined:?}"
                                );
                            }
                        }
                    }
                    // Against a constant an impossible branch is always found.
                    if agrees == 0 && in_b.len() == 1 && op != CmpOp::Ne && op != CmpOp::Eq {
                        assert!(
                            refined.is_none(),
                            "{op:?} {taken}: {a:?} {b:?} is dead: {refined:?}"
                        );
                    }
                    if let Some((left, right)) = refined {
                        assert!(
                            left.is_within(*a) && right.is_within(*b),
                            "{op:?}: refined to more"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn width_changes_contain_every_concrete_result() {
    let (narrow, wide) = (Bits(3), Bits(5));
    for range in ranges(wide) {
        let cut = range.truncate(wide, narrow);
        for value in members(range, wide) {
            assert!(
                cut.contains(value & narrow.mask(), narrow),
                "{range:?} cut to {cut:?}: {value}"
            );
        }
    }
    for range in ranges(narrow) {
        let (zero, sign) = (range.zero_extend(wide), range.sign_extend(narrow, wide));
        for value in members(range, narrow) {
            assert!(zero.contains(value, wide), "{range:?} {value}");
            assert!(
                sign.contains(wide.unsigned(narrow.signed(value)), wide),
                "{range:?} {value}"
            );
        }
    }
}
