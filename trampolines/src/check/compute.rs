//! Arithmetic: the values that instructions leave in their first operand, as far as they are followed.
//!
//! Knows numbers, not memory. Invariant: a result that is not computed here is `None` and thereby unknown.

use iced_x86::{Code, Mnemonic, OpKind};

use super::Problem;
use super::link::{Base, Link, Or};
use super::memory::gpr;
use super::number::Number;
use super::range::mask;
use super::state::{Compared, Comparison, RAX, RDX};
use super::step::Machine;
use super::value::Value;

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
        let both = |operation: &dyn Fn(Number, Number) -> Number| {
            let (left, right) = (number(self, 0)?, number(self, 1)?);
            let result = operation(left.as_number(), right.as_number());
            Ok::<_, Problem>(Value::linked(result, None))
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
            Mnemonic::Add => number(self, 0)?.add(self.source()?, width),
            Mnemonic::Sub => number(self, 0)?.sub(self.source()?, width),
            Mnemonic::Inc => number(self, 0)?.add(Value::constant(1), width),
            Mnemonic::Dec => number(self, 0)?.sub(Value::constant(1), width),
            Mnemonic::Neg => Value::constant(0).sub(number(self, 0)?, width),
            Mnemonic::And => both(&Number::and)?,
            Mnemonic::Or => {
                let link = self.or_of().map(|or| or.result);
                Value::linked(both(&Number::or)?.as_number(), link)
            }
            Mnemonic::Xor => both(&Number::xor)?,
            Mnemonic::Shl | Mnemonic::Shr | Mnemonic::Sar => {
                let before = number(self, 0)?;
                let known = before.as_number();
                match (self.shift_count(width), insn.mnemonic()) {
                    (Some(0), _) => before,
                    (Some(count), Mnemonic::Shl) => Value::linked(known.shl(count, width), None),
                    (Some(count), Mnemonic::Shr) => Value::linked(known.shr(count, width), None),
                    (Some(count), _) => Value::linked(known.sar(count, width), None),
                    (None, Mnemonic::Shr) => Value::Num(Number::between(0, known.umax()), None),
                    (None, _) => return Ok(None),
                }
            }
            Mnemonic::Imul if insn.op_count() == 3 => {
                let factor = Number::constant(insn.immediate(2) & mask(width));
                let product = number(self, 1)?.as_number().mul(factor, width);
                Value::linked(product, None)
            }
            Mnemonic::Imul if insn.op_count() == 2 => both(&|a, b| a.mul(b, width))?,
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

    /// Gives the operands that are copied, compared or combined links, so that what is found out about one is known of all.
    pub(super) fn share_operands(&mut self) {
        let first = match self.insn.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => 1,
            Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Or | Mnemonic::Push => 0,
            _ => return,
        };
        if self.insn.mnemonic() == Mnemonic::Or {
            self.state.forget_base(self.result_base());
        }
        for index in first..self.insn.op_count() {
            let base = Base::operand(self.insn.ip(), u64::from(index));
            match self.insn.op_kind(index) {
                OpKind::Register => {
                    let register = self.insn.op_register(index);
                    if let Some(number) = gpr(register)
                        && (register.is_gpr32() || register.is_gpr64())
                    {
                        self.state.share(number, base);
                    }
                }
                OpKind::Memory => {
                    let size = i64::try_from(self.insn.memory_size().size());
                    if let (Value::Stack(anchor, low, high), Ok(size @ (4 | 8))) =
                        (self.memory_address(), size)
                        && low == high
                    {
                        self.state.share_slot(anchor, low, size, base);
                    }
                }
                _ => {}
            }
        }
    }

    /// What stands for the result of the instruction.
    fn result_base(&self) -> Base {
        Base::operand(self.insn.ip(), 3)
    }

    fn memory_address(&self) -> Value {
        let used = self.named_memory();
        if self.has_segment(&used) {
            return Value::TOP;
        }
        self.memory.address(self.state, &used)
    }

    /// The operands of `cmp` and `test`.
    pub(super) fn comparison(&self) -> Option<Comparison> {
        let insn = self.insn;
        let bits = self.width(0);
        let operand = |index: u32| {
            let value = self.state.number(self.operand_of(index).ok()?);
            let register = (insn.op_kind(index) == OpKind::Register && bits == 64)
                .then(|| gpr(insn.op_register(index)))
                .flatten();
            Some(Compared { value, register })
        };
        let itself = insn.op0_kind() == OpKind::Register
            && insn.op1_kind() == OpKind::Register
            && insn.op0_register() == insn.op1_register();
        match insn.mnemonic() {
            Mnemonic::Cmp => Some(Comparison {
                left: operand(0)?,
                right: operand(1)?,
                bits,
                bitwise: false,
            }),
            // The same flags as a comparison with zero.
            Mnemonic::Test if itself => Some(Comparison {
                left: operand(0)?,
                right: Compared {
                    value: Value::constant(0),
                    register: None,
                },
                bits,
                bitwise: false,
            }),
            Mnemonic::Test => Some(Comparison {
                left: operand(0)?,
                right: operand(1)?,
                bits,
                bitwise: true,
            }),
            _ => None,
        }
    }

    /// What is to be remembered of an `or` of two numbers that are linked.
    pub(super) fn or_of(&self) -> Option<Or> {
        let bits = self.width(0);
        if self.insn.mnemonic() != Mnemonic::Or
            || self.insn.op0_kind() != OpKind::Register
            || !matches!(bits, 32 | 64)
        {
            return None;
        }
        let link = |index: u32| self.state.number(self.operand_of(index).ok()?).link();
        Some(Or {
            result: Link::to(self.result_base()),
            parts: [link(0)?, link(1)?],
            bits,
        })
    }

    /// What a division that was checked leaves: rax the quotient, rdx the remainder.
    pub(super) fn quotient(&self) -> Option<[(u8, Value); 2]> {
        let width = self.width(0);
        if self.insn.mnemonic() != Mnemonic::Div {
            return None;
        }
        let of = |value: Value| self.state.number(value).as_number().truncate(width);
        let divisor = of(self.operand_of(0).ok()?);
        let dividend = of(self.state.reg(RAX));
        let quotient = Number::between(0, dividend.umax() / divisor.umin().max(1));
        let remainder = Number::between(0, dividend.umax().min(divisor.umax().max(1) - 1));
        Some([
            (RAX, Value::linked(quotient, None)),
            (RDX, Value::linked(remainder, None)),
        ])
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
        let divisor = self.state.number(value).as_number().truncate(width);
        let (low, high) = (divisor.umin(), divisor.umax());
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
