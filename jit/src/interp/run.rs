//! Executing instructions, calls aside.
//!
//! Section numbers are RFC 9669's. Memory is behind `memory`, calls are in `call`, arithmetic is
//! `upatch_verifier::semantics`.

use upatch_abi::ctx;
use upatch_verifier::facts::Access;
use upatch_verifier::insn::{AluOp, AtomicOp, Imm64, Insn, Operand, Pc, Reg, Size};
use upatch_verifier::program::ProgramKind;
use upatch_verifier::semantics;

use super::call::Frame;
use super::helpers::Helpers;
use super::machine::{Fault, Machine};
use super::memory::{CODE_BASE, CTX_BASE, MEMORY_BASE, Memory, confine};

/// A bit per register: has it been written?
const ALL_REGS: u16 = 0x7ff;

/// One run of a program.
pub(super) struct Run<'p, 'h> {
    pub(super) machine: Machine<'p>,
    pub(super) helpers: &'h mut dyn Helpers,
    pub(super) memory: Memory,
    pub(super) regs: [u64; 11],
    pub(super) written: u16,
    pub(super) frames: Vec<Frame>,
    pub(super) pc: Pc,
    steps: u64,
    step_limit: u64,
    may_goto: u64,
    /// Base and window.
    arena: (u64, u64),
}

impl<'p, 'h> Run<'p, 'h> {
    pub(super) fn new(
        machine: Machine<'p>,
        helpers: &'h mut dyn Helpers,
        memory: Memory,
        arena: (u64, u64),
        step_limit: u64,
    ) -> Self {
        Self {
            machine,
            helpers,
            memory,
            regs: [0; 11],
            written: if machine.strict { 0 } else { ALL_REGS },
            frames: Vec::new(),
            pc: Pc(0),
            steps: 0,
            step_limit,
            may_goto: machine.facts.may_goto_budget,
            arena,
        }
    }

    /// Executed instructions.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// The content of the region at `base`, at the end.
    pub(super) fn take(&mut self, base: u64) -> Vec<u8> {
        self.memory.take(base)
    }

    pub(super) fn execute(
        &mut self,
        observer: &mut dyn FnMut(Pc, &[u64; 11]),
    ) -> Result<u64, Fault> {
        self.enter_frame(Pc(0));
        let program = self.machine.program;
        match program.kind() {
            // r1 points at the memory, r2 is its length.
            ProgramKind::Memory { mem_len } => {
                let base = if mem_len == 0 { 0 } else { MEMORY_BASE };
                self.set(Reg::R1, base);
                self.set(Reg::R2, mem_len.into());
            }
            ProgramKind::PatchEntry | ProgramKind::PatchOffset | ProgramKind::Probe => {
                self.set(Reg::R1, CTX_BASE);
            }
        }
        loop {
            let at = self.pc;
            let Some(&insn) = program.insns().get(at.index()) else {
                return Err(Fault::NoInstruction { at });
            };
            if self.machine.facts.reachable.get(at.index()) != Some(&true) {
                return Err(Fault::Unreachable { at });
            }
            if self.steps >= self.step_limit {
                let limit = self.step_limit;
                return Err(Fault::StepLimit { at, limit });
            }
            self.steps += 1;
            observer(at, &self.regs);
            self.pc = Pc(at.0 + insn.slots());
            if let Some(r0) = self.step(at, insn)? {
                return Ok(r0);
            }
        }
    }

    /// Executes one instruction; r0 if it ended the program.
    fn step(&mut self, at: Pc, insn: Insn) -> Result<Option<u64>, Fault> {
        match insn {
            // §4.1
            Insn::Alu {
                op,
                width,
                dst,
                src,
            } => {
                // A move doesn't read what it overwrites.
                let a = match op {
                    AluOp::Mov => 0,
                    _ => self.get(at, dst)?,
                };
                let b = self.operand(at, src)?;
                self.set(dst, semantics::alu(op, width, a, b));
            }
            Insn::MovSx {
                width,
                from,
                dst,
                src,
            } => {
                let value = self.get(at, src)?;
                self.set(dst, semantics::movsx(width, from, value));
            }
            Insn::Neg { width, dst } => {
                let value = self.get(at, dst)?;
                self.set(dst, semantics::neg(width, value));
            }
            // §4.2
            Insn::Endian { op, bits, dst } => {
                let value = self.get(at, dst)?;
                self.set(dst, semantics::endian(op, bits, value));
            }
            // Linux's: an arena has one address in every process that maps it, so both address spaces have the same
            // pointers and a cast changes nothing.
            Insn::AddrSpaceCast { cast: _, dst, src } => {
                let value = self.get(at, src)?;
                self.set(dst, value);
            }
            // §5.4
            Insn::LdImm64 { dst, imm } => {
                let value = self.imm64(imm);
                self.set(dst, value);
            }
            Insn::LdImm64Tail => return Err(Fault::NoInstruction { at }),
            // §5.1, §5.2
            Insn::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => {
                let value = self.load(at, size, base, off)?;
                let value = if signed {
                    semantics::sign_extend(size, value)
                } else {
                    value
                };
                self.set(dst, value);
            }
            Insn::Store {
                size,
                base,
                off,
                src,
            } => {
                let value = self.operand(at, src)?;
                self.store(at, size, base, off, value)?;
            }
            // §5.3
            Insn::Atomic {
                op,
                size,
                base,
                off,
                src,
            } => {
                let operand = self.get(at, src)?;
                let compared = match op {
                    AtomicOp::CmpXchg => self.get(at, Reg::R0)?,
                    _ => self.reg(Reg::R0),
                };
                let old = self.load(at, size, base, off)?;
                let new = semantics::atomic(op, size, old, operand, compared);
                self.store(at, size, base, off, new.memory)?;
                if new.src != operand {
                    self.set(src, new.src);
                }
                if let AtomicOp::CmpXchg = op {
                    self.set(Reg::R0, new.r0);
                }
            }
            // Linux's; there is one thread, so the order is trivial.
            Insn::LoadAcquire {
                size,
                dst,
                base,
                off,
            } => {
                let value = self.load(at, size, base, off)?;
                self.set(dst, value);
            }
            Insn::StoreRelease {
                size,
                base,
                off,
                src,
            } => {
                let value = self.get(at, src)?;
                self.store(at, size, base, off, value)?;
            }
            // §4.3
            Insn::Jump { target } => self.pc = target,
            Insn::JumpIf {
                op,
                width,
                dst,
                src,
                target,
            } => {
                let (a, b) = (self.get(at, dst)?, self.operand(at, src)?);
                if semantics::compare(op, width, a, b) {
                    self.pc = target;
                }
            }
            Insn::MayGoto { target } => match self.may_goto.checked_sub(1) {
                Some(left) => self.may_goto = left,
                None => self.pc = target,
            },
            Insn::Call { callee } => self.call(at, callee)?,
            Insn::Exit => return self.exit(at),
        }
        Ok(None)
    }

