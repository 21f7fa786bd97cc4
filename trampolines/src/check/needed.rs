//! Which registers are still read behind each instruction.
//!
//! A plain sweep over the code and a fixed point, for precision only: a register that nobody reads again may be forgotten,
//! which never makes anything acceptable; one that is forgotten too early costs a patch. Knows nothing of memory.

use std::collections::HashMap;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess,
};

use super::memory::{Memory, gpr};
use crate::fragment::GprSet;

/// Registers that a system call reads: its number and arguments.
const SYSCALL_READS: GprSet = GprSet::of(&[0, 2, 6, 7, 8, 9, 10]);
const SYSCALL_WRITES: GprSet = GprSet::of(&[0, 1, 11]);

/// One instruction of the sweep.
struct Swept {
    insn: Instruction,
    reads: GprSet,
    /// Wholly, and always.
    writes: GprSet,
}

/// The registers that are read at or behind an address before they are written.
pub(crate) struct Needed(HashMap<u64, GprSet>);

impl Needed {
    pub(crate) fn of(memory: Memory<'_>) -> Self {
        let swept = sweep(memory);
        let callees = swept.iter().filter(|one| is_call(&one.insn));
        let first_callee = callees.map(|one| one.insn.near_branch_target()).min();
        let mut needed: HashMap<u64, GprSet> = HashMap::new();
        loop {
            let mut changed = false;
            let at = |needed: &HashMap<u64, GprSet>, ip: u64| needed.get(&ip).copied();
            let returned = swept
                .iter()
                .filter(|one| is_call(&one.insn))
                .filter_map(|one| at(&needed, one.insn.next_ip()))
                .fold(GprSet::EMPTY, GprSet::union);
            for one in swept.iter().rev() {
                let next = at(&needed, one.insn.next_ip()).unwrap_or(GprSet::EMPTY);
                let target = one.insn.near_branch_target();
                // Whatever is outside the code needs everything.
                let jumped = match at(&needed, target) {
                    Some(set) => set,
                    None if swept.iter().any(|other| other.insn.ip() == target) => GprSet::EMPTY,
                    None => GprSet::ALL,
                };
                let behind = match one.insn.flow_control() {
                    FlowControl::UnconditionalBranch => jumped,
                    FlowControl::ConditionalBranch | FlowControl::Call
                        if one.insn.is_call_near() || one.insn.is_jcc_short_or_near() =>
                    {
                        next.union(jumped)
                    }
                    FlowControl::Return
                        if first_callee.is_some_and(|first| one.insn.ip() >= first) =>
                    {
                        returned
                    }
                    FlowControl::Return => GprSet::ALL,
                    _ => next,
                };
                let before = behind.minus(one.writes).union(one.reads);
                if needed.insert(one.insn.ip(), before) != Some(before) {
                    changed = true;
                }
            }
            if !changed {
                return Self(needed);
            }
        }
    }

    /// Is register `number` read at `ip` or behind it? Yes, where that isn't known.
    pub(crate) fn is_needed(&self, ip: u64, number: u8) -> bool {
        self.0
            .get(&ip)
            .is_none_or(|set| set.iter().any(|needed| needed == number))
    }
}

fn is_call(insn: &Instruction) -> bool {
    insn.is_call_near()
}

fn sweep(memory: Memory<'_>) -> Vec<Swept> {
    let code = memory.image.code;
    let len = usize::try_from(code.len())
        .unwrap_or(0)
        .min(memory.image.bytes.len());
    let bytes = &memory.image.bytes[..len];
    let mut factory = InstructionInfoFactory::new();
    Decoder::with_ip(64, bytes, code.start.0, DecoderOptions::NONE)
        .into_iter()
        .map(|insn| {
            let (mut reads, mut writes) = (GprSet::EMPTY, GprSet::EMPTY);
            for used in factory.info(&insn).used_registers() {
                let Some(number) = gpr(used.register()) else {
                    continue;
                };
                match used.access() {
                    OpAccess::Write if used.register().size() >= 4 => writes = writes.with(number),
                    OpAccess::None | OpAccess::NoMemAccess => {}
                    _ => reads = reads.with(number),
                }
            }
            match insn.mnemonic() {
                iced_x86::Mnemonic::Syscall => {
                    reads = reads.union(SYSCALL_READS);
                    writes = writes.union(SYSCALL_WRITES);
                }
                iced_x86::Mnemonic::Call if !is_call(&insn) => {
                    writes = writes.union(GprSet::CALLER_SAVED);
                }
                _ => {}
            }
            Swept {
                insn,
                reads,
                writes,
            }
        })
        .collect()
}
