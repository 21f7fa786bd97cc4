//! Objects of real sources: every part of them is found, where it should be.

use serde_json::json;
use upatch::object::{PatchObject, Role, render};
use upatch_verifier::insn::{Callee, Imm64, Insn};
use upatch_verifier::program::{ExternParam, ExternRet};
use upatch_verifier::{Program, ProgramKind};

use crate::{build_case, case, cases, is_possible};

fn program<'r>(report: &'r upatch::build::BuildReport, name: &str) -> &'r Program {
    report
        .programs
        .iter()
        .find(|program| program.name() == name)
        .expect("the program is there")
}

/// The callees of a program's calls, in order.
fn callees(program: &Program) -> Vec<String> {
    program
        .insns()
        .iter()
        .filter_map(|insn| match insn {
            Insn::Call {
                callee: Callee::Helper(id),
            } => Some(format!("#{id}")),
            Insn::Call {
                callee: Callee::Extern(index),
            } => Some(program.externs()[*index as usize].name.clone()),
            Insn::Call {
                callee: Callee::Subprog(pc),
            } => Some(
                program.subprogs()[program.subprog_of(*pc).expect("a callee is a function")]
                    .name
                    .clone(),
            ),
            _ => None,
        })
        .collect()
}

#[test]
fn every_case_builds() {
    for source in cases("accept").into_iter().chain(cases("libbpf")) {
        if is_possible("objects::every_case_builds", &source) {
            let built = build_case(&source, &["-Wall", "-Werror"]);
            let (report, _) = built.unwrap_or_else(|error| panic!("{}: {error}", source.display()));
            assert!(!report.programs.is_empty());
        }
    }
}

#[test]
fn every_case_verifies() {
    for source in cases("accept").into_iter().chain(cases("libbpf")) {
        if !is_possible("objects::every_case_verifies", &source) {
            continue;
        }
        let (report, _) = build_case(&source, &[]).unwrap();
        for program in report.programs {
            let name = program.name().to_owned();
            let verified = upatch_verifier::verify(program, &upatch_verifier::Policy::default());
            if let Err(rejection) = verified {
                panic!("{}, {name}: {rejection}", source.display());
            }
        }
    }
}

