//! Proves that the displaced instructions' copies in an image do what the originals did.
//!
//! Decodes both sides anew and compares them operand by operand; doesn't use what the relocation wrote down but the
//! addresses of the copies. Invariant: from each copy control reaches the next one, and from the last the resume address.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use super::{CheckFailure, Problem};
use crate::address::Avma;
use crate::displace::text_of;
use crate::image::TrampolineImage;

/// Checks all copies and the jump back.
pub(crate) fn check(image: &TrampolineImage) -> Result<(), CheckFailure> {
    let mut at = image.displaced_copy.start;
    for each in &image.displaced.insns {
        let original =
            Decoder::with_ip(64, &each.bytes, each.insn.ip(), DecoderOptions::NONE).decode();
        let failure = |at: Avma, text: String| CheckFailure {
            at,
            text,
            problem: Problem::NotACopy {
                original: text_of(&original),
            },
        };
        if image.ips.to_image(Avma(original.ip())) != Some(at) {
            return Err(failure(at, "ip map".to_owned()));
        }
        let copy = decode(image, at);
        at = match same(image, &original, &copy) {
            Some(end) => end,
            None => return Err(failure(at, text_of(&copy))),
        };
    }
    if let Some(resume) = image.displaced.resume() {
        let back = decode(image, at);
        if back.code() != Code::Jmp_rel32_64 || back.near_branch_target() != resume.0 {
            let problem = Problem::LeavesCode {
                to: Avma(back.near_branch_target()),
            };
            return Err(CheckFailure {
                at,
                text: text_of(&back),
                problem,
            });
        }
    }
    Ok(())
}

fn decode(image: &TrampolineImage, at: Avma) -> Instruction {
    let start = at
        .since(image.at)
        .and_then(|start| usize::try_from(start).ok())
        .unwrap_or(usize::MAX);
    let bytes = image.bytes.get(start..).unwrap_or(&[]);
    Decoder::with_ip(64, bytes, at.0, DecoderOptions::NONE).decode()
}

/// Does what begins with `copy` do what `original` does? Returns where it ends.
fn same(image: &TrampolineImage, original: &Instruction, copy: &Instruction) -> Option<Avma> {
    let next = Avma(copy.next_ip());
    match original.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall => same_call(image, original, copy),
        FlowControl::UnconditionalBranch => {
            (copy.is_jmp_short_or_near() && same_target(original, copy)).then_some(next)
        }
        FlowControl::ConditionalBranch if original.is_jcc_short_or_near() => {
            let same_condition = copy.condition_code() == original.condition_code();
            (copy.is_jcc_short_or_near() && same_condition && same_target(original, copy))
                .then_some(next)
        }
        FlowControl::ConditionalBranch => same_loop(image, original, copy),
        FlowControl::Next | FlowControl::IndirectBranch | FlowControl::Return => {
            same_operands(original, copy).then_some(next)
        }
        FlowControl::Interrupt | FlowControl::XbeginXabortXend | FlowControl::Exception => None,
    }
}

fn same_target(original: &Instruction, copy: &Instruction) -> bool {
    original.near_branch_target() == copy.near_branch_target()
}

/// `loop`, `jrcxz`: either still within reach, or `loop over; jmp past; over: jmp target; past:`.
fn same_loop(image: &TrampolineImage, original: &Instruction, copy: &Instruction) -> Option<Avma> {
    if copy.code() != original.code() {
        return None;
    }
    if same_target(original, copy) {
        return Some(Avma(copy.next_ip()));
    }
    let past = decode(image, Avma(copy.next_ip()));
    let over = decode(image, Avma(past.next_ip()));
    let shape = past.is_jmp_short_or_near()
        && over.is_jmp_short_or_near()
        && copy.near_branch_target() == over.ip()
        && past.near_branch_target() == over.next_ip()
        && over.near_branch_target() == original.near_branch_target();
    shape.then_some(Avma(over.next_ip()))
}

