//! `telemetry dump --format`: lines for people, JSON, and OpenMetrics that a strict reader accepts.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use upatch_tests::child;
use upatch_tests::upatch::upatch;

use super::{Scene, case};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("formats::one_patch_in_each", one_patch_in_each),
        case("formats::several_processes", several_processes),
        case("formats::the_reader_is_strict", the_reader_is_strict),
    ]
}

const PATCH: &str = r#"
#include "upatch.h"
enum mode { OFF, ON = 5 };
struct limit { __u32 max; _Bool on; };
UPATCH_RULE(struct limit, limits[2]) = { { 100, 1 }, { 7, 0 } };
UPATCH_RULE(enum mode, mode) = ON;
UPATCH_RULE(char, word[16]) = "a \"b\" \\c";
UPATCH_COUNTER(__u64, hits);
UPATCH_COUNTER(__u64, by_size[3]);
long __arena last = -3;
SEC("upatch/exe:work") int UPATCH(count, int x)
{
	UPATCH_INC(hits);
	UPATCH_INC(by_size[x > 100]);
	upatch_event(&x, sizeof(x));
	return UPATCH_CONTINUE;
}
"#;

fn one_patch_in_each() -> Result<()> {
    let mut scene = Scene::new("cli")?;
    let id = scene.apply(PATCH)?;
    for question in ["5", "6", "500"] {
        scene.driver.ask(question)?;
    }
    let pid = scene.pid();
    let dump = |format: &str| -> Result<String> {
        let mut command = upatch();
        command.args(["telemetry", "dump", "--pid", &pid, "--format", format]);
        let done = child::run(&mut command, Duration::from_secs(60))?;
        ensure!(
            done.code == 0 && done.stderr.is_empty(),
            "{format}: {done:?}"
        );
        Ok(done.stdout)
    };
    let json: Value = serde_json::from_str(&dump("json")?)?;
    // The calendar's time is worked out anew each time.
    let timeless = |mut patch: Value| {
        for event in patch["events"].as_array_mut().into_iter().flatten() {
            event["time"] = Value::Null;
        }
        patch
    };
    ensure!(
        timeless(json["patches"][0].clone()) == timeless(scene.dump()?),
        "--format json is not --json: {json:#}"
    );

    let table = dump("table")?;
    for line in [
        "    hits    = 3",
        "    by_size = [2,1,0]",
        "    mode    = \"ON\"",
        "    3 events",
    ] {
        ensure!(
            table.lines().any(|found| found == line),
            "`{line}` is not in\n{table}"
        );
    }
    ensure!(table.starts_with(&format!("{id}  work in ")), "{table}");

    let samples = read(&dump("openmetrics")?)?;
    let value = |name: &str, labels: &[(&str, &str)]| -> Option<f64> {
        let wanted = |(found, has, value): &Sample| {
            let all = [("pid", &*pid), ("patch", &*id), ("function", "work")];
            (found == name
                && all
                    .iter()
                    .chain(labels)
                    .all(|(key, value)| has.get(*key).is_some_and(|v| v == value)))
            .then_some(*value)
        };
        samples.iter().find_map(wanted)
    };
    for (name, labels, wanted) in [
        ("upatch_counter_total", &[("name", "hits")][..], 3.0),
        ("upatch_counter_total", &[("name", "by_size[0]")], 2.0),
        ("upatch_counter_total", &[("name", "by_size[2]")], 0.0),
        ("upatch_rule", &[("name", "limits[0].max")], 100.0),
        ("upatch_rule", &[("name", "limits[0].on")], 1.0),
        ("upatch_rule", &[("name", "limits[1].max")], 7.0),
        (
            "upatch_setting_info",
            &[("name", "mode"), ("value", "ON")],
            1.0,
        ),
        (
            "upatch_setting_info",
            &[("name", "word"), ("value", "a \"b\" \\c")],
            1.0,
        ),
        ("upatch_variable", &[("name", "last")], -3.0),
        ("upatch_events_total", &[], 3.0),
        ("upatch_events_gone", &[], 0.0),
        (
            "upatch_patch_info",
            &[("build_id", &scene.build_id), ("object", "patch.o")],
            1.0,
        ),
    ] {
        ensure!(
            value(name, labels) == Some(wanted),
            "{name} {labels:?}: {samples:#?}"
        );
    }
    // Nothing of the ring but its figures.
    ensure!(samples.len() == 14, "{samples:#?}");

    let (code, refused) = scene.upatch(&["telemetry", "dump", "--format", "openmetrics"])?;
    ensure!(
        code == 2
            && refused["error"]["message"]
                .as_str()
                .is_some_and(|text| text.contains("contradict")),
        "{refused:#}"
    );
    scene.done(&["revert"])?;
    ensure!(
        read(&dump("openmetrics")?)?.is_empty(),
        "samples without a patch"
    );
    Ok(())
}

