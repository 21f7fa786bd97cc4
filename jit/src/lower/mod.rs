//! From ops to machine code: the whole image, function by function.
//!
//! Decides the order of things (main program, its ways out, subprograms, routines, data) and keeps what every part needs:
//! the assembler, the register assignment, the frame of the function at hand. What single instructions become is in the
//! files beside this one. Invariant: between two BPF instructions rsp is where [`Frame`] says, every live BPF register is
//! in its host register, and every host register that is not clobbered holds its entry value or what ctx got.

mod alu;
mod atomic;
mod call;
mod control;
mod ctx;
mod entry;
mod memory;

use std::collections::{BTreeMap, BTreeSet};

use upatch_abi::arena;
use upatch_verifier::facts::{Access, Facts};
use upatch_verifier::insn::{Callee, Imm64, Insn, Operand, Pc, Reg, Width};
use upatch_verifier::program::{Program, ProgramKind};

use crate::analysis::{Analysis, Op, RegSet, analyse};
use crate::asm::{Assembler, Gpr, GprSet, Label, Mem};
use crate::frame::Frame;
use crate::options::{SiteRegs, VectorState};
use crate::patch::{CodeMark, CodePart, FixupKind};
use crate::private;
use crate::regs::{self, Assignment, Needs};
use crate::runtime::{Routine, Surroundings};

/// What is emitted around the program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A patch or probe at a place of the application.
    Patch(SiteRegs),
    /// A C function.
    Function(VectorState),
}

impl Shape {
    fn vectors(self) -> VectorState {
        match self {
            Self::Patch(site) => site.vectors,
            Self::Function(vectors) => vectors,
        }
    }
}

/// Everything that was emitted, and what it needs.
pub(crate) struct Lowered {
    pub(crate) bytes: Vec<u8>,
    pub(crate) code_len: usize,
    pub(crate) fixups: Vec<crate::patch::Fixup>,
    pub(crate) stack_bytes: u32,
    pub(crate) arena_window: u64,
    pub(crate) private_bytes: u64,
    pub(crate) calls_application: bool,
    pub(crate) extern_names: Vec<String>,
    pub(crate) syscalls: BTreeSet<u32>,
    pub(crate) writes: GprSet,
    /// Registers whose entry values the program sees through ctx.
    pub(crate) seen: GprSet,
    pub(crate) reads_flags: bool,
    pub(crate) marks: Vec<CodeMark>,
}

/// The function at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Main,
    /// Index in [`Program::subprogs`].
    Subprog(usize),
}

/// The compiler's state.
struct Lower<'a> {
    asm: Assembler,
    program: &'a Program,
    facts: &'a Facts,
    analysis: &'a Analysis,
    needs: &'a Needs,
    regs: &'a Assignment,
    shape: Shape,
    window: u64,
    within: Within,
    frame: Frame,
    main_frame: Frame,
    /// Bytes pushed at the moment, within one instruction.
    pushed: i32,
    /// Per slot.
    labels: Vec<Label>,
    /// The main program's ways out; the second is bound once it is emitted.
    continues: Label,
    returns: Option<Label>,
    routines: BTreeMap<Routine, Label>,
    /// Prologues of subprograms.
    entries: BTreeMap<usize, Label>,
    data: BTreeMap<(u32, u32), Label>,
    errno_location: u32,
    marks: Vec<CodeMark>,
}

