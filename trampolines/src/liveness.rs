//! Which registers a hook at a function's entry may overwrite, decided from the function's own code.
//!
//! The psABI alone doesn't say: gcc's -fipa-ra lets callers keep values in caller-saved registers that the callee happens
//! not to touch. A register is *clobberable* if the function writes it on some path from the entry, or calls something
//! outside its module or through a pointer (then gcc assumes the psABI's whole set), and its value at the entry is copied
//! nowhere, from where it could be restored. It is *free* if, besides, the function reads that value on no path. Vector registers are never free. Invariant: what can't be followed counts as a
//! read of everything, and never as a write.
//!
//! The search goes forward: which entry values are still in their register when an instruction is reached (on some path).

use std::collections::BTreeMap;

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
    RflagsBits,
};

use crate::address::Avma;
use crate::fragment::{GPR_NAMES, GprSet};
use crate::function::{FunctionText, SiteKind};
use crate::scan::{self, CodeScan};

/// Why a register is free, or isn't.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Because {
    /// Free: the function overwrites it here, before reading it on any path.
    #[error("free: overwritten at {0}, not read before")]
    Written(Avma),
    /// Free: nothing outside the module preserves it, and it isn't read before.
    #[error("free: lost in the call at {0}, not read before")]
    LostInCall(Avma),
    /// Live: the function reads what its caller left in it.
    #[error("live: read at {0}")]
    Read(Avma),
    /// Live: control can't be followed beyond here.
    #[error("live: the code can't be followed beyond {0}")]
    NotFollowed(Avma),
    /// Live: the function never touches it, so callers may count on it.
    #[error("live: never written, callers may rely on it")]
    NeverWritten,
    /// Live: inside a function everything is.
    #[error("live: inside a function")]
    InsideFunction,
}

/// The decision about one caller-saved register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegisterDecision {
    /// Number in the SDM's encoding.
    pub register: u8,
    /// May callers no longer count on its value after the call?
    pub clobberable: bool,
    /// Why it is free or live.
    pub because: Because,
}

impl std::fmt::Display for RegisterDecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}",
            GPR_NAMES.get(usize::from(self.register)).unwrap_or(&"?"),
            self.because
        )
    }
}

/// What a hook may overwrite at a site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Liveness {
    /// May hold anything when the function continues.
    pub free: GprSet,
    /// May hold anything when the call is refused; a superset of `free`.
    pub clobberable: GprSet,
    /// Are the status flags dead (no path reads one before it is written)?
    pub flags_free: bool,
    /// One decision for each caller-saved register, in the order of their numbers.
    pub decisions: Vec<RegisterDecision>,
}

/// Decides for the site of `text`. `is_outside_module` says whether the target of a direct call or jump is code outside
/// the function's module, a PLT stub for example.
#[must_use]
pub fn liveness(
    text: &FunctionText,
    kind: SiteKind,
    is_outside_module: &dyn Fn(Avma) -> bool,
) -> Liveness {
    if kind == SiteKind::Offset {
        return all_live(Because::InsideFunction);
    }
    let scan = match CodeScan::new(text) {
        Ok(scan) => scan,
        Err(bad) => return all_live(Because::NotFollowed(bad.0)),
    };
    let mut search = Search {
        text,
        scan: &scan,
        is_outside_module,
        found: Found::default(),
    };
    search.run();
    search.found.decide()
}

/// The free registers alone (see [`liveness`]).
#[must_use]
pub fn free_registers(
    text: &FunctionText,
    kind: SiteKind,
    is_outside_module: &dyn Fn(Avma) -> bool,
) -> GprSet {
    liveness(text, kind, is_outside_module).free
}

fn all_live(because: Because) -> Liveness {
    let decide = |register| RegisterDecision {
        register,
        clobberable: false,
        because,
    };
    Liveness {
        free: GprSet::EMPTY,
        clobberable: GprSet::EMPTY,
        flags_free: false,
        decisions: GprSet::CALLER_SAVED.iter().map(decide).collect(),
    }
}

/// Entry values that are still in place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Alive {
    gprs: GprSet,
    /// Status flags, as iced's `RflagsBits`.
    flags: u32,
}

/// The first instruction (by address) that did each thing to each register.
#[derive(Default)]
struct Found {
    read: BTreeMap<u8, Avma>,
    lost: BTreeMap<u8, Avma>,
    written: BTreeMap<u8, Avma>,
    /// Registers whose entry value was copied somewhere and may be put back.
    copied: GprSet,
    call: Option<Avma>,
    flags_read: bool,
}

