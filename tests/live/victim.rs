//! Victims: C programs compiled for a test, started, watched, ended.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A child process that ends with its guard.
pub(crate) struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running victim and the directory that goes with it.
pub(crate) struct Victim {
    pub(crate) child: Ended,
    pub(crate) stdout: BufReader<ChildStdout>,
    pub(crate) directory: tempfile::TempDir,
}

/// Compiles `tests/victims/NAME.c`.
pub(crate) fn compile(name: &str, directory: &Path, flags: &[&str]) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("victims/{name}.c"));
    let program = directory.join(name);
    let status = Command::new("gcc")
        .args(["-O2", "-g", "-Wall", "-Wl,--build-id", "-pthread"])
        .args(flags)
        .arg("-o")
        .arg(&program)
        .arg(source)
        .status()
        .context("running gcc")?;
    ensure!(status.success(), "gcc failed on {name}.c");
    Ok(program)
}

impl Victim {
    /// Compiles and starts a victim and waits for its `ready`.
    pub(crate) fn start(name: &str, flags: &[&str], arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let program = compile(name, directory.path(), flags)?;
        let file = directory.path().join("statistics");
        std::fs::write(&file, vec![0; 4096])?;
        let mut command = Command::new(program);
        command
            .arg(&file)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self::started(command, directory)
    }

    fn started(mut command: Command, directory: tempfile::TempDir) -> Result<Self> {
        let mut child = Ended(command.spawn()?);
        let stdout = child.0.stdout.take().context("no output")?;
        let mut victim = Self {
            child,
            stdout: BufReader::new(stdout),
            directory,
        };
        victim.expect("ready")?;
        Ok(victim)
    }

    /// Reads one line and compares it.
    pub(crate) fn expect(&mut self, wanted: &str) -> Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(
            line.trim() == wanted,
            "the victim said {line:?}, not {wanted:?}"
        );
        Ok(())
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.0.id()).unwrap_or(0)
    }

    /// The ids of its threads.
    pub(crate) fn tasks(&self) -> Result<Vec<i32>> {
        let entries = std::fs::read_dir(format!("/proc/{}/task", self.pid()))?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect())
    }

    /// The n-th counter of its statistics file.
    pub(crate) fn counter(&self, n: u64) -> Result<u64> {
        let file = std::fs::File::open(self.directory.path().join("statistics"))?;
        let mut word = [0; 8];
        file.read_exact_at(&mut word, 8 * n)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Does it still run?
    pub(crate) fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.0.try_wait()? {
            bail!("the victim has ended: {status}");
        }
        Ok(())
    }

    /// Waits until the counter has grown by `by`: the victim still makes progress.
    pub(crate) fn progress(&mut self, n: u64, by: u64) -> Result<()> {
        let goal = self.counter(n)? + by;
        eventually(Duration::from_secs(20), || {
            self.check_running()?;
            Ok(self.counter(n)? >= goal)
        })
        .with_context(|| format!("counter {n} does not grow"))
    }
}

/// Waits until `holds`.
pub(crate) fn eventually(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut spins = 0;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("still not so after {limit:?}");
        }
        spins += 1;
        if spins > 200 {
            std::thread::sleep(Duration::from_micros(200));
        } else {
            std::thread::yield_now();
        }
    }
    Ok(())
}
