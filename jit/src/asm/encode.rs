//! Prefixes, REX, ModRM and SIB (SDM vol. 2 §2.1-2.2).

use super::{Assembler, Gpr, Label, Mem, Size, Width};

/// The operand that ModRM describes.
#[derive(Clone, Copy)]
pub(super) enum Rm {
    Reg(Gpr),
    Mem(Mem),
    /// RIP-relative (§2.2.1.6); only in instructions without an immediate, as the field must be the last.
    Rip(Label),
}

/// What ModRM.reg holds.
#[derive(Clone, Copy)]
pub(super) enum RegField {
    Reg(Gpr),
    /// An opcode extension, `/digit` in the manual.
    Digit(u8),
}

/// Which map the opcode is in.
#[derive(Clone, Copy)]
pub(super) enum Map {
    One,
    /// After 0F.
    Two,
}

/// How REX is chosen.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) w: bool,
    /// 66h operand-size prefix.
    pub(super) operand16: bool,
    pub(super) lock: bool,
    /// The register operands that are bytes: spl, bpl, sil and dil need a REX to be themselves (§2.2.1.2).
    pub(super) byte_reg: bool,
    pub(super) byte_rm: bool,
}

impl Form {
    pub(super) const PLAIN: Self = Self {
        w: false,
        operand16: false,
        lock: false,
        byte_reg: false,
        byte_rm: false,
    };

    pub(super) const fn width(width: Width) -> Self {
        Self {
            w: matches!(width, Width::W64),
            ..Self::PLAIN
        }
    }

    /// Both operands of this size.
    pub(super) const fn size(size: Size) -> Self {
        Self {
            w: matches!(size, Size::DW),
            operand16: matches!(size, Size::H),
            lock: false,
            byte_reg: matches!(size, Size::B),
            byte_rm: matches!(size, Size::B),
        }
    }

    pub(super) const fn locked(self) -> Self {
        Self { lock: true, ..self }
    }
}

impl Assembler {
    /// One instruction with a ModRM byte; immediates are the caller's to append.
    pub(super) fn op(&mut self, form: Form, map: Map, opcode: u8, reg: RegField, rm: Rm) {
        if form.lock {
            self.byte(0xf0);
        }
        if form.operand16 {
            self.byte(0x66);
        }
        let needs_rex = |gpr: Gpr| (4..8).contains(&gpr.number());
        let mut rex = u8::from(form.w) << 3;
        let mut forced = false;
        let reg_bits = match reg {
            RegField::Reg(gpr) => {
                rex |= u8::from(gpr.high()) << 2;
                forced |= form.byte_reg && needs_rex(gpr);
                gpr.low3()
            }
            RegField::Digit(digit) => digit,
        };
        match rm {
            Rm::Reg(gpr) => {
                rex |= u8::from(gpr.high());
                forced |= form.byte_rm && needs_rex(gpr);
            }
            Rm::Mem(mem) => {
                rex |= u8::from(mem.base.high());
                rex |= u8::from(mem.index.is_some_and(Gpr::high)) << 1;
            }
            Rm::Rip(_) => {}
        }
        if rex != 0 || forced {
            self.byte(0x40 | rex);
        }
        if let Map::Two = map {
            self.byte(0x0f);
        }
        self.byte(opcode);
        let modrm = |mode: u8, low: u8| mode << 6 | reg_bits << 3 | low;
        match rm {
            Rm::Reg(gpr) => self.byte(modrm(0b11, gpr.low3())),
            Rm::Rip(label) => {
                self.byte(modrm(0b00, 0b101));
                self.rel32(label);
            }
            Rm::Mem(mem) => self.memory(mem, modrm),
        }
    }

    fn memory(&mut self, mem: Mem, modrm: impl Fn(u8, u8) -> u8) {
        let short = i8::try_from(mem.disp).ok();
        // rbp and r13 have no form without displacement (table 2-2, note on mod 00, r/m 101).
        let mode = match short {
            Some(0) if mem.base.low3() != 0b101 => 0b00,
            Some(_) => 0b01,
            None => 0b10,
        };
        // A base of rsp or r12 needs a SIB byte; index 100 without REX.X means none (table 2-3).
        match mem.index {
            None if mem.base.low3() != 0b100 => self.byte(modrm(mode, mem.base.low3())),
            index => {
                let index = index.map_or(0b100, Gpr::low3);
                self.byte(modrm(mode, 0b100));
                self.byte(index << 3 | mem.base.low3());
            }
        }
        match (mode, short) {
            (0b00, _) => {}
            (0b01, Some(disp)) => self.imm8(disp),
            (_, _) => self.imm32(mem.disp),
        }
    }

    /// An opcode whose low three bits are a register (`+r` in the manual).
    pub(super) fn op_plus(&mut self, w: bool, map: Map, opcode: u8, reg: Gpr) {
        let rex = u8::from(w) << 3 | u8::from(reg.high());
        if rex != 0 {
            self.byte(0x40 | rex);
        }
        if let Map::Two = map {
            self.byte(0x0f);
        }
        self.byte(opcode | reg.low3());
    }
}
