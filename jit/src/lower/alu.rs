//! Arithmetic (RFC 9669 §4.1, §4.2).

use upatch_verifier::insn::{AluOp, EndianOp, Operand, Reg, Size, Width};

use super::Lower;
use crate::asm::{Arith, Cond, Gpr, Mem, Shift, Swap};

use Width::{W32, W64};

impl Lower<'_> {
    /// The register that holds a source operand; r10 is computed into the scratch register for values.
    pub(super) fn source(&mut self, reg: Reg) -> Gpr {
        if reg == Reg::R10 {
            let value = self.regs.value;
            self.stack_pointer_into(value);
            value
        } else {
            self.regs.host(reg)
        }
    }

    fn stack_pointer_into(&mut self, host: Gpr) {
        let end = self.slot(self.frame.stack_end());
        self.asm.lea(W64, host, end);
    }

    pub(super) fn mov(&mut self, width: Width, dst: Reg, src: Operand) {
        let host = self.regs.host(dst);
        match src {
            Operand::Imm(imm) => {
                let value = match width {
                    W64 => i64::from(imm).cast_unsigned(),
                    W32 => u64::from(imm.cast_unsigned()),
                };
                self.asm.mov_ri(host, value);
            }
            Operand::Reg(Reg::R10) => {
                self.stack_pointer_into(host);
                if let W32 = width {
                    self.asm.mov_rr(W32, host, host);
                }
            }
            Operand::Reg(src) => {
                let src = self.regs.host(src);
                // A 32-bit move to itself zeroes the upper half; a 64-bit one does nothing.
                if src != host || width == W32 {
                    self.asm.mov_rr(width, host, src);
                }
            }
        }
    }

    pub(super) fn movsx(&mut self, width: Width, from: Size, dst: Reg, src: Reg) {
        let src = self.source(src);
        let dst = self.regs.host(dst);
        match (width, from) {
            (W32, Size::B | Size::H) => self.asm.movsx32_rr(from == Size::H, dst, src),
            (W32, Size::W | Size::DW) => self.asm.mov_rr(W32, dst, src),
            (W64, _) => self.asm.extend_rr(from, true, dst, src),
        }
    }

    pub(super) fn endian(&mut self, op: EndianOp, bits: u8, dst: Reg) {
        let host = self.regs.host(dst);
        let swaps = match op {
            EndianOp::ToLe => false,
            EndianOp::ToBe | EndianOp::Swap => true,
        };
        match (bits, swaps) {
            (16, true) => {
                self.asm.swap_bytes16(host);
                self.asm.extend_rr(Size::H, false, host, host);
            }
            (16, false) => self.asm.extend_rr(Size::H, false, host, host),
            (32, true) => self.asm.bswap(W32, host),
            (32, false) => self.asm.mov_rr(W32, host, host),
            (_, true) => self.asm.bswap(W64, host),
            (_, false) => {}
        }
    }

    pub(super) fn alu(&mut self, op: AluOp, width: Width, dst: Reg, src: Operand) {
        match op {
            AluOp::Add => self.arith(Arith::Add, width, dst, src),
            AluOp::Sub => self.arith(Arith::Sub, width, dst, src),
            AluOp::Or => self.arith(Arith::Or, width, dst, src),
            AluOp::And => self.arith(Arith::And, width, dst, src),
            AluOp::Xor => self.arith(Arith::Xor, width, dst, src),
            AluOp::Mov => self.mov(width, dst, src),
            AluOp::Mul => {
                let host = self.regs.host(dst);
                match src {
                    Operand::Imm(imm) => self.asm.imul_rri(width, host, host, imm),
                    Operand::Reg(src) => {
                        let src = self.source(src);
                        self.asm.imul_rr(width, host, src);
                    }
                }
            }
            AluOp::Lsh => self.shift(Shift::Shl, width, dst, src),
            AluOp::Rsh => self.shift(Shift::Shr, width, dst, src),
            AluOp::Arsh => self.shift(Shift::Sar, width, dst, src),
            AluOp::Div => self.divide(Division::new(false, false), width, dst, src),
            AluOp::Mod => self.divide(Division::new(false, true), width, dst, src),
            AluOp::SDiv => self.divide(Division::new(true, false), width, dst, src),
            AluOp::SMod => self.divide(Division::new(true, true), width, dst, src),
        }
    }

    fn arith(&mut self, op: Arith, width: Width, dst: Reg, src: Operand) {
        let host = self.regs.host(dst);
        match src {
            Operand::Imm(imm) => self.asm.arith_ri(op, width, host, imm),
            Operand::Reg(src) => {
                let src = self.source(src);
                self.asm.arith_rr(op, width, host, src);
            }
        }
    }

    /// Counts are masked to the width (RFC 9669 §4.1), which is what the processor does too. A variable count must be in
    /// cl; whatever is in rcx trades places with it for a moment.
    fn shift(&mut self, op: Shift, width: Width, dst: Reg, src: Operand) {
        let host = self.regs.host(dst);
        match src {
            Operand::Imm(imm) => {
                let bits = if width == W64 { 63 } else { 31 };
                let count = (imm & bits) as u8;
                if count != 0 {
                    self.asm.shift_ri(op, width, host, count);
                } else if width == W32 {
                    self.asm.mov_rr(W32, host, host);
                }
            }
            Operand::Reg(src) => {
                let count = self.source(src);
                if count == Gpr::Rcx {
                    self.asm.shift_cl(op, width, host);
                } else {
                    let swap = Swap(Gpr::Rcx, count);
                    self.asm.xchg_rr(Gpr::Rcx, count);
                    self.asm.shift_cl(op, width, swap.of(host));
                    self.asm.xchg_rr(Gpr::Rcx, count);
                }
            }
        }
    }

    /// Division by zero gives 0, its remainder the dividend; MIN / -1 gives MIN, its remainder 0 (RFC 9669 §4.1). The
    /// processor would raise #DE for both, so they never reach it.
    fn divide(&mut self, kind: Division, width: Width, dst: Reg, src: Operand) {
        let host = self.regs.host(dst);
        match src {
            Operand::Imm(0) => self.divide_by_zero(kind, width, host),
            Operand::Imm(-1) if kind.signed => self.divide_by_minus_one(kind, width, host),
            Operand::Imm(imm) => {
                let divisor = self.regs.value;
                let number = match width {
                    W64 => i64::from(imm).cast_unsigned(),
                    W32 => u64::from(imm.cast_unsigned()),
                };
                self.asm.mov_ri(divisor, number);
                self.divide_by(kind, width, host, divisor);
            }
            Operand::Reg(src) => {
                let src = self.source(src);
                let divisor = self.regs.value;
                if src != divisor || width == W32 {
                    self.asm.mov_rr(width, divisor, src);
                }
                let (zero, done) = (self.asm.label(), self.asm.label());
                self.asm.test_rr(width, divisor, divisor);
                self.asm.jcc(Cond::E, zero);
                if kind.signed {
                    let (ordinary, minus_one) = (self.asm.label(), self.asm.label());
                    self.asm.arith_ri(Arith::Cmp, width, divisor, -1);
                    self.asm.jcc(Cond::E, minus_one);
                    self.asm.bind(ordinary);
                    self.divide_by(kind, width, host, divisor);
                    self.asm.jmp(done);
                    self.asm.bind(minus_one);
                    self.divide_by_minus_one(kind, width, host);
                } else {
                    self.divide_by(kind, width, host, divisor);
                }
                self.asm.jmp(done);
                self.asm.bind(zero);
                self.divide_by_zero(kind, width, host);
                self.asm.bind(done);
            }
        }
    }

    fn divide_by_zero(&mut self, kind: Division, width: Width, host: Gpr) {
        if !kind.remainder {
            self.asm.mov_ri(host, 0);
        } else if width == W32 {
            self.asm.mov_rr(W32, host, host);
        }
    }

    fn divide_by_minus_one(&mut self, kind: Division, width: Width, host: Gpr) {
        if kind.remainder {
            self.asm.mov_ri(host, 0);
        } else {
            self.asm.neg(width, host);
        }
    }

    /// The dividend goes to rdx:rax, whose contents are put aside unless they are the dividend itself. `divisor` is a
    /// scratch register, never one of these, and takes the result.
    fn divide_by(&mut self, kind: Division, width: Width, host: Gpr, divisor: Gpr) {
        for reg in [Gpr::Rax, Gpr::Rdx] {
            if host != reg {
                self.push(reg);
            }
        }
        if host != Gpr::Rax {
            self.asm.mov_rr(width, Gpr::Rax, host);
        }
        if kind.signed {
            self.asm.sign_into_rdx(width);
            self.asm.idiv(width, divisor);
        } else {
            self.asm.arith_rr(Arith::Xor, W32, Gpr::Rdx, Gpr::Rdx);
            self.asm.div(width, divisor);
        }
        let result = if kind.remainder { Gpr::Rdx } else { Gpr::Rax };
        self.asm.mov_rr(W64, divisor, result);
        for reg in [Gpr::Rdx, Gpr::Rax] {
            if host != reg {
                self.pop(reg);
            }
        }
        self.asm.mov_rr(W64, host, divisor);
    }

    /// `[base + off]` of the BPF stack or of what the register points at.
    pub(super) fn plain(&self, base: Reg, off: i16) -> Mem {
        if base == Reg::R10 {
            self.slot(self.frame.stack_end() + i32::from(off))
        } else {
            Mem::at(self.regs.host(base), off.into())
        }
    }
}

/// Which division.
#[derive(Clone, Copy)]
struct Division {
    signed: bool,
    remainder: bool,
}

impl Division {
    const fn new(signed: bool, remainder: bool) -> Self {
        Self { signed, remainder }
    }
}
