//! Moves between registers and memory, with and without extension; the stack.

use super::encode::{Form, Map, RegField, Rm};
use super::{Assembler, Gpr, Label, Mem, Size, Width};
use crate::patch::FixupKind;

impl Assembler {
    /// MOV r, r. W32 zero-extends.
    pub fn mov_rr(&mut self, width: Width, dst: Gpr, src: Gpr) {
        self.op(
            Form::width(width),
            Map::One,
            0x89,
            RegField::Reg(src),
            Rm::Reg(dst),
        );
    }

    /// MOV r, imm in the shortest of its three forms; flags stay.
    pub fn mov_ri(&mut self, dst: Gpr, value: u64) {
        if let Ok(low) = u32::try_from(value) {
            self.op_plus(false, Map::One, 0xb8, dst);
            self.imm32(low.cast_signed());
        } else if let Ok(low) = i32::try_from(value.cast_signed()) {
            let form = Form::width(Width::W64);
            self.op(form, Map::One, 0xc7, RegField::Digit(0), Rm::Reg(dst));
            self.imm32(low);
        } else {
            self.op_plus(true, Map::One, 0xb8, dst);
            self.data(&value.to_le_bytes());
        }
    }

    /// MOV r64, imm64 of an address that is known when the code is placed.
    pub fn mov_address(&mut self, dst: Gpr, kind: FixupKind) {
        self.op_plus(true, Map::One, 0xb8, dst);
        self.fixup(kind);
        self.data(&[0; 8]);
    }

    /// MOV, MOVZX, MOVSX or MOVSXD r64, m: extends to 64 bits.
    pub fn load(&mut self, size: Size, signed: bool, dst: Gpr, src: Mem) {
        self.extend(size, signed, dst, Rm::Mem(src));
    }

    /// MOV (W32), MOVZX, MOVSX or MOVSXD r64, r: extends the low part of `src` to 64 bits.
    pub fn extend_rr(&mut self, size: Size, signed: bool, dst: Gpr, src: Gpr) {
        self.extend(size, signed, dst, Rm::Reg(src));
    }

    fn extend(&mut self, size: Size, signed: bool, dst: Gpr, src: Rm) {
        let plain = Form::PLAIN;
        let wide = Form::width(Width::W64);
        let bytes = |form: Form| Form {
            byte_rm: true,
            ..form
        };
        let (form, map, opcode) = match (size, signed) {
            (Size::DW, _) => (wide, Map::One, 0x8b),
            (Size::W, false) => (plain, Map::One, 0x8b),
            (Size::W, true) => (wide, Map::One, 0x63),
            (Size::H, false) => (plain, Map::Two, 0xb7),
            (Size::H, true) => (wide, Map::Two, 0xbf),
            (Size::B, false) => (bytes(plain), Map::Two, 0xb6),
            (Size::B, true) => (bytes(wide), Map::Two, 0xbe),
        };
        self.op(form, map, opcode, RegField::Reg(dst), src);
    }

    /// MOVSX r32, r8 or r16: extends to 32 bits, zeroes the upper half.
    pub fn movsx32_rr(&mut self, half: bool, dst: Gpr, src: Gpr) {
        let form = Form {
            byte_rm: !half,
            ..Form::PLAIN
        };
        let opcode = if half { 0xbf } else { 0xbe };
        self.op(form, Map::Two, opcode, RegField::Reg(dst), Rm::Reg(src));
    }

    /// MOV m, r.
    pub fn store(&mut self, size: Size, dst: Mem, src: Gpr) {
        let opcode = if size == Size::B { 0x88 } else { 0x89 };
        self.op(
            Form::size(size),
            Map::One,
            opcode,
            RegField::Reg(src),
            Rm::Mem(dst),
        );
    }

    /// MOV m, imm: its low bytes; sign-extended to 64 bits.
    pub fn store_imm(&mut self, size: Size, dst: Mem, imm: i32) {
        let opcode = if size == Size::B { 0xc6 } else { 0xc7 };
        let digit = RegField::Digit(0);
        self.op(Form::size(size), Map::One, opcode, digit, Rm::Mem(dst));
        let bytes = imm.to_le_bytes();
        let len = match size {
            Size::B => 1,
            Size::H => 2,
            Size::W | Size::DW => 4,
        };
        self.data(&bytes[..len]);
    }

    /// LEA r, m. W32 truncates and zero-extends.
    pub fn lea(&mut self, width: Width, dst: Gpr, src: Mem) {
        self.op(
            Form::width(width),
            Map::One,
            0x8d,
            RegField::Reg(dst),
            Rm::Mem(src),
        );
    }

    /// LEA r64, [rip + label].
    pub fn lea_label(&mut self, dst: Gpr, label: Label) {
        let form = Form::width(Width::W64);
        self.op(form, Map::One, 0x8d, RegField::Reg(dst), Rm::Rip(label));
    }

    /// XCHG r64, r64.
    pub fn xchg_rr(&mut self, a: Gpr, b: Gpr) {
        self.op(
            Form::width(Width::W64),
            Map::One,
            0x87,
            RegField::Reg(b),
            Rm::Reg(a),
        );
    }

    /// PUSH r64.
    pub fn push(&mut self, reg: Gpr) {
        self.op_plus(false, Map::One, 0x50, reg);
    }

    /// PUSH imm, sign-extended to 64 bits.
    pub fn push_imm(&mut self, imm: i32) {
        if let Ok(short) = i8::try_from(imm) {
            self.byte(0x6a);
            self.imm8(short);
        } else {
            self.byte(0x68);
            self.imm32(imm);
        }
    }

    /// POP r64.
    pub fn pop(&mut self, reg: Gpr) {
        self.op_plus(false, Map::One, 0x58, reg);
    }

    /// PUSHFQ.
    pub fn pushfq(&mut self) {
        self.byte(0x9c);
    }

    /// POPFQ.
    pub fn popfq(&mut self) {
        self.byte(0x9d);
    }

    /// MOV r64, fs:0: the thread pointer (psABI, ELF TLS: the word at fs:0 holds its own address).
    pub fn load_thread_pointer(&mut self, dst: Gpr) {
        let rex = 0x48 | u8::from(dst.high()) << 2;
        // No base, no index: ModRM r/m 100 with SIB 25h is disp32 alone (SDM vol. 2 table 2-3).
        self.data(&[0x64, rex, 0x8b, 0x04 | dst.low3() << 3, 0x25, 0, 0, 0, 0]);
    }
}
