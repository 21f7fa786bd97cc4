//! Every kind of refusal, word for word: message, place, hint and exit code, and the target as it was.
//!
//! `untouched` compares the memory map, descriptors and every byte of code with those before, and asks the victim to work.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use upatch_tests::child::Answer;
use upatch_tests::skip::skip;
use upatch_tests::upatch::{run_json, upatch};

use super::{Scene, build, case, compile_unverified};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("refusals::wrong_build_id", wrong_build_id),
        case("refusals::unknown_function", unknown_function),
        case("refusals::exited_process", exited_process),
        case("refusals::no_permission", no_permission),
        case("refusals::already_traced", already_traced),
        case("refusals::corrupt_object", corrupt_object),
        case("refusals::unverifiable_program", unverifiable_program),
        case("refusals::a_map", a_map),
        case("refusals::undisplaceable_site", undisplaceable_site),
        case("refusals::occupied_arena_address", occupied_arena_address),
        case("refusals::no_clang", no_clang),
    ]
}

/// Insists on these very words.
fn says(
    (exit, value): (i32, Value),
    code: i32,
    place: Option<&str>,
    message: &str,
    hint: Option<&str>,
) -> Result<()> {
    let wanted = json!({
        "ok": false,
        "error": {"code": code, "message": message, "where": place, "hint": hint},
    });
    ensure!(
        exit == code && value == wanted,
        "exited with {exit} and said {value:#}\ninstead of {code} and {wanted:#}"
    );
    Ok(())
}

fn process(scene: &Scene) -> String {
    format!("process {}", scene.pid())
}

fn wrong_build_id() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let zeros = "0".repeat(40);
    let answer = scene.upatch(&["apply", "--build-id", &zeros, scene.object()])?;
    let program = scene.folder.path().join("victim");
    let message = answer.1["error"]["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains(&scene.build_id) && message.contains(&program.display().to_string()),
        "the build-id that is there is not told: {message}"
    );
    let message = message.to_owned();
    ensure!(message.contains(&zeros), "{message}");
    let hint = answer.1["error"]["hint"].as_str().map(str::to_owned);
    ensure!(hint.is_some(), "no hint: {:#}", answer.1);
    says(answer, 4, Some(&process(&scene)), &message, hint.as_deref())?;
    scene.untouched()
}

fn unknown_function() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let arguments = [
        "apply",
        "--function",
        "nosuch",
        "--build-id",
        &scene.build_id,
    ];
    let answer = scene.upatch(&[&arguments[..], &[scene.object()]].concat())?;
    let program = scene.folder.path().join("victim");
    says(
        answer,
        4,
        Some(&process(&scene)),
        &format!("{}: no function `nosuch`", program.display()),
        Some(
            "a stripped binary has no names: give the function's address, as `objdump -d` prints it, by --offset or in the section, NAME@0xADDRESS",
        ),
    )?;
    scene.untouched()
}

fn exited_process() -> Result<()> {
    let scene = Scene::new(&[])?;
    let mut ended = Command::new("true").spawn()?;
    let pid = ended.id().to_string();
    while !std::fs::read_to_string(format!("/proc/{pid}/stat"))?.contains(") Z ") {
        std::thread::yield_now();
    }
    let place = format!("process {pid}");
    let apply = [
        "apply",
        "--build-id",
        &scene.build_id,
        scene.object(),
        "--pid",
        &pid,
    ];
    let message = format!("process {pid} has ended and waits to be reaped");
    says(run_json(&apply)?, 4, Some(&place), &message, None)?;
    ended.wait()?;
    let message = format!("no process {pid}");
    says(run_json(&apply)?, 4, Some(&place), &message, None)
}

fn no_permission() -> Result<()> {
    const NOBODY: u32 = 65534;
    let mut scene = Scene::new(&[])?;
    let mut command = upatch();
    command
        .args(["status", "--json", "--pid", &scene.pid()])
        .uid(NOBODY)
        .gid(NOBODY);
    match command.output() {
        Err(error) => skip(
            "cli refusals::no_permission",
            &format!("can't run upatch as another user: {error}"),
        ),
        Ok(output) => says(
            (
                output.status.code().unwrap_or(-1),
                serde_json::from_slice(&output.stdout)?,
            ),
            6,
            Some(&process(&scene)),
            &format!(
                "not permitted to trace process {}: Permission denied (os error 13)",
                scene.pid()
            ),
            Some(
                "run upatch as root, or as the user who owns the process (ptrace(2), \"Ptrace access mode checking\")",
            ),
        )?,
    }
    scene.untouched()
}

fn already_traced() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let pid = nix::unistd::Pid::from_raw(scene.pid().parse()?);
    let (ready, is_ready) = mpsc::channel();
    let (end, is_end) = mpsc::channel::<()>();
    // The end of the thread that traces ends the tracing.
    let tracer = std::thread::spawn(move || {
        let tid = nix::unistd::gettid();
        let seized = nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty());
        let _ = ready.send((tid, seized));
        let _ = is_end.recv();
    });
    let (tid, seized) = is_ready.recv()?;
    seized.context("tracing the victim")?;
    let name = std::fs::read_to_string(format!("/proc/{tid}/comm"))?;
    let answers = [
        scene.upatch(&["apply", "--build-id", &scene.build_id, scene.object()])?,
        scene.upatch(&["revert"])?,
    ];
    for answer in answers {
        says(
            answer,
            6,
            Some(&process(&scene)),
            &format!("process {pid} is traced by {tid} ({})", name.trim()),
            Some("let the other tracer detach first"),
        )?;
    }
    drop(end);
    ensure!(tracer.join().is_ok(), "the tracing thread panicked");
    scene.untouched()
}

