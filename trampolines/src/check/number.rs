//! What is known of a number: the whole, and its low half on its own.
//!
//! 32-bit comparisons and arithmetic say something about the low half only; keeping both, and letting each learn from the
//! other, follows code that mixes widths. Plain arithmetic, nothing about instructions. Invariant: the machine's result
//! is always one of the numbers that the result stands for.

use super::range::{Range, mask, sign_extended};

/// A non-empty set of 64-bit numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Number {
    pub(crate) wide: Range<64>,
    pub(crate) low: Range<32>,
}

impl Number {
    pub(crate) const TOP: Self = Self {
        wide: Range::FULL,
        low: Range::FULL,
    };

    pub(crate) const fn constant(number: u64) -> Self {
        Self {
            wide: Range::constant(number),
            low: Range::constant(number),
        }
    }

    /// Every number from `low` to `high`, unsigned.
    pub(crate) fn between(low: u64, high: u64) -> Self {
        Self::of(Range::between(low, high), Range::FULL)
    }

    pub(crate) fn below_bits(bits: u32) -> Self {
        Self::between(0, mask(bits))
    }

    /// Two views of one number. They can't contradict each other; should a bug make them, nothing is claimed.
    fn of(wide: Range<64>, low: Range<32>) -> Self {
        Self { wide, low }.tightened().unwrap_or(Self::TOP)
    }

    /// A 32-bit result, zero-extended.
    pub(crate) fn from_low(low: Range<32>) -> Self {
        Self::of(Range::between(low.umin(), low.umax()), low)
    }

    pub(crate) const fn as_constant(self) -> Option<u64> {
        self.wide.as_constant()
    }

    pub(crate) const fn umin(self) -> u64 {
        self.wide.umin()
    }

    pub(crate) const fn umax(self) -> u64 {
        self.wide.umax()
    }

    /// Does it fit into the low half?
    pub(crate) const fn fits_low(self) -> bool {
        self.umax() <= mask(32)
    }

    /// Lets the views learn from each other; `None` if no number agrees with both.
    fn tightened(self) -> Option<Self> {
        let mut low = self.low;
        let mut wide = self.wide;
        let (start, end) = (wide.umin(), wide.umax());
        if end - start < mask(32) {
            low = low.meet(Range::between(start, end))?;
        }
        if start >> 32 == end >> 32 {
            let upper = start & !mask(32);
            wide = wide.meet(Range::between(upper | low.umin(), upper | low.umax()))?;
        } else if wide.smin() >= i64::from(i32::MIN) && wide.smax() <= i64::from(i32::MAX) {
            // Also where it runs over the end: then the low half does as well.
            low = low.meet(Range::between(wide.smin() as u64, wide.smax() as u64))?;
            wide = wide.meet(Range::between(low.smin() as u64, low.smax() as u64))?;
        }
        Some(Self { wide, low })
    }

    pub(crate) fn meet(self, other: Self) -> Option<Self> {
        Self {
            wide: self.wide.meet(other.wide)?,
            low: self.low.meet(other.low)?,
        }
        .tightened()
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self {
            wide: self.wide.join(other.wide),
            low: self.low.join(other.low),
        }
    }

    /// See [`Range::widen`].
    pub(crate) fn widen(self, newer: Self, bounds: &[u64]) -> Self {
        Self {
            wide: self.wide.widen(newer.wide, bounds),
            low: self.low.widen(newer.low, bounds),
        }
    }

    /// The lowest `bits` bits, zero-extended.
    pub(crate) fn truncate(self, bits: u32) -> Self {
        if bits >= 64 || self.umax() <= mask(bits) {
            self
        } else if bits == 32 || (bits < 32 && self.low.umax() <= mask(bits)) {
            Self::from_low(self.low)
        } else if let Some(number) = self.as_constant() {
            Self::constant(number & mask(bits))
        } else {
            Self::below_bits(bits)
        }
    }

