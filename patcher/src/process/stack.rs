//! Conservative look at a thread's stack: every aligned word from the red zone up, within bounds.
//!
//! Knows what a kernel's signal frame looks like, to follow a handler on an alternate stack back to the stack that it
//! interrupted. Doesn't unwind: code without frame pointers or unwind tables is the normal case here.

use upatch_trampolines::Avma;

use super::maps::Maps;
use super::memory::Memory;

/// How much of one stack is read at most, in bytes.
pub(super) const STACK_BOUND: u64 = 256 * 1024;
/// Stacks of one thread that are followed at most (alternate stacks nest rarely).
const STACKS: usize = 4;
/// `cs, gs, fs, ss` of 64-bit user code as one word of a `ucontext`; asm/sigcontext.h. `rsp`, `rip` and the flags are
/// the three words before.
const SIGNAL_FRAME_MARK: u64 = 0x002b_0000_0000_0033;

/// Hands every word of the thread's stacks to `see`. True if all of them was read, false if a stack was longer than
/// the bound or not readable.
pub(super) fn scan(memory: &Memory, maps: &Maps, sp: Avma, mut see: impl FnMut(u64)) -> bool {
    let mut complete = true;
    let mut seen: Vec<(u64, u64)> = Vec::new();
    let mut todo = vec![sp.0];
    while let Some(sp) = todo.pop() {
        if seen.iter().any(|&(start, end)| start <= sp && sp < end) {
            continue;
        }
        if seen.len() == STACKS {
            return false;
        }
        let Some(mapping) = maps.find(Avma(sp)) else {
            complete = false;
            continue;
        };
        // Below rsp lies the red zone of a leaf function (psABI §3.2.2).
        let start = sp.saturating_sub(128).max(mapping.range.start.0) & !7;
        let end = mapping.range.end.0.min(start.saturating_add(STACK_BOUND));
        complete &= end == mapping.range.end.0;
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
        let read = memory.read_some(Avma(start), &mut bytes);
        complete &= read == bytes.len();
        let mut last = [0; 3];
        for chunk in bytes[..read].chunks_exact(8) {
            let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
            see(word);
            if word == SIGNAL_FRAME_MARK {
                todo.push(last[0]);
            }
            last = [last[1], last[2], word];
        }
        seen.push((start, end));
    }
    complete
}
