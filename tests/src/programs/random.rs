//! A small deterministic generator of numbers, with a liking for those where something happens.

/// A small deterministic generator of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One that always gives the same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so an iterator's Option would only be in the way"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True `percent` times of 100.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of a list that is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).expect("an index fits")]
    }

    /// A number where something happens: small, or near a power of two.
    pub fn interesting(&mut self) -> u64 {
        match self.below(5) {
            0 => self.below(70),
            1 => self.below(20).wrapping_neg(),
            2 => (1u64 << self.below(64))
                .wrapping_add(self.below(5))
                .wrapping_sub(2),
            3 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    pub(super) fn imm(&mut self) -> i32 {
        match self.below(4) {
            0 => self.below(70) as i32,
            1 => -(self.below(20) as i32),
            2 => (1i64 << self.below(32)).wrapping_sub(self.below(3) as i64) as i32,
            _ => self.next() as i32,
        }
    }
}
