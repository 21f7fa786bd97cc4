//! `load; op imm; store` of one place as one instruction: what `counter += 1` compiles to.
//!
//! Knows straight lines only. Invariant: the register that carried the value is read by nobody else.

use upatch_verifier::facts::Facts;
use upatch_verifier::insn::{AluOp, Insn, Operand, Reg, Size, Width};

use super::{Op, RegSet, is_ctx};
use crate::asm::Arith;

/// Replaces the three ops where that is possible.
pub(super) fn fuse(ops: &mut [Op], leaders: &[bool], facts: &Facts, live_out: &[RegSet]) {
    for first in 0..ops.len() {
        // Without this, a long stretch of removed ops would be walked once for each of them.
        if ops.get(first) == Some(&Op::Nothing) {
            continue;
        }
        let Some((second, third)) = next_two(ops, leaders, first) else {
            continue;
        };
        let (Some(Op::Plain(load)), Some(Op::Plain(alu)), Some(Op::Plain(store))) =
            (ops.get(first), ops.get(second), ops.get(third))
        else {
            continue;
        };
        let Some((op, carrier)) = fused(*load, *alu, *store) else {
            continue;
        };
        let carried_on = live_out
            .get(third)
            .is_none_or(|live| live.contains(carrier));
        let same_access = facts.access.get(first) == facts.access.get(third);
        if carried_on || is_ctx(facts, first) || !same_access {
            continue;
        }
        for (at, replacement) in [(first, Op::Nothing), (second, Op::Nothing), (third, op)] {
            if let Some(place) = ops.get_mut(at) {
                *place = replacement;
            }
        }
    }
}

/// The next two ops that do something, if control only comes to them along the line.
fn next_two(ops: &[Op], leaders: &[bool], first: usize) -> Option<(usize, usize)> {
    let next = |after: usize| {
        (after + 1..ops.len())
            .take_while(|at| leaders.get(*at) == Some(&false))
            .find(|at| ops.get(*at) != Some(&Op::Nothing))
    };
    let second = next(first)?;
    Some((second, next(second)?))
}

/// The op, and the register that carried the value.
fn fused(load: Insn, alu: Insn, store: Insn) -> Option<(Op, Reg)> {
    let Insn::Load {
        size,
        signed: false,
        dst: carrier,
        base,
        off,
    } = load
    else {
        return None;
    };
    let Insn::Alu {
        op,
        width,
        dst,
        src: Operand::Imm(imm),
    } = alu
    else {
        return None;
    };
    let same_place = Insn::Store {
        size,
        base,
        off,
        src: Operand::Reg(carrier),
    };
    let wide_enough = match size {
        Size::DW => width == Width::W64,
        Size::W => true,
        Size::B | Size::H => false,
    };
    let op = match op {
        AluOp::Add => Arith::Add,
        AluOp::Sub => Arith::Sub,
        AluOp::Or => Arith::Or,
        AluOp::And => Arith::And,
        AluOp::Xor => Arith::Xor,
        AluOp::Mul
        | AluOp::Div
        | AluOp::SDiv
        | AluOp::Lsh
        | AluOp::Rsh
        | AluOp::Mod
        | AluOp::SMod
        | AluOp::Mov
        | AluOp::Arsh => return None,
    };
    if store != same_place || !wide_enough || dst != carrier || base == carrier {
        return None;
    }
    let op = Op::Update {
        op,
        locked: false,
        size,
        base,
        off,
        imm,
    };
    Some((op, carrier))
}
