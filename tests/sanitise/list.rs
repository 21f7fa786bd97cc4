//! upatch_list.h against plain string comparison, with lists as `rules set` leaves them, and half-way.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use upatch_tests::programs::Random;

use crate::GENERATED;
use crate::flaw::{TOO_LONG, UNREADABLE};
use crate::rig::{Editor, Rig};

const ENTRIES: usize = 8;
const BYTES: usize = 16;
/// What cases/sanitise/list.c says while the list is being edited.
const BUSY: i64 = 8;

/// Writes a list as `rules set` does: each entry over its whole width.
fn fill(rig: &mut Rig, entries: &[&[u8]]) {
    for index in 0..ENTRIES {
        let mut bytes = entries.get(index).copied().unwrap_or_default().to_vec();
        bytes.resize(BYTES, 0);
        rig.set("names", index * BYTES, &bytes);
    }
}

fn wanted(entries: &[&[u8]], text: &[u8]) -> i64 {
    if text.len() > 30 {
        return TOO_LONG;
    }
    let mut found = 0;
    for entry in entries.iter().filter(|entry| !entry.is_empty()) {
        let beneath = text == *entry
            || text
                .strip_prefix(*entry)
                .is_some_and(|rest| rest.starts_with(b"/") || entry.ends_with(b"/"));
        found |= i64::from(text == *entry)
            | i64::from(text.starts_with(entry)) << 1
            | i64::from(beneath) << 2;
    }
    found
}

#[test]
fn declared() {
    let mut rig = Rig::new("list");
    let entries: [&[u8]; 6] = [
        b"alice",
        b"bob",
        b"/srv/www",
        b"0123456789abcdef",
        b"/",
        b"x",
    ];
    for text in [
        "",
        "alice",
        "alic",
        "alicea",
        "alice/x",
        "bob",
        "bo",
        "bobb",
        "Bob",
        "/",
        "/x",
        "//",
        "x",
        "xy",
        "x/",
        "/srv/www",
        "/srv/www/",
        "/srv/www/a",
        "/srv/www2",
        "/srv/ww",
        "0123456789abcdef",
        "0123456789abcde",
        "0123456789abcdefg",
        "0123456789abcdef/",
        "012345678901234567890123456789",
        "0123456789012345678901234567890",
        "y",
    ] {
        let ran = rig.run_str(text.as_bytes(), [0; 3]);
        assert_eq!(
            ran.returned(),
            wanted(&entries, text.as_bytes()),
            "{text:?}"
        );
        if text.starts_with('/') {
            // Path says the same of components.
            let beneath = entries.iter().any(|entry| {
                let entry = Path::new(std::str::from_utf8(entry).unwrap());
                entry.is_absolute() && Path::new(text).starts_with(entry)
            });
            assert_eq!(ran.returned() & 4 != 0, beneath, "{text:?}");
        }
    }
    assert_eq!(rig.run(b"", [0; 4]).0.returned(), UNREADABLE);
}

#[test]
fn generated() {
    let mut rig = Rig::new("list");
    let mut random = Random::new(0x5a17_0008);
    let word = |random: &mut Random, most: u64| -> Vec<u8> {
        (0..random.below(most))
            .map(|_| random.pick(b"ab/"))
            .collect()
    };
    for _ in 0..GENERATED / 10 {
        let entries: Vec<Vec<u8>> = (0..random.below(9))
            .map(|_| match random.below(4) {
                0 => Vec::new(),
                1 => vec![b'a'; BYTES - random.below(3) as usize],
                _ => word(&mut random, BYTES as u64 + 1),
            })
            .collect();
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        fill(&mut rig, &entries);
        for _ in 0..10 {
            let text = match entries.get(random.below(9) as usize) {
                Some(entry) => [entry, &word(&mut random, 4)[..]].concat(),
                None => word(&mut random, 34),
            };
            let found = rig.run_str(&text, [0; 3]).returned();
            assert_eq!(found, wanted(&entries, &text), "{entries:?} {text:?}");
        }
    }
}

#[test]
fn empty_list_has_nothing() {
    let mut rig = Rig::new("list");
    fill(&mut rig, &[]);
    for text in ["", "a", "/", "alice"] {
        assert_eq!(rig.run_str(text.as_bytes(), [0; 3]).returned(), 0);
    }
    // What is left behind a NUL in an entry isn't looked at.
    rig.set("names", 0, b"\0lice");
    rig.set("names", BYTES, b"bo\0b");
    assert_eq!(rig.run_str(b"", [0; 3]).returned(), 0);
    assert_eq!(rig.run_str(b"bo", [0; 3]).returned(), 7);
    assert_eq!(rig.run_str(b"bob", [0; 3]).returned(), 2);
}

