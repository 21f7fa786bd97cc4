//! What one instruction does to the state, and whether a hook may execute it at all.
//!
//! Moves, additions, masks and the stack instructions are followed exactly; a list of others is allowed and makes their
//! results unknown; everything else is refused. Invariant: each write of an allowed instruction, to a register or to
//! memory, is in the state afterwards, because it is taken from iced's operand tables where it isn't spelled out here.

use iced_x86::{
    Code, ConditionCode, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
    UsedMemory,
};

use super::Problem;
use super::memory::{Access, Memory, Place, gpr};
use super::state::{Compared, RAX, RBP, RCX, RDX, RSP, State, bits};
use super::syscall;
use super::value::{Anchor, Kept, Value, mask};
use crate::fragment::GprSet;

/// Where control goes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// To the following instruction.
    Next,
    /// To this address.
    Jump(u64),
    /// To this address or to the following instruction.
    Branch(u64),
    /// Into a subroutine of the image; the return address has been pushed.
    Call(u64),
    /// Back to this caller inside the image.
    Return(u64),
    /// Out of the hook by its own `ret`.
    Leave,
}

/// Executes `insn` abstractly.
pub(crate) fn step(
    memory: Memory<'_>,
    factory: &mut InstructionInfoFactory,
    state: &mut State,
    insn: &Instruction,
) -> Result<Flow, Problem> {
    if insn.has_xacquire_prefix()
        || insn.has_xrelease_prefix()
        || insn.has_rep_prefix()
        || insn.has_repne_prefix()
    {
        return Err(Problem::NotAllowed);
    }
    let mut machine = Machine {
        memory,
        state,
        insn,
    };
    let flow = match insn.mnemonic() {
        Mnemonic::Jmp => machine.jump()?,
        Mnemonic::Call => machine.call()?,
        Mnemonic::Ret => machine.ret()?,
        Mnemonic::Syscall => machine.syscall()?,
        _ if insn.is_jcc_short_or_near() => Flow::Branch(insn.near_branch_target()),
        _ => {
            machine.straight(factory)?;
            Flow::Next
        }
    };
    rsp_in_frame(memory, state)?;
    Ok(flow)
}

/// rsp is known, and inside the frame that the image declares.
fn rsp_in_frame(memory: Memory<'_>, state: &State) -> Result<(), Problem> {
    let stack_bytes = memory.image.stack_bytes;
    let Some((anchor, offset)) = state.rsp() else {
        return Err(Problem::RspUnknown {
            known: state.reg(RSP).to_string(),
        });
    };
    let (low, high) = state.bounds(anchor, offset);
    if low < -i64::from(stack_bytes) || high > 0 {
        return Err(Problem::RspOutside {
            offset: if high > 0 { high } else { low },
            stack_bytes,
        });
    }
    Ok(())
}

/// One instruction in one state.
struct Machine<'a> {
    memory: Memory<'a>,
    state: &'a mut State,
    insn: &'a Instruction,
}

