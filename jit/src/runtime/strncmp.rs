//! `bpf_strncmp`: compares with a constant string.

use crate::asm::{Arith, Assembler, Cond, Gpr, Mem, Size, Width};

/// rdi: first string, esi: most bytes of it, rdx: constant string, rcx: its length with the NUL. rax: -1, 0 or 1.
pub(super) fn strncmp(asm: &mut Assembler) {
    use Width::{W32, W64};
    let (each, equal, differ, less) = (asm.label(), asm.label(), asm.label(), asm.label());
    asm.mov_rr(W32, Gpr::Rsi, Gpr::Rsi);
    asm.mov_ri(Gpr::R8, 0);
    asm.bind(each);
    asm.arith_rr(Arith::Cmp, W64, Gpr::R8, Gpr::Rsi);
    asm.jcc(Cond::Ae, equal);
    // The constant's NUL is its last byte: equal up to there means equal.
    asm.arith_rr(Arith::Cmp, W64, Gpr::R8, Gpr::Rcx);
    asm.jcc(Cond::Ae, equal);
    asm.load(Size::B, false, Gpr::Rax, Mem::sum(Gpr::Rdi, Gpr::R8));
    asm.load(Size::B, false, Gpr::R9, Mem::sum(Gpr::Rdx, Gpr::R8));
    asm.arith_rr(Arith::Cmp, W32, Gpr::Rax, Gpr::R9);
    asm.jcc(Cond::Ne, differ);
    asm.arith_ri(Arith::Add, W64, Gpr::R8, 1);
    asm.test_rr(W32, Gpr::Rax, Gpr::Rax);
    asm.jcc(Cond::Ne, each);
    asm.bind(equal);
    asm.mov_ri(Gpr::Rax, 0);
    asm.ret();
    asm.bind(differ);
    asm.jcc(Cond::B, less);
    asm.mov_ri(Gpr::Rax, 1);
    asm.ret();
    asm.bind(less);
    asm.mov_ri(Gpr::Rax, u64::MAX);
    asm.ret();
}
