//! What an instruction does to a state that satisfies its obligations.
//!
//! Branches are [`super::assume`]'s, calls of subprograms and callbacks [`super::explore`]'s. A state that does not
//! satisfy the obligations gets unknown or uninitialised values, never a claim.

use upatch_abi::ctx::CtxField;

use super::check::Rules;
use super::obligations::fetches;
use super::place::{self, Place, Want};
use super::record::Record;
use super::scalar::Scalar;
use super::state::State;
use super::value::{Link, Region, Value};
use crate::insn::{AluOp, AtomicOp, Imm64, Insn, Operand, Pc, Reg, Size, Width};

/// Two paths reach different kinds of memory with one instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MixedMemory(pub(crate) Reg);

/// Hands out link bases that no value has yet.
#[derive(Debug, Default)]
pub(crate) struct Fresh(u32);

impl Fresh {
    fn link(&mut self) -> Option<Link> {
        // After 2^32 links no more are made: precision ends, soundness doesn't.
        let next = self.0.checked_add(1)?;
        self.0 = next;
        Some(Link {
            base: next,
            delta: 0,
            narrow: false,
        })
    }
}

/// What a step works with.
pub(crate) struct Step<'a> {
    pub(crate) rules: Rules<'a>,
    pub(crate) record: &'a mut Record,
    pub(crate) fresh: &'a mut Fresh,
    pub(crate) pc: Pc,
}

