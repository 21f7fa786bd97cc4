//! Constants within basic blocks: immediates instead of registers, callbacks and strings that are known at their call.
//!
//! Knows nothing across jumps. Invariant: an op is only replaced by one that does the same whenever control comes to it
//! along the block.

use upatch_abi::helpers;
use upatch_verifier::facts::Facts;
use upatch_verifier::insn::{AluOp, AtomicOp, Callee, Imm64, Insn, Operand, Pc, Reg, Size, Width};
use upatch_verifier::program::Program;
use upatch_verifier::semantics;

use super::Op;
use crate::asm::Arith;

/// What a register is known to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Number(u64),
    Data { object: u32, offset: u32 },
    Subprog(Pc),
}

/// Values known before one slot.
#[derive(Clone, Copy, Default)]
struct Values([Option<Known>; 11]);

impl Values {
    fn get(&self, reg: Reg) -> Option<Known> {
        self.0.get(reg.index()).copied().flatten()
    }

    fn number(&self, reg: Reg) -> Option<u64> {
        match self.get(reg) {
            Some(Known::Number(number)) => Some(number),
            Some(Known::Data { .. } | Known::Subprog(_)) | None => None,
        }
    }

    fn set(&mut self, reg: Reg, value: Option<Known>) {
        if let Some(place) = self.0.get_mut(reg.index()) {
            *place = value;
        }
    }

    fn operand(&self, src: Operand) -> Option<u64> {
        match src {
            Operand::Reg(reg) => self.number(reg),
            Operand::Imm(imm) => Some(i64::from(imm).cast_unsigned()),
        }
    }
}

/// The program's ops with constants filled in.
pub(super) fn propagate(program: &Program, facts: &Facts, leaders: &[bool]) -> Vec<Op> {
    let mut values = Values::default();
    let mut ops = Vec::with_capacity(program.insns().len());
    for (at, &insn) in program.insns().iter().enumerate() {
        if leaders.get(at) == Some(&true) {
            values = Values::default();
        }
        if facts.reachable.get(at) != Some(&true) || insn == Insn::LdImm64Tail {
            ops.push(Op::Nothing);
            continue;
        }
        ops.push(replace(program, &values, insn));
        execute(&mut values, insn);
    }
    ops
}

/// The number as an immediate of an operation of this width.
fn immediate(number: u64, width: Width) -> Option<i32> {
    match width {
        Width::W32 => Some((number as u32).cast_signed()),
        Width::W64 => i32::try_from(number.cast_signed()).ok(),
    }
}

fn width_of(size: Size) -> Width {
    match size {
        Size::DW => Width::W64,
        Size::B | Size::H | Size::W => Width::W32,
    }
}

fn replace(program: &Program, values: &Values, insn: Insn) -> Op {
    let operand = |src: Operand, width: Width| match src {
        Operand::Reg(reg) => values
            .number(reg)
            .and_then(|number| immediate(number, width))
            .map_or(src, Operand::Imm),
        Operand::Imm(_) => src,
    };
    Op::Plain(match insn {
        Insn::Alu {
            op,
            width,
            dst,
            src,
        } => Insn::Alu {
            op,
            width,
            dst,
            src: operand(src, width),
        },
        Insn::JumpIf {
            op,
            width,
            dst,
            src,
            target,
        } => Insn::JumpIf {
            op,
            width,
            dst,
            src: operand(src, width),
            target,
        },
        Insn::Store {
            size,
            base,
            off,
            src,
        } => Insn::Store {
            size,
            base,
            off,
            src: operand(src, width_of(size)),
        },
        Insn::Atomic {
            op,
            size,
            base,
            off,
            src,
        } => {
            let imm = values
                .number(src)
                .and_then(|number| immediate(number, width_of(size)));
            match (without_fetch(op), imm) {
                (Some(op), Some(imm)) => {
                    return Op::Update {
                        op,
                        locked: true,
                        size,
                        base,
                        off,
                        imm,
                    };
                }
                _ => insn,
            }
        }
        Insn::Call {
            callee: Callee::Helper(id),
        } => return helper(program, values, id).unwrap_or(Op::Plain(insn)),
        Insn::MovSx { .. }
        | Insn::Neg { .. }
        | Insn::Endian { .. }
        | Insn::AddrSpaceCast { .. }
        | Insn::LdImm64 { .. }
        | Insn::LdImm64Tail
        | Insn::Load { .. }
        | Insn::LoadAcquire { .. }
        | Insn::StoreRelease { .. }
        | Insn::Jump { .. }
        | Insn::MayGoto { .. }
        | Insn::Call {
            callee: Callee::Subprog(_) | Callee::Extern(_),
        }
        | Insn::Exit => insn,
    })
}

