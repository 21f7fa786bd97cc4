//! Which host register holds which BPF register, and which registers must be saved for that.
//!
//! ```text
//! program calls our routines or the application          otherwise
//! r0 rax  r1 rdi  r2 rsi  r3 rdx  r4 rcx  r5 r8          cheapest first: free, then neither free nor in ctx,
//! r6 rbx  r7 r13  r8 r14  r9 r15                         then what the program sees as ctx
//! scratch r11 r10, kept by routines r12, frame base rbp
//! ```
//! The fixed assignment is the C calling convention as far as it goes, so that arguments are where they belong; the other
//! one is for the common patch that counts, compares and changes: it leaves arguments in their own registers.
//! Knows no instructions' encodings. Invariant: no two names share a register, and rsp has none.

use std::collections::BTreeSet;

use upatch_abi::ctx::CtxField;
use upatch_abi::helpers;
use upatch_verifier::facts::{Access, Facts};
use upatch_verifier::insn::{AluOp, AtomicOp, Callee, Insn, Operand, Reg};
use upatch_verifier::program::Program;

use crate::analysis::{Analysis, Op};
use crate::asm::{Gpr, GprSet};
use crate::runtime::Routine;

/// The assignment.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    hosts: [Option<Gpr>; 10],
    /// For addresses that are computed. `scratch` registers hold nothing from one BPF instruction to the next.
    pub(crate) address: Gpr,
    /// For operands and intermediate values.
    pub(crate) value: Gpr,
    /// Holds the main frame's rsp, for subprograms.
    pub(crate) frame_base: Option<Gpr>,
    /// Registers that don't keep their entry values.
    pub(crate) clobbered: GprSet,
}

impl Assignment {
    /// The register that holds `reg`. r10, and registers that are never used, get a scratch register: what is written
    /// there is not read.
    pub(crate) fn host(&self, reg: Reg) -> Gpr {
        let host = self.hosts.get(reg.index()).copied().flatten();
        host.unwrap_or(self.value)
    }

    /// The register that holds `reg`, if the program uses it.
    pub(crate) fn used(&self, reg: Reg) -> Option<Gpr> {
        self.hosts.get(reg.index()).copied().flatten()
    }
}

/// What the program asks for besides BPF registers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    address: bool,
    value: bool,
    /// A subprogram reaches into the main frame.
    pub(crate) frame_base: bool,
    /// Routines it calls.
    pub(crate) routines: BTreeSet<Routine>,
    /// ctx fields it reads or writes.
    pub(crate) ctx: BTreeSet<CtxField>,
    /// ctx fields it writes.
    pub(crate) ctx_writes: BTreeSet<CtxField>,
    /// ctx fields that it writes in part.
    pub(crate) narrow: BTreeSet<CtxField>,
    /// A `may_goto` runs.
    pub(crate) may_goto: bool,
    /// Calls functions of the application.
    pub(crate) calls_application: bool,
}

impl Needs {
    /// Reads them off the ops.
    pub(crate) fn of(program: &Program, facts: &Facts, analysis: &Analysis) -> Self {
        let mut needs = Self::default();
        let main_end = program
            .subprogs()
            .first()
            .map_or(0, |main| main.end.index());
        for (at, op) in analysis.ops.iter().enumerate() {
            needs.add(facts, at, op, at >= main_end);
        }
        let called: Vec<Routine> = needs.routines.iter().filter_map(|r| r.calls()).collect();
        needs.routines.extend(called);
        if needs.calls_application {
            needs
                .routines
                .extend([Routine::GuardEnter, Routine::GuardLeave]);
        }
        needs
    }

    fn add(&mut self, facts: &Facts, at: usize, op: &Op, in_subprogram: bool) {
        if let Some(Some(Access::ArenaMasked)) = facts.access.get(at)
            && *op != Op::Nothing
        {
            self.address = true;
            self.value = true;
        }
        let insn = match op {
            Op::Nothing | Op::Update { .. } | Op::Loop { .. } => return,
            Op::Strncmp { .. } => {
                self.routines.insert(Routine::Strncmp);
                return;
            }
            Op::Plain(insn) => *insn,
        };
        // r10 as a number is computed first.
        let place = |operand: Operand| operand == Operand::Reg(Reg::R10);
        match insn {
            Insn::Alu { op, src, dst, .. } => {
                let divides = matches!(op, AluOp::Div | AluOp::SDiv | AluOp::Mod | AluOp::SMod);
                self.value |= divides || place(src) && op != AluOp::Mov || dst == Reg::R10;
            }
            Insn::JumpIf { dst, src, .. } => self.value |= dst == Reg::R10 || place(src),
            Insn::MovSx { dst, src, .. } | Insn::AddrSpaceCast { dst, src, .. } => {
                self.value |= dst == Reg::R10 || src == Reg::R10;
            }
            Insn::Neg { dst, .. } | Insn::Endian { dst, .. } | Insn::LdImm64 { dst, .. } => {
                self.value |= dst == Reg::R10;
            }
            Insn::Load { dst, .. } | Insn::LoadAcquire { dst, .. } => {
                self.value |= dst == Reg::R10;
            }
            Insn::Store { src, .. } => self.value |= place(src),
            Insn::StoreRelease { src, .. } => self.value |= src == Reg::R10,
            Insn::Atomic { op, src, .. } => {
                self.value |= src == Reg::R10;
                let fetches = matches!(
                    op,
                    AtomicOp::Or { fetch: true }
                        | AtomicOp::And { fetch: true }
                        | AtomicOp::Xor { fetch: true }
                );
                self.value |= fetches;
                self.address |= fetches;
            }
            Insn::MayGoto { .. } => {
                self.may_goto = true;
                self.frame_base |= in_subprogram;
            }
            Insn::Call { callee } => self.call(callee),
            Insn::LdImm64Tail | Insn::Jump { .. } | Insn::Exit => {}
        }
        self.ctx(facts, at, insn, in_subprogram);
    }

