//! The memory that a patch shares: made and filled by us, handed to every process that is to have it, mapped there.
//!
//! It is ours until it is mapped: its pages are allocated, and charged, before a target sees it, so that a target at its
//! memory limit is never asked for them. Backends differ in who else can reach the memory; the layout is one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use upatch_trampolines::{Avma, AvmaRange};

use super::gap;
use super::region;
use crate::kernel::{self, NoArena};
use crate::process::failpoint::{FailPoint, reach};
use crate::process::remote::{Protection, Sharing};
use crate::process::status::file_size_limit;
use crate::process::{HeldThread, Process, ProcessError, RemoteError, Tracer};

/// What an arena is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// A memory file, sealed in its size. Needs no privilege.
    #[default]
    Memfd,
    /// The kernel's BPF_MAP_TYPE_ARENA, which kernel programs reach too.
    Kernel,
}

impl Backend {
    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::Kernel => "kernel",
        }
    }
}

/// Why there is no arena. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The initial content is longer than the arena, or the arena is empty.
    #[error("an arena of {len} bytes can't hold {initial} bytes of initial content")]
    TooSmall {
        /// Asked for.
        len: u64,
        /// Content.
        initial: u64,
    },
    /// We may not make files that large (RLIMIT_FSIZE); trying would end `upatch`.
    #[error("upatch may only write files of {limit} bytes, the arena has {len}")]
    FileSizeLimit {
        /// Our limit.
        limit: u64,
        /// The arena.
        len: u64,
    },
    /// The kernel's arenas are not for us.
    #[error("not permitted to make an arena of the kernel's")]
    NotPermitted(#[source] std::io::Error),
    /// The kernel has none.
    #[error("this kernel has no arenas that a process could have (they came with Linux 6.10)")]
    Unsupported(#[source] std::io::Error),
    /// More than the kernel's arenas hold.
    #[error("an arena of {len} bytes is larger than the kernel's arenas, of 4 GiB in all")]
    TooLarge {
        /// Asked for.
        len: u64,
    },
    /// The address is not free in `upatch` itself, through which the arena is filled.
    #[error("the address {at} is taken in upatch itself")]
    Taken {
        /// The address.
        at: Avma,
    },
    /// A system call of ours failed.
    #[error("can't make an arena of {len} bytes ({call})")]
    Failed {
        /// The call.
        call: &'static str,
        /// Bytes.
        len: u64,
        /// Why.
        source: std::io::Error,
    },
}

/// An arena, open in `upatch`; one for all processes of an apply.
///
/// Holding an `Arena` tells you: its size can't change any more, all its pages exist, and they hold the initial content.
#[derive(Debug)]
pub struct Arena {
    fd: OwnedFd,
    len: u64,
    backend: Backend,
    at: Option<Avma>,
}

impl Arena {
    /// A memory file of `len` bytes, rounded up to whole pages, with `initial` at its start and zeros behind. `at` is its
    /// address in every process; without one each mapping may choose.
    ///
    /// # Errors
    /// See [`ArenaError`]; ENOSPC and ENOMEM where the machine or our cgroup has no room.
    pub fn memfd(id: &str, len: u64, initial: &[u8], at: Option<Avma>) -> Result<Self, ArenaError> {
        if initial.len() as u64 > len || len == 0 {
            return Err(ArenaError::TooSmall {
                len,
                initial: initial.len() as u64,
            });
        }
        let len = gap::pages(len);
        let failed = |call| move |source: std::io::Error| ArenaError::Failed { call, len, source };
        let limits = std::fs::read_to_string("/proc/self/limits").map_err(failed("limits"))?;
        if let Some(limit) = file_size_limit(&limits).filter(|&limit| limit < len) {
            return Err(ArenaError::FileSizeLimit { limit, len });
        }
        let fd = sealable(&region::arena_name(id)).map_err(failed("memfd_create"))?;
        let end = i64::try_from(len).map_err(|_| failed("fallocate")(too_large()))?;
        fallocate(&fd, FallocateFlags::empty(), 0, end)
            .map_err(|errno| failed("fallocate")(errno.into()))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| failed("fcntl")(errno.into()))?;
        let file = std::fs::File::from(fd);
        file.write_all_at(initial, 0).map_err(failed("write"))?;
        Ok(Self {
            fd: file.into(),
            len,
            backend: Backend::Memfd,
            at,
        })
    }

    /// An arena of the kernel's of `len` bytes, rounded up to whole pages, which lies at `at` in every process, with `initial`
    /// at its start and zeros behind. `at` is a multiple of the next power of two, so that the arena crosses no multiple of
    /// 4 GiB.
    ///
    /// # Errors
    /// See [`ArenaError`].
    pub fn kernel(id: &str, len: u64, initial: &[u8], at: Avma) -> Result<Self, ArenaError> {
        if initial.len() as u64 > len || len == 0 {
            return Err(ArenaError::TooSmall {
                len,
                initial: initial.len() as u64,
            });
        }
        let len = gap::pages(len);
        let pages = u32::try_from(len / gap::PAGE).ok();
        let pages = pages
            .filter(|&pages| u64::from(pages) <= kernel::MOST_PAGES)
            .ok_or(ArenaError::TooLarge { len })?;
        let fd = kernel::make_arena(id, at.0, pages, initial).map_err(|error| match error {
            NoArena::NotPermitted(source) => ArenaError::NotPermitted(source),
            NoArena::Unsupported(source) => ArenaError::Unsupported(source),
            NoArena::Taken => ArenaError::Taken { at },
            NoArena::Failed { call, source } => ArenaError::Failed { call, len, source },
        })?;
        Ok(Self {
            fd,
            len,
            backend: Backend::Kernel,
            at: Some(at),
        })
    }

    /// Bytes, whole pages.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no arena is empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What it is made of.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Its address, if it has one already.
    #[must_use]
    pub fn at(&self) -> Option<Avma> {
        self.at
    }

    /// The descriptor.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Maps it in the target at `range`, where nothing may be.
    ///
    /// # Errors
    /// EEXIST if something is mapped there; see [`HeldThread::receive`] for the rest. No descriptor stays open.
    pub(super) fn map_into(
        &self,
        held: &mut HeldThread<'_>,
        range: AvmaRange,
    ) -> Result<(), RemoteError> {
        self.map_with(held, |held, fd| {
            held.map(range, Protection::Data, Sharing::Shared, fd, 0)?;
            self.keep_in_children(held, range)
        })
    }

    /// Puts it in the place of another arena of ours, in one step for whoever may still use that, and has the process hold
    /// these links.
    ///
    /// # Errors
    /// As [`Self::map_into`].
    pub(super) fn replace_in(
        &self,
        process: &Process,
        range: AvmaRange,
        links: &[BorrowedFd<'_>],
    ) -> Result<(), RemoteError> {
        Tracer::session(|tracer| {
            let mut held = HeldThread::hold(tracer, process)?;
            self.map_with(&mut held, |held, fd| {
                held.map_over(range, Protection::Data, fd)?;
                self.keep_in_children(held, range)
            })?;
            let mut passed = Vec::new();
            for link in links {
                match held.receive(*link) {
                    Ok(fd) => passed.push(fd),
                    // The patch will not be live: its kernel programs must not run on.
                    Err(error) => {
                        for fd in passed {
                            held.close(fd)?;
                        }
                        return Err(error);
                    }
                }
            }
            held.release()?;
            Ok(())
        })
    }

    /// The kernel doesn't give its arenas to forked children, whose patched code would then fault. Undoing that is safe as
    /// long as no program frees pages of the arena; ours that would are refused when they are linked.
    fn keep_in_children(
        &self,
        held: &mut HeldThread<'_>,
        range: AvmaRange,
    ) -> Result<(), RemoteError> {
        if self.backend != Backend::Kernel {
            return Ok(());
        }
        let kept = held.advise(range, libc::MADV_DOFORK);
        if kept.is_err() {
            held.unmap(range)?;
        }
        kept
    }

    fn map_with(
        &self,
        held: &mut HeldThread<'_>,
        map: impl FnOnce(
            &mut HeldThread<'_>,
            crate::process::remote::RemoteFd,
        ) -> Result<(), RemoteError>,
    ) -> Result<(), RemoteError> {
        let fd = held.receive(self.as_fd())?;
        let mapped = map(held, fd);
        reach(FailPoint::ArenaMapped);
        held.close(fd)?;
        mapped
    }
}

/// An address that is free for an arena of `len` bytes in all these processes; those that have ended meanwhile don't count.
///
/// # Errors
/// None of them can be looked at.
pub fn common_address(processes: &[&Process], len: u64) -> Result<Option<Avma>, ProcessError> {
    let looked: Vec<_> = processes.iter().map(|process| process.maps()).collect();
    if looked.iter().all(Result::is_err) {
        return looked
            .into_iter()
            .next()
            .map_or(Ok(None), |first| first.map(|_| None));
    }
    let maps: Vec<_> = looked.into_iter().flatten().collect();
    let free = |at: &Avma| {
        let range = AvmaRange::new(*at, gap::pages(len));
        maps.iter()
            .all(|maps| maps.overlapping(range).next().is_none())
    };
    let first = maps
        .first()
        .map_or_else(Vec::new, |first| gap::aligned(first, len));
    Ok(first.into_iter().find(free))
}

/// Could an arena of `len` bytes be mapped at `at`?
pub fn is_free(process: &Process, at: Avma, len: u64) -> bool {
    let range = AvmaRange::new(at, gap::pages(len));
    process
        .maps()
        .is_ok_and(|maps| maps.overlapping(range).next().is_none())
}

fn too_large() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::EFBIG)
}

/// A memory file that can be sealed and never executed; kernels before 6.3 don't know the second.
fn sealable(name: &str) -> std::io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let never_executed = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    Ok(match memfd_create(name, flags | never_executed) {
        Err(nix::errno::Errno::EINVAL) => memfd_create(name, flags)?,
        result => result?,
    })
}
