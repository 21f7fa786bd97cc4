//! The instruction set from all sides: assembler, encoder, decoder, disassembler and LLVM's own objdump agree.

mod every;

use std::process::Command;

use upatch_verifier::decode::{DecodeError, Field, decode};
use upatch_verifier::encode::{EncodeError, Reference, Resolved, encode, encode_plain};
use upatch_verifier::insn::{Callee, Imm64, Insn, Pc, Reg, Size, Width};
use upatch_verifier::program::{ProgramKind, find_subprogs};
use upatch_verifier::{Program, assemble};

fn insns(text: &str) -> Vec<Insn> {
    match assemble(text) {
        Ok(program) => program.insns().to_vec(),
        Err(error) => panic!("{error}\n{text}"),
    }
}

#[test]
fn encoding_and_decoding_are_inverse() {
    let insns = insns(&every::instruction());
    let bytes = encode_plain(&insns).unwrap();
    assert_eq!(bytes.len(), insns.len() * 8);
    assert_eq!(decode(&bytes).unwrap(), insns);
    assert_eq!(encode_plain(&decode(&bytes).unwrap()).unwrap(), bytes);
    println!("{} slots", insns.len());
}

/// Bytes that decode at all decode to something that encodes to the same bytes (gotol aside).
#[test]
fn what_decodes_is_canonical() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut decoded = 0;
    for _ in 0..400_000 {
        let random = next();
        let mut bytes = random.to_le_bytes();
        // Mostly sensible fields, or almost nothing would decode.
        bytes[1] = ((bytes[1] & 0x0f) % 12) | (((bytes[1] >> 4) % 12) << 4);
        let extra = next();
        if extra & 1 == 0 {
            bytes[1] &= 0x0f;
        }
        if extra & 2 == 0 {
            bytes[2..4].copy_from_slice(&[(extra >> 8) as u8 & 33, 0]);
        }
        match extra >> 16 & 3 {
            0 => bytes[4..].fill(0),
            1 => bytes[4..].copy_from_slice(&((extra >> 24) as u32 & 0x1f1).to_le_bytes()),
            _ => {}
        }
        if let Ok(insns) = decode(&bytes) {
            decoded += 1;
            assert!(insns.iter().all(Insn::is_encodable), "{insns:?}");
            let again = encode_plain(&insns).unwrap();
            assert_eq!(decode(&again).as_ref(), Ok(&insns));
            if bytes[0] != 0x06 {
                assert_eq!(again, bytes, "{insns:?}");
            }
        }
    }
    println!("{decoded} random slots decoded");
    assert!(decoded > 10_000);
}

/// Slots as numbers, first byte lowest, as bpf_conformance writes them.
fn raw(slots: &[u64]) -> Vec<u8> {
    slots.iter().flat_map(|slot| slot.to_le_bytes()).collect()
}

