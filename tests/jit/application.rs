//! Calls of the application: its functions may change whatever the psABI lets them, and call the patched function again.

use std::arch::global_asm;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use upatch_jit::{FixupKind, private};
use upatch_tests::native::{Left, Native};

use crate::rig::{Rig, of_kind, sites};

unsafe extern "C" {
    /// Changes every register that a function may change, mxcsr's rounding, x87 and the flags; returns its first four
    /// arguments' sum, or 0 if the stack is not aligned or the direction flag is set.
    fn ravage(a: u64, b: u64, c: u64, d: u64) -> u64;
    /// Leaves its caller for good, to where a patch that returned would go.
    fn escape();
}

global_asm!(
    ".globl ravage",
    "ravage:",
    "lea rax, [rsp + 8]",
    "test al, 15",
    "jne 1f",
    "pushfq",
    "pop rax",
    "test eax, 0x400",
    "jne 1f",
    "lea rax, [rdi + rsi]",
    "add rax, rdx",
    "add rax, rcx",
    "mov rcx, -1",
    "mov rdx, -2",
    "mov rsi, -3",
    "mov rdi, -4",
    "mov r8, -5",
    "mov r9, -6",
    "mov r10, -7",
    "mov r11, -8",
    "vpcmpeqd ymm0, ymm0, ymm0",
    "vmovdqa ymm1, ymm0",
    "vmovdqa ymm7, ymm0",
    "vmovdqa ymm15, ymm0",
    "fldpi",
    "fldz",
    "fstp st(0)",
    "fstp st(0)",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "add rsp, 8",
    "stc",
    "ret",
    "1:",
    "xor eax, eax",
    "ret",
    ".globl escape",
    "escape:",
    "jmp landing_return",
);

/// Changes zmm16-31, opmasks and upper halves, where the processor has them.
#[target_feature(enable = "avx512f")]
unsafe fn ravage_avx512() {
    // SAFETY: the feature is there; everything changed is the function's to change.
    unsafe {
        std::arch::asm!(
            "vpternlogd zmm0, zmm0, zmm0, 255",
            "vpternlogd zmm9, zmm9, zmm9, 255",
            "vpternlogd zmm16, zmm16, zmm16, 255",
            "vpternlogd zmm31, zmm31, zmm31, 255",
            "kxnorw k1, k1, k1",
            "kxnorw k7, k7, k7",
            out("zmm0") _, out("zmm9") _, out("zmm16") _, out("zmm31") _, out("k1") _, out("k7") _,
        );
    }
}

extern "C" fn ravage_all(a: u64, b: u64, c: u64, d: u64) -> u64 {
    if std::is_x86_feature_detected!("avx512f") {
        // SAFETY: just asked.
        unsafe { ravage_avx512() };
    }
    // SAFETY: it changes what a function may change.
    unsafe { ravage(a, b, c, d) }
}

const CALL: &str = ".extern ravage(u64, u64, u64, u64) -> u64\n\
    mov %r1, 1\nmov %r2, 20\nmov %r3, 300\nmov %r4, 4000\ncall extern ravage\n\
    lddw %r1, arena\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit";

#[test]
fn everything_survives_a_call() {
    for target in [ravage as *const () as u64, ravage_all as *const () as u64] {
        for site in sites() {
            let mut rig = Rig::new();
            rig.bindings.externs = vec![target];
            rig.run(&of_kind(&site, CALL), &site);
            assert_eq!(rig.word(0), 4321);
            assert_eq!(rig.private_word(private::MISSED), 0);
            // The guard was given back.
            assert!(rig.private.bytes()[64..].iter().all(|byte| *byte == 0));
        }
    }
}

/// BPF registers and ctx survive too; the result is extended as declared.
#[test]
fn results_are_extended() {
    extern "C" fn answer(value: u64) -> u64 {
        value
    }
    let cases = [
        ("s32", 0xffff_ffff_u64, u64::MAX),
        ("u32", 0xdead_0000_0001, 1),
        ("u8", 0x1ff, 0xff),
        ("s8", 0x80, (-128_i64).cast_unsigned()),
        ("s16", 0x18000, (-32768_i64).cast_unsigned()),
        ("u64", u64::MAX, u64::MAX),
    ];
    for (ret, value, wanted) in cases {
        for site in sites() {
            let mut rig = Rig::new();
            rig.bindings.externs = vec![answer as *const () as u64];
            rig.set = vec![(7, value)];
            let body = format!(
                ".extern answer(u64) -> {ret}\nmov %r6, %r1\nmov %r7, 7\nldxdw %r1, [%r6+112]\ncall extern answer\n\
                 lddw %r1, arena\nstxdw [%r1+0], %r0\nldxdw %r2, [%r6+112]\nstxdw [%r1+8], %r2\nstxdw [%r1+16], %r7\n\
                 mov %r0, 0\nexit"
            );
            rig.run(&of_kind(&site, &body), &site);
            assert_eq!(
                (rig.word(0), rig.word(8), rig.word(16)),
                (wanted, value, 7),
                "{ret}"
            );
        }
    }
}

