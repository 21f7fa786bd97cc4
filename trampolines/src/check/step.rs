//! What one instruction does to the state, and whether a hook may execute it at all.
//!
//! Moves, additions, masks and the stack instructions are followed exactly; a list of others is allowed and makes their
//! results unknown; everything else is refused. Invariant: each write of an allowed instruction, to a register or to
//! memory, is in the state afterwards, because it is taken from iced's operand tables where it isn't spelled out here.

use iced_x86::{Code, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

use super::Problem;
use super::memory::Memory;
use super::state::{RAX, RBP, RCX, RSP, State};
use super::syscall;
use super::value::{Anchor, Kept, Value};
use crate::address::Avma;
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
    machine.share_operands();
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
pub(super) fn rsp_in_frame(memory: Memory<'_>, state: &State) -> Result<(), Problem> {
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
pub(super) struct Machine<'a> {
    pub(super) memory: Memory<'a>,
    pub(super) state: &'a mut State,
    pub(super) insn: &'a Instruction,
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
        let errno = self.memory.policy.errno_location;
        let result = match target.as_constant() {
            Some(target) if errno == Some(Avma(target)) => Value::Errno,
            Some(_) | None => Value::TOP,
        };
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
        self.state.set(RAX, result);
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
            | Value::SignOfRax(_)
            | Value::Errno) => Err(Problem::ReturnAddress {
                known: value.to_string(),
            }),
        }
    }

    fn syscall(&mut self) -> Result<Flow, Problem> {
        let number = syscall::check(self.memory, self.state)?;
        if number == syscall::PROCESS_VM_WRITEV {
            // Anywhere, our frame included: a patch that may do this is trusted as the application is.
            self.state.forget_after_call();
        }
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
        let or = self.or_of();
        let quotient = self.quotient();
        let exchanged = self.exchanged()?;
        let compared = self.comparison();
        self.clobber(factory)?;
        if let Some(value) = result {
            self.write_result(value)?;
        }
        if let Some(or) = or {
            self.state.remember_or(or);
        }
        for (register, value) in quotient.into_iter().flatten() {
            self.state.set(register, value);
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
}