#[test]
fn refusals_name_slot_field_and_value() {
    use DecodeError as E;
    let at = Pc(1);
    let reserved = |opcode, field, value| E::Reserved {
        at,
        opcode,
        field,
        value,
    };
    let variant = |opcode, field, value| E::UnknownVariant {
        at,
        opcode,
        field,
        value,
    };
    let cases: &[(u64, DecodeError)] = &[
        (0x0000_0000_0001_0007, reserved(0x07, Field::Offset, 1)),
        (0x0000_0000_0000_2007, reserved(0x07, Field::Src, 2)),
        (0x0000_0001_0000_000f, reserved(0x0f, Field::Imm, 1)),
        (0x0000_0000_0002_003f, variant(0x3f, Field::Offset, 2)),
        (0x0000_0000_0008_00b7, reserved(0xb7, Field::Offset, 8)),
        (0x0000_0000_0020_00bc, variant(0xbc, Field::Offset, 32)),
        (0x0000_0002_0001_00bf, variant(0xbf, Field::Imm, 2)),
        (0x0000_0005_0008_00bf, reserved(0xbf, Field::Imm, 5)),
        (0x0000_0000_0000_1087, reserved(0x87, Field::Src, 1)),
        (0x0000_0018_0000_00d4, variant(0xd4, Field::Imm, 24)),
        (0x0000_0010_0000_00df, E::UnknownOpcode { at, opcode: 0xdf }),
        (0x0000_0000_0000_0099, E::UnknownOpcode { at, opcode: 0x99 }),
        (0x0000_0000_0000_00d3, E::UnknownOpcode { at, opcode: 0xd3 }),
        (0x0000_0002_0000_00db, variant(0xdb, Field::Imm, 2)),
        (0x0000_0001_0000_0071, reserved(0x71, Field::Imm, 1)),
        (0x0000_0000_0000_3062, reserved(0x62, Field::Src, 3)),
        (0x0000_0001_0000_0095, reserved(0x95, Field::Imm, 1)),
        (0x0000_0001_0000_0005, reserved(0x05, Field::Imm, 1)),
        (0x0000_0000_0001_0006, reserved(0x06, Field::Offset, 1)),
        (0x0000_0000_0000_10e5, reserved(0xe5, Field::Src, 1)),
        (0x0000_0005_0000_1015, reserved(0x15, Field::Src, 1)),
        (0x0000_0005_0000_3085, variant(0x85, Field::Src, 3)),
        (0x0000_0005_0001_0085, reserved(0x85, Field::Offset, 1)),
        (0x0000_0000_0000_00bf | 0xb0 << 8, {
            E::BadRegister {
                at,
                field: Field::Src,
                number: 11,
            }
        }),
        (0x0000_0000_0005_0005, E::BadTarget { at, target: 7 }),
        (0x0000_0000_fffd_0015, E::BadTarget { at, target: -1 }),
        (0x0000_0000_0000_0030, E::LegacyPacket { at }),
        (0x0000_0000_0000_0050, E::LegacyPacket { at }),
        (0x0000_0000_0000_008d, E::IndirectCall { at }),
        (0x0000_000c_0000_0085, E::TailCall { at }),
        (0x0000_0000_0000_1118, E::KernelReference { at, src: 1 }),
        (0x0000_0000_0000_7118, variant(0x18, Field::Src, 7)),
        (0x0000_0000_0000_00f5, E::UnknownOpcode { at, opcode: 0xf5 }),
        (0x0000_0000_0000_00e6, E::UnknownOpcode { at, opcode: 0xe6 }),
        (0x0000_0000_0000_0096, E::UnknownOpcode { at, opcode: 0x96 }),
    ];
    for (slot, expected) in cases {
        let bytes = raw(&[0xb7, *slot, 0]);
        assert_eq!(decode(&bytes).as_ref(), Err(expected), "{slot:#018x}");
    }
    let torn = decode(&raw(&[0x18]));
    assert_eq!(torn, Err(E::TornImm64 { at: Pc(0) }));
    assert_eq!(decode(&[0; 9]), Err(E::TornSlot { bytes: 9 }));
    assert_eq!(decode(&[]), Ok(Vec::new()));
    let second = decode(&raw(&[0x18, 0x0001_0000]));
    let reserved = E::Reserved {
        at: Pc(1),
        opcode: 0,
        field: Field::Offset,
        value: 1,
    };
    assert_eq!(second, Err(reserved));
    println!("{} refused slots", cases.len() + 3);
}

#[test]
fn a_wide_jump_and_an_unresolved_reference() {
    let mut insns = vec![Insn::Exit; 40_002];
    insns[0] = Insn::Jump { target: Pc(40_001) };
    let bytes = encode_plain(&insns).unwrap();
    assert_eq!(bytes[0], 0x06, "gotol");
    assert_eq!(decode(&bytes).unwrap(), insns);
    insns[0] = Insn::MayGoto { target: Pc(40_001) };
    let far = EncodeError::TooFar {
        at: Pc(0),
        target: Pc(40_001),
    };
    assert_eq!(encode_plain(&insns), Err(far));

    let program = assemble(
        ".arena 64\n.data s \"hi\\0\"\nlddw %r1, arena+8\nlddw %r2, s+1\nmov %r0, 0\nexit",
    )
    .unwrap();
    let unresolved = encode_plain(program.insns());
    assert_eq!(unresolved, Err(EncodeError::Unresolved { at: Pc(0) }));
    let bytes = encode(program.insns(), |reference| match reference {
        Reference::Arena { offset } => Some(Resolved::number(0x1_0000_0000 + offset)),
        Reference::Data { object, offset } => Some(Resolved {
            src: 2,
            low: 7 + object,
            high: offset,
        }),
    })
    .unwrap();
    assert_eq!(
        bytes[..32],
        raw(&[
            0x0000_0008_0000_0118,
            0x0000_0001_0000_0000,
            0x0000_0007_0000_2218,
            0x0000_0001_0000_0000
        ])
    );
}

