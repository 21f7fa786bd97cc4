//! Wrong processes, wrong builds, wrong functions; twice, interrupted, at once.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use upatch_tests::child::Answer;
use upatch_tests::skip::skip;
use upatch_tests::upatch::{run_json, upatch};

use super::{Scene, build, case, is_refusal, refused};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("target::life_of_a_patch", life_of_a_patch),
        case("target::forked_child", forked_child),
        case("target::wrong_places", wrong_places),
        case("target::wrong_processes", wrong_processes),
        case("target::other_users", other_users),
        case("target::seccomp", seccomp),
        case("target::killed_upatch", killed_upatch),
        case("target::two_at_once", two_at_once),
    ]
}

fn life_of_a_patch() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    ensure!(
        scene.done(&["status"])?["patches"] == json!([]),
        "a patch before any"
    );
    ensure!(
        scene.done(&["revert"])?["patches"] == json!([]),
        "something reverted before any"
    );
    let dry = scene.done(&[
        "apply",
        "--dry-run",
        "--build-id",
        &scene.build_id,
        scene.object(),
    ])?;
    ensure!(dry["dry_run"] == true, "{dry:#}");
    scene.unharmed()?;

    let applied = scene.done(&["apply", "--build-id", &scene.build_id[..8], scene.object()])?;
    let id = applied["id"].as_str().unwrap_or_default().to_owned();
    ensure!(scene.is_patched()?, "applied, and nothing happens");
    let again = ["apply", "--build-id", &scene.build_id, scene.object()];
    let hint = format!("upatch revert --pid {} --patch {id}", scene.pid());
    scene.refused(&again, 5, &["applied", &hint])?;
    scene.refused(
        &["revert", "--patch", "12345678"],
        4,
        &["12345678", "upatch status"],
    )?;
    ensure!(scene.is_patched()?, "a refused command took the patch off");

    let status = scene.done(&["status"])?;
    ensure!(
        status["patches"][0]["state"] == "applied" && status["patches"][0]["id"] == id,
        "{status:#}"
    );
    let dump = scene.done(&["telemetry", "dump"])?;
    let globals = json!({
        "hits": 4, "longest": 100, "mode": "ON", "text": "hello",
        "pairs": [{"low": 1, "high": -2}, {"low": 3, "high": 4}],
    });
    ensure!(
        dump["patches"][0]["globals"] == globals && dump["patches"][0]["hits"] == 4,
        "{dump:#}"
    );

    let reverted = scene.done(&["revert", "--patch", &id])?;
    ensure!(
        reverted["patches"][0]["outcome"] == "reverted",
        "{reverted:#}"
    );
    ensure!(
        reverted["patches"][0]["globals"]["hits"] == 4,
        "{reverted:#}"
    );
    scene.unharmed()
}

/// A child that is forked after the apply runs the patch, and counts in the same arena.
fn forked_child() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let answer = |scene: &mut Scene| scene.driver.ask("f500");
    ensure!(
        answer(&mut scene)? == Answer::line("1007"),
        "patched already"
    );
    scene.apply()?;
    let hits = |scene: &Scene| -> Result<u64> {
        let dump = scene.done(&["telemetry", "dump"])?;
        let hits = dump["patches"][0]["hits"].as_u64();
        hits.with_context(|| format!("no hits in {dump:#}"))
    };
    let before = hits(&scene)?;
    for _ in 0..3 {
        ensure!(
            answer(&mut scene)? == Answer::line("-14"),
            "a child is not patched"
        );
    }
    let counted = hits(&scene)? - before;
    ensure!(
        counted == 3,
        "{counted} of 3 calls in children were counted"
    );
    scene.done(&["revert"])?;
    ensure!(answer(&mut scene)? == Answer::line("1007"), "still patched");
    scene.unharmed()
}

fn wrong_places() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let id = scene.build_id.clone();
    let object = scene.object().to_owned();
    let zeros = "0".repeat(40);
    let with = |more: &[&'static str]| -> Vec<String> {
        let all = ["apply", &object, "--build-id", &id]
            .into_iter()
            .chain(more.iter().copied());
        all.map(str::to_owned).collect()
    };
    let cases: Vec<(Vec<String>, i32, &[&str])> = vec![
        (
            with(&["--function", "nosuch"]),
            4,
            &["no function", "nosuch", "--offset"],
        ),
        (with(&["--function", "puts"]), 4, &["libc.so.6"]),
        (with(&["--function", ""]), 2, &["names no function"]),
        (with(&["--function", "work+4"]), 2, &["work+4"]),
        (
            with(&["--function", "libc.so.6:work"]),
            2,
            &["libc.so.6", "exe"],
        ),
        (with(&["--function", "wrok"]), 4, &["similar", "work"]),
        (with(&["--offset", "0x1"]), 4, &["0x1 is not code"]),
        (with(&["--offset", "zz"]), 2, &["zz"]),
    ];
    for (arguments, code, says) in &cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        scene.refused(&arguments, *code, says)?;
    }
    scene.refused(&["apply", &object, "--build-id", &zeros], 4, &[&zeros, &id])?;
    scene.refused(
        &["apply", &object, "--build-id", &format!("{id}00")],
        4,
        &[&id],
    )?;
    for bad in [&id[..7], "xyzxyzxyz", ""] {
        scene.refused(
            &["apply", &object, "--build-id", bad],
            2,
            &["8 to 128 hex digits"],
        )?;
    }
    scene.unharmed()
}

