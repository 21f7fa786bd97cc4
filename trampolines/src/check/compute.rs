//! Arithmetic: the values that instructions leave in their first operand, as far as they are followed.
//!
//! Knows numbers, not memory. Invariant: a result that is not computed here is `None` and thereby unknown.

use iced_x86::{Code, Mnemonic, OpKind};

use super::Problem;
use super::memory::gpr;
use super::operand::high_byte;
use super::state::{Compared, RDX};
use super::step::Machine;
use super::value::{Value, mask};

impl Machine<'_> {
    /// The value that the first operand gets, if it is followed; `None` leaves what [`Self::clobber`] made of it.
    pub(super) fn result(&self) -> Result<Option<Value>, Problem> {
        let insn = self.insn;
        let width = self.width(0);
        let number = |machine: &Self, index: u32| {
            machine
                .operand_of(index)
                .map(|value| machine.state.number(value))
        };
        let same_register = insn.op_count() == 2
            && insn.op0_kind() == OpKind::Register
            && insn.op1_kind() == OpKind::Register
            && insn.op0_register() == insn.op1_register();
        let value = match insn.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx => self.operand_of(1)?,
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let from = self.width(1);
                number(self, 1)?.sign_extend(from)
            }
            Mnemonic::Lea => self.effective_address(),
            Mnemonic::Xor | Mnemonic::Sub if same_register => Value::constant(0),
            Mnemonic::Add => wrap(number(self, 0)?.add(self.source()?), width),
            Mnemonic::Sub => wrap(number(self, 0)?.sub(self.source()?), width),
            Mnemonic::Inc => wrap(number(self, 0)?.add(Value::constant(1)), width),
            Mnemonic::Dec => wrap(number(self, 0)?.sub(Value::constant(1)), width),
            Mnemonic::And => number(self, 0)?.and(number(self, 1)?),
            Mnemonic::Or | Mnemonic::Xor => number(self, 0)?.or_xor(number(self, 1)?),
            Mnemonic::Shl => match self.shift_count(width) {
                Some(count) => number(self, 0)?.shl(count, width),
                None => return Ok(None),
            },
            Mnemonic::Shr => match self.shift_count(width) {
                Some(count) => number(self, 0)?.shr(count),
                None => Value::Num(0, number(self, 0)?.range().1),
            },
            Mnemonic::Imul if insn.op_count() == 3 => {
                let factor = insn.immediate(2) & mask(width);
                number(self, 1)?.mul(factor, width)
            }
            _ => return Ok(None),
        };
        Ok(Some(value))
    }

    /// The registers that `xchg` exchanges, and what they hold before.
    pub(super) fn exchanged(&self) -> Result<Option<[(u8, Value); 2]>, Problem> {
        let insn = self.insn;
        if !matches!(insn.code(), Code::Xchg_rm64_r64 | Code::Xchg_r64_RAX)
            || insn.op0_kind() != OpKind::Register
        {
            return Ok(None);
        }
        match (gpr(insn.op0_register()), gpr(insn.op1_register())) {
            (Some(first), Some(second)) => Ok(Some([
                (first, self.operand_of(0)?),
                (second, self.operand_of(1)?),
            ])),
            _ => Ok(None),
        }
    }

    /// The second operand as a number of the first one's width.
    pub(super) fn source(&self) -> Result<Value, Problem> {
        let value = self.operand_of(1)?;
        Ok(self.state.number(value))
    }

    pub(super) fn shift_count(&self, width: u32) -> Option<u32> {
        let count = (self.insn.op1_kind() == OpKind::Immediate8)
            .then(|| u32::from(self.insn.immediate8()))?;
        Some(count & if width == 64 { 63 } else { 31 })
    }

    /// The operands of `cmp reg, constant` and `test reg, reg`.
    pub(super) fn comparison(&self) -> Option<Compared> {
        let insn = self.insn;
        if insn.op_count() != 2 || insn.op0_kind() != OpKind::Register {
            return None;
        }
        let register = gpr(insn.op0_register()).filter(|_| high_byte(insn.op0_register()) == 0)?;
        let bits = self.width(0);
        match insn.mnemonic() {
            Mnemonic::Cmp => {
                let with = self.source().ok()?.as_constant()?;
                Some(Compared {
                    register,
                    bits,
                    with: with & mask(bits),
                })
            }
            Mnemonic::Test
                if insn.op1_kind() == OpKind::Register
                    && insn.op0_register() == insn.op1_register() =>
            {
                Some(Compared {
                    register,
                    bits,
                    with: 0,
                })
            }
            _ => None,
        }
    }

    /// `div` and `idiv` must not raise #DE (SDM vol. 2A): no zero divisor, no quotient that doesn't fit.
    pub(super) fn check_division(&self) -> Result<(), Problem> {
        let signed = match self.insn.mnemonic() {
            Mnemonic::Div => false,
            Mnemonic::Idiv => true,
            _ => return Ok(()),
        };
        let width = self.width(0);
        let value = self.operand_of(0)?;
        let (low, high) = self.state.number(value).truncate(width).range();
        let upper = self.state.reg(RDX);
        let fits = if signed {
            upper == Value::SignOfRax(width) && high < mask(width)
        } else {
            upper.as_constant() == Some(0)
        };
        if width >= 32 && low > 0 && fits {
            Ok(())
        } else {
            Err(Problem::Division {
                divisor: value.to_string(),
            })
        }
    }
}

fn wrap(value: Value, width: u32) -> Value {
    if width >= 64 {
        value
    } else {
        value.truncate(width)
    }
}
