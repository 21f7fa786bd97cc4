//! Decodes a whole function: every instruction that its bytes hold, in every alignment that a direct jump selects.
//!
//! A linear sweep from the first byte, plus what begins at jump targets that lie between the sweep's boundaries
//! (hand-written code jumps over a `lock` prefix). Doesn't know indirect jumps' targets. Invariant: each direct
//! jump inside the scanned bytes ends at an instruction that is in the map.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

use crate::address::Avma;
use crate::function::FunctionText;

/// Bytes that are no instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Undecodable(pub(crate) Avma);

/// All instructions of a function by address.
#[derive(Clone, Debug)]
pub(crate) struct CodeScan {
    insns: BTreeMap<u64, Instruction>,
}

impl CodeScan {
    /// Decodes the function and its other parts.
    pub(crate) fn new(text: &FunctionText) -> Result<Self, Undecodable> {
        let mut insns = BTreeMap::new();
        let mut pieces = vec![(text.at.0, text.bytes.as_slice())];
        pieces.extend(
            text.parts
                .iter()
                .map(|part| (part.at.0, part.bytes.as_slice())),
        );
        for (at, bytes) in &pieces {
            sweep(*at, bytes, *at, &mut insns)?;
        }
        let mut pending: Vec<u64> = insns.values().filter_map(direct_target).collect();
        while let Some(target) = pending.pop() {
            if insns.contains_key(&target) {
                continue;
            }
            for (at, bytes) in &pieces {
                if target
                    .checked_sub(*at)
                    .is_some_and(|offset| offset < bytes.len() as u64)
                {
                    pending.extend(
                        sweep(*at, bytes, target, &mut insns)?
                            .iter()
                            .filter_map(direct_target),
                    );
                    break;
                }
            }
        }
        Ok(Self { insns })
    }

    /// All instructions, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Avma, &Instruction)> {
        self.insns.iter().map(|(at, insn)| (Avma(*at), insn))
    }

    /// The instruction that begins at `at`.
    pub(crate) fn at(&self, at: Avma) -> Option<&Instruction> {
        self.insns.get(&at.0)
    }
}

/// Decodes from `from` until the end of the bytes or an instruction that is known; returns what was new.
fn sweep(
    at: u64,
    bytes: &[u8],
    from: u64,
    insns: &mut BTreeMap<u64, Instruction>,
) -> Result<Vec<Instruction>, Undecodable> {
    let mut new = Vec::new();
    let start = usize::try_from(from.wrapping_sub(at)).unwrap_or(usize::MAX);
    let Some(tail) = bytes.get(start..) else {
        return Ok(new);
    };
    let mut decoder = Decoder::with_ip(64, tail, from, DecoderOptions::NONE);
    while decoder.can_decode() && !insns.contains_key(&decoder.ip()) {
        let ip = decoder.ip();
        let insn = decoder.decode();
        if insn.is_invalid() {
            return Err(Undecodable(Avma(ip)));
        }
        insns.insert(ip, insn);
        new.push(insn);
    }
    Ok(new)
}

/// Where a near branch or call with its target in the instruction goes; for `xbegin` the abort address.
pub(crate) fn direct_target(insn: &Instruction) -> Option<u64> {
    match insn.flow_control() {
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
            if is_near_branch(insn) =>
        {
            Some(insn.near_branch_target())
        }
        FlowControl::XbeginXabortXend if insn.mnemonic() == Mnemonic::Xbegin => {
            Some(insn.near_branch_target())
        }
        _ => None,
    }
}

/// Does the instruction's first operand hold a near branch target?
fn is_near_branch(insn: &Instruction) -> bool {
    use iced_x86::OpKind;
    insn.op_count() > 0
        && matches!(
            insn.op0_kind(),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        )
}

/// Can control never reach the byte after this instruction (calls are taken to return)?
pub(crate) fn ends_flow(insn: &Instruction) -> bool {
    matches!(
        insn.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception
    )
}
