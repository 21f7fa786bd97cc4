//! Arithmetic, shifts, comparisons, and the locked read-modify-writes.

use super::encode::{Form, Map, RegField, Rm};
use super::{Assembler, Gpr, Mem, Size, Width};

/// Two-operand arithmetic of opcodes 00-3B; the discriminant is its `/digit` in group 1 (SDM vol. 2 table A-6).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the mnemonic")]
pub enum Arith {
    Add = 0,
    Or = 1,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts and rotations; the discriminant is the `/digit` in group 2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the mnemonic")]
pub enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// The single-operand group 3 (opcodes F6, F7); the discriminant is the `/digit`.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Unary {
    Not = 2,
    Neg = 3,
    Mul = 4,
    Div = 6,
    Idiv = 7,
}

impl Assembler {
    /// ADD/OR/AND/SUB/XOR/CMP r, r.
    pub fn arith_rr(&mut self, op: Arith, width: Width, dst: Gpr, src: Gpr) {
        let opcode = (op as u8) << 3 | 0x01;
        self.op(
            Form::width(width),
            Map::One,
            opcode,
            RegField::Reg(src),
            Rm::Reg(dst),
        );
    }

    /// ADD/OR/AND/SUB/XOR/CMP r, imm (sign-extended to the width).
    pub fn arith_ri(&mut self, op: Arith, width: Width, dst: Gpr, imm: i32) {
        self.arith_imm(op, Form::width(width), Rm::Reg(dst), imm);
    }

    /// ADD/OR/AND/SUB/XOR/CMP r, m.
    pub fn arith_rm(&mut self, op: Arith, width: Width, dst: Gpr, src: Mem) {
        let opcode = (op as u8) << 3 | 0x03;
        self.op(
            Form::width(width),
            Map::One,
            opcode,
            RegField::Reg(dst),
            Rm::Mem(src),
        );
    }

    /// ADD/OR/AND/SUB/XOR/CMP m, r.
    pub fn arith_mr(&mut self, op: Arith, width: Width, dst: Mem, src: Gpr) {
        let opcode = (op as u8) << 3 | 0x01;
        self.op(
            Form::width(width),
            Map::One,
            opcode,
            RegField::Reg(src),
            Rm::Mem(dst),
        );
    }

    /// ADD/OR/AND/SUB/XOR/CMP m, imm.
    pub fn arith_mi(&mut self, op: Arith, width: Width, dst: Mem, imm: i32) {
        self.arith_imm(op, Form::width(width), Rm::Mem(dst), imm);
    }

    /// LOCK ADD/OR/AND/SUB/XOR m, r.
    pub fn lock_arith_mr(&mut self, op: Arith, width: Width, dst: Mem, src: Gpr) {
        let opcode = (op as u8) << 3 | 0x01;
        let form = Form::width(width).locked();
        self.op(form, Map::One, opcode, RegField::Reg(src), Rm::Mem(dst));
    }

    /// LOCK ADD/OR/AND/SUB/XOR m, imm.
    pub fn lock_arith_mi(&mut self, op: Arith, width: Width, dst: Mem, imm: i32) {
        self.arith_imm(op, Form::width(width).locked(), Rm::Mem(dst), imm);
    }

    fn arith_imm(&mut self, op: Arith, form: Form, dst: Rm, imm: i32) {
        let digit = RegField::Digit(op as u8);
        if let Ok(short) = i8::try_from(imm) {
            self.op(form, Map::One, 0x83, digit, dst);
            self.imm8(short);
        } else {
            self.op(form, Map::One, 0x81, digit, dst);
            self.imm32(imm);
        }
    }

    /// TEST r, r.
    pub fn test_rr(&mut self, width: Width, a: Gpr, b: Gpr) {
        self.op(
            Form::width(width),
            Map::One,
            0x85,
            RegField::Reg(b),
            Rm::Reg(a),
        );
    }

    /// TEST r, imm (sign-extended to the width).
    pub fn test_ri(&mut self, width: Width, a: Gpr, imm: i32) {
        self.op(
            Form::width(width),
            Map::One,
            0xf7,
            RegField::Digit(0),
            Rm::Reg(a),
        );
        self.imm32(imm);
    }

    /// IMUL r, r: the low half of the product.
    pub fn imul_rr(&mut self, width: Width, dst: Gpr, src: Gpr) {
        self.op(
            Form::width(width),
            Map::Two,
            0xaf,
            RegField::Reg(dst),
            Rm::Reg(src),
        );
    }

