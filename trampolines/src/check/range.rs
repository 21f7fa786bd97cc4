//! Intervals of numbers modulo a power of two.
//!
//! An interval may run over the end and go on at zero, so that one holds what unsigned and what signed comparisons
//! show: `-1..=5` is as good as `3..=9`. Plain arithmetic, nothing about machines. Invariant: every operation
//! over-approximates; tests check all of them exhaustively at 4 bits.

/// A non-empty interval of numbers of some width: `start`, and the `span` numbers that follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Range<const BITS: u32> {
    start: u64,
    span: u64,
}

impl<const BITS: u32> Range<BITS> {
    /// All bits set; also the largest number.
    pub(crate) const MASK: u64 = mask(BITS);
    /// The sign bit; also the number of the smallest signed one.
    const SIGN: u64 = 1 << (BITS - 1);
    /// Every number.
    pub(crate) const FULL: Self = Self {
        start: 0,
        span: Self::MASK,
    };

    pub(crate) const fn constant(number: u64) -> Self {
        Self::between(number, number)
    }

    /// From `low` up to `high`, over the end if `high` is less.
    pub(crate) const fn between(low: u64, high: u64) -> Self {
        Self::of(low, high.wrapping_sub(low) & Self::MASK)
    }

    const fn of(start: u64, span: u64) -> Self {
        if span == Self::MASK {
            Self::FULL
        } else {
            Self {
                start: start & Self::MASK,
                span,
            }
        }
    }

    pub(crate) const fn as_constant(self) -> Option<u64> {
        if self.span == 0 {
            Some(self.start)
        } else {
            None
        }
    }

    const fn distance(from: u64, to: u64) -> u64 {
        to.wrapping_sub(from) & Self::MASK
    }

    const fn end(self) -> u64 {
        self.start.wrapping_add(self.span) & Self::MASK
    }

    const fn contains(self, number: u64) -> bool {
        Self::distance(self.start, number) <= self.span
    }

    /// Is everything in `other` in `self`?
    pub(crate) const fn covers(self, other: Self) -> bool {
        let offset = Self::distance(self.start, other.start);
        self.span == Self::MASK || (offset <= self.span && other.span <= self.span - offset)
    }

    /// The smallest number, unsigned.
    pub(crate) const fn umin(self) -> u64 {
        if self.end() < self.start {
            0
        } else {
            self.start
        }
    }

    /// The largest number, unsigned.
    pub(crate) const fn umax(self) -> u64 {
        if self.end() < self.start {
            Self::MASK
        } else {
            self.end()
        }
    }

    /// The interval with every sign turned: signed order becomes unsigned order.
    const fn turned(self) -> Self {
        Self::of(self.start.wrapping_add(Self::SIGN), self.span)
    }

    /// The smallest number, signed.
    pub(crate) const fn smin(self) -> i64 {
        sign_extended(self.turned().umin() ^ Self::SIGN, BITS)
    }

    /// The largest number, signed.
    pub(crate) const fn smax(self) -> i64 {
        sign_extended(self.turned().umax() ^ Self::SIGN, BITS)
    }

    pub(crate) const fn add(self, other: Self) -> Self {
        match self.span.checked_add(other.span) {
            Some(span) if span <= Self::MASK => {
                Self::of(self.start.wrapping_add(other.start), span)
            }
            Some(_) | None => Self::FULL,
        }
    }

    pub(crate) const fn negated(self) -> Self {
        Self::of(0u64.wrapping_sub(self.end()), self.span)
    }

    /// What is in both, or more where that is two intervals; `None` if nothing is.
    pub(crate) const fn meet(self, other: Self) -> Option<Self> {
        let first = self.contains(other.start);
        let second = other.contains(self.start);
        if first && second && self.start != other.start {
            // Two pieces, unless one holds the other.
            return Some(if self.span <= other.span { self } else { other });
        }
        if first {
            let left = self.span - Self::distance(self.start, other.start);
            return Some(Self::of(
                other.start,
                if left < other.span { left } else { other.span },
            ));
        }
        if second {
            let left = other.span - Self::distance(other.start, self.start);
            return Some(Self::of(
                self.start,
                if left < self.span { left } else { self.span },
            ));
        }
        None
    }

    /// Without `number`, where that leaves an interval; `None` if it leaves nothing.
    pub(crate) const fn without(self, number: Option<u64>) -> Option<Self> {
        match (number, self.span) {
            (Some(number), 0) if number == self.start => None,
            (Some(number), span) if number == self.start => {
                Some(Self::of(self.start.wrapping_add(1), span - 1))
            }
            (Some(number), span) if number == self.end() => Some(Self::of(self.start, span - 1)),
            _ => Some(self),
        }
    }

