//! `bpf_get_current_comm`: the thread's name.

use super::syscall;
use crate::asm::{Arith, Assembler, Cond, Gpr, Mem, Size, Width};

/// System call number.
pub(super) const PRCTL: u32 = 157;

/// rdi: buffer, esi: its size. Copies the name, always NUL-terminated, and fills the rest with zeros (strscpy_pad);
/// 0, or -EINVAL for a size of 0.
pub(super) fn current_comm(asm: &mut Assembler) {
    /// prctl(2), `include/uapi/linux/prctl.h`: writes 16 bytes.
    const PR_GET_NAME: u64 = 16;
    const TASK_COMM_LEN: i32 = 16;
    const EINVAL: i64 = -22;
    use Width::{W32, W64};
    let (empty, each, zero, store, done) = (
        asm.label(),
        asm.label(),
        asm.label(),
        asm.label(),
        asm.label(),
    );
    asm.arith_ri(Arith::Sub, W64, Gpr::Rsp, 24);
    asm.mov_rr(W64, Gpr::R8, Gpr::Rdi);
    asm.mov_rr(W32, Gpr::R9, Gpr::Rsi);
    asm.test_rr(W64, Gpr::R9, Gpr::R9);
    asm.jcc(Cond::E, empty);
    asm.mov_ri(Gpr::Rdi, PR_GET_NAME);
    asm.mov_rr(W64, Gpr::Rsi, Gpr::Rsp);
    syscall(asm, PRCTL);
    // The last byte is the terminator, whatever the name.
    asm.arith_ri(Arith::Sub, W64, Gpr::R9, 1);
    asm.store_imm(Size::B, Mem::sum(Gpr::R8, Gpr::R9), 0);
    asm.bind(each);
    asm.test_rr(W64, Gpr::R9, Gpr::R9);
    asm.jcc(Cond::E, done);
    asm.arith_ri(Arith::Sub, W64, Gpr::R9, 1);
    asm.arith_ri(Arith::Cmp, W64, Gpr::R9, TASK_COMM_LEN);
    asm.jcc(Cond::Ae, zero);
    asm.load(Size::B, false, Gpr::Rax, Mem::sum(Gpr::Rsp, Gpr::R9));
    asm.jmp(store);
    asm.bind(zero);
    asm.mov_ri(Gpr::Rax, 0);
    asm.bind(store);
    asm.store(Size::B, Mem::sum(Gpr::R8, Gpr::R9), Gpr::Rax);
    asm.jmp(each);
    asm.bind(empty);
    asm.mov_ri(Gpr::Rax, EINVAL.cast_unsigned());
    asm.arith_ri(Arith::Add, W64, Gpr::Rsp, 24);
    asm.ret();
    asm.bind(done);
    asm.mov_ri(Gpr::Rax, 0);
    asm.arith_ri(Arith::Add, W64, Gpr::Rsp, 24);
    asm.ret();
}
