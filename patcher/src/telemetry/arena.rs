//! Reading a patch's arena, wherever its bytes are to be had.
//!
//! The one place that knows how a patch's arena is reached. Reads never fail: what isn't there is not read, and the
//! caller sees how much was. Where we may, the arena's memory file itself is opened, so that what the process wrote
//! last can be read when it is gone.

use std::fs::File;
use std::os::unix::fs::FileExt;

use upatch_trampolines::AvmaRange;

use crate::patching::Found;
use crate::process::{MemoryError, Process};

/// Bytes that can be read by their offset in an arena.
pub trait ReadArena {
    /// Reads as many bytes as are there from `offset` on, at most `buffer.len()`.
    fn read_some(&self, offset: u64, buffer: &mut [u8]) -> usize;

    /// The little-endian word at `offset`, if it is there.
    fn word(&self, offset: u64) -> Option<u64> {
        let mut word = [0; 8];
        (self.read_some(offset, &mut word) == 8).then(|| u64::from_le_bytes(word))
    }
}

impl ReadArena for [u8] {
    fn read_some(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self.get(start..).unwrap_or_default();
        let len = there.len().min(buffer.len());
        buffer[..len].copy_from_slice(&there[..len]);
        len
    }
}

/// The arena of a patch in a process.
#[derive(Debug)]
pub struct ArenaView<'p> {
    process: &'p Process,
    range: AvmaRange,
    file: Option<File>,
}

impl<'p> ArenaView<'p> {
    /// The arena of the patch, if it has one, read through the process's memory.
    #[must_use]
    pub fn new(process: &'p Process, found: &Found) -> Option<Self> {
        Some(Self {
            process,
            range: found.arena()?,
            file: None,
        })
    }

    /// The same, by its memory file if we may open it (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE, proc_pid_map_files(5)):
    /// that outlives the process and the patch.
    #[must_use]
    pub fn lasting(process: &'p Process, found: &Found) -> Option<Self> {
        let view = Self::new(process, found)?;
        let path = format!("map_files/{:x}-{:x}", view.range.start.0, view.range.end.0);
        let file = process.open_file(&path).ok().filter(|file| {
            file.metadata()
                .is_ok_and(|metadata| metadata.is_file() && metadata.len() >= view.range.len())
        });
        Some(Self { file, ..view })
    }

    /// Writes all of `bytes` at `offset`, by one write(2): an aligned number arrives as one store.
    ///
    /// # Errors
    /// It lies outside of the arena, or can't be written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.range.len()) {
            return Err(MemoryError::Fault {
                verb: "write",
                at: self.range.start.plus(offset),
                len: bytes.len(),
                source: std::io::ErrorKind::InvalidInput.into(),
            });
        }
        self.process
            .memory()
            .write(self.range.start.plus(offset), bytes)
    }

    /// Where it lies in the process.
    #[must_use]
    pub fn range(&self) -> AvmaRange {
        self.range
    }
}

impl ReadArena for ArenaView<'_> {
    fn read_some(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = self.range.len().saturating_sub(offset);
        let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..len];
        let Some(file) = &self.file else {
            let at = self.range.start.plus(offset);
            return self.process.memory().read_some(at, buffer);
        };
        let mut done = 0;
        while done < len {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) | Err(_) => break,
                Ok(more) => done += more,
            }
        }
        done
    }
}
