//! Executing instructions.
//!
//! Section numbers are RFC 9669's. Knows the instruction set and the calling convention; memory and helpers are behind
//! `memory` and `helpers`, arithmetic is `upatch_verifier::semantics`.

use upatch_abi::helpers::{LOOP, MAX_LOOPS};
use upatch_abi::{arena, ctx};
use upatch_verifier::facts::{Access, Facts, RawProgram, Verdict, VerifiedProgram};
use upatch_verifier::insn::{Callee, Imm64, Insn, Operand, Pc, Reg, Size};
use upatch_verifier::program::{ExternRet, Program, ProgramKind};
use upatch_verifier::semantics;

use super::helpers::{HelperFault, Helpers};
use super::memory::{
    CODE_BASE, CTX_BASE, DATA_BASE, MEMORY_BASE, Memory, MemoryFault, Region, Writable, arena_size,
    confine,
};

/// Most frames at a time (Linux: MAX_CALL_FRAMES).
pub const MAX_FRAMES: usize = 8;

const E2BIG: u64 = (-7_i64).cast_unsigned();
const EINVAL: u64 = (-22_i64).cast_unsigned();

/// Why a program could not go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum Fault {
    #[error("slot {}: {fault}", at.0)]
    Memory { at: Pc, fault: MemoryFault },
    #[error("slot {}: {fault}", at.0)]
    Helper { at: Pc, fault: HelperFault },
    #[error("slot {}: r{} is read before it is written", at.0, reg.number())]
    UninitRegister { at: Pc, reg: Reg },
    #[error("slot {}: more than {MAX_FRAMES} calls deep", at.0)]
    TooDeep { at: Pc },
    #[error("slot {}: {limit} instructions are used up", at.0)]
    StepLimit { at: Pc, limit: u64 },
    #[error("slot {}: {value:#x} is not a callback", at.0)]
    BadCallback { at: Pc, value: u64 },
    #[error("slot {}: proven to be unreachable, but reached", at.0)]
    Unreachable { at: Pc },
    #[error("slot {}: reaches {addr:#x}, proven to be {proven:?}", at.0)]
    WrongAccess { at: Pc, addr: u64, proven: Access },
    #[error("slot {}: returns {r0:#x}, proven to be {proven:?}", at.0)]
    WrongVerdict { at: Pc, r0: u64, proven: Verdict },
    #[error("slot {}: there is no instruction", at.0)]
    NoInstruction { at: Pc },
    #[error("an arena of {len} bytes does not exist")]
    NoArena { len: u64 },
}

/// What a run begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// ctx of a patch or probe.
    pub ctx: [u8; ctx::SIZE as usize],
    /// What r1 of a [`ProgramKind::Memory`] program points at; cut or filled with zeros to its length.
    pub memory: Vec<u8>,
    /// Where the arena lies; a multiple of its window.
    pub arena_base: u64,
    /// The arena's first bytes; the rest of window and slack is zero.
    pub arena: Vec<u8>,
    /// Instructions to execute at most.
    pub step_limit: u64,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            ctx: [0; ctx::SIZE as usize],
            memory: Vec::new(),
            arena_base: 0x4000_0000_0000,
            arena: Vec::new(),
            step_limit: 10_000_000,
        }
    }
}

/// What a run ends with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// r0 at the end, or why there was no end.
    pub r0: Result<u64, Fault>,
    /// Executed instructions, a 64-bit immediate counting once.
    pub steps: u64,
    /// ctx afterwards; empty for a [`ProgramKind::Memory`] program.
    pub ctx: Vec<u8>,
    /// The memory argument afterwards.
    pub memory: Vec<u8>,
    /// The arena afterwards, with its slack.
    pub arena: Vec<u8>,
}

/// A program, ready to run.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'p> {
    program: &'p Program,
    facts: &'p Facts,
    strict: bool,
}

