//! Fault-safe access to the program's memory: `process_vm_readv` and `process_vm_writev` on our own pid.
//!
//! The pid is asked for each time: a number baked in would make a forked child read its parent. rbp keeps the buffer, r12
//! its size: the kernel preserves them. On the stack lie the local and the remote `struct iovec`:
//! ```text
//! rsp      + 8      + 16      + 24      + 32
//! │ buffer  │ length │ address │ length  │ address (string reads)
//! ```

use super::{ids, syscall};
use crate::asm::{Arith, Assembler, Cond, Gpr, Mem, Size, Width};

// System call numbers.
pub(super) const PROCESS_VM_READV: u32 = 310;
pub(super) const PROCESS_VM_WRITEV: u32 = 311;

/// Bytes that both vectors take, and the string's address.
pub(super) const VECTORS: u32 = 40;
const FRAME: i32 = 40;

const EFAULT: u64 = (-14_i64).cast_unsigned();
const PAGE: i32 = 4096;

use Width::{W32, W64};

fn slot(offset: i32) -> Mem {
    Mem::at(Gpr::Rsp, offset)
}

/// Saves rbp, makes room.
fn prologue(asm: &mut Assembler) {
    asm.push(Gpr::Rbp);
    asm.arith_ri(Arith::Sub, W64, Gpr::Rsp, FRAME);
}

/// Returns `result`.
fn epilogue(asm: &mut Assembler, result: u64) {
    asm.mov_ri(Gpr::Rax, result);
    leave(asm);
}

/// Returns rax.
fn leave(asm: &mut Assembler) {
    asm.arith_ri(Arith::Add, W64, Gpr::Rsp, FRAME);
    asm.pop(Gpr::Rbp);
    asm.ret();
}

/// Copies r12 bytes, or r8 bytes, between the buffer at rbp and the address in r9; rax is the number of bytes copied.
fn transfer(asm: &mut Assembler, number: u32, len: Gpr) {
    syscall(asm, ids::GETPID);
    asm.mov_rr(W32, Gpr::Rdi, Gpr::Rax);
    asm.store(Size::DW, slot(0), Gpr::Rbp);
    asm.store(Size::DW, slot(8), len);
    asm.store(Size::DW, slot(16), Gpr::R9);
    asm.store(Size::DW, slot(24), len);
    asm.lea(W64, Gpr::Rsi, slot(0));
    asm.mov_ri(Gpr::Rdx, 1);
    asm.lea(W64, Gpr::R10, slot(16));
    asm.mov_ri(Gpr::R8, 1);
    asm.mov_ri(Gpr::R9, 0);
    syscall(asm, number);
}

/// rdi: buffer, esi: size, rdx: address. 0, or -EFAULT with the buffer zeroed.
pub(super) fn probe_read(asm: &mut Assembler) {
    let (ok, failed) = (asm.label(), asm.label());
    prologue(asm);
    asm.mov_rr(W64, Gpr::Rbp, Gpr::Rdi);
    asm.mov_rr(W32, Gpr::R12, Gpr::Rsi);
    asm.mov_rr(W64, Gpr::R9, Gpr::Rdx);
    asm.test_rr(W64, Gpr::R12, Gpr::R12);
    asm.jcc(Cond::E, ok);
    transfer(asm, PROCESS_VM_READV, Gpr::R12);
    asm.arith_rr(Arith::Cmp, W64, Gpr::Rax, Gpr::R12);
    asm.jcc(Cond::Ne, failed);
    asm.bind(ok);
    epilogue(asm, 0);
    asm.bind(failed);
    zero_all(asm);
    epilogue(asm, EFAULT);
}

/// rdi: address, rsi: buffer, edx: size. 0 or -EFAULT.
pub(super) fn probe_write(asm: &mut Assembler) {
    let failed = asm.label();
    prologue(asm);
    asm.mov_rr(W64, Gpr::Rbp, Gpr::Rsi);
    asm.mov_rr(W32, Gpr::R12, Gpr::Rdx);
    asm.mov_rr(W64, Gpr::R9, Gpr::Rdi);
    transfer(asm, PROCESS_VM_WRITEV, Gpr::R12);
    asm.arith_rr(Arith::Cmp, W64, Gpr::Rax, Gpr::R12);
    asm.jcc(Cond::Ne, failed);
    epilogue(asm, 0);
    asm.bind(failed);
    epilogue(asm, EFAULT);
}

