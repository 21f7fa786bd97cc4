//! The re-entry guard of patches that call the application (DESIGN decision 14).
//!
//! A called function may call the patched function again, on the same thread: that nested entry continues unpatched and
//! is counted. A guard is a pair in private memory: the thread's pointer (`fs:0`) and the complement of the rsp with which
//! the patch was entered. Guards of a thread lie in the bucket that its pointer hashes to.
//!
//! The called function may also never come back (longjmp, an exception). Its guard then stays behind; whoever finds it
//! with an rsp that is not below the guard's knows that the frame is gone, and takes the guard over. The complement is
//! stored so that the zero of a fresh or released guard stands for the highest rsp: a signal handler that comes between
//! claiming a guard and filling it in sees a frame that can't be gone, and continues unpatched.
//!
//! What remains possible: a thread that ends inside the called function leaves its guard; a later thread with the same
//! pointer, entering deeper in its stack, then misses patches until it enters less deep once.

use crate::asm::{Arith, Assembler, Cond, Gpr, Mem, Shift, Size, Width};
use crate::patch::FixupKind;
use crate::private;

use Width::{W32, W64};

/// Offset of a bucket's last guard. Loops compare with it and not with the bucket's end, because the machine-code check
/// knows ranges and not multiples: only so it sees that the last access stays inside.
const LAST: i32 = ((private::WAYS - 1) * private::GUARD_BYTES) as i32;
const GUARD: i32 = private::GUARD_BYTES as i32;
/// 2^64 divided by the golden ratio (Knuth, TAOCP vol. 3 §6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const BUCKET_BITS: u8 = private::BUCKETS.ilog2() as u8;
const BUCKET_SHIFT: u8 = (private::WAYS * private::GUARD_BYTES).ilog2() as u8;

const _: () = assert!(private::BUCKETS.is_power_of_two());
const _: () = assert!((private::WAYS * private::GUARD_BYTES).is_power_of_two());

/// rdx: this thread, r11: the complement of rsp.
fn identify(asm: &mut Assembler) {
    asm.load_thread_pointer(Gpr::Rdx);
    asm.mov_rr(W64, Gpr::R11, Gpr::Rsp);
    asm.not(W64, Gpr::R11);
}

/// rax: the claimed guard's offset, or -1 if this thread is inside already (or its bucket is full), which is counted.
pub(super) fn enter(asm: &mut Assembler) {
    let labels: [_; 7] = std::array::from_fn(|_| asm.label());
    let [search, not_found, free, taken, found, claimed, missed] = labels;
    let key = Mem::sum(Gpr::R9, Gpr::Rcx);
    let rsp = Mem { disp: 8, ..key };
    identify(asm);
    // r8: offset of the bucket, r9: its address.
    asm.mov_ri(Gpr::R8, GOLDEN);
    asm.imul_rr(W64, Gpr::R8, Gpr::Rdx);
    asm.shift_ri(Shift::Shr, W64, Gpr::R8, 64 - BUCKET_BITS);
    asm.shift_ri(Shift::Shl, W32, Gpr::R8, BUCKET_SHIFT);
    asm.mov_address(Gpr::R9, FixupKind::Private(private::GUARDS));
    asm.arith_rr(Arith::Add, W64, Gpr::R9, Gpr::R8);

    asm.mov_ri(Gpr::Rcx, 0);
    asm.bind(search);
    asm.arith_ri(Arith::Cmp, W32, Gpr::Rcx, LAST);
    asm.jcc(Cond::A, not_found);
    asm.arith_rm(Arith::Cmp, W64, Gpr::Rdx, key);
    asm.jcc(Cond::E, found);
    asm.arith_ri(Arith::Add, W32, Gpr::Rcx, GUARD);
    asm.jmp(search);

    // Only this thread enters its own key, so none appears meanwhile.
    asm.bind(not_found);
    asm.mov_ri(Gpr::Rcx, 0);
    asm.bind(free);
    asm.arith_ri(Arith::Cmp, W32, Gpr::Rcx, LAST);
    asm.jcc(Cond::A, missed);
    asm.cmp_mi(Size::DW, key, 0);
    asm.jcc(Cond::Ne, taken);
    asm.mov_ri(Gpr::Rax, 0);
    asm.lock_cmpxchg(W64, key, Gpr::Rdx);
    asm.jcc(Cond::E, claimed);
    asm.bind(taken);
    asm.arith_ri(Arith::Add, W32, Gpr::Rcx, GUARD);
    asm.jmp(free);

    // Ours: is the frame that claimed it still there?
    asm.bind(found);
    asm.arith_rm(Arith::Cmp, W64, Gpr::R11, rsp);
    asm.jcc(Cond::A, missed);
    asm.bind(claimed);
    asm.store(Size::DW, rsp, Gpr::R11);
    asm.lea(W64, Gpr::Rax, Mem::sum(Gpr::R8, Gpr::Rcx));
    asm.ret();

    asm.bind(missed);
    asm.mov_address(Gpr::Rcx, FixupKind::Private(private::MISSED));
    asm.lock_arith_mi(Arith::Add, W64, Mem::at(Gpr::Rcx, 0), 1);
    asm.mov_ri(Gpr::Rax, u64::MAX);
    asm.ret();
}

/// Releases the guard at offset rax, unless somebody took it over.
pub(super) fn leave(asm: &mut Assembler) {
    const LAST: i32 = ((private::BUCKETS * private::WAYS - 1) * private::GUARD_BYTES) as i32;
    let out = asm.label();
    identify(asm);
    asm.mov_address(Gpr::Rcx, FixupKind::Private(private::GUARDS));
    // The offset lay on the stack while the application ran.
    asm.arith_ri(Arith::And, W32, Gpr::Rax, LAST);
    asm.arith_rr(Arith::Add, W64, Gpr::Rcx, Gpr::Rax);
    asm.arith_rm(Arith::Cmp, W64, Gpr::Rdx, Mem::at(Gpr::Rcx, 0));
    asm.jcc(Cond::Ne, out);
    asm.arith_rm(Arith::Cmp, W64, Gpr::R11, Mem::at(Gpr::Rcx, 8));
    asm.jcc(Cond::Ne, out);
    asm.store_imm(Size::DW, Mem::at(Gpr::Rcx, 8), 0);
    asm.store_imm(Size::DW, Mem::at(Gpr::Rcx, 0), 0);
    asm.bind(out);
    asm.ret();
}