#[test]
fn functions_are_found_from_calls() {
    let program = insns("call local f\nlddw %r2, func g\nexit\nf: exit\ng: exit");
    let starts: Vec<(u32, u32)> = find_subprogs(&program)
        .unwrap()
        .iter()
        .map(|subprog| (subprog.start.0, subprog.end.0))
        .collect();
    assert_eq!(starts, [(0, 4), (4, 5), (5, 6)]);
    let kind = ProgramKind::Memory { mem_len: 0 };
    assert!(Program::from_raw(kind, program).is_ok());
    let outside = vec![
        Insn::Call {
            callee: Callee::Subprog(Pc(9)),
        },
        Insn::Exit,
    ];
    assert!(Program::from_raw(kind, outside).is_err());
    // The type allows it, the instruction set does not.
    let odd = vec![
        Insn::MovSx {
            width: Width::W32,
            from: Size::W,
            dst: Reg::R0,
            src: Reg::R1,
        },
        Insn::Exit,
    ];
    assert!(Program::from_raw(kind, odd).is_err());
}

/// Our disassembly is llvm-objdump's, for the bytes that our encoder makes of every instruction.
#[test]
fn disassembly_is_that_of_llvm() {
    const CLANG: &str = "clang-19";
    const OBJDUMP: &str = "llvm-objdump-19";
    for tool in [CLANG, OBJDUMP] {
        if Command::new(tool).arg("--version").output().is_err() {
            println!("SKIP disassembly_is_that_of_llvm: no {tool}");
            return;
        }
    }
    let insns = insns(&every::instruction());
    let bytes = encode_plain(&insns).unwrap();
    let dir = std::env::temp_dir().join(format!("upatch-isa-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (source, object) = (dir.join("all.s"), dir.join("all.o"));
    let text: String = bytes.iter().map(|byte| format!(".byte {byte}\n")).collect();
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new(CLANG)
        .args(["-target", "bpf", "-mcpu=v4", "-c", "-o"])
        .args([&object, &source])
        .status()
        .unwrap();
    assert!(compiled.success());
    let dump = Command::new(OBJDUMP)
        .args(["-d", "--no-show-raw-insn", "--mcpu=v4"])
        .arg(&object)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let dump = String::from_utf8(dump.stdout).unwrap();
    let mut compared = 0;
    let mut unknown = Vec::new();
    for line in dump.lines() {
        let Some((slot, theirs)) = line.split_once(':') else {
            continue;
        };
        let Ok(slot) = slot.trim().parse::<u32>() else {
            continue;
        };
        // Jumps are followed by a symbol of the target.
        let theirs = theirs.split(" <.").next().unwrap().trim();
        let insn = insns[slot as usize];
        let ours = insn.shown_at(Pc(slot)).to_string();
        // We name helpers and functions, as the kernel does.
        if matches!(insn, Insn::Call { .. })
            || matches!(
                insn,
                Insn::LdImm64 {
                    imm: Imm64::Subprog(_),
                    ..
                }
            )
        {
            assert!(ours.starts_with("call ") || ours.contains("func"), "{ours}");
            continue;
        }
        // LLVM 19 predates these two: it shows an unknown instruction, or a plain atomic addition.
        let newer = matches!(insn, Insn::LoadAcquire { .. } | Insn::StoreRelease { .. });
        if newer || theirs == "<unknown>" {
            unknown.push(ours);
            continue;
        }
        assert_eq!(ours, theirs, "slot {slot}");
        compared += 1;
    }
    println!("{compared} instructions agree, llvm 19 does not know {unknown:?}");
    assert!(unknown.len() == 8, "{unknown:?}");
    assert!(compared > 190, "{compared}");
}