/// Zeroes the r12 bytes at rbp; r12 is 0 afterwards. Counting down keeps the index below what r12 is known to be.
fn zero_all(asm: &mut Assembler) {
    let (each, done) = (asm.label(), asm.label());
    asm.bind(each);
    asm.test_rr(W64, Gpr::R12, Gpr::R12);
    asm.jcc(Cond::E, done);
    asm.arith_ri(Arith::Sub, W64, Gpr::R12, 1);
    asm.store_imm(Size::B, Mem::sum(Gpr::Rbp, Gpr::R12), 0);
    asm.jmp(each);
    asm.bind(done);
}

/// rdi: buffer, esi: size, rdx: address. Copies a string with its NUL and fills up with zeros; a longer one is cut, NUL
/// included. The length with the NUL, or -EFAULT with the buffer zeroed; 0 if the size is 0.
///
/// Reads up to the end of the string's first page, looks for the NUL, and only where there is none reads on to the next
/// page's end, so that a page behind the string is never touched. Each round reads from the beginning: that costs little
/// (strings seldom cross two page ends), and the buffer's bounds stay obvious.
pub(super) fn probe_read_str(asm: &mut Assembler) {
    let labels: [_; 9] = std::array::from_fn(|_| asm.label());
    let [
        empty,
        round,
        clamped,
        scan,
        scanned,
        found,
        fill,
        filled,
        failed,
    ] = labels;
    prologue(asm);
    asm.mov_rr(W64, Gpr::Rbp, Gpr::Rdi);
    asm.mov_rr(W32, Gpr::R12, Gpr::Rsi);
    asm.store(Size::DW, slot(32), Gpr::Rdx);
    asm.test_rr(W64, Gpr::R12, Gpr::R12);
    asm.jcc(Cond::E, empty);
    // r8: bytes up to the end of the first page.
    asm.mov_ri(Gpr::R8, 4096);
    asm.arith_ri(Arith::And, W32, Gpr::Rdx, PAGE - 1);
    asm.arith_rr(Arith::Sub, W64, Gpr::R8, Gpr::Rdx);

    asm.bind(round);
    asm.arith_rr(Arith::Cmp, W64, Gpr::R8, Gpr::R12);
    asm.jcc(Cond::Be, clamped);
    asm.mov_rr(W64, Gpr::R8, Gpr::R12);
    asm.bind(clamped);
    asm.load(Size::DW, false, Gpr::R9, slot(32));
    transfer(asm, PROCESS_VM_READV, Gpr::R8);
    asm.load(Size::DW, false, Gpr::R8, slot(8));
    asm.arith_rr(Arith::Cmp, W64, Gpr::Rax, Gpr::R8);
    asm.jcc(Cond::Ne, failed);

    // rcx: index of the byte that is looked at.
    asm.mov_ri(Gpr::Rcx, 0);
    asm.bind(scan);
    asm.arith_rr(Arith::Cmp, W64, Gpr::Rcx, Gpr::R8);
    asm.jcc(Cond::Ae, scanned);
    asm.arith_rr(Arith::Cmp, W64, Gpr::Rcx, Gpr::R12);
    asm.jcc(Cond::Ae, scanned);
    asm.load(Size::B, false, Gpr::Rax, Mem::sum(Gpr::Rbp, Gpr::Rcx));
    asm.arith_ri(Arith::Add, W64, Gpr::Rcx, 1);
    asm.test_rr(W32, Gpr::Rax, Gpr::Rax);
    asm.jcc(Cond::E, found);
    asm.jmp(scan);
    asm.bind(scanned);
    asm.arith_ri(Arith::Add, W64, Gpr::R8, PAGE);
    asm.arith_rr(Arith::Cmp, W64, Gpr::Rcx, Gpr::R12);
    asm.jcc(Cond::B, round);
    // The buffer is full.
    asm.mov_rr(W64, Gpr::Rax, Gpr::R12);
    asm.arith_ri(Arith::Sub, W64, Gpr::R12, 1);
    asm.store_imm(Size::B, Mem::sum(Gpr::Rbp, Gpr::R12), 0);
    leave(asm);

    // rcx: length with the NUL.
    asm.bind(found);
    asm.mov_rr(W64, Gpr::Rax, Gpr::Rcx);
    asm.bind(fill);
    asm.arith_rr(Arith::Cmp, W64, Gpr::Rcx, Gpr::R12);
    asm.jcc(Cond::Ae, filled);
    asm.store_imm(Size::B, Mem::sum(Gpr::Rbp, Gpr::Rcx), 0);
    asm.arith_ri(Arith::Add, W64, Gpr::Rcx, 1);
    asm.jmp(fill);
    asm.bind(filled);
    leave(asm);

    asm.bind(failed);
    zero_all(asm);
    epilogue(asm, EFAULT);
    asm.bind(empty);
    epilogue(asm, 0);
}