/// Two processes and one that isn't there: one exposition, one object, each process once.
fn several_processes() -> Result<()> {
    // Above the largest pid there can be.
    const NOBODY: &str = "4194305";
    let scenes = [Scene::new("cli")?, Scene::new("cli")?];
    let mut ids = Vec::new();
    for scene in scenes.iter() {
        ids.push(scene.apply(PATCH)?);
    }
    let pids = [scenes[0].pid(), scenes[1].pid()];
    let [mut one, mut two] = scenes;
    one.driver.ask("5")?;
    for question in ["5", "500"] {
        two.driver.ask(question)?;
    }
    let dump = |format: &str, pids: &[&str]| {
        let mut command = upatch();
        command.args(["telemetry", "dump", "--format", format, "--pid"]);
        command.arg(pids.join(","));
        child::run(&mut command, Duration::from_secs(60))
    };
    for (wanted, named) in [
        (0, &[&*pids[0], &*pids[1]][..]),
        (7, &[&*pids[0], NOBODY, &*pids[1]]),
    ] {
        let done = dump("openmetrics", named)?;
        ensure!(done.code == wanted, "{done:?}");
        // A reader that takes no family twice, and no sample, and nothing behind the end.
        let samples = read(&done.stdout)?;
        ensure!(done.stdout.matches("# EOF").count() == 1, "{done:?}");
        for (pid, hits) in [(&pids[0], 1.0), (&pids[1], 2.0)] {
            let of = samples
                .iter()
                .filter(|(_, labels, _)| labels["pid"] == **pid);
            ensure!(of.count() == 14, "{samples:#?}");
            let counted = samples.iter().any(|(name, labels, value)| {
                name == "upatch_counter_total"
                    && labels["pid"] == **pid
                    && labels["name"] == "hits"
                    && *value == hits
            });
            ensure!(counted, "process {pid}: {samples:#?}");
        }
        ensure!(samples.len() == 28, "{samples:#?}");

        let done = dump("json", named)?;
        ensure!(done.code == wanted, "{done:?}");
        let json: Value = serde_json::from_str(&done.stdout)?;
        let processes = json["processes"].as_array().context("no processes")?;
        ensure!(
            json["ok"] == (wanted == 0) && processes.len() == named.len(),
            "{json:#}"
        );
        for (pid, (hits, id)) in pids.iter().zip([1, 2].into_iter().zip(&ids)) {
            let pid: i64 = pid.parse()?;
            let of = processes.iter().find(|process| process["pid"] == pid);
            let patch = &of.with_context(|| format!("no {pid}: {json:#}"))?["patches"][0];
            ensure!(
                patch["id"] == **id && patch["globals"]["hits"] == hits,
                "{json:#}"
            );
        }
    }
    for scene in [&one, &two] {
        scene.done(&["revert"])?;
    }
    Ok(())
}

type Sample = (String, HashMap<String, String>, f64);

