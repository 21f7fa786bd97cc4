//! Tasks that are programs of the tests crate: demo, bench, soak, fuzz.
//!
//! A benchmark NAME is tests/src/bin/bench_NAME.rs and a fuzz target is tests/src/bin/fuzz_NAME.rs; adding the file
//! adds it here. Their exit code is ours.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, succeed};
use crate::{provision, repository, target_folder};

/// For a run without `--seconds`.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// `cargo xtask demo`
pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    run("demo", false, arguments)
}

/// `cargo xtask bench NAME [--json]`
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    by_name("bench", arguments)
}

/// `cargo xtask soak [--seconds N] [NAME...]`
pub(crate) fn soak(arguments: &[String]) -> Result<()> {
    run("soak", true, arguments)
}

/// `cargo xtask fuzz TARGET --seconds N --seed S`
pub(crate) fn fuzz(arguments: &[String]) -> Result<()> {
    by_name("fuzz", arguments)
}

fn by_name(kind: &str, arguments: &[String]) -> Result<()> {
    let known = available(&format!("{kind}_"))?;
    let listed = if known.is_empty() {
        "none yet".to_owned()
    } else {
        known.join(", ")
    };
    let Some((name, rest)) = arguments.split_first() else {
        bail!("{kind} what? known: {listed}");
    };
    let name = name.replace('-', "_");
    if !known.contains(&name) {
        bail!("there is no {kind} {name}; known: {listed}");
    }
    run(&format!("{kind}_{name}"), true, rest)
}

/// The programs whose file names begin with `prefix`, without it, sorted.
fn available(prefix: &str) -> Result<Vec<String>> {
    let folder = repository().join("tests/src/bin");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(name) = name
            .strip_prefix(prefix)
            .filter(|_| path.extension().is_some_and(|e| e == "rs"))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn run(program: &str, optimized: bool, arguments: &[String]) -> Result<()> {
    let mut command = prepared(program, optimized)?;
    command.args(arguments);
    succeed(
        &mut command,
        seconds(arguments).map_or(LIMIT, |asked| asked + LIMIT),
    )
}

/// Fetches and builds all that a program of the tests crate needs, and the program; running it is what remains.
pub(crate) fn prepared(program: &str, optimized: bool) -> Result<Command> {
    let environment = provision::everything()?.environment();
    let profile: &[&str] = if optimized { &["--release"] } else { &[] };
    // The programs run the upatch binary, which cargo doesn't build for another package.
    for (package, name) in [("upatch", "upatch"), ("upatch-tests", program)] {
        let mut build = cargo();
        build
            .args(["build", "--quiet", "--package", package, "--bin", name])
            .args(profile);
        succeed(&mut build, LIMIT)?;
    }
    let folder = target_folder()?.join(if optimized { "release" } else { "debug" });
    let mut command = Command::new(folder.join(program));
    command
        .current_dir(repository())
        .envs(environment)
        .env("UPATCH_BIN", folder.join("upatch"));
    Ok(command)
}

/// The value of `--seconds N` or `--seconds=N` among a program's arguments.
fn seconds(arguments: &[String]) -> Option<Duration> {
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--seconds") {
            Some("") => words.next()?.as_str(),
            Some(rest) => rest.strip_prefix('=')?,
            None => continue,
        };
        return value.parse().ok().map(Duration::from_secs);
    }
    None
}
