//! What conformance cases cannot show: faults, helpers, callbacks, ctx, arena, budget.

use std::collections::BTreeMap;

use upatch_abi::ctx::CtxField;
use upatch_verifier::facts::RawProgram;
use upatch_verifier::insn::{Pc, Reg};
use upatch_verifier::{Program, ProgramKind, assemble, assemble_as};

use super::*;

fn run_program(program: Program, input: &Input, world: &mut World) -> Output {
    let raw = RawProgram::new(program).unwrap();
    Machine::raw(&raw).run(input, world)
}

fn run_with(text: &str, input: &Input, world: &mut World) -> Output {
    run_program(assemble(text).unwrap(), input, world)
}

fn r0(text: &str) -> Result<u64, Fault> {
    run_with(text, &Input::default(), &mut World::default()).r0
}

fn fault(text: &str) -> Fault {
    r0(text).unwrap_err()
}

#[test]
fn faults_have_a_place() {
    use MemoryFault as M;
    let outside = |at, addr, len| Fault::Memory {
        at: Pc(at),
        fault: M::OutOfBounds { addr, len },
    };
    assert_eq!(
        fault("mov %r0, 0\nldxdw %r0, [%r1+8]\nexit"),
        outside(1, 8, 8)
    );
    assert_eq!(
        fault("mov %r0, 0\nstxb [%r10+0], %r0\nexit"),
        outside(1, STACK_TOP, 1)
    );
    assert_eq!(
        fault("stw [%r10-516], 1\nexit"),
        outside(0, STACK_TOP - 516, 4)
    );
    assert_eq!(
        fault(".data s \"abc\"\nlddw %r1, s\nldxw %r0, [%r1]\nexit"),
        outside(2, DATA_BASE, 4)
    );
    assert_eq!(
        fault(".data s \"abc\"\nlddw %r1, s\nstb [%r1+2], 1\nexit"),
        Fault::Memory {
            at: Pc(2),
            fault: M::ReadOnly {
                addr: DATA_BASE + 2
            }
        }
    );
    assert_eq!(fault("f: call local f\nexit"), Fault::TooDeep { at: Pc(0) });
    assert_eq!(
        fault("ja -1"),
        Fault::StepLimit {
            at: Pc(0),
            limit: 10_000_000
        }
    );
    assert!(matches!(
        fault("call 99\nexit"),
        Fault::Helper { at: Pc(0), .. }
    ));
    assert!(matches!(
        fault("mov %r1, 3\nmov %r2, 5\nmov %r4, 0\ncall bpf_loop\nexit"),
        Fault::BadCallback {
            at: Pc(3),
            value: 5
        }
    ));
}

#[test]
fn eight_frames_and_callee_saved_registers() {
    let mut text = String::from("mov %r6, 100\nmov %r0, 0\ncall local f1\nadd %r0, %r6\nexit\n");
    for depth in 1..8 {
        text += &format!("f{depth}: mov %r6, {depth}\nstxdw [%r10-8], %r6\n");
        if depth < 7 {
            text += &format!("call local f{}\n", depth + 1);
        }
        text += "ldxdw %r1, [%r10-8]\nadd %r0, %r1\nadd %r0, %r6\nexit\n";
    }
    assert_eq!(r0(&text), Ok(100 + 2 * (1..8).sum::<u64>()));
}

#[test]
fn bpf_loop_counts_stops_and_refuses() {
    let sum = |count: u64, flags: u64, last: u64| {
        r0(&format!(
            "stdw [%r10-8], 0
             mov %r1, {count}
             lddw %r2, func add
             mov %r3, %r10
             add %r3, -8
             mov %r4, {flags}
             call bpf_loop
             ldxdw %r6, [%r10-8]
             lsh %r6, 32
             or %r0, %r6
             exit
             add: ldxdw %r3, [%r2+0]
             add %r3, %r1
             stxdw [%r2+0], %r3
             mov %r0, 0
             jne %r1, {last}, done
             mov %r0, 1
             done: exit"
        ))
        .unwrap()
    };
    assert_eq!(sum(10, 0, 100), 45 << 32 | 10);
    assert_eq!(sum(10, 0, 4), 10 << 32 | 5);
    assert_eq!(sum(0, 0, 0), 0);
    assert_eq!(sum(10, 1, 100), (-22_i64).cast_unsigned());
    assert_eq!(sum(0x80_0001, 0, 100), (-7_i64).cast_unsigned());
}