impl Machine<'_> {
    fn jump(&self) -> Result<Flow, Problem> {
        if self.insn.is_jmp_short_or_near() {
            return Ok(Flow::Jump(self.insn.near_branch_target()));
        }
        // No jump tables: nothing that a hook needs, and the target of a tail call isn't ours to leave from.
        let known = self
            .operand_of(0)
            .map_or_else(|_| "unknown".to_owned(), |value| value.to_string());
        Err(Problem::Indirect { known })
    }

    fn call(&mut self) -> Result<Flow, Problem> {
        if self.insn.code() == Code::Call_rel32_64 {
            self.push(Value::Return(self.insn.next_ip()), 8)?;
            return Ok(Flow::Call(self.insn.near_branch_target()));
        }
        if self.insn.code() != Code::Call_rm64 {
            return Err(Problem::NotAllowed);
        }
        let target = self.operand_of(0)?;
        let allowed = |target: u64| {
            self.memory
                .policy
                .externs
                .iter()
                .any(|known| known.0 == target)
        };
        if !target.as_constant().is_some_and(allowed) {
            return Err(Problem::Indirect {
                known: target.to_string(),
            });
        }
        if !self.memory.image.calls_application || self.memory.policy.vectors.is_none() {
            return Err(Problem::UndeclaredCall);
        }
        let aligned = match self.state.rsp() {
            Some((Anchor::Aligned, offset)) => offset.rem_euclid(16) == 0,
            // At a function's entry rsp is 8 above a multiple of 16 (psABI §3.2.2).
            Some((Anchor::Entry, offset)) => {
                self.memory.image.displaced.kind() == crate::function::SiteKind::Entry
                    && offset.rem_euclid(16) == 8
            }
            None => false,
        };
        if !aligned {
            return Err(Problem::CallAlignment);
        }
        // The callee's return address lies in our frame for a moment.
        let rsp = self.state.reg(RSP);
        self.push(Value::Return(self.insn.next_ip()), 8)?;
        self.state.set(RSP, rsp);
        self.state.forget_after_call();
        for number in GprSet::CALLER_SAVED.iter() {
            self.state.set(number, Value::TOP);
        }
        self.state.flags = Kept::Changed;
        self.state.compared = None;
        self.state.vectors = Kept::Changed;
        Ok(Flow::Next)
    }

    fn ret(&mut self) -> Result<Flow, Problem> {
        if self.insn.code() != Code::Retnq {
            return Err(Problem::NotAllowed);
        }
        if self.state.reg(RSP) == Value::Stack(Anchor::Entry, 0, 0) {
            return Ok(Flow::Leave);
        }
        match self.pop(8)? {
            Value::Return(to) => Ok(Flow::Return(to)),
            value @ (Value::Num(..)
            | Value::Entry(_)
            | Value::Stack(..)
            | Value::Flags(_)
            | Value::SignOfRax(_)) => Err(Problem::ReturnAddress {
                known: value.to_string(),
            }),
        }
    }

    fn syscall(&mut self) -> Result<Flow, Problem> {
        syscall::check(self.memory, self.state)?;
        self.state.forget_after_call();
        for number in [RAX, RCX, 11] {
            self.state.set(number, Value::TOP);
        }
        Ok(Flow::Next)
    }

    /// Everything that control only passes through.
    fn straight(&mut self, factory: &mut InstructionInfoFactory) -> Result<(), Problem> {
        let insn = self.insn;
        match insn.mnemonic() {
            Mnemonic::Push => {
                let value = self.operand_of(0)?;
                self.push(value, 8)
            }
            Mnemonic::Pop if insn.op0_kind() == OpKind::Register => {
                let value = self.pop(8)?;
                self.write_result(value)
            }
            Mnemonic::Pushfq => self.push(Value::Flags(self.state.flags), 8),
            Mnemonic::Popfq => match self.pop(8)? {
                Value::Flags(saved) => {
                    self.state.flags = saved;
                    self.state.compared = None;
                    Ok(())
                }
                value => Err(Problem::PopsFlags {
                    known: value.to_string(),
                }),
            },
            Mnemonic::Leave => {
                let frame = self.state.reg(RBP);
                self.state.set(RSP, frame);
                rsp_in_frame(self.memory, self.state)?;
                let value = self.pop(8)?;
                self.state.set(RBP, value);
                Ok(())
            }
            Mnemonic::Xsave | Mnemonic::Xsave64 | Mnemonic::Xsavec | Mnemonic::Xsavec64 => {
                self.xsave()
            }
            Mnemonic::Xrstor | Mnemonic::Xrstor64 => self.xrstor(),
            _ => self.compute(factory),
        }
    }

    /// Instructions that read operands and write a result.
    fn compute(&mut self, factory: &mut InstructionInfoFactory) -> Result<(), Problem> {
        let insn = self.insn;
        if !super::allowed::is_allowed(insn.mnemonic()) {
            return Err(Problem::NotAllowed);
        }
        // A bit number in a register reaches far beyond the operand (SDM vol. 2, BT).
        let bit_test = matches!(
            insn.mnemonic(),
            Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
        );
        if bit_test && insn.op0_kind() == OpKind::Memory {
            return Err(Problem::NotAllowed);
        }
        if insn.mnemonic() == Mnemonic::And
            && insn.op0_kind() == OpKind::Register
            && insn.op0_register() == Register::RSP
        {
            return self.align();
        }
        self.check_division()?;
        // Evaluated before anything is written.
        let result = self.result()?;
        let exchanged = self.exchanged()?;
        let compared = self.comparison();
        self.clobber(factory)?;
        if let Some(value) = result {
            self.write_result(value)?;
        }
        if let Some([first, second]) = exchanged {
            self.state.set(first.0, second.1);
            self.state.set(second.0, first.1);
        }
        if insn.rflags_modified() != 0 {
            self.state.flags = Kept::Changed;
            self.state.compared = compared;
        }
        Ok(())
    }

    /// The value that the first operand gets, if it is followed; `None` leaves what [`Self::clobber`] made of it.
    fn result(&self) -> Result<Option<Value>, Problem> {
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
    fn exchanged(&self) -> Result<Option<[(u8, Value); 2]>, Problem> {
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
    fn source(&self) -> Result<Value, Problem> {
        let value = self.operand_of(1)?;
        Ok(self.state.number(value))
    }

    fn shift_count(&self, width: u32) -> Option<u32> {
        let count = (self.insn.op1_kind() == OpKind::Immediate8)
            .then(|| u32::from(self.insn.immediate8()))?;
        Some(count & if width == 64 { 63 } else { 31 })
    }

    /// The operands of `cmp reg, constant` and `test reg, reg`.
    fn comparison(&self) -> Option<Compared> {
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
    fn check_division(&self) -> Result<(), Problem> {
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

    /// `and rsp, -64`.
    fn align(&mut self) -> Result<(), Problem> {
        let mask = self.operand_of(1)?.as_constant();
        match self.state.rsp() {
            Some((Anchor::Entry, offset))
                if mask == Some((-64i64) as u64) && self.width(0) == 64 =>
            {
                self.state.align_rsp(offset);
                self.state.flags = Kept::Changed;
                Ok(())
            }
            Some(_) | None => Err(Problem::Alignment),
        }
    }

    /// Saves vector registers to a known, 64-aligned, cleared area of the frame (SDM vol. 1 §13.7-13.11).
    fn xsave(&mut self) -> Result<(), Problem> {
        let (offset, len, saved_mask) = self.xsave_area(Access::Store)?;
        // XSAVE leaves the rest of the header as it is, and XRSTOR raises #GP unless it is zero.
        let compacted = matches!(self.insn.mnemonic(), Mnemonic::Xsavec | Mnemonic::Xsavec64);
        let first = if compacted { 528 } else { 520 };
        let cleared = (first..576).step_by(8).all(|at| {
            self.state
                .load(Anchor::Aligned, offset.saturating_add(at), 8)
                == Value::constant(0)
        });
        if !cleared {
            return Err(Problem::Xsave {
                reason: "the area's header was not cleared",
            });
        }
        self.state.store(Anchor::Aligned, offset, offset, len, None);
        if self.state.vectors == Kept::Entry {
            self.state.saved_vectors = Some(super::state::SavedVectors {
                offset,
                len,
                mask: saved_mask,
            });
        }
        Ok(())
    }

    fn xrstor(&mut self) -> Result<(), Problem> {
        let (offset, len, wanted) = self.xsave_area(Access::Load)?;
        match self.state.saved_vectors {
            Some(saved) if saved.offset == offset && saved.len == len && saved.mask == wanted => {
                self.state.vectors = Kept::Entry;
                Ok(())
            }
            Some(_) | None => Err(Problem::Xsave {
                reason: "nothing is known to be saved there",
            }),
        }
    }

    /// Offset, length and component mask of the area that the instruction uses.
    fn xsave_area(&self, access: Access) -> Result<(i64, i64, u64), Problem> {
        let Some(vectors) = self.memory.policy.vectors else {
            return Err(Problem::Xsave {
                reason: "no vector state is declared",
            });
        };
        let (Some(low), Some(high)) = (
            self.state.reg(RAX).as_constant(),
            self.state.reg(RDX).as_constant(),
        ) else {
            return Err(Problem::Xsave {
                reason: "the component mask in edx:eax is not constant",
            });
        };
        let components = (low & 0xffff_ffff) | (high << 32);
        if components & vectors.mask != vectors.mask {
            return Err(Problem::Xsave {
                reason: "the component mask in edx:eax lacks components",
            });
        }
        match self.effective_address() {
            Value::Stack(Anchor::Aligned, first, last)
                if first == last && first.rem_euclid(64) == 0 =>
            {
                let address = Value::Stack(Anchor::Aligned, first, last);
                self.memory
                    .check(self.state, address, u64::from(vectors.bytes), access)?;
                Ok((first, i64::from(vectors.bytes), components))
            }
            _ => Err(Problem::Xsave {
                reason: "the area is not known to be aligned to 64",
            }),
        }
    }

    fn push(&mut self, value: Value, size: i64) -> Result<(), Problem> {
        let width = self.insn.stack_pointer_increment();
        if self.insn.mnemonic() != Mnemonic::Call && i64::from(width) != -size {
            return Err(Problem::NotAllowed); // 16-bit pushes
        }
        let rsp = self.state.reg(RSP).sub(Value::constant(size as u64));
        self.state.set(RSP, rsp);
        rsp_in_frame(self.memory, self.state)?;
        self.store_at(rsp, size, value)
    }

    fn pop(&mut self, size: i64) -> Result<Value, Problem> {
        let width = i64::from(self.insn.stack_pointer_increment());
        if !matches!(self.insn.mnemonic(), Mnemonic::Leave) && width != size {
            return Err(Problem::NotAllowed);
        }
        let rsp = self.state.reg(RSP);
        let value = self.load_at(rsp, size)?;
        self.state.set(RSP, rsp.add(Value::constant(size as u64)));
        Ok(value)
    }

    fn store_at(&mut self, address: Value, size: i64, value: Value) -> Result<(), Problem> {
        match self
            .memory
            .check(self.state, address, size as u64, Access::Store)?
        {
            Place::Frame(anchor, low, high) => {
                self.state.store(anchor, low, high, size, Some(value))
            }
            Place::Elsewhere(_) => {}
        }
        Ok(())
    }

    fn load_at(&self, address: Value, size: i64) -> Result<Value, Problem> {
        Ok(
            match self
                .memory
                .check(self.state, address, size as u64, Access::Load)?
            {
                Place::Frame(anchor, low, high) if low == high => {
                    self.state.load(anchor, low, size)
                }
                Place::Elsewhere(Some(known)) => Value::constant(known),
                Place::Frame(..) | Place::Elsewhere(None) => Value::below_bits(bits(size)),
            },
        )
    }

    /// Bits of operand `index`.
    fn width(&self, index: u32) -> u32 {
        match self.insn.op_kind(index) {
            OpKind::Register => (self.insn.op_register(index).size() as u32).saturating_mul(8),
            OpKind::Memory => (self.insn.memory_size().size() as u32).saturating_mul(8),
            _ => 64,
        }
    }

    /// Operand `index` as it is read, zero-extended; memory is checked.
    fn operand_of(&self, index: u32) -> Result<Value, Problem> {
        match self.insn.op_kind(index) {
            OpKind::Register => {
                let register = self.insn.op_register(index);
                let Some(number) = gpr(register) else {
                    return Err(Problem::Register {
                        register: format!("{register:?}").to_lowercase(),
                    });
                };
                let high_byte = matches!(
                    register,
                    Register::AH | Register::BH | Register::CH | Register::DH
                );
                let value = self.state.reg(number);
                Ok(if high_byte {
                    Value::below_bits(8)
                } else if register.is_gpr64() {
                    value
                } else {
                    self.state.number(value).truncate(self.width(index))
                })
            }
            OpKind::Memory => {
                let used = self.named_memory();
                match i64::try_from(self.insn.memory_size().size()) {
                    Ok(size @ (1 | 2 | 4 | 8)) => {
                        if self.has_segment(&used) {
                            self.memory.thread_local(self.insn, &used, Access::Load)?;
                            return Ok(Value::below_bits(bits(size)));
                        }
                        self.load_at(self.memory.address(self.state, &used), size)
                    }
                    _ => Err(Problem::NotAllowed),
                }
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                Err(Problem::NotAllowed)
            }
            _ => {
                let width = if index > 0 { self.width(0) } else { 64 };
                let immediate = self
                    .insn
                    .try_immediate(index)
                    .map_err(|_| Problem::NotAllowed)?;
                Ok(Value::constant(immediate & mask(width)))
            }
        }
    }

    fn has_segment(&self, used: &UsedMemory) -> bool {
        matches!(used.segment(), Register::FS | Register::GS)
    }

    /// The explicit memory operand.
    fn named_memory(&self) -> UsedMemory {
        let insn = self.insn;
        UsedMemory::new(
            insn.memory_segment(),
            insn.memory_base(),
            insn.memory_index(),
            insn.memory_index_scale(),
            insn.memory_displacement64(),
            insn.memory_size(),
            OpAccess::None,
        )
    }

    /// The address that the memory operand names, whether or not it is accessed.
    fn effective_address(&self) -> Value {
        let address = self.memory.address(self.state, &self.named_memory());
        if self.insn.op0_kind() == OpKind::Register {
            address.truncate(self.width(0))
        } else {
            address
        }
    }

    /// Checks every access to memory and makes every register and word that is written unknown.
    fn clobber(&mut self, factory: &mut InstructionInfoFactory) -> Result<(), Problem> {
        let info = factory.info(self.insn).clone();
        for used in info.used_memory() {
            let (reads, writes) = reads_writes(used.access());
            if !reads && !writes {
                continue;
            }
            let size = used.memory_size().size() as u64;
            if size == 0 {
                return Err(Problem::NotAllowed);
            }
            for (does, access) in [(reads, Access::Load), (writes, Access::Store)] {
                if !does {
                    continue;
                }
                let place = if self.has_segment(used) {
                    self.memory.thread_local(self.insn, used, access)?
                } else {
                    self.memory.check(
                        self.state,
                        self.memory.address(self.state, used),
                        size,
                        access,
                    )?
                };
                if let (Access::Store, Place::Frame(anchor, low, high)) = (access, place) {
                    self.state.store(
                        anchor,
                        low,
                        high,
                        i64::try_from(size).unwrap_or(i64::MAX),
                        None,
                    );
                }
            }
        }
        for used in info.used_registers() {
            let (_, writes) = reads_writes(used.access());
            let register = used.register();
            let Some(number) = gpr(register) else {
                let segment = register.is_segment_register() && !writes;
                if segment {
                    continue;
                }
                return Err(Problem::Register {
                    register: format!("{register:?}").to_lowercase(),
                });
            };
            if writes {
                self.forget_register(number, register, used.access());
            }
        }
        Ok(())
    }

    /// A register of some width gets an unknown value.
    fn forget_register(&mut self, number: u8, register: Register, access: OpAccess) {
        let insn = self.insn;
        let before = self.state.number(self.state.reg(number));
        // iced reports writes of 32-bit registers as writes of the whole; the operand tells that the upper half is zero.
        // A write that may not happen (cmpxchg) may leave the upper half as well.
        let surely = matches!(access, OpAccess::Write | OpAccess::ReadWrite);
        let upper_half_cleared = insn.op0_kind() == OpKind::Register
            && insn.op0_register().is_gpr32()
            && gpr(insn.op0_register()) == Some(number)
            && surely;
        let value = match (insn.mnemonic(), register.size()) {
            (Mnemonic::Cqo, _) if number == RDX => Value::SignOfRax(64),
            (Mnemonic::Cdq, _) if number == RDX => Value::SignOfRax(32),
            (_, 4 | 8) if upper_half_cleared => Value::below_bits(32),
            (_, size @ (1 | 2)) => match before {
                Value::Num(_, high) => Value::Num(
                    0,
                    high | mask(if size == 2 { 16 } else { 8 }) | high_byte(register),
                ),
                _ => Value::TOP,
            },
            _ => Value::TOP,
        };
        self.state.set(number, value);
    }

    /// Writes the first operand, whose memory was checked by [`Self::clobber`] or is checked here.
    fn write_result(&mut self, value: Value) -> Result<(), Problem> {
        let insn = self.insn;
        let width = self.width(0);
        match insn.op0_kind() {
            OpKind::Register => {
                let register = insn.op0_register();
                let Some(number) = gpr(register) else {
                    return Err(Problem::Register {
                        register: format!("{register:?}").to_lowercase(),
                    });
                };
                match width {
                    64 => self.state.set(number, value),
                    32 => self
                        .state
                        .set(number, self.state.number(value).truncate(32)),
                    // Part of a register: what clobber left is right.
                    _ => self.forget_register(number, register, OpAccess::ReadWrite),
                }
                Ok(())
            }
            OpKind::Memory => {
                let used = self.named_memory();
                if self.has_segment(&used) {
                    self.memory.thread_local(insn, &used, Access::Store)?;
                    return Ok(());
                }
                let address = self.memory.address(self.state, &used);
                let size = i64::try_from(insn.memory_size().size()).unwrap_or(i64::MAX);
                let value = if size == 8 {
                    value
                } else {
                    self.state.number(value).truncate(width)
                };
                self.store_at(address, size, value)
            }
            _ => Err(Problem::NotAllowed),
        }
    }
}

const fn high_byte(register: Register) -> u64 {
    match register {
        Register::AH | Register::BH | Register::CH | Register::DH => 0xff00,
        _ => 0,
    }
}

fn wrap(value: Value, width: u32) -> Value {
    if width >= 64 {
        value
    } else {
        value.truncate(width)
    }
}

fn reads_writes(access: OpAccess) -> (bool, bool) {
    match access {
        OpAccess::Read | OpAccess::CondRead => (true, false),
        OpAccess::Write | OpAccess::CondWrite => (false, true),
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
        OpAccess::None | OpAccess::NoMemAccess => (false, false),
    }
}

/// What a conditional branch shows about the register that was compared; `false` if it can't go that way.
pub(crate) fn refine(state: &mut State, condition: ConditionCode, taken: bool) -> bool {
    use ConditionCode as C;
    let Some(Compared {
        register,
        bits,
        with,
    }) = state.compared
    else {
        return true;
    };
    let Value::Num(low, high) = state.number(state.reg(register)) else {
        return true;
    };
    if high > mask(bits) {
        return true;
    }
    // Where neither side has its sign bit set, signed order is unsigned order.
    let positive = high <= mask(bits - 1) && with <= mask(bits - 1);
    let below = |limit: Option<u64>| limit.map(|limit| (low, high.min(limit)));
    let above = |limit: Option<u64>| limit.map(|limit| (low.max(limit), high));
    let narrowed = match (condition, taken) {
        (C::e, true) | (C::ne, false) => Some((low.max(with), high.min(with))),
        (C::e, false) | (C::ne, true) if low == with => low.checked_add(1).map(|low| (low, high)),
        (C::e, false) | (C::ne, true) if high == with => {
            high.checked_sub(1).map(|high| (low, high))
        }
        (C::e, false) | (C::ne, true) => Some((low, high)),
        (C::b, true) | (C::ae, false) => below(with.checked_sub(1)),
        (C::b, false) | (C::ae, true) => above(Some(with)),
        (C::be, true) | (C::a, false) => below(Some(with)),
        (C::be, false) | (C::a, true) => above(with.checked_add(1)),
        (C::l, true) | (C::ge, false) if positive => below(with.checked_sub(1)),
        (C::l, false) | (C::ge, true) if positive => above(Some(with)),
        (C::le, true) | (C::g, false) if positive => below(Some(with)),
        (C::le, false) | (C::g, true) if positive => above(with.checked_add(1)),
        _ => return true,
    };
    match narrowed {
        Some((low, high)) if low <= high => {
            state.refine(register, low, high);
            true
        }
        Some(_) | None => false,
    }
}
