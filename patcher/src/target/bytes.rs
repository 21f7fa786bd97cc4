//! The bytes of an ELF image: a whole file, or what was read from a process's memory.
//!
//! Files up to [`READ_LIMIT`] are read, so that nobody can truncate them under us; larger ones (debug information) are
//! mapped, and truncating one of those while it is looked at ends `upatch` by SIGBUS: acceptable for a tool that holds nothing
//! of the target at that time, and documented.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;

/// Files up to this size are read rather than mapped.
pub const READ_LIMIT: u64 = 64 << 20;

/// Bytes that don't change.
pub enum Bytes {
    /// In our own memory.
    Owned(Vec<u8>),
    /// A file mapped for reading.
    Mapped(memmap2::Mmap),
}

impl Bytes {
    /// The whole content of a file.
    ///
    /// # Errors
    /// Whatever reading or mapping says.
    pub fn of_file(file: &File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        if len > READ_LIMIT {
            return crate::process::map_for_reading(file).map(Self::Mapped);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0).saturating_add(1));
        file.take(READ_LIMIT).read_to_end(&mut bytes)?;
        Ok(Self::Owned(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}
