//! ctx: each field is a register, a slot of the frame, or known.

use upatch_abi::ctx::CtxField;
use upatch_verifier::insn::{Operand, Reg, Size, Width};

use super::Lower;
use crate::asm::{Gpr, Mem, Shift};
use crate::patch::FixupKind;
use crate::regs::home;

use Width::W64;

/// Where a field is.
enum Place {
    /// In its own register.
    Home(Gpr),
    /// In the main program's frame.
    Slot(Mem),
    /// The entry's rsp.
    Rsp,
    /// The patched address.
    Site,
    Known(u64),
}

impl Lower<'_> {
    fn place_of(&self, field: CtxField) -> Place {
        // Segment selectors of 64-bit user mode (arch/x86/include/asm/segment.h), and no system call in progress.
        const USER_CS: u64 = 0x33;
        const USER_SS: u64 = 0x2b;
        match field {
            CtxField::Rsp => Place::Rsp,
            CtxField::Rip => Place::Site,
            CtxField::Cs => Place::Known(USER_CS),
            CtxField::Ss => Place::Known(USER_SS),
            CtxField::OrigRax => Place::Known(u64::MAX),
            CtxField::Rflags => Place::Slot(self.main_slot(self.main_frame.flags_at())),
            CtxField::R15
            | CtxField::R14
            | CtxField::R13
            | CtxField::R12
            | CtxField::Rbp
            | CtxField::Rbx
            | CtxField::R11
            | CtxField::R10
            | CtxField::R9
            | CtxField::R8
            | CtxField::Rax
            | CtxField::Rcx
            | CtxField::Rdx
            | CtxField::Rsi
            | CtxField::Rdi => {
                let register = home(field).unwrap_or(Gpr::Rsp);
                match self.main_frame.saved_at(register) {
                    Some(offset) => Place::Slot(self.main_slot(offset)),
                    None => Place::Home(register),
                }
            }
        }
    }

    /// `dst = *(size *)(ctx + offset)`.
    pub(super) fn load_ctx(&mut self, offset: u16, size: Size, signed: bool, dst: Reg) {
        let Some(field) = CtxField::containing(offset) else {
            return;
        };
        let skipped = offset - field.offset();
        let host = self.regs.host(dst);
        match self.place_of(field) {
            Place::Slot(slot) => {
                let part = Mem {
                    disp: slot.disp + i32::from(skipped),
                    ..slot
                };
                self.asm.load(size, signed, host, part);
                return;
            }
            Place::Home(register) => {
                if skipped == 0 {
                    self.asm.extend_rr(size, signed, host, register);
                    return;
                }
                self.asm.mov_rr(W64, host, register);
            }
            Place::Rsp => {
                let frame = self.main_frame.clone();
                let entry = self.entry_rsp(&frame);
                self.asm.lea(W64, host, entry);
            }
            Place::Site => self.asm.mov_address(host, FixupKind::Site),
            Place::Known(value) => self.asm.mov_ri(host, value),
        }
        if skipped != 0 {
            let bits = u8::try_from(8 * skipped).unwrap_or(0);
            self.asm.shift_ri(Shift::Shr, W64, host, bits);
        }
        if size != Size::DW {
            self.asm.extend_rr(size, signed, host, host);
        }
    }

    /// `*(size *)(ctx + offset) = src`. Fields that are written in part are always in the frame.
    pub(super) fn store_ctx(&mut self, offset: u16, size: Size, src: Operand) {
        let Some(field) = CtxField::containing(offset) else {
            return;
        };
        let skipped = offset - field.offset();
        match (self.place_of(field), src) {
            (Place::Slot(slot), src) => {
                let part = Mem {
                    disp: slot.disp + i32::from(skipped),
                    ..slot
                };
                match src {
                    Operand::Imm(imm) => self.asm.store_imm(size, part, imm),
                    Operand::Reg(src) => {
                        let src = self.source(src);
                        self.asm.store(size, part, src);
                    }
                }
            }
            (Place::Home(register), Operand::Imm(imm)) => {
                self.asm.mov_ri(register, i64::from(imm).cast_unsigned());
            }
            (Place::Home(register), Operand::Reg(src)) => {
                let src = self.source(src);
                if src != register {
                    self.asm.mov_rr(W64, register, src);
                }
            }
            // The verifier refuses writes to these.
            (Place::Rsp | Place::Site | Place::Known(_), _) => {}
        }
    }
}
