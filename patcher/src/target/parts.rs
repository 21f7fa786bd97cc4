//! Other parts of a function: code elsewhere in the module that jumps into its middle (gcc's `.cold` parts).
//!
//! Found by evidence, so that stripped binaries are no exception: frames that hold a direct jump to a place inside the function
//! behind its entry. Candidates are found by looking at every byte pattern of a near jump, and confirmed by decoding the
//! frame from its beginning.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use super::address::Svma;
use super::elf::{ElfImage, slice};
use super::frames::Frame;
use super::symbols;

/// Most parts that are given; more means that something is odd, and the rest is found by nobody.
const MAX_PARTS: usize = 64;
/// Longest part.
const MAX_PART: u64 = 1 << 20;
/// Short jumps reach 128 bytes back and 127 forward of their end.
const SHORT: u64 = 160;

pub(crate) fn of(
    image: &ElfImage,
    name: Option<&str>,
    start: Svma,
    len: u64,
) -> Vec<(Svma, Vec<u8>)> {
    let end = start.plus(len);
    let outside = |at: Svma| at < start || at >= end;
    let mut found: Vec<Frame> = Vec::new();
    if let Some(name) = name {
        symbols::for_each(image, image, &mut |symbol| {
            let rest = symbol
                .name
                .strip_prefix(name.as_bytes())
                .and_then(|rest| rest.strip_prefix(b".cold"));
            let cold = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."));
            if cold && symbol.size > 0 && symbol.size <= MAX_PART && outside(symbol.at) {
                found.push(Frame {
                    start: symbol.at,
                    len: symbol.size,
                });
            }
        });
    }
    let frames = image.frames();
    // Frames of a real file don't overlap: together they are no longer than the code. Hostile ones do.
    let code: u64 = image
        .segments()
        .iter()
        .filter(|segment| segment.exec)
        .map(|segment| segment.filesz)
        .sum();
    let mut budget = code.saturating_mul(2);
    let mut seen: BTreeSet<Svma> = BTreeSet::new();
    let mut check = |at: Svma| {
        let next = frames.partition_point(|frame| frame.start <= at);
        let Some(frame) = next.checked_sub(1).and_then(|index| frames.get(index)) else {
            return;
        };
        if !seen.insert(frame.start) || frame.len > budget {
            return;
        }
        budget -= frame.len;
        let known = found.iter().any(|part| part.start == frame.start);
        let fits = frame.covers(at) && frame.len <= MAX_PART && outside(frame.start);
        if !known && fits && found.len() < MAX_PARTS && jumps_into(image, *frame, start, end) {
            found.push(*frame);
        }
    };
    for segment in image.segments().iter().filter(|segment| segment.exec) {
        let available = (image.bytes().len() as u64).saturating_sub(segment.offset);
        let Some(code) = slice(image.bytes(), segment.offset, segment.filesz.min(available)) else {
            continue;
        };
        near_jumps(code, segment.svma, start, end, &mut check);
    }
    // Short jumps come only from next door.
    for frame in frames {
        let near = frame.start.0 < end.0.saturating_add(SHORT)
            && frame.start.0.saturating_add(frame.len) > start.0.saturating_sub(SHORT);
        if near {
            check(frame.start);
        }
    }
    let parts = found
        .into_iter()
        .filter_map(|part| Some((part.start, image.at(part.start, part.len)?.to_vec())));
    parts.collect()
}

/// Calls `see` for every place outside the function where the bytes of a near jump into its interior begin.
fn near_jumps(code: &[u8], base: Svma, start: Svma, end: Svma, see: &mut dyn FnMut(Svma)) {
    for (index, window) in code.windows(5).enumerate() {
        let jump =
            window[0] == 0xe9 || (window[0] & 0xf0 == 0x80 && index > 0 && code[index - 1] == 0x0f);
        if !jump {
            continue;
        }
        let distance = i32::from_le_bytes([window[1], window[2], window[3], window[4]]);
        let at = base.plus(index as u64);
        let to = at.plus(5).plus(i64::from(distance).cast_unsigned());
        if to > start && to < end && (at < start || at >= end) {
            see(at);
        }
    }
}

/// Does a frame's code, decoded from its beginning, hold a direct jump to a place behind the entry?
fn jumps_into(image: &ElfImage, frame: Frame, start: Svma, end: Svma) -> bool {
    let Some(code) = image.at(frame.start, frame.len) else {
        return false;
    };
    let mut decoder = Decoder::with_ip(64, code, frame.start.0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let branch = matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        let to = Svma(instruction.near_branch_target());
        if branch && to > start && to < end {
            return true;
        }
    }
    false
}
