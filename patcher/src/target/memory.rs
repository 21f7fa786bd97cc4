//! What this stage needs of a process: reading its memory, its mappings, the files behind them.
//!
//! The trait is the seam to `crate::process` and to tests; nothing here stops or changes the process.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use upatch_trampolines::Avma;

use crate::process::maps::{Backing, Mapping, Maps};
use crate::process::{MemoryError, Process, ProcessError};

/// A process that can be looked at.
pub trait TargetMemory {
    /// Fills `buf` from the process's memory at `at`.
    ///
    /// # Errors
    /// Whatever the kernel says; a range that is not wholly readable is an error.
    fn read_exact_at(&self, at: Avma, buf: &mut [u8]) -> io::Result<()>;

    /// All mappings, now.
    ///
    /// # Errors
    /// No such process, no permission, or a text that isn't a memory map (`InvalidData`).
    fn mappings(&self) -> io::Result<Maps>;

    /// Opens the very file behind a mapping, even if its path leads elsewhere by now.
    ///
    /// # Errors
    /// `NotFound` if neither way leads to that file; whatever opening said otherwise.
    fn open_mapping_file(&self, mapping: &Mapping) -> io::Result<File>;

    /// Content of the auxiliary vector: pairs of 64-bit words (getauxval(3)).
    ///
    /// # Errors
    /// Whatever reading it says.
    fn auxv(&self) -> io::Result<Vec<u8>>;

    /// The root directory as the process sees it, seen from here; for separate debug files.
    fn root(&self) -> PathBuf;
}

impl TargetMemory for Process {
    fn read_exact_at(&self, at: Avma, buf: &mut [u8]) -> io::Result<()> {
        self.memory().read(at, buf).map_err(|error| match error {
            MemoryError::Gone => gone(),
            MemoryError::Fault { source, .. } => source,
        })
    }

    fn mappings(&self) -> io::Result<Maps> {
        self.maps().map_err(plain)
    }

    fn open_mapping_file(&self, mapping: &Mapping) -> io::Result<File> {
        // By pid and not through the directory that the process holds open: a reused pid leads to a file whose inode
        // or build-id doesn't match.
        open_mapping_file(&PathBuf::from(format!("/proc/{}", self.pid())), mapping)
    }

    fn auxv(&self) -> io::Result<Vec<u8>> {
        let mut words = Vec::new();
        self.open_file("auxv")
            .map_err(plain)?
            .read_to_end(&mut words)?;
        Ok(words)
    }

    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid()))
    }
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ESRCH)
}

/// The kernel's word behind a failed look at an open process.
fn plain(error: ProcessError) -> io::Error {
    match error {
        ProcessError::NotPermitted { source, .. } | ProcessError::Io { source, .. } => source,
        ProcessError::Maps(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        ProcessError::NotFound(_)
        | ProcessError::NotAProcess { .. }
        | ProcessError::NotSixtyFour(_)
        | ProcessError::KernelThread(_)
        | ProcessError::Zombie(_)
        | ProcessError::AlreadyTraced { .. }
        | ProcessError::ShadowStack(_)
        | ProcessError::Locked(_)
        | ProcessError::TooMany { .. } => gone(),
    }
}

/// Opens the file behind `mapping` of the process whose `/proc` directory is `dir`: by `map_files` (needs
/// CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE), else by its path under the process's root with device and inode verified.
///
/// # Errors
/// `NotFound` if the path leads to another file or there is no file; whatever opening said otherwise.
pub fn open_mapping_file(dir: &Path, mapping: &Mapping) -> io::Result<File> {
    let Backing::File { path, deleted } = &mapping.backing else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let name = format!("{:x}-{:x}", mapping.range.start.0, mapping.range.end.0);
    let first = match open_readable(&dir.join("map_files").join(name)) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    let Ok(relative) = path.strip_prefix("/") else {
        return Err(first);
    };
    if *deleted {
        return Err(first);
    }
    let file = open_readable(&dir.join("root").join(relative))?;
    let metadata = file.metadata()?;
    let device = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    if metadata.ino() == mapping.inode && device == mapping.dev {
        Ok(file)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Two mappings, perhaps of different moments, and whether they are of one file.
pub(crate) trait SameFile {
    /// By device and inode: a file may get another name or lose its name. Memory without an inode goes by its name.
    fn same_file(&self, other: &Self) -> bool;
}

impl SameFile for Mapping {
    fn same_file(&self, other: &Self) -> bool {
        let named = self.inode != 0 || self.backing == other.backing;
        named
            && self.dev == other.dev
            && self.inode == other.inode
            && self.path().is_some() == other.path().is_some()
    }
}

/// Opens a regular file; never blocks on a FIFO, and never wakes a device, that was put in its place.
pub(crate) fn open_readable(path: &Path) -> io::Result<File> {
    let regular = |metadata: fs::Metadata| {
        if metadata.is_file() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::NotFound))
        }
    };
    regular(fs::metadata(path)?)?;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)?;
    regular(file.metadata()?)?;
    Ok(file)
}

/// Another view of a process that pretends that no file can be opened: everything is read from memory.
#[derive(Debug)]
pub struct MemoryOnly<'a, M>(pub &'a M);

impl<M: TargetMemory> TargetMemory for MemoryOnly<'_, M> {
    fn read_exact_at(&self, at: Avma, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(at, buf)
    }

    fn mappings(&self) -> io::Result<Maps> {
        self.0.mappings()
    }

    fn open_mapping_file(&self, _: &Mapping) -> io::Result<File> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn auxv(&self) -> io::Result<Vec<u8>> {
        self.0.auxv()
    }

    fn root(&self) -> PathBuf {
        self.0.root()
    }
}