#[test]
fn may_goto_uses_up_one_budget() {
    let text = "mov %r0, 0\nagain: may_goto out\nadd %r0, 1\nja again\nout: exit";
    let output = run_with(
        text,
        &Input {
            step_limit: 1 << 30,
            ..Input::default()
        },
        &mut World::default(),
    );
    assert_eq!(output.r0, Ok(1 << 23));
    assert_eq!(output.steps, 3 * (1 << 23) + 3);
}

#[test]
fn helpers_answer_as_the_kernel_does() {
    let user = BTreeMap::from([(0x5000, b"hello\0world".to_vec())]);
    let world = || World {
        user: user.clone(),
        ..World::default()
    };
    let call = |text: &str| {
        let mut world = world();
        let output = run_with(text, &Input::default(), &mut world);
        (output.r0.unwrap(), world)
    };
    let efault = (-14_i64).cast_unsigned();
    let read = |addr: u64, size: u64, helper: &str| {
        call(&format!(
            "stdw [%r10-8], -1\nmov %r1, %r10\nadd %r1, -8\nmov %r2, {size}\nlddw %r3, {addr}\ncall {helper}\n\
             ldxdw %r6, [%r10-8]\nmov %r7, %r0\nlsh %r7, 48\nxor %r0, %r0\nmov %r0, %r6\nexit"
        ))
        .0
    };
    let status = |addr: u64, size: u64, helper: &str| {
        call(&format!(
            "mov %r1, %r10\nadd %r1, -8\nmov %r2, {size}\nlddw %r3, {addr}\ncall {helper}\nexit"
        ))
        .0
    };
    let bytes = |text: &[u8; 8]| u64::from_le_bytes(*text);
    assert_eq!(read(0x5000, 8, "bpf_probe_read_user"), bytes(b"hello\0wo"));
    assert_eq!(
        read(0x6000, 4, "bpf_probe_read_user"),
        bytes(b"\0\0\0\0\xff\xff\xff\xff")
    );
    assert_eq!(status(0x6000, 4, "bpf_probe_read_user"), efault);
    assert_eq!(status(0x5000, 0, "bpf_probe_read_user"), 0);
    assert_eq!(
        read(0x5000, 8, "bpf_probe_read_user_str"),
        bytes(b"hello\0\0\0")
    );
    assert_eq!(status(0x5000, 8, "bpf_probe_read_user_str"), 6);
    assert_eq!(
        read(0x5000, 4, "bpf_probe_read_user_str"),
        bytes(b"hel\0\xff\xff\xff\xff")
    );
    assert_eq!(status(0x5000, 4, "bpf_probe_read_user_str"), 4);
    assert_eq!(
        status(0x5006, 8, "bpf_probe_read_user_str"),
        efault,
        "no NUL before the end"
    );
    assert_eq!(status(0x5006, 5, "bpf_probe_read_user_str"), 5);

    let (r0, world) = call(
        "stw [%r10-4], 0x21212121\nmov %r1, 0x5005\nmov %r2, %r10\nadd %r2, -4\nmov %r3, 4\ncall bpf_probe_write_user\nexit",
    );
    assert_eq!((r0, &world.user[&0x5000][..]), (0, &b"hello!!!!ld"[..]));

    let compare = |left: &str, right: &str, len: u32| {
        let text = format!(
            ".data a \"{left}\\0\"\n.data b \"{right}\\0\"\nlddw %r1, a\nmov %r2, {len}\nlddw %r3, b\ncall bpf_strncmp\nexit"
        );
        self::r0(&text).unwrap().cast_signed()
    };
    assert_eq!(compare("abc", "abd", 3), -1);
    assert_eq!(compare("abc", "abd", 2), 0);
    assert_eq!(compare("b", "abd", 1), 1);
    assert_eq!(compare("ab", "ab", 3), 0);

    let (r0, world) = call("mov %r1, 42\ncall upatch_set_errno\nexit");
    assert_eq!((r0, world.errno), (0, Some(42)));
    let (comm, _) = call(
        "mov %r1, %r10\nadd %r1, -8\nmov %r2, 4\nstdw [%r10-8], -1\ncall bpf_get_current_comm\nldxdw %r0, [%r10-8]\nexit",
    );
    assert_eq!(comm, bytes(b"vic\0\xff\xff\xff\xff"));
    assert_eq!(call("call 14\nexit").0, 0x0000_1234_0000_5678);
    assert_eq!(call("call 8\nexit").0, 3);
    let (difference, _) = call("call 5\nmov %r6, %r0\ncall 5\nsub %r0, %r6\nexit");
    assert_eq!(difference, 1000);
}

