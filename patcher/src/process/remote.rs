//! The system calls that we make in the target, one method each.
//!
//! No mapping made here is ever writable and executable at once, and none replaces another one, but for
//! `map_over`, which puts an arena of ours in another one's place.

use upatch_trampolines::{Avma, AvmaRange};

use super::hold::{Arg, HeldThread, RemoteError};

/// What a remote mapping allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Read and execute.
    Code,
    /// Read.
    ReadOnly,
    /// Read and write.
    Data,
}

impl Protection {
    fn bits(self) -> u64 {
        let bits = match self {
            Self::Code => libc::PROT_READ | libc::PROT_EXEC,
            Self::ReadOnly => libc::PROT_READ,
            Self::Data => libc::PROT_READ | libc::PROT_WRITE,
        };
        u64::from(bits.unsigned_abs())
    }
}

/// Private to each process, or shared with its forked children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Copy on write.
    Private,
    /// One memory for all, populated at once.
    Shared,
}

/// Something of ours that is open in the target: a number in *its* descriptor table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteFd(pub u64);

const NONE: Arg<'static> = Arg::Number(0);

/// A flag or constant of libc, which are signed there and never negative.
fn flag(bits: i32) -> u64 {
    u64::from(bits.unsigned_abs())
}

impl HeldThread<'_> {
    /// memfd_create(2) with a name of at most 60 bytes; closed on exec, sealable.
    ///
    /// # Errors
    /// The call failed, or could not be made.
    pub fn memfd_create(&mut self, name: &str) -> Result<RemoteFd, RemoteError> {
        let mut text: Vec<u8> = name.bytes().take(60).collect();
        text.push(0);
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // MFD_EXEC (Linux 6.3) says that code will be mapped from it; older kernels refuse the flag.
        let first = self.memfd_call(&text, flags | libc::MFD_EXEC);
        match first {
            Err(error) if error.errno() == Some(libc::EINVAL) => self.memfd_call(&text, flags),
            result => result,
        }
    }

    fn memfd_call(&mut self, name: &[u8], flags: u32) -> Result<RemoteFd, RemoteError> {
        let args = [
            Arg::Bytes(name),
            Arg::Number(flags.into()),
            NONE,
            NONE,
            NONE,
            NONE,
        ];
        self.call("memfd_create", libc::SYS_memfd_create, args)
            .map(RemoteFd)
    }

    /// ftruncate(2). The caller has compared `len` with the file size limit: beyond it the target gets SIGXFSZ.
    ///
    /// # Errors
    /// As above.
    pub fn ftruncate(&mut self, fd: RemoteFd, len: u64) -> Result<(), RemoteError> {
        let args = [Arg::Number(fd.0), Arg::Number(len), NONE, NONE, NONE, NONE];
        self.call("ftruncate", libc::SYS_ftruncate, args).map(drop)
    }

    /// Fixes the file's size for ever: nobody can shrink it under a mapping (fcntl(2), F_ADD_SEALS).
    ///
    /// # Errors
    /// As above.
    pub fn seal_size(&mut self, fd: RemoteFd) -> Result<(), RemoteError> {
        let seals = flag(libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL);
        let args = [
            Arg::Number(fd.0),
            Arg::Number(flag(libc::F_ADD_SEALS)),
            Arg::Number(seals),
            NONE,
            NONE,
            NONE,
        ];
        self.call("fcntl", libc::SYS_fcntl, args).map(drop)
    }

    /// mmap(2) of a part of a file at exactly `range`.
    ///
    /// # Errors
    /// As above; EEXIST if something is mapped there.
    pub fn map(
        &mut self,
        range: AvmaRange,
        protection: Protection,
        sharing: Sharing,
        fd: RemoteFd,
        offset: u64,
    ) -> Result<(), RemoteError> {
        let kind = match sharing {
            Sharing::Private => libc::MAP_PRIVATE,
            Sharing::Shared => libc::MAP_SHARED | libc::MAP_POPULATE,
        };
        let got = self.mmap(
            range,
            protection,
            kind | libc::MAP_FIXED_NOREPLACE,
            fd,
            offset,
        )?;
        if got == range.start {
            return Ok(());
        }
        // A kernel that doesn't know NOREPLACE takes the address as a hint (before 4.17).
        self.unmap(AvmaRange::new(got, range.len()))?;
        Err(RemoteError::Failed {
            call: "mmap",
            source: std::io::Error::from_raw_os_error(libc::EEXIST),
        })
    }

    /// mmap(2) of a file, shared, in the place of a mapping of ours: whoever uses the range sees the old memory or the new.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn map_over(
        &mut self,
        range: AvmaRange,
        protection: Protection,
        fd: RemoteFd,
    ) -> Result<(), RemoteError> {
        let kind = libc::MAP_SHARED | libc::MAP_POPULATE | libc::MAP_FIXED;
        self.mmap(range, protection, kind, fd, 0).map(drop)
    }

    fn mmap(
        &mut self,
        range: AvmaRange,
        protection: Protection,
        kind: i32,
        fd: RemoteFd,
        offset: u64,
    ) -> Result<Avma, RemoteError> {
        let args = [
            Arg::Number(range.start.0),
            Arg::Number(range.len()),
            Arg::Number(protection.bits()),
            Arg::Number(flag(kind)),
            Arg::Number(fd.0),
            Arg::Number(offset),
        ];
        self.call("mmap", libc::SYS_mmap, args).map(Avma)
    }

    /// munmap(2).
    ///
    /// # Errors
    /// As above.
    pub fn unmap(&mut self, range: AvmaRange) -> Result<(), RemoteError> {
        let args = [
            Arg::Number(range.start.0),
            Arg::Number(range.len()),
            NONE,
            NONE,
            NONE,
            NONE,
        ];
        self.call("munmap", libc::SYS_munmap, args).map(drop)
    }

    /// close(2).
    ///
    /// # Errors
    /// As above.
    pub fn close(&mut self, fd: RemoteFd) -> Result<(), RemoteError> {
        self.call(
            "close",
            libc::SYS_close,
            [Arg::Number(fd.0), NONE, NONE, NONE, NONE, NONE],
        )
        .map(drop)
    }

    /// mprotect(2).
    ///
    /// # Errors
    /// As above.
    pub fn protect(&mut self, range: AvmaRange, protection: Protection) -> Result<(), RemoteError> {
        let args = [
            Arg::Number(range.start.0),
            Arg::Number(range.len()),
            Arg::Number(protection.bits()),
            NONE,
            NONE,
            NONE,
        ];
        self.call("mprotect", libc::SYS_mprotect, args).map(drop)
    }

    /// madvise(2).
    ///
    /// # Errors
    /// As above.
    pub fn advise(&mut self, range: AvmaRange, advice: i32) -> Result<(), RemoteError> {
        let args = [
            Arg::Number(range.start.0),
            Arg::Number(range.len()),
            Arg::Number(flag(advice)),
            NONE,
            NONE,
            NONE,
        ];
        self.call("madvise", libc::SYS_madvise, args).map(drop)
    }
}