/// Reads OpenMetrics text by the rules of its specification, as far as types of ours go; whatever is not allowed is an error.
fn read(text: &str) -> Result<Vec<Sample>> {
    let body = text
        .strip_suffix("# EOF\n")
        .context("it doesn't end with # EOF")?;
    let mut samples: Vec<Sample> = Vec::new();
    let mut family: Option<(&str, &str)> = None;
    let (mut families, mut seen) = (HashSet::new(), HashSet::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next(), words.next());
            let (Some(name), Some(rest)) = (name, rest) else {
                bail!("not a line of metadata: {line}");
            };
            match what {
                Some("TYPE") => {
                    ensure!(is_name(name, ":"), "{line}");
                    ensure!(families.insert(name), "{name} comes twice");
                    ensure!(["counter", "gauge", "info"].contains(&rest), "{line}");
                    family = Some((name, rest));
                }
                Some("HELP") => ensure!(family.is_some_and(|(known, _)| known == name), "{line}"),
                _ => bail!("{line}"),
            }
            continue;
        }
        let (name, rest) = line.split_once('{').with_context(|| line.to_owned())?;
        let (known, kind) = family.with_context(|| format!("no type: {line}"))?;
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        ensure!(
            name.strip_suffix(suffix) == Some(known) || (suffix.is_empty() && name == known),
            "{line}"
        );
        let (labels, value) = read_labels(rest).with_context(|| line.to_owned())?;
        ensure!(
            seen.insert(line[..line.len() - value.len()].to_owned()),
            "twice: {line}"
        );
        let number: f64 = value.strip_prefix(' ').context("no blank")?.parse()?;
        ensure!(kind != "counter" || number >= 0.0, "{line}");
        ensure!(kind != "info" || number == 1.0, "{line}");
        samples.push((name.to_owned(), labels, number));
    }
    Ok(samples)
}

fn is_name(name: &str, more: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || more.contains(c))
}

/// `name="value",…}` and what stands behind.
fn read_labels(mut text: &str) -> Result<(HashMap<String, String>, &str)> {
    let mut labels = HashMap::new();
    loop {
        let (name, rest) = text.split_once("=\"").context("no value")?;
        ensure!(is_name(name, ""), "not a label's name: {name}");
        let mut value = String::new();
        let mut rest = rest.chars();
        loop {
            match rest.next().context("a value has no end")? {
                '"' => break,
                '\\' => value.push(match rest.next() {
                    Some('n') => '\n',
                    Some(c @ ('\\' | '"')) => c,
                    other => bail!("\\{other:?}"),
                }),
                c => value.push(c),
            }
        }
        ensure!(
            labels.insert(name.to_owned(), value).is_none(),
            "{name} comes twice"
        );
        let rest = rest.as_str();
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok((labels, behind));
        }
        text = rest.strip_prefix(',').context("neither , nor }")?;
    }
}

fn the_reader_is_strict() -> Result<()> {
    let good = "# TYPE a counter\n# HELP a x y\na_total{l=\"v\\n\\\"\\\\\",m=\"\"} 5\n# EOF\n";
    let samples = read(good)?;
    ensure!(
        samples.len() == 1 && samples[0].1["l"] == "v\n\"\\" && samples[0].2 == 5.0,
        "{samples:?}"
    );
    for (from, to) in [
        ("# EOF\n", ""),
        ("a_total", "a"),
        ("a_total", "b_total"),
        ("counter", "count"),
        ("# TYPE a counter\n", ""),
        (" 5", " -5"),
        (" 5", "5"),
        (" 5", " five"),
        ("\\n", "\\q"),
        ("m=", "l="),
        (",m=\"\"", ",m=\""),
        ("l=", "1l="),
        ("# HELP a", "# HELP b"),
    ] {
        ensure!(
            read(&good.replace(from, to)).is_err(),
            "{from} as {to} is accepted"
        );
    }
    Ok(())
}
