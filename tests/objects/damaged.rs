//! Damaged objects are answered, never by a panic, an endless loop or unbounded memory.

use std::time::Duration;

use upatch_tests::object_fuzz::{Report, exercise, input, own_objects, peak_memory};

use crate::{build_case, case};

#[test]
fn two_hundred_thousand_damaged_objects() {
    let seeds = own_objects("objects::two_hundred_thousand_damaged_objects");
    let before = peak_memory().unwrap();
    let total = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let seeds = &seeds;
                scope.spawn(move || {
                    let mut report = Report::default();
                    for number in 0..100_000 {
                        exercise(&input(seeds, 20_261_121 + worker, number), &mut report);
                    }
                    report
                })
            })
            .collect();
        workers.into_iter().fold(Report::default(), |sum, worker| {
            let one = worker.join().expect("no input makes it panic");
            Report {
                inputs: sum.inputs + one.inputs,
                parsed: sum.parsed + one.parsed,
                linked: sum.linked + one.linked,
                slowest: sum.slowest.max(one.slowest),
                slowest_at: 0,
            }
        })
    });
    let grown = peak_memory().unwrap().saturating_sub(before);
    println!("{total:?}, {} MiB more", grown >> 20);
    assert_eq!(total.inputs, 200_000);
    // The damage is neither so small that nothing is found nor so large that nothing is reached.
    assert!(total.parsed > 2_000 && total.linked > 2_000, "{total:?}");
    assert!(total.parsed < 180_000, "{total:?}");
    // A stop of the machine must not fail the test; a loop would take longer.
    assert!(total.slowest < Duration::from_secs(10), "{total:?}");
    assert!(grown < 256 << 20, "{grown}");
}

/// Writes a little-endian number into bytes.
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

#[test]
fn sections_that_share_bytes_are_refused() {
    // 4,000 sections that each hold the whole file would be copied 4,000 times.
    let (_, bytes) = build_case(&case("accept/bare.c"), &[]).unwrap();
    let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    let count = u16::from_le_bytes(bytes[60..62].try_into().unwrap()) as usize;
    let mut hostile = bytes.clone();
    let entry = bytes[table + 64..table + 128].to_vec();
    for _ in 0..3_000 {
        let mut entry = entry.clone();
        put(&mut entry, 4, 1_u32.to_le_bytes());
        put(&mut entry, 8, 2_u64.to_le_bytes());
        put(&mut entry, 24, 0_u64.to_le_bytes());
        put(&mut entry, 32, (bytes.len() as u64).to_le_bytes());
        hostile.extend(entry);
    }
    put(&mut hostile, 60, ((count + 3_000) as u16).to_le_bytes());
    let error = upatch::object::PatchObject::parse(&hostile).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the object is damaged: its sections overlap"
    );
}