    /// IMUL r, r, imm.
    pub fn imul_rri(&mut self, width: Width, dst: Gpr, src: Gpr, imm: i32) {
        let (form, reg, rm) = (Form::width(width), RegField::Reg(dst), Rm::Reg(src));
        if let Ok(short) = i8::try_from(imm) {
            self.op(form, Map::One, 0x6b, reg, rm);
            self.imm8(short);
        } else {
            self.op(form, Map::One, 0x69, reg, rm);
            self.imm32(imm);
        }
    }

    fn unary(&mut self, op: Unary, width: Width, reg: Gpr) {
        let digit = RegField::Digit(op as u8);
        self.op(Form::width(width), Map::One, 0xf7, digit, Rm::Reg(reg));
    }

    /// NOT r.
    pub fn not(&mut self, width: Width, reg: Gpr) {
        self.unary(Unary::Not, width, reg);
    }

    /// NEG r.
    pub fn neg(&mut self, width: Width, reg: Gpr) {
        self.unary(Unary::Neg, width, reg);
    }

    /// MUL r: rdx:rax = rax * r.
    pub fn mul(&mut self, width: Width, reg: Gpr) {
        self.unary(Unary::Mul, width, reg);
    }

    /// DIV r: rax = rdx:rax / r, rdx = the remainder.
    pub fn div(&mut self, width: Width, reg: Gpr) {
        self.unary(Unary::Div, width, reg);
    }

    /// IDIV r: the same, signed.
    pub fn idiv(&mut self, width: Width, reg: Gpr) {
        self.unary(Unary::Idiv, width, reg);
    }

    /// CQO (W64) or CDQ (W32): rdx = the sign of rax.
    pub fn sign_into_rdx(&mut self, width: Width) {
        if let Width::W64 = width {
            self.byte(0x48);
        }
        self.byte(0x99);
    }

    /// ROL/ROR/SHL/SHR/SAR r, imm.
    pub fn shift_ri(&mut self, op: Shift, width: Width, reg: Gpr, count: u8) {
        let digit = RegField::Digit(op as u8);
        self.op(Form::width(width), Map::One, 0xc1, digit, Rm::Reg(reg));
        self.byte(count);
    }

    /// ROL/ROR/SHL/SHR/SAR r, cl.
    pub fn shift_cl(&mut self, op: Shift, width: Width, reg: Gpr) {
        let digit = RegField::Digit(op as u8);
        self.op(Form::width(width), Map::One, 0xd3, digit, Rm::Reg(reg));
    }

    /// ROL r16, 8: swaps the low two bytes, leaves the others.
    pub fn swap_bytes16(&mut self, reg: Gpr) {
        let form = Form {
            operand16: true,
            ..Form::PLAIN
        };
        let digit = RegField::Digit(Shift::Rol as u8);
        self.op(form, Map::One, 0xc1, digit, Rm::Reg(reg));
        self.byte(8);
    }

    /// BSWAP r.
    pub fn bswap(&mut self, width: Width, reg: Gpr) {
        self.op_plus(width == Width::W64, Map::Two, 0xc8, reg);
    }

    /// XCHG m, r (locked by nature).
    pub fn xchg_mr(&mut self, width: Width, mem: Mem, reg: Gpr) {
        self.op(
            Form::width(width),
            Map::One,
            0x87,
            RegField::Reg(reg),
            Rm::Mem(mem),
        );
    }

    /// LOCK XADD m, r: r gets the old value.
    pub fn lock_xadd(&mut self, width: Width, mem: Mem, reg: Gpr) {
        let form = Form::width(width).locked();
        self.op(form, Map::Two, 0xc1, RegField::Reg(reg), Rm::Mem(mem));
    }

    /// LOCK CMPXCHG m, r: if m equals rax it becomes r, else rax gets m; ZF says which.
    pub fn lock_cmpxchg(&mut self, width: Width, mem: Mem, reg: Gpr) {
        let form = Form::width(width).locked();
        self.op(form, Map::Two, 0xb1, RegField::Reg(reg), Rm::Mem(mem));
    }

    /// CMP m8, imm8 and its wider forms.
    pub fn cmp_mi(&mut self, size: Size, mem: Mem, imm: i8) {
        let opcode = if size == Size::B { 0x80 } else { 0x83 };
        let digit = RegField::Digit(Arith::Cmp as u8);
        self.op(Form::size(size), Map::One, opcode, digit, Rm::Mem(mem));
        self.imm8(imm);
    }
}