fn without_fetch(op: AtomicOp) -> Option<Arith> {
    match op {
        AtomicOp::Add { fetch: false } => Some(Arith::Add),
        AtomicOp::Or { fetch: false } => Some(Arith::Or),
        AtomicOp::And { fetch: false } => Some(Arith::And),
        AtomicOp::Xor { fetch: false } => Some(Arith::Xor),
        AtomicOp::Add { fetch: true }
        | AtomicOp::Or { fetch: true }
        | AtomicOp::And { fetch: true }
        | AtomicOp::Xor { fetch: true }
        | AtomicOp::Xchg
        | AtomicOp::CmpXchg => None,
    }
}

fn helper(program: &Program, values: &Values, id: u32) -> Option<Op> {
    match (id, values.get(Reg::R2), values.get(Reg::R3)) {
        (helpers::LOOP, Some(Known::Subprog(callback)), _) => Some(Op::Loop { callback }),
        (crate::runtime::STRNCMP, _, Some(Known::Data { object, offset })) => {
            let text = program.data().get(object as usize)?;
            let text = text.bytes.get(offset as usize..)?;
            let nul = text.iter().position(|byte| *byte == 0)?;
            let bytes = u32::try_from(nul + 1).ok()?;
            Some(Op::Strncmp { bytes })
        }
        _ => None,
    }
}

fn execute(values: &mut Values, insn: Insn) {
    match insn {
        Insn::Alu {
            op,
            width,
            dst,
            src,
        } => {
            let value = match (op, width, src) {
                (AluOp::Mov, Width::W64, Operand::Reg(src)) => values.get(src),
                (AluOp::Mov, ..) => values
                    .operand(src)
                    .map(|number| Known::Number(semantics::alu(op, width, 0, number))),
                _ => {
                    let operands = values.number(dst).zip(values.operand(src));
                    operands.map(|(a, b)| Known::Number(semantics::alu(op, width, a, b)))
                }
            };
            values.set(dst, value);
        }
        Insn::AddrSpaceCast { dst, src, .. } => values.set(dst, values.get(src)),
        Insn::LdImm64 { dst, imm } => {
            let value = match imm {
                Imm64::Const(number) => Some(Known::Number(number)),
                Imm64::Data { object, offset } => Some(Known::Data { object, offset }),
                Imm64::Subprog(pc) => Some(Known::Subprog(pc)),
                Imm64::Arena { .. } => None,
            };
            values.set(dst, value);
        }
        Insn::MovSx { dst, .. }
        | Insn::Neg { dst, .. }
        | Insn::Endian { dst, .. }
        | Insn::Load { dst, .. }
        | Insn::LoadAcquire { dst, .. } => values.set(dst, None),
        Insn::Atomic { op, src, .. } => match op {
            AtomicOp::CmpXchg => values.set(Reg::R0, None),
            AtomicOp::Add { .. }
            | AtomicOp::Or { .. }
            | AtomicOp::And { .. }
            | AtomicOp::Xor { .. }
            | AtomicOp::Xchg => values.set(src, None),
        },
        Insn::Call { .. } => {
            for reg in [Reg::R0, Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5] {
                values.set(reg, None);
            }
        }
        Insn::LdImm64Tail
        | Insn::Store { .. }
        | Insn::StoreRelease { .. }
        | Insn::Jump { .. }
        | Insn::JumpIf { .. }
        | Insn::MayGoto { .. }
        | Insn::Exit => {}
    }
}