/// Compiles.
pub(crate) fn lower(program: &Program, facts: &Facts, shape: Shape) -> Lowered {
    let keep_result = matches!(shape, Shape::Function(_));
    let analysis = analyse(program, facts, keep_result);
    let needs = Needs::of(program, facts, &analysis);
    let regs = match shape {
        Shape::Patch(site) if needs.routines.is_empty() => {
            regs::cheapest(&analysis, &needs, site.free)
        }
        Shape::Patch(_) | Shape::Function(_) => regs::fixed(&analysis, &needs),
    };
    let mut asm = Assembler::new();
    let labels = (0..=program.insns().len()).map(|_| asm.label()).collect();
    let routines = needs.routines.iter().map(|r| (*r, asm.label())).collect();
    let continues = asm.label();
    let extern_count = u32::try_from(program.externs().len()).unwrap_or(u32::MAX);
    let main_frame = entry::main_frame(program, facts, &analysis, &needs, &regs, shape);
    let lower = Lower {
        asm,
        program,
        facts,
        analysis: &analysis,
        needs: &needs,
        regs: &regs,
        shape,
        window: match program.arena().len {
            0 => 0,
            len => arena::window_for(len).unwrap_or(arena::MAX_WINDOW),
        },
        within: Within::Main,
        frame: main_frame.clone(),
        main_frame,
        pushed: 0,
        labels,
        continues,
        returns: None,
        routines,
        entries: BTreeMap::new(),
        data: BTreeMap::new(),
        errno_location: extern_count,
        marks: Vec::new(),
    };
    lower.image()
}

