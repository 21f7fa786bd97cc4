//! Addresses as an ELF file states them, and the one number that turns them into addresses of a process.

use std::fmt;

use upatch_trampolines::Avma;

/// Stated virtual memory address: what program headers and symbols of an ELF file say. Not a file offset, and an
/// address of a process only after adding a [`LoadBias`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Svma(pub u64);

impl Svma {
    /// The address `bytes` further on, wrapping like the machine does.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// Distance from `earlier` in bytes, or `None` if `self` lies before it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Display for Svma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Svma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Svma({:#x})", self.0)
    }
}

/// AVMA minus SVMA of one loaded module; wraps (a module may be loaded below its stated addresses). 0 for non-PIE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LoadBias(pub u64);

impl LoadBias {
    /// The bias under which `svma` lies at `avma`.
    #[must_use]
    pub const fn between(avma: Avma, svma: Svma) -> Self {
        Self(avma.0.wrapping_sub(svma.0))
    }

    /// Where the stated address lies in the process.
    #[must_use]
    pub const fn avma(self, svma: Svma) -> Avma {
        Avma(svma.0.wrapping_add(self.0))
    }

    /// What the file calls the address of the process.
    #[must_use]
    pub const fn svma(self, avma: Avma) -> Svma {
        Svma(avma.0.wrapping_sub(self.0))
    }
}

impl fmt::Debug for LoadBias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoadBias({:#x})", self.0)
    }
}
