//! Executes each accepted displacement case twice, as it is and through a trampoline with a counting hook, from random
//! register states, and compares all general-purpose registers, the status flags, the stack and the data page.
//!
//! The code runs at the addresses that the cases name, in pages mapped for it. `outside` (0x402000) is a function that
//! returns its return address and an argument's sum; the word at `data` (0x404000) points to it. Case keys: `norun`, and
//! `with REGISTER=NUMBER …` for registers that can't be arbitrary.

#![allow(
    clippy::unwrap_used,
    reason = "a test program: a panic is a failed test"
)]

mod support;

use std::arch::global_asm;
use support::{Case, assemble, cases, hex};
use upatch_trampolines::{
    Avma, AvmaRange, Bindings, CheckPolicy, Fixup, FixupKind, Fragment, FunctionText, SiteKind,
    TrampolineTemplate, check, displace,
};

const LEN: usize = 0x200000;
const DATA: u64 = 0x4000;
const OUTSIDE: u64 = 0x2000;
const COUNTER: u64 = 0x5000;
const STACK: u64 = 0x10000;
const STACK_LEN: u64 = 0x10000;
const DISTANCE: u64 = 0xff000;
const RUNS: u32 = 200;
const STATUS_FLAGS: u64 = 0x8d5;

/// Registers before and after a run, in the order of their numbers; then flags, where to begin, and the host's rsp.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Context {
    regs: [u64; 16],
    flags: u64,
    target: u64,
    host: u64,
}

// Enters guest code with every register set, and comes back through `upatch_test_capture`, the guest's return address.
global_asm!(
    ".local upatch_ctx",
    ".comm upatch_ctx, 8, 8",
    ".local upatch_rdi",
    ".comm upatch_rdi, 8, 8",
    ".local upatch_target",
    ".comm upatch_target, 8, 8",
    ".globl upatch_test_switch",
    "upatch_test_switch:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + upatch_ctx], rdi",
    "mov rax, [rdi + 136]",
    "mov [rip + upatch_target], rax",
    "mov [rdi + 144], rsp",
    "push qword ptr [rdi + 128]",
    "popfq",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rsp, [rdi + 32]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "jmp [rip + upatch_target]",
    ".globl upatch_test_capture",
    "upatch_test_capture:",
    "mov [rip + upatch_rdi], rdi",
    "mov rdi, [rip + upatch_ctx]",
    "mov [rdi], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 32], rsp",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    "mov rax, [rip + upatch_rdi]",
    "mov [rdi + 56], rax",
    "mov [rdi + 64], r8",
    "mov [rdi + 72], r9",
    "mov [rdi + 80], r10",
    "mov [rdi + 88], r11",
    "mov [rdi + 96], r12",
    "mov [rdi + 104], r13",
    "mov [rdi + 112], r14",
    "mov [rdi + 120], r15",
    "mov rsp, [rdi + 144]",
    "pushfq",
    "pop qword ptr [rdi + 128]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn upatch_test_switch(context: *mut Context);
    fn upatch_test_capture();
}

/// Pages for one case, at the address that it was assembled for.
struct Guest {
    base: u64,
}