impl<'p> Machine<'p> {
    /// Runs a verified program and checks it against what was proven.
    #[must_use]
    pub fn verified(verified: &'p VerifiedProgram) -> Self {
        Self {
            program: verified.program(),
            facts: verified.facts(),
            strict: true,
        }
    }

    /// Runs a program that nobody verified.
    #[must_use]
    pub fn raw(raw: &'p RawProgram) -> Self {
        Self {
            program: raw.program(),
            facts: raw.facts(),
            strict: false,
        }
    }

    /// Runs it to its end, or to a fault.
    pub fn run(&self, input: &Input, helpers: &mut dyn Helpers) -> Output {
        self.run_observed(input, helpers, &mut |_, _| {})
    }

    /// Runs it and shows `observer` the place and r0 to r10 before each instruction.
    pub fn run_observed(
        &self,
        input: &Input,
        helpers: &mut dyn Helpers,
        observer: &mut dyn FnMut(Pc, &[u64; 11]),
    ) -> Output {
        let window = arena::window_for(self.program.arena().len).unwrap_or(arena::PAGE);
        let Some(regions) = self.regions(input) else {
            let len = self.program.arena().len;
            return Output {
                r0: Err(Fault::NoArena { len }),
                steps: 0,
                ctx: Vec::new(),
                memory: Vec::new(),
                arena: Vec::new(),
            };
        };
        let mut run = Run {
            machine: *self,
            helpers,
            memory: Memory::new(regions),
            regs: [0; 11],
            written: if self.strict { 0 } else { ALL_REGS },
            frames: Vec::new(),
            pc: Pc(0),
            steps: 0,
            step_limit: input.step_limit,
            may_goto: self.facts.may_goto_budget,
            arena: (input.arena_base, window),
        };
        let r0 = run.execute(observer);
        Output {
            r0,
            steps: run.steps,
            ctx: run.memory.take(CTX_BASE),
            memory: run.memory.take(MEMORY_BASE),
            arena: run.memory.take(input.arena_base),
        }
    }

    fn regions(&self, input: &Input) -> Option<Vec<Region>> {
        let mut regions = Vec::new();
        match self.program.kind() {
            ProgramKind::Memory { mem_len } => {
                let mut bytes = input.memory.clone();
                bytes.resize(mem_len as usize, 0);
                regions.push(Region::new(MEMORY_BASE, bytes, Writable::Yes));
            }
            kind @ (ProgramKind::PatchEntry | ProgramKind::PatchOffset | ProgramKind::Probe) => {
                let bytes = input.ctx.to_vec();
                regions.push(Region::new(CTX_BASE, bytes, Writable::Ctx(kind)));
            }
        }
        if self.program.arena().len > 0 {
            let mut bytes = input.arena.clone();
            bytes.resize(arena_size(self.program.arena().len)?, 0);
            regions.push(Region::new(input.arena_base, bytes, Writable::Yes));
        }
        for (base, data) in self.data_bases().zip(self.program.data()) {
            regions.push(Region::new(base, data.bytes.clone(), Writable::No));
        }
        Some(regions)
    }

    /// Address of each data object: 16 bytes apart at least, so that one past the end of one is not another.
    fn data_bases(&self) -> impl Iterator<Item = u64> {
        self.program.data().iter().scan(DATA_BASE, |next, data| {
            let base = *next;
            *next += (data.bytes.len() as u64 + 31) & !15;
            Some(base)
        })
    }
}

/// A bit per register: has it been written?
const ALL_REGS: u16 = 0x7ff;

/// One call in progress.
struct Frame {
    /// Where the caller goes on.
    resume: Pc,
    /// The caller's r6 to r9, and which of them were written.
    saved: [u64; 4],
    saved_written: u16,
    /// The call is bpf_loop's.
    iteration: Option<Iteration>,
}

/// Where a bpf_loop stands.
#[derive(Clone, Copy)]
struct Iteration {
    callback: Pc,
    index: u64,
    count: u64,
    context: u64,
}

