//! Bytes of a process as instructions, without anything that says what they are for.
//!
//! Literals lie between the instructions of an image, so that only what control can reach from its beginning is decoded;
//! what lies between is data.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use super::{Machine, Passage, Remarks, Step, machine};

/// The image of `bytes` at `base`: first the hook, then what begins at one of the addresses in `copies`, each with the
/// address that it was displaced from.
#[must_use]
pub fn found(
    bytes: &[u8],
    base: u64,
    copies: &BTreeMap<u64, u64>,
    remarks: &Remarks<'_>,
) -> Vec<Passage> {
    let hook_end = copies.keys().next().map_or(bytes.len(), |first| {
        usize::try_from(first.wrapping_sub(base)).map_or(bytes.len(), |at| at.min(bytes.len()))
    });
    let hook = bytes.get(..hook_end).unwrap_or_default();
    let mut passages = vec![passage("the patch", reached(hook, base, remarks))];
    let mut displaced = Vec::new();
    for (copy, original) in copies {
        let start = usize::try_from(copy.wrapping_sub(base)).unwrap_or(usize::MAX);
        let Some(rest) = bytes.get(start..) else {
            continue;
        };
        let mut decoder = Decoder::with_ip(64, rest, *copy, DecoderOptions::NONE);
        // A displaced instruction may have become several; the next copy's address ends them.
        let end = copies
            .range(copy + 1..)
            .next()
            .map_or(u64::MAX, |(next, _)| *next);
        let mut first = true;
        while decoder.can_decode() && decoder.ip() < end {
            let at = start + decoder.position();
            let insn = decoder.decode();
            let mut line = machine(&insn, bytes, at, remarks);
            if std::mem::take(&mut first) {
                let was = format!("displaced from {original:#x}");
                line.note = Some(
                    line.note
                        .map_or(was.clone(), |note| format!("{was}; {note}")),
                );
            }
            displaced.push(line);
            // Behind the last one there is padding only.
            if end == u64::MAX && leaves(&insn) {
                break;
            }
        }
    }
    passages.push(passage("displaced instructions", displaced));
    passages
}

fn passage(title: &str, code: Vec<Machine>) -> Passage {
    Passage {
        source: None,
        title: Some(title.to_owned()),
        steps: vec![Step {
            pc: None,
            text: String::new(),
            code,
        }],
    }
}

fn leaves(insn: &Instruction) -> bool {
    matches!(
        insn.flow_control(),
        FlowControl::UnconditionalBranch
            | FlowControl::IndirectBranch
            | FlowControl::Return
            | FlowControl::Exception
            | FlowControl::Interrupt
    )
}

/// Everything that control reaches from the first byte, in the order of addresses, with data between.
fn reached(bytes: &[u8], base: u64, remarks: &Remarks<'_>) -> Vec<Machine> {
    let mut lines: BTreeMap<usize, Machine> = BTreeMap::new();
    let mut open = vec![0_usize];
    while let Some(start) = open.pop() {
        let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) else {
            continue;
        };
        if lines.contains_key(&start) {
            continue;
        }
        let ip = base.wrapping_add(start as u64);
        let insn = Decoder::with_ip(64, rest, ip, DecoderOptions::NONE).decode();
        lines.insert(start, machine(&insn, bytes, start, remarks));
        if insn.is_invalid() {
            continue;
        }
        let target = insn.near_branch_target();
        if target != 0
            && let Ok(target) = usize::try_from(target.wrapping_sub(base))
        {
            open.push(target);
        }
        if !leaves(&insn) {
            open.push(start + insn.len());
        }
    }
    let mut all = Vec::new();
    let mut at = 0;
    for (start, line) in lines {
        push_data(&mut all, bytes, base, at..start);
        at = at.max(start + line.bytes.len());
        all.push(line);
    }
    push_data(&mut all, bytes, base, at..bytes.len());
    all
}

/// Bytes that nobody executes, eight a line.
fn push_data(all: &mut Vec<Machine>, bytes: &[u8], base: u64, range: std::ops::Range<usize>) {
    let start = range.start;
    for (index, chunk) in bytes.get(range).unwrap_or_default().chunks(8).enumerate() {
        all.push(Machine {
            at: base.wrapping_add((start + 8 * index) as u64),
            bytes: chunk.to_vec(),
            text: "(data)".to_owned(),
            note: None,
        });
    }
}