/// Every state that an editor who replaces an entry byte by byte leaves behind, should it die there: neither yes nor no.
#[test]
fn half_written() {
    let mut rig = Rig::new("list");
    let (old, new) = (*b"/srv/private\0\0\0\0", *b"/srv/x\0\0\0\0\0\0\0\0\0\0");
    fill(&mut rig, &[&old]);
    let texts: [&[u8]; 6] = [
        b"/srv/private",
        b"/srv/x",
        b"/srv",
        b"/srv/xrivate",
        b"/",
        b"",
    ];
    let answers = |rig: &mut Rig| texts.map(|text| rig.run_str(text, [0; 3]).returned());
    let before = answers(&mut rig);
    rig.set("names_generation", 0, &1u32.to_le_bytes());
    for written in 0..=BYTES {
        rig.set("names", 0, &new[..written]);
        assert_eq!(answers(&mut rig), [BUSY; 6], "{written} bytes written");
    }
    rig.set("names_generation", 0, &2u32.to_le_bytes());
    let after = answers(&mut rig);
    assert_eq!(before, [7, 0, 0, 0, 0, 0]);
    assert_eq!(after, [0, 7, 0, 2, 0, 0]);
    // Words that wrapped.
    for (word, busy) in [(u32::MAX, true), (u32::MAX - 1, false), (0, false)] {
        rig.set("names_generation", 0, &word.to_le_bytes());
        assert_eq!(rig.run_str(b"/srv/x", [0; 3]).returned() == BUSY, busy);
    }
}

/// Look-ups beside an editor that never rests: what was never an entry is never found.
#[test]
fn edited_meanwhile() {
    let mut rig = Rig::new("list");
    let (old, new) = (*b"/srv/private\0\0\0\0", *b"/srv/x\0\0\0\0\0\0\0\0\0\0");
    fill(&mut rig, &[&old]);
    let (list, word) = (rig.offset("names"), rig.offset("names_generation"));
    let generation = AtomicU32::new(0);
    let edit = |editor: &Editor| {
        for entry in [new, old] {
            editor.word(word, generation.fetch_add(1, Ordering::Relaxed) + 1);
            for (at, byte) in (list..).zip(entry) {
                editor.byte(at, byte);
            }
            editor.word(word, generation.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    // Half of one entry and half of the other.
    let found = rig.run_beside(b"/srv/xrivate", 30_000, edit);
    let allowed = [0, 2, BUSY];
    assert!(
        found.iter().all(|found| allowed.contains(found)),
        "{found:?}"
    );
}

#[test]
fn numbers() {
    let mut rig = Rig::new("numbers");
    let mut random = Random::new(0x5a17_0009);
    let mut ports = [80, 443, u32::MAX, 0, 0, 0, 0, 0];
    let mut values = [-1, 0x1_0000_0000, 0, 0];
    let mut zero = [false; 2];
    for round in 0..GENERATED {
        if round >= 100 && random.chance(20) {
            ports = std::array::from_fn(|_| random.pick(&[0, 1, 80, 443, 0x8000_0000, u32::MAX]));
            values = std::array::from_fn(|_| random.pick(&[0, 1, -1, i64::MIN, 0x1_0000_0000, 80]));
            zero = [random.chance(50), random.chance(50)];
            rig.set("ports", 0, &ports.map(u32::to_le_bytes).concat());
            rig.set("values", 0, &values.map(i64::to_le_bytes).concat());
            rig.set("ports_zero", 0, &[zero[0].into()]);
            rig.set("values_zero", 0, &[zero[1].into()]);
        }
        // The upper half of a register that holds a 32-bit argument says nothing.
        let port = random.pick(&[
            0u64,
            1,
            80,
            81,
            443,
            u64::MAX,
            0x1_0000_0050,
            0x8000_0000,
            0xffff_ffff_8000_0000,
        ]);
        let value = random.pick(&[0, 1, -1, i64::MIN, 0x1_0000_0000, 0xffff_ffff, 80]);
        let has_port = if port as u32 == 0 {
            zero[0]
        } else {
            ports.contains(&(port as u32))
        };
        let has_value = if value == 0 {
            zero[1]
        } else {
            values.contains(&value)
        };
        let ran = rig.run(b"", [port, value as u64, 0, 0]).0;
        assert_eq!(
            ran.returned(),
            i64::from(has_port) | i64::from(has_value) << 1,
            "{port:#x} {value:#x} {ports:x?} {values:x?}"
        );
    }
}
