//! Case files for `displace` and `place`: which instructions make room, how their copies read, and what is refused.
//!
//! Keys: `site N` (offset), `after HEX` (bytes behind the function), `at ADDRESS`, `entry ADDRESS` (entry points), `part ADDRESS HEX`;
//! then either `refuse TEXT` (a piece of the reason), or `range N` (length of what is displaced), `returns` (nothing
//! resumes), `padding`, and one `copy TEXT` line for each instruction of the copy, 0xff000 behind the
//! function's page.

#![allow(
    clippy::unwrap_used,
    reason = "a test program: a panic is a failed test"
)]

mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use support::{Case, assemble, cases, disassemble, hex};
use upatch_trampolines::{
    Avma, AvmaRange, Bindings, CheckPolicy, CodePart, DisplacedInsns, Fixup, FixupKind, Fragment,
    FunctionText, Tactic, TrampolineTemplate, check, displace,
};

const FUNCTION: u64 = 0x40_1000;
/// From the function's page to the image.
const DISTANCE: u64 = 0xff000;

fn main() {
    let arguments = Arguments::from_args();
    let trials = cases("displace.case")
        .into_iter()
        .map(|case| Trial::test(case.name.clone(), move || run(&case).map_err(Failed::from)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn number(text: &str) -> u64 {
    text.strip_prefix("0x").map_or_else(
        || text.parse().unwrap(),
        |digits| u64::from_str_radix(digits, 16).unwrap(),
    )
}

fn function(case: &Case) -> FunctionText {
    let at = case.key("at").map_or(FUNCTION, number);
    let site = case
        .key("site")
        .map_or(0, |text| usize::try_from(number(text)).unwrap());
    let bytes = case
        .key("bytes")
        .map_or_else(|| assemble(&case.asm, at), hex);
    let mut text = FunctionText::new(Avma(at), bytes, site);
    text.bytes_after = case.key("after").map_or(Vec::new(), hex);
    text.entry_points = case
        .all("entry")
        .into_iter()
        .map(|at| Avma(number(at)))
        .collect();
    for part in case.all("part") {
        let (at, bytes) = part.split_once(' ').unwrap();
        text.parts.push(CodePart {
            at: Avma(number(at)),
            bytes: hex(bytes),
        });
    }
    text
}

fn run(case: &Case) -> Result<(), String> {
    let text = function(case);
    match (displace(&text), case.key("refuse")) {
        (Err(reason), Some(wanted)) if reason.to_string().contains(wanted) => Ok(()),
        (Err(reason), _) => Err(format!("refused: {reason}")),
        (Ok(displaced), Some(_)) => Err(format!(
            "accepted: {:?}",
            displaced.listing().collect::<Vec<_>>()
        )),
        (Ok(displaced), None) => accepted(case, &displaced),
    }
}

fn accepted(case: &Case, displaced: &DisplacedInsns) -> Result<(), String> {
    let range = displaced.range().len();
    let wanted = case.key("range").map(number);
    if wanted != Some(range) {
        return Err(format!("displaces {range} bytes"));
    }
    if displaced.resume().is_none() != case.key("returns").is_some() {
        return Err(format!("resumes at {:?}", displaced.resume()));
    }
    if (displaced.tactic() == Tactic::WithPadding) != case.key("padding").is_some() {
        return Err(format!("by {:?}", displaced.tactic()));
    }
    let fragment = Fragment {
        bytes: vec![0xe9, 0, 0, 0, 0],
        code_len: 5,
        fixups: vec![Fixup {
            at: 1,
            kind: FixupKind::Continue,
        }],
        stack_bytes: 0,
        arena_len: 0,
        calls_application: false,
    };
    let template = TrampolineTemplate::new(fragment, displaced.clone());
    let bindings = Bindings {
        arena_base: Avma(0),
        externs: Vec::new(),
        private_base: Avma(0),
        gate: None,
    };
    let at = Avma((displaced.site().0 & !0xfff) + DISTANCE);
    let image = template
        .place(at, &bindings)
        .map_err(|error| error.to_string())?;
    if image.bytes().len() > template.max_len() {
        return Err(format!(
            "{} bytes, at most {} promised",
            image.bytes().len(),
            template.max_len()
        ));
    }
    let copy = image.displaced_copy();
    let offset = usize::try_from(copy.start.0 - at.0).unwrap();
    let len = usize::try_from(copy.len()).unwrap();
    let got = disassemble(&image.bytes()[offset..offset + len], copy.start.0);
    let wanted = case.all("copy");
    if got != wanted {
        return Err(format!("copied as:\n-- copy {}", got.join("\n-- copy ")));
    }
    let checked = check(&image, &CheckPolicy::strict(0)).map_err(|failure| failure.to_string())?;
    let plan = checked.poke_plan();
    for (at, _, text) in displaced.listing() {
        let there = plan
            .ips
            .to_image(at)
            .ok_or(format!("no copy of `{text}`"))?;
        if plan.ips.to_original(there) != Some(at) || !copy.contains(there) {
            return Err(format!("the copy of `{text}` is at {there}"));
        }
    }
    let page = plan.at.0 & !0xfff;
    if plan.old.len() != 5
        || plan.new.len() != 5
        || !AvmaRange::new(Avma(page), 4096).contains(plan.at.plus(4))
    {
        return Err(format!("{plan:?}"));
    }
    Ok(())
}
