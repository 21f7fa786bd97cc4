//! What a state becomes when a conditional jump comes out one way; `None` when it can't.

use super::place;
use super::scalar::Scalar;
use super::state::State;
use super::value::{Region, Value};
use crate::insn::{CmpOp, Operand, Reg, Width};
use crate::program::Program;

/// A conditional jump's comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Comparison {
    pub(crate) op: CmpOp,
    pub(crate) width: Width,
    pub(crate) dst: Reg,
    pub(crate) src: Operand,
}

/// The state after the comparison came out as `taken`.
pub(crate) fn assume(
    program: &Program,
    mut state: State,
    comparison: Comparison,
    taken: bool,
) -> Option<State> {
    let Comparison {
        op,
        width,
        dst,
        src,
    } = comparison;
    let left = state.reg(dst);
    let right = match src {
        Operand::Reg(reg) => state.reg(reg),
        Operand::Imm(imm) => Value::constant(i64::from(imm) as u64),
    };
    if src == Operand::Reg(dst) {
        return with_itself(state, comparison, taken);
    }
    match (left, right) {
        (Value::Number(a, _), Value::Number(b, _)) => {
            let (a, b) = a.refine(op, width, b, taken)?;
            if !settle(&mut state, dst, a) {
                return None;
            }
            if let Operand::Reg(src) = src
                && !settle(&mut state, src, b)
            {
                return None;
            }
            Some(state)
        }
        (Value::Pointer(region, a), Value::Pointer(other, b))
            if region == other && width == Width::W64 && region != Region::Ctx =>
        {
            same_region(program, state, comparison, taken, (region, a, b))
        }
        (Value::Pointer(region, offset), Value::Number(value, _))
        | (Value::Number(value, _), Value::Pointer(region, offset))
            if value.as_constant() == Some(0)
                && width == Width::W64
                && is_non_null(program, region, offset) =>
        {
            match op {
                CmpOp::Eq => (!taken).then_some(state),
                CmpOp::Ne => taken.then_some(state),
                CmpOp::Gt
                | CmpOp::Ge
                | CmpOp::Lt
                | CmpOp::Le
                | CmpOp::SGt
                | CmpOp::SGe
                | CmpOp::SLt
                | CmpOp::SLe
                | CmpOp::Set => Some(state),
            }
        }
        // Nothing is learnt; both ways are possible.
        _ => Some(state),
    }
}

/// Writes back what is known of a register now, and of all its copies.
fn settle(state: &mut State, reg: Reg, known: Scalar) -> bool {
    // Learning from one operand may have refined the other already.
    let (now, link) = match state.reg(reg) {
        Value::Number(now, link) => (now, link),
        Value::Uninit | Value::Pointer(..) | Value::Callback(_) => return true,
    };
    let Some(known) = now.meet(known) else {
        return false;
    };
    state.set(reg, Value::linked(known, link));
    link.is_none_or(|link| state.learn(link, known))
}

fn with_itself(mut state: State, comparison: Comparison, taken: bool) -> Option<State> {
    let always = match comparison.op {
        CmpOp::Eq | CmpOp::Ge | CmpOp::Le | CmpOp::SGe | CmpOp::SLe => true,
        CmpOp::Ne | CmpOp::Gt | CmpOp::Lt | CmpOp::SGt | CmpOp::SLt => false,
        CmpOp::Set => {
            // `r & r != 0` is `r != 0`.
            let Value::Number(value, _) = state.reg(comparison.dst) else {
                return Some(state);
            };
            let (value, _) =
                value.refine(CmpOp::Ne, comparison.width, Scalar::constant(0), taken)?;
            return settle(&mut state, comparison.dst, value).then_some(state);
        }
    };
    (always == taken).then_some(state)
}

/// Addresses in one region compare like their offsets: equality always; order where neither address can wrap.
fn same_region(
    program: &Program,
    mut state: State,
    comparison: Comparison,
    taken: bool,
    (region, a, b): (Region, Scalar, Scalar),
) -> Option<State> {
    let op = match comparison.op {
        op @ (CmpOp::Eq | CmpOp::Ne) => op,
        CmpOp::Set => return Some(state),
        _ if !is_non_null(program, region, a) || !is_non_null(program, region, b) => {
            return Some(state);
        }
        CmpOp::Gt | CmpOp::SGt => CmpOp::SGt,
        CmpOp::Ge | CmpOp::SGe => CmpOp::SGe,
        CmpOp::Lt | CmpOp::SLt => CmpOp::SLt,
        CmpOp::Le | CmpOp::SLe => CmpOp::SLe,
    };
    let (a, b) = a.refine(op, Width::W64, b, taken)?;
    state_pointer(&mut state, comparison.dst, region, a);
    if let Operand::Reg(src) = comparison.src {
        state_pointer(&mut state, src, region, b);
    }
    Some(state)
}

fn state_pointer(state: &mut State, reg: Reg, region: Region, offset: Scalar) {
    state.set(reg, Value::Pointer(region, offset));
}

/// Is the address certainly not null, and does it not wrap around? Regions of ours begin above the first page (the
/// kernel's mmap_min_addr) and end below 2^47.
fn is_non_null(program: &Program, region: Region, offset: Scalar) -> bool {
    const FAR: i64 = 1 << 31;
    let (low, high) = match region {
        // What stands for ctx in a register is the JIT's choice.
        Region::Ctx => return false,
        Region::Stack { .. } => (-super::stack::FRAME, super::stack::FRAME),
        Region::Data { .. } | Region::Memory => (0, FAR),
        Region::Arena => (0, place::window(program)),
    };
    low <= offset.wide.smin && offset.wide.smax <= high
}
