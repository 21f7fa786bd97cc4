//! Several processes in one command: which are meant, a report of each, one arena for all.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use upatch_tests::child::{Answer, Driver, run};
use upatch_tests::upatch::{run_json, upatch};

use super::several::Modules;
use super::{case, refused};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case(
            "many::three_of_which_one_is_impossible",
            three_of_which_one_is_impossible,
        ),
        case("many::children", children),
        case("many::children_in_a_storm", children_in_a_storm),
        case("many::all", all),
        case("many::misuse", misuse),
    ]
}

/// No process has it: above the largest pid there can be (PID_MAX_LIMIT, 4 Mi).
const NOBODY: &str = "4194305";

fn done(words: &[&str]) -> Result<Value> {
    let (code, value) = run_json(words)?;
    ensure!(
        code == 0 && value["ok"] == true,
        "{words:?}: {code} {value:#}"
    );
    Ok(value)
}

fn processes(value: &Value) -> Result<&Vec<Value>> {
    value["processes"]
        .as_array()
        .with_context(|| format!("no processes: {value:#}"))
}

/// Is this object about that process?
fn is(each: &Value, pid: &str) -> bool {
    each["pid"].as_i64() == pid.parse().ok()
}

fn answers(driver: &mut Driver, wanted: &str) -> Result<()> {
    let answer = driver.ask("p")?;
    ensure!(
        answer == Answer::line(wanted),
        "process {} says {answer}",
        driver.pid()
    );
    Ok(())
}

fn three_of_which_one_is_impossible() -> Result<()> {
    let mut one = Modules::new(&["quiet"])?;
    let mut two = Modules::another(one.folder.path(), &["quiet"])?;
    let object = one.three()?;
    let pair = format!("{},{}", one.pid(), two.pid());
    let with_pair = |words: &[&str], one: &Modules| -> Result<(i32, Value)> {
        let mut all = one.words(words);
        all.extend(["--pid", &pair]);
        run_json(&all)
    };
    let (code, dry) = with_pair(&["apply", "--dry-run", &object], &one)?;
    ensure!(code == 0 && processes(&dry)?.len() == 2, "{dry:#}");
    ensure!(
        processes(&dry)?.iter().all(|each| each["dry_run"] == true),
        "{dry:#}"
    );
    one.unharmed()?;
    answers(&mut two, "0 0 0")?;

    let (code, applied) = with_pair(&["apply", &object, "--pid", NOBODY], &one)?;
    let each = processes(&applied)?;
    ensure!(
        code == 7 && applied["ok"] == false && applied["error"]["code"] == 7,
        "{applied:#}"
    );
    ensure!(each.len() == 3, "{applied:#}");
    let of = |pid: &str| {
        let found = each.iter().find(|each| is(each, pid));
        found.with_context(|| format!("nothing about {pid}: {applied:#}"))
    };
    let nobody = of(NOBODY)?;
    ensure!(
        nobody["ok"] == false && nobody["error"]["code"] == 4,
        "{applied:#}"
    );
    let (first, second) = (of(&one.pid())?, of(&two.pid().to_string())?);
    ensure!(first["ok"] == true && second["ok"] == true, "{applied:#}");
    ensure!(
        first["sites"]
            .as_array()
            .is_some_and(|sites| sites.len() == 3),
        "{applied:#}"
    );
    // One arena, at one address.
    ensure!(
        first["arena"].is_string() && first["arena"] == second["arena"],
        "{applied:#}"
    );
    answers(&mut one.driver, "1 1 1")?;
    answers(&mut two, "1 1 1")?;
    answers(&mut two, "1 1 1")?;
    let (code, dump) = with_pair(&["telemetry", "dump"], &one)?;
    ensure!(code == 0 && processes(&dump)?.len() == 2, "{dump:#}");
    for each in processes(&dump)? {
        ensure!(each["patches"][0]["hits"] == 9, "not one counter: {dump:#}");
    }
    // A rule that is set in one holds in the other.
    done(&["rules", "set", "--pid", &one.pid(), "on=0"])?;
    answers(&mut two, "0 0 0")?;
    done(&["rules", "set", "--pid", &two.pid().to_string(), "on=1"])?;
    answers(&mut one.driver, "1 1 1")?;

    let (code, again) = with_pair(&["apply", &object], &one)?;
    ensure!(
        code == 5 && again["error"]["code"] == 5,
        "both were patched already: {again:#}"
    );
    let (code, status) = with_pair(&["status"], &one)?;
    ensure!(
        code == 0 && processes(&status)?[1]["patches"][0]["state"] == "applied",
        "{status:#}"
    );
    // As text: what went well on standard output, what didn't on standard error.
    let mut command = upatch();
    command.args(["revert", "--pid", &pair, "--pid", NOBODY]);
    let said = run(&mut command, std::time::Duration::from_secs(60))?;
    ensure!(said.code == 7, "{said:?}");
    for pid in [one.pid(), two.pid().to_string()] {
        ensure!(
            said.stdout.contains(&format!("process {pid}:\n")),
            "{said:?}"
        );
    }
    let (stderr, wanted) = (&said.stderr, format!("process {NOBODY}"));
    ensure!(
        stderr.contains(&wanted) && stderr.contains("1 of 3 processes failed"),
        "{said:?}"
    );
    answers(&mut two, "0 0 0")?;
    one.unharmed()
}