    /// The smallest interval that holds both.
    pub(crate) fn join(self, other: Self) -> Self {
        if self.covers(other) {
            return self;
        }
        if other.covers(self) {
            return other;
        }
        let upwards = Self::between(self.start, other.end());
        let downwards = Self::between(other.start, self.end());
        let holds_both = |range: Self| range.covers(self) && range.covers(other);
        match (holds_both(upwards), holds_both(downwards)) {
            (true, true) if downwards.span < upwards.span => downwards,
            (true, _) => upwards,
            (false, true) => downwards,
            (false, false) => Self::FULL,
        }
    }

    /// Holds both, and after few steps no more grows: bounds that move jump to 0 and to the next of `bounds` (ascending).
    pub(crate) fn widen(self, newer: Self, bounds: &[u64]) -> Self {
        let joined = self.join(newer);
        if joined == self {
            return self;
        }
        let low = if joined.umin() < self.umin() {
            0
        } else {
            joined.umin()
        };
        let high = if joined.umax() > self.umax() {
            let next = bounds.iter().copied().chain([0xffff_ffff]);
            next.filter(|bound| *bound <= Self::MASK)
                .find(|bound| *bound >= joined.umax())
                .unwrap_or(Self::MASK)
        } else {
            joined.umax()
        };
        let widened = Self::between(low, high);
        if widened.covers(joined) {
            widened
        } else {
            Self::FULL
        }
    }
}

/// The lowest `bits` (0-64) bits.
pub(crate) const fn mask(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

/// The lowest `bits` (1-64) bits as a signed number.
pub(crate) const fn sign_extended(number: u64, bits: u32) -> i64 {
    let unused = 64 - bits;
    ((number << unused) as i64) >> unused
}

#[cfg(test)]
mod tests {
    use super::*;

    type Four = Range<4>;

    fn all() -> Vec<Four> {
        let mut all = vec![Four::FULL];
        for start in 0..16 {
            all.extend((0..15).map(|span| Four::of(start, span)));
        }
        all
    }

    fn numbers(range: Four) -> Vec<u64> {
        (0..16).filter(|number| range.contains(*number)).collect()
    }

    #[test]
    fn bounds_are_the_smallest_and_the_largest() {
        for range in all() {
            let signed = |number: &u64| sign_extended(*number, 4);
            let numbers = numbers(range);
            assert_eq!(range.umin(), *numbers.iter().min().unwrap(), "{range:?}");
            assert_eq!(range.umax(), *numbers.iter().max().unwrap(), "{range:?}");
            assert_eq!(range.smin(), numbers.iter().map(signed).min().unwrap());
            assert_eq!(range.smax(), numbers.iter().map(signed).max().unwrap());
            assert_eq!(
                range.as_constant(),
                (numbers.len() == 1).then(|| numbers[0])
            );
        }
    }

    #[test]
    fn operations_hold_every_result() {
        for a in all() {
            for number in numbers(a) {
                assert!(a.negated().contains(number.wrapping_neg() & 15), "-{a:?}");
            }
            for b in all() {
                let (in_a, in_b) = (numbers(a), numbers(b));
                let covers = in_b.iter().all(|number| in_a.contains(number));
                assert_eq!(a.covers(b), covers, "{a:?} covers {b:?}");
                let joined = a.join(b);
                assert!(joined.covers(a) && joined.covers(b), "{a:?} join {b:?}");
                let widened = a.widen(b, &[3, 9]);
                assert!(widened.covers(joined), "{a:?} widen {b:?}: {widened:?}");
                let common: Vec<u64> = in_a.iter().copied().filter(|n| in_b.contains(n)).collect();
                match a.meet(b) {
                    None => assert!(common.is_empty(), "{a:?} meet {b:?}"),
                    Some(met) => {
                        assert!(!common.is_empty(), "{a:?} meet {b:?}");
                        assert!(common.iter().all(|n| met.contains(*n)), "{a:?} meet {b:?}");
                        assert!(a.covers(met) || b.covers(met), "{a:?} meet {b:?}: {met:?}");
                    }
                }
                let sum = a.add(b);
                for x in &in_a {
                    for y in &in_b {
                        assert!(sum.contains((x + y) & 15), "{a:?} + {b:?}: {sum:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn widening_ends() {
        for first in all() {
            let mut range = first;
            for number in 0..16 {
                let before = range;
                range = range.widen(Four::constant(number), &[]);
                assert!(range == before || range.covers(before));
            }
            let mut steps = 0;
            let mut range = Four::constant(0);
            for number in 0..16 {
                let wider = range.widen(Four::between(0, number), &[7]);
                steps += u32::from(wider != range);
                range = wider;
            }
            assert!(steps <= 3, "{steps}");
        }
    }
}
