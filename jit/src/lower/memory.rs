//! Loads and stores (RFC 9669 §5.1-5.2), and the confinement of addresses to the arena.

use upatch_verifier::facts::Access;
use upatch_verifier::insn::{Operand, Reg, Size, Width};

use super::Lower;
use crate::asm::{Arith, Gpr, Mem};
use crate::patch::FixupKind;

use Width::{W32, W64};

impl Lower<'_> {
    /// The memory operand of an access to anything but ctx. A confined address is computed into the scratch register for
    /// addresses; the one for values is free again afterwards.
    pub(super) fn place(&mut self, at: usize, base: Reg, off: i16) -> Mem {
        match self.access(at) {
            Some(Access::ArenaMasked) if base != Reg::R10 => {
                let pointer = Mem::at(self.regs.host(base), off.into());
                self.confine(pointer, Size::B);
                Mem::at(self.regs.address, 0)
            }
            Some(Access::ArenaMasked | Access::Plain | Access::Ctx { .. }) | None => {
                self.plain(base, off)
            }
        }
    }

    /// The same for an atomic of this size. A confined address is rounded down to a multiple of it: a locked access across two
    /// cache lines halts all processors, and many kernels throttle or kill who makes one.
    pub(super) fn atomic_place(&mut self, at: usize, base: Reg, off: i16, size: Size) -> Mem {
        if self.access(at) == Some(Access::ArenaMasked) && base != Reg::R10 {
            let pointer = Mem::at(self.regs.host(base), off.into());
            self.confine(pointer, size);
            return Mem::at(self.regs.address, 0);
        }
        self.place(at, base, off)
    }

    /// address = arena + (pointer & (window - 1)), rounded down to a multiple of `align`. The window is a power of two of at most 4 GiB, so that the lower half
    /// of the sum is enough; an access at its last byte runs into the slack page behind it.
    fn confine(&mut self, pointer: Mem, align: Size) {
        let (address, value) = (self.regs.address, self.regs.value);
        self.asm.lea(W32, address, pointer);
        let aligned = !(u64::from(align.bytes()) - 1);
        if let Ok(mask) = u32::try_from(self.window.saturating_sub(1) & aligned)
            && mask != u32::MAX
        {
            self.asm
                .arith_ri(Arith::And, W32, address, mask.cast_signed());
        }
        self.asm.mov_address(value, FixupKind::Arena(0));
        self.asm.arith_rr(Arith::Add, W64, address, value);
    }

    pub(super) fn load(
        &mut self,
        at: usize,
        size: Size,
        signed: bool,
        dst: Reg,
        base: Reg,
        off: i16,
    ) {
        if let Some(Access::Ctx { offset }) = self.access(at) {
            self.load_ctx(offset, size, signed, dst);
            return;
        }
        let place = self.place(at, base, off);
        let host = self.regs.host(dst);
        self.asm.load(size, signed, host, place);
    }

    pub(super) fn store(&mut self, at: usize, size: Size, base: Reg, off: i16, src: Operand) {
        if let Some(Access::Ctx { offset }) = self.access(at) {
            self.store_ctx(offset, size, src);
            return;
        }
        let place = self.place(at, base, off);
        match src {
            Operand::Imm(imm) => self.asm.store_imm(size, place, imm),
            Operand::Reg(src) => {
                let src = self.source(src);
                self.asm.store(size, place, src);
            }
        }
    }

    /// The same operand after something was pushed.
    pub(super) fn after_push(mem: Mem, bytes: i32) -> Mem {
        if mem.base == Gpr::Rsp {
            Mem {
                disp: mem.disp + bytes,
                ..mem
            }
        } else {
            mem
        }
    }
}
