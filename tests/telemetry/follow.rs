//! `telemetry follow` as a program that another one reads: it ends for the right reason and counts right.

use std::io::Write;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use upatch_tests::child::{Answer, PATIENCE};
use upatch_tests::upatch::upatch;

use super::{Scene, case};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("follow::until_the_process_ends", until_the_process_ends),
        case("follow::until_reverted", until_reverted),
        case("follow::until_told", until_told),
        case("follow::words_and_refusals", words_and_refusals),
    ]
}

/// Events as they come from the victim `events`.
pub(crate) const PATCH: &str = r#"
#include "upatch.h"
struct call { long thread, number, product; };
UPATCH_COUNTER(__u64, hits);
SEC("upatch/exe:work") int UPATCH(watch, long thread, long number)
{
	struct call call = { thread, number, (thread + 1) * (number + 1) };

	UPATCH_INC(hits);
	upatch_event(&call, sizeof(call));
	return UPATCH_CONTINUE;
}
"#;

/// `upatch telemetry follow` in the background.
pub(crate) struct Follower {
    child: std::process::Child,
    lines: Receiver<String>,
}

impl Follower {
    pub(crate) fn start(scene: &Scene, arguments: &[&str]) -> Result<Self> {
        let mut child = upatch()
            .args(["telemetry", "follow", "--pid", &scene.pid()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("no pipe")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
                if line.is_err() || line.is_ok_and(|line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    pub(crate) fn line(&self) -> Result<String> {
        self.lines
            .recv_timeout(PATIENCE)
            .context("follow says nothing more")
    }

    pub(crate) fn json(&self) -> Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| line)
    }

    /// SIGINT or SIGTERM.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(nix::sys::signal::kill(pid, signal)?)
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn ended(&mut self) -> Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) => return status.code().context("it was killed"),
                None if Instant::now() > deadline => bail!("follow doesn't end"),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything up to the last object, which is given apart.
pub(crate) fn all(follower: &Follower) -> Result<(Vec<Value>, Value)> {
    let mut events = Vec::new();
    loop {
        let value = follower.json()?;
        if value.get("ok").is_some() {
            return Ok((events, value));
        }
        if value.get("value").is_some() {
            events.push(value);
        }
    }
}

fn until_the_process_ends() -> Result<()> {
    let mut scene = Scene::new("events")?;
    let id = scene.apply(PATCH)?;
    // A long interval: what comes must come because the process ends.
    let mut follower = Follower::start(&scene, &["--json", "--interval", "60000"])?;
    std::thread::sleep(Duration::from_millis(300));
    let answer = scene.driver.ask("x 100")?;
    ensure!(answer == Answer::Exit(0), "{answer}");
    let (events, last) = all(&follower)?;
    ensure!(follower.ended()? == 0, "{last:#}");
    // Root reads the arena's file, which outlives the process; others may lose what came after the last look.
    if nix::unistd::geteuid().is_root() {
        ensure!(
            last["events"] == 100 && last["events_dropped"] == 0,
            "{last:#}"
        );
    }
    ensure!(
        last["ended"] == "exited" && last["events"] == events.len(),
        "{last:#}"
    );
    for (index, event) in events.iter().enumerate() {
        let value = json!({"thread": 0, "number": index, "product": index + 1});
        ensure!(
            event["type"] == "struct call"
                && event["value"] == value
                && event["patch"] == id.as_str()
                && event["tid"] == scene.driver.pid()
                && event["pid"] == scene.driver.pid(),
            "event {index}: {event:#}"
        );
        let time = event["time"].as_str().unwrap_or_default();
        ensure!(
            time.starts_with("20") && time.len() == 27 && time.ends_with('Z'),
            "{event:#}"
        );
    }
    Ok(())
}

fn until_reverted() -> Result<()> {
    let mut scene = Scene::new("events")?;
    scene.apply(PATCH)?;
    let mut follower = Follower::start(&scene, &["--json", "--interval", "10"])?;
    scene.driver.ask("1 3")?;
    for number in 0..3 {
        let event = follower.json()?;
        ensure!(event["value"]["number"] == number, "{event:#}");
    }
    // The revert prints what the ring holds, too.
    let reverted = scene.done(&["revert"])?;
    ensure!(
        reverted["patches"][0]["events"]
            .as_array()
            .is_some_and(|events| events.len() == 3)
            && reverted["patches"][0]["events_dropped"] == 0,
        "{reverted:#}"
    );
    let (events, last) = all(&follower)?;
    ensure!(
        events.is_empty() && last["ended"] == "reverted" && last["events"] == 3,
        "{last:#}"
    );
    ensure!(follower.ended()? == 0, "{last:#}");
    ensure!(
        scene.driver.ask("1 1")? == Answer::line("done"),
        "the victim is gone"
    );
    Ok(())
}

fn until_told() -> Result<()> {
    use nix::sys::signal::Signal;
    let mut scene = Scene::new("events")?;
    scene.apply(PATCH)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut follower = Follower::start(&scene, &["--json", "--interval", "60000"])?;
        std::thread::sleep(Duration::from_millis(300));
        follower.signal(signal)?;
        let (_, last) = all(&follower)?;
        ensure!(
            follower.ended()? == 0 && last["ended"] == "interrupted",
            "{last:#}"
        );
    }
    scene.driver.ask("1 20")?;
    for (arguments, ended) in [(["--count", "5"], "count"), (["--seconds", "1"], "seconds")] {
        let mut follower = Follower::start(&scene, &["--json", arguments[0], arguments[1]])?;
        let (events, last) = all(&follower)?;
        ensure!(follower.ended()? == 0 && last["ended"] == ended, "{last:#}");
        let wanted = if ended == "count" { 5 } else { 20 };
        ensure!(
            events.len() == wanted && last["events"] == wanted,
            "{last:#}"
        );
    }
    // A reader that goes away is no failure.
    let mut follower = Follower::start(&scene, &["--interval", "5"])?;
    drop(std::mem::replace(&mut follower.lines, channel().1));
    for _ in 0..5 {
        scene.driver.ask("1 2000")?;
    }
    ensure!(follower.ended()? == 0, "it minds that nobody reads");
    Ok(())
}

fn words_and_refusals() -> Result<()> {
    let mut scene = Scene::new("events")?;
    let pid = scene.pid();
    let refused = |arguments: &[&str], says: &str, hint: &str| -> Result<()> {
        let mut all = vec!["telemetry", "follow"];
        all.extend(arguments);
        let (code, value) = scene.upatch(&all)?;
        let error = &value["error"];
        let has =
            |member: &str, text: &str| error[member].as_str().is_some_and(|all| all.contains(text));
        ensure!(
            code == 4 && has("message", says) && has("hint", hint) && has("where", &pid),
            "{arguments:?}: {code} {value:#}"
        );
        Ok(())
    };
    refused(&[], "no patch that records events", "upatch_event()")?;
    refused(
        &["--patch", "01234567"],
        "no live patch 01234567",
        "upatch status",
    )?;
    let without = PATCH.replace("upatch_event(&call", "(void)(&call");
    let silent = scene.apply(&without)?;
    refused(&["--patch", &silent], "records no events", "upatch_event()")?;
    scene.done(&["revert"])?;

    scene.apply(&PATCH.replace(
        "upatch_event(&call, sizeof(call));",
        r#"bpf_printk("call %ld of %d\n", number, (int)thread); upatch_event_plain(&number, 8);"#,
    ))?;
    let mut follower = Follower::start(&scene, &["--interval", "10"])?;
    scene.driver.ask("1 1")?;
    let line = follower.line()?;
    // 12:34:56.789012  tid 4711  call 0 of 0
    ensure!(
        line.ends_with(&format!("  tid {}  call 0 of 0", scene_thread(&line)))
            && line.as_bytes()[8] == b'.',
        "{line}"
    );
    let line = follower.line()?;
    ensure!(line == "long  0", "{line}");
    follower.signal(nix::sys::signal::Signal::SIGINT)?;
    let line = follower.line()?;
    ensure!(
        follower.ended()? == 0 && line == "ended: 2 events, 0 lost",
        "{line}"
    );
    std::io::stdout().flush()?;
    Ok(())
}

fn scene_thread(line: &str) -> &str {
    line.split("tid ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_default()
}
