//! A process's memory, read and written through `/proc/PID/mem`.
//!
//! The open file stands for one address space: after an execve reads and writes through it give nothing, they never
//! reach the new program. Writes go through page protection (the kernel makes a private copy of the page), so no page
//! has to become writable to be changed. A shared mapping without write permission can't be written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use upatch_trampolines::Avma;

/// Bytes that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The address space is gone: the process ended or executed another program.
    #[error("the address space is gone (the process ended or executed another program)")]
    Gone,
    /// Not mapped, or not allowed.
    #[error("can't {verb} {len} bytes at {at}")]
    Fault {
        /// `read` or `write`.
        verb: &'static str,
        /// First byte asked for.
        at: Avma,
        /// How many.
        len: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One address space, open for reading and writing.
#[derive(Debug)]
pub struct Memory {
    file: File,
}

impl Memory {
    pub(super) fn new(file: File) -> Self {
        Self { file }
    }

    /// `/proc/PID/mem`.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Reads as many bytes as are mapped from `at` on, at most `buffer.len()`; 0 if nothing is.
    pub fn read_some(&self, at: Avma, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[done..], at.0.wrapping_add(done as u64))
            {
                Ok(0) | Err(_) => break,
                Ok(more) => done += more,
            }
        }
        done
    }

    /// Fills `buffer` from `at`.
    ///
    /// # Errors
    /// Some of it isn't readable, or the address space is gone.
    pub fn read(&self, at: Avma, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[done..], at.0.wrapping_add(done as u64))
            {
                Ok(0) => return Err(MemoryError::Gone),
                Ok(more) => done += more,
                Err(source) => {
                    return Err(MemoryError::Fault {
                        verb: "read",
                        at,
                        len: buffer.len(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    /// `len` bytes from `at`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_vec(&self, at: Avma, len: usize) -> Result<Vec<u8>, MemoryError> {
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// The little-endian word at `at`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_u64(&self, at: Avma) -> Result<u64, MemoryError> {
        let mut word = [0; 8];
        self.read(at, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Writes all of `bytes` at `at`. A write within one page is one step for whoever is looking after this process
    /// was killed: all of it is there or nothing.
    ///
    /// # Errors
    /// Some of it isn't writable (what lies before may have been written), or the address space is gone.
    pub fn write(&self, at: Avma, bytes: &[u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < bytes.len() {
            match self
                .file
                .write_at(&bytes[done..], at.0.wrapping_add(done as u64))
            {
                Ok(0) => return Err(MemoryError::Gone),
                Ok(more) => done += more,
                Err(source) => {
                    return Err(MemoryError::Fault {
                        verb: "write",
                        at,
                        len: bytes.len(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}
