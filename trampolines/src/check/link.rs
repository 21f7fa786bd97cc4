//! Which numbers were made from one another, so that a comparison of one tells about all.
//!
//! A link says: this number is `base + delta`, where `base` is a number that never changes. Knows no places; the state
//! applies it. Invariant: all values of a state that name one base were made from the same number; a base that is
//! handed out anew is taken from every value that had it before.

use super::number::Number;
use super::range::Range;

/// A number that others are made from: a register's at the entry (0-15), or the one that an instruction saw, told apart by
/// its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Base(pub(crate) u64);

impl Base {
    /// What register `number` held at the entry.
    pub(crate) const fn entry(number: u8) -> Self {
        Self(number as u64)
    }

    /// Operand `index` of the instruction at `ip`.
    pub(crate) const fn operand(ip: u64, index: u64) -> Self {
        Self(ip.wrapping_mul(4).wrapping_add(index) | 1 << 63)
    }

    /// The register whose value at the entry it is.
    pub(crate) fn as_entry(self) -> Option<u8> {
        u8::try_from(self.0).ok().filter(|number| *number < 16)
    }
}

/// "This number is `base + delta`, modulo 2^64"; narrow: its low 32 bits, zero-extended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) base: Base,
    delta: u64,
    narrow: bool,
}

impl Link {
    pub(crate) const fn to(base: Base) -> Self {
        Self {
            base,
            delta: 0,
            narrow: false,
        }
    }

    /// The link of `number + amount` within `bits`, where `number` has this link.
    pub(crate) fn after_add(self, number: Number, amount: u64, bits: u32) -> Option<Self> {
        let moved = |amount: u64, narrow: bool| Self {
            delta: self.delta.wrapping_add(amount),
            narrow,
            ..self
        };
        match bits {
            64 => (!self.narrow).then(|| moved(amount, false)),
            32 => {
                let signed = i128::from(amount as u32 as i32);
                let within =
                    |number: u64| (0..=0xffff_ffff).contains(&(i128::from(number) + signed));
                let exact = within(number.umin()) && within(number.umax());
                Some(moved(amount as u32 as i32 as u64, self.narrow || !exact))
            }
            _ => None,
        }
    }

    /// The link of the low half of `number`, zero-extended, where `number` has this link.
    pub(crate) fn after_cut(self, number: Number) -> Self {
        Self {
            narrow: self.narrow || !number.fits_low(),
            ..self
        }
    }

    /// What a number with this link is, when one with link `of` is known to be `known`; `None` if that says nothing.
    pub(crate) fn derive(self, known: Number, of: Self) -> Option<Number> {
        if of.base != self.base {
            return None;
        }
        let difference = Number::constant(self.delta.wrapping_sub(of.delta));
        let moved = known.add(difference);
        if self.narrow {
            return Some(Number::from_low(moved.low));
        }
        if of.narrow {
            return Number {
                wide: Range::FULL,
                low: moved.low,
            }
            .meet(Number::TOP);
        }
        Some(moved)
    }
}

/// The number with link `result` is the bitwise or of those with links `parts`: of all 64 bits, or of the low halves.
///
/// `a >= 32 || b >= 32` is compiled to `(a | b) > 31`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Or {
    pub(crate) result: Link,
    pub(crate) parts: [Link; 2],
    pub(crate) bits: u32,
}

impl Or {
    /// Does it speak of numbers made from `base`?
    pub(crate) fn names(&self, base: Base) -> bool {
        self.result.base == base || self.parts.iter().any(|part| part.base == base)
    }

    /// What holds for each part, when a number with link `of` is known to be `known`: no more than the or.
    pub(crate) fn limit(&self, known: Number, of: Link) -> Option<Number> {
        let whole = self.result.derive(known, of)?;
        let low = Range::between(0, whole.low.umax());
        let wide = if self.bits == 64 {
            Range::between(0, whole.umax())
        } else {
            Range::FULL
        };
        Number { wide, low }.meet(Number::TOP)
    }
}