    // Registers.

    pub(super) fn reg(&self, reg: Reg) -> u64 {
        self.regs.get(reg.index()).copied().unwrap_or(0)
    }

    pub(super) fn get(&self, at: Pc, reg: Reg) -> Result<u64, Fault> {
        if self.written >> reg.number() & 1 == 0 {
            return Err(Fault::UninitRegister { at, reg });
        }
        Ok(self.reg(reg))
    }

    pub(super) fn set(&mut self, reg: Reg, value: u64) {
        if let Some(place) = self.regs.get_mut(reg.index()) {
            *place = value;
        }
        self.written |= 1 << reg.number();
    }

    fn operand(&self, at: Pc, operand: Operand) -> Result<u64, Fault> {
        match operand {
            Operand::Reg(reg) => self.get(at, reg),
            Operand::Imm(imm) => Ok(i64::from(imm).cast_unsigned()),
        }
    }

    /// From now on these hold nothing (calls clobber r1 to r5).
    pub(super) fn forget(&mut self, regs: u16) {
        if self.machine.strict {
            self.written &= !regs;
        }
    }

    fn imm64(&self, imm: Imm64) -> u64 {
        match imm {
            Imm64::Const(value) => value,
            Imm64::Data { object, offset } => {
                let base = self.machine.data_bases().nth(object as usize);
                base.unwrap_or(0).wrapping_add(offset.into())
            }
            Imm64::Arena { offset } => self.arena.0.wrapping_add(offset),
            Imm64::Subprog(target) => CODE_BASE + 8 * u64::from(target.0),
        }
    }

    // Memory.

    /// The address of an access, held against what was proven about it.
    fn address(&self, at: Pc, base: Reg, off: i16) -> Result<u64, Fault> {
        let base = self.get(at, base)?;
        let addr = base.wrapping_add(i64::from(off).cast_unsigned());
        let proven = self.machine.facts.access.get(at.index()).copied();
        match proven.flatten() {
            None => Err(Fault::Unreachable { at }),
            Some(Access::ArenaMasked) => {
                let confined = confine(self.arena.0, self.arena.1, addr);
                // Atomics go to a multiple of their size.
                Ok(match self.machine.program.insns().get(at.index()) {
                    Some(Insn::Atomic { size, .. }) => confined & !(u64::from(size.bytes()) - 1),
                    _ => confined,
                })
            }
            Some(proven @ Access::Ctx { offset }) => {
                if addr == CTX_BASE + u64::from(offset) {
                    Ok(addr)
                } else {
                    Err(Fault::WrongAccess { at, addr, proven })
                }
            }
            Some(proven @ Access::Plain) => {
                if self.machine.strict && addr.wrapping_sub(CTX_BASE) < ctx::SIZE.into() {
                    Err(Fault::WrongAccess { at, addr, proven })
                } else {
                    Ok(addr)
                }
            }
        }
    }

    fn load(&self, at: Pc, size: Size, base: Reg, off: i16) -> Result<u64, Fault> {
        let addr = self.address(at, base, off)?;
        self.memory
            .load(addr, size.bytes())
            .map_err(|fault| Fault::Memory { at, fault })
    }

    fn store(&mut self, at: Pc, size: Size, base: Reg, off: i16, value: u64) -> Result<(), Fault> {
        let addr = self.address(at, base, off)?;
        self.memory
            .store(addr, size.bytes(), value)
            .map_err(|fault| Fault::Memory { at, fault })
    }
}
