//! What is known of a number of some width: its bits, and its bounds read as unsigned and as signed.
//!
//! The three views are kept mutually tight by [`Range::tighten`]. A `Range` is never empty: whatever could be, returns
//! `Option`, and `None` means that no number is left. Everything takes the width, so that tests check all of it
//! exhaustively at small widths; 32 and 64 are what programs use.

use super::tnum::{Bits, Tnum};

/// A non-empty set of numbers of some width.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    pub(crate) tnum: Tnum,
    pub(crate) umin: u64,
    pub(crate) umax: u64,
    pub(crate) smin: i64,
    pub(crate) smax: i64,
}

impl Range {
    pub(crate) const fn top(bits: Bits) -> Self {
        Self {
            tnum: Tnum::unknown(bits),
            umin: 0,
            umax: bits.mask(),
            smin: bits.smin(),
            smax: bits.smax(),
        }
    }

    pub(crate) const fn constant(value: u64, bits: Bits) -> Self {
        let value = value & bits.mask();
        Self {
            tnum: Tnum::constant(value),
            umin: value,
            umax: value,
            smin: bits.signed(value),
            smax: bits.signed(value),
        }
    }

    /// Every number in `min..=max`, unsigned.
    pub(crate) fn unsigned(min: u64, max: u64, bits: Bits) -> Self {
        let mut range = Self::top(bits);
        range.umin = min;
        range.umax = max;
        range.tighten(bits).unwrap_or(Self::top(bits))
    }

    /// Every number in `min..=max`, signed.
    pub(crate) fn signed(min: i64, max: i64, bits: Bits) -> Self {
        let mut range = Self::top(bits);
        range.smin = min;
        range.smax = max;
        range.tighten(bits).unwrap_or(Self::top(bits))
    }

    /// Every number that has these bits.
    pub(crate) fn from_tnum(tnum: Tnum, bits: Bits) -> Self {
        let mut range = Self::top(bits);
        range.tnum = tnum;
        range.tighten(bits).unwrap_or(Self::top(bits))
    }

    pub(crate) const fn as_constant(self) -> Option<u64> {
        if self.umin == self.umax {
            Some(self.umin)
        } else {
            None
        }
    }

    pub(crate) const fn contains(self, value: u64, bits: Bits) -> bool {
        let signed = bits.signed(value);
        self.tnum.contains(value)
            && self.umin <= value
            && value <= self.umax
            && self.smin <= signed
            && signed <= self.smax
    }

    /// Is everything in `self` also in `other`?
    pub(crate) const fn is_within(self, other: Self) -> bool {
        self.umin >= other.umin
            && self.umax <= other.umax
            && self.smin >= other.smin
            && self.smax <= other.smax
            && self.tnum.is_within(other.tnum)
    }

    /// What is in both, or `None`.
    pub(crate) fn meet(self, other: Self, bits: Bits) -> Option<Self> {
        Self {
            tnum: self.tnum.meet(other.tnum)?,
            umin: self.umin.max(other.umin),
            umax: self.umax.min(other.umax),
            smin: self.smin.max(other.smin),
            smax: self.smax.min(other.smax),
        }
        .tighten(bits)
    }

    /// A range that holds what either holds.
    pub(crate) fn join(self, other: Self, bits: Bits) -> Self {
        Self {
            tnum: self.tnum.join(other.tnum),
            umin: self.umin.min(other.umin),
            umax: self.umax.max(other.umax),
            smin: self.smin.min(other.smin),
            smax: self.smax.max(other.smax),
        }
        .tighten(bits)
        .unwrap_or(Self::top(bits))
    }

    /// A range that holds what either holds and that grows in few steps: a bound that `newer` exceeds moves on to the next
    /// of `limits` (ascending: numbers that the program compares with), or is given up.
    pub(crate) fn widen(self, newer: Self, bits: Bits, limits: &[i64]) -> Self {
        let top = Self::top(bits);
        let above = |least: i64| limits.iter().find(|limit| **limit >= least).copied();
        let below = |most: i64| limits.iter().rev().find(|limit| **limit <= most).copied();
        let mut wide = self.join(newer, bits);
        if newer.umax > self.umax {
            wide.umax = i64::try_from(newer.umax)
                .ok()
                .and_then(above)
                .and_then(|limit| u64::try_from(limit).ok())
                .map_or(top.umax, |limit| limit.min(top.umax));
        }
        if newer.umin < self.umin {
            wide.umin = i64::try_from(newer.umin)
                .ok()
                .and_then(below)
                .and_then(|limit| u64::try_from(limit).ok())
                .unwrap_or(top.umin);
        }
        if newer.smax > self.smax {
            wide.smax = above(newer.smax).map_or(top.smax, |limit| limit.min(top.smax));
        }
        if newer.smin < self.smin {
            wide.smin = below(newer.smin).map_or(top.smin, |limit| limit.max(top.smin));
        }
        if !newer.tnum.is_within(self.tnum) {
            // Bits below the first that changed are kept: a counter's step shows in them.
            let kept = (1u64 << wide.tnum.mask.trailing_zeros().min(63)) - 1;
            wide.tnum = Tnum {
                value: wide.tnum.value & kept,
                mask: bits.mask() & !kept,
            };
        }
        wide.tighten(bits).unwrap_or(top)
    }