fn wrong_processes() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let object = scene.object().to_owned();
    let commands: [&[&str]; 4] = [
        &["status"],
        &["telemetry", "dump"],
        &["revert"],
        &["apply", &object],
    ];
    let mut zombie = Command::new("true").spawn()?;
    let zombie_id = zombie.id().to_string();
    while !std::fs::read_to_string(format!("/proc/{zombie_id}/stat"))?.contains(") Z ") {
        std::thread::yield_now();
    }
    for (pid, code) in [
        ("0", 2),
        ("-1", 2),
        ("2147483647", 4),
        ("2147483648", 2),
        ("one", 2),
        (&*zombie_id, 4),
    ] {
        for command in commands {
            let argument = format!("--pid={pid}");
            let mut all = command.to_vec();
            all.push(&argument);
            let error = refused(&all, code, &[pid])?;
            ensure!(
                code == 2 || error["where"] == format!("process {pid}"),
                "{error:#}"
            );
        }
    }
    zombie.wait()?;
    scene.unharmed()
}

fn other_users() -> Result<()> {
    const NOBODY: u32 = 65534;
    let mut scene = Scene::new(&[])?;
    let mut command = upatch();
    command
        .args(["status", "--json", "--pid", &scene.pid()])
        .uid(NOBODY)
        .gid(NOBODY);
    match command.output() {
        Err(error) => skip(
            "cli target::other_users",
            &format!("can't run upatch as another user: {error}"),
        ),
        Ok(output) => {
            let value: Value = serde_json::from_slice(&output.stdout)?;
            is_refusal(
                output.status.code().unwrap_or(-1),
                &value,
                6,
                &["not permitted", "root"],
            )?;
        }
    }
    scene.unharmed()
}

fn seccomp() -> Result<()> {
    let mut scene = Scene::new(&["seccomp"])?;
    let text = r#"
#include "upatch.h"
UPATCH_RULE(__u64, when);
SEC("upatch/exe:work") int UPATCH(stamp, int x)
{
	when = bpf_get_current_pid_tgid();
	return UPATCH_CONTINUE;
}
"#;
    let object = build(scene.folder.path(), "stamp", text)?;
    let object = object.to_string_lossy();
    let says = ["seccomp", "bpf_get_current_pid_tgid"];
    scene.refused(&["apply", &object, "--build-id", &scene.build_id], 5, &says)?;
    scene.unharmed()
}

/// The next revert leaves nothing, wherever the one before was killed.
fn killed_upatch() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let places = [
        ("apply", "mapped"),
        ("apply", "poked"),
        ("revert", "frame-written:3"),
        ("revert", "image-unmapped"),
    ];
    for (command, failpoint) in places {
        let mut killed = upatch();
        match command {
            "apply" => killed.args(["apply", "--build-id", &scene.build_id, scene.object()]),
            _ => {
                scene.apply()?;
                killed.arg("revert")
            }
        };
        let status = killed
            .args(["--pid", &scene.pid()])
            .env("UPATCH_FAILPOINT", failpoint)
            .output()?
            .status;
        ensure!(status.code().is_none(), "{command} reached no {failpoint}");
        let patched = scene.is_patched()?;
        ensure!(
            patched == (failpoint == "poked"),
            "{command} killed at {failpoint}: patched {patched}"
        );
        scene.done(&["status"])?;
        scene.done(&["revert"])?;
        scene.unharmed()?;
    }
    Ok(())
}

/// Of several that apply at once one wins, and the others say that it is applied; reverts at once all succeed.
fn two_at_once() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let pid = scene.pid();
    let at_once = |arguments: &[&str]| -> Result<Vec<(i32, Value)>> {
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| run_json(arguments)))
                .collect();
            // SANITY: a panic there is this test's failure.
            running
                .into_iter()
                .map(|one| one.join().expect("a thread panicked"))
                .collect()
        })
    };
    for _ in 0..3 {
        let applied = at_once(&[
            "apply",
            "--build-id",
            &scene.build_id,
            scene.object(),
            "--pid",
            &pid,
        ])?;
        let mut codes: Vec<_> = applied.iter().map(|(code, _)| *code).collect();
        codes.sort_unstable();
        ensure!(codes == [0, 5, 5], "{applied:#?}");
        ensure!(scene.is_patched()?, "nobody applied it");
        let reverted = at_once(&["revert", "--pid", &pid])?;
        ensure!(reverted.iter().all(|(code, _)| *code == 0), "{reverted:#?}");
        scene.unharmed()?;
    }
    Ok(())
}
