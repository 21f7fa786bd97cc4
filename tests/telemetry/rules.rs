//! `rules get|set` on live patches: the verdict follows, children see it, and whatever doesn't fit is refused whole.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use upatch::patching::inspect;
use upatch::process::Process;
use upatch::telemetry::ArenaView;
use upatch_tests::child::Answer;

use super::{Scene, case};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("rules::the_verdict_follows", the_verdict_follows),
        case("rules::every_kind", every_kind),
        case("rules::refusals", refusals),
        case("rules::before_it_goes_live", before_it_goes_live),
        case("rules::several_patches", several_patches),
        case("rules::a_store_is_one", a_store_is_one),
    ]
}

/// Refuses what is longer than the rule for its mode allows.
const LIMITS: &str = r#"
#include "upatch.h"
enum mode { OFF, ON = 5 };
struct limit { __u32 max; __s8 least; _Bool on; __u16 low : 4, high : 12; };
UPATCH_RULE(enum mode, mode) = ON;
UPATCH_RULE(struct limit, limits[2]) = { { 100, -1, 1, 1, 2 }, { 1000, 0, 0, 0, 0 } };
UPATCH_RULE(int, ignored[4]);
UPATCH_RULE(char, word[8]) = "hello";
UPATCH_RULE(double, factor);
UPATCH_COUNTER(__u64, hits);
long __arena own;
SEC("upatch/exe:work") int UPATCH(clamp, int x)
{
	UPATCH_INC(hits);
	for (int i = 0; i < 4; i++)
		if (ignored[i] && x == ignored[i])
			return UPATCH_CONTINUE;
	if (mode == ON && word[0] == 'h' && x > (int)limits[0].max)
		return upatch_return(ctx, -14);
	return UPATCH_CONTINUE;
}
"#;

fn asked(scene: &mut Scene, question: &str) -> Result<String> {
    match scene.driver.ask(question)? {
        Answer::Line(line) => Ok(line),
        other => anyhow::bail!("the victim: {other}"),
    }
}

fn the_verdict_follows() -> Result<()> {
    let mut scene = Scene::new("cli")?;
    scene.apply(LIMITS)?;
    ensure!(asked(&mut scene, "500")? == "-14", "not patched");
    let set = scene.done(&["rules", "set", "limits[0].max=600"])?;
    ensure!(
        set["set"] == json!([{"path": "limits[0].max", "old": 100, "new": 600}]),
        "{set:#}"
    );
    ensure!(
        asked(&mut scene, "500")? == "1007",
        "the rule has no effect"
    );
    // A forked child runs by the same rules.
    ensure!(
        asked(&mut scene, "f500")? == "1007" && asked(&mut scene, "f700")? == "-14",
        "a child"
    );
    scene.done(&["rules", "set", "ignored[3]=700"])?;
    ensure!(
        asked(&mut scene, "f700")? == "1407",
        "a child has another arena"
    );
    scene.done(&["rules", "set", "limits[0].max=1", "mode=OFF"])?;
    ensure!(asked(&mut scene, "500")? == "1007", "mode has no effect");
    scene.done(&["rules", "set", "mode=ON", "word=no"])?;
    ensure!(asked(&mut scene, "500")? == "1007", "word has no effect");
    scene.done(&["rules", "set", "word=\"h\\x69\""])?;
    ensure!(asked(&mut scene, "500")? == "-14", "word has no effect");
    let got = scene.done(&["rules", "get", "word", "limits[0].max"])?;
    ensure!(
        got["patches"][0]["rules"] == json!({"word": "hi", "limits[0].max": 1}),
        "{got:#}"
    );
    scene.done(&["revert"])?;
    ensure!(asked(&mut scene, "500")? == "1007", "still patched");
    Ok(())
}

