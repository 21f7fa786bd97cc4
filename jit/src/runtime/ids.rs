//! Helpers that answer a question: the time, who is running, a random number.

use super::syscall;
use crate::asm::{Arith, Assembler, Gpr, Mem, Shift, Size, Width};
use crate::patch::FixupKind;
use crate::private;

// System call numbers, arch/x86/entry/syscalls/syscall_64.tbl.
pub(super) const GETPID: u32 = 39;
pub(super) const GETUID: u32 = 102;
pub(super) const GETGID: u32 = 104;
pub(super) const GETTID: u32 = 186;
pub(super) const CLOCK_GETTIME: u32 = 228;
pub(super) const GETCPU: u32 = 309;

use Width::{W32, W64};

/// clock_gettime(CLOCK_MONOTONIC, &timespec), as nanoseconds.
pub(super) fn ktime_get_ns(asm: &mut Assembler) {
    const CLOCK_MONOTONIC: u64 = 1;
    const NS_PER_S: i32 = 1_000_000_000;
    asm.arith_ri(Arith::Sub, W64, Gpr::Rsp, 24);
    asm.mov_ri(Gpr::Rdi, CLOCK_MONOTONIC);
    asm.mov_rr(W64, Gpr::Rsi, Gpr::Rsp);
    syscall(asm, CLOCK_GETTIME);
    asm.load(Size::DW, false, Gpr::Rax, Mem::at(Gpr::Rsp, 0));
    asm.imul_rri(W64, Gpr::Rax, Gpr::Rax, NS_PER_S);
    asm.arith_rm(Arith::Add, W64, Gpr::Rax, Mem::at(Gpr::Rsp, 8));
    asm.arith_ri(Arith::Add, W64, Gpr::Rsp, 24);
    asm.ret();
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016). Threads may
/// step it at once: some then get the same number.
pub(super) fn prandom_u32(asm: &mut Assembler) {
    const MULTIPLIER: u64 = 0x2545_f491_4f6c_dd1d;
    asm.mov_address(Gpr::Rcx, FixupKind::Private(private::RANDOM));
    asm.load(Size::DW, false, Gpr::Rax, Mem::at(Gpr::Rcx, 0));
    for (shift, count) in [(Shift::Shr, 12), (Shift::Shl, 25), (Shift::Shr, 27)] {
        asm.mov_rr(W64, Gpr::Rdx, Gpr::Rax);
        asm.shift_ri(shift, W64, Gpr::Rdx, count);
        asm.arith_rr(Arith::Xor, W64, Gpr::Rax, Gpr::Rdx);
    }
    asm.store(Size::DW, Mem::at(Gpr::Rcx, 0), Gpr::Rax);
    asm.mov_ri(Gpr::Rdx, MULTIPLIER);
    asm.imul_rr(W64, Gpr::Rax, Gpr::Rdx);
    asm.shift_ri(Shift::Shr, W64, Gpr::Rax, 32);
    asm.ret();
}

/// getcpu(&cpu, NULL, NULL).
pub(super) fn smp_processor_id(asm: &mut Assembler) {
    asm.push_imm(0);
    asm.mov_rr(W64, Gpr::Rdi, Gpr::Rsp);
    asm.mov_ri(Gpr::Rsi, 0);
    asm.mov_ri(Gpr::Rdx, 0);
    syscall(asm, GETCPU);
    asm.pop(Gpr::Rax);
    asm.ret();
}

/// tgid << 32 | tid.
pub(super) fn pid_tgid(asm: &mut Assembler) {
    high_and_low(asm, GETPID, GETTID);
}

/// gid << 32 | uid.
pub(super) fn uid_gid(asm: &mut Assembler) {
    high_and_low(asm, GETGID, GETUID);
}

fn high_and_low(asm: &mut Assembler, high: u32, low: u32) {
    syscall(asm, low);
    asm.mov_rr(W32, Gpr::Rdx, Gpr::Rax);
    syscall(asm, high);
    asm.shift_ri(Shift::Shl, W64, Gpr::Rax, 32);
    asm.arith_rr(Arith::Or, W64, Gpr::Rax, Gpr::Rdx);
    asm.ret();
}