#[test]
fn programs_targets_and_identity() {
    let (report, bytes) = build_case(&case("accept/everything.c"), &[]).unwrap();
    let object = &report.object;
    let found: Vec<_> = object
        .programs()
        .iter()
        .map(|program| {
            (
                &*program.name,
                program.kind,
                program.target.as_ref().unwrap().to_string(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                "entry",
                ProgramKind::PatchEntry,
                "libexample.so.1:entry".to_owned()
            ),
            (
                "inside",
                ProgramKind::PatchOffset,
                "libexample.so.1:entry+0x1c".to_owned()
            ),
            ("watch", ProgramKind::Probe, "exe:watched+0x8".to_owned()),
        ]
    );
    assert_eq!(
        object.build_ids(),
        [
            "6b1d7dd26e5ed2a2",
            "729230f14537e8751a677c2721c1d16dedd92441"
        ]
    );
    assert_eq!(object.license(), Some("Dual MIT/GPL"));
    assert_eq!(object.id().len(), 8);
    // The same source gives the same object.
    let (again, same) = build_case(&case("accept/everything.c"), &[]).unwrap();
    assert_eq!(bytes, same);
    assert_eq!(object.id(), again.object.id());
    // One that is given bare has no target.
    let (bare, _) = build_case(&case("accept/bare.c"), &[]).unwrap();
    assert_eq!(
        (
            bare.object.programs()[0].kind,
            &bare.object.programs()[0].target
        ),
        (ProgramKind::PatchEntry, &None)
    );
}

#[test]
fn arena_variables() {
    let (report, _) = build_case(&case("accept/everything.c"), &[]).unwrap();
    let arena = report.object.arena();
    let mut names: Vec<_> = arena
        .globals
        .iter()
        .map(|global| (&*global.name, global.size, global.role))
        .collect();
    names.sort_unstable_by_key(|global| global.0);
    assert_eq!(
        names,
        [
            ("calls", 8, Role::Plain),
            ("hits", 32, Role::Counter),
            ("rules", 40, Role::Rule),
            ("scratch", 8, Role::Plain),
            ("seen", 4, Role::Plain),
            ("small", 4, Role::Counter),
        ]
    );
    for pair in arena.globals.windows(2) {
        assert!(pair[0].offset + pair[0].size <= pair[1].offset);
    }
    let last = arena.globals.last().unwrap();
    assert_eq!(arena.len, last.offset + last.size);
    // The plain globals stand behind all arena variables.
    let first_plain = arena
        .globals
        .iter()
        .position(|global| global.name == "calls" || global.name == "seen")
        .unwrap();
    assert_eq!(first_plain, 4);

    let mut memory = vec![0; arena.len as usize];
    for segment in &arena.initial {
        memory[segment.offset as usize..][..segment.bytes.len()].copy_from_slice(&segment.bytes);
    }
    let show = |name: &str| {
        let global = arena
            .globals
            .iter()
            .find(|global| global.name == name)
            .unwrap();
        assert_eq!(arena.types.size_of(global.ty), Some(global.size), "{name}");
        render(
            &arena.types,
            global.ty,
            &memory[global.offset as usize..][..global.size as usize],
        )
    };
    assert_eq!(show("hits"), json!([0, 0, 0, 0]));
    assert_eq!(show("calls"), json!(41));
    assert_eq!(
        show("rules"),
        json!({"level": -3, "low": 5, "high": 17, "number": 4096, "address": "0x1000", "name": "hello",
               "mode": "MODE_REFUSE", "on": true})
    );
    // A record in the target holds the same after a round trip.
    let text = serde_json::to_string(&(&arena.globals, &arena.types)).unwrap();
    let (globals, types): (Vec<upatch::object::GlobalInfo>, upatch::object::TypeTable) =
        serde_json::from_str(&text).unwrap();
    assert_eq!((&globals, &types), (&arena.globals, &arena.types));

    let (map, _) = build_case(&case("accept/arena_map.c"), &[]).unwrap();
    assert_eq!(map.object.arena().len, 100 * 4096);
    assert_eq!(map.programs[0].arena().len, 100 * 4096);
}

#[test]
fn external_functions() {
    let (report, _) = build_case(&case("accept/everything.c"), &[]).unwrap();
    let signed = |bytes| ExternRet::Scalar {
        bytes,
        signed: true,
    };
    let unsigned = |bytes| ExternRet::Scalar {
        bytes,
        signed: false,
    };
    let int = |bytes| ExternParam::Scalar { bytes };
    let memory = |size, nullable, readonly| ExternParam::SizedMemory {
        size,
        nullable,
        readonly,
    };
    let app = |nullable| ExternParam::AppPointer { nullable };
    for (name, params, ret) in [
        ("answer", vec![], signed(4)),
        (
            "say",
            vec![app(false), ExternParam::ConstString { nullable: false }],
            ExternRet::Void,
        ),
        (
            "put",
            vec![int(4), memory(2, false, true), int(8)],
            signed(8),
        ),
        (
            "get",
            vec![memory(1, true, false), int(4), int(4)],
            signed(8),
        ),
        ("ask", vec![app(true), int(2)], unsigned(1)),
        ("allocate", vec![int(8)], unsigned(8)),
    ] {
        let found = report
            .object
            .externs()
            .iter()
            .find(|found| found.name == name)
            .unwrap();
        assert_eq!((&found.params, found.ret), (&params, ret), "{name}");
    }
    // A program has those that it calls.
    assert_eq!(program(&report, "entry").externs().len(), 6);
    assert_eq!(program(&report, "inside").externs().len(), 0);
}

#[test]
fn calls_callbacks_and_data_are_linked() {
    let (report, _) = build_case(&case("accept/everything.c"), &[]).unwrap();
    let entry = program(&report, "entry");
    let mut functions: Vec<_> = entry
        .subprogs()
        .iter()
        .map(|subprog| (&*subprog.name, subprog.global, subprog.args))
        .collect();
    assert_eq!(functions[0], ("entry", true, Some(1)));
    functions.sort_unstable();
    assert_eq!(
        functions,
        [
            ("body", false, Some(2)),
            ("entry", true, Some(1)),
            ("twice", false, Some(1)),
            ("visible", true, Some(2)),
        ]
    );
    // Calls in the order of the source, then those of the subprograms; `twice` is called inside one section.
    let calls = callees(entry);
    let own = [
        "#181", "#114", "say", "answer", "put", "get", "ask", "#182", "allocate", "visible",
    ];
    assert_eq!(calls[..own.len()], own);
    assert_eq!(calls[own.len()..], ["twice", "twice"]);
    assert_eq!(callees(program(&report, "inside")), ["visible", "twice"]);
    assert_eq!(callees(program(&report, "watch")), ["twice"]);

    let mut texts = Vec::new();
    let mut arena = Vec::new();
    let mut callbacks = Vec::new();
    for insn in entry.insns() {
        match insn {
            Insn::LdImm64 {
                imm: Imm64::Data { object, offset },
                ..
            } => {
                texts.push(entry.data()[*object as usize].bytes[*offset as usize..].to_vec());
            }
            Insn::LdImm64 {
                imm: Imm64::Arena { offset },
                ..
            } => arena.push(
                &*entry
                    .arena()
                    .globals
                    .iter()
                    .find(|global| global.offset == *offset)
                    .unwrap()
                    .name,
            ),
            Insn::LdImm64 {
                imm: Imm64::Subprog(pc),
                ..
            } => {
                callbacks.push(&*entry.subprogs()[entry.subprog_of(*pc).unwrap()].name);
            }
            _ => {}
        }
    }
    assert_eq!(callbacks, ["body"]);
    arena.sort_unstable();
    arena.dedup();
    assert_eq!(
        arena,
        ["calls", "hits", "rules", "scratch", "seen", "small"]
    );
    for wanted in [
        &b"refused\0"[..],
        b"refused?\0",
        &60_i32.to_le_bytes(),
        &[1, 0, 2, 0, 3, 0, 5, 0],
    ] {
        assert!(
            texts.iter().any(|text| text.starts_with(wanted)),
            "{wanted:?} in {texts:?}"
        );
    }
    assert!(
        entry
            .arena()
            .globals
            .iter()
            .find(|global| global.name == "hits")
            .unwrap()
            .counter
    );
}

#[test]
fn source_lines() {
    let (report, _) = build_case(&case("accept/everything.c"), &[]).unwrap();
    let source = std::fs::read_to_string(case("accept/everything.c")).unwrap();
    let mut checked = 0;
    for program in &report.programs {
        for pc in (0..program.insns().len() as u32).map(upatch_verifier::Pc) {
            let Some(line) = program.line_of(pc) else {
                continue;
            };
            assert!(
                line.file.ends_with("everything.c") || line.file.ends_with("upatch.h"),
                "{}",
                line.file
            );
            if line.file.ends_with("everything.c") && line.line != 0 {
                assert_eq!(
                    source.lines().nth(line.line as usize - 1).unwrap(),
                    line.text
                );
                checked += 1;
            }
        }
        // A call's line says whom it calls, also in subprograms.
        for (slot, insn) in program.insns().iter().enumerate() {
            if let Insn::Call {
                callee: Callee::Extern(index),
            } = insn
            {
                let line = program.line_of(upatch_verifier::Pc(slot as u32)).unwrap();
                assert!(
                    line.text.contains(&program.externs()[*index as usize].name),
                    "{line:?}"
                );
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn own_pt_regs_get_our_offsets() {
    let (report, _) = build_case(&case("accept/core_pt_regs.c"), &[]).unwrap();
    let offsets: Vec<i16> = report.programs[0]
        .insns()
        .iter()
        .filter_map(|insn| match insn {
            Insn::Load { off, .. } | Insn::Store { off, .. } => Some(*off),
            _ => None,
        })
        .collect();
    assert_eq!(offsets, [112, 80]);
}

#[test]
fn an_object_is_the_same_without_debug_sections() {
    // What llvm-strip -g leaves is all that is needed.
    let (report, bytes) =
        build_case(&case("accept/everything.c"), &upatch_tests::c::STRIPPABLE).unwrap();
    let stripped = upatch_tests::c::stripped(&bytes);
    let object = PatchObject::parse(&stripped).unwrap();
    assert_eq!(object.programs(), report.object.programs());
    assert_eq!(object.arena(), report.object.arena());
    for (program, linked) in object.programs().iter().zip(&report.programs) {
        assert_eq!(&upatch::object::link(&object, program).unwrap(), linked);
    }
}

#[test]
fn events_are_typed() {
    let (report, _) = build_case(&case("accept/events.c"), &[]).unwrap();
    let arena = report.object.arena();
    let ring = arena.events.as_ref().expect("there is a ring");
    let variable = arena
        .globals
        .iter()
        .find(|global| global.role == Role::Events)
        .expect("it is a variable");
    assert_eq!(
        (ring.slots, ring.slot_bytes, ring.slots_at - ring.offset),
        (512, 128, 64)
    );
    assert_eq!(
        (ring.offset % 64, ring.end()),
        (0, Some(variable.offset + variable.size))
    );
    let mut names: Vec<_> = ring.types.iter().map(|ty| &*ty.name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["enum why", "long", "struct refusal", "struct upatch_printk"]
    );
    let refusal = ring.types.iter().find(|ty| ty.name == "struct refusal");
    let mut bytes = b"root\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([0x10, 0x27, 0, 0, 2, 0, 0, 0]);
    assert_eq!(
        render(&arena.types, refusal.expect("it is there").ty, &bytes),
        json!({"user": "root", "length": 10_000, "why": "TOO_OFTEN"})
    );
    // Without events there is no ring, and nothing of it in the arena.
    let (report, _) = build_case(&case("accept/everything.c"), &[]).unwrap();
    assert_eq!(report.object.arena().events, None);
}
