//! What helpers and external functions do to a state: by their prototypes.

use upatch_abi::helpers::{Arg, Helper, Ret};

use super::check_call::{self, SizeArg};
use super::obligations::arg_reg;
use super::place::Place;
use super::scalar::Scalar;
use super::state::State;
use super::transfer::{Step, after_call, number};
use super::value::Value;
use crate::insn::{Reg, Size, Width};
use crate::program::{Extern, ExternParam, ExternRet};

impl Step<'_> {
    /// The effect of a helper that doesn't call back.
    pub(crate) fn helper(&mut self, state: &mut State, helper: &Helper) {
        self.record.helpers.insert(helper.id);
        let result = match helper.ret {
            Ret::Scalar => Scalar::TOP,
            Ret::Range { min, max } => Scalar::signed(min, max),
            Ret::ErrnoOrSize(index) => {
                let most = SizeArg::of_helper(index)
                    .cut(number(state.reg(arg_reg(index))))
                    .wide
                    .umax;
                Scalar::signed(-4095, i64::try_from(most).unwrap_or(i64::MAX))
            }
        };
        for (index, arg) in (0u8..).zip(helper.args) {
            if let Arg::ReadMemory { size } | Arg::WriteMemory { size } = arg {
                let writes = matches!(arg, Arg::WriteMemory { .. });
                self.memory_argument(state, arg_reg(index), SizeArg::of_helper(*size), writes);
            }
        }
        after_call(state, Value::number(result));
    }

    /// The effect of a function of the application.
    pub(crate) fn external(&mut self, state: &mut State, index: u32, function: &Extern) {
        self.record.externs.insert(index);
        for (index, param) in (0u8..).zip(&function.params) {
            if let ExternParam::SizedMemory { size, readonly, .. } = param
                && matches!(state.reg(arg_reg(index)), Value::Pointer(..))
            {
                let size = SizeArg::of_extern(function, *size);
                self.memory_argument(state, arg_reg(index), size, !readonly);
            }
        }
        let result = match function.ret {
            ExternRet::Void => Value::Uninit,
            ExternRet::Scalar { bytes, signed } => {
                let size = match bytes {
                    1 => Size::B,
                    2 => Size::H,
                    4 => Size::W,
                    _ => Size::DW,
                };
                let scalar = Scalar::of_size(size);
                Value::number(if signed && size != Size::DW {
                    scalar.sign_extend(size, Width::W64)
                } else {
                    scalar
                })
            }
        };
        after_call(state, result);
    }

    /// Marks what a callee does with memory that is passed to it.
    fn memory_argument(&mut self, state: &mut State, reg: Reg, size: SizeArg, writes: bool) {
        let length = size.cut(number(state.reg(size.reg))).wide;
        let Ok(Some((Place::Stack(frame, span), longest))) =
            check_call::memory(self.rules, state, reg, size, writes, "")
        else {
            return;
        };
        self.record
            .stack_use(state.frame_at(frame).subprog, span.low);
        if !writes {
            return;
        }
        let stack = &mut state.frame_at_mut(frame).stack;
        stack.smudge(span.low, span.high - span.low + longest);
        if let (Some(offset), Ok(least)) = (span.exact(), i64::try_from(length.umin)) {
            stack.fill(offset, least.min(longest));
        }
    }
}
