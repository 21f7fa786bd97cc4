//! Running the `upatch` program itself, as an operator would.
//!
//! Decides where the program is (built by cargo on first use, or `$UPATCH_BIN`) and reads its JSON answers; doesn't
//! know any patch. Invariant: every command has a time limit.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::child::{self, Finished};
use crate::packages::{profile_folder, target_folder};

/// Enough for `build` on a loaded machine with a cold disk; nothing else comes near it.
const LIMIT: Duration = Duration::from_secs(60);

/// A command that will run `upatch`.
///
/// # Panics
/// When `upatch` doesn't build: no test of it can say anything then.
pub fn upatch() -> Command {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PROGRAM.get_or_init(|| locate().map_err(|error| format!("{error:#}"))) {
        Ok(program) => Command::new(program),
        Err(error) => panic!("no upatch to test: {error}"),
    }
}

/// Cargo gives the path of a binary only to tests of its own package, so it is built here, in the same profile.
fn locate() -> Result<PathBuf> {
    if let Some(program) = env::var_os("UPATCH_BIN") {
        return Ok(PathBuf::from(program));
    }
    let profile = profile_folder();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "upatch",
        "--bin",
        "upatch",
        "--manifest-path",
    ]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
    cargo.arg("--target-dir").arg(target_folder());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = child::run(&mut cargo, Duration::from_secs(900))?;
    ensure!(built.code == 0, "cargo build -p upatch: {}", built.stderr);
    Ok(profile.join("upatch"))
}

/// Runs `upatch` with `--json` and returns its exit code and the object that it printed.
///
/// # Errors
/// It takes too long, or prints something that is no JSON object.
pub fn run_json<S: AsRef<OsStr>>(args: &[S]) -> Result<(i32, Value)> {
    let mut command = upatch();
    command.arg("--json").args(args);
    let Finished {
        code,
        stdout,
        stderr,
    } = child::run(&mut command, LIMIT)?;
    let value: Value = serde_json::from_str(&stdout).with_context(|| {
        format!("{command:?} exited with {code} and printed no JSON: {stdout}{stderr}")
    })?;
    Ok((code, value))
}

/// Runs `upatch` with `--json` and insists on success.
///
/// # Errors
/// As [`run_json`], and when `upatch` refuses or fails; the error then holds its whole answer.
pub fn succeed<S: AsRef<OsStr>>(args: &[S]) -> Result<Value> {
    let (code, value) = run_json(args)?;
    if code != 0 || value["ok"] != true {
        let args: Vec<_> = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .collect();
        bail!("upatch {} exited with {code}: {value:#}", args.join(" "));
    }
    Ok(value)
}

/// The folder of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_path_buf()
}

/// Compiles samples/NAME/patch.c to an object in `folder`, with `upatch build`.
///
/// # Errors
/// `upatch build` fails.
pub fn build_sample(name: &str, folder: &Path) -> Result<PathBuf> {
    let source = repository().join("samples").join(name).join("patch.c");
    build(&source, &folder.join(format!("{name}.o")))
}

/// Compiles a patch with `upatch build`, and returns `object`.
///
/// # Errors
/// `upatch build` fails.
pub fn build(source: &Path, object: &Path) -> Result<PathBuf> {
    succeed(&[
        OsStr::new("build"),
        source.as_os_str(),
        OsStr::new("-o"),
        object.as_os_str(),
    ])?;
    Ok(object.to_owned())
}