    /// The lowest `bits` bits, sign-extended to 64.
    pub(crate) fn sign_extend(self, bits: u32) -> Self {
        let signed =
            |low: i64, high: i64| Self::of(Range::between(low as u64, high as u64), Range::FULL);
        if bits >= 64 {
            self
        } else if bits == 32 {
            signed(self.low.smin(), self.low.smax())
        } else {
            let part = self.truncate(bits);
            let (low, high) = (part.umin(), part.umax());
            // All of one sign, or any of them.
            if low >> (bits - 1) == high >> (bits - 1) {
                signed(sign_extended(low, bits), sign_extended(high, bits))
            } else {
                signed(-1 << (bits - 1), (1 << (bits - 1)) - 1)
            }
        }
    }

    /// `self + other`, wrapping.
    pub(crate) fn add(self, other: Self) -> Self {
        Self::of(self.wide.add(other.wide), self.low.add(other.low))
    }

    /// `self - other`, wrapping.
    pub(crate) fn sub(self, other: Self) -> Self {
        Self::of(
            self.wide.add(other.wide.negated()),
            self.low.add(other.low.negated()),
        )
    }

    pub(crate) fn and(self, other: Self) -> Self {
        if let (Some(a), Some(b)) = (self.as_constant(), other.as_constant()) {
            return Self::constant(a & b);
        }
        Self::of(
            Range::between(0, self.umax().min(other.umax())),
            Range::between(0, self.low.umax().min(other.low.umax())),
        )
    }

    /// `self | other`: no bit above the highest of both, and no less than either.
    pub(crate) fn or(self, other: Self) -> Self {
        Self::of(
            Range::between(
                self.umin().max(other.umin()),
                covering_bits(self.umax() | other.umax()),
            ),
            Range::between(
                self.low.umin().max(other.low.umin()),
                covering_bits(self.low.umax() | other.low.umax()),
            ),
        )
    }

    /// `self ^ other`: no bit above the highest of both.
    pub(crate) fn xor(self, other: Self) -> Self {
        Self::of(
            Range::between(0, covering_bits(self.umax() | other.umax())),
            Range::between(0, covering_bits(self.low.umax() | other.low.umax())),
        )
    }

    /// `self << count` within `bits`.
    pub(crate) fn shl(self, count: u32, bits: u32) -> Self {
        if count >= bits {
            return Self::below_bits(bits);
        }
        // What stays: if the count is large, it is all from the low half.
        let from = if bits - count <= 32 {
            self.truncate(32)
        } else {
            self.truncate(bits)
        };
        if from.umax() <= mask(bits) >> count {
            Self::between(from.umin() << count, from.umax() << count)
        } else if bits == 64 && count < 32 && self.low.umax() <= mask(32) >> count {
            let low = Range::between(self.low.umin() << count, self.low.umax() << count);
            Self::of(Range::FULL, low)
        } else {
            Self::below_bits(bits)
        }
    }

    /// `self >> count` of a number of `bits` bits, unsigned.
    pub(crate) fn shr(self, count: u32, bits: u32) -> Self {
        let from = self.truncate(bits);
        if count < bits {
            Self::between(from.umin() >> count, from.umax() >> count)
        } else {
            Self::below_bits(bits)
        }
    }

    /// `self >> count` of a number of `bits` bits, signed.
    pub(crate) fn sar(self, count: u32, bits: u32) -> Self {
        let from = self.sign_extend(bits);
        if count >= bits {
            return Self::below_bits(bits);
        }
        let (low, high) = (from.wide.smin() >> count, from.wide.smax() >> count);
        Self::of(Range::between(low as u64, high as u64), Range::FULL).truncate(bits)
    }

    /// `self * other` within `bits`.
    pub(crate) fn mul(self, other: Self, bits: u32) -> Self {
        let (a, b) = (self.truncate(bits), other.truncate(bits));
        match a.umax().checked_mul(b.umax()) {
            Some(product) if product <= mask(bits) => Self::between(a.umin() * b.umin(), product),
            Some(_) | None => Self::below_bits(bits),
        }
    }
}

