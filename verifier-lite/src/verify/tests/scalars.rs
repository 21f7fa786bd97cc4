//! Scalars at their real widths against concrete arithmetic: random abstract values around every boundary, random
//! members, every operation of both widths.

use proptest::prelude::*;

use super::small_widths::COMPARISONS;
use crate::insn::{AluOp, EndianOp, Size, Width};
use crate::semantics;
use crate::verify::scalar::Scalar;
use crate::verify::value::{Link, Value, derive};

/// Numbers where something happens: small ones, and what is near a power of two or a sign boundary.
fn interesting() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..40,
        any::<u64>(),
        (0u32..64, -20i64..20).prop_map(|(bit, delta)| (1u64 << bit).wrapping_add(delta as u64)),
        (-40i64..0).prop_map(|value| value as u64),
        any::<u32>().prop_map(u64::from),
        any::<i32>().prop_map(|value| i64::from(value) as u64),
    ]
}

/// What makes an abstract value: facts that hold for the given number.
fn around(member: u64) -> impl Strategy<Value = Scalar> {
    let below = prop_oneof![Just(0u64), 0u64..20, any::<u64>()];
    let above = prop_oneof![Just(0u64), 0u64..20, any::<u64>()];
    (0u8..64, below, above, any::<u64>()).prop_map(move |(facts, below, above, mask)| {
        let mut scalar = Scalar::TOP;
        let mut add = |fact: Scalar| {
            scalar = scalar.meet(fact).expect("every fact holds for the member");
        };
        if facts & 1 != 0 {
            add(Scalar::unsigned(
                member.saturating_sub(below),
                member.saturating_add(above),
            ));
        }
        if facts & 2 != 0 {
            let signed = member as i64;
            let (low, high) = ((below >> 1) as i64, (above >> 1) as i64);
            add(Scalar::signed(
                signed.saturating_sub(low),
                signed.saturating_add(high),
            ));
        }
        if facts & 4 != 0 {
            let known =
                Scalar::constant(member).alu(AluOp::And, Width::W64, Scalar::constant(!mask));
            let unknown = Scalar::TOP.alu(AluOp::And, Width::W64, Scalar::constant(mask));
            add(known.alu(AluOp::Or, Width::W64, unknown));
        }
        if facts & 8 != 0 {
            let low = member as u32;
            let range = Scalar::unsigned(
                u64::from(low.saturating_sub(below as u32)),
                u64::from(low.saturating_add(above as u32)),
            );
            let mut fact = Scalar::TOP;
            fact.low = range.low;
            add(fact);
        }
        if facts & 16 != 0 {
            let low = member as u32 as i32;
            let (less, more) = (below as u32 >> 1, above as u32 >> 1);
            let range = Scalar::signed(
                i64::from(low.saturating_sub_unsigned(less)),
                i64::from(low.saturating_add_unsigned(more)),
            );
            let mut fact = Scalar::TOP;
            fact.low = range.low;
            add(fact);
        }
        scalar
    })
}

fn pair() -> impl Strategy<Value = (u64, Scalar)> {
    interesting().prop_flat_map(|member| (Just(member), around(member)))
}

const OPERATIONS: [AluOp; 14] = [
    AluOp::Add,
    AluOp::Sub,
    AluOp::Mul,
    AluOp::Div,
    AluOp::SDiv,
    AluOp::Or,
    AluOp::And,
    AluOp::Lsh,
    AluOp::Rsh,
    AluOp::Mod,
    AluOp::SMod,
    AluOp::Xor,
    AluOp::Mov,
    AluOp::Arsh,
];

