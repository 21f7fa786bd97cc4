//! The original text of a function that is to be patched, as its ELF file holds it.
//!
//! Plain data from whoever read the file. What nobody can see in the bytes of one function (landing pads, a cold part
//! elsewhere, where the next function begins) is given beside them; the more is given, the more is refused or accepted
//! for the right reason.

use crate::address::{Avma, AvmaRange};

/// What kind of place is patched; decides what is live there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SiteKind {
    /// The first instruction of a function: reached by calls, the ABI says what is live.
    Entry,
    /// An instruction inside a function: everything is live, flags and red zone too.
    Offset,
}

/// Code that belongs to the function but lies elsewhere (`.cold` parts): scanned for jumps, never displaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodePart {
    /// Address of the first byte.
    pub at: Avma,
    /// All its bytes, as in the ELF file.
    pub bytes: Vec<u8>,
}

/// A whole function and the place in it that is to be patched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionText {
    /// Address of the function's first byte in the process.
    pub at: Avma,
    /// All bytes of the function as in the ELF file (never as in memory: a probe of others may stand there).
    pub bytes: Vec<u8>,
    /// Offset of the patch site in `bytes`; 0 is the entry.
    pub site: usize,
    /// Bytes that follow the function and belong to no other one: the caller ends them at the next symbol or the next
    /// frame description. Used, when they are padding, for functions of fewer than five bytes. May be empty.
    pub bytes_after: Vec<u8>,
    /// Other parts of the same function.
    pub parts: Vec<CodePart>,
    /// Addresses inside the function that are reached in ways its code doesn't show: landing pads, symbols.
    pub entry_points: Vec<Avma>,
}

impl FunctionText {
    /// A function of which only its own bytes are known.
    #[must_use]
    pub const fn new(at: Avma, bytes: Vec<u8>, site: usize) -> Self {
        Self {
            at,
            bytes,
            site,
            bytes_after: Vec::new(),
            parts: Vec::new(),
            entry_points: Vec::new(),
        }
    }

    /// The same with the bytes that follow it (see [`FunctionText::bytes_after`]).
    #[must_use]
    pub fn with_bytes_after(self, bytes_after: Vec<u8>) -> Self {
        Self {
            bytes_after,
            ..self
        }
    }

    /// Address of the patch site.
    #[must_use]
    pub const fn site_at(&self) -> Avma {
        self.at.plus(self.site as u64)
    }

    /// Where the function's bytes lie.
    #[must_use]
    pub const fn range(&self) -> AvmaRange {
        AvmaRange::new(self.at, self.bytes.len() as u64)
    }

    /// Is the site the entry or a place inside?
    #[must_use]
    pub const fn kind(&self) -> SiteKind {
        if self.site == 0 {
            SiteKind::Entry
        } else {
            SiteKind::Offset
        }
    }
}
