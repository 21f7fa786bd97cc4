//! Commands about upatch itself: doctor, completions, man pages; and colour.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use upatch_tests::skip::skip;
use upatch_tests::upatch::{run_json, upatch};

use super::{Scene, case, refused};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("tools::doctor", doctor),
        case(
            "tools::doctor_as_an_ordinary_user",
            doctor_as_an_ordinary_user,
        ),
        case("tools::man_pages", man_pages),
        case("tools::completions", completions),
        case("tools::colour", colour),
    ]
}

/// Topics that are there on every machine, whatever their state.
const TOPICS: [&str; 22] = [
    "own processes",
    "other users",
    "seccomp",
    "process_vm_readv",
    "writing text",
    "remote calls",
    "map_files",
    "pidfd_getfd",
    "kernel",
    "memfd",
    "vector registers",
    "transactions",
    "shadow stack",
    "real-time",
    "memory lock",
    "watchdog",
    "lockdown",
    "BPF arena",
    "tcx",
    "uprobes",
    "clang",
    "libbpf headers",
];

fn state<'v>(report: &'v Value, about: &str, topic: &str) -> Result<&'v str> {
    let findings = report["findings"].as_array().context("no findings")?;
    let finding = findings
        .iter()
        .find(|finding| finding["about"] == about && finding["topic"] == topic)
        .with_context(|| format!("nothing about {about}: {topic} in {report:#}"))?;
    finding["state"].as_str().context("no state")
}

fn check_findings(report: &Value) -> Result<()> {
    let findings = report["findings"].as_array().context("no findings")?;
    for topic in TOPICS {
        ensure!(
            findings.iter().any(|finding| finding["topic"] == topic),
            "nothing about {topic}"
        );
    }
    for finding in findings {
        let state = finding["state"].as_str().unwrap_or_default();
        ensure!(
            ["ok", "limited", "missing"].contains(&state),
            "state {state}"
        );
        ensure!(
            state != "ok" || finding["lift"].is_null(),
            "something to lift: {finding:#}"
        );
        for text in ["found", "means"] {
            let text = finding[text].as_str().unwrap_or_default();
            ensure!(!text.is_empty(), "an empty text: {finding:#}");
        }
    }
    Ok(())
}

fn doctor() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let report = scene.done(&["doctor"])?;
    check_findings(&report)?;
    // Tests of patches run in this very environment, so what patching needs is there.
    for topic in ["process_vm_readv", "writing text", "remote calls"] {
        ensure!(
            state(&report, "processes", topic)? == "ok",
            "{topic}: {report:#}"
        );
    }
    ensure!(state(&report, "machine", "memfd")? == "ok", "{report:#}");
    for topic in ["access", "threads", "seccomp", "modules", "patches"] {
        ensure!(
            state(&report, "process", topic)? == "ok",
            "{topic}: {report:#}"
        );
    }
    scene.untouched()?;

    let filtered = Scene::new(&["seccomp"])?;
    let report = filtered.done(&["doctor"])?;
    ensure!(
        state(&report, "process", "seccomp")? == "missing",
        "{report:#}"
    );
    // What isn't there is a finding too, and no failure of the doctor's.
    let (code, report) = run_json(&["doctor", "--pid", "2147483647"])?;
    ensure!(code == 0, "exited with {code}");
    ensure!(
        state(&report, "process", "access")? == "missing",
        "{report:#}"
    );
    Ok(())
}

fn doctor_as_an_ordinary_user() -> Result<()> {
    const NOBODY: u32 = 65534;
    let scene = Scene::new(&[])?;
    let mut command = upatch();
    command
        .args(["doctor", "--json", "--pid", &scene.pid()])
        .uid(NOBODY)
        .gid(NOBODY);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            let why = format!("can't run upatch as another user: {error}");
            skip("cli tools::doctor_as_an_ordinary_user", &why);
            return Ok(());
        }
    };
    ensure!(output.status.success(), "exited with {}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout)?;
    check_findings(&report)?;
    for (about, topic) in [
        ("processes", "other users"),
        ("processes", "map_files"),
        ("kernel BPF", "BPF arena"),
        ("process", "access"),
    ] {
        ensure!(
            state(&report, about, topic)? != "ok",
            "an ordinary user may {topic}: {report:#}"
        );
    }
    Ok(())
}

