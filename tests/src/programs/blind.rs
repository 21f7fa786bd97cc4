//! Programs without sense, and changes to programs that have some.

use upatch_verifier::insn::{
    AddrSpaceCast, AluOp, AtomicOp, Callee, CmpOp, Imm64, Insn, Operand, Pc, Reg, Size, Width,
};
use upatch_verifier::program::{Arena, DataObject, ProgramParts, Subprog};
use upatch_verifier::{Program, ProgramKind};

use super::{OBJECT, Random, SIZES};

/// Changes a few instructions without harming the program's structure.
pub(super) fn mutate(random: &mut Random, insns: &mut [Insn]) {
    for _ in 0..=random.below(3) {
        let at = usize::try_from(random.below(insns.len() as u64)).expect("an index fits");
        let register = random.pick(&Reg::ALL);
        let imm = random.imm();
        let size = random.pick(&SIZES);
        match &mut insns[at] {
            Insn::Alu {
                width, dst, src, ..
            } => match random.below(3) {
                0 => *src = Operand::Imm(imm),
                1 => *dst = register,
                _ => *width = random.pick(&[Width::W32, Width::W64]),
            },
            Insn::JumpIf { op, src, width, .. } => match random.below(3) {
                0 => *op = random.pick(&[CmpOp::Lt, CmpOp::SGt, CmpOp::Ne, CmpOp::Set, CmpOp::SLe]),
                1 => *src = Operand::Imm(imm),
                _ => *width = random.pick(&[Width::W32, Width::W64]),
            },
            Insn::Load {
                size: own,
                off,
                signed,
                ..
            } => {
                *own = size;
                *signed = *signed && size != Size::DW;
                *off = off.wrapping_add(imm as i8 as i16 / 8);
            }
            Insn::Store { size: own, off, .. } => {
                *own = size;
                *off = off.wrapping_add(imm as i8 as i16 / 8);
            }
            _ => {}
        }
    }
}

/// A program of instructions chosen blindly: most are refused at once, and none may disturb the verifier.
///
/// # Panics
/// Never: what the generator writes is a program.
#[must_use]
pub fn blind(seed: u64) -> Program {
    let mut random = Random::new(seed);
    // The first function begins by giving most registers a number.
    let given = [
        Reg::R0,
        Reg::R2,
        Reg::R3,
        Reg::R6,
        Reg::R7,
        Reg::R8,
        Reg::R9,
    ];
    let len = 2 + given.len() as u32 + random.below(24) as u32;
    let split = random.below(u64::from(len));
    // An exit ends each function.
    let mut ends = vec![len];
    if split > given.len() as u64 + 1 && split + 1 < u64::from(len) {
        ends.insert(0, split as u32);
    }
    let mut insns = Vec::new();
    let mut subprogs = Vec::new();
    let mut start = 0;
    for dst in given {
        insns.push(Insn::Alu {
            op: AluOp::Mov,
            width: Width::W64,
            dst,
            src: Operand::Imm(random.imm()),
        });
    }
    for end in &ends {
        while (insns.len() as u32) < end - 1 {
            let at = insns.len() as u32;
            let insn = blind_insn(&mut random, start, *end, &ends);
            if insn.slots() == 2 && at + 2 > end - 1 {
                continue;
            }
            insns.push(insn);
            if insn.slots() == 2 {
                insns.push(Insn::LdImm64Tail);
            }
        }
        insns.push(Insn::Exit);
        subprogs.push(Subprog {
            start: Pc(start),
            end: Pc(*end),
            name: format!("f{start}"),
            global: false,
            args: None,
        });
        start = *end;
    }
    // Jumps may not go into the middle of an immediate: those that do go to the function's exit.
    for at in 0..insns.len() {
        let torn = |pc: Pc| matches!(insns[pc.index()], Insn::LdImm64Tail);
        let exit = ends
            .iter()
            .find(|end| at < **end as usize)
            .map_or(len, |end| *end)
            - 1;
        let replacement = match insns[at] {
            Insn::Jump { target } | Insn::JumpIf { target, .. } | Insn::MayGoto { target } => {
                torn(target).then_some(Pc(exit))
            }
            _ => None,
        };
        if let (
            Some(exit),
            Insn::Jump { target } | Insn::JumpIf { target, .. } | Insn::MayGoto { target },
        ) = (replacement, &mut insns[at])
        {
            *target = exit;
        }
    }
    let parts = ProgramParts {
        kind: random.pick(&[
            ProgramKind::PatchEntry,
            ProgramKind::PatchOffset,
            ProgramKind::Probe,
            ProgramKind::Memory {
                mem_len: OBJECT as u32,
            },
        ]),
        name: "blind".to_owned(),
        insns,
        subprogs,
        data: vec![DataObject {
            name: "table".to_owned(),
            bytes: vec![b'x', 0, b'y'],
        }],
        arena: Arena {
            len: 4096,
            globals: Vec::new(),
        },
        externs: Vec::new(),
        lines: Vec::new(),
    };
    Program::new(parts).expect("the generator writes programs")
}

