//! A 64-bit number as the verifier knows it: the whole, and its low half on its own.
//!
//! 32-bit comparisons and arithmetic say something about the low half only; keeping both and letting each learn from
//! the other is what makes clang's mixed-width code provable. Invariant: both views are non-empty and tight.

use super::arith;
use super::range::Range;
use super::refine;
use super::tnum::{Bits, Tnum};
use crate::insn::{AluOp, CmpOp, EndianOp, Size, Width};

const B32: Bits = Bits::B32;
const B64: Bits = Bits::B64;

/// A non-empty set of 64-bit numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scalar {
    /// All 64 bits.
    pub(crate) wide: Range,
    /// The low 32 bits.
    pub(crate) low: Range,
}

impl Scalar {
    pub(crate) const TOP: Self = Self {
        wide: Range::top(B64),
        low: Range::top(B32),
    };

    pub(crate) const fn constant(value: u64) -> Self {
        Self {
            wide: Range::constant(value, B64),
            low: Range::constant(value, B32),
        }
    }

    /// Any number of this size, zero-extended.
    pub(crate) fn of_size(size: Size) -> Self {
        let bits = Bits(u32::from(size.bytes()) * 8);
        Self::from_wide(Range::top(bits).zero_extend(B64))
    }

    pub(crate) fn signed(min: i64, max: i64) -> Self {
        Self::from_wide(Range::signed(min, max, B64))
    }

    pub(crate) fn unsigned(min: u64, max: u64) -> Self {
        Self::from_wide(Range::unsigned(min, max, B64))
    }

    pub(crate) fn from_wide(wide: Range) -> Self {
        Self {
            wide,
            low: Range::top(B32),
        }
        .tighten()
        .unwrap_or(Self::TOP)
    }

    /// A 32-bit result, zero-extended.
    pub(crate) fn from_low(low: Range) -> Self {
        Self {
            wide: low.zero_extend(B64),
            low,
        }
        .tighten()
        .unwrap_or(Self::TOP)
    }

    fn from_both(wide: Range, low: Range) -> Self {
        // The views of a real result agree; should a bug make them contradict each other, nothing is claimed.
        Self { wide, low }.tighten().unwrap_or(Self::TOP)
    }

    pub(crate) const fn as_constant(self) -> Option<u64> {
        self.wide.as_constant()
    }

    pub(crate) fn contains(self, value: u64) -> bool {
        self.wide.contains(value, B64) && self.low.contains(value & B32.mask(), B32)
    }

    pub(crate) const fn is_within(self, other: Self) -> bool {
        self.wide.is_within(other.wide) && self.low.is_within(other.low)
    }

    pub(crate) fn meet(self, other: Self) -> Option<Self> {
        Self {
            wide: self.wide.meet(other.wide, B64)?,
            low: self.low.meet(other.low, B32)?,
        }
        .tighten()
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self::from_both(
            self.wide.join(other.wide, B64),
            self.low.join(other.low, B32),
        )
    }

    /// See [`Range::widen`].
    pub(crate) fn widen(self, newer: Self, limits: &[i64]) -> Self {
        Self::from_both(
            self.wide.widen(newer.wide, B64, limits),
            self.low.widen(newer.low, B32, limits),
        )
    }

    /// Does the value fit into 32 bits unsigned?
    pub(crate) const fn fits_low(self) -> bool {
        self.wide.umax <= B32.mask()
    }

    fn tighten(mut self) -> Option<Self> {
        for _ in 0..3 {
            let before = self;
            self.low = self.low.meet(self.wide.truncate(B64, B32), B32)?;
            self.wide = self.wide_from_low()?;
            if self == before {
                break;
            }
        }
        Some(self)
    }

    fn wide_from_low(self) -> Option<Range> {
        let mut wide = self.wide;
        wide.tnum = wide.tnum.meet(Tnum {
            value: self.low.tnum.value,
            mask: self.low.tnum.mask | !B32.mask(),
        })?;
        let upper = wide.umin & !B32.mask();
        if upper == wide.umax & !B32.mask() {
            wide.umin = wide.umin.max(upper | self.low.umin);
            wide.umax = wide.umax.min(upper | self.low.umax);
        }
        if wide.smin >= B32.smin() && wide.smax <= B32.smax() {
            wide.smin = wide.smin.max(self.low.smin);
            wide.smax = wide.smax.min(self.low.smax);
        }
        wide.tighten(B64)
    }

