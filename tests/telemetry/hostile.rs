//! Hostile records and arenas: a short run of `cargo xtask fuzz telemetry`, and the longest inputs there can be.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use upatch_tests::object_fuzz::peak_memory;
use upatch_tests::telemetry_fuzz::{Report, exercise, extremes, good, input};

use super::case;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("hostile::the_good_one_is_read", the_good_one_is_read),
        case(
            "hostile::two_thousand_damaged_ones",
            two_thousand_damaged_ones,
        ),
        case("hostile::as_long_as_they_may_be", as_long_as_they_may_be),
    ]
}

fn the_good_one_is_read() -> Result<()> {
    let good = good();
    let info = upatch::telemetry::info_of(&good.info);
    let info = info.ok_or_else(|| anyhow::anyhow!("it isn't understood"))?;
    let reading = upatch::telemetry::read_arena(info, &good.arena[..], 4096);
    let events = reading.events.unwrap_or_default();
    let printed = events
        .events
        .iter()
        .filter(|event| event["value"].is_string());
    let printed: Vec<_> = printed
        .map(|event| event["value"].as_str().unwrap_or_default())
        .collect();
    ensure!(
        events.events.len() == 16 && events.dropped == 4,
        "{} events, {} dropped",
        events.events.len(),
        events.dropped
    );
    ensure!(
        printed[0] == "4 of 0xffffffffffffffff, 7    % %s\n",
        "{printed:?}"
    );
    ensure!(reading.globals.len() == 8, "{:?}", reading.globals);
    Ok(())
}

fn two_thousand_damaged_ones() -> Result<()> {
    let (good, mut report) = (good(), Report::default());
    for number in 0..2_000 {
        exercise(&input(&good, 20_261_121, number), &mut report);
    }
    println!("{report:?}");
    ensure!(
        report.understood > 500
            && report.understood < 1_900
            && report.events > 1_000
            && report.set > 1_000,
        "the inputs are not varied enough: {report:?}"
    );
    // A stop of the machine must not fail the test; a loop would take longer.
    ensure!(report.slowest < Duration::from_secs(10), "{report:?}");
    Ok(())
}

fn as_long_as_they_may_be() -> Result<()> {
    let (inputs, mut report) = (extremes(&good()), Report::default());
    // The peak is counted from here on (proc_pid_clear_refs(5)).
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = peak_memory().unwrap_or(0);
    for input in &inputs {
        exercise(input, &mut report);
    }
    let grown = peak_memory().unwrap_or(u64::MAX).saturating_sub(before);
    println!("{report:?}, {} MiB more", grown >> 20);
    ensure!(report.understood == inputs.len() as u64, "{report:?}");
    ensure!(
        grown < 64 << 20 && report.slowest < Duration::from_secs(10),
        "{grown} {report:?}"
    );
    Ok(())
}
