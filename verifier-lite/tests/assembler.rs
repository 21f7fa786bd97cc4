//! The text assembler: whole programs, mistakes, and that no text breaks it.

mod every;

use upatch_verifier::assemble;
use upatch_verifier::insn::{Imm64, Insn, Operand, Pc};
use upatch_verifier::program::ProgramKind;

fn insns(text: &str) -> Vec<Insn> {
    assemble(text)
        .expect("the text is a program")
        .insns()
        .to_vec()
}

#[test]
fn whole_programs_as_text() {
    let program = assemble(
        r#"
        .kind patch
        .name clamp
        .arena 4096
        .global hits 0 8 counter
        .global rules 64 16
        .data greeting "hello # ; \x41\n\0"
        .extern log_it(str, u32, ptr?, mem?[1], rdmem[4]) -> s32
        .extern stop() -> void
        .function twice global 1
        .line clamp.c:12:5 if (n > max) # not a comment
            ldxdw %r6, [%r1+112]    ; rdi
            lddw %r1, rules+8
            lddw %r2, greeting+6
        .line clamp.c:14 call(n);
            call extern stop
            call local twice
            mov %r0, 0
            exit
        twice:
            mov %r0, %r1
            add %r0, %r1
            exit
        "#,
    )
    .unwrap();
    assert_eq!(program.kind(), ProgramKind::PatchEntry);
    assert_eq!(program.name(), "clamp");
    assert_eq!(program.arena().globals.len(), 2);
    assert!(program.arena().globals[0].counter);
    assert_eq!(program.data()[0].bytes, b"hello # ; A\n\0");
    assert_eq!(program.externs()[0].params.len(), 5);
    assert_eq!(program.subprogs()[1].name, "twice");
    assert_eq!(program.subprogs()[1].args, Some(1));
    assert!(program.subprogs()[1].global);
    let Insn::LdImm64 { imm, .. } = program.insns()[1] else {
        panic!("{:?}", program.insns()[1]);
    };
    assert_eq!(imm, Imm64::Arena { offset: 72 });
    let line = program.line_of(Pc(3)).unwrap();
    assert_eq!((line.line, line.column), (12, 5));
    assert_eq!(line.text, "if (n > max) # not a comment");
    assert_eq!(program.line_of(Pc(6)).unwrap().line, 14);
    let listing = program.listing();
    assert!(listing.contains("r1 = rules + 0x8 ll"), "{listing}");
    assert!(listing.contains("call stop\n"), "{listing}");
    assert!(listing.contains("call twice\n"), "{listing}");
}

#[test]
fn the_first_exit_is_a_label() {
    let program = insns("jeq %r1, 0, exit\nmov %r0, 1\nexit\nmov %r0, 2\nexit");
    let Insn::JumpIf { target, src, .. } = program[0] else {
        panic!("{program:?}");
    };
    assert_eq!((target, src), (Pc(2), Operand::Imm(0)));
    let own = insns("ja exit\nexit\nexit: mov %r0, 2\nexit");
    assert_eq!(own[0], Insn::Jump { target: Pc(2) });
}

