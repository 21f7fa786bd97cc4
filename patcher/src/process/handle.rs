//! A running process, named once and never mixed up with another.
//!
//! Decides whether a pid is something that can be patched at all. Every later look goes through the directory and the
//! pidfd opened here, so that a reused pid gives errors and not somebody else's process.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

use super::maps::{Maps, MapsError};
use super::memory::Memory;
use super::status::{Status, is_kernel_thread};
use super::sys;

/// Why a process can't be opened, or can't be looked at any more.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such process (any more).
    #[error("no process {0}")]
    NotFound(i32),
    /// A thread's id was given.
    #[error("{tid} is a thread of process {pid}")]
    NotAProcess {
        /// What was given.
        tid: i32,
        /// What was meant, perhaps.
        pid: i32,
    },
    /// Not ours to touch.
    #[error("not permitted to trace process {pid}")]
    NotPermitted {
        /// The process.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// It runs 32-bit code.
    #[error("process {0} runs a 32-bit program")]
    NotSixtyFour(i32),
    /// It has no user memory.
    #[error("{0} is a kernel thread")]
    KernelThread(i32),
    /// It has ended.
    #[error("process {0} has ended and waits to be reaped")]
    Zombie(i32),
    /// A debugger or tracer has it.
    #[error("process {pid} is traced by {tracer} ({name})")]
    AlreadyTraced {
        /// The process.
        pid: i32,
        /// Who traces it.
        tracer: i32,
        /// The tracer's command name.
        name: String,
    },
    /// Its threads run with a shadow stack, which a rewritten return address would trip.
    #[error("process {0} runs with a shadow stack")]
    ShadowStack(i32),
    /// Another `upatch` is changing it.
    #[error("another upatch is at work on process {0}")]
    Locked(i32),
    /// It maps memory files under our names by the thousand: not made by us.
    #[error(
        "process {pid} maps more than {most} files that look like upatch's, which upatch never makes"
    )]
    TooMany {
        /// The process.
        pid: i32,
        /// Most that are looked at.
        most: usize,
    },
    /// The kernel wrote a memory map that we can't read.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Anything else.
    #[error("can't read {file} of process {pid}")]
    Io {
        /// The process.
        pid: i32,
        /// Which file below `/proc/PID`.
        file: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A process that can be patched as far as one can tell from outside.
///
/// Holding a `Process` tells you: when it was opened it was a live 64-bit process with memory of its own that we may
/// trace and that nobody else traced.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    dir: File,
    memory: Memory,
}

/// The exclusive right to change one process, among all `upatch` on this machine that see the same `/proc`. Ends when it
/// is dropped, or when its holder dies.
///
/// It is a lock on `/proc/PID/mem`: only who may trace the process can open that, so that no stranger can keep us away.
#[derive(Debug)]
pub struct ProcessLock<'p> {
    file: &'p File,
}

