//! Which registers hold the frame pointer plus a constant, and whether a frame's address goes anywhere else.

use super::{Function, successors};
use crate::insn::{AluOp, AtomicOp, Insn, Operand, Reg, Width};
use crate::verify::stack::FRAME;

/// What a register holds relative to the frame pointer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Unreached,
    Frame(i64),
    Other,
}

impl Base {
    fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unreached, known) | (known, Self::Unreached) => known,
            (Self::Frame(a), Self::Frame(b)) if a == b => self,
            (Self::Frame(_) | Self::Other, Self::Frame(_) | Self::Other) => Self::Other,
        }
    }
}

pub(super) type Bases = [Base; 11];

impl Function<'_> {
    /// Forward: which registers are the frame pointer plus a constant; and does its address escape?
    pub(super) fn bases(&self) -> (Vec<Bases>, bool) {
        let mut at = vec![[Base::Unreached; 11]; (self.end.0 - self.start.0) as usize];
        let mut entry = [Base::Other; 11];
        entry[Reg::R10.index()] = Base::Frame(0);
        at[0] = entry;
        let mut escapes = false;
        let mut work = vec![self.start];
        while let Some(pc) = work.pop() {
            let Some(insn) = self.insns.get(pc.index()).copied() else {
                continue;
            };
            let before = at[(pc.0 - self.start.0) as usize];
            let after = step_bases(before, insn);
            escapes |= lets_escape(&before, insn);
            for next in successors(insn, pc) {
                if next >= self.end {
                    continue;
                }
                let known = &mut at[(next.0 - self.start.0) as usize];
                let mut merged = *known;
                for (own, new) in merged.iter_mut().zip(after) {
                    let both = own.merge(new);
                    // Two frame addresses met: from here on it is somewhere in the frame.
                    escapes |= matches!((*own, both), (Base::Frame(_), Base::Other))
                        || matches!((new, both), (Base::Frame(_), Base::Other));
                    *own = both;
                }
                if merged != *known {
                    *known = merged;
                    work.push(next);
                }
            }
        }
        (at, escapes)
    }
}

fn step_bases(mut bases: Bases, insn: Insn) -> Bases {
    match insn {
        Insn::Alu {
            op,
            width,
            dst,
            src,
        } => {
            let old = bases[dst.index()];
            bases[dst.index()] = match (op, width, src, old) {
                (AluOp::Mov, Width::W64, Operand::Reg(from), _) => bases[from.index()],
                (AluOp::Add, Width::W64, Operand::Imm(imm), Base::Frame(offset)) => {
                    Base::Frame(offset + i64::from(imm))
                }
                _ => Base::Other,
            };
        }
        Insn::MovSx { dst, .. }
        | Insn::Neg { dst, .. }
        | Insn::Endian { dst, .. }
        | Insn::AddrSpaceCast { dst, .. }
        | Insn::LdImm64 { dst, .. }
        | Insn::Load { dst, .. }
        | Insn::LoadAcquire { dst, .. } => bases[dst.index()] = Base::Other,
        Insn::Atomic { op, src, .. } => match op {
            AtomicOp::CmpXchg => bases[0] = Base::Other,
            AtomicOp::Add { .. }
            | AtomicOp::Or { .. }
            | AtomicOp::And { .. }
            | AtomicOp::Xor { .. }
            | AtomicOp::Xchg => bases[src.index()] = Base::Other,
        },
        Insn::Call { .. } => {
            for base in &mut bases[0..6] {
                *base = Base::Other;
            }
        }
        Insn::LdImm64Tail
        | Insn::Store { .. }
        | Insn::StoreRelease { .. }
        | Insn::Jump { .. }
        | Insn::JumpIf { .. }
        | Insn::MayGoto { .. }
        | Insn::Exit => {}
    }
    bases
}

/// Does this instruction take a frame address anywhere but into another register or a direct access?
fn lets_escape(bases: &Bases, insn: Insn) -> bool {
    let is_frame = |reg: Reg| matches!(bases[reg.index()], Base::Frame(_));
    match insn {
        Insn::Alu {
            op,
            width,
            dst,
            src,
        } => {
            let moved = matches!((op, width), (AluOp::Mov, Width::W64));
            let advanced = matches!((op, width, src), (AluOp::Add, Width::W64, Operand::Imm(_)));
            let source = matches!(src, Operand::Reg(reg) if is_frame(reg));
            !moved && (source || (is_frame(dst) && !advanced && op != AluOp::Mov))
        }
        Insn::Store { src, .. } => matches!(src, Operand::Reg(reg) if is_frame(reg)),
        Insn::StoreRelease { src, .. } | Insn::Atomic { src, .. } => is_frame(src),
        Insn::MovSx { src, .. } | Insn::AddrSpaceCast { src, .. } => is_frame(src),
        Insn::Neg { dst, .. } | Insn::Endian { dst, .. } => is_frame(dst),
        Insn::Call { .. } => bases[1..6]
            .iter()
            .any(|base| matches!(base, Base::Frame(_))),
        Insn::Exit => is_frame(Reg::R0),
        Insn::LdImm64 { .. }
        | Insn::LdImm64Tail
        | Insn::Load { .. }
        | Insn::LoadAcquire { .. }
        | Insn::Jump { .. }
        | Insn::JumpIf { .. }
        | Insn::MayGoto { .. } => false,
    }
}

/// The stack bytes that a direct access touches: index and end.
pub(super) fn direct(bases: &Bases, base: Reg, off: i16, bytes: u8) -> Option<(usize, usize)> {
    let Base::Frame(offset) = bases[base.index()] else {
        return None;
    };
    let start = usize::try_from(offset + i64::from(off) + FRAME).ok()?;
    Some((start, start + usize::from(bytes)))
}