/// What `program` says on standard error about `input`; `None` if it isn't installed.
fn judge(program: &str, arguments: &[&str], input: &str) -> Result<Option<String>> {
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    child
        .stdin
        .take()
        .context("no pipe")?
        .write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success() || !said.is_empty(),
        "{program} ended with {}",
        output.status
    );
    Ok(Some(said))
}

/// A page for every command, each with its sections, and a formatter finds nothing wrong in it.
fn man_pages() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (code, value) = run_json(&["man", "--out", &folder.path().to_string_lossy()])?;
    ensure!(code == 0, "{value:#}");
    let mut judged = false;
    let mut names = Vec::new();
    for page in std::fs::read_dir(folder.path())? {
        let page = page?;
        let name = page.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(page.path())?;
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXIT STATUS",
            "FILES",
        ] {
            let heading = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            ensure!(
                heading.iter().any(|heading| text.contains(heading)),
                "{name} has no {section}"
            );
        }
        for (program, arguments) in [
            ("groff", &["-man", "-Tutf8", "-ww", "-z"][..]),
            ("mandoc", &["-T", "lint", "-W", "error"][..]),
        ] {
            if let Some(said) = judge(program, arguments, &text)? {
                ensure!(said.is_empty(), "{program} about {name}: {said}");
                judged = true;
            }
        }
        names.push(name);
    }
    for command in [
        "upatch",
        "upatch-apply",
        "upatch-telemetry-dump",
        "upatch-doctor",
    ] {
        ensure!(
            names.contains(&format!("{command}.1")),
            "no page for {command}: {names:?}"
        );
    }
    if !judged {
        skip(
            "cli tools::man_pages",
            "neither groff nor mandoc to judge the pages",
        );
    }
    let output = upatch().args(["man", "telemetry", "dump"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        text == std::fs::read_to_string(folder.path().join("upatch-telemetry-dump.1"))?,
        "the page printed is not the page written"
    );
    refused(&["man", "frobnicate"], 2, &["frobnicate", "--help"])?;
    refused(
        &["man", "--out", "/nonexistent/folder"],
        2,
        &["/nonexistent"],
    )?;
    Ok(())
}

/// The scripts are accepted by the shells that there are, and know the commands.
fn completions() -> Result<()> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = upatch().args(["completions", shell]).output()?;
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success()
                && script.contains("telemetry")
                && script.contains("--build-id")
                || script.contains("build-id"),
            "completions {shell}: {script}"
        );
        let check = match shell {
            "bash" | "zsh" => "-n",
            "fish" => "--no-execute",
            _ => continue,
        };
        if let Some(said) = judge(shell, &[check], &script)? {
            ensure!(said.is_empty(), "{shell}: {said}");
        }
    }
    // bash completes the way a user would see it.
    let script = "source <(\"$0\" completions bash)\nCOMP_WORDS=(upatch tel) COMP_CWORD=1\n_upatch upatch tel upatch\necho \"${COMPREPLY[*]}\"";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(upatch().get_program())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        said.trim() == "telemetry",
        "bash completes `tel` to `{said}`: {output:?}"
    );
    refused(&["completions", "csh"], 2, &["csh"])?;
    Ok(())
}

/// Colour only where it is asked for, as nothing here is a terminal.
fn colour() -> Result<()> {
    let is_coloured = |arguments: &[&str], no_color: bool| -> Result<bool> {
        let mut command = upatch();
        command.args(arguments).env_remove("NO_COLOR");
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let output = command.output()?;
        Ok([output.stdout, output.stderr].concat().contains(&0x1b))
    };
    let failing = ["status", "--pid", "2147483647"];
    for (arguments, coloured) in [
        (vec![], false),
        (vec!["--color", "auto"], false),
        (vec!["--color=never"], false),
        (vec!["--color", "always"], true),
        (vec!["--color=always", "--json"], false),
    ] {
        let all = [&failing[..], &arguments].concat();
        ensure!(
            is_coloured(&all, false)? == coloured,
            "{all:?} is not as it should be"
        );
        ensure!(
            is_coloured(&all, true)? == coloured,
            "NO_COLOR {all:?} is not as it should be"
        );
    }
    ensure!(
        is_coloured(&["--help", "--color", "always"], false)?,
        "help without colour"
    );
    ensure!(!is_coloured(&["--help"], false)?, "help with colour");
    refused(&["doctor", "--color", "sometimes"], 2, &["sometimes"])?;
    Ok(())
}
