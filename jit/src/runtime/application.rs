//! Calls of the application's own functions.

use super::Surroundings;
use crate::asm::{Arith, Assembler, Gpr, Mem, Size, Width};
use crate::options::VectorState;
use crate::patch::FixupKind;

use Width::{W32, W64};

/// The area and what aligning it may cost, the saved rbp, the return address that the call pushes.
pub(super) fn stack(vectors: VectorState) -> u32 {
    8 + vectors.bytes + 63 + 8
}

/// Calls the function in r11; arguments in rdi, rsi, rdx, rcx, r8, the result in rax.
///
/// Everything that the psABI lets a function change has been saved by the patch's entry, except vector registers, x87
/// and mxcsr: these are saved here, because the patched function's caller may keep values in them (gcc's -fipa-ra).
pub(super) fn call(asm: &mut Assembler, vectors: VectorState) {
    /// The XSAVE header (SDM vol. 1 §13.4.2): XRSTOR wants zeros where XSAVE leaves what was there.
    const HEADER: i32 = 512;
    const HEADER_BYTES: i32 = 64;
    let area = i32::try_from(vectors.bytes).unwrap_or(i32::MAX);
    let saved = Mem::at(Gpr::Rsp, 0);
    asm.push(Gpr::Rbp);
    asm.mov_rr(W64, Gpr::Rbp, Gpr::Rsp);
    asm.arith_ri(Arith::Sub, W64, Gpr::Rsp, area);
    asm.arith_ri(Arith::And, W64, Gpr::Rsp, -64);
    for word in (HEADER..HEADER + HEADER_BYTES).step_by(8) {
        asm.store_imm(Size::DW, Mem::at(Gpr::Rsp, word), 0);
    }
    asm.mov_rr(W64, Gpr::R10, Gpr::Rdx);
    asm.mov_ri(Gpr::Rax, vectors.mask.into());
    asm.mov_ri(Gpr::Rdx, 0);
    if vectors.compact {
        asm.xsavec64(saved);
    } else {
        asm.xsave64(saved);
    }
    asm.mov_rr(W64, Gpr::Rdx, Gpr::R10);
    // A variadic function reads in al how many vector arguments there are (psABI §3.5.7).
    asm.mov_ri(Gpr::Rax, 0);
    asm.cld();
    asm.call_reg(Gpr::R11);
    asm.mov_rr(W64, Gpr::R10, Gpr::Rax);
    asm.mov_ri(Gpr::Rax, vectors.mask.into());
    asm.mov_ri(Gpr::Rdx, 0);
    asm.xrstor64(saved);
    asm.mov_rr(W64, Gpr::Rax, Gpr::R10);
    asm.mov_rr(W64, Gpr::Rsp, Gpr::Rbp);
    asm.pop(Gpr::Rbp);
    asm.ret();
}

/// `upatch_set_errno(edi)`: `*__errno_location() = value`; 0.
pub(super) fn set_errno(asm: &mut Assembler, around: &Surroundings) {
    asm.push(Gpr::Rdi);
    asm.mov_address(Gpr::R11, FixupKind::Extern(around.errno_location));
    asm.call(around.call_application);
    asm.pop(Gpr::Rdi);
    asm.store(Size::W, Mem::at(Gpr::Rax, 0), Gpr::Rdi);
    asm.arith_rr(Arith::Xor, W32, Gpr::Rax, Gpr::Rax);
    asm.ret();
}
