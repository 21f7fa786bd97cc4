//! Reads the ring that `upatch_event` writes (`upatch.h` says how): who reads takes part in nothing and never stops a
//! writer.
//!
//! Every event has a number, and a reader answers for each number once: received, or lost. Lost are events that newer
//! ones took the place of, that were never finished, or whose check word is wrong. The ring's content is hostile:
//! whatever stands in it, one look costs at most one pass over the slots.

use std::collections::BTreeSet;

use super::arena::ReadArena;
use crate::object::{EventRing, SLOT_HEADER};

/// Bytes that are read at once.
const CHUNK: u64 = 256 << 10;
/// How often a slot is read again that changed while it was read.
const TRIES: u32 = 3;

/// An event as it lay in its slot, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawEvent {
    /// Its number; events of a ring are numbered from 0.
    pub number: u64,
    /// Nanoseconds of CLOCK_MONOTONIC; 0: not recorded.
    pub time: u64,
    /// Process id in the upper half, thread id in the lower; 0: not recorded.
    pub thread: u64,
    /// Number of its type in the object's BTF.
    pub ty: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A reader's place in a ring, and what it has seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    started: bool,
    next: u64,
    /// Events that were being written at the last look.
    unfinished: BTreeSet<u64>,
    /// Events handed out.
    pub received: u64,
    /// Events that went by since the first look.
    pub lost: u64,
    /// Events that had been overwritten before the first look.
    pub before: u64,
}

/// What a slot says about one event.
enum Look {
    Whole(RawEvent),
    Unfinished,
    Lost,
    /// The check word is wrong: another event is coming, or somebody wrote into it.
    Torn,
}

impl Cursor {
    /// A reader that begins with the oldest event of the ring, but at most `newest` back.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks once: hands every new event to `take`, by ascending number (those that took long to write come first).
    /// `newest` bounds how far back the first look goes.
    pub fn look<A: ReadArena + ?Sized>(
        &mut self,
        ring: &EventRing,
        arena: &A,
        newest: u64,
        take: &mut dyn FnMut(RawEvent),
    ) {
        let Some(head) = arena.word(ring.offset) else {
            return;
        };
        if !self.started {
            self.started = true;
            self.next = head.saturating_sub(ring.slots.min(newest));
            self.before = self.next;
        }
        if head < self.next {
            // Only a hostile process counts backwards: begin again from there.
            self.lost += self.unfinished.len() as u64;
            self.unfinished.clear();
            self.next = head;
            return;
        }
        let oldest = head.saturating_sub(ring.slots).max(self.next);
        self.lost = self.lost.saturating_add(oldest - self.next);
        self.next = head;
        for number in std::mem::take(&mut self.unfinished) {
            let slot = self.read(ring, arena, number);
            self.judge(ring, arena, number, &slot, take);
        }
        let mut number = oldest;
        while number < head {
            // Up to the ring's end, the last new event, or as much as is read at once.
            let place = number % ring.slots;
            let count = (ring.slots - place)
                .min(head - number)
                .min((CHUNK / ring.slot_bytes).max(1));
            let mut bytes = vec![0; usize::try_from(count * ring.slot_bytes).unwrap_or(0)];
            let there = arena.read_some(ring.slots_at + place * ring.slot_bytes, &mut bytes);
            bytes.truncate(there);
            let size = usize::try_from(ring.slot_bytes).unwrap_or(usize::MAX);
            for index in 0..count {
                let start = usize::try_from(index * ring.slot_bytes).unwrap_or(usize::MAX);
                let slot = bytes
                    .get(start..start.saturating_add(size))
                    .unwrap_or_default();
                self.judge(ring, arena, number + index, slot, take);
            }
            number += count;
        }
    }

    /// Nobody will look again: what is still being written counts as lost.
    pub fn finish(&mut self) {
        self.lost = self.lost.saturating_add(self.unfinished.len() as u64);
        self.unfinished.clear();
    }

    fn read<A: ReadArena + ?Sized>(&self, ring: &EventRing, arena: &A, number: u64) -> Vec<u8> {
        let mut slot = vec![0; usize::try_from(ring.slot_bytes).unwrap_or(0)];
        let at = ring.slots_at + number % ring.slots * ring.slot_bytes;
        let there = arena.read_some(at, &mut slot);
        slot.truncate(there);
        slot
    }

    fn judge<A: ReadArena + ?Sized>(
        &mut self,
        ring: &EventRing,
        arena: &A,
        number: u64,
        slot: &[u8],
        take: &mut dyn FnMut(RawEvent),
    ) {
        let mut look = look_at(number, slot);
        for _ in 0..TRIES {
            if !matches!(look, Look::Torn) {
                break;
            }
            look = look_at(number, &self.read(ring, arena, number));
        }
        match look {
            Look::Whole(event) => {
                self.received += 1;
                take(event);
            }
            Look::Unfinished if (self.unfinished.len() as u64) < ring.slots => {
                self.unfinished.insert(number);
            }
            Look::Unfinished | Look::Lost | Look::Torn => self.lost = self.lost.saturating_add(1),
        }
    }
}

fn look_at(number: u64, slot: &[u8]) -> Look {
    let word = |index: usize| {
        let bytes = slot.get(index * 8..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let writing = number.wrapping_mul(2).wrapping_add(1);
    let (Some(state), Some(check), Some(time), Some(thread), Some(what)) =
        (word(0), word(1), word(2), word(3), word(4))
    else {
        // The arena is gone, or shorter than it says.
        return Look::Lost;
    };
    if state <= writing {
        return Look::Unfinished;
    }
    if state != writing.wrapping_add(1) {
        return Look::Lost;
    }
    let payload = slot.get(SLOT_HEADER as usize..).unwrap_or_default();
    let size = (what >> 32) as usize;
    let Some(used) = payload.get(..size.next_multiple_of(8)) else {
        return Look::Torn;
    };
    let words = used
        .chunks_exact(8)
        .filter_map(<[u8]>::first_chunk)
        .map(|bytes| u64::from_le_bytes(*bytes));
    if check_word(writing, [time, thread, what].into_iter().chain(words)) != check {
        return Look::Torn;
    }
    Look::Whole(RawEvent {
        number,
        time,
        thread,
        ty: what as u32,
        bytes: used[..size].to_vec(),
    })
}

/// `__upatch_mix` of `upatch.h`, over everything that an event consists of.
fn check_word(writing: u64, words: impl Iterator<Item = u64>) -> u64 {
    words.enumerate().fold(writing, |hash, (index, word)| {
        let hash = if index == 0 { hash } else { hash ^ hash >> 32 };
        (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}
