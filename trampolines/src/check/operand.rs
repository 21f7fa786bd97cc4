//! Operands: what an instruction reads, and everything that it writes.
//!
//! Memory is checked wherever it is touched. Invariant: [`Machine::clobber`] makes each register and word that iced's operand
//! tables call written unknown, so that what isn't followed exactly is at least forgotten.

use iced_x86::{InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory};

use super::Problem;
use super::memory::{Access, Place, gpr};
use super::number::Number;
use super::range::mask;
use super::state::{RDX, RSP, bits};
use super::step::{Machine, rsp_in_frame};
use super::value::Value;

impl Machine<'_> {
    pub(super) fn push(&mut self, value: Value, size: i64) -> Result<(), Problem> {
        let width = self.insn.stack_pointer_increment();
        if self.insn.mnemonic() != Mnemonic::Call && i64::from(width) != -size {
            return Err(Problem::NotAllowed); // 16-bit pushes
        }
        let rsp = self.state.reg(RSP).sub(Value::constant(size as u64), 64);
        self.state.set(RSP, rsp);
        rsp_in_frame(self.memory, self.state)?;
        self.store_at(rsp, size, value)
    }

    pub(super) fn pop(&mut self, size: i64) -> Result<Value, Problem> {
        let width = i64::from(self.insn.stack_pointer_increment());
        if !matches!(self.insn.mnemonic(), Mnemonic::Leave) && width != size {
            return Err(Problem::NotAllowed);
        }
        let rsp = self.state.reg(RSP);
        let value = self.load_at(rsp, size)?;
        self.state
            .set(RSP, rsp.add(Value::constant(size as u64), 64));
        Ok(value)
    }

    pub(super) fn store_at(
        &mut self,
        address: Value,
        size: i64,
        value: Value,
    ) -> Result<(), Problem> {
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

    pub(super) fn load_at(&self, address: Value, size: i64) -> Result<Value, Problem> {
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
    pub(super) fn width(&self, index: u32) -> u32 {
        match self.insn.op_kind(index) {
            OpKind::Register => (self.insn.op_register(index).size() as u32).saturating_mul(8),
            OpKind::Memory => (self.insn.memory_size().size() as u32).saturating_mul(8),
            _ => 64,
        }
    }

    /// Operand `index` as it is read, zero-extended; memory is checked.
    pub(super) fn operand_of(&self, index: u32) -> Result<Value, Problem> {
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

    pub(super) fn has_segment(&self, used: &UsedMemory) -> bool {
        matches!(used.segment(), Register::FS | Register::GS)
    }

    /// The explicit memory operand.
    pub(super) fn named_memory(&self) -> UsedMemory {
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
    pub(super) fn effective_address(&self) -> Value {
        let address = self.memory.address(self.state, &self.named_memory());
        if self.insn.op0_kind() == OpKind::Register {
            address.truncate(self.width(0))
        } else {
            address
        }
    }

    /// Checks every access to memory and makes every register and word that is written unknown.
    pub(super) fn clobber(&mut self, factory: &mut InstructionInfoFactory) -> Result<(), Problem> {
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
    pub(super) fn forget_register(&mut self, number: u8, register: Register, access: OpAccess) {
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
                Value::Num(known, _) => {
                    let written = mask(if size == 2 { 16 } else { 8 }) | high_byte(register);
                    Value::Num(Number::between(0, known.umax() | written), None)
                }
                _ => Value::TOP,
            },
            _ => Value::TOP,
        };
        self.state.set(number, value);
    }

    /// Writes the first operand, whose memory was checked by [`Self::clobber`] or is checked here.
    pub(super) fn write_result(&mut self, value: Value) -> Result<(), Problem> {
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

pub(super) const fn high_byte(register: Register) -> u64 {
    match register {
        Register::AH | Register::BH | Register::CH | Register::DH => 0xff00,
        _ => 0,
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