impl Guest {
    fn new(base: u64) -> Self {
        // SAFETY: a fresh anonymous mapping that replaces nothing.
        let at = unsafe {
            libc::mmap(
                base as *mut _,
                LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        assert_eq!(at as u64, base, "the test's addresses are taken");
        Self { base }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        assert!(at >= self.base && at + bytes.len() as u64 <= self.base + LEN as u64);
        // SAFETY: inside our own mapping, which is writable while code is written.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        assert!(at >= self.base && at + len as u64 <= self.base + LEN as u64);
        // SAFETY: inside our own mapping, which is always readable.
        unsafe { std::slice::from_raw_parts(at as *const u8, len) }.to_vec()
    }

    /// Makes the pages of code executable and read-only, or writable again.
    fn executable(&self, executable: bool) {
        let access = if executable {
            libc::PROT_READ | libc::PROT_EXEC
        } else {
            libc::PROT_READ | libc::PROT_WRITE
        };
        for (offset, len) in [(0, DATA), (0x100000 - 0x1000, 0x10000)] {
            // SAFETY: whole pages of our own mapping.
            let result =
                unsafe { libc::mprotect((self.base + offset) as *mut _, len as usize, access) };
            assert_eq!(result, 0);
        }
    }

    /// Fills stack and data from `seed`, runs `target`, and returns what came of it.
    fn run(&self, case: &Case, target: u64, seed: u64) -> (Context, Vec<u8>, Vec<u8>) {
        let mut random = Random(seed);
        let outside = self.base + OUTSIDE;
        let data = self.base + DATA;
        for offset in (0..0x1000).step_by(8) {
            self.write(data + offset, &random.next().to_le_bytes());
        }
        self.write(data, &outside.to_le_bytes());
        let rsp = self.base + STACK + STACK_LEN - 0x1000 - 8;
        for offset in (0..0x100).step_by(8) {
            self.write(rsp - 0x80 + offset, &random.next().to_le_bytes());
        }
        self.write(
            rsp,
            &(upatch_test_capture as *const () as u64).to_le_bytes(),
        );
        self.write(rsp + 8, &outside.to_le_bytes());
        let mut context = Context {
            regs: [0; 16],
            flags: 0,
            target,
            host: 0,
        };
        for register in &mut context.regs {
            // Small numbers find more branches than large ones.
            *register = match random.next() % 4 {
                0 => random.next() % 3,
                1 => random.next() % 100,
                _ => random.next(),
            };
        }
        context.flags = (random.next() & STATUS_FLAGS) | 2;
        let pointer = data + 0x100 + random.next() % 256 * 8;
        context.regs[0] = outside;
        if case.asm.contains("[rdi")
            || case.key("bytes").is_some()
            || random.next().is_multiple_of(2)
        {
            context.regs[7] = pointer;
        }
        for pair in case.key("with").unwrap_or_default().split_whitespace() {
            let (register, value) = pair.split_once('=').unwrap();
            let number: usize = register.parse().unwrap();
            context.regs[number] = value.parse().unwrap();
        }
        context.regs[4] = rsp;
        // SAFETY: the guest code is the case's own; it returns to upatch_test_capture with our stack pointer restored
        // from the context, and touches only the guest's stack and data.
        unsafe { upatch_test_switch(&raw mut context) };
        context.host = 0;
        context.flags &= STATUS_FLAGS;
        (
            context,
            self.read(rsp - 0x80, 0x100),
            self.read(data, 0x1000),
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.base as *mut _, LEN) };
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Counts in the word at `COUNTER` and changes nothing else, not even flags or red zone.
fn hook() -> Fragment {
    let asm = "lea rsp, [rsp - 128]\npushfq\npush rax\nmovabs rax, 0x1122334455667788\ninc qword ptr [rax]\npop rax\npopfq\nlea rsp, [rsp + 128]\n.byte 0xe9\n.long 0";
    let bytes = assemble(asm, 0);
    let arena = bytes
        .windows(8)
        .position(|word| word == 0x1122_3344_5566_7788_u64.to_le_bytes())
        .unwrap();
    Fragment {
        code_len: bytes.len(),
        fixups: vec![
            Fixup {
                at: arena,
                kind: FixupKind::Arena(0),
            },
            Fixup {
                at: bytes.len() - 4,
                kind: FixupKind::Continue,
            },
        ],
        bytes,
        stack_bytes: 144,
        arena_len: 8,
        calls_application: false,
    }
}

fn number(text: &str) -> u64 {
    text.strip_prefix("0x").map_or_else(
        || text.parse().unwrap(),
        |digits| u64::from_str_radix(digits, 16).unwrap(),
    )
}

fn execute(case: &Case) -> u64 {
    let at = case.key("at").map_or(0x40_1000, number);
    let site = case
        .key("site")
        .map_or(0, |text| usize::try_from(number(text)).unwrap());
    let base = at & !0xfff_u64 & !0xf000;
    let guest = Guest::new(base);
    let bytes = case
        .key("bytes")
        .map_or_else(|| assemble(&case.asm, at), hex);
    let after = case.key("after").map_or(Vec::new(), hex);
    guest.write(base + 0x1000, &[0xc3; 0x1000]);
    guest.write(at, &bytes);
    guest.write(at + bytes.len() as u64, &after);
    // mov rax, [rsp]; add rax, rsi; ret
    guest.write(
        base + OUTSIDE,
        &[0x48, 0x8b, 0x04, 0x24, 0x48, 0x01, 0xf0, 0xc3],
    );

    let text = FunctionText::new(Avma(at), bytes, site).with_bytes_after(after);
    let displaced = displace(&text).unwrap();
    let counter = Avma(base + COUNTER);
    let bindings = Bindings {
        arena_base: counter,
        externs: Vec::new(),
        private_base: Avma(0),
        gate: None,
    };
    let template = TrampolineTemplate::new(hook(), displaced);
    let image = template
        .place(Avma((at & !0xfff) + DISTANCE), &bindings)
        .unwrap();
    // The hook respects the red zone, so it fits both kinds of site.
    assert!(matches!(
        image.displaced().kind(),
        SiteKind::Entry | SiteKind::Offset
    ));
    let policy = CheckPolicy {
        arena: AvmaRange::new(counter, 8),
        flags_free: false,
        ..CheckPolicy::strict(144)
    };
    let plan = check(&image, &policy).unwrap().poke_plan();
    guest.write(image.range().start.0, image.bytes());

    for run in 0..RUNS {
        let seed = 0x1234_5678_9abc_def1_u64.wrapping_mul(u64::from(run) * 2 + 1);
        guest.executable(true);
        let original = guest.run(case, at, seed);
        guest.executable(false);
        assert_eq!(guest.read(plan.at.0, 5), plan.old);
        guest.write(plan.at.0, &plan.new);
        guest.executable(true);
        let patched = guest.run(case, at, seed);
        guest.executable(false);
        let back = plan.inverse();
        guest.write(back.at.0, &back.new);
        assert_eq!(original.0, patched.0, "{}: registers, run {run}", case.name);
        assert!(original.1 == patched.1, "{}: stack, run {run}", case.name);
        assert!(original.2 == patched.2, "{}: data, run {run}", case.name);
    }
    u64::from_le_bytes(guest.read(counter.0, 8).try_into().unwrap())
}

#[test]
fn patched_code_does_what_the_original_does() {
    let mut ran = 0;
    for case in cases("displace.case") {
        if case.key("refuse").is_some() || case.key("norun").is_some() {
            continue;
        }
        let hits = execute(&case);
        assert!(
            hits >= u64::from(RUNS),
            "{}: the hook ran {hits} times",
            case.name
        );
        ran += 1;
    }
    println!("{ran} cases, {RUNS} register states each");
    assert!(ran >= 45, "only {ran} cases");
}
