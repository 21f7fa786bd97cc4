//! Tristate numbers: what is known of a number bit by bit.
//!
//! A bit is known 0, known 1, or unknown. Functions take the width in bits, so that tests can check them exhaustively
//! at small widths. Invariant: `value & mask == 0`, and neither has a bit beyond the width.
//! (The addition and multiplication follow Vishwanathan et al., "Sound, Precise, and Fast Abstract Interpretation with
//! Tristate Numbers", CGO 2022.)

/// Width of a number in bits: 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Bits(pub(crate) u32);

impl Bits {
    pub(crate) const B32: Self = Self(32);
    pub(crate) const B64: Self = Self(64);

    /// All bits set.
    pub(crate) const fn mask(self) -> u64 {
        if self.0 >= 64 {
            u64::MAX
        } else {
            (1 << self.0) - 1
        }
    }

    pub(crate) const fn sign_bit(self) -> u64 {
        1 << (self.0 - 1)
    }

    pub(crate) const fn smin(self) -> i64 {
        i64::MIN >> (64 - self.0)
    }

    pub(crate) const fn smax(self) -> i64 {
        i64::MAX >> (64 - self.0)
    }

    /// The low bits as a signed number.
    pub(crate) const fn signed(self, value: u64) -> i64 {
        ((value << (64 - self.0)) as i64) >> (64 - self.0)
    }

    /// A signed number of this width as its bits.
    pub(crate) const fn unsigned(self, value: i64) -> u64 {
        value as u64 & self.mask()
    }
}

/// A tristate number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Tnum {
    /// The known ones.
    pub(crate) value: u64,
    /// The unknown bits.
    pub(crate) mask: u64,
}

impl Tnum {
    pub(crate) const fn constant(value: u64) -> Self {
        Self { value, mask: 0 }
    }

    pub(crate) const fn unknown(bits: Bits) -> Self {
        Self {
            value: 0,
            mask: bits.mask(),
        }
    }

    /// The smallest that holds every number in `min..=max`: the common leading bits are known.
    pub(crate) const fn range(min: u64, max: u64) -> Self {
        let differing = min ^ max;
        let unknown_bits = 64 - differing.leading_zeros();
        let mask = if unknown_bits == 64 {
            u64::MAX
        } else {
            (1 << unknown_bits) - 1
        };
        Self {
            value: min & !mask,
            mask,
        }
    }

    pub(crate) const fn min(self) -> u64 {
        self.value
    }

    pub(crate) const fn max(self) -> u64 {
        self.value | self.mask
    }

    pub(crate) const fn contains(self, number: u64) -> bool {
        number & !self.mask == self.value
    }

    /// Is everything in `self` also in `other`?
    pub(crate) const fn is_within(self, other: Self) -> bool {
        self.mask & !other.mask == 0 && other.contains(self.value)
    }

    /// What both say, or `None` if they contradict each other.
    pub(crate) const fn meet(self, other: Self) -> Option<Self> {
        if (self.value ^ other.value) & !self.mask & !other.mask != 0 {
            return None;
        }
        let mask = self.mask & other.mask;
        Some(Self {
            value: (self.value | other.value) & !mask,
            mask,
        })
    }

    /// What holds for both.
    pub(crate) const fn join(self, other: Self) -> Self {
        let mask = self.mask | other.mask | (self.value ^ other.value);
        Self {
            value: self.value & !mask,
            mask,
        }
    }

    /// The low bits.
    pub(crate) const fn truncate(self, bits: Bits) -> Self {
        Self {
            value: self.value & bits.mask(),
            mask: self.mask & bits.mask(),
        }
    }

    /// Copies bit `from - 1` into all bits above it, up to `to`.
    pub(crate) const fn sign_extend(self, from: Bits, to: Bits) -> Self {
        let mask = from.signed(self.mask) as u64 & to.mask();
        let value = from.signed(self.value) as u64 & to.mask();
        Self { value, mask }
    }

    pub(crate) const fn add(self, other: Self, bits: Bits) -> Self {
        let masks = self.mask.wrapping_add(other.mask);
        let values = self.value.wrapping_add(other.value);
        // Bits that differ between the smallest and the largest sum saw different carries.
        let carries = masks.wrapping_add(values) ^ values;
        let mask = (carries | self.mask | other.mask) & bits.mask();
        Self {
            value: values & !mask & bits.mask(),
            mask,
        }
    }

    pub(crate) const fn sub(self, other: Self, bits: Bits) -> Self {
        let difference = self.value.wrapping_sub(other.value);
        let highest = difference.wrapping_add(self.mask);
        let lowest = difference.wrapping_sub(other.mask);
        let mask = ((highest ^ lowest) | self.mask | other.mask) & bits.mask();
        Self {
            value: difference & !mask & bits.mask(),
            mask,
        }
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        let possible = self.max() & other.max();
        let value = self.value & other.value;
        Self {
            value,
            mask: possible & !value,
        }
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        let value = self.value | other.value;
        Self {
            value,
            mask: (self.mask | other.mask) & !value,
        }
    }

    pub(crate) const fn xor(self, other: Self) -> Self {
        let mask = self.mask | other.mask;
        Self {
            value: (self.value ^ other.value) & !mask,
            mask,
        }
    }

    /// `count` is less than the width.
    pub(crate) const fn shift_left(self, count: u32, bits: Bits) -> Self {
        Self {
            value: (self.value << count) & bits.mask(),
            mask: (self.mask << count) & bits.mask(),
        }
    }

    /// `count` is less than the width.
    pub(crate) const fn shift_right(self, count: u32) -> Self {
        Self {
            value: self.value >> count,
            mask: self.mask >> count,
        }
    }

    /// `count` is less than the width.
    pub(crate) const fn shift_right_signed(self, count: u32, bits: Bits) -> Self {
        Self {
            value: bits.unsigned(bits.signed(self.value) >> count),
            mask: bits.unsigned(bits.signed(self.mask) >> count),
        }
    }

    /// Long multiplication: a partial product for each bit of `self`.
    pub(crate) const fn mul(self, other: Self, bits: Bits) -> Self {
        let known = Self::constant(self.value.wrapping_mul(other.value) & bits.mask());
        let mut uncertain = Self::constant(0);
        let mut left = self;
        let mut right = other;
        while left.value | left.mask != 0 {
            if left.value & 1 == 1 {
                uncertain = uncertain.add(
                    Self {
                        value: 0,
                        mask: right.mask,
                    },
                    bits,
                );
            } else if left.mask & 1 == 1 {
                uncertain = uncertain.add(
                    Self {
                        value: 0,
                        mask: right.value | right.mask,
                    },
                    bits,
                );
            }
            left = left.shift_right(1);
            right = right.shift_left(1, bits);
        }
        known.add(uncertain, bits)
    }

    /// The low `bits` (16, 32 or 64) in reverse byte order.
    pub(crate) const fn swap_bytes(self, bits: Bits) -> Self {
        Self {
            value: (self.value & bits.mask()).swap_bytes() >> (64 - bits.0),
            mask: (self.mask & bits.mask()).swap_bytes() >> (64 - bits.0),
        }
    }
}