/// The smallest number of the form 2ⁿ-1 that is no less.
const fn covering_bits(number: u64) -> u64 {
    mask(64 - number.leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets of numbers around every edge, each with numbers that are in it.
    fn samples() -> Vec<(Number, Vec<u64>)> {
        const EDGES: [u64; 14] = [
            0,
            1,
            7,
            0xff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fffe,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0007,
            0x7fff_ffff_ffff_ffff,
            0x8000_0000_0000_0000,
            0xffff_ffff_8000_0000,
            0xffff_ffff_ffff_fffe,
        ];
        let mut samples = Vec::new();
        for low in EDGES {
            for high in EDGES {
                let wide = Range::<64>::between(low, high);
                let middle = low.wrapping_add(high.wrapping_sub(low) / 2);
                samples.push((Number::of(wide, Range::FULL), vec![low, middle, high]));
                let half = Range::<32>::between(low & mask(32), high & mask(32));
                let upper = middle & !mask(32);
                samples.push((
                    Number::of(Range::FULL, half),
                    vec![
                        low & mask(32),
                        upper | (low & mask(32)),
                        upper | (high & mask(32)),
                    ],
                ));
            }
        }
        samples
    }

    fn holds(number: Number, value: u64) -> bool {
        number.wide.covers(Range::constant(value)) && number.low.covers(Range::constant(value))
    }

    #[test]
    fn results_are_held() {
        let samples = samples();
        for (a, in_a) in &samples {
            for x in in_a.iter().copied() {
                assert!(holds(*a, x), "{a:?} {x:#x}");
                for bits in [8, 16, 32, 64] {
                    let extended = sign_extended(x, bits) as u64;
                    assert!(holds(a.truncate(bits), x & mask(bits)), "{a:?} {x:#x}");
                    assert!(holds(a.sign_extend(bits), extended), "{a:?} {x:#x} {bits}");
                }
                for bits in [32, 64] {
                    for count in [0, 1, 3, 31, 32, 33, 63] {
                        if count >= bits {
                            continue;
                        }
                        let shifted = (x << count) & mask(bits);
                        assert!(
                            holds(a.shl(count, bits), shifted),
                            "{a:?} {x:#x} << {count}"
                        );
                        let shifted = (x & mask(bits)) >> count;
                        assert!(
                            holds(a.shr(count, bits), shifted),
                            "{a:?} {x:#x} >> {count}"
                        );
                        let shifted = (sign_extended(x, bits) >> count) as u64 & mask(bits);
                        assert!(
                            holds(a.sar(count, bits), shifted),
                            "{a:?} {x:#x} sar {count}"
                        );
                    }
                }
            }
            for (b, in_b) in &samples {
                let joined = a.join(*b);
                let widened = a.widen(*b, &[7, 255]);
                let met = a.meet(*b);
                for x in in_a.iter().copied() {
                    assert!(holds(joined, x) && holds(widened, x), "{a:?} {b:?} {x:#x}");
                    if holds(*b, x) {
                        assert!(
                            met.is_some_and(|met| holds(met, x)),
                            "{a:?} meet {b:?} {x:#x}"
                        );
                    }
                    for y in in_b.iter().copied() {
                        assert!(holds(a.add(*b), x.wrapping_add(y)), "{a:?} + {b:?}");
                        assert!(holds(a.sub(*b), x.wrapping_sub(y)), "{a:?} - {b:?}");
                        assert!(holds(a.and(*b), x & y), "{a:?} & {b:?}");
                        assert!(holds(a.or(*b), x | y), "{a:?} | {b:?}");
                        assert!(holds(a.xor(*b), x ^ y), "{a:?} ^ {b:?}");
                        let product = x.wrapping_mul(y);
                        assert!(holds(a.mul(*b, 64), product), "{a:?} * {b:?}");
                        assert!(holds(a.mul(*b, 32), product & mask(32)), "{a:?} * {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn each_half_learns_from_the_other() {
        let low = Number::of(Range::FULL, Range::between(0, 7));
        assert_eq!(low.truncate(32), Number::between(0, 7));
        assert_eq!(
            low.meet(Number::below_bits(32)),
            Some(Number::between(0, 7))
        );
        // `s<= 7` and then `s>= 0`, of the low half.
        let at_most_seven = Range::<32>::between(0x8000_0000, 7);
        let both = at_most_seven.meet(Range::between(0, 0x7fff_ffff));
        assert_eq!(both, Some(Range::between(0, 7)));
        let minus_one_to_five = Number::of(Range::FULL, Range::between(0xffff_ffff, 5));
        let extended = minus_one_to_five.sign_extend(32);
        assert_eq!((extended.wide.smin(), extended.wide.smax()), (-1, 5));
    }
}
