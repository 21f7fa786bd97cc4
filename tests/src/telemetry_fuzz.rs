//! Feeds hostile records and arenas to everything that reads them: rings, variables, rules, OpenMetrics. Nothing may
//! panic, loop or grow without bound.
//!
//! An input is a patch's information (JSON, as its record holds it) and the bytes of its arena; both are made from
//! good ones by damage from a seed, so that a finding can be repeated.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use upatch::object::Budget;
use upatch::rules::{Assignment, Path, Rules};
use upatch::telemetry::{Clock, Cursor, info_of, openmetrics, read_arena, to_json, to_line, words};

use crate::object_fuzz::Random;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Inputs.
    pub inputs: u64,
    /// Of these, understood as a patch's information.
    pub understood: u64,
    /// Events that were shown.
    pub events: u64,
    /// Assignments that could be done.
    pub set: u64,
    /// The longest time for one input.
    pub slowest: Duration,
    /// Number of the input that took it.
    pub slowest_at: u64,
}

/// A patch's information and the bytes of its arena.
#[derive(Clone, Debug)]
pub struct Input {
    /// As the record holds it.
    pub info: String,
    /// The arena.
    pub arena: Vec<u8>,
}

const SLOTS: u64 = 16;
const PAYLOAD: u64 = 88;
const SLOT: u64 = 40 + PAYLOAD;
const RING: u64 = 256;

/// A good input: one variable of every kind and a ring with twenty events.
#[must_use]
pub fn good() -> Input {
    let info = json!({
        "object": "patch.o", "build_id": "0011223344556677", "module": "/usr/bin/victim", "function": "work",
        "offset": 0, "section": "upatch/exe:work",
        "globals": [
            {"name": "n", "offset": 0, "size": 4, "role": "rule", "type": 0},
            {"name": "text", "offset": 8, "size": 8, "role": "rule", "type": 2},
            {"name": "s", "offset": 16, "size": 16, "role": "rule", "type": 5},
            {"name": "hits", "offset": 32, "size": 24, "role": "counter", "type": 7},
            {"name": "mode", "offset": 56, "size": 4, "role": "rule", "type": 8},
            {"name": "f", "offset": 64, "size": 8, "role": "rule", "type": 9},
            {"name": "blob", "offset": 72, "size": 8, "role": "plain", "type": 10},
            {"name": "n_generation", "offset": 80, "size": 4, "role": "rule", "type": 0},
            {"name": "upatch_events", "offset": RING, "size": 64 + SLOTS * SLOT, "role": "events", "type": 10},
        ],
        "types": [
            {"int": {"bytes": 4, "kind": "signed"}},
            {"int": {"bytes": 1, "kind": "char"}},
            {"array": {"of": 1, "len": 8}},
            {"array": {"of": 0, "len": 2}},
            "pointer",
            {"struct": {"bytes": 16, "members": [
                {"name": "low", "type": 0, "bit_offset": 0, "bits": 3},
                {"name": "list", "type": 3, "bit_offset": 32},
                {"name": "", "type": 11, "bit_offset": 96},
            ]}},
            {"int": {"bytes": 8, "kind": "unsigned"}},
            {"array": {"of": 6, "len": 3}},
            {"enum": {"bytes": 4, "signed": false, "values": [["OFF", 0], ["ON", 1]]}},
            {"float": {"bytes": 8}},
            {"opaque": {"bytes": 8}},
            {"struct": {"bytes": 4, "members": [{"name": "inner", "type": 0, "bit_offset": 0}]}},
            {"struct": {"bytes": 88, "members": []}},
        ],
        "events": {"offset": RING, "slots_at": RING + 64, "slots": SLOTS, "slot_bytes": SLOT, "types": [
            {"id": 3, "name": "struct pair", "type": 5},
            {"id": 4, "name": "struct upatch_printk", "type": 12},
            {"id": 5, "name": "long", "type": 6},
        ]},
    });
    let mut arena: Vec<u8> = (0..4096_u32).map(|byte| (byte * 7) as u8).collect();
    let mut put = |at: u64, word: u64| {
        let at = at as usize;
        arena[at..at + 8].copy_from_slice(&word.to_le_bytes());
    };
    let events = 20_u64;
    put(RING, events);
    for number in events - SLOTS..events {
        let at = RING + 64 + number % SLOTS * SLOT;
        let (ty, size) = [(3, 16), (4, 88), (5, 8)][(number % 3) as usize];
        let mut words = vec![number, 4711 << 32 | 4712, size << 32 | ty];
        match ty {
            4 => {
                words.extend([number, u64::MAX, 7]);
                let mut format = b"%d of %#lx, %-5u%% %s\n".to_vec();
                format.resize(64, 0);
                words.extend(
                    format
                        .chunks_exact(8)
                        .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())),
                );
            }
            _ => words.extend((0..size / 8).map(|word| word * number)),
        }
        let mut check = 2 * number + 1;
        for (index, word) in words.iter().enumerate() {
            check ^= if index == 0 { 0 } else { check >> 32 };
            check = (check ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let place = if index < 2 {
                16 + 8 * index
            } else {
                32 + 8 * (index - 2)
            };
            put(at + place as u64, *word);
        }
        put(at, 2 * number + 2);
        put(at + 8, check);
    }
    Input {
        info: info.to_string(),
        arena,
    }
}