impl Lower<'_> {
    fn image(mut self) -> Lowered {
        self.main();
        let mut stack = vec![0; self.program.subprogs().len()];
        let reached = self.called();
        // Subprograms that nothing calls (dead code) would only be in the way.
        for index in 1..self.program.subprogs().len() {
            if reached.contains(&index) {
                self.subprog(index);
                if let Some(bytes) = stack.get_mut(index) {
                    *bytes = self.frame.bytes();
                }
            }
        }
        self.routines();
        let code_len = self.asm.len();
        self.data();
        let stack_bytes = self.stack_bytes(&stack);
        let syscalls = self
            .needs
            .routines
            .iter()
            .flat_map(|routine| routine.syscalls().iter().copied())
            .collect();
        let uses_private = self.needs.routines.iter().any(|r| r.uses_private());
        let mut extern_names: Vec<String> = self
            .program
            .externs()
            .iter()
            .map(|external| external.name.clone())
            .collect();
        if self.needs.routines.contains(&Routine::SetErrno) {
            extern_names.push("__errno_location".to_owned());
        }
        let writes = self.needs.ctx_writes.iter().filter_map(|f| regs::home(*f));
        let writes = writes.fold(GprSet::EMPTY, GprSet::with);
        let seen = self.needs.ctx.iter().filter_map(|f| regs::home(*f));
        let (bytes, fixups) = self.asm.finish();
        Lowered {
            bytes,
            code_len,
            fixups,
            stack_bytes,
            arena_window: self.window,
            private_bytes: if uses_private { private::BYTES } else { 0 },
            calls_application: self.needs.calls_application,
            extern_names,
            syscalls,
            writes,
            seen: seen.fold(GprSet::EMPTY, GprSet::with),
            reads_flags: self.needs.ctx.contains(&upatch_abi::ctx::CtxField::Rflags),
            marks: self.marks,
        }
    }

    /// Subprograms that some reachable op calls or passes.
    fn called(&self) -> BTreeSet<usize> {
        let mut called = BTreeSet::new();
        let every = 1..self.program.subprogs().len();
        for op in &self.analysis.ops {
            match op {
                Op::Plain(Insn::Call {
                    callee: Callee::Subprog(target),
                })
                | Op::Loop { callback: target } => called.extend(self.index_of(*target)),
                // Which one is only known when it runs.
                Op::Plain(Insn::Call {
                    callee: Callee::Helper(upatch_abi::helpers::LOOP),
                }) => called.extend(every.clone()),
                Op::Nothing | Op::Plain(_) | Op::Update { .. } | Op::Strncmp { .. } => {}
            }
        }
        called
    }

    fn index_of(&self, start: Pc) -> Option<usize> {
        self.program
            .subprogs()
            .binary_search_by_key(&start, |subprog| subprog.start)
            .ok()
    }

    /// Emits the slots of subprogram `index`.
    fn body(&mut self, index: usize) {
        let Some(subprog) = self.program.subprogs().get(index) else {
            return;
        };
        for at in subprog.start.index()..subprog.end.index() {
            if let Some(label) = self.labels.get(at) {
                self.asm.bind(*label);
            }
            if let Some(op) = self.analysis.ops.get(at) {
                self.mark(CodePart::Slot(Pc(u32::try_from(at).unwrap_or(u32::MAX))));
                self.op(at, *op);
            }
        }
    }

    /// The code from here on is for this part.
    fn mark(&mut self, part: CodePart) {
        self.marks.push(CodeMark {
            at: self.asm.len(),
            part,
        });
    }

    fn op(&mut self, at: usize, op: Op) {
        match op {
            Op::Nothing => {}
            Op::Plain(insn) => self.insn(at, insn),
            Op::Update {
                op,
                locked,
                size,
                base,
                off,
                imm,
            } => {
                let width = atomic::width_of(size);
                let mem = if locked {
                    self.atomic_place(at, base, off, size)
                } else {
                    self.place(at, base, off)
                };
                if locked {
                    self.asm.lock_arith_mi(op, width, mem, imm);
                } else {
                    self.asm.arith_mi(op, width, mem, imm);
                }
            }
            Op::Loop { callback } => self.bpf_loop(Some(callback)),
            Op::Strncmp { bytes } => self.strncmp(bytes.into()),
        }
    }

    fn insn(&mut self, at: usize, insn: Insn) {
        match insn {
            Insn::Alu {
                op,
                width,
                dst,
                src,
            } => self.alu(op, width, dst, src),
            Insn::MovSx {
                width,
                from,
                dst,
                src,
            } => self.movsx(width, from, dst, src),
            Insn::Neg { width, dst } => self.asm.neg(width, self.regs.host(dst)),
            Insn::Endian { op, bits, dst } => self.endian(op, bits, dst),
            Insn::AddrSpaceCast { dst, src, .. } => {
                self.mov(Width::W64, dst, Operand::Reg(src));
            }
            Insn::LdImm64 { dst, imm } => self.load_immediate(dst, imm),
            Insn::Load {
                size,
                signed,
                dst,
                base,
                off,
            } => self.load(at, size, signed, dst, base, off),
            Insn::LoadAcquire {
                size,
                dst,
                base,
                off,
                // Every load acquires, every store releases (SDM vol. 3 §9.2.2).
            } => self.load(at, size, false, dst, base, off),
            Insn::Store {
                size,
                base,
                off,
                src,
            } => self.store(at, size, base, off, src),
            Insn::StoreRelease {
                size,
                base,
                off,
                src,
            } => self.store(at, size, base, off, Operand::Reg(src)),
            Insn::Atomic {
                op,
                size,
                base,
                off,
                src,
            } => self.atomic(at, op, size, base, off, src),
            Insn::Jump { target } => {
                let target = self.label_of(target);
                self.asm.jmp(target);
            }
            Insn::JumpIf {
                op,
                width,
                dst,
                src,
                target,
            } => self.jump_if(op, width, dst, src, target),
            Insn::MayGoto { target } => self.may_goto(target),
            Insn::Call { callee } => self.call(callee),
            Insn::Exit => self.exit(at),
            Insn::LdImm64Tail => {}
        }
    }

    fn label_of(&self, pc: Pc) -> Label {
        // SANITY: `Program` guarantees that targets exist, and there is a label per slot and one behind.
        *self
            .labels
            .get(pc.index())
            .expect("a jump out of the program")
    }

    fn load_immediate(&mut self, dst: Reg, imm: Imm64) {
        let host = self.regs.host(dst);
        match imm {
            Imm64::Const(value) => self.asm.mov_ri(host, value),
            Imm64::Data { object, offset } => {
                let asm = &mut self.asm;
                let label = *self
                    .data
                    .entry((object, offset))
                    .or_insert_with(|| asm.label());
                self.asm.lea_label(host, label);
            }
            Imm64::Arena { offset } => self.asm.mov_address(host, FixupKind::Arena(offset)),
            // Not the address of anything: a number that says which one.
            Imm64::Subprog(pc) => self.asm.mov_ri(host, call::callback_number(pc)),
        }
    }

    /// A stack slot of the function at hand, `offset` bytes above rsp as the frame has it.
    fn slot(&self, offset: i32) -> Mem {
        Mem::at(Gpr::Rsp, offset + self.pushed)
    }

    /// A slot of the main program's frame.
    fn main_slot(&self, offset: i32) -> Mem {
        match (self.within, self.regs.frame_base) {
            (Within::Subprog(_), Some(base)) => Mem::at(base, offset),
            (Within::Subprog(_), None) | (Within::Main, _) => self.slot(offset),
        }
    }

    fn push(&mut self, reg: Gpr) {
        self.asm.push(reg);
        self.pushed += 8;
    }

    fn pop(&mut self, reg: Gpr) {
        self.asm.pop(reg);
        self.pushed -= 8;
    }

    fn access(&self, at: usize) -> Option<Access> {
        self.facts.access.get(at).copied().flatten()
    }

    fn routines(&mut self) {
        let call_application = self.routines.get(&Routine::CallApplication).copied();
        let around = Surroundings {
            vectors: self.shape.vectors(),
            errno_location: self.errno_location,
            call_application: call_application.unwrap_or(self.continues),
        };
        for (routine, label) in &self.routines {
            self.marks.push(CodeMark {
                at: self.asm.len(),
                part: CodePart::Routine(routine.name()),
            });
            self.asm.bind(*label);
            routine.emit(&mut self.asm, &around);
        }
    }

    /// Read-only data that the code refers to, each object 8-byte aligned.
    fn data(&mut self) {
        let mut objects: BTreeMap<u32, Vec<(u32, Label)>> = BTreeMap::new();
        for ((object, offset), label) in &self.data {
            objects.entry(*object).or_default().push((*offset, *label));
        }
        for (object, labels) in objects {
            let Some(data) = self.program.data().get(object as usize) else {
                continue;
            };
            while !self.asm.len().is_multiple_of(8) {
                self.asm.data(&[0]);
            }
            let start = self.asm.len();
            self.asm.data(&data.bytes);
            for (offset, label) in labels {
                self.asm.bind_at(label, start + offset as usize);
            }
        }
    }

    /// Deepest use of the stack: frames along calls, with what single instructions push on top.
    fn stack_bytes(&self, frames: &[u32]) -> u32 {
        /// Two registers and a return address.
        const WITHIN: u32 = 24;
        let vectors = self.shape.vectors();
        let routine = |routine: &Routine| routine.stack(vectors) + 8;
        let routines = self.needs.routines.iter().map(routine).max().unwrap_or(0);
        // Call chains are at most as deep as the verifier's bound on their sum of BPF stack allows; the sum over all
        // subprograms covers each chain, as there is no recursion in verified programs.
        let subprogs: u32 = frames.iter().map(|bytes| bytes + 8).sum();
        self.main_frame.bytes() + subprogs + routines + WITHIN
    }

    /// Is the program one that ctx and verdicts are for?
    fn is_function(&self) -> bool {
        matches!(self.shape, Shape::Function(_))
    }

    /// BPF registers of r6 to r9 that subprogram `index` must hand back.
    fn callee_saved(&self, index: usize) -> Vec<Gpr> {
        let written = self.analysis.written.get(index).copied();
        let written = written.unwrap_or_default();
        written
            .intersection(RegSet::CALLEE_SAVED)
            .iter()
            .filter_map(|reg| self.regs.used(reg))
            .collect()
    }
}

/// A program without ctx is no patch.
pub(crate) fn has_ctx(program: &Program) -> bool {
    match program.kind() {
        ProgramKind::PatchEntry | ProgramKind::PatchOffset | ProgramKind::Probe => true,
        ProgramKind::Memory { .. } => false,
    }
}
