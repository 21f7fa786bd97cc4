//! What all processes of one apply have in common: the arena, and the kernel programs that use it.
//!
//! Made before any process is touched: the kernel judges its programs, and attaches them, while nothing is patched. They run
//! from then on; dropping a [`Shared`] that was passed to nobody detaches them and frees the arena.

use std::os::fd::BorrowedFd;

use super::{ApplyError, Plan};
use crate::kernel::{self, Attached, AttachedInfo};
use crate::patching::arena::common_address;
use crate::patching::{Arena, Backend, FoundState, PrepareError, inspect};
use crate::process::Process;

/// An arena, and kernel programs that run and write it.
#[derive(Debug)]
pub struct Shared {
    arena: Option<Arena>,
    attached: Vec<Attached>,
}

impl Shared {
    /// Makes the arena that a plan asks for, at an address that is free in all these processes if it needs one (`lasting`: for
    /// processes that come later too), and loads and attaches the kernel programs.
    ///
    /// # Errors
    /// See [`ApplyError`]; nothing is left.
    pub fn make(
        processes: &[&Process],
        plan: &Plan<'_>,
        lasting: bool,
    ) -> Result<Self, ApplyError> {
        let Some(content) = &plan.arena else {
            return Ok(Self {
                arena: None,
                attached: Vec::new(),
            });
        };
        let several = lasting || processes.len() > 1;
        let arena = match plan.backend {
            Backend::Memfd if !several => {
                Arena::memfd(&plan.id, content.len, &content.initial, None)?
            }
            backend => {
                let retired = match processes {
                    [one] => retired(one, plan)?,
                    _ => None,
                };
                let free = match retired {
                    Some(at) => Some(at),
                    None => common_address(processes, content.len)?,
                };
                let at = free.ok_or(ApplyError::Prepare(PrepareError::NoArenaGap {
                    len: content.len,
                    at: None,
                }))?;
                match backend {
                    Backend::Memfd => {
                        Arena::memfd(&plan.id, content.len, &content.initial, Some(at))?
                    }
                    Backend::Kernel => Arena::kernel(&plan.id, content.len, &content.initial, at)?,
                }
            }
        };
        let loaded = kernel::load(&plan.kernel, &plan.id, arena.as_fd())?;
        Ok(Self {
            attached: kernel::attach(loaded)?,
            arena: Some(arena),
        })
    }

    /// The arena, if the patch has one.
    #[must_use]
    pub fn arena(&self) -> Option<&Arena> {
        self.arena.as_ref()
    }

    /// What the processes are to hold.
    #[must_use]
    pub fn links(&self) -> Vec<BorrowedFd<'_>> {
        self.attached.iter().map(Attached::link).collect()
    }

    /// What the record says of the kernel programs.
    #[must_use]
    pub fn infos(&self) -> Vec<AttachedInfo> {
        let infos = self.attached.iter();
        infos.map(|attached| attached.info.clone()).collect()
    }
}

/// The address at which a retired image of the same patch expects its arena: there it can serve again.
fn retired(
    process: &Process,
    plan: &Plan<'_>,
) -> Result<Option<upatch_trampolines::Avma>, ApplyError> {
    let inventory = inspect(process)?;
    let same = inventory
        .found
        .iter()
        .filter(|found| found.state == FoundState::Retired && found.id == plan.id)
        .find(|found| {
            found
                .record()
                .is_some_and(|record| record.backend == plan.backend)
        });
    Ok(same.and_then(|found| Some(found.arena()?.start)))
}