impl Drop for ProcessLock<'_> {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Process {
    /// Opens the process with this pid.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub fn open(pid: i32) -> Result<Self, ProcessError> {
        if pid <= 0 {
            return Err(ProcessError::NotFound(pid));
        }
        let dir =
            std::fs::File::open(format!("/proc/{pid}")).map_err(|_| ProcessError::NotFound(pid))?;
        let status = Status::parse(&read_text(pid, &dir, "status")?);
        if status.tgid != pid {
            return Err(ProcessError::NotAProcess {
                tid: pid,
                pid: status.tgid,
            });
        }
        let pidfd = sys::pidfd_open(pid).map_err(|_| ProcessError::NotFound(pid))?;
        if status.is_dead() {
            return Err(ProcessError::Zombie(pid));
        }
        if !status.has_memory {
            // One that ends has let go of its memory before it is a zombie.
            return Err(match is_kernel_thread(&read_text(pid, &dir, "stat")?) {
                true => ProcessError::KernelThread(pid),
                false => ProcessError::Zombie(pid),
            });
        }
        if status.tracer != 0 {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", status.tracer))
                .unwrap_or_default();
            return Err(ProcessError::AlreadyTraced {
                pid,
                tracer: status.tracer,
                name: name.trim().to_owned(),
            });
        }
        if status.shadow_stack {
            return Err(ProcessError::ShadowStack(pid));
        }
        let memory = open_in(pid, &dir, "mem", OFlag::O_RDWR)?;
        if is_32_bit(pid, &dir)? {
            return Err(ProcessError::NotSixtyFour(pid));
        }
        let process = Self {
            pid,
            pidfd,
            dir,
            memory: Memory::new(memory),
        };
        // The directory was opened first, the pidfd second: if the directory still answers now, both are of one process.
        process.read_text("status")?;
        process.check_alive()?;
        Ok(process)
    }

    /// Waits up to five seconds for the right to change this process.
    ///
    /// # Errors
    /// [`ProcessError::Locked`] if another `upatch` is at work on it.
    pub fn lock(&self) -> Result<ProcessLock<'_>, ProcessError> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let file = self.memory.file();
            match file.try_lock() {
                Ok(()) => return Ok(ProcessLock { file }),
                Err(TryLockError::Error(source)) => return Err(self.io("mem", source)),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(ProcessError::Locked(self.pid));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor of our own for what is open in the process as `fd`.
    pub(crate) fn descriptor(&self, fd: i32) -> io::Result<OwnedFd> {
        sys::pidfd_getfd(self.pidfd.as_fd(), fd)
    }

    /// A descriptor that becomes readable when the process ends (pidfd_open(2)).
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Its memory map as it is now.
    ///
    /// # Errors
    /// The process is gone, or the map is unreadable.
    pub fn maps(&self) -> Result<Maps, ProcessError> {
        let mut text = Vec::new();
        let mut file = self.open_file("maps")?;
        file.read_to_end(&mut text)
            .map_err(|source| self.io("maps", source))?;
        let maps = Maps::parse(&text)?;
        if maps.is_empty() {
            Err(ProcessError::NotFound(self.pid))
        } else {
            Ok(maps)
        }
    }

    /// Its `status` file.
    ///
    /// # Errors
    /// The process is gone.
    pub fn status(&self) -> Result<Status, ProcessError> {
        Ok(Status::parse(&self.read_text("status")?))
    }

    /// Opens a file below `/proc/PID` for reading, for example `exe` or `map_files/…`.
    ///
    /// # Errors
    /// The process is gone, or the file isn't there or not ours to read.
    pub fn open_file(&self, path: &str) -> Result<File, ProcessError> {
        open_in(self.pid, &self.dir, path, OFlag::O_RDONLY)
    }

    /// Reads a text file below `/proc/PID`, lossily.
    ///
    /// # Errors
    /// As [`Self::open_file`].
    pub fn read_text(&self, path: &str) -> Result<String, ProcessError> {
        read_text(self.pid, &self.dir, path)
    }

    /// Where a link below `/proc/PID` leads, for example `exe` or `fd/3`.
    ///
    /// # Errors
    /// The process is gone, or the link isn't there or not ours to read.
    pub fn read_link(&self, path: &str) -> Result<PathBuf, ProcessError> {
        readlinkat(self.dir.as_fd(), path)
            .map(PathBuf::from)
            .map_err(|errno| self.io(path, errno.into()))
    }

    /// The numeric entries of a directory below `/proc/PID` (`task`, `fd`), sorted.
    ///
    /// # Errors
    /// As [`Self::open_file`].
    pub fn numbers_in(&self, path: &str) -> Result<Vec<i32>, ProcessError> {
        // Through our own descriptor of the directory, not by pid.
        let dir = format!("/proc/self/fd/{}/{path}", self.dir.as_raw_fd());
        let entries = std::fs::read_dir(dir).map_err(|source| self.io(path, source))?;
        let names = entries.filter_map(Result::ok);
        let mut numbers: Vec<i32> = names
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Does the process still exist?
    ///
    /// # Errors
    /// [`ProcessError::NotFound`] if it doesn't.
    pub fn check_alive(&self) -> Result<(), ProcessError> {
        match sys::pidfd_probe(self.pidfd.as_fd()) {
            // EPERM: it is there, we may not signal it; we don't want to.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                Err(ProcessError::NotFound(self.pid))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn io(&self, file: &str, source: io::Error) -> ProcessError {
        io_error(self.pid, file, source)
    }
}

fn io_error(pid: i32, file: &str, source: io::Error) -> ProcessError {
    match source.raw_os_error() {
        Some(libc::ESRCH) => ProcessError::NotFound(pid),
        Some(libc::EACCES | libc::EPERM) => ProcessError::NotPermitted { pid, source },
        _ => ProcessError::Io {
            pid,
            file: file.to_owned(),
            source,
        },
    }
}

fn open_in(pid: i32, dir: &File, path: &str, mode: OFlag) -> Result<File, ProcessError> {
    openat(dir.as_fd(), path, mode | OFlag::O_CLOEXEC, Mode::empty())
        .map(File::from)
        .map_err(|errno| io_error(pid, path, errno.into()))
}

fn read_text(pid: i32, dir: &File, path: &str) -> Result<String, ProcessError> {
    let mut bytes = Vec::new();
    let mut file = open_in(pid, dir, path, OFlag::O_RDONLY)?;
    file.read_to_end(&mut bytes)
        .map_err(|source| io_error(pid, path, source))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Looks at the class byte of the program's ELF header (`EI_CLASS`, gABI ch. 4).
fn is_32_bit(pid: i32, dir: &File) -> Result<bool, ProcessError> {
    let mut ident = [0; 5];
    let mut exe = open_in(pid, dir, "exe", OFlag::O_RDONLY)?;
    exe.read_exact(&mut ident)
        .map_err(|source| io_error(pid, "exe", source))?;
    Ok(ident != *b"\x7fELF\x02")
}
