//! Saving and restoring vector registers around calls of the application: `xsave`, `xsavec`, `xrstor`.
//!
//! Nothing else may touch vector registers, so what a known area holds is known. Invariant: after a restore that is accepted
//! every declared component holds what it held at the entry, and the restore can't raise #GP.

use iced_x86::Mnemonic;

use super::Problem;
use super::memory::Access;
use super::state::{RAX, RDX, SavedVectors};
use super::step::Machine;
use super::value::{Anchor, Kept, Value};

impl Machine<'_> {
    /// Offset, length and component mask of the area that the instruction uses.
    pub(super) fn xsave_area(&self, access: Access) -> Result<(i64, i64, u64), Problem> {
        let Some(vectors) = self.memory.policy.vectors else {
            return Err(Problem::Xsave {
                reason: "no vector state is declared",
            });
        };
        let (Some(low), Some(high)) = (
            self.state.reg(RAX).as_constant(),
            self.state.reg(RDX).as_constant(),
        ) else {
            return Err(Problem::Xsave {
                reason: "the component mask in edx:eax is not constant",
            });
        };
        let components = (low & 0xffff_ffff) | (high << 32);
        if components & vectors.mask != vectors.mask {
            return Err(Problem::Xsave {
                reason: "the component mask in edx:eax lacks components",
            });
        }
        match self.effective_address() {
            Value::Stack(Anchor::Aligned, first, last)
                if first == last && first.rem_euclid(64) == 0 =>
            {
                let address = Value::Stack(Anchor::Aligned, first, last);
                self.memory
                    .check(self.state, address, u64::from(vectors.bytes), access)?;
                Ok((first, i64::from(vectors.bytes), components))
            }
            _ => Err(Problem::Xsave {
                reason: "the area is not known to be aligned to 64",
            }),
        }
    }

    /// Saves vector registers to a known, 64-aligned, cleared area of the frame (SDM vol. 1 §13.7-13.11).
    pub(super) fn xsave(&mut self) -> Result<(), Problem> {
        let (offset, len, saved_mask) = self.xsave_area(Access::Store)?;
        // XSAVE leaves the rest of the header as it is, and XRSTOR raises #GP unless it is zero.
        let compacted = matches!(self.insn.mnemonic(), Mnemonic::Xsavec | Mnemonic::Xsavec64);
        let first = if compacted { 528 } else { 520 };
        let cleared = (first..576).step_by(8).all(|at| {
            self.state
                .load(Anchor::Aligned, offset.saturating_add(at), 8)
                == Value::constant(0)
        });
        if !cleared {
            return Err(Problem::Xsave {
                reason: "the area's header was not cleared",
            });
        }
        self.state.store(Anchor::Aligned, offset, offset, len, None);
        if self.state.vectors == Kept::Entry {
            self.state.saved_vectors = Some(SavedVectors {
                offset,
                len,
                mask: saved_mask,
            });
        }
        Ok(())
    }

    pub(super) fn xrstor(&mut self) -> Result<(), Problem> {
        let (offset, len, wanted) = self.xsave_area(Access::Load)?;
        match self.state.saved_vectors {
            Some(saved) if saved.offset == offset && saved.len == len && saved.mask == wanted => {
                self.state.vectors = Kept::Entry;
                Ok(())
            }
            Some(_) | None => Err(Problem::Xsave {
                reason: "nothing is known to be saved there",
            }),
        }
    }
}