#[test]
fn refuses_after_a_call() {
    for site in sites().into_iter().filter(|site| site.at_entry) {
        let mut rig = Rig::new();
        rig.bindings.externs = vec![ravage as *const () as u64];
        let body = ".extern ravage(u64, u64, u64, u64) -> u64\nmov %r6, %r1\n\
            mov %r1, 1\nmov %r2, 1\nmov %r3, 1\nmov %r4, 1\ncall extern ravage\nstxdw [%r6+80], %r0\nmov %r0, 1\nexit";
        let ran = rig.run(&of_kind(&site, body), &site);
        assert_eq!((ran.left, ran.after.gpr[0]), (Left::Return, 4));
    }
}

#[test]
fn errno_is_set() {
    for site in sites() {
        let mut rig = Rig::new();
        rig.bindings.externs = vec![libc::__errno_location as *const () as u64];
        // SAFETY: the address of this thread's errno.
        unsafe { *libc::__errno_location() = 1 };
        let body = "mov %r1, 22\ncall upatch_set_errno\nlddw %r1, arena\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit";
        rig.run(&of_kind(&site, body), &site);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(22));
        assert_eq!(rig.word(0), 0);
    }
}

/// The address of a copy of the patch that returns to its C caller where it would continue.
static NESTED: AtomicU64 = AtomicU64::new(0);
static DEPTH: AtomicU64 = AtomicU64::new(0);
static ONE: Mutex<()> = Mutex::new(());

extern "C" fn enters_again() -> u64 {
    if DEPTH.fetch_add(1, Ordering::SeqCst) > 10 {
        return 0;
    }
    let at = NESTED.load(Ordering::SeqCst);
    // SAFETY: `place_nested` put a function there.
    let nested: extern "C" fn() = unsafe { std::mem::transmute(at as *const ()) };
    nested();
    1
}

const REENTER: &str = ".extern again() -> u64\ncall extern again\n\
    lddw %r1, arena\nmov %r2, 1\nlock add [%r1+0], %r2\nmov %r0, 0\nexit";

#[test]
fn a_nested_entry_continues_unpatched() {
    let _one = ONE.lock();
    for site in sites() {
        let mut rig = Rig::new();
        rig.bindings.externs = vec![enters_again as *const () as u64];
        let patch = rig.compile(&of_kind(&site, REENTER), &site);
        // Continues at a `ret` behind it.
        let mut bytes = patch.bytes.clone();
        let mut fixups = patch.fixups.clone();
        for fixup in patch
            .fixups
            .iter()
            .filter(|fixup| fixup.kind == FixupKind::Continue)
        {
            let distance = i32::try_from(bytes.len() - (fixup.at + 4)).unwrap();
            bytes[fixup.at..fixup.at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        fixups.retain(|fixup| fixup.kind != FixupKind::Continue);
        bytes.push(0xc3);
        let nested = Native::place(&bytes, &fixups, &rig.bindings).unwrap();
        NESTED.store(nested.address(16), Ordering::SeqCst);
        DEPTH.store(0, Ordering::SeqCst);
        let native = Native::place(&patch.bytes, &patch.fixups, &rig.bindings).unwrap();
        for round in 1..=3 {
            rig.run_native(&native, &patch, &site);
            // The outer entry counted, the inner one was missed.
            assert_eq!(rig.word(0), round);
            assert_eq!(rig.private_word(private::MISSED), round);
        }
        assert_eq!(DEPTH.load(Ordering::SeqCst), 3);
    }
}

/// A called function that never comes back leaves its guard; the next entry sees that the frame is gone.
#[test]
fn a_guard_left_behind_is_taken_over() {
    for site in sites().into_iter().filter(|site| site.at_entry) {
        let mut rig = Rig::new();
        rig.bindings.externs = vec![escape as *const () as u64];
        let patch = rig.compile(&of_kind(&site, REENTER), &site);
        let native = Native::place(&patch.bytes, &patch.fixups, &rig.bindings).unwrap();
        for _ in 0..3 {
            let mut cpu = upatch_tests::native::Cpu::filled(1);
            // SAFETY: `escape` leads to where the rig expects a patch that returned.
            let left = unsafe { native.run(16, &mut cpu, &mut rig.stack, false) };
            assert_eq!(left, Left::Return);
            assert_eq!(rig.private_word(private::MISSED), 0);
            assert!(rig.private.bytes()[64..].iter().any(|byte| *byte != 0));
        }
        // And one that comes back releases it.
        rig.bindings.externs = vec![ravage as *const () as u64];
        let native = Native::place(&patch.bytes, &patch.fixups, &rig.bindings).unwrap();
        rig.run_native(&native, &patch, &site);
        assert!(rig.private.bytes()[64..].iter().all(|byte| *byte == 0));
        assert_eq!(rig.word(0), 1);
    }
}
