//! What an interrupted `upatch` leaves is gone after one more `revert`: mappings, descriptors, and every byte of the code. And
//! what a hostile process shows of itself stays harmless.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use upatch::process::failpoint::FailPoint;
use upatch_tests::child::{Answer, Driver, run};
use upatch_tests::upatch::{run_json, upatch};

use super::{Scene, case};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("traces::one_revert_is_enough", one_revert_is_enough),
        case("traces::strangers_lock", strangers_lock),
        case("traces::hostile_names", hostile_names),
        case("traces::another_descriptor_table", another_descriptor_table),
    ]
}

fn one_revert_is_enough() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let (pid, build_id) = (scene.pid(), scene.build_id.clone());
    let (mut killed, mut stubs) = (0, 0);
    for command in ["apply", "revert"] {
        for point in FailPoint::ALL {
            if command == "revert" {
                scene.apply()?;
            }
            let mut words = vec![command, "--pid", &pid];
            if command == "apply" {
                words.extend(["--build-id", &build_id, scene.object()]);
            }
            let status = upatch()
                .args(&words)
                .env("UPATCH_FAILPOINT", point.name())
                .output()?
                .status;
            killed += usize::from(status.signal() == Some(libc::SIGKILL));
            let status = scene.done(&["status"])?;
            let left = status["stray_stubs"].as_array().map_or(0, Vec::len);
            stubs += left;
            scene.done(&["revert"])?;
            scene
                .unharmed()
                .with_context(|| format!("{command} was killed at {}", point.name()))?;
        }
    }
    ensure!(killed > 25, "only {killed} kills");
    ensure!(stubs > 3, "only {stubs} stubs were left");
    println!("traces: {killed} kills, {stubs} stubs left and erased");
    Ok(())
}

/// Anybody may lock /proc/PID; that must not keep us from reverting.
fn strangers_lock() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    scene.apply()?;
    let folder = std::fs::File::open(format!("/proc/{}", scene.pid()))?;
    folder.lock()?;
    scene.done(&["rules", "set", "longest=50"])?;
    scene.done(&["revert"])?;
    scene.unharmed()
}

/// A thread may have descriptors of its own (unshare(2), CLONE_FILES): a number of its is another file of the process's, which
/// is not ours to name, connect or close.
fn another_descriptor_table() -> Result<()> {
    let mut scene = Scene::of("tables", &[])?;
    for _ in 0..2 {
        scene.apply()?;
        ensure!(scene.is_patched()?, "not patched");
        scene.done(&["revert"])?;
        scene.unharmed()?;
        let named = scene.driver.ask("n")?;
        ensure!(named == Answer::line("0"), "{named} sockets were named");
    }
    Ok(())
}

/// A process that calls its memory files as it likes, and makes thousands of ours.
fn hostile_names() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("hostile");
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("victims/hostile.c");
    let status = Command::new("gcc")
        .args(["-O2", "-Wall", "-o"])
        .args([&program, &source])
        .status()?;
    ensure!(status.success(), "gcc failed");
    // One name that would clear the screen, beside one that is a patch's.
    let names = Driver::spawn(&mut Command::new(&program))?;
    let mut command = upatch();
    command.args([
        "status",
        "--color",
        "always",
        "--pid",
        &names.pid().to_string(),
    ]);
    let said = run(&mut command, std::time::Duration::from_secs(20))?;
    ensure!(
        said.code == 0 && !said.stdout.contains('\x1b') && said.stdout.contains("0badc0de"),
        "{said:?}"
    );
    // Thousands are answered at once.
    let many = Driver::spawn(Command::new(&program).arg("5000"))?;
    let (code, value) = run_json(&["status", "--pid", &many.pid().to_string()])?;
    ensure!(
        code == 5 && value["error"]["message"].to_string().contains("4096"),
        "{code} {value:#}"
    );
    Ok(())
}
