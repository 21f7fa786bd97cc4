//! The ring of events under load: every event is received or counted as lost, none is shown that isn't whole.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use upatch_tests::child::Answer;
use upatch_tests::object_fuzz::Random;

use super::follow::{Follower, PATCH, all};
use super::{Scene, case};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("ring::eight_threads", eight_threads),
        case("ring::killed_writers", killed_writers),
        case("ring::dump_shows_the_newest", dump_shows_the_newest),
    ]
}

/// A follower that has begun to follow: it has shown the event of one call.
fn started(scene: &mut Scene) -> Result<Follower> {
    let follower = Follower::start(scene, &["--json", "--interval", "2"])?;
    scene.driver.ask("1 1")?;
    let event = follower.json()?;
    ensure!(check_whole(&event)? == (0, 0), "{event}");
    Ok(follower)
}

/// An event of [`PATCH`] is whole if its members agree.
fn check_whole(event: &Value) -> Result<(i64, i64)> {
    let value = &event["value"];
    let member = |name: &str| value[name].as_i64().with_context(|| event.to_string());
    let (thread, number) = (member("thread")?, member("number")?);
    ensure!(
        member("product")? == (thread + 1) * (number + 1),
        "torn: {event}"
    );
    Ok((thread, number))
}

/// Many writers at once, on a ring that holds little: the sums are exact, and none comes twice.
fn eight_threads() -> Result<()> {
    const THREADS: usize = 8;
    let mut scene = Scene::new("events")?;
    for (slots, plain, calls) in [
        ("8", true, 300_000),
        ("1024", true, 300_000),
        ("65536", false, 20_000),
    ] {
        let mut patch = format!("#define UPATCH_EVENT_SLOTS {slots}\n{PATCH}");
        if plain {
            patch = patch.replace("upatch_event(", "upatch_event_plain(");
        }
        scene.apply(&patch)?;
        let mut follower = started(&mut scene)?;
        let answer = scene.driver.ask(&format!("{THREADS} {calls}"))?;
        ensure!(answer == Answer::line("done"), "{answer}");
        let hits = scene.dump()?["hits"].as_i64().context("no hits")?;
        ensure!(hits == THREADS as i64 * calls + 1, "{hits} calls counted");
        std::thread::sleep(Duration::from_millis(50));
        follower.signal(nix::sys::signal::Signal::SIGINT)?;
        let (events, last) = all(&follower)?;
        ensure!(follower.ended()? == 0, "{last:#}");
        let sum = |name: &str| last[name].as_i64().unwrap_or(-1);
        ensure!(
            sum("events") + sum("events_dropped") == hits
                && sum("events_before") == 0
                && sum("events") == events.len() as i64 + 1,
            "{slots} slots: {last:#} of {hits}"
        );
        let mut seen = HashSet::new();
        for event in &events {
            let (thread, number) = check_whole(event)?;
            ensure!(
                (0..THREADS as i64).contains(&thread) && (0..calls).contains(&number),
                "{event}"
            );
            ensure!(seen.insert((thread, number)), "twice: {event}");
        }
        ensure!(events.len() >= 8, "only {} events", events.len());
        println!("ring of {slots}: {last}");
        scene.done(&["revert"])?;
    }
    Ok(())
}

/// Writers that are killed at any moment lose their own event, and leave no slot that nobody can use.
fn killed_writers() -> Result<()> {
    const KILLS: u64 = 300;
    let mut scene = Scene::new("events")?;
    let patch = PATCH.replace("upatch_event(", "upatch_event_plain(");
    let mut random = Random::new(20_261_121);
    // A ring large enough that a reader can keep up.
    scene.apply(&format!("#define UPATCH_EVENT_SLOTS 262144\n{patch}"))?;
    let mut follower = started(&mut scene)?;
    let mut produced = 1;
    for _ in 0..KILLS {
        let Answer::Line(called) = scene.driver.ask(&format!("k{}", random.below(4_000)))? else {
            anyhow::bail!("the victim is gone");
        };
        produced += called.parse::<u64>()?;
    }
    std::thread::sleep(Duration::from_millis(100));
    follower.signal(nix::sys::signal::Signal::SIGTERM)?;
    let (events, last) = all(&follower)?;
    ensure!(follower.ended()? == 0, "{last:#}");
    for event in &events {
        ensure!(check_whole(event)?.0 == -1, "{event}");
    }
    let (received, dropped) = (
        last["events"].as_u64().unwrap_or(0),
        last["events_dropped"].as_u64().unwrap_or(u64::MAX),
    );
    // Each kill may hit after an event was begun and before the call was counted.
    ensure!(
        (produced..=produced + KILLS).contains(&(received + dropped)) && last["events_before"] == 0,
        "{produced} calls, {last:#}"
    );
    ensure!(
        dropped <= KILLS,
        "more than the killed ones are lost: {last:#}"
    );
    println!("{KILLS} killed: {produced} calls, {last}");
    scene.done(&["revert"])?;

    // A small ring: all of its slots have seen killed writers, and all are used again.
    scene.apply(&format!("#define UPATCH_EVENT_SLOTS 16\n{patch}"))?;
    for _ in 0..KILLS {
        scene.driver.ask(&format!("k{}", random.below(2_000)))?;
    }
    ensure!(
        scene.driver.ask("1 16")? == Answer::line("done"),
        "the victim is gone"
    );
    let dump = scene.dump()?;
    let events = dump["events"].as_array().context("no events")?;
    let numbers: Vec<_> = events
        .iter()
        .map(|event| event["value"]["number"].as_i64())
        .collect();
    ensure!(numbers == (0..16).map(Some).collect::<Vec<_>>(), "{dump:#}");
    Ok(())
}

/// A dump takes nothing away, shows the newest in order, and counts the others.
fn dump_shows_the_newest() -> Result<()> {
    let mut scene = Scene::new("events")?;
    scene.apply(&format!("#define UPATCH_EVENT_SLOTS 32\n{PATCH}"))?;
    let numbers = |dump: &Value| -> Vec<i64> {
        let events = dump["events"].as_array().into_iter().flatten();
        events
            .filter_map(|event| event["value"]["number"].as_i64())
            .collect()
    };
    let empty = scene.dump()?;
    ensure!(
        numbers(&empty).is_empty() && empty["events_dropped"] == 0,
        "{empty:#}"
    );
    ensure!(empty["globals"].get("upatch_events").is_none(), "{empty:#}");
    for _ in 0..2 {
        scene.driver.ask("1 20")?;
    }
    for _ in 0..2 {
        let dump = scene.dump()?;
        let wanted: Vec<i64> = (8..20).chain(0..20).collect();
        ensure!(
            numbers(&dump) == wanted && dump["events_dropped"] == 8,
            "{dump:#}"
        );
    }
    Ok(())
}