/// Records as long as upatch reads them, of the shapes that cost most to understand, read, or show.
#[must_use]
pub fn extremes(good: &Input) -> Vec<Input> {
    let longest = upatch::patching::record::LONGEST;
    let with = |member: &str, element: &str, rest: &[(&str, Value)]| {
        let mut info: Value = serde_json::from_str(&good.info).unwrap_or_default();
        for (name, value) in rest {
            info[*name] = value.clone();
        }
        info[member] = json!([]);
        let count = (longest - info.to_string().len() - 2) / (element.len() + 1);
        let all = vec![element; count].join(",");
        Input {
            info: info.to_string().replace(
                &format!("\"{member}\":[]"),
                &format!("\"{member}\":[{all}]"),
            ),
            arena: good.arena.clone(),
        }
    };
    let global = r#"{"name":"n","offset":0,"size":4096,"role":"rule","type":0}"#;
    let text =
        json!([{"array": {"of": 1, "len": 4096}}, {"int": {"bytes": 1, "kind": "unsigned"}}]);
    let ring = |slots: u64, slot: u64| json!({"offset": 256, "slots_at": 320, "slots": slots, "slot_bytes": slot, "types": []});
    let mut all = vec![
        with("nothing", "0", &[]),
        with("nothing", "[]", &[]),
        with("nothing", "{\"\":{}}", &[]),
        with("types", "\"pointer\"", &[]),
        with("types", "{\"opaque\":{\"bytes\":4294967295}}", &[]),
        with("types", "{\"struct\":{\"bytes\":0,\"members\":[]}}", &[]),
        with("globals", global, &[("types", text)]),
        with("globals", global, &[]),
    ];
    // Rings that are as long as they may be, in an arena that isn't.
    for (slots, slot) in [(1 << 20, 48), (1 << 19, 128), (1, 64 << 20), (16, 48)] {
        let mut info: Value = serde_json::from_str(&good.info).unwrap_or_default();
        info["events"] = ring(slots, slot);
        all.push(Input {
            info: info.to_string(),
            arena: good.arena.clone(),
        });
    }
    all
}

/// The input of this number and seed.
#[must_use]
pub fn input(good: &Input, seed: u64, number: u64) -> Input {
    let mut random = Random::new(seed ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
    let mut input = good.clone();
    for _ in 0..random.below(4) {
        damage_arena(&mut input.arena, &mut random);
    }
    if random.below(3) != 0 {
        let mut info: Value = serde_json::from_str(&input.info).unwrap_or_default();
        for _ in 0..1 + random.below(4) {
            damage_json(&mut info, &mut random);
        }
        input.info = info.to_string();
    }
    if random.below(16) == 0 {
        // As text, which is then rarely JSON.
        let mut bytes = input.info.into_bytes();
        let at = random.below(bytes.len());
        bytes[at] = random.bits() as u8;
        input.info = String::from_utf8_lossy(&bytes).into_owned();
    }
    input
}

/// Numbers that break arithmetic.
const WORDS: [u64; 14] = [
    0,
    1,
    2,
    7,
    39,
    40,
    41,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 20,
    1 << 63,
    u64::MAX / 2,
    u64::MAX - 7,
    u64::MAX,
];

fn damage_arena(arena: &mut Vec<u8>, random: &mut Random) {
    if arena.is_empty() {
        return;
    }
    // The ring is where structure is; its first word counts.
    let at = match random.below(4) {
        0 => RING as usize,
        1 => random.below(arena.len()),
        _ => RING as usize + 64 + random.below((SLOTS * SLOT) as usize),
    };
    let at = (at / 8 * 8).min(arena.len() - 1);
    match random.below(8) {
        0 => arena.truncate(at),
        1 => {
            let byte = random.below(arena.len());
            arena[byte] = random.bits() as u8;
        }
        2 => {
            // A slot over another.
            let (from, to) = (random.below(SLOTS as usize), random.below(SLOTS as usize));
            let place = |slot: usize| RING as usize + 64 + slot * SLOT as usize;
            let bytes = arena.get(place(from)..place(from + 1)).map(<[u8]>::to_vec);
            if let (Some(bytes), Some(room)) = (bytes, arena.get_mut(place(to)..place(to + 1))) {
                room.copy_from_slice(&bytes);
            }
        }
        _ => {
            let word = match random.below(3) {
                0 => random.bits(),
                1 => random.below(64) as u64,
                _ => WORDS[random.below(WORDS.len())],
            };
            for (byte, new) in arena[at..].iter_mut().zip(word.to_le_bytes()) {
                *byte = new;
            }
        }
    }
}

/// Changes one value somewhere in the tree.
fn damage_json(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(members) if random.below(12) != 0 && !members.is_empty() => {
            let at = random.below(members.len());
            if random.below(20) == 0 {
                let name = members.keys().nth(at).cloned().unwrap_or_default();
                members.remove(&name);
            } else if let Some(member) = members.values_mut().nth(at) {
                damage_json(member, random);
            }
        }
        Value::Array(elements) if random.below(12) != 0 && !elements.is_empty() => {
            let at = random.below(elements.len());
            match random.below(16) {
                0 => {
                    elements.remove(at);
                }
                1 => {
                    let copy = elements[at].clone();
                    let often = [1, 2, 50, 2000][random.below(4)];
                    elements.extend(std::iter::repeat_n(copy, often));
                }
                _ => damage_json(&mut elements[at], random),
            }
        }
        Value::Number(_) => {
            let word = match random.below(4) {
                0 => random.below(20) as u64,
                1 => random.bits() >> random.below(64),
                _ => WORDS[random.below(WORDS.len())],
            };
            *value = if random.below(16) == 0 {
                json!(-(word as f64))
            } else {
                word.into()
            };
        }
        Value::String(text) => {
            *value = match random.below(6) {
                0 => json!(""),
                1 => json!("x".repeat([10, 1000, 20_000][random.below(3)])),
                2 => json!("\u{1b}[2J\n"),
                3 => {
                    json!(["rule", "counter", "events", "plain", "signed", "bool"][random.below(6)])
                }
                4 => json!("struct upatch_printk"),
                _ => json!(text.chars().rev().collect::<String>()),
            };
        }
        _ => *value = json!([null, 0, [], {}, "x"])[random.below(5)].take(),
    }
}