impl Step<'_> {
    /// Executes an instruction that is neither a jump, a call nor an exit.
    pub(crate) fn execute(&mut self, state: &mut State, insn: Insn) -> Result<(), MixedMemory> {
        match insn {
            Insn::Alu {
                op,
                width,
                dst,
                src,
            } => {
                let value = self.alu(state, op, width, dst, src);
                state.set(dst, value);
            }
            Insn::MovSx {
                width,
                from,
                dst,
                src,
            } => {
                let value = self.sign_extended(state, width, from, src);
                state.set(dst, value);
            }
            Insn::Neg { width, dst } => {
                let value = number(state.reg(dst)).neg(width);
                state.set(dst, Value::number(value));
            }
            Insn::Endian { op, bits, dst } => {
                let value = number(state.reg(dst)).endian(op, bits);
                state.set(dst, Value::number(value));
            }
            Insn::AddrSpaceCast { dst, src, .. } => {
                let value = match state.reg(src) {
                    pointer @ Value::Pointer(Region::Arena, _) => pointer,
                    // Any address: where it is relative to the arena nobody knows.
                    Value::Number(..) => Value::Pointer(Region::Arena, Scalar::TOP),
                    Value::Uninit | Value::Pointer(..) | Value::Callback(_) => Value::Uninit,
                };
                state.set(dst, value);
            }
            Insn::LdImm64 { dst, imm } => state.set(dst, immediate(imm)),
            Insn::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => {
                self.load(state, size, signed, dst, (base, off))?;
            }
            Insn::LoadAcquire {
                size,
                dst,
                base,
                off,
            } => {
                self.load(state, size, false, dst, (base, off))?;
            }
            Insn::Store {
                size,
                base,
                off,
                src,
            } => self.store(state, size, (base, off), src)?,
            Insn::StoreRelease {
                size,
                base,
                off,
                src,
            } => {
                self.store(state, size, (base, off), Operand::Reg(src))?;
            }
            Insn::Atomic {
                op,
                size,
                base,
                off,
                src,
            } => {
                self.atomic(state, op, size, (base, off), src)?;
            }
            Insn::LdImm64Tail
            | Insn::Jump { .. }
            | Insn::JumpIf { .. }
            | Insn::MayGoto { .. }
            | Insn::Call { .. }
            | Insn::Exit => {}
        }
        Ok(())
    }

    /// The value of `reg`, as one that its copies will share a link with.
    fn shared(&mut self, state: &mut State, reg: Reg) -> Value {
        let value = state.reg(reg);
        let Value::Number(scalar, None) = value else {
            return value;
        };
        let linked = Value::linked(scalar, self.fresh.link());
        state.set(reg, linked);
        linked
    }

    fn alu(&mut self, state: &mut State, op: AluOp, width: Width, dst: Reg, src: Operand) -> Value {
        if op == AluOp::Mov {
            return self.mov(state, width, src);
        }
        let left = state.reg(dst);
        let right = match src {
            Operand::Reg(reg) => state.reg(reg),
            Operand::Imm(imm) => Value::constant(i64::from(imm) as u64),
        };
        if src == Operand::Reg(dst)
            && matches!(op, AluOp::Sub | AluOp::Xor)
            && left.as_number().is_some()
        {
            return Value::constant(0);
        }
        if let (AluOp::Or, Operand::Reg(from), Value::Number(..), Value::Number(..)) =
            (op, src, left, right)
        {
            return self.or(state, width, dst, from);
        }
        match (op, width, left, right) {
            (AluOp::Add | AluOp::Sub, _, Value::Number(a, _), Value::Number(b, _)) => {
                let link = b.as_constant().and_then(|amount| {
                    left.link_after_add(
                        width,
                        if op == AluOp::Add {
                            amount
                        } else {
                            amount.wrapping_neg()
                        },
                    )
                });
                Value::linked(a.alu(op, width, b), link)
            }
            (
                AluOp::Add | AluOp::Sub,
                Width::W64,
                Value::Pointer(region, offset),
                Value::Number(amount, _),
            ) => Value::Pointer(region, offset.alu(op, width, amount)),
            (AluOp::Add, Width::W64, Value::Number(amount, _), Value::Pointer(region, offset)) => {
                Value::Pointer(region, offset.alu(op, width, amount))
            }
            (AluOp::Sub, Width::W64, Value::Pointer(one, a), Value::Pointer(other, b))
                if one == other =>
            {
                Value::number(a.alu(op, width, b))
            }
            _ => Value::number(number(left).alu(op, width, number(right))),
        }
    }

    fn or(&mut self, state: &mut State, width: Width, dst: Reg, src: Reg) -> Value {
        let (left, right) = (self.shared(state, dst), self.shared(state, src));
        let result = number(left).alu(AluOp::Or, width, number(right));
        let link = self.fresh.link();
        if let (Some(result), Some(left), Some(right)) = (link, left.link(), right.link()) {
            state.remember_or(result, [left, right], width);
        }
        Value::linked(result, link)
    }

    fn mov(&mut self, state: &mut State, width: Width, src: Operand) -> Value {
        match (src, width) {
            (Operand::Imm(imm), Width::W64) => Value::constant(i64::from(imm) as u64),
            (Operand::Imm(imm), Width::W32) => Value::constant(u64::from(imm as u32)),
            (Operand::Reg(src), Width::W64) => self.shared(state, src),
            (Operand::Reg(src), Width::W32) => {
                let value = self.shared(state, src);
                Value::linked(number(value).zero_extend(Size::W), value.link_after_cut())
            }
        }
    }

    fn sign_extended(&mut self, state: &mut State, width: Width, from: Size, src: Reg) -> Value {
        let value = self.shared(state, src);
        let scalar = number(value);
        let most = i64::MAX >> (64 - u32::from(from.bytes()) * 8);
        let least = match width {
            Width::W64 => -most - 1,
            Width::W32 => 0,
        };
        let unchanged = scalar.wide.smin >= least && scalar.wide.smax <= most;
        let link = value.link().filter(|_| unchanged);
        Value::linked(scalar.sign_extend(from, width), link)
    }

    fn place(
        &mut self,
        state: &State,
        (base, off): (Reg, i16),
        size: Size,
        write: bool,
    ) -> Result<Option<Place>, MixedMemory> {
        let want = Want {
            reg: base,
            off: i64::from(off),
            length: i64::from(size.bytes()),
            write,
        };
        // Checked before: an access without a place has been refused.
        let Ok(place) = place::resolve(self.rules.program, state, want) else {
            return Ok(None);
        };
        if !self.record.access(self.pc, place) {
            return Err(MixedMemory(base));
        }
        if let Place::Stack(frame, span) = place {
            self.record
                .stack_use(state.frame_at(frame).subprog, span.low);
        }
        if let Place::Ctx(at) = place
            && let Some(field) = CtxField::containing(at)
        {
            if write {
                self.record.ctx_writes.insert(field);
            } else {
                self.record.ctx_reads.insert(field);
            }
        }
        Ok(Some(place))
    }

    fn load(
        &mut self,
        state: &mut State,
        size: Size,
        signed: bool,
        dst: Reg,
        at: (Reg, i16),
    ) -> Result<(), MixedMemory> {
        let loaded = match self.place(state, at, size, false)? {
            Some(Place::Stack(frame, span)) => match span.exact() {
                Some(offset) if is_element(size, at.0) => {
                    match state.frame_at(frame).stack.read(offset, size) {
                        Ok(value) => value,
                        Err(_) => Value::Uninit,
                    }
                }
                Some(offset) => self.load_stack(state, frame, offset, size),
                None => Value::number(Scalar::of_size(size)),
            },
            Some(Place::Data(object, span)) => {
                Value::number(self.constant_data(object, span.exact(), size))
            }
            Some(Place::Ctx(_) | Place::Memory | Place::Arena(_) | Place::ArenaMasked) | None => {
                Value::number(Scalar::of_size(size))
            }
        };
        let value = if signed {
            let scalar = number(loaded);
            let most = i64::MAX >> (64 - u32::from(size.bytes()) * 8);
            let link = loaded
                .link()
                .filter(|_| scalar.wide.smin >= 0 && scalar.wide.smax <= most);
            Value::linked(scalar.sign_extend(size, Width::W64), link)
        } else {
            loaded
        };
        state.set(dst, value);
        Ok(())
    }

    /// The value at a known place, linked with the cell it comes from.
    fn load_stack(&mut self, state: &mut State, frame: u8, offset: i64, size: Size) -> Value {
        match state.frame_at(frame).stack.read(offset, size) {
            Ok(Value::Number(scalar, None)) if scalar.as_constant().is_none() => {
                let linked = Value::linked(scalar, self.fresh.link());
                // Also gives loose bytes a cell: what is found out about the loaded value holds for them.
                let whole = state.frame_at(frame).stack.cells().iter().all(|cell| {
                    let start = super::stack::offset(usize::from(cell.start));
                    let end = start + i64::from(cell.size.bytes());
                    end <= offset
                        || offset + i64::from(size.bytes()) <= start
                        || (start == offset && cell.size == size)
                });
                if whole {
                    state.frame_at_mut(frame).stack.write(offset, size, linked);
                    linked
                } else {
                    Value::number(scalar)
                }
            }
            Ok(value) => value,
            Err(_) => Value::Uninit,
        }
    }

    fn constant_data(&self, object: u32, at: Option<i64>, size: Size) -> Scalar {
        let bytes = at.and_then(|at| usize::try_from(at).ok()).and_then(|at| {
            let data = self.rules.program.data().get(object as usize)?;
            data.bytes.get(at..at + usize::from(size.bytes()))
        });
        match bytes {
            Some(bytes) => Scalar::constant(
                bytes
                    .iter()
                    .rev()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte)),
            ),
            None => Scalar::of_size(size),
        }
    }

    fn store(
        &mut self,
        state: &mut State,
        size: Size,
        at: (Reg, i16),
        src: Operand,
    ) -> Result<(), MixedMemory> {
        match self.place(state, at, size, true)? {
            Some(Place::Ctx(offset)) => {
                if offset == CtxField::Rax.offset() {
                    state.ax_written = true;
                }
            }
            Some(Place::Stack(frame, span)) => {
                let value = match src {
                    Operand::Imm(imm) => {
                        Value::number(Scalar::constant(i64::from(imm) as u64).zero_extend(size))
                    }
                    Operand::Reg(src) => self.stored(state, src, size),
                };
                let stack = &mut state.frame_at_mut(frame).stack;
                match span.exact() {
                    Some(offset) if is_element(size, at.0) => {
                        stack.fill(offset, i64::from(size.bytes()));
                    }
                    Some(offset) => stack.write(offset, size, value),
                    None => stack.smudge(span.low, span.high - span.low + i64::from(size.bytes())),
                }
            }
            Some(Place::Data(..) | Place::Memory | Place::Arena(_) | Place::ArenaMasked) | None => {
            }
        }
        Ok(())
    }

    /// What a cell of `size` holds after `src` was stored to it.
    fn stored(&mut self, state: &mut State, src: Reg, size: Size) -> Value {
        let value = self.shared(state, src);
        if size == Size::DW {
            return value;
        }
        let scalar = number(value);
        let cut = scalar.zero_extend(size);
        let mask = u64::MAX >> (64 - u32::from(size.bytes()) * 8);
        let link = if scalar.wide.umax <= mask {
            value.link()
        } else if size == Size::W {
            value.link_after_cut()
        } else {
            None
        };
        Value::linked(cut, link)
    }

    fn atomic(
        &mut self,
        state: &mut State,
        op: AtomicOp,
        size: Size,
        at: (Reg, i16),
        src: Reg,
    ) -> Result<(), MixedMemory> {
        if let Some(Place::Stack(frame, span)) = self.place(state, at, size, true)? {
            let stack = &mut state.frame_at_mut(frame).stack;
            stack.smudge(span.low, span.high - span.low + i64::from(size.bytes()));
        }
        let old = Value::number(Scalar::of_size(size));
        if op == AtomicOp::CmpXchg {
            state.set(Reg::R0, old);
        } else if fetches(op) {
            state.set(src, old);
        }
        Ok(())
    }
}

/// Is this a byte reached through a computed address, an element of a string? What it is is not kept: in a loop over a
/// buffer each path would know other bytes, and none would cover another.
fn is_element(size: Size, base: Reg) -> bool {
    size == Size::B && base != Reg::R10
}

/// r0 is the result, r1 to r5 are gone.
pub(crate) fn after_call(state: &mut State, result: Value) {
    let frame = state.frame_mut();
    for value in &mut frame.regs[1..6] {
        *value = Value::Uninit;
    }
    frame.regs[0] = result;
}

/// The number; of what isn't one, nothing is claimed.
pub(crate) fn number(value: Value) -> Scalar {
    value.as_number().unwrap_or(Scalar::TOP)
}

fn immediate(imm: Imm64) -> Value {
    match imm {
        Imm64::Const(value) => Value::constant(value),
        Imm64::Data { object, offset } => {
            Value::Pointer(Region::Data { object }, Scalar::constant(u64::from(offset)))
        }
        Imm64::Arena { offset } => Value::Pointer(Region::Arena, Scalar::constant(offset)),
        Imm64::Subprog(target) => Value::Callback(target),
    }
}