fn children() -> Result<()> {
    let mut server = Modules::new(&["quiet"])?;
    let object = server.object("second", &[("upatch/libsecond.so:second", "alone")])?;
    let fork = |server: &mut Modules| -> Result<String> {
        match server.driver.ask("c")? {
            Answer::Line(pid) => Ok(pid),
            other => anyhow::bail!("no worker: {other}"),
        }
    };
    let before = fork(&mut server)?;
    let pid = server.pid();
    let (words, apply) = (["--pid", &pid, "--children"], ["apply", &*object]);
    let all = |command: &[&str]| -> Result<Value> {
        let command = server.words(command);
        done(&[&command[..], &words[..]].concat())
    };
    let applied = all(&apply)?;
    let pids = |value: &Value| -> Result<Vec<String>> {
        Ok(processes(value)?
            .iter()
            .map(|each| each["pid"].to_string())
            .collect())
    };
    ensure!(
        pids(&applied)? == [pid.clone(), before.clone()],
        "{applied:#}"
    );
    ensure!(
        processes(&applied)?[0]["arena"] == processes(&applied)?[1]["arena"],
        "{applied:#}"
    );
    // A worker that is forked from a patched process is patched.
    let after = fork(&mut server)?;
    let all = |command: &[&str]| -> Result<Value> {
        let command = server.words(command);
        done(&[&command[..], &words[..]].concat())
    };
    let again = all(&apply)?;
    ensure!(processes(&again)?.len() == 3, "{again:#}");
    for each in processes(&again)? {
        let inherited = is(each, &after);
        ensure!(
            each["already"] == true && each["inherited"] == inherited,
            "{again:#}"
        );
    }
    let status = all(&["status"])?;
    for each in processes(&status)? {
        ensure!(each["patches"][0]["state"] == "applied", "{status:#}");
    }
    // They all count in one counter.
    let hits = |value: &Value| -> Result<Vec<u64>> {
        let each = processes(value)?.iter();
        Ok(each
            .filter_map(|each| each["patches"][0]["hits"].as_u64())
            .collect())
    };
    let first = hits(&all(&["telemetry", "dump"])?)?;
    ensure!(
        first.len() == 3 && first.iter().all(|hits| *hits > 0),
        "{first:?}"
    );
    let reverted = all(&["revert"])?;
    ensure!(pids(&reverted)?.len() == 3, "{reverted:#}");
    for each in processes(&reverted)? {
        ensure!(each["patches"][0]["outcome"] == "reverted", "{reverted:#}");
    }
    let status = all(&["status"])?;
    for each in processes(&status)? {
        ensure!(
            each["patches"].as_array().is_some_and(Vec::is_empty),
            "{status:#}"
        );
    }
    for worker in [before, after] {
        let answer = server.driver.ask(&format!("k{worker}"))?;
        ensure!(answer == Answer::line("killed"), "{answer}");
    }
    server.unharmed()
}

