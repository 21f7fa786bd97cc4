//! `upatch inspect`: what it shows is what the object becomes, and what lies in the process.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use upatch_tests::child::{self, PATIENCE};
use upatch_tests::upatch::{run_json, upatch};

use super::{Scene, build, case, refused};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("inspect::object", object),
        case("inspect::process", process),
        case("inspect::changed_memory", changed_memory),
        case("inspect::narrow_terminal", narrow_terminal),
    ]
}

/// All members `name` of all steps' code, in the order of the listing.
fn code<'v>(program: &'v Value, name: &str) -> Vec<&'v str> {
    let list = |value: &'v Value, name: &str| value[name].as_array().into_iter().flatten();
    list(program, "passages")
        .flat_map(|passage| list(passage, "steps"))
        .flat_map(|step| list(step, "code"))
        .filter_map(|code| code[name].as_str())
        .collect()
}

/// The instruction slots that are shown.
fn slots(program: &Value) -> Vec<u64> {
    let list = |value: &'_ Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    list(program, "passages")
        .iter()
        .flat_map(|passage| list(passage, "steps"))
        .filter_map(|step| step["pc"].as_u64())
        .collect()
}

fn object() -> Result<()> {
    let scene = Scene::new(&[])?;
    let (exit, report) = run_json(&["inspect", scene.object()])?;
    ensure!(exit == 0, "{report:#}");
    let program = &report["programs"][0];
    ensure!(
        program["name"] == "clamp" && program["place"].is_null(),
        "{report:#}"
    );
    // Every byte of code is shown once, and in order.
    let mut at = 0;
    for (shown, bytes) in code(program, "at").into_iter().zip(code(program, "bytes")) {
        let offset = u64::from_str_radix(shown.trim_start_matches("0x"), 16)?;
        ensure!(offset == at, "{shown} instead of {at:#x}");
        at += bytes.len() as u64 / 2;
    }
    ensure!(
        at > 20 && at <= program["code_bytes"].as_u64().unwrap_or(0),
        "{at} bytes"
    );
    // So is every BPF instruction, and the source.
    let mut sorted = slots(program);
    sorted.sort_unstable();
    sorted.dedup();
    ensure!(
        sorted.len() == slots(program).len() && sorted.len() > 10,
        "{sorted:?}"
    );
    let text = report.to_string();
    for says in [
        "return upatch_return(ctx, -14);",
        "to the displaced instructions",
        ": hits",
    ] {
        ensure!(text.contains(says), "`{says}` is not shown: {report:#}");
    }
    refused(&["inspect"], 2, &["--help"])?;
    refused(&["inspect", "/nonexistent.o"], 2, &["/nonexistent.o"])?;
    Ok(())
}

fn process() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let id = scene.build_id.clone();
    let object = scene.object().to_owned();
    let arguments = ["inspect", "--build-id", &id, &object];
    let before = scene.done(&arguments)?;
    let planned = &before["programs"][0];
    ensure!(planned["same_as_object"].is_null(), "{before:#}");
    let place = planned["place"].as_str().context("no place")?;
    ensure!(place.starts_with("work (0x"), "{place}");
    ensure!(
        before.to_string().contains("displaced instructions"),
        "{before:#}"
    );
    scene.untouched()?;
    scene.refused(&["inspect"], 4, &["no patches", "upatch status"])?;

    let applied = scene.apply()?;
    let patch = applied["id"].as_str().context("no id")?.to_owned();
    // The image alone, and beside its object.
    let alone = scene.done(&["inspect", "--patch", &patch])?;
    let both = scene.done(&arguments)?;
    let image = applied["image"].as_str().context("no image")?;
    for report in [&alone, &both] {
        let program = &report["programs"][0];
        ensure!(
            code(program, "at").first() == Some(&image),
            "the listing doesn't begin at {image}: {report:#}"
        );
        ensure!(
            report.to_string().contains("displaced from 0x"),
            "{report:#}"
        );
    }
    ensure!(both["programs"][0]["same_as_object"] == true, "{both:#}");
    ensure!(
        alone["programs"][0]["same_as_object"].is_null(),
        "{alone:#}"
    );
    ensure!(both.to_string().contains("arena+"), "{both:#}");
    // Both show the same instructions of the patch.
    let hook = |program: &Value| -> Vec<String> {
        let lines = code(program, "x86").into_iter().map(str::to_owned);
        lines.filter(|line| line != "(data)").collect()
    };
    ensure!(
        hook(&alone["programs"][0]) == hook(&both["programs"][0]),
        "different instructions: {alone:#} {both:#}"
    );
    ensure!(slots(&both["programs"][0]) == slots(planned), "{both:#}");
    scene.refused(&["inspect", "--patch", "12345678"], 4, &["12345678"])?;
    scene.done(&["revert"])?;
    scene.untouched()
}

/// Somebody changed an instruction of the image: said, and shown as it is.
fn changed_memory() -> Result<()> {
    use std::os::unix::fs::FileExt;
    let mut scene = Scene::new(&[])?;
    let id = scene.build_id.clone();
    let applied = scene.apply()?;
    let image = applied["image"].as_str().context("no image")?;
    let image = u64::from_str_radix(image.trim_start_matches("0x"), 16)?;
    let memory = std::fs::File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{}/mem", scene.pid()))?;
    let mut byte = [0];
    memory.read_exact_at(&mut byte, image)?;
    // The victim doesn't call the function meanwhile.
    memory.write_all_at(&[0xcc], image)?;
    let object = scene.object().to_owned();
    let arguments = ["inspect", "--build-id", &id, &object];
    let report = scene.done(&arguments)?;
    let program = &report["programs"][0];
    ensure!(program["same_as_object"] == false, "{report:#}");
    ensure!(code(program, "x86").first() == Some(&"int3"), "{report:#}");
    let finished = child::run(
        upatch().args(arguments).args(["--pid", &scene.pid()]),
        PATIENCE,
    )?;
    ensure!(
        finished
            .stdout
            .contains("NOT what the object gives: 1 bytes differ"),
        "{}",
        finished.stdout
    );
    memory.write_all_at(&byte, image)?;
    ensure!(scene.done(&arguments)?["programs"][0]["same_as_object"] == true);
    scene.done(&["revert"])?;
    scene.untouched()
}

/// No line is longer than the terminal is wide, whatever that is.
fn narrow_terminal() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let object = build(folder.path(), "clamp", super::CLAMP)?;
    for columns in [40_u16, 80, 200] {
        let size = nix::pty::Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = nix::pty::openpty(Some(&size), None)?;
        let mut child = upatch()
            .arg("inspect")
            .arg(&object)
            .args(["--color", "never"])
            .stdout(pty.slave)
            .spawn()?;
        let mut text = Vec::new();
        // The end shows as EIO once the child has closed its side.
        let _ = std::io::Read::read_to_end(&mut std::fs::File::from(pty.master), &mut text);
        ensure!(child.wait()?.success(), "inspect failed on a terminal");
        let text = String::from_utf8_lossy(&text).into_owned();
        let longest = text
            .lines()
            .map(|line| line.trim_end().chars().count())
            .max();
        ensure!(
            longest.is_some_and(|longest| longest <= usize::from(columns) && longest > 30),
            "{longest:?} columns on {columns}: {text}"
        );
    }
    Ok(())
}
