//! Copies one displaced instruction to another address, doing exactly what it did.
//!
//! Position-independent ones are copied byte by byte; rip-relative ones get a new displacement; branches are encoded
//! again by iced, one per block so that each has its own address. A call pushes its *original* return address and
//! jumps, so that no frame ever points into the image. Invariant: flags and registers are those of the original.

use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, ConstantOffsets, Decoder, DecoderOptions, Encoder,
    FlowControl, Instruction, InstructionBlock, Mnemonic, OpKind, Register,
};

use crate::address::{Avma, AvmaRange};
use crate::displace::{DisplacedInsn, Immovable};

/// How an instruction is moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relocation {
    /// The same bytes.
    Copy,
    /// The same bytes with another 32-bit displacement at this offset.
    RipRelative(usize),
    /// A near branch, encoded again.
    Branch,
    /// `call rel32`.
    CallDirect,
    /// `call r/m64`.
    CallIndirect,
}

impl Relocation {
    pub(crate) const fn is_call(self) -> bool {
        matches!(self, Self::CallDirect | Self::CallIndirect)
    }
}

/// The copy's displacement or branch doesn't fit into 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooFar;

/// Branches stay this far within ±2 GiB, more than any sequence of ours is long.
const SLACK: i64 = 0x1000;

/// Decides how `insn` is moved, or why it can't be. `window` is what the jump replaces.
pub(crate) fn classify(
    insn: &Instruction,
    bytes: &[u8],
    window: AvmaRange,
) -> Result<Relocation, Immovable> {
    match insn.mnemonic() {
        Mnemonic::Syscall | Mnemonic::Sysenter | Mnemonic::Sysexit | Mnemonic::Sysret => {
            return Err(Immovable::Syscall);
        }
        _ => {}
    }
    match insn.flow_control() {
        FlowControl::Interrupt => return Err(Immovable::Interrupt),
        FlowControl::Exception => return Err(Immovable::Exception),
        FlowControl::XbeginXabortXend => return Err(Immovable::Transaction),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            return classify_branch(insn, bytes);
        }
        FlowControl::Call => {
            return match (insn.code(), classify_branch(insn, bytes)) {
                (Code::Call_rel32_64, Ok(_)) => Ok(Relocation::CallDirect),
                (_, Err(reason)) => Err(reason),
                _ => Err(Immovable::Far),
            };
        }
        FlowControl::IndirectCall => {
            if insn.code() != Code::Call_rm64 {
                return Err(Immovable::Far);
            }
            call_operand_after_push(insn)?;
        }
        FlowControl::IndirectBranch if insn.code() != Code::Jmp_rm64 => return Err(Immovable::Far),
        FlowControl::Return if !matches!(insn.code(), Code::Retnq | Code::Retnq_imm16) => {
            return Err(Immovable::Far);
        }
        FlowControl::Next | FlowControl::IndirectBranch | FlowControl::Return => {}
    }
    let how = classify_memory(insn, bytes, window)?;
    Ok(if insn.flow_control() == FlowControl::IndirectCall {
        Relocation::CallIndirect
    } else {
        how
    })
}

/// Near branches that iced's block encoder knows how to lengthen, with 64-bit targets.
fn classify_branch(insn: &Instruction, bytes: &[u8]) -> Result<Relocation, Immovable> {
    if insn.is_jmp_far() {
        return Err(Immovable::Far);
    }
    if insn.op0_kind() == OpKind::NearBranch64 && !has_operand_size_prefix(bytes) {
        Ok(Relocation::Branch)
    } else {
        Err(Immovable::OperandSize)
    }
}

/// Does the instruction have prefix 0x66? Intel ignores it at near branches in 64-bit mode, AMD truncates the target
/// (SDM vol. 2, JMP; APM vol. 3), so nobody may rely on either.
pub(crate) fn has_operand_size_prefix(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .take_while(|byte| is_prefix(**byte))
        .any(|byte| *byte == 0x66)
}

/// Legacy prefixes (SDM vol. 2, 2.1.1) and REX.
const fn is_prefix(byte: u8) -> bool {
    matches!(
        byte,
        0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x40..=0x4f
    )
}