const WIDTHS: [Width; 2] = [Width::W32, Width::W64];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    #[test]
    fn arithmetic_contains_the_concrete_result((x, a) in pair(), (y, b) in pair()) {
        prop_assert!(a.contains(x) && b.contains(y));
        for op in OPERATIONS {
            for width in WIDTHS {
                let exact = semantics::alu(op, width, x, y);
                let result = a.alu(op, width, b);
                prop_assert!(result.contains(exact), "{:?} {:?}: {:#x} op {:#x} = {:#x}; {:?} op {:?} = {:?}", op, width, x, y, exact, a, b, result);
            }
        }
    }

    #[test]
    fn unary_operations_contain_the_concrete_result((x, a) in pair()) {
        for width in WIDTHS {
            let exact = semantics::alu(AluOp::Sub, width, 0, x);
            prop_assert!(a.neg(width).contains(exact));
        }
        for (size, extended) in [(Size::B, x as u8 as i8 as i64), (Size::H, x as u16 as i16 as i64), (Size::W, x as u32 as i32 as i64)] {
            prop_assert!(a.sign_extend(size, Width::W64).contains(extended as u64));
            prop_assert!(a.sign_extend(size, Width::W32).contains(u64::from(extended as u32)));
        }
        for (size, cut) in [(Size::B, x & 0xff), (Size::H, x & 0xffff), (Size::W, x & 0xffff_ffff), (Size::DW, x)] {
            prop_assert!(a.zero_extend(size).contains(cut));
        }
        let swapped = [(16, u64::from((x as u16).swap_bytes())), (32, u64::from((x as u32).swap_bytes())), (64, x.swap_bytes())];
        for (bits, exact) in swapped {
            prop_assert!(a.endian(EndianOp::ToBe, bits).contains(exact));
            prop_assert!(a.endian(EndianOp::Swap, bits).contains(exact));
        }
        for (bits, exact) in [(16, x & 0xffff), (32, x & 0xffff_ffff), (64, x)] {
            prop_assert!(a.endian(EndianOp::ToLe, bits).contains(exact));
        }
    }

    #[test]
    fn refinement_keeps_the_pair_that_agrees((x, a) in pair(), (y, b) in pair(), near in -3i64..3, close in any::<bool>()) {
        // Half of the time the second number is close to the first, so that equality and off-by-one matter.
        let (y, b) = if close { let y = x.wrapping_add(near as u64); (y, Scalar::constant(y)) } else { (y, b) };
        for op in COMPARISONS {
            for width in WIDTHS {
                let taken = semantics::compare(op, width, x, y);
                match a.refine(op, width, b, taken) {
                    None => prop_assert!(false, "{:?} {:?} {}: {:#x} {:#x} of {:?} {:?} lost", op, width, taken, x, y, a, b),
                    Some((left, right)) => {
                        prop_assert!(left.contains(x) && right.contains(y), "{:?} {:?} {}: {:#x} {:#x} of {:?} {:?} became {:?} {:?}", op, width, taken, x, y, a, b, left, right);
                        prop_assert!(left.is_within(a) && right.is_within(b));
                    }
                }
            }
        }
    }

    #[test]
    fn joins_contain_both((x, a) in pair(), (y, b) in pair()) {
        for joined in [a.join(b), a.widen(b, &[]), a.widen(b, &[-7, 0, 63, 4096]), b.join(a)] {
            prop_assert!(joined.contains(x) && joined.contains(y));
        }
        prop_assert!(a.is_within(a.join(b)) && b.is_within(a.join(b)));
        let widened = a.widen(b, &[-7, 0, 63, 4096]);
        prop_assert!(a.is_within(widened) && b.is_within(widened));
        match a.meet(Scalar::constant(x)) {
            Some(met) => prop_assert_eq!(met.as_constant(), Some(x)),
            None => prop_assert!(false),
        }
    }

    /// Copies, constants added in either width, cuts: what is found out about one holds for the other.
    #[test]
    fn what_a_link_derives_holds(
        base in interesting(),
        steps in proptest::collection::vec((any::<bool>(), any::<bool>(), -20i32..20), 0..4),
        others in proptest::collection::vec((any::<bool>(), any::<bool>(), -20i32..20), 0..4),
        delta in 0u64..30,
    ) {
        let link = Link { base: 1, delta: 0, narrow: false };
        let (x, one) = follow(base, link, &steps);
        let (y, two) = follow(base, link, &others);
        if let (Some(one), Some(two)) = (one, two) {
            let known = Scalar::unsigned(x.saturating_sub(delta), x.saturating_add(delta));
            match derive(known, one, two) {
                Some(derived) => prop_assert!(derived.contains(y), "{x:#x} {one:?} {known:?}; {y:#x} {two:?}: {derived:?}"),
                None => prop_assert!(false),
            }
        }
    }
}

/// Applies steps to a number and to its link as the transfer functions do: (is it a cut, is it 32 bits, amount).
fn follow(base: u64, link: Link, steps: &[(bool, bool, i32)]) -> (u64, Option<Link>) {
    let mut number = base;
    let mut value = Value::Number(Scalar::TOP, Some(link));
    for (cut, narrow, amount) in steps {
        if *cut {
            let known = Scalar::TOP.zero_extend(Size::W);
            value = Value::Number(known, value.link_after_cut());
            number &= 0xffff_ffff;
            continue;
        }
        let width = if *narrow { Width::W32 } else { Width::W64 };
        let extended = i64::from(*amount) as u64;
        let Value::Number(scalar, _) = value else {
            continue;
        };
        let added = scalar.alu(AluOp::Add, width, Scalar::constant(extended));
        value = Value::Number(added, value.link_after_add(width, extended));
        number = semantics::alu(AluOp::Add, width, number, extended);
    }
    (number, value.link())
}
