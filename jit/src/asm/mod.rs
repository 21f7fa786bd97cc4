//! A small x86-64 assembler: one method per instruction form that the JIT needs, named after its mnemonic.
//!
//! Encodings are those of SDM vol. 2; opcode numbers appear in this folder only. Sizes and widths are the BPF crate's,
//! for they mean the same. A test encodes random instructions and has an independent disassembler read them back.
//! Invariant: every method appends exactly one instruction; a field that refers to a label or to an address that is not
//! known yet holds zero until [`Assembler::finish`] or whoever places the code fills it in.

mod arith;
mod control;
mod encode;
mod moves;
mod reg;
mod system;
#[cfg(test)]
mod tests;

pub use arith::{Arith, Shift};
pub use control::Cond;
pub use reg::{Gpr, GprSet, Mem, Swap};
pub use upatch_verifier::insn::{Size, Width};

use crate::patch::{Fixup, FixupKind};

/// A place in the code, to be bound once and referred to any number of times.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Label(usize);

/// Machine code in the making.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
    /// Offset of each label, once bound.
    labels: Vec<Option<usize>>,
    /// rel32 fields that refer to labels: offset of the field, whose end is what it is relative to.
    references: Vec<(usize, Label)>,
    fixups: Vec<Fixup>,
}

impl Assembler {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing yet?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A label that is bound later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here. A label that is bound twice keeps its first place.
    pub fn bind(&mut self, label: Label) {
        let here = self.bytes.len();
        if let Some(place @ None) = self.labels.get_mut(label.0) {
            *place = Some(here);
        }
    }

    /// A label for this place.
    pub fn here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// The label is at this offset from the start.
    pub fn bind_at(&mut self, label: Label, at: usize) {
        if let Some(place @ None) = self.labels.get_mut(label.0) {
            *place = Some(at);
        }
    }

    /// Appends literal bytes (data, not an instruction).
    pub fn data(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Fills in all labels.
    ///
    /// # Panics
    /// If a label was referred to and never bound, which is a mistake in the JIT that every test run would meet.
    #[must_use]
    pub fn finish(mut self) -> (Vec<u8>, Vec<Fixup>) {
        for (at, label) in &self.references {
            // SANITY: lowering binds each label it creates; the fuzz test compiles every instruction.
            let target = self.labels[label.0].expect("a label is referred to but not bound");
            let from = at + 4;
            // SANITY: code is at most a few megabytes (MAX_SLOTS times the longest lowering).
            let distance =
                i32::try_from(target as i64 - from as i64).expect("code is larger than 2 GiB");
            self.bytes[*at..from].copy_from_slice(&distance.to_le_bytes());
        }
        (self.bytes, self.fixups)
    }

    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn imm8(&mut self, value: i8) {
        self.byte(value.cast_unsigned());
    }

    fn imm32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    fn rel32(&mut self, label: Label) {
        self.references.push((self.bytes.len(), label));
        self.imm32(0);
    }

    fn fixup(&mut self, kind: FixupKind) {
        let at = self.bytes.len();
        self.fixups.push(Fixup { at, kind });
    }
}