fn classify_memory(
    insn: &Instruction,
    bytes: &[u8],
    window: AvmaRange,
) -> Result<Relocation, Immovable> {
    if !insn.is_ip_rel_memory_operand() {
        return Ok(Relocation::Copy);
    }
    if insn.memory_base() == Register::EIP {
        return Err(Immovable::EipRelative);
    }
    let size = insn.memory_size().size().max(1) as u64;
    let accesses = !matches!(insn.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
    if accesses && AvmaRange::new(Avma(insn.ip_rel_memory_address()), size).overlaps(&window) {
        return Err(Immovable::TouchesWindow);
    }
    let offsets = offsets_of(insn, bytes);
    if offsets.displacement_size() != 4 {
        return Err(Immovable::EipRelative);
    }
    Ok(Relocation::RipRelative(offsets.displacement_offset()))
}

fn offsets_of(insn: &Instruction, bytes: &[u8]) -> ConstantOffsets {
    let mut decoder = Decoder::with_ip(64, bytes, insn.ip(), DecoderOptions::NONE);
    let again = decoder.decode();
    decoder.get_constant_offsets(&again)
}

/// The indirect call as the jump that does the same once the return address has been pushed.
fn call_operand_after_push(insn: &Instruction) -> Result<Instruction, Immovable> {
    let mut jump = *insn;
    jump.set_code(Code::Jmp_rm64);
    if insn.op0_kind() != OpKind::Memory {
        return if insn.op0_register() == Register::RSP {
            Err(Immovable::CallThroughStack)
        } else {
            Ok(jump)
        };
    }
    if insn.memory_base() != Register::RSP && insn.memory_base() != Register::ESP {
        return Ok(jump);
    }
    // The operand is read before the push; after it rsp is 8 lower. Below rsp it would be the pushed word itself.
    let displacement = insn.memory_displacement64() as i64;
    let moved = displacement
        .checked_add(8)
        .and_then(|moved| i32::try_from(moved).ok());
    let plain = insn.memory_index() == Register::None && insn.memory_base() == Register::RSP;
    match moved {
        Some(moved) if plain && displacement >= 0 => {
            jump.set_memory_displ_size(8);
            jump.set_memory_displacement64(i64::from(moved) as u64);
            Ok(jump)
        }
        Some(_) | None => Err(Immovable::CallThroughStack),
    }
}

/// An upper bound of the copy's length.
pub(crate) fn max_len(each: &DisplacedInsn) -> usize {
    const PUSH: usize = 20;
    match each.how {
        Relocation::Copy | Relocation::RipRelative(_) => each.bytes.len(),
        // loop, jrcxz: themselves, a short jump over, and a near jump; prefixes of the original are kept.
        Relocation::Branch => each.bytes.len() + 9,
        Relocation::CallDirect => PUSH + 5,
        Relocation::CallIndirect => PUSH + each.bytes.len() + 5,
    }
}

/// Appends the copy of `each` that will lie at `at`.
pub(crate) fn encode(each: &DisplacedInsn, at: Avma, out: &mut Vec<u8>) -> Result<(), TooFar> {
    match each.how {
        Relocation::Copy => out.extend_from_slice(&each.bytes),
        Relocation::RipRelative(offset) => {
            let next = at.plus(each.bytes.len() as u64);
            let displacement = rel32(next, Avma(each.insn.ip_rel_memory_address()))?;
            let mut bytes = each.bytes.clone();
            let field = bytes.get_mut(offset..offset + 4).ok_or(TooFar)?;
            field.copy_from_slice(&displacement.to_le_bytes());
            out.extend_from_slice(&bytes);
        }
        Relocation::Branch => {
            within_reach(at, Avma(each.insn.near_branch_target()))?;
            let mut insn = each.insn;
            // The block encoder takes a target that is an instruction of the block for a jump inside it.
            insn.set_ip(at.0);
            let insns = [insn];
            let block = InstructionBlock::new(&insns, at.0);
            let encoded =
                BlockEncoder::encode(64, block, BlockEncoderOptions::NONE).map_err(|_| TooFar)?;
            out.extend_from_slice(&encoded.code_buffer);
        }
        Relocation::CallDirect => {
            let pushed = push_address(Avma(each.insn.next_ip()), out);
            jump(at.plus(pushed), Avma(each.insn.near_branch_target()), out)?;
        }
        Relocation::CallIndirect => {
            let pushed = push_address(Avma(each.insn.next_ip()), out);
            let insn = call_operand_after_push(&each.insn).map_err(|_| TooFar)?;
            let mut encoder = Encoder::new(64);
            encoder
                .encode(&insn, at.plus(pushed).0)
                .map_err(|_| TooFar)?;
            out.extend_from_slice(&encoder.take_buffer());
        }
    }
    Ok(())
}

/// Appends code that pushes `address` and changes nothing else, flags included; returns its length.
fn push_address(address: Avma, out: &mut Vec<u8>) -> u64 {
    let before = out.len();
    if let Ok(short) = i32::try_from(address.0 as i64) {
        out.push(0x68); // push imm32, sign-extended
        out.extend_from_slice(&short.to_le_bytes());
    } else {
        let (low, high) = (address.0 as u32, (address.0 >> 32) as u32);
        out.extend_from_slice(&[0x48, 0x8d, 0x64, 0x24, 0xf8]); // lea rsp, [rsp-8]
        out.extend_from_slice(&[0xc7, 0x04, 0x24]); // mov dword [rsp], low
        out.extend_from_slice(&low.to_le_bytes());
        out.extend_from_slice(&[0xc7, 0x44, 0x24, 0x04]); // mov dword [rsp+4], high
        out.extend_from_slice(&high.to_le_bytes());
    }
    (out.len() - before) as u64
}

/// Appends `jmp rel32` from `at` to `to`.
pub(crate) fn jump(at: Avma, to: Avma, out: &mut Vec<u8>) -> Result<(), TooFar> {
    let displacement = rel32(at.plus(5), to)?;
    out.push(0xe9);
    out.extend_from_slice(&displacement.to_le_bytes());
    Ok(())
}

/// The 32-bit displacement that leads from `next` to `to`.
pub(crate) fn rel32(next: Avma, to: Avma) -> Result<i32, TooFar> {
    i32::try_from(to.0.wrapping_sub(next.0) as i64).map_err(|_| TooFar)
}

fn within_reach(at: Avma, to: Avma) -> Result<(), TooFar> {
    let distance = to.0.wrapping_sub(at.0) as i64;
    let reach = i64::from(i32::MAX) - SLACK;
    if (-reach..=reach).contains(&distance) {
        Ok(())
    } else {
        Err(TooFar)
    }
}
