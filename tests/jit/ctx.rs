//! ctx: every field read in every width, written fields that arrive, verdicts.

use upatch_abi::ctx::CtxField;
use upatch_jit::private;
use upatch_tests::native::Left;

use crate::rig::{Rig, SITE, of_kind, sites};

#[test]
fn every_field_is_read() {
    let widths = [("b", 1), ("h", 2), ("w", 4), ("dw", 8)];
    for site in sites() {
        for field in CtxField::ALL {
            let mut body = "mov %r6, %r1\nlddw %r7, arena\n".to_owned();
            for (index, (suffix, bytes)) in widths.iter().enumerate() {
                // The last part of this width.
                let offset = field.offset() + 8 - bytes;
                body += &format!(
                    "ldx{suffix} %r2, [%r6+{offset}]\nstxdw [%r7+{}], %r2\n",
                    8 * index
                );
            }
            body += "mov %r0, 0\nexit";
            let mut rig = Rig::new();
            let ran = rig.run(&of_kind(&site, &body), &site);
            let value = match field {
                CtxField::Rip => SITE,
                CtxField::Cs => 0x33,
                CtxField::Ss => 0x2b,
                CtxField::OrigRax => u64::MAX,
                CtxField::Rflags => ran.before.flags,
                _ => ran.before.gpr[usize::from(field.gpr().unwrap())],
            };
            for (index, (_, bytes)) in widths.iter().enumerate() {
                let part = value >> (64 - 8 * bytes);
                assert_eq!(
                    rig.word(8 * index),
                    part,
                    "{field:?}, {bytes} bytes, {site:x?}"
                );
            }
        }
    }
}

#[test]
fn writes_arrive() {
    for site in sites() {
        for field in CtxField::ALL {
            let writable = if site.at_entry {
                field.writable_at_entry()
            } else {
                field.writable_at_offset()
            };
            if !writable {
                continue;
            }
            let number = usize::from(field.gpr().unwrap());
            for (suffix, bytes) in [("b", 1), ("h", 2), ("w", 4), ("dw", 8)] {
                let offset = field.offset() + 8 - bytes;
                let body = format!(
                    "lddw %r2, 0x1122334455667788\nstx{suffix} [%r1+{offset}], %r2\nmov %r0, 0\nexit"
                );
                let mut rig = Rig::new();
                let ran = rig.run(&of_kind(&site, &body), &site);
                let shift = 64 - 8 * u32::from(bytes);
                let mask = u64::MAX.checked_shl(shift).unwrap();
                let old = ran.before.gpr[number];
                let wanted = old & !mask | 0x1122_3344_5566_7788 << shift & mask;
                assert_eq!(
                    ran.after.gpr[number], wanted,
                    "{field:?}, {bytes} bytes, {site:x?}"
                );
            }
        }
    }
}

/// A refused call has its result, and the caller's registers, even where the program wrote an argument first.
#[test]
fn a_refusal_returns() {
    for site in sites().into_iter().filter(|site| site.at_entry) {
        let mut rig = Rig::new();
        let body = "stdw [%r1+104], 77\nldxdw %r2, [%r1+112]\njeq %r2, 5, +4\n\
            stdw [%r1+80], -14\nstdw [%r1+96], 3\nmov %r0, 1\nexit\nmov %r0, 0\nexit";
        let ran = rig.run(&of_kind(&site, body), &site);
        assert_eq!(ran.left, Left::Return);
        assert_eq!(ran.after.gpr[0], (-14_i64).cast_unsigned());
        assert_eq!(ran.after.gpr[2], 3);
        rig.set = vec![(7, 5)];
        let ran = rig.run(&of_kind(&site, body), &site);
        assert_eq!(ran.left, Left::Continue);
        assert_eq!(ran.after.gpr[6], 77);
    }
}

/// While the gate is closed a patch changes nothing, whatever it does when it is open.
#[test]
fn a_closed_gate_changes_nothing() {
    let bodies = [
        "stdw [%r1+104], 77\nldxdw %r2, [%r1+144]\nldxdw %r3, [%r1+80]\nmov %r0, 0\nexit",
        "lddw %r1, arena+8\nmov %r2, 1\nlock add [%r1+0], %r2\nmov %r0, 0\nexit",
        "call 7\nlddw %r1, arena+8\nstxdw [%r1+0], %r0\nmov %r0, 0\nexit",
    ];
    for site in sites().into_iter().filter(|site| site.gated) {
        for body in bodies {
            let mut rig = Rig::new();
            rig.private.bytes_mut()[private::GATE as usize] = 0;
            let ran = rig.run(&of_kind(&site, body), &site);
            assert_eq!(ran.left, Left::Continue);
            let free: Vec<u8> = site.free.iter().map(upatch_jit::Gpr::number).collect();
            assert_eq!(
                ran.before.differences(&ran.after, &free),
                Vec::<String>::new(),
                "{body} {site:x?}"
            );
            assert_eq!(rig.word(8), 0);
            rig.private.bytes_mut()[private::GATE as usize] = 1;
            rig.run(&of_kind(&site, body), &site);
            assert!(body.starts_with("stdw") || rig.word(8) != 0);
        }
    }
}

/// The common patches cost what a hand-written hook costs.
#[test]
fn counting_saves_one_register() {
    let text = ".kind patch\n.arena 4096\nlddw %r1, arena+8\nmov %r2, 1\nlock add [%r1+0], %r2\nmov %r0, 0\nexit";
    let rig = Rig::new();
    let places = sites();
    // push rax; movabs rax, imm64; lock add qword [rax], 1; pop rax; jmp rel32
    assert_eq!(rig.compile(text, &places[0]).code_len, 1 + 10 + 5 + 1 + 5);
    assert_eq!(rig.compile(text, &places[1]).code_len, 10 + 5 + 5);
}