/// The original return address is pushed, nothing else changes, and control goes where the call went.
fn same_call(image: &TrampolineImage, original: &Instruction, copy: &Instruction) -> Option<Avma> {
    let wanted = original.next_ip();
    let jump = if copy.code() == Code::Pushq_imm32 {
        (copy.immediate(0) == wanted).then(|| decode(image, Avma(copy.next_ip())))?
    } else {
        let low = decode(image, Avma(copy.next_ip()));
        let high = decode(image, Avma(low.next_ip()));
        let room = copy.code() == Code::Lea_r64_m
            && copy.op0_register() == Register::RSP
            && memory_is(copy, Register::RSP, -8)
            && copy.memory_index() == Register::None;
        let half = |insn: &Instruction, offset: i64, value: u64| {
            insn.code() == Code::Mov_rm32_imm32
                && insn.op0_kind() == OpKind::Memory
                && memory_is(insn, Register::RSP, offset)
                && insn.memory_index() == Register::None
                && insn.immediate(1) & 0xffff_ffff == value
        };
        let pushed = room && half(&low, 0, wanted & 0xffff_ffff) && half(&high, 4, wanted >> 32);
        pushed.then(|| decode(image, Avma(high.next_ip())))?
    };
    let same = match original.flow_control() {
        FlowControl::Call => jump.is_jmp_short_or_near() && same_target(original, &jump),
        _ => {
            jump.code() == Code::Jmp_rm64
                && original.code() == Code::Call_rm64
                && same_call_operand(original, &jump)
        }
    };
    same.then_some(Avma(jump.next_ip()))
}

fn memory_is(insn: &Instruction, base: Register, displacement: i64) -> bool {
    insn.memory_base() == base && insn.memory_displacement64() as i64 == displacement
}

/// The operand of `call` and of the `jmp` after the push: the same, but 8 further from a lower rsp.
fn same_call_operand(call: &Instruction, jump: &Instruction) -> bool {
    if call.op0_kind() == OpKind::Memory && call.memory_base() == Register::RSP {
        return jump.op0_kind() == OpKind::Memory
            && memory_is(
                jump,
                Register::RSP,
                (call.memory_displacement64() as i64).wrapping_add(8),
            )
            && jump.memory_index() == Register::None
            && call.memory_index() == Register::None
            && jump.memory_segment() == call.memory_segment();
    }
    let of_rsp = call.op0_kind() == OpKind::Register && call.op0_register() == Register::RSP;
    !of_rsp && same_operand(call, jump, 0)
}

/// The same instruction on the same operands, wherever it lies.
fn same_operands(original: &Instruction, copy: &Instruction) -> bool {
    original.code() == copy.code()
        && original.mnemonic() != Mnemonic::INVALID
        && original.op_count() == copy.op_count()
        && original.has_lock_prefix() == copy.has_lock_prefix()
        && original.has_rep_prefix() == copy.has_rep_prefix()
        && original.has_repne_prefix() == copy.has_repne_prefix()
        && original.op_mask() == copy.op_mask()
        && original.zeroing_masking() == copy.zeroing_masking()
        && original.rounding_control() == copy.rounding_control()
        && original.suppress_all_exceptions() == copy.suppress_all_exceptions()
        && (0..original.op_count()).all(|index| same_operand(original, copy, index))
}

fn same_operand(original: &Instruction, copy: &Instruction, index: u32) -> bool {
    let kind = original.op_kind(index);
    if kind != copy.op_kind(index) {
        return false;
    }
    match kind {
        OpKind::Register => original.op_register(index) == copy.op_register(index),
        OpKind::Memory => {
            original.memory_segment() == copy.memory_segment()
                && original.memory_base() == copy.memory_base()
                && original.memory_index() == copy.memory_index()
                && original.memory_index_scale() == copy.memory_index_scale()
                // For rip-relative operands iced gives the absolute address.
                && original.memory_displacement64() == copy.memory_displacement64()
                && original.memory_size() == copy.memory_size()
                && original.is_broadcast() == copy.is_broadcast()
                && original.is_vsib() == copy.is_vsib()
        }
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            same_target(original, copy)
        }
        OpKind::FarBranch16 | OpKind::FarBranch32 => false,
        OpKind::MemorySegSI
        | OpKind::MemorySegESI
        | OpKind::MemorySegRSI
        | OpKind::MemorySegDI
        | OpKind::MemorySegEDI
        | OpKind::MemorySegRDI => original.segment_prefix() == copy.segment_prefix(),
        OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => true,
        _ => original.immediate(index) == copy.immediate(index),
    }
}
