//! What all processes of one apply have in common: the arena, and the kernel programs that use it.
//!
//! Made before any process is touched: the kernel judges its programs, and attaches them, while nothing is patched. They run
//! from then on; dropping a [`Shared`] that was passed to nobody detaches them and frees the arena.

use std::os::fd::BorrowedFd;

use upatch_trampolines::Avma;

use super::{ApplyError, Plan};
use crate::kernel::{self, Attached, AttachedInfo};
use crate::patching::arena::{common_address, is_free};
use crate::patching::{Arena, Backend, FoundState, Inventory, PrepareError, inspect};
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
                let free = match retired(processes, plan, content.len)? {
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

/// An address at which retired images of the same patch expect their arena, if it suits all processes: there they can serve
/// again. Elsewhere each apply would leave one more image behind.
fn retired(processes: &[&Process], plan: &Plan<'_>, len: u64) -> Result<Option<Avma>, ApplyError> {
    let mut expected: Vec<(&Process, Vec<Avma>)> = Vec::new();
    for process in processes {
        match inspect(process) {
            Ok(inventory) => expected.push((process, arenas_of(&inventory, plan))),
            // The only one: its error is the answer. Of several, one that ended meanwhile fails by itself, later.
            Err(error) if processes.len() == 1 => return Err(error.into()),
            Err(_) => {}
        }
    }
    let mut candidates: Vec<Avma> = expected.iter().flat_map(|(_, own)| own.clone()).collect();
    candidates.sort_unstable();
    candidates.dedup();
    let suits = |at: &Avma| {
        let mut all = expected.iter();
        all.all(|(process, own)| own.contains(at) || is_free(process, *at, len))
    };
    Ok(candidates.into_iter().find(suits))
}

/// Where the retired images of this patch in one process have their arenas.
fn arenas_of(inventory: &Inventory, plan: &Plan<'_>) -> Vec<Avma> {
    let found = inventory.found.iter();
    let same = found.filter(|found| {
        found.state == FoundState::Retired
            && found.id == plan.id
            && found
                .record()
                .is_some_and(|record| record.backend == plan.backend)
    });
    same.filter_map(|found| Some(found.arena()?.start))
        .collect()
}