struct Run<'p, 'h> {
    machine: Machine<'p>,
    helpers: &'h mut dyn Helpers,
    memory: Memory,
    regs: [u64; 11],
    written: u16,
    frames: Vec<Frame>,
    pc: Pc,
    steps: u64,
    step_limit: u64,
    may_goto: u64,
    /// Base and window.
    arena: (u64, u64),
}

impl Run<'_, '_> {
    fn execute(&mut self, observer: &mut dyn FnMut(Pc, &[u64; 11])) -> Result<u64, Fault> {
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
                    upatch_verifier::insn::AluOp::Mov => 0,
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
                    upatch_verifier::insn::AtomicOp::CmpXchg => self.get(at, Reg::R0)?,
                    _ => self.reg(Reg::R0),
                };
                let old = self.load(at, size, base, off)?;
                let new = semantics::atomic(op, size, old, operand, compared);
                self.store(at, size, base, off, new.memory)?;
                if new.src != operand {
                    self.set(src, new.src);
                }
                if let upatch_verifier::insn::AtomicOp::CmpXchg = op {
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

    fn reg(&self, reg: Reg) -> u64 {
        self.regs.get(reg.index()).copied().unwrap_or(0)
    }

    fn get(&self, at: Pc, reg: Reg) -> Result<u64, Fault> {
        if self.written >> reg.number() & 1 == 0 {
            return Err(Fault::UninitRegister { at, reg });
        }
        Ok(self.reg(reg))
    }

    fn set(&mut self, reg: Reg, value: u64) {
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
    fn forget(&mut self, regs: u16) {
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
            Some(Access::ArenaMasked) => Ok(confine(self.arena.0, self.arena.1, addr)),
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

    // Calls.

    fn call(&mut self, at: Pc, callee: Callee) -> Result<(), Fault> {
        let [_, args @ .., _, _, _, _, _] = self.regs;
        let r0 = match callee {
            Callee::Subprog(target) => return self.enter(at, target, None),
            Callee::Helper(LOOP) => return self.begin_loop(at, args),
            Callee::Helper(id) => self
                .helpers
                .call(id, args, &mut self.memory)
                .map(Some)
                .map_err(|fault| Fault::Helper { at, fault })?,
            Callee::Extern(index) => {
                let externs = self.machine.program.externs();
                let external = externs
                    .get(index as usize)
                    .ok_or(Fault::NoInstruction { at })?;
                let result = self
                    .helpers
                    .call_extern(external, args, &mut self.memory)
                    .map_err(|fault| Fault::Helper { at, fault })?;
                extend(external.ret, result)
            }
        };
        self.forget(0b11_1111);
        if let Some(r0) = r0 {
            self.set(Reg::R0, r0);
        }
        Ok(())
    }

    /// Pushes a frame and goes to `target`; r1 to r5 are the arguments as they stand.
    fn enter(&mut self, at: Pc, target: Pc, iteration: Option<Iteration>) -> Result<(), Fault> {
        // The program itself is a frame too.
        if self.frames.len() + 1 >= MAX_FRAMES {
            return Err(Fault::TooDeep { at });
        }
        let [_, _, _, _, _, _, saved @ .., _] = self.regs;
        self.frames.push(Frame {
            resume: self.pc,
            saved,
            saved_written: self.written & SAVED,
            iteration,
        });
        // r0 and r6 to r9 are the callee's to write first.
        self.forget(SAVED | 1);
        self.enter_frame(target);
        self.pc = target;
        Ok(())
    }

    fn enter_frame(&mut self, target: Pc) {
        let subprog = self.machine.program.subprog_of(target);
        let stack = subprog.and_then(|index| self.machine.facts.stack.get(index));
        self.memory
            .push_frame(stack.copied().unwrap_or(0), self.machine.strict);
        self.set(Reg::R10, self.memory.frame_pointer());
    }

    fn exit(&mut self, at: Pc) -> Result<Option<u64>, Fault> {
        let Some(frame) = self.frames.pop() else {
            return self.verdict(at).map(Some);
        };
        self.memory.pop_frame();
        let [_, _, _, _, _, _, regs @ .., _] = &mut self.regs;
        *regs = frame.saved;
        self.written = (self.written & !SAVED) | frame.saved_written;
        self.set(Reg::R10, self.memory.frame_pointer());
        self.pc = frame.resume;
        match frame.iteration {
            None => self.forget(0b11_1110),
            Some(iteration) => self.next_iteration(at, iteration)?,
        }
        Ok(None)
    }

    fn verdict(&self, at: Pc) -> Result<u64, Fault> {
        let proven = self.machine.facts.verdict.get(at.index()).copied();
        let proven = proven.flatten().ok_or(Fault::Unreachable { at })?;
        let r0 = match (proven, self.machine.program.kind()) {
            // A probe's r0 may be anything, also unwritten.
            (Verdict::Ignored, ProgramKind::Probe) => self.reg(Reg::R0),
            _ => self.get(at, Reg::R0)?,
        };
        let holds = match proven {
            Verdict::Continue => r0 == upatch_abi::verdict::UPATCH_CONTINUE,
            Verdict::Return => r0 == upatch_abi::verdict::UPATCH_RETURN,
            Verdict::Dynamic => r0 <= 1,
            Verdict::Ignored => true,
        };
        if holds {
            Ok(r0)
        } else {
            Err(Fault::WrongVerdict { at, r0, proven })
        }
    }

    // bpf_loop(count, callback, context, 0).

    fn begin_loop(&mut self, at: Pc, args: [u64; 5]) -> Result<(), Fault> {
        let [count, callback, context, flags, _] = args;
        // The kernel's prototype has a u32 count.
        let count = u64::from(count as u32);
        if flags != 0 || count > MAX_LOOPS {
            self.forget(0b11_1111);
            self.set(Reg::R0, if flags != 0 { EINVAL } else { E2BIG });
            return Ok(());
        }
        let target = callback.checked_sub(CODE_BASE).map(|bytes| bytes / 8);
        let target = target.and_then(|slot| u32::try_from(slot).ok()).map(Pc);
        let known = target.filter(|target| {
            let mut subprogs = self.machine.program.subprogs().iter();
            subprogs.any(|subprog| subprog.start == *target)
        });
        let callback = known.ok_or(Fault::BadCallback {
            at,
            value: callback,
        })?;
        let iteration = Iteration {
            callback,
            index: 0,
            count,
            context,
        };
        self.iterate(at, iteration)
    }

    fn iterate(&mut self, at: Pc, iteration: Iteration) -> Result<(), Fault> {
        self.forget(0b11_1111);
        if iteration.index == iteration.count {
            self.set(Reg::R0, iteration.count);
            return Ok(());
        }
        self.set(Reg::R1, iteration.index);
        self.set(Reg::R2, iteration.context);
        self.enter(at, iteration.callback, Some(iteration))
    }

    /// After a callback returned: the next one, or the end with the number of callbacks that ran.
    fn next_iteration(&mut self, at: Pc, iteration: Iteration) -> Result<(), Fault> {
        let stop = self.get(at, Reg::R0)? != 0;
        let index = iteration.index + 1;
        let count = if stop { index } else { iteration.count };
        self.iterate(
            at,
            Iteration {
                index,
                count,
                ..iteration
            },
        )
    }
}

/// r6 to r9.
const SAVED: u16 = 0b11_1100_0000;

/// An external function's result in all 64 bits, or `None` if it has none.
fn extend(ret: ExternRet, result: u64) -> Option<u64> {
    let (bytes, signed) = match ret {
        ExternRet::Void => return None,
        ExternRet::Scalar { bytes, signed } => (bytes, signed),
    };
    let size = match bytes {
        1 => Size::B,
        2 => Size::H,
        4 => Size::W,
        _ => Size::DW,
    };
    Some(if signed {
        semantics::sign_extend(size, result)
    } else {
        semantics::zero_extend(size, result)
    })
}