/// Workers come and go by the hundred while their server is patched and reverted with its children: none is harmed, and each
/// that is alive afterwards is patched, or as it was.
fn children_in_a_storm() -> Result<()> {
    let mut server = Modules::new(&["quiet"])?;
    let object = server.object(
        "both",
        &[
            ("upatch/exe:first", "in_program"),
            ("upatch/libsecond.so:second", "in_library"),
        ],
    )?;
    // Its thread is there from now on.
    ensure!(server.driver.ask("b")? == Answer::line("begun"), "no storm");
    let pid = server.pid();
    let mut seen = 0;
    for _ in 0..4 {
        for (command, state) in [
            (vec!["apply", &*object], Some("applied")),
            (vec!["revert"], None),
        ] {
            let mut words = server.words(&command);
            words.extend(["--pid", &pid, "--children"]);
            let (code, value) = run_json(&words)?;
            ensure!(code == 0, "{command:?}: {code} {value:#}");
            seen += processes(&value)?.len();
            let (_, status) = run_json(&["status", "--pid", &pid, "--children"])?;
            for each in processes(&status)? {
                let Some(patches) = each["patches"].as_array() else {
                    continue; // It ended in front of our eyes.
                };
                let states: Vec<_> = patches
                    .iter()
                    .map(|patch| patch["state"].as_str())
                    .collect();
                let wanted: Vec<_> = state.iter().map(|state| Some(*state)).collect();
                ensure!(states == wanted, "after {command:?}: {each:#}");
            }
        }
    }
    let Answer::Line(line) = server.driver.ask("e")? else {
        anyhow::bail!("the server is gone");
    };
    let (workers, harmed) = line.split_once(' ').context("two numbers")?;
    ensure!(harmed == "0", "{harmed} of {workers} workers were harmed");
    ensure!(
        workers.parse::<u32>()? > 20 && seen > 8,
        "{line}, {seen} seen"
    );
    println!("many: {workers} workers, {seen} reports, none harmed");
    answers(&mut server.driver, "0 0 0")
}

/// By the build-id of a library that this test has built: no other process can map it.
fn all() -> Result<()> {
    let mut one = Modules::new(&["quiet"])?;
    let mut two = Modules::another(one.folder.path(), &["quiet"])?;
    // The same program in another folder has a library with another build-id.
    let mut stranger = Modules::new(&["quiet"])?;
    ensure!(one.ids[1] != stranger.ids[1], "the build-ids are equal");
    let object = one.object("second", &[("upatch/libsecond.so:second", "alone")])?;
    let id = &one.ids[1][..12];
    let words = ["--all", "--build-id", id];
    let with = |command: &[&str]| done(&[command, &words[..]].concat());
    let mut wanted = [one.pid(), two.pid().to_string()];
    wanted.sort_by_key(|pid| pid.parse::<u32>().unwrap_or(0));
    let pids = |value: &Value| -> Result<Vec<String>> {
        Ok(processes(value)?
            .iter()
            .map(|each| each["pid"].to_string())
            .collect())
    };
    let dry = with(&["apply", "--dry-run", &object])?;
    ensure!(
        pids(&dry)? == wanted && dry["skipped"].is_array(),
        "{dry:#}"
    );
    let applied = with(&["apply", &object])?;
    ensure!(pids(&applied)? == wanted, "{applied:#}");
    answers(&mut one.driver, "0 1 0")?;
    answers(&mut two, "0 1 0")?;
    stranger.unharmed()?;
    let dump = with(&["telemetry", "dump"])?;
    for each in processes(&dump)? {
        ensure!(each["patches"][0]["hits"] == 2, "not one counter: {dump:#}");
    }
    ensure!(pids(&with(&["status"])?)? == wanted, "status finds others");
    let again = with(&["apply", &object])?;
    for each in processes(&again)? {
        ensure!(
            each["already"] == true && each["inherited"] == false,
            "{again:#}"
        );
    }
    let reverted = with(&["revert"])?;
    ensure!(pids(&reverted)? == wanted, "{reverted:#}");
    answers(&mut two, "0 0 0")?;
    one.unharmed()?;
    stranger.unharmed()?;
    // Nobody maps that.
    let zeros = "0".repeat(40);
    let (code, none) = run_json(&["status", "--all", "--build-id", &zeros])?;
    ensure!(code == 4 && none["error"]["code"] == 4, "{none:#}");
    Ok(())
}

fn misuse() -> Result<()> {
    let modules = Modules::new(&["quiet"])?;
    let object = modules.object("second", &[("upatch/libsecond.so:second", "alone")])?;
    let pid = modules.pid();
    refused(&["apply", "--all", &object], 2, &["build-id"])?;
    refused(&["status", "--all"], 2, &["build-id"])?;
    refused(
        &["revert", "--all", "--build-id", "123"],
        2,
        &["8 to 128 hex digits"],
    )?;
    refused(&["status"], 2, &["--pid"])?;
    refused(&["status", "--all", "--pid", &pid], 2, &["--all"])?;
    refused(&["status", "--pid", "1,x"], 2, &["x"])?;
    // All fail for one reason: its code.
    let (code, value) = run_json(&["status", "--pid", NOBODY, "--pid", "4194306"])?;
    ensure!(code == 4 && processes(&value)?.len() == 2, "{value:#}");
    // What is wrong with the object is said once.
    let bad = modules.folder.path().join("bad.o");
    std::fs::write(&bad, "no object")?;
    let bad = bad.display().to_string();
    refused(&["apply", &bad, "--pid", &pid, "--pid", NOBODY], 3, &[])?;
    Ok(())
}