fn every_kind() -> Result<()> {
    let scene = Scene::new("cli")?;
    let id = scene.apply(LIMITS)?;
    let first = json!({"max": 100, "least": -1, "on": true, "low": 1, "high": 2});
    let second = json!({"max": 1000, "least": 0, "on": false, "low": 0, "high": 0});
    let got = scene.done(&["rules", "get", "--patch", &id])?;
    ensure!(
        got["patches"][0]["id"] == id.as_str()
            && got["patches"][0]["rules"]
                == json!({"mode": "ON", "limits": [first, second], "ignored": [0, 0, 0, 0], "word": "hello", "factor": 0.0}),
        "{got:#}"
    );
    for (assignment, path, value) in [
        ("ignored=[1,2,-3]", "ignored", json!([1, 2, -3, 0])),
        ("ignored[2]=-0x80000000", "ignored[2]", json!(i32::MIN)),
        ("limits[1].least=-128", "limits[1].least", json!(-128)),
        ("limits[1].high=4095", "limits[1].high", json!(4095)),
        (
            "limits[1]={\"low\":15,\"on\":true}",
            "limits[1]",
            json!({"max": 1000, "least": -128, "on": true, "low": 15, "high": 4095}),
        ),
        (
            "word=exactly8",
            "word",
            json!([101, 120, 97, 99, 116, 108, 121, 56]),
        ),
        ("factor=2.5e3", "factor", json!(2500.0)),
        ("mode=4", "mode", json!(4)),
    ] {
        let set = scene.done(&["rules", "set", assignment])?;
        ensure!(
            set["set"][0]["new"] == value && set["set"][0]["path"] == path,
            "{assignment}: {set:#}"
        );
        let got = scene.done(&["rules", "get", path])?;
        ensure!(
            got["patches"][0]["rules"][path] == value,
            "{assignment}: {got:#}"
        );
    }
    let dump = scene.dump()?;
    ensure!(dump["globals"]["limits"][1]["low"] == 15, "{dump:#}");
    Ok(())
}

fn refusals() -> Result<()> {
    let scene = Scene::new("cli")?;
    let place = format!("process {}", scene.pid());
    let check = |arguments: &[&str], code: i32, says: &str, hint: Option<&str>| -> Result<()> {
        let (exit, value) = scene.upatch(arguments)?;
        let error = &value["error"];
        let has =
            |member: &str, text: &str| error[member].as_str().is_some_and(|all| all.contains(text));
        ensure!(
            exit == code
                && has("message", says)
                && hint.is_none_or(|hint| has("hint", hint))
                && error["where"] == place.as_str(),
            "{arguments:?}: {exit} {value:#}"
        );
        Ok(())
    };
    check(
        &["rules", "set", "x=1"],
        4,
        "no patch with rules",
        Some("UPATCH_RULE"),
    )?;
    check(
        &["rules", "get", "--patch", "00000000"],
        4,
        "no live patch 00000000",
        Some("upatch status"),
    )?;
    let none = scene.done(&["rules", "get"])?;
    ensure!(none["patches"] == json!([]), "{none:#}");

    scene.apply(LIMITS)?;
    let before = scene.done(&["rules", "get"])?["patches"].clone();
    for (assignment, says, hint) in [
        (
            "hits=1",
            "`hits` is a counter, not a rule",
            Some("UPATCH_RULE"),
        ),
        (
            "own=1",
            "a variable of the patch's own",
            Some("UPATCH_RULE"),
        ),
        ("nosuch=1", "no rule `nosuch`; there are ", None),
        ("mode", "no assignment", Some("PATH=VALUE")),
        ("limits[2].max=1", "2 elements, 0 to 1", None),
        ("limits[0].most=1", "it has max, least, on, low, high", None),
        ("limits[0].max=-1", "from 0 to 4294967295", None),
        ("limits[0].max=4294967296", "from 0 to 4294967295", None),
        ("limits[0].low=16", "from 0 to 15", None),
        ("limits[0]=7", "it is a struct", None),
        ("mode=MAYBE", "one of OFF, ON, or a number", None),
        ("word=ninechars", "at most 8 bytes", None),
        ("ignored=[1,2,3,4,5]", "an array of 4", None),
        ("factor=x", "floating-point", None),
    ] {
        // A good one before it is not done either.
        check(
            &["rules", "set", "limits[0].max=7", assignment],
            2,
            says,
            hint,
        )?;
    }
    check(
        &["rules", "get", "hits"],
        2,
        "a counter",
        Some("UPATCH_RULE"),
    )?;
    check(&["rules", "get", "nosuch"], 2, "no rule `nosuch`", None)?;
    check(
        &["rules", "get", "a b"],
        2,
        "names no rule",
        Some("[INDEX]"),
    )?;
    ensure!(
        scene.done(&["rules", "get"])?["patches"] == before,
        "something was set"
    );
    Ok(())
}