#[test]
fn externs_are_extended_as_declared() {
    let call = |ret: &str| {
        let mut world = World::default();
        world
            .externs
            .insert("f".to_owned(), |args| args[0] ^ 0x1234_5678_0000_0000);
        run_with(
            &format!(
                ".extern f(u32) -> {ret}\nlddw %r1, 0xffffff81\nmov %r0, 7\ncall extern f\nexit"
            ),
            &Input::default(),
            &mut world,
        )
        .r0
    };
    assert_eq!(call("s32"), Ok(0xffff_ffff_ffff_ff81));
    assert_eq!(call("u32"), Ok(0xffff_ff81));
    assert_eq!(call("s8"), Ok(0xffff_ffff_ffff_ff81));
    assert_eq!(call("u8"), Ok(0x81));
    assert_eq!(call("u64"), Ok(0x1234_5678_ffff_ff81));
}

#[test]
fn memory_and_arena_come_back() {
    let text = ".kind memory 16\n.arena 5000\n.global hits 8 8\nlddw %r3, hits\nmov %r4, 5\nlock add [%r3], %r4\n\
                ldxdw %r0, [%r3]\nstxdw [%r1+8], %r2\nexit";
    let input = Input {
        memory: vec![1; 4],
        arena: vec![0, 0, 0, 0, 0, 0, 0, 0, 2],
        ..Input::default()
    };
    let output = run_with(text, &input, &mut World::default());
    assert_eq!(output.r0, Ok(7));
    assert_eq!(
        output.memory,
        [1, 1, 1, 1, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(output.arena.len(), 8192 + 4096);
    assert_eq!(output.arena[8], 7);
    assert_eq!(output.ctx, []);
}

#[test]
fn confinement_keeps_any_pointer_in_the_window() {
    let (base, window) = (0x4000_0000_0000_u64, 8192);
    for addr in [
        0,
        base,
        base + 8191,
        base + 8192,
        u64::MAX,
        base - 1,
        1 << 63,
    ] {
        let inside = confine(base, window, addr);
        assert!((base..base + window).contains(&inside), "{addr:#x}");
        assert_eq!(inside % window, addr % window);
    }
}

#[test]
fn every_step_is_shown() {
    let program = assemble("mov %r0, 1\nlddw %r3, 7\nadd %r0, %r3\nexit").unwrap();
    let raw = RawProgram::new(program).unwrap();
    let mut trace = Vec::new();
    let output = Machine::raw(&raw).run_observed(
        &Input::default(),
        &mut World::default(),
        &mut |pc, regs| trace.push((pc.0, regs[Reg::R0.index()], regs[Reg::R3.index()])),
    );
    assert_eq!(trace, [(0, 0, 0), (1, 1, 0), (3, 1, 7), (4, 8, 7)]);
    assert_eq!((output.r0, output.steps), (Ok(8), 4));
}

#[test]
fn registers_of_ctx_are_where_pt_regs_has_them() {
    let bytes = ctx_bytes(|field| u64::from(field.offset()) << 8);
    assert_eq!(bytes[usize::from(CtxField::Rdi.offset()) + 1], 112);
    assert_eq!(bytes.len(), 168);
    // A patch has no raw form.
    let patch = assemble_as("mov %r0, 0\nexit", ProgramKind::PatchEntry).unwrap();
    assert!(RawProgram::new(patch).is_none());
}
