//! Jumps, calls, returns.

use super::encode::{Form, Map, RegField, Rm};
use super::{Assembler, Gpr, Label};
use crate::patch::FixupKind;

/// A condition; the discriminant is the low nibble of the opcode (SDM vol. 2 table A-3, Jcc).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "each variant is the manual's condition: B, A unsigned, L, G signed"
)]
pub enum Cond {
    B = 2,
    Ae = 3,
    E = 4,
    Ne = 5,
    Be = 6,
    A = 7,
    L = 12,
    Ge = 13,
    Le = 14,
    G = 15,
}

impl Assembler {
    /// How far back a bound label is if a jump of two bytes emitted here reaches it.
    fn short(&self, label: Label) -> Option<i8> {
        let target = (*self.labels.get(label.0)?)?;
        let from = self.bytes.len() + 2;
        i8::try_from(i64::try_from(target).ok()? - i64::try_from(from).ok()?).ok()
    }

    /// JMP label; in two bytes where it goes back a little.
    pub fn jmp(&mut self, label: Label) {
        if let Some(distance) = self.short(label) {
            self.byte(0xeb);
            self.imm8(distance);
        } else {
            self.byte(0xe9);
            self.rel32(label);
        }
    }

    /// JMP rel32 to a place that is known when the code is placed.
    pub fn jmp_out(&mut self, kind: FixupKind) {
        self.byte(0xe9);
        self.fixup(kind);
        self.imm32(0);
    }

    /// Jcc label.
    pub fn jcc(&mut self, cond: Cond, label: Label) {
        if let Some(distance) = self.short(label) {
            self.byte(0x70 | cond as u8);
            self.imm8(distance);
        } else {
            self.byte(0x0f);
            self.byte(0x80 | cond as u8);
            self.rel32(label);
        }
    }

    /// Jcc rel32 to a place that is known when the code is placed.
    pub fn jcc_out(&mut self, cond: Cond, kind: FixupKind) {
        self.byte(0x0f);
        self.byte(0x80 | cond as u8);
        self.fixup(kind);
        self.imm32(0);
    }

    /// CALL label.
    pub fn call(&mut self, label: Label) {
        self.byte(0xe8);
        self.rel32(label);
    }

    /// CALL r64.
    pub fn call_reg(&mut self, reg: Gpr) {
        self.op(
            Form::PLAIN,
            Map::One,
            0xff,
            RegField::Digit(2),
            Rm::Reg(reg),
        );
    }

    /// RET.
    pub fn ret(&mut self) {
        self.byte(0xc3);
    }

    /// NOP, one byte.
    pub fn nop(&mut self) {
        self.byte(0x90);
    }

    /// UD2: raises an exception where control must not come.
    pub fn ud2(&mut self) {
        self.data(&[0x0f, 0x0b]);
    }
}