    /// `self op other` at this width.
    pub(crate) fn alu(self, op: AluOp, width: Width, other: Self) -> Self {
        match width {
            Width::W32 => Self::from_low(alu_range(op, self.low, other.low, B32)),
            Width::W64 => self.alu64(op, other),
        }
    }

    fn alu64(self, op: AluOp, other: Self) -> Self {
        let wide = alu_range(op, self.wide, other.wide, B64);
        let low = match op {
            // The low half of the result depends on the low halves only.
            AluOp::Add
            | AluOp::Sub
            | AluOp::Mul
            | AluOp::Or
            | AluOp::And
            | AluOp::Xor
            | AluOp::Mov => alu_range(op, self.low, other.low, B32),
            AluOp::Lsh => return self.shift_left64(other, wide),
            AluOp::Div | AluOp::SDiv | AluOp::Rsh | AluOp::Mod | AluOp::SMod | AluOp::Arsh => {
                Range::top(B32)
            }
        };
        Self::from_both(wide, low)
    }

    fn shift_left64(self, count: Self, wide: Range) -> Self {
        let Some(k) = count.as_constant().and_then(|k| u32::try_from(k & 63).ok()) else {
            return Self::from_wide(wide);
        };
        if k == 0 {
            return self;
        }
        let staying = Bits(64 - k);
        if staying <= B32 {
            // All that stays is from the low half: `r <<= 32; r s>>= 32` keeps what is known of it.
            let low = self.low.truncate(B32, staying);
            let wide = wide.meet(arith::shift_up(low, k, B64), B64).unwrap_or(wide);
            return Self::from_wide(wide);
        }
        let low = if k < 32 {
            arith::shift_left_by(self.low, k, B32)
        } else {
            Range::constant(0, B32)
        };
        Self::from_both(wide, low)
    }

    pub(crate) fn neg(self, width: Width) -> Self {
        Self::constant(0).alu(AluOp::Sub, width, self)
    }

    /// What holds for `a` (at W32: for its low half) when `a | b` is `self`: at most as large, and no bit that it lacks.
    pub(crate) fn limit_of_parts(self, width: Width) -> Self {
        let limit = |whole: Range, bits: Bits| {
            let mut limit = Range::top(bits);
            limit.umax = whole.umax;
            limit.tnum = Tnum {
                value: 0,
                mask: whole.tnum.max(),
            };
            limit.tighten(bits).unwrap_or(Range::top(bits))
        };
        match width {
            Width::W64 => Self::from_both(limit(self.wide, B64), limit(self.low, B32)),
            Width::W32 => Self {
                wide: Range::top(B64),
                low: limit(self.low, B32),
            }
            .tighten()
            .unwrap_or(Self::TOP),
        }
    }

    /// Keeps the low `size` and sign-extends it to `width`; the rest is zero.
    pub(crate) fn sign_extend(self, from: Size, width: Width) -> Self {
        let bits = Bits(u32::from(from.bytes()) * 8);
        let cut = self.cut(bits);
        match width {
            Width::W64 => Self::from_wide(cut.sign_extend(bits, B64)),
            Width::W32 => Self::from_low(cut.sign_extend(bits, B32)),
        }
    }

    /// Keeps the low `size`; the rest is zero.
    pub(crate) fn zero_extend(self, from: Size) -> Self {
        match from {
            Size::DW => self,
            Size::W => Self::from_low(self.low),
            Size::B | Size::H => {
                let bits = Bits(u32::from(from.bytes()) * 8);
                Self::from_wide(self.cut(bits).zero_extend(B64))
            }
        }
    }

    /// The low bits, with what both views say of them.
    fn cut(self, bits: Bits) -> Range {
        let wide = self.wide.truncate(B64, bits);
        if bits > B32 {
            return wide;
        }
        wide.meet(self.low.truncate(B32, bits), bits)
            .unwrap_or(wide)
    }