impl Found {
    fn note(into: &mut BTreeMap<u8, Avma>, registers: GprSet, at: Avma) {
        for register in registers.iter() {
            let first = into.entry(register).or_insert(at);
            *first = (*first).min(at);
        }
    }

    fn decide(&self) -> Liveness {
        let mut liveness = all_live(Because::NeverWritten);
        liveness.flags_free = !self.flags_read;
        for decision in &mut liveness.decisions {
            let register = decision.register;
            let lost = match (self.written.get(&register), self.call) {
                (Some(at), _) => Some(Because::Written(*at)),
                (None, Some(at)) => Some(Because::LostInCall(at)),
                (None, None) => None,
            };
            let may_be_restored =
                self.copied.contains(register) || self.lost.contains_key(&register);
            decision.clobberable = lost.is_some() && !may_be_restored;
            if decision.clobberable {
                liveness.clobberable = liveness.clobberable.with(register);
            }
            decision.because = match (self.read.get(&register), self.lost.get(&register), lost) {
                (Some(at), _, _) => Because::Read(*at),
                (None, Some(at), _) => Because::NotFollowed(*at),
                (None, None, Some(why)) => {
                    liveness.free = liveness.free.with(register);
                    why
                }
                (None, None, None) => Because::NeverWritten,
            };
        }
        liveness
    }
}

/// What one instruction does.
#[derive(Default)]
struct Effect {
    reads: GprSet,
    /// Read in a way that may put the value somewhere else.
    copies: GprSet,
    /// Certainly overwritten as a whole.
    kills: GprSet,
    /// Written in part, on condition, or as a whole.
    writes: GprSet,
    flags_read: u32,
    flags_killed: u32,
    /// Leaves the function in a way that can't be followed: everything counts as read.
    lost: bool,
    /// Calls or jumps out of the module.
    calls_out: bool,
    /// Where control can go next.
    next: Vec<Avma>,
}

/// The flags that instructions compute with.
const STATUS_FLAGS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

struct Search<'a> {
    text: &'a FunctionText,
    scan: &'a CodeScan,
    is_outside_module: &'a dyn Fn(Avma) -> bool,
    found: Found,
}

impl Search<'_> {
    /// Visits every reachable instruction until the sets of living entry values no longer grow.
    fn run(&mut self) {
        let all = Alive {
            gprs: GprSet::ALL,
            flags: STATUS_FLAGS,
        };
        let mut alive = BTreeMap::from([(self.text.at, all)]);
        let mut pending = vec![self.text.at];
        let mut factory = InstructionInfoFactory::new();
        while let Some(at) = pending.pop() {
            let (Some(here), Some(insn)) = (alive.get(&at).copied(), self.scan.at(at)) else {
                continue;
            };
            let effect = self.effect(&mut factory, insn);
            self.record(at, here, &effect);
            let after = Alive {
                gprs: here.gprs.minus(effect.kills),
                flags: here.flags & !effect.flags_killed,
            };
            for next in effect.next {
                let before = alive.get(&next).copied();
                let joined = before.map_or(after, |before| Alive {
                    gprs: before.gprs.union(after.gprs),
                    flags: before.flags | after.flags,
                });
                if before != Some(joined) {
                    alive.insert(next, joined);
                    pending.push(next);
                }
            }
        }
    }

    fn record(&mut self, at: Avma, here: Alive, effect: &Effect) {
        if effect.lost {
            Found::note(&mut self.found.lost, here.gprs, at);
            self.found.flags_read |= here.flags != 0;
        }
        Found::note(
            &mut self.found.read,
            here.gprs.intersection(effect.reads),
            at,
        );
        Found::note(&mut self.found.written, effect.writes, at);
        self.found.copied = self
            .found
            .copied
            .union(here.gprs.intersection(effect.copies));
        self.found.flags_read |= here.flags & effect.flags_read != 0;
        if effect.calls_out {
            self.found.call = Some(self.found.call.map_or(at, |first| first.min(at)));
        }
    }

    fn effect(&self, factory: &mut InstructionInfoFactory, insn: &Instruction) -> Effect {
        let mut effect = operands(factory, insn);
        let next = Avma(insn.next_ip());
        let falls_into_code = self.scan.at(next).is_some();
        match insn.flow_control() {
            FlowControl::Next if insn.mnemonic() == Mnemonic::Syscall => syscall(&mut effect),
            FlowControl::Next => {}
            FlowControl::UnconditionalBranch
            | FlowControl::ConditionalBranch
            | FlowControl::XbeginXabortXend => {
                self.branch(&mut effect, insn);
            }
            FlowControl::Call if insn.mnemonic() == Mnemonic::Syscall => syscall(&mut effect),
            FlowControl::Call | FlowControl::IndirectCall => {
                self.call(&mut effect, insn);
                if falls_into_code {
                    effect.next.push(next);
                }
                // A call that nothing follows doesn't return.
                return effect;
            }
            FlowControl::IndirectBranch => {
                let through_got = insn.is_ip_rel_memory_operand();
                effect.calls_out = through_got;
                effect.lost = !through_got;
                effect.reads = effect.reads.union(GprSet::ARGUMENTS);
                return effect;
            }
            FlowControl::Return => {
                // A result that was passed in and is handed back unread (Go passes both in rax).
                effect.reads = effect.reads.union(GprSet::of(&[0, 2]));
                effect.lost = insn.mnemonic() != Mnemonic::Ret;
                return effect;
            }
            FlowControl::Exception => return effect,
            FlowControl::Interrupt => effect.lost = true,
        }
        if insn.flow_control() != FlowControl::UnconditionalBranch {
            effect.next.push(next);
            effect.lost |= !falls_into_code;
        }
        effect
    }

    /// A direct jump: to code of ours, or a tail call.
    fn branch(&self, effect: &mut Effect, insn: &Instruction) {
        match scan::direct_target(insn).map(Avma) {
            Some(target) if self.scan.at(target).is_some() => effect.next.push(target),
            Some(target) => {
                effect.reads = effect.reads.union(GprSet::ARGUMENTS);
                effect.calls_out |= (self.is_outside_module)(target);
            }
            None => effect.lost = true,
        }
    }

    /// A call reads what may be arguments. What a function of the same module preserves isn't known, neither is what it
    /// overwrites.
    fn call(&self, effect: &mut Effect, insn: &Instruction) {
        effect.reads = effect.reads.union(GprSet::ARGUMENTS);
        let target = scan::direct_target(insn).map(Avma);
        if target.is_none_or(|target| (self.is_outside_module)(target)) {
            effect.calls_out = true;
            effect.kills = effect.kills.union(GprSet::CALLER_SAVED);
            effect.flags_killed = u32::MAX;
        }
    }
}

