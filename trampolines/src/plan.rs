//! What a text poke is going to do, as plain data: printable (`--dry-run`), testable, and owned by the proof of quiescence.

use crate::address::{Avma, AvmaRange};

/// Where instructions of the site live in the image, so that a thread standing at one can be moved to the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IpMap {
    pairs: Vec<(Avma, Avma)>,
}

impl IpMap {
    /// A map from pairs of (address in the original text, address of the same instruction in the image).
    #[must_use]
    pub fn new(pairs: Vec<(Avma, Avma)>) -> Self {
        Self { pairs }
    }

    /// The image's copy of the instruction at `original`.
    #[must_use]
    pub fn to_image(&self, original: Avma) -> Option<Avma> {
        self.pairs
            .iter()
            .find(|pair| pair.0 == original)
            .map(|pair| pair.1)
    }

    /// The original of the instruction copied at `image`.
    #[must_use]
    pub fn to_original(&self, image: Avma) -> Option<Avma> {
        self.pairs
            .iter()
            .find(|pair| pair.1 == image)
            .map(|pair| pair.0)
    }

    /// All pairs (original, image), in the order of the original text.
    #[must_use]
    pub fn pairs(&self) -> &[(Avma, Avma)] {
        &self.pairs
    }
}

/// One text poke: which bytes become which, and what must hold for every thread when they do.
///
/// Holding a `PokePlan` tells you: `old` and `new` have the same length, the write stays within one page, and every
/// whole instruction that begins inside `old` has an entry in `ips` or is the first one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PokePlan {
    /// First byte to write.
    pub at: Avma,
    /// The bytes that must be there before.
    pub old: Vec<u8>,
    /// The bytes that will be there after; as long as `old`.
    pub new: Vec<u8>,
    /// All displaced instructions, from the site to the resume address: no return address may point inside (past the first byte),
    /// an ip inside (past the first byte) is moved by `ips`.
    pub displaced: AvmaRange,
    /// Where each displaced instruction went.
    pub ips: IpMap,
    /// The trampoline's image in the process.
    pub image: AvmaRange,
}

impl PokePlan {
    /// The plan that undoes this one: the same place, ips and image, the bytes exchanged.
    #[must_use]
    pub fn inverse(&self) -> Self {
        Self {
            old: self.new.clone(),
            new: self.old.clone(),
            ..self.clone()
        }
    }
}
