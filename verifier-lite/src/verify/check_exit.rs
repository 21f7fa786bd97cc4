//! Is what a program, a subprogram or a callback returns what it may return?

use super::check::{Rules, initialised};
use super::place::Failure;
use super::state::State;
use super::value::{Region, Value};
use crate::insn::Reg;
use crate::program::ProgramKind;

/// R0 at the program's end, by what its section demands.
pub(crate) fn verdict(rules: Rules<'_>, state: &State) -> Result<(), Failure> {
    initialised(rules, state, Reg::R0)?;
    let value = state.reg(Reg::R0);
    let fail = |must: &str| Failure::new("r0", must, rules.known(state, Reg::R0));
    let Value::Number(result, _) = value else {
        return Err(fail("the program's result must be a number"));
    };
    match rules.program.kind() {
        ProgramKind::Probe | ProgramKind::Memory { .. } => Ok(()),
        ProgramKind::PatchEntry => {
            if result.wide.umax > 1 {
                return Err(fail(
                    "a patch must return UPATCH_CONTINUE (0) or UPATCH_RETURN (1)",
                )
                .hint("the function's own result goes to ctx->ax: return upatch_return(ctx, value);"));
            }
            if result.wide.umax == 1 && !state.ax_written {
                return Err(Failure::new(
                    "ctx->ax",
                    "ctx->ax must be written on every path that returns UPATCH_RETURN",
                    "ctx->ax was not written on this path",
                )
                .hint("return upatch_return(ctx, value), or UPATCH_RETURN_VOID(ctx) if the function has no result"));
            }
            Ok(())
        }
        ProgramKind::PatchOffset => {
            if result.wide.umax > 0 {
                return Err(
                    fail("a patch inside a function must return UPATCH_CONTINUE (0)")
                        .hint("only a patch at a function's entry can refuse the call"),
                );
            }
            Ok(())
        }
    }
}

/// A subprogram's result, if it has one.
pub(crate) fn result(rules: Rules<'_>, state: &State) -> Result<(), Failure> {
    let Value::Pointer(Region::Stack { frame }, _) = state.reg(Reg::R0) else {
        return Ok(());
    };
    if frame < state.top() {
        return Ok(());
    }
    Err(Failure::new(
        "r0",
        "a function must not return a pointer into its own stack",
        rules.known(state, Reg::R0),
    ))
}

/// What a callback tells `bpf_loop`.
pub(crate) fn callback_result(rules: Rules<'_>, state: &State) -> Result<(), Failure> {
    initialised(rules, state, Reg::R0)?;
    match state.reg(Reg::R0) {
        Value::Number(result, _) if result.wide.umax <= 1 => Ok(()),
        Value::Number(..) | Value::Pointer(..) | Value::Callback(_) | Value::Uninit => {
            Err(Failure::new(
                "r0",
                "a callback must return 0 (go on) or 1 (stop)",
                rules.known(state, Reg::R0),
            ))
        }
    }
}