fn before_it_goes_live() -> Result<()> {
    let mut scene = Scene::new("cli")?;
    let object = scene.build(LIMITS)?;
    let object = object.to_string_lossy().into_owned();
    let id = scene.build_id.clone();
    let apply = |rules: &[&'static str]| -> Vec<String> {
        let mut all: Vec<String> = ["apply", "--build-id", &id, &object]
            .map(str::to_owned)
            .to_vec();
        all.extend(
            rules
                .iter()
                .flat_map(|rule| ["--rule".to_owned(), (*rule).to_owned()]),
        );
        all
    };
    let run = |scene: &Scene, all: Vec<String>| -> Result<(i32, Value)> {
        scene.upatch(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (code, value) = run(&scene, apply(&["limits[0].max=1", "mode=NIX"]))?;
    ensure!(
        code == 2 && value["error"]["where"] == object.as_str(),
        "{value:#}"
    );
    ensure!(asked(&mut scene, "500")? == "1007", "patched");
    let (code, value) = run(
        &scene,
        apply(&["limits[0].max=600", "ignored[1]=700", "word=help"]),
    )?;
    ensure!(code == 0, "{value:#}");
    ensure!(
        value["rules"][0] == json!({"path": "limits[0].max", "old": 100, "new": 600}),
        "{value:#}"
    );
    for (question, answer) in [("500", "1007"), ("601", "-14"), ("700", "1407")] {
        ensure!(asked(&mut scene, question)? == answer, "work({question})");
    }
    let dump = scene.dump()?;
    ensure!(
        dump["globals"]["word"] == "help" && dump["globals"]["limits"][1]["max"] == 1000,
        "{dump:#}"
    );
    Ok(())
}

fn several_patches() -> Result<()> {
    let mut scene = Scene::new("cli")?;
    let one = scene.apply(LIMITS)?;
    let other = LIMITS
        .replace("exe:work", "libc.so.6:labs")
        .replace("mode", "fashion");
    let object = scene.build(&other)?;
    let libc = libc_build_id(scene.driver.pid())?;
    let applied = scene.done(&["apply", "--build-id", &libc, &object.to_string_lossy()])?;
    let two = applied["id"].as_str().context("no id")?;
    let (code, value) = scene.upatch(&["rules", "set", "mode=OFF"])?;
    let message = value["error"]["message"].as_str().unwrap_or_default();
    ensure!(
        code == 2
            && message.contains(&one)
            && message.contains(two)
            && value["error"]["hint"] == "say which: --patch ID",
        "{value:#}"
    );
    scene.done(&["rules", "set", "--patch", two, "fashion=OFF"])?;
    let (code, value) = scene.upatch(&["rules", "set", "--patch", two, "mode=OFF"])?;
    ensure!(code == 2, "{value:#}");
    let got = scene.done(&["rules", "get"])?;
    let patches = got["patches"].as_array().context("no patches")?;
    let by_id = |id: &str| {
        patches
            .iter()
            .find(|patch| patch["id"] == id)
            .cloned()
            .unwrap_or_default()
    };
    ensure!(
        by_id(&one)["rules"]["mode"] == "ON" && by_id(two)["rules"]["fashion"] == "OFF",
        "{got:#}"
    );
    ensure!(asked(&mut scene, "500")? == "-14", "the other one was set");
    Ok(())
}

fn libc_build_id(pid: u32) -> Result<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.contains("/libc.so.6"));
    let path = line
        .and_then(|line| line.split_whitespace().last())
        .context("no libc")?;
    upatch_tests::build_id_of(std::path::Path::new(path))
}

/// A number of 8 bytes is never seen half-written by a patch that reads it all the time.
fn a_store_is_one() -> Result<()> {
    const PATCH: &str = r#"
#include "upatch.h"
UPATCH_RULE(__u64, both);
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, torn);
UPATCH_COUNTER(__u64, ones);
SEC("upatch/exe:work") int UPATCH(look, long thread, long number)
{
	__u64 seen = both;

	UPATCH_INC(hits);
	if (seen == ~0ULL)
		UPATCH_INC(ones);
	else if (seen != 0)
		UPATCH_INC(torn);
	return UPATCH_CONTINUE;
}
"#;
    let mut scene = Scene::new("events")?;
    scene.apply(PATCH)?;
    let process = Process::open(i32::try_from(scene.driver.pid())?)?;
    let found = inspect(&process)?.found;
    let arena = ArenaView::new(&process, &found[0]).context("no arena")?;
    let info = upatch::telemetry::info(&found[0]).context("no record")?;
    let both = info
        .globals
        .iter()
        .find(|global| global.name == "both")
        .context("no rule")?;
    let over = AtomicBool::new(false);
    let writes = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut writes = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let value = if writes.is_multiple_of(2) {
                    u64::MAX
                } else {
                    0
                };
                if arena.write(both.offset, &value.to_le_bytes()).is_err() {
                    return 0;
                }
                writes += 1;
            }
            writes
        });
        let answer = scene.driver.ask("1 20000000");
        over.store(true, Ordering::Relaxed);
        ensure!(answer? == Answer::line("done"), "the victim is gone");
        writer
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))
    })?;
    let dump = scene.dump()?;
    println!("{writes} writes: {}", dump["globals"]);
    ensure!(dump["globals"]["torn"] == 0, "{dump:#}");
    ensure!(
        writes > 1000 && dump["globals"]["ones"].as_u64() > Some(1000),
        "{writes} writes: {dump:#}"
    );
    Ok(())
}
