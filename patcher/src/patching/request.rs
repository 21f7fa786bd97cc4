//! What is asked of a preparation, and how it can be refused.

use std::os::fd::BorrowedFd;

use upatch_trampolines::{Avma, AvmaRange, CheckedImage, PlaceError};

use super::arena::Arena;
use super::record::LONGEST;
use crate::process::{HoldError, MemoryError, ProcessError, RemoteError};

/// Addresses for which an image is to be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// First byte of the image.
    pub image: Avma,
    /// The arena; empty if none was asked for.
    pub arena: AvmaRange,
    /// The image's private data; empty if none was asked for.
    pub private: AvmaRange,
    /// The gate byte, if there are several sites.
    pub gate: Option<Avma>,
}

/// Why there is no image for a placement.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Not at this address; another one may do.
    #[error("the image doesn't fit there")]
    Elsewhere(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not at all.
    #[error("the image can't be built")]
    Never(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<PlaceError> for BuildError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::TooFar { .. } => Self::Elsewhere(error.into()),
            PlaceError::Misaligned { .. }
            | PlaceError::Wraps { .. }
            | PlaceError::BadFixup { .. }
            | PlaceError::UnboundExtern { .. }
            | PlaceError::NoGate
            | PlaceError::BadCodeLen { .. } => Self::Never(error.into()),
        }
    }
}

/// What is to be prepared.
pub struct Request<'a> {
    /// The patch's id, 8 hex digits.
    pub id: String,
    /// Its sites, at least one; the first is the leader.
    pub sites: Vec<SiteRequest<'a>>,
    /// With several sites: which byte of the leader's private data is the gate.
    pub gate: u64,
    /// Shared memory; at its own address if it has one, else where there is room.
    pub arena: Option<&'a Arena>,
    /// Links of the patch's kernel programs: the process shall hold them, so that they live as long as the patch.
    pub links: &'a [BorrowedFd<'a>],
}

/// One site of what is to be prepared.
pub struct SiteRequest<'a> {
    /// First byte of the function, or of the displaced instructions.
    pub site: Avma,
    /// Upper bound of the image's length in bytes, whatever its address.
    pub max_len: u64,
    /// Bytes of private data.
    pub private_len: u64,
    /// Makes the image for given addresses; called for several until one fits.
    pub build: &'a dyn Fn(&Placement) -> Result<CheckedImage, BuildError>,
    /// What the site's record carries for the layers above.
    pub info: serde_json::Value,
}

/// Why nothing was prepared; the target is as before, apart from what the next apply removes.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Something of ours is applied there already.
    #[error("patch {id} is applied at {site} already")]
    AlreadyPatched {
        /// Its id.
        id: String,
        /// Its site.
        site: Avma,
    },
    /// There is no free place near the site.
    #[error("no free place for {len} bytes within 2 GiB of {site}")]
    NoGap {
        /// The site.
        site: Avma,
        /// What was needed.
        len: u64,
    },
    /// There is no free place for the arena, or the one that was asked for is taken.
    #[error("no free place for an arena of {len} bytes{}", at.map_or(String::new(), |at| format!(" at {at}")))]
    NoArenaGap {
        /// Its length.
        len: u64,
        /// Where it had to be.
        at: Option<Avma>,
    },
    /// Names and types of the patch's variables are longer than what is read back.
    #[error("the patch's record would have {len} bytes, more than {LONGEST}")]
    RecordTooLong {
        /// Its length.
        len: usize,
    },
    /// The target may not make files that large (RLIMIT_FSIZE); trying would send it SIGXFSZ.
    #[error("the target may only write files of {limit} bytes, {len} are needed")]
    FileSizeLimit {
        /// Its limit.
        limit: u64,
        /// What is needed.
        len: u64,
    },
    /// The image could not be built for any address that was free.
    #[error(transparent)]
    Build(BuildError),
    /// The image came out longer than announced, or its poke isn't at the site.
    #[error("the image doesn't match the request: {0}")]
    Mismatch(&'static str),
    /// A system call in the target failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The target can't be looked at.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its memory can't be written.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl From<HoldError> for PrepareError {
    fn from(error: HoldError) -> Self {
        Self::Remote(error.into())
    }
}
