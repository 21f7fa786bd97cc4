//! Where in a process there is room: near a function for its image, anywhere for an arena.
//!
//! Pure. Keeps away from what grows: the heap upwards, stacks downwards. The answer is a list of proposals, best first;
//! the kernel has the last word when one is mapped without replacing anything.

use upatch_trampolines::{Avma, AvmaRange};

use crate::process::maps::{Mapping, Maps};

/// Page size of x86-64.
pub const PAGE: u64 = 4096;
/// How far a rel32 displacement reaches, less what an image and the text around the site may span.
const REACH: u64 = (1 << 31) - (64 << 20);
/// Nothing of ours below this (vm.mmap_min_addr is 64 KiB; null pointers plus an offset should keep faulting).
const LOWEST: u64 = 1 << 20;
/// End of user space with 4-level paging, less a page.
const HIGHEST: u64 = (1 << 47) - PAGE;
/// Distance kept from the heap's end and from a stack's lower end.
const GROWTH: u64 = 1 << 30;
/// Distance kept from other neighbours where there is room: a stray pointer over the end should still fault.
const MARGIN: u64 = 16 * PAGE;

/// `len` rounded up to whole pages.
#[must_use]
pub const fn pages(len: u64) -> u64 {
    len.div_ceil(PAGE) * PAGE
}

/// Addresses for `len` bytes that a rel32 from `site` reaches (and back), nearest first, at most 64.
#[must_use]
pub fn near(maps: &Maps, site: Avma, len: u64) -> Vec<Avma> {
    let len = pages(len);
    let low = site.0.saturating_sub(REACH).max(LOWEST);
    let high = site.0.saturating_add(REACH).min(HIGHEST);
    let mut found: Vec<Avma> = Vec::new();
    for gap in gaps(maps) {
        let (start, end) = (gap.start.0.max(low), gap.end.0.min(high));
        let Some(last) = end.checked_sub(len).filter(|&last| last >= start) else {
            continue;
        };
        // The end nearest to the site; a second one further in, should the first be taken meanwhile.
        let spare = (last - start).min(MARGIN) & !(PAGE - 1);
        if site.0 < start {
            found.extend([start + spare, start].map(Avma));
        } else {
            found.extend([last - spare, last].map(|at| Avma(at & !(PAGE - 1))));
        }
    }
    found.sort_by_key(|at| at.0.abs_diff(site.0));
    found.dedup();
    found.truncate(64);
    found
}

/// Addresses for `len` bytes, aligned to the next power of two, away from everything; at most 64.
#[must_use]
pub fn aligned(maps: &Maps, len: u64) -> Vec<Avma> {
    const FIRST: u64 = 0x1000_0000_0000;
    let Some(align) = pages(len).checked_next_power_of_two() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for gap in gaps(maps) {
        let mut at = gap.start.0.max(FIRST).next_multiple_of(align);
        while found.len() < 64
            && at
                .checked_add(align)
                .is_some_and(|end| end <= gap.end.0.min(HIGHEST))
        {
            found.push(Avma(at));
            at += align;
        }
    }
    found
}

/// The unmapped ranges, shortened where a neighbour may grow into them.
fn gaps(maps: &Maps) -> impl Iterator<Item = AvmaRange> {
    let user = || maps.iter().filter(|mapping| mapping.range.end.0 <= HIGHEST);
    let befores = std::iter::once(None).chain(user().map(Some));
    let afters = user().map(Some).chain(std::iter::once(None));
    befores.zip(afters).filter_map(|(before, after)| {
        let start = before.map_or(LOWEST, |before| before.range.end.0 + room_above(before));
        let end = after.map_or(HIGHEST, |after| {
            after.range.start.0.saturating_sub(room_below(after))
        });
        (start < end).then_some(AvmaRange {
            start: Avma(start),
            end: Avma(end),
        })
    })
}

fn room_above(mapping: &Mapping) -> u64 {
    // The heap begins, empty, somewhere behind the program's data: below the area of libraries any writable memory may be
    // followed by a heap to come.
    let data = mapping.perms.write && mapping.range.end.0 < 0x7000_0000_0000;
    if mapping.is_pseudo("[heap]") || data {
        GROWTH
    } else {
        0
    }
}

fn room_below(mapping: &Mapping) -> u64 {
    if mapping.is_pseudo("[stack]") {
        GROWTH
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
555555554000-555555556000 r-xp 00000000 fe:01 7 /bin/x\n\
555555556000-555555557000 rw-p 00002000 fe:01 7 /bin/x\n\
555555557000-555555578000 rw-p 00000000 00:00 0 [heap]\n\
7ffff7c00000-7ffff7c28000 r-xp 00000000 fe:01 8 /lib/c\n\
7ffff7c2a000-7ffff7c2b000 r-xp 00000000 fe:01 8 /lib/c\n\
7ffffffdd000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";

    #[test]
    fn proposes_free_reachable_places_away_from_what_grows() {
        let maps = Maps::parse(TEXT.as_bytes()).unwrap();
        for site in [0x5555_5555_4100, 0x7fff_f7c0_0100] {
            let places = near(&maps, Avma(site), 0x2000);
            assert!(places.len() > 1);
            for at in places {
                let range = AvmaRange::new(at, 0x2000);
                assert_eq!(at.0 % PAGE, 0);
                assert_eq!(maps.overlapping(range).count(), 0, "{at}");
                assert!(at.0.abs_diff(site) < 1 << 31);
                assert!(
                    at.0 < 0x5555_5555_4000 || at.0 >= 0x5555_5557_8000 + GROWTH,
                    "{at} above the heap"
                );
                // The gap directly below the stack is too small for anything but the stack.
                assert!(at.0 + 0x2000 <= 0x7fff_f7c2_b000, "{at} below the stack");
            }
        }
        // The small hole between the two text mappings serves too, and is the nearest.
        assert_eq!(
            near(&maps, Avma(0x7fff_f7c2_7000), 0x2000)[0],
            Avma(0x7fff_f7c2_8000)
        );
        assert!(near(&maps, Avma(0x5555_5555_4100), 1 << 60).is_empty());
    }

    #[test]
    fn aligned_places_are_aligned() {
        let maps = Maps::parse(TEXT.as_bytes()).unwrap();
        for len in [1, 4096, 4097, 3 << 20, 4 << 30] {
            let at = aligned(&maps, len)[0];
            assert_eq!(at.0 % pages(len).next_power_of_two(), 0);
            assert_eq!(maps.overlapping(AvmaRange::new(at, pages(len))).count(), 0);
        }
        assert!(aligned(&maps, 1 << 60).is_empty());
    }
}
