//! Generated programs: compiled code does what the interpreter does. The comparison itself is in the harness.

use upatch_tests::jit_diff::compare;

fn number(variable: &str, otherwise: u64) -> u64 {
    let value = std::env::var(variable).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

/// `UPATCH_GENERATED` is the number of programs, `UPATCH_SEED` the first seed.
#[test]
fn generated_programs_do_the_same() {
    let programs = number("UPATCH_GENERATED", 10_000);
    let tally = compare(number("UPATCH_SEED", 1), programs, || false)
        .unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{tally:?}");
    // A comparison of nothing would pass too.
    assert!(tally.programs >= programs && tally.patches > programs / 5);
    assert!(tally.runs > tally.programs && tally.returned > programs / 100);
}
