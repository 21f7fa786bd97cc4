//! Case files for `liveness`: `free` and `clobberable` registers (`none` for none); `flags` if they are live.

#![allow(
    clippy::unwrap_used,
    reason = "a test program: a panic is a failed test"
)]

mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use support::{Case, assemble, cases};
use upatch_trampolines::{Avma, FunctionText, SiteKind, liveness};

const PRELUDE: &str = "outside = 0x480000\nlocal = 0x402000\n";

fn main() {
    let arguments = Arguments::from_args();
    let trials = cases("liveness.case")
        .into_iter()
        .map(|case| Trial::test(case.name.clone(), move || run(&case).map_err(Failed::from)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(case: &Case) -> Result<(), String> {
    let bytes = assemble(&format!("{PRELUDE}{}", case.asm), 0x40_1000);
    let text = FunctionText::new(Avma(0x40_1000), bytes, 0);
    let decided = liveness(&text, SiteKind::Entry, &|target| target.0 >= 0x48_0000);
    let got = (
        decided.free.to_string(),
        decided.clobberable.to_string(),
        decided.flags_free,
    );
    let wanted = |key| case.key(key).unwrap_or_default().to_owned();
    if got
        != (
            wanted("free"),
            wanted("clobberable"),
            case.key("flags").is_none(),
        )
    {
        let why: Vec<String> = decided.decisions.iter().map(ToString::to_string).collect();
        return Err(format!("{got:?}\n{}", why.join("\n")));
    }
    if decided.free.minus(decided.clobberable) != upatch_trampolines::GprSet::EMPTY {
        return Err("something is free that callers count on".to_owned());
    }
    let inside = liveness(&text, SiteKind::Offset, &|_| true);
    if !inside.free.is_empty() || inside.flags_free {
        Err("free inside a function".to_owned())
    } else {
        Ok(())
    }
}
