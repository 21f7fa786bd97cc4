//! The text poke: one write of a few bytes within one page, between a comparison and a comparison; for several sites one
//! after the other, behind a closed gate.

use std::fmt;

use upatch_trampolines::{Avma, PokePlan};

use super::quiesce::{Direction, Part, Quiescent};
use super::record::to_hex;
use crate::process::failpoint::{FailPoint, Fault, fails, reach};
use crate::process::{Memory, MemoryError, StopError, StoppedProcess};

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

/// Pokes that were done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Poked {
    /// Tasks that were moved.
    pub moved: usize,
}

/// Carries the plans out: all of them, or none. Consumes the proof, so that it is used once; the process is still stopped
/// afterwards.
///
/// With a gate, the sites are poked while it is closed, and one store opens it; taking back closes it first, and passes
/// over sites that hold the original bytes already.
///
/// # Errors
/// See [`PokeError`]. Taking several back may break off in the middle: the gate is closed then, so that nothing is changed.
///
/// ```compile_fail,E0308
/// fn without_proof(plan: upatch_trampolines::PokePlan) {
///     let _ = upatch::patching::text_poke(plan);
/// }
/// ```
pub fn text_poke(quiescent: Quiescent<'_, '_>) -> Result<Poked, PokeError> {
    let Quiescent {
        stopped,
        mut parts,
        gate,
        direction,
    } = quiescent;
    // Looked at before anything is written.
    let mut wanted = Vec::new();
    for part in &parts {
        wanted.push(is_wanted(
            stopped,
            &part.plan,
            gate.is_some() && direction == Direction::Leave,
        )?);
    }
    let mut wanted = wanted.into_iter();
    parts.retain(|_| wanted.next().unwrap_or(true));
    if let (Some(gate), Direction::Leave) = (gate, direction) {
        set_gate(stopped, gate, 0)?;
        reach(FailPoint::GateClosed);
    }
    for (done, part) in parts.iter().enumerate() {
        if let Err(error) = poke_one(stopped, part, direction) {
            take_back(stopped, &parts[..done], direction)?;
            return Err(error);
        }
        reach(FailPoint::Poked);
    }
    if let (Some(gate), Direction::Enter) = (gate, direction) {
        if let Err(error) = set_gate(stopped, gate, 1) {
            take_back(stopped, &parts, direction)?;
            return Err(error);
        }
        reach(FailPoint::GateOpened);
    }
    Ok(Poked {
        moved: parts.iter().map(|part| part.moves.len()).sum(),
    })
}

/// Is this one write, of bytes that are as planned? False if it is done already, where that may be.
fn is_wanted(
    stopped: &StoppedProcess<'_>,
    plan: &PokePlan,
    may_be_done: bool,
) -> Result<bool, PokeError> {
    let len = plan.new.len();
    let in_page = (plan.at.0 % 4096)
        .checked_add(len as u64)
        .is_some_and(|end| end <= 4096);
    if len == 0 || plan.old.len() != len || !in_page {
        return Err(PokeError::NotOneWrite { at: plan.at, len });
    }
    let found = stopped.memory().read_vec(plan.at, len)?;
    if found == plan.old {
        return Ok(true);
    }
    if may_be_done && found == plan.new {
        return Ok(false);
    }
    Err(PokeError::Differs {
        at: plan.at,
        expected: Bytes(plan.old.clone()),
        found: Bytes(found),
    })
}

/// The one store that makes a patch with several sites live, or not.
fn set_gate(stopped: &StoppedProcess<'_>, gate: Avma, value: u8) -> Result<(), PokeError> {
    let memory = stopped.memory();
    write(memory, gate, &[value], Fault::Gate)?;
    let found = memory.read_vec(gate, 1)?;
    if found != [value] {
        return Err(PokeError::Lost {
            at: gate,
            found: Bytes(found),
        });
    }
    Ok(())
}

fn poke_one(
    stopped: &mut StoppedProcess<'_>,
    part: &Part,
    direction: Direction,
) -> Result<(), PokeError> {
    let Part { plan, moves } = part;
    let memory = stopped.memory();
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
    if let Err(error) = write(memory, plan.at, &plan.new, Fault::Poke) {
        if direction == Direction::Enter {
            for step in moves {
                let _ = stopped.move_ip(step.tid, step.from);
            }
        }
        return Err(error.into());
    }
    if direction == Direction::Leave {
        for step in moves {
            stopped.move_ip(step.tid, step.to)?;
        }
    }
    is_there(stopped, plan.at, &plan.new)
}

/// Undoes what was done before a later site failed. Sites that were being taken back stay as they are: the gate is closed.
fn take_back(
    stopped: &mut StoppedProcess<'_>,
    done: &[Part],
    direction: Direction,
) -> Result<(), PokeError> {
    if direction == Direction::Leave {
        return Ok(());
    }
    for Part { plan, moves } in done.iter().rev() {
        // Whether that worked is told by what is there afterwards.
        let _ = write(stopped.memory(), plan.at, &plan.old, Fault::TakeBack);
        is_there(stopped, plan.at, &plan.old)?;
        for step in moves {
            // Who can't be moved back has died.
            let _ = stopped.move_ip(step.tid, step.from);
        }
    }
    Ok(())
}

/// One write, or the fault that a test asks for in its place.
fn write(memory: &Memory, at: Avma, bytes: &[u8], fault: Fault) -> Result<(), MemoryError> {
    if fails(fault) {
        return Err(MemoryError::Fault {
            verb: "write",
            at,
            len: bytes.len(),
            source: std::io::Error::from_raw_os_error(libc::EIO),
        });
    }
    memory.write(at, bytes)
}

fn is_there(stopped: &StoppedProcess<'_>, at: Avma, bytes: &[u8]) -> Result<(), PokeError> {
    let mut found = vec![0; bytes.len()];
    let len = stopped.memory().read_some(at, &mut found);
    found.truncate(len);
    if found == bytes {
        return Ok(());
    }
    Err(PokeError::Lost {
        at,
        found: Bytes(found),
    })
}
