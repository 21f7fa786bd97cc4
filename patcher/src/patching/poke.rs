//! The text poke: one write of a few bytes within one page, between a comparison and a comparison.

use std::fmt;

use upatch_trampolines::{Avma, PokePlan};

use super::quiesce::{Direction, Quiescent};
use super::record::to_hex;
use crate::process::failpoint::{FailPoint, reach};
use crate::process::{MemoryError, StopError};

/// Bytes, shown as hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// Why a poke was not done; the bytes are as before, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum PokeError {
    /// Other bytes than planned are there: a breakpoint, a uprobe, another tool.
    #[error("the bytes at {at} are {found}, not {expected}{}", hint(found))]
    Differs {
        /// The site.
        at: Avma,
        /// What the plan was made for.
        expected: Bytes,
        /// What is there.
        found: Bytes,
    },
    /// The plan is not one write in one page.
    #[error("a poke of {len} bytes at {at} would not be one write")]
    NotOneWrite {
        /// The site.
        at: Avma,
        /// Its length.
        len: usize,
    },
    /// The bytes read back are not the ones written.
    #[error("the write at {at} did not take effect: {found} is there")]
    Lost {
        /// The site.
        at: Avma,
        /// What is there.
        found: Bytes,
    },
    /// A task could not be moved.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// The memory can't be read or written.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

fn hint(found: &Bytes) -> &'static str {
    match found.0.first() {
        Some(0xcc) => " (a breakpoint or a uprobe)",
        Some(0xe8) => " (perhaps an optimised uprobe)",
        Some(0xe9) => " (a jump: another patching tool)",
        Some(_) | None => "",
    }
}

/// A poke that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Poked {
    /// What was done.
    pub plan: PokePlan,
    /// Tasks that were moved.
    pub moved: usize,
}

/// Carries the plan out. Consumes the proof, so that it is used once; the process is still stopped afterwards.
///
/// # Errors
/// See [`PokeError`].
///
/// ```compile_fail,E0308
/// fn without_proof(plan: upatch_trampolines::PokePlan) {
///     let _ = upatch::patching::text_poke(plan);
/// }
/// ```
pub fn text_poke(quiescent: Quiescent<'_, '_>) -> Result<Poked, PokeError> {
    let Quiescent {
        stopped,
        plan,
        moves,
        direction,
    } = quiescent;
    let memory = stopped.memory();
    let len = plan.new.len();
    let in_page = (plan.at.0 % 4096)
        .checked_add(len as u64)
        .is_some_and(|end| end <= 4096);
    if len == 0 || plan.old.len() != len || !in_page {
        return Err(PokeError::NotOneWrite { at: plan.at, len });
    }
    let found = memory.read_vec(plan.at, len)?;
    if found != plan.old {
        let expected = Bytes(plan.old);
        return Err(PokeError::Differs {
            at: plan.at,
            expected,
            found: Bytes(found),
        });
    }
    if direction == Direction::Enter {
        // Killed from here on, we leave them in the copies, which are right with or without the jump.
        for (done, step) in moves.iter().enumerate() {
            if let Err(error) = stopped.move_ip(step.tid, step.to) {
                // The image may be unmapped now: nobody may stay in it. Who can't be moved back has died.
                for back in moves.iter().take(done) {
                    let _ = stopped.move_ip(back.tid, back.from);
                }
                return Err(error.into());
            }
        }
    }
    reach(FailPoint::IpsMoved);
    if let Err(error) = memory.write(plan.at, &plan.new) {
        if direction == Direction::Enter {
            for step in &moves {
                let _ = stopped.move_ip(step.tid, step.from);
            }
        }
        return Err(error.into());
    }
    if direction == Direction::Leave {
        for step in &moves {
            stopped.move_ip(step.tid, step.to)?;
        }
    }
    let found = memory.read_vec(plan.at, len)?;
    if found != plan.new {
        return Err(PokeError::Lost {
            at: plan.at,
            found: Bytes(found),
        });
    }
    reach(FailPoint::Poked);
    Ok(Poked {
        plan,
        moved: moves.len(),
    })
}