    fn call(&mut self, callee: Callee) {
        match callee {
            Callee::Helper(helpers::LOOP) | Callee::Subprog(_) => {}
            Callee::Helper(id) => {
                if let Some(routine) = Routine::of(id) {
                    self.routines.insert(routine);
                    self.calls_application |= routine == Routine::SetErrno;
                }
            }
            Callee::Extern(_) => {
                self.routines.insert(Routine::CallApplication);
                self.calls_application = true;
            }
        }
    }

    fn ctx(&mut self, facts: &Facts, at: usize, insn: Insn, in_subprogram: bool) {
        let Some(Some(Access::Ctx { offset })) = facts.access.get(at) else {
            return;
        };
        let Some(field) = CtxField::containing(*offset) else {
            return;
        };
        self.frame_base |= in_subprogram;
        self.ctx.insert(field);
        if let Insn::Store { size, .. } | Insn::StoreRelease { size, .. } = insn {
            self.ctx_writes.insert(field);
            if size.bytes() < 8 {
                self.narrow.insert(field);
            }
        }
    }
}

/// The register that a field of ctx is in at the entry.
pub(crate) fn home(field: CtxField) -> Option<Gpr> {
    field.gpr().and_then(Gpr::new)
}

const FIXED: [Gpr; 10] = [
    Gpr::Rax,
    Gpr::Rdi,
    Gpr::Rsi,
    Gpr::Rdx,
    Gpr::Rcx,
    Gpr::R8,
    Gpr::Rbx,
    Gpr::R13,
    Gpr::R14,
    Gpr::R15,
];

/// The assignment for code that calls with the C calling convention.
pub(crate) fn fixed(analysis: &Analysis, needs: &Needs) -> Assignment {
    let mut hosts = [None; 10];
    let mut clobbered = GprSet::EMPTY;
    for reg in analysis.used.iter() {
        if let (Some(host), Some(fixed)) = (hosts.get_mut(reg.index()), FIXED.get(reg.index())) {
            *host = Some(*fixed);
            clobbered = clobbered.with(*fixed);
        }
    }
    for routine in &needs.routines {
        clobbered = clobbered.union(routine.clobbers());
    }
    if needs.address {
        clobbered = clobbered.with(Gpr::R11);
    }
    if needs.value {
        clobbered = clobbered.with(Gpr::R10);
    }
    let frame_base = needs.frame_base.then_some(Gpr::Rbp);
    if let Some(base) = frame_base {
        clobbered = clobbered.with(base);
    }
    Assignment {
        hosts,
        address: Gpr::R11,
        value: Gpr::R10,
        frame_base,
        clobbered,
    }
}

/// The assignment that saves least, for code that calls nothing outside itself.
pub(crate) fn cheapest(analysis: &Analysis, needs: &Needs, free: GprSet) -> Assignment {
    let fields: GprSet = needs
        .ctx
        .iter()
        .filter_map(|field| home(*field))
        .fold(GprSet::EMPTY, GprSet::with);
    let mut candidates: Vec<Gpr> = Gpr::ALL
        .into_iter()
        .filter(|reg| *reg != Gpr::Rsp)
        .collect();
    // The sort is stable: among equals the registers with the shortest encodings come first.
    candidates.sort_by_key(|reg| (fields.contains(*reg), !free.contains(*reg)));
    let mut clobbered = GprSet::EMPTY;
    let mut take = |wanted: &dyn Fn(Gpr) -> bool| {
        let found = candidates.iter().position(|reg| wanted(*reg));
        // SANITY: 10 BPF registers, two scratch registers and a base take 13 of the 15 candidates; scratch goes first
        // and excludes three.
        let reg = candidates.remove(found.expect("more registers wanted than there are"));
        clobbered = clobbered.with(reg);
        reg
    };
    // Instructions with operands in fixed places move others out of the way into scratch registers.
    let movable = |reg: Gpr| !matches!(reg, Gpr::Rax | Gpr::Rcx | Gpr::Rdx);
    let address = needs.address.then(|| take(&movable));
    let value = needs.value.then(|| take(&movable));
    let frame_base = needs.frame_base.then(|| take(&movable));
    let mut hosts = [None; 10];
    for reg in analysis.used.iter() {
        if let Some(host) = hosts.get_mut(reg.index()) {
            *host = Some(take(&|_| true));
        }
    }
    Assignment {
        hosts,
        // Not asked for: never touched.
        address: address.unwrap_or(Gpr::R11),
        value: value.unwrap_or(Gpr::R10),
        frame_base,
        clobbered,
    }
}