fn blind_insn(random: &mut Random, start: u32, end: u32, ends: &[u32]) -> Insn {
    let dst = random.pick(&Reg::ALL);
    let src = random.pick(&Reg::ALL);
    let base = random.pick(&[Reg::R10, Reg::R10, Reg::R1, dst]);
    let width = random.pick(&[Width::W32, Width::W64]);
    let size = random.pick(&SIZES);
    let off = if random.chance(80) {
        -8 * (random.below(10) as i16)
    } else {
        random.next() as i16
    };
    let operand = if random.chance(50) {
        Operand::Reg(src)
    } else {
        Operand::Imm(random.imm())
    };
    let target = Pc(start + random.below(u64::from(end - start)) as u32);
    let wide = random.pick(&[Size::W, Size::DW]);
    match random.below(16) {
        0..=2 => Insn::Alu {
            op: random.pick(&[
                AluOp::Add,
                AluOp::Sub,
                AluOp::Mul,
                AluOp::And,
                AluOp::Rsh,
                AluOp::SMod,
            ]),
            width,
            dst,
            src: operand,
        },
        3 | 4 => Insn::Alu {
            op: AluOp::Mov,
            width,
            dst,
            src: operand,
        },
        5 => Insn::MovSx {
            width,
            from: Size::B,
            dst,
            src,
        },
        6 => Insn::Neg { width, dst },
        7 => Insn::AddrSpaceCast {
            cast: AddrSpaceCast::FromArena,
            dst,
            src,
        },
        8 => Insn::LdImm64 {
            dst,
            imm: match random.below(4) {
                0 => Imm64::Const(random.interesting()),
                1 => Imm64::Data {
                    object: 0,
                    offset: random.below(4) as u32,
                },
                2 => Imm64::Arena {
                    offset: random.below(4097),
                },
                _ => Imm64::Subprog(Pc(*ends.first().filter(|_| ends.len() > 1).unwrap_or(&0))),
            },
        },
        9 => Insn::Load {
            size,
            signed: false,
            dst,
            base,
            off,
        },
        10 => Insn::Store {
            size,
            base,
            off,
            src: operand,
        },
        11 => Insn::Atomic {
            op: random.pick(&[
                AtomicOp::Add { fetch: true },
                AtomicOp::Xchg,
                AtomicOp::CmpXchg,
            ]),
            size: wide,
            base,
            off,
            src,
        },
        12 => Insn::Jump { target },
        13 => Insn::JumpIf {
            op: random.pick(&[CmpOp::Eq, CmpOp::Lt, CmpOp::SGt, CmpOp::Set]),
            width,
            dst,
            src: operand,
            target,
        },
        14 => Insn::MayGoto { target },
        _ => Insn::Call {
            callee: if random.chance(50) {
                Callee::Helper(random.pick(&[5, 7, 112, 114, 16, 181, 182, 1]))
            } else {
                Callee::Subprog(Pc(if ends.len() > 1 { ends[0] } else { 0 }))
            },
        },
    }
}
