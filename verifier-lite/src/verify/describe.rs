//! Words for values and places, as rejections show them.

use upatch_abi::ctx::CtxField;

use super::scalar::Scalar;
use super::value::{Region, Value};
use crate::insn::Reg;
use crate::program::Program;

pub(crate) fn reg(reg: Reg) -> String {
    format!("r{}", reg.number())
}

/// `fp-16`.
pub(crate) fn stack(offset: i64) -> String {
    match offset {
        0 => "fp".to_owned(),
        offset if offset < 0 => format!("fp-{}", offset.unsigned_abs()),
        offset => format!("fp+{offset}"),
    }
}

/// `ctx->di`, or `ctx+200` where there is no field.
pub(crate) fn ctx(offset: i64) -> String {
    match u16::try_from(offset).ok().and_then(CtxField::containing) {
        Some(field) => format!("ctx->{}", field.name()),
        None => format!("ctx{offset:+}"),
    }
}

/// Name of the arena variable that holds byte `offset`, with the distance from its start.
pub(crate) fn arena(program: &Program, offset: i64) -> String {
    let global = u64::try_from(offset).ok().and_then(|offset| {
        program
            .arena()
            .globals
            .iter()
            .find(|global| global.offset <= offset && offset - global.offset < global.size.max(1))
            .map(|global| (global, offset - global.offset))
    });
    match global {
        Some((global, 0)) => global.name.clone(),
        Some((global, within)) => format!("{}+{within}", global.name),
        None => format!("arena{offset:+}"),
    }
}

/// Name of a read-only object.
pub(crate) fn data(program: &Program, object: u32) -> &str {
    program
        .data()
        .get(object as usize)
        .map_or("read-only data", |data| &data.name)
}

/// The place that a pointer leads to, `extra` bytes further on.
pub(crate) fn place(program: &Program, region: Region, offset: Scalar, extra: i64) -> String {
    let known = offset
        .as_constant()
        .map(|value| (value as i64).wrapping_add(extra));
    match (region, known) {
        (Region::Ctx, Some(at)) => ctx(at),
        (Region::Ctx, None) => "ctx".to_owned(),
        (Region::Stack { .. }, Some(at)) => format!("stack {}", stack(at)),
        (Region::Stack { .. }, None) => {
            format!("stack {}", stack(offset.wide.smin.saturating_add(extra)))
        }
        (Region::Data { object }, Some(at)) => format!("{}{at:+}", data(program, object)),
        (Region::Data { object }, None) => data(program, object).to_owned(),
        (Region::Arena, Some(at)) => arena(program, at),
        (Region::Arena, None) => {
            if offset == Scalar::TOP {
                "arena".to_owned()
            } else {
                arena(program, offset.wide.smin.saturating_add(extra))
            }
        }
        (Region::Memory, Some(at)) => format!("memory{at:+}"),
        (Region::Memory, None) => "memory".to_owned(),
    }
}

/// What a value is known to be: `in 0..=15`, `points to stack fp-16 plus 0..=7`.
pub(crate) fn value(program: &Program, value: Value) -> String {
    match value {
        Value::Uninit => "never written on this path".to_owned(),
        Value::Number(scalar, _) => scalar.to_string(),
        Value::Callback(_) => "the address of a function of the patch".to_owned(),
        Value::Pointer(region, offset) => pointer(program, region, offset),
    }
}

fn pointer(program: &Program, region: Region, offset: Scalar) -> String {
    if offset.as_constant().is_some() {
        let shown = place(program, region, offset, 0);
        return match region {
            Region::Ctx if offset.as_constant() == Some(0) => "points to ctx".to_owned(),
            Region::Ctx => format!("points to {shown}"),
            Region::Stack { .. } | Region::Data { .. } | Region::Memory => {
                format!("points to {shown}")
            }
            Region::Arena => format!("points to {shown} in the arena"),
        };
    }
    let (start, low) = match region {
        Region::Arena if offset == Scalar::TOP => {
            return "an arena pointer whose offset is not known".to_owned();
        }
        Region::Ctx => ("ctx".to_owned(), 0),
        Region::Stack { .. } => ("fp".to_owned(), 0),
        Region::Data { object } => (data(program, object).to_owned(), 0),
        Region::Memory => ("memory".to_owned(), 0),
        Region::Arena => {
            // From the variable that the lowest offset lies in.
            let low = offset.wide.smin;
            let start = program
                .arena()
                .globals
                .iter()
                .rfind(|global| i64::try_from(global.offset).is_ok_and(|start| start <= low));
            match start {
                Some(global) => (global.name.clone(), global.offset as i64),
                None => ("arena".to_owned(), 0),
            }
        }
    };
    let shifted = offset.alu(
        crate::insn::AluOp::Sub,
        crate::insn::Width::W64,
        Scalar::constant(low as u64),
    );
    format!("points to {start} plus {shifted}")
}
