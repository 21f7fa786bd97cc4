//! Findings that refuse nothing: a counter that is incremented without an atomic operation loses counts when threads
//! run into each other.

use super::place::Span;
use crate::insn::{AluOp, Insn, Operand, Pc, Reg};
use crate::program::{ArenaGlobal, Program};

/// Stores to tagged counters of what was loaded from the same place just before and added to.
pub(crate) fn warnings(program: &Program, spans: &[Option<Span>]) -> Vec<(Pc, String)> {
    let counter_at = |pc: usize| -> Option<(&ArenaGlobal, Span)> {
        let span = (*spans.get(pc)?)?;
        let global = program.arena().globals.iter().find(|global| {
            let start = i64::try_from(global.offset).unwrap_or(i64::MAX);
            let end = i64::try_from(global.offset.saturating_add(global.size)).unwrap_or(i64::MAX);
            global.counter && start <= span.low && span.high < end
        })?;
        Some((global, span))
    };
    let mut found = Vec::new();
    for (slot, insn) in program.insns().iter().enumerate() {
        let Insn::Store {
            src: Operand::Reg(src),
            ..
        } = *insn
        else {
            continue;
        };
        let Some((global, span)) = counter_at(slot) else {
            continue;
        };
        let Some(load) = changed_load(program.insns(), slot, src) else {
            continue;
        };
        if counter_at(load) == Some((global, span)) {
            // SANITY: a program has fewer than 2^32 slots.
            found.push((
                Pc(slot as u32),
                format!(
                    "`{}` is read, changed and written back: threads lose counts; use __sync_fetch_and_add()",
                    global.name
                ),
            ));
        }
    }
    found
}

/// Instructions that are looked at before a store.
const REACH: usize = 32;

/// The load that the value in `reg` at `store` comes from, if only arithmetic lies between, in one straight line.
fn changed_load(insns: &[Insn], store: usize, reg: Reg) -> Option<usize> {
    let mut wanted = reg;
    let mut changed = false;
    for slot in (0..store).rev().take(REACH) {
        match insns[slot] {
            Insn::Load { dst, .. } if dst == wanted => return changed.then_some(slot),
            Insn::Alu {
                op: AluOp::Mov,
                dst,
                src: Operand::Reg(from),
                ..
            } if dst == wanted => wanted = from,
            Insn::Alu {
                op: AluOp::Add | AluOp::Sub,
                dst,
                ..
            } if dst == wanted => changed = true,
            Insn::Alu { dst, .. }
            | Insn::MovSx { dst, .. }
            | Insn::Neg { dst, .. }
            | Insn::Endian { dst, .. }
            | Insn::AddrSpaceCast { dst, .. }
            | Insn::LdImm64 { dst, .. }
            | Insn::Load { dst, .. }
            | Insn::LoadAcquire { dst, .. }
                if dst == wanted =>
            {
                return None;
            }
            Insn::Alu { .. }
            | Insn::MovSx { .. }
            | Insn::Neg { .. }
            | Insn::Endian { .. }
            | Insn::AddrSpaceCast { .. }
            | Insn::LdImm64 { .. }
            | Insn::LdImm64Tail
            | Insn::Load { .. }
            | Insn::LoadAcquire { .. }
            | Insn::Store { .. }
            | Insn::StoreRelease { .. } => {}
            Insn::Atomic { .. }
            | Insn::Jump { .. }
            | Insn::JumpIf { .. }
            | Insn::MayGoto { .. }
            | Insn::Call { .. }
            | Insn::Exit => return None,
        }
    }
    None
}
