//! Generated programs: compiled code does what the interpreter does. The comparison itself is in the harness.
//!
//! `UPATCH_GENERATED` is the number of programs (100,000 unless set), `UPATCH_SEED` the first seed. Four tests share them,
//! so that threads do.

use upatch_tests::jit_diff::compare;

/// Seeds that a quarter has to itself: about half of the programs are accepted.
const SEEDS: u64 = 1 << 32;

fn number(variable: &str, otherwise: u64) -> u64 {
    let value = std::env::var(variable).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

fn quarter(which: u64) {
    let programs = number("UPATCH_GENERATED", 100_000).div_ceil(4);
    let seed = number("UPATCH_SEED", 1) + which * SEEDS;
    let tally = compare(seed, programs, || false).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{tally:?}");
    // A comparison of nothing would pass too.
    assert!(tally.programs >= programs && tally.patches > programs / 5);
    assert!(tally.runs > tally.programs && tally.returned > programs / 100);
    // The machine-code check is less precise than the verifier, but not useless.
    assert!(tally.refused < tally.patches / 5, "{tally:?}");
}

#[test]
fn first_quarter_does_the_same() {
    quarter(0);
}

#[test]
fn second_quarter_does_the_same() {
    quarter(1);
}

#[test]
fn third_quarter_does_the_same() {
    quarter(2);
}

#[test]
fn last_quarter_does_the_same() {
    quarter(3);
}