/// Paths and values that an operator might try.
const ASSIGNMENTS: [&str; 18] = [
    "n=5",
    "n=-0x7fffffff",
    "text=hello",
    "text=\"\\x00a\"",
    "text[7]=9",
    "s.low=-4",
    "s.list=[1,2]",
    "s.list[1]=7",
    "s.inner=3",
    "s={\"low\":1,\"list\":[3],\"inner\":4}",
    "mode=ON",
    "mode=12",
    "f=1e300",
    "n.low=1",
    "n[0]=1",
    "n=[1]",
    "n={\"low\":1}",
    "text=[1,2,3]",
];

/// Runs one input through everything that reads records' information and arenas.
///
/// # Panics
/// On a finding: an event or an edit that can't be.
pub fn exercise(input: &Input, report: &mut Report) {
    report.inputs += 1;
    let start = Instant::now();
    exercise_once(input, report);
    let time = start.elapsed();
    if time > report.slowest {
        report.slowest = time;
        report.slowest_at = report.inputs - 1;
    }
}

fn exercise_once(input: &Input, report: &mut Report) {
    let Some(info) = info_of(&input.info) else {
        return;
    };
    report.understood += 1;
    let arena = &input.arena[..];
    // The window that the record alleges may be anything.
    for window in [input.arena.len() as u64, u64::MAX] {
        let reading = read_arena(info.clone(), arena, window);
        if let Some(events) = &reading.events {
            report.events += events.events.len() as u64;
            for event in &events.events {
                let line = to_line(event);
                assert!(
                    !line.contains(char::is_control),
                    "an event leaves its line: {line:?}"
                );
            }
        }
        for (name, value) in &reading.globals {
            let line = format!("{name} {}", words(value));
            assert!(
                !line.contains(char::is_control),
                "a variable leaves its line: {line:?}"
            );
        }
        let text = openmetrics(&[(1, "00112233".to_owned(), reading)]);
        assert!(text.ends_with("# EOF\n"), "no end");
    }
    if let Some(ring) = &info.events {
        let (mut cursor, mut seen) = (Cursor::new(), 0);
        for _ in 0..3 {
            cursor.look(ring, arena, u64::MAX, &mut |event| {
                seen += 1;
                let json = to_json(&info, &event, Clock::now(), &mut Budget(1 << 12));
                assert!(json.contains_key("type"), "no type");
            });
        }
        cursor.finish();
        assert_eq!(cursor.received, seen, "an event is counted twice");
        assert!(seen <= 2 * ring.slots, "more events than slots");
    }
    let rules = Rules {
        globals: &info.globals,
        types: &info.types,
    };
    for text in ASSIGNMENTS {
        let Ok(assignment) = text.parse::<Assignment>() else {
            continue;
        };
        let Ok(edits) = rules.plan(&[assignment], arena) else {
            continue;
        };
        report.set += 1;
        for store in edits.iter().flat_map(|edit| &edit.stores) {
            let end = store.offset.saturating_add(store.bytes.len() as u64);
            assert!(
                end <= input.arena.len() as u64,
                "a store outside of the arena"
            );
        }
    }
    if let Ok(guards) = rules.guards(["n", "list"], arena) {
        for store in guards
            .iter()
            .flat_map(|guard| [guard.opening(), guard.closing()])
        {
            let end = store.offset.saturating_add(store.bytes.len() as u64);
            assert!(
                end <= input.arena.len() as u64,
                "a guard outside of the arena"
            );
        }
    }
    // Whether it can be read is not the question.
    let _ = (rules.values(arena), rules.get(&path("s.list[1]"), arena));
}

/// A path that is one.
fn path(text: &str) -> Path {
    text.parse().unwrap_or(Path {
        name: String::new(),
        steps: Vec::new(),
    })
}