    pub(crate) fn endian(self, op: EndianOp, width: u8) -> Self {
        let size = match width {
            16 => Size::H,
            32 => Size::W,
            _ => Size::DW,
        };
        match op {
            EndianOp::ToLe => self.zero_extend(size),
            EndianOp::ToBe | EndianOp::Swap => {
                let bits = Bits(u32::from(size.bytes()) * 8);
                Self::from_wide(arith::swap_bytes(self.wide, bits, B64))
            }
        }
    }

    /// Both operands after `self op other` at this width came out as `taken`; `None` if it can't.
    pub(crate) fn refine(
        self,
        op: CmpOp,
        width: Width,
        other: Self,
        taken: bool,
    ) -> Option<(Self, Self)> {
        let (mut left, mut right) = (self, other);
        match width {
            Width::W64 => {
                (left.wide, right.wide) = refine::refine(op, left.wide, right.wide, taken, B64)?;
                // Equal numbers have equal halves.
                if matches!((op, taken), (CmpOp::Eq, true) | (CmpOp::Ne, false)) {
                    let low = left.low.meet(right.low, B32)?;
                    (left.low, right.low) = (low, low);
                }
            }
            Width::W32 => {
                (left.low, right.low) = refine::refine(op, left.low, right.low, taken, B32)?;
            }
        }
        Some((left.tighten()?, right.tighten()?))
    }
}

fn alu_range(op: AluOp, a: Range, b: Range, bits: Bits) -> Range {
    match op {
        AluOp::Add => arith::add(a, b, bits),
        AluOp::Sub => arith::sub(a, b, bits),
        AluOp::Mul => arith::mul(a, b, bits),
        AluOp::Div => arith::div(a, b, bits),
        AluOp::SDiv => arith::sdiv(a, b, bits),
        AluOp::Or => arith::or(a, b, bits),
        AluOp::And => arith::and(a, b, bits),
        AluOp::Lsh => arith::lsh(a, b, bits),
        AluOp::Rsh => arith::rsh(a, b, bits),
        AluOp::Mod => arith::rem(a, b, bits),
        AluOp::SMod => arith::srem(a, b, bits),
        AluOp::Xor => arith::xor(a, b, bits),
        AluOp::Mov => b,
        AluOp::Arsh => arith::arsh(a, b, bits),
    }
}

/// Writes what is known, for people: `the number 5`, `a number in 0..=15`, `any number`.
impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let wide = self.wide;
        if let Some(value) = self.as_constant() {
            let signed = value as i64;
            return if signed < 0 && signed > -0x1_0000_0000 {
                write!(f, "the number {signed}")
            } else {
                write!(f, "the number {value}")
            };
        }
        if wide.smax < 0 || (wide.smin < 0 && wide.smax < i64::MAX) {
            write!(f, "a number in {}..={}", SignedLimit(wide.smin), wide.smax)?;
        } else if wide.umax < u64::MAX || wide.umin > 0 {
            write!(f, "a number in {}..={}", Limit(wide.umin), Limit(wide.umax))?;
        } else if wide.smin > i64::MIN {
            write!(f, "a number in {}..={}", wide.smin, SignedLimit(wide.smax))?;
        } else {
            f.write_str("any number")?;
            if self.low != Range::top(B32) {
                write!(f, ", its low half in {}..={}", self.low.umin, self.low.umax)?;
            }
        }
        // Only where the bits say more than the bounds.
        if wide.tnum.mask != Tnum::range(wide.umin, wide.umax).mask {
            write!(f, " (bits that may be set: {:#x})", wide.tnum.max())?;
        }
        Ok(())
    }
}

struct Limit(u64);

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 > u64::from(u32::MAX) {
            write!(f, "{:#x}", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

struct SignedLimit(i64);

impl std::fmt::Display for SignedLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == i64::MIN {
            f.write_str("i64::MIN")
        } else if self.0 == i64::MAX {
            f.write_str("i64::MAX")
        } else {
            write!(f, "{}", self.0)
        }
    }
}