/// The kernel's calling convention, syscall(2): what it may read and what it overwrites.
fn syscall(effect: &mut Effect) {
    effect.reads = effect.reads.union(GprSet::of(&[0, 2, 6, 7, 8, 9, 10]));
    effect.writes = effect.writes.union(GprSet::of(&[0, 1, 11]));
    effect.kills = effect.kills.union(GprSet::of(&[0, 1, 11]));
    // The flags go into r11 and come back from there; the kernel doesn't act on them.
    effect.flags_read = 0;
    effect.flags_killed = 0;
}

/// Registers and flags as iced's operand tables have them.
fn operands(factory: &mut InstructionInfoFactory, insn: &Instruction) -> Effect {
    let mut effect = Effect {
        flags_read: insn.rflags_read(),
        flags_killed: insn.rflags_modified(),
        ..Effect::default()
    };
    if insn.mnemonic() == Mnemonic::Nop {
        return effect;
    }
    for used in factory.info(insn).used_registers() {
        let full = used.register().full_register();
        if !full.is_gpr64() {
            continue;
        }
        let register = GprSet(1u16.checked_shl(full.number() as u32).unwrap_or(0));
        let (reads, writes, whole) = match used.access() {
            OpAccess::Read | OpAccess::CondRead => (true, false, false),
            OpAccess::Write => (false, true, used.register().size() >= 4),
            OpAccess::CondWrite => (false, true, false),
            OpAccess::ReadWrite => (true, true, used.register().size() >= 4),
            OpAccess::ReadCondWrite => (true, true, false),
            OpAccess::None | OpAccess::NoMemAccess => (false, false, false),
        };
        effect.reads = if reads {
            effect.reads.union(register)
        } else {
            effect.reads
        };
        if reads && !only_looks_at(insn, used.register()) {
            effect.copies = effect.copies.union(register);
        }
        effect.writes = if writes {
            effect.writes.union(register)
        } else {
            effect.writes
        };
        effect.kills = if whole {
            effect.kills.union(register)
        } else {
            effect.kills
        };
    }
    effect
}

/// Does the instruction use the register's value without putting it anywhere: compare it, or use it as an address?
fn only_looks_at(insn: &Instruction, register: Register) -> bool {
    let full = register.full_register();
    let is_operand = (0..insn.op_count()).any(|index| {
        insn.op_kind(index) == OpKind::Register && insn.op_register(index).full_register() == full
    });
    let is_address =
        insn.memory_base().full_register() == full || insn.memory_index().full_register() == full;
    match insn.mnemonic() {
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Call | Mnemonic::Jmp => true,
        Mnemonic::Lea => false,
        _ => is_address && !is_operand,
    }
}