    /// Lets each view learn from the others until nothing changes; `None` when they contradict each other.
    pub(crate) fn tighten(mut self, bits: Bits) -> Option<Self> {
        // Each round can only shrink the set; three settle everything that branch conditions produce, and stopping
        // early is sound.
        for _ in 0..4 {
            let before = self;
            self.signed_from_bits(bits);
            self.umin = self.umin.max(self.tnum.min());
            self.umax = self.umax.min(self.tnum.max());
            if self.umin > self.umax || self.smin > self.smax {
                return None;
            }
            self.signed_from_unsigned(bits);
            self.unsigned_from_signed(bits);
            if self.umin > self.umax || self.smin > self.smax {
                return None;
            }
            self.tnum = self.tnum.meet(Tnum::range(self.umin, self.umax))?;
            if self == before {
                break;
            }
        }
        Some(self)
    }

    fn signed_from_bits(&mut self, bits: Bits) {
        let sign = bits.sign_bit();
        let lowest = self.tnum.value | (self.tnum.mask & sign);
        let highest = self.tnum.value | (self.tnum.mask & !sign);
        self.smin = self.smin.max(bits.signed(lowest));
        self.smax = self.smax.min(bits.signed(highest));
    }

    fn signed_from_unsigned(&mut self, bits: Bits) {
        let sign = bits.sign_bit();
        // The numbers on one side of the sign boundary are in the same order in both readings.
        if (self.umin ^ self.umax) & sign == 0 {
            self.smin = self.smin.max(bits.signed(self.umin));
            self.smax = self.smax.min(bits.signed(self.umax));
        }
    }

    fn unsigned_from_signed(&mut self, bits: Bits) {
        if (self.smin < 0) == (self.smax < 0) {
            self.umin = self.umin.max(bits.unsigned(self.smin));
            self.umax = self.umax.min(bits.unsigned(self.smax));
            return;
        }
        // The signed range covers 0..=smax and, read as unsigned, smin..=MAX: does the unsigned range miss one?
        let negative_from = bits.unsigned(self.smin);
        let positive_to = bits.unsigned(self.smax);
        if self.umax < negative_from {
            self.umax = self.umax.min(positive_to);
            self.smin = 0;
        } else if self.umin > positive_to {
            self.umin = self.umin.max(negative_from);
            self.smax = -1;
        }
    }

    /// The low `to` bits, with what the bounds say about them.
    pub(crate) fn truncate(self, from: Bits, to: Bits) -> Self {
        let mut result = Self::top(to);
        result.tnum = self.tnum.truncate(to);
        result.cut_to_arc(self.umin, self.umax.wrapping_sub(self.umin), to);
        let signed_span = self.smax.wrapping_sub(self.smin) as u64;
        result.cut_to_arc(from.unsigned(self.smin), signed_span, to);
        result.tighten(to).unwrap_or(Self::top(to))
    }

    /// Restricts to the `span + 1` consecutive numbers from `start` on, modulo the width, where that is an interval.
    fn cut_to_arc(&mut self, start: u64, span: u64, bits: Bits) {
        let start = start & bits.mask();
        if span <= bits.mask() - start {
            self.umin = self.umin.max(start);
            self.umax = self.umax.min(start + span);
        }
        let signed_start = bits.signed(start);
        let room = bits.smax().wrapping_sub(signed_start) as u64;
        if span <= room {
            self.smin = self.smin.max(signed_start);
            self.smax = self.smax.min(signed_start.wrapping_add(span as i64));
        }
    }

    /// The same numbers, read as unsigned, in more bits.
    pub(crate) fn zero_extend(self, to: Bits) -> Self {
        let mut range = Self::top(to);
        range.tnum = self.tnum;
        range.umin = self.umin;
        range.umax = self.umax;
        range.tighten(to).unwrap_or(Self::top(to))
    }

    /// The same numbers, read as signed, in more bits.
    pub(crate) fn sign_extend(self, from: Bits, to: Bits) -> Self {
        let mut range = Self::top(to);
        range.tnum = self.tnum.sign_extend(from, to);
        range.smin = self.smin;
        range.smax = self.smax;
        range.tighten(to).unwrap_or(Self::top(to))
    }
}
