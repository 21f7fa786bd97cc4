//! Telemetry and rules of live patches: events under threads and kills, `follow`, the formats, `rules get|set`.
//!
//! The victims are real processes; events are written by compiled patches in them while `upatch` reads.

mod follow;
mod formats;
mod hostile;
mod ring;
mod rules;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use upatch_tests::child::Driver;
use upatch_tests::upatch::{run_json, succeed};

fn case(name: &'static str, run: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        run().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Each keeps both processors busy.
    arguments.test_threads.get_or_insert(1);
    let mut trials = ring::trials();
    trials.extend(follow::trials());
    trials.extend(rules::trials());
    trials.extend(hostile::trials());
    trials.extend(formats::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

/// A running victim and a folder with its program.
struct Scene {
    driver: Driver,
    build_id: String,
    folder: tempfile::TempDir,
}

impl Scene {
    /// Compiles and starts tests/victims/NAME.c.
    fn new(name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("victims/{name}.c"));
        let status = Command::new("gcc")
            .args(["-O2", "-Wall", "-pthread", "-Wl,--build-id=sha1", "-o"])
            .args([&program, &source])
            .status()
            .context("running gcc")?;
        ensure!(status.success(), "gcc failed");
        Ok(Self {
            driver: Driver::spawn(&mut Command::new(&program))?,
            build_id: upatch_tests::build_id_of(&program)?,
            folder,
        })
    }

    fn pid(&self) -> String {
        self.driver.pid().to_string()
    }

    /// Compiles a patch from its text.
    fn build(&self, text: &str) -> Result<PathBuf> {
        let source = self.folder.path().join("patch.c");
        let object = source.with_extension("o");
        std::fs::write(&source, text)?;
        succeed(&[
            OsStr::new("build"),
            source.as_os_str(),
            OsStr::new("-o"),
            object.as_os_str(),
        ])?;
        Ok(object)
    }

    /// Compiles a patch and applies it; gives its id.
    fn apply(&self, text: &str) -> Result<String> {
        let object = self.build(text)?;
        let applied = self.done(&[
            "apply",
            "--build-id",
            &self.build_id,
            &object.to_string_lossy(),
        ])?;
        Ok(applied["id"].as_str().context("no id")?.to_owned())
    }

    /// `upatch ARGUMENTS --pid PID --json`.
    fn upatch(&self, arguments: &[&str]) -> Result<(i32, Value)> {
        let pid = self.pid();
        let mut all = arguments.to_vec();
        all.extend(["--pid", &pid]);
        run_json(&all)
    }

    fn done(&self, arguments: &[&str]) -> Result<Value> {
        let (code, value) = self.upatch(arguments)?;
        ensure!(
            code == 0 && value["ok"] == true,
            "{arguments:?} exited with {code}: {value:#}"
        );
        Ok(value)
    }

    /// The only patch of `telemetry dump`.
    fn dump(&self) -> Result<Value> {
        let dump = self.done(&["telemetry", "dump"])?;
        let patches = dump["patches"].as_array().context("no patches")?;
        ensure!(patches.len() == 1, "{dump:#}");
        Ok(patches[0].clone())
    }
}
