//! Addresses inside a running process, as types of their own.
//!
//! An `Avma` (actual virtual memory address) is where something lies in a process; an SVMA (stated) is what the ELF
//! file says. Mixing them is the classic way to patch the wrong bytes, so neither converts into the other by itself.

use std::fmt;

/// An address in a process's address space. Never dereferenced: it is a number with a meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Avma(pub u64);

impl Avma {
    /// The address `bytes` further on, wrapping like the machine does.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Distance from `earlier` to `self` in bytes, or `None` if `self` lies before it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Display for Avma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Avma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Avma({:#x})", self.0)
    }
}

/// The half-open range `start..end` of a process's address space; `start <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct AvmaRange {
    /// First address inside.
    pub start: Avma,
    /// First address after.
    pub end: Avma,
}

impl AvmaRange {
    /// The range of `len` bytes from `start`; saturates at the end of the address space.
    #[must_use]
    pub const fn new(start: Avma, len: u64) -> Self {
        Self {
            start,
            end: Avma(start.0.saturating_add(len)),
        }
    }

    /// Is `at` one of the range's addresses?
    #[must_use]
    pub fn contains(&self, at: Avma) -> bool {
        self.start <= at && at < self.end
    }

    /// Do the ranges share an address?
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Does the range hold no address at all?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