fn corrupt_object() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let whole = std::fs::read(scene.object())?;
    let damaged = scene.folder.path().join("damaged.o");
    let shown = damaged.display().to_string();
    for (bytes, message, hint) in [
        (
            &whole[..200],
            "the object is truncated or damaged: the section table of the file header is outside of the file",
            None,
        ),
        (
            b"hello",
            "the file is not an ELF file",
            Some("compile the patch with `upatch build patch.c`"),
        ),
    ] {
        std::fs::write(&damaged, bytes)?;
        let answer = scene.upatch(&["apply", "--build-id", &scene.build_id, &shown])?;
        says(answer, 3, Some(&shown), message, hint)?;
    }
    scene.untouched()
}

fn unverifiable_program() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let source = scene.folder.path().join("five.c");
    let object = scene.folder.path().join("five.o");
    std::fs::write(
        &source,
        "#include \"upatch.h\"\nSEC(\"upatch/exe:work\") int UPATCH(five, int x)\n{\n\treturn 5;\n}\n",
    )?;
    compile_unverified(&source, &object)?;
    let arguments = [
        "apply",
        "--build-id",
        &scene.build_id,
        &object.to_string_lossy(),
    ];
    let answer = scene.upatch(&arguments)?;
    let message = answer.1["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for says in ["program `five` is rejected", "r0", "5"] {
        ensure!(message.contains(says), "`{says}` is not said: {message}");
    }
    let hint = answer.1["error"]["hint"].as_str().map(str::to_owned);
    let place = format!("{}:2", source.display());
    says(answer, 3, Some(&place), &message, hint.as_deref())?;
    scene.untouched()
}

fn a_map() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let source = scene.folder.path().join("map.c");
    let object = scene.folder.path().join("map.o");
    std::fs::write(
        &source,
        r#"
#include "upatch.h"
struct {
	int (*type)[1];
	int (*max_entries)[8];
	int *key;
	int *value;
} table SEC(".maps");
static void *(*find)(void *map, const void *key) = (void *)1;
SEC("upatch/exe:work") int UPATCH(mapped, int x)
{
	return find(&table, &x) ? UPATCH_CONTINUE : upatch_return(ctx, 1);
}
"#,
    )?;
    compile_unverified(&source, &object)?;
    let shown = object.display().to_string();
    let answer = scene.upatch(&["apply", "--build-id", &scene.build_id, &shown])?;
    says(
        answer,
        3,
        Some(&shown),
        "map `table` (hash): upatch has no maps, only the arena",
        Some("count in UPATCH_COUNTER(type, name), look up in UPATCH_RULE(type, name)"),
    )?;
    scene.untouched()
}

fn undisplaceable_site() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let text = "#include \"upatch.h\"\nSEC(\"upatch/exe:tight\") int UPATCH(tight_one, int x)\n{\n\treturn UPATCH_CONTINUE;\n}\n";
    let object = build(scene.folder.path(), "tight", text)?;
    let arguments = [
        "apply",
        "--build-id",
        &scene.build_id,
        &object.to_string_lossy(),
    ];
    let answer = scene.upatch(&arguments)?;
    let message = answer.1["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    ensure!(
        message.starts_with("tight can't be patched: ") && message.contains("0x"),
        "{message}"
    );
    says(
        answer,
        5,
        Some(&process(&scene)),
        &message,
        Some("patch a caller or callee of the function, or a place further in (+OFFSET)"),
    )?;
    scene.untouched()
}

/// Where upatch would put the arena there is something else by now: it goes elsewhere, and harms nothing.
fn occupied_arena_address() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let first = scene.apply()?;
    let first = first["arena"].as_str().context("no arena")?.to_owned();
    scene.done(&["revert"])?;
    scene.untouched()?;
    let occupied = scene.driver.ask(&format!("m{first}"))?;
    ensure!(
        occupied == Answer::line("1"),
        "{first} could not be occupied: {occupied}"
    );
    scene.maps = scene.maps()?;
    let second = scene.apply()?;
    ensure!(scene.is_patched()?, "applied, and nothing happens");
    let arena = second["arena"].as_str().context("no arena")?;
    ensure!(
        arena != first,
        "the arena lies over the victim's own memory"
    );
    scene.done(&["revert"])?;
    scene.untouched()
}

fn no_clang() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    const HINT: &str = "install clang 19 (Debian: apt-get install clang-19), or set UPATCH_CLANG";
    let folder = tempfile::tempdir()?;
    let (source, object) = (folder.path().join("patch.c"), folder.path().join("patch.o"));
    std::fs::write(&source, super::CLAMP)?;
    let old = folder.path().join("old-clang");
    std::fs::write(&old, "#!/bin/sh\necho 'Debian clang version 14.0.6'\n")?;
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755))?;
    let old = old.display().to_string();
    let cases = [
        (
            "/nonexistent/clang",
            "`/nonexistent/clang` (UPATCH_CLANG) does not start: No such file or directory (os error 2)".to_owned(),
        ),
        (
            &*old,
            format!("`{old}` (UPATCH_CLANG) is Debian clang version 14.0.6, not clang 19 or newer"),
        ),
        (
            "",
            "no clang 19 or newer found (tried clang-19, clang, clang-22, clang-21, clang-20)".to_owned(),
        ),
    ];
    for (clang, message) in cases {
        let output = upatch()
            .args(["build", "--json", "-o"])
            .args([&object, &source])
            .env("UPATCH_CLANG", clang)
            .env("PATH", folder.path())
            .output()?;
        let code = output.status.code().unwrap_or(-1);
        let value = serde_json::from_slice(&output.stdout)?;
        says((code, value), 1, None, &message, Some(HINT))?;
        ensure!(!object.exists(), "an object without a compiler");
    }
    Ok(())
}