#[test]
fn mistakes_have_a_place_and_a_hint() {
    let cases = [
        ("mov %r0, 1\nmovv %r0, 2\nexit", 2, 1, "did you mean mov?"),
        ("exit\n  add %r11, 1", 2, 7, "registers are %r0 to %r10"),
        ("mov %r0 1", 1, 9, "expected a comma, found 1"),
        (
            "mov %r0, 0x1ffffffff\nexit",
            1,
            10,
            "out of range for a 32-bit immediate",
        ),
        (
            "ldxw %r0, [%r1+40000]\nexit",
            1,
            15,
            "out of range for a 16-bit offset",
        ),
        ("ldxw %r0, %r1", 1, 11, "an address like [%r1+8]"),
        ("ja nowhere\nexit", 1, 4, "unknown label nowhere"),
        ("a: exit\na: exit", 2, 1, "label a is defined twice"),
        ("ja 3\nexit", 1, 4, "expected a label, +N or -N, found 3"),
        ("ja +3\nexit", 1, 4, "slot 4, outside the program"),
        ("mov %r0, 0", 1, 1, "end every function with exit or ja"),
        (
            "lddw %r1, thing\nexit",
            1,
            11,
            "declare it with .data or .global",
        ),
        ("call extern thing\nexit", 1, 6, "declare it with .extern"),
        ("call thing\nexit", 1, 6, "call local NAME"),
        ("callx %r1", 1, 1, "call local NAME"),
        ("ldabsw 3", 1, 1, "socket filters"),
        (
            "lddw %r1, 0x12345678901234567\nexit",
            1,
            11,
            "at most 64 bits",
        ),
        (".data s \"abc", 1, 9, "the string has no end"),
        (".data s \"a\\q\"", 1, 9, "unknown escape \\q"),
        (".dta s", 1, 1, "unknown directive .dta"),
        (".kind thing", 1, 7, "patch, patch_offset, probe or memory"),
        ("mov %r0, 0 0", 1, 12, "the end of the line"),
        ("exit @", 1, 6, "unexpected character '@'"),
        ("lock inc [%r1], %r2", 1, 6, "found inc"),
        ("ja +1\nlddw %r1, 5\nexit", 1, 1, "inside an instruction"),
        (".line nonsense\nexit", 1, 1, "FILE:LINE"),
        ("", 1, 1, "no instructions"),
        (".arena 8\n.global a 4 8\nexit", 2, 9, "outside the arena"),
        (
            ".data a \"\"\n.data a \"\"\nexit",
            2,
            7,
            "a is declared twice",
        ),
        (".function f\nexit", 1, 11, "not the target of a call"),
    ];
    for (text, line, column, part) in cases {
        let error = assemble(text).expect_err(text);
        assert_eq!(
            (error.line, error.column),
            (line, column),
            "{error}\n{text}"
        );
        assert!(error.to_string().contains(part), "{error}\n{text}");
    }
    println!("{} mistakes", cases.len());
}

/// No text makes the assembler panic or loop: every instruction's text, cut and garbled everywhere.
#[test]
fn the_assembler_is_total() {
    let text = every::instruction()
        + ".extern a(mem?[1], str?) -> s32\n.data x \"\\x4\\\"\"\n.line a:1:2 b\n";
    let mut runs = 0;
    for line in text.lines() {
        let chars: Vec<char> = line.chars().collect();
        for at in 0..chars.len() {
            for garbage in [
                "",
                "\0",
                "é",
                "]",
                "-",
                "\"",
                "99999999999999999999",
                "%r",
                ":",
                "\\",
            ] {
                let mut garbled: String = chars[..at].iter().collect();
                garbled += garbage;
                garbled.extend(&chars[at + 1..]);
                let _ = assemble(&garbled);
                let _ = assemble(&chars[..at].iter().collect::<String>());
                runs += 2;
            }
        }
    }
    println!("{runs} garbled texts");
}

#[test]
fn case_files() {
    use upatch_verifier::asm::{Case, CaseError, Expected};

    let text = "# what it shows\n-- c\nignored\n-- asm\nmov %r0, 1 # one\nbad\n-- mem\n0x01 ff\n02\n-- result\n0xfff\n";
    let case = Case::parse(text).unwrap();
    assert_eq!(case.mem, [1, 0xff, 2]);
    assert_eq!(case.kind(), ProgramKind::Memory { mem_len: 3 });
    assert_eq!(case.expected, Expected::Result(0xfff));
    // Errors name the file's lines.
    let error = case.assemble().unwrap().unwrap_err();
    assert_eq!((error.line, error.column), (6, 1));

    let raw = Case::parse("-- raw\n0x00000007000000b7\n0x95 # exit\n-- result\n-1\n").unwrap();
    assert_eq!(raw.program().unwrap().insns().len(), 2);
    assert_eq!(raw.expected, Expected::Result(u64::MAX));
    let refused = Case::parse("-- raw\n0xf5\n-- error\nunknown opcode\n").unwrap();
    assert!(
        refused
            .program()
            .unwrap_err()
            .contains("unknown opcode 0xf5")
    );

    for (text, expected) in [
        ("", CaseError::NoProgram),
        ("-- asm\nexit\n", CaseError::NothingExpected),
        (
            "-- amsterdam\n",
            CaseError::UnknownSection {
                line: 1,
                name: "amsterdam".to_owned(),
            },
        ),
        (
            "-- mem\n00 1ff\n",
            CaseError::BadNumber {
                line: 2,
                text: "1ff".to_owned(),
            },
        ),
        (
            "-- result\n0x1ffffffffffffffff\n",
            CaseError::BadNumber {
                line: 2,
                text: "0x1ffffffffffffffff".to_owned(),
            },
        ),
    ] {
        assert_eq!(Case::parse(text), Err(expected), "{text}");
    }
}
