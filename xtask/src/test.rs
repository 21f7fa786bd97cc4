//! `cargo xtask test`: all tests of the workspace, and an honest count of those that did not run.
//!
//! The counts come from libtest's own result lines; a test that returned early because something is missing looks
//! passed there, and is told apart by the file that tests write their skips to (tests/src/skip.rs).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{cargo, wait};
use crate::{provision, target_folder};

/// CI's own limit is 45 minutes for check and test together.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// What libtest's lines add up to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    /// Name and reason of tests marked `#[ignore]`.
    ignored: BTreeMap<String, String>,
}

/// `cargo xtask test [arguments of cargo test]`
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let provided = provision::everything()?;
    let target = target_folder()?;
    fs::create_dir_all(&target)?;
    let skips = target.join("upatch-skips.tsv");
    fs::write(&skips, "")?;

    let mut command = cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(arguments);
    command
        .envs(provided.environment())
        .env("UPATCH_SKIPS", &skips)
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("starting cargo test")?;
    let stdout = child.stdout.take().context("no pipe from cargo test")?;
    let reader = thread::spawn(move || {
        let mut tally = Tally::default();
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.read(&line);
        }
        tally
    });
    let ended = wait(child, LIMIT);
    let Ok(mut tally) = reader.join() else {
        bail!("reading the output of cargo test")
    };

    let succeeded = ended.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !succeeded && tally.failed == 0 {
        // It did not build, or a test program died: then there is no line to count.
        tally.failed = 1;
    }
    let mut skipped = std::mem::take(&mut tally.ignored);
    let noted = noted_skips(&fs::read_to_string(&skips)?);
    let passed = tally.passed.saturating_sub(noted.len());
    skipped.extend(noted);
    println!();
    for (name, reason) in &skipped {
        println!("skipped: {name}: {reason}");
    }
    println!("ran {}, skipped {}", passed + tally.failed, skipped.len());
    println!(
        "{passed} passed, {} failed, {} skipped",
        tally.failed,
        skipped.len()
    );
    ended?;
    ensure!(succeeded, "tests failed");
    Ok(())
}

/// `cargo xtask bless [arguments of cargo test]`
pub(crate) fn bless(arguments: &[String]) -> Result<()> {
    let mut command = cargo();
    command
        .args(["test", "--workspace"])
        .args(arguments)
        .env("UPATCH_BLESS", "1");
    command.envs(provision::everything()?.environment());
    crate::process::succeed(&mut command, LIMIT)
}

impl Tally {
    /// Reads `test result: ok. 3 passed; 0 failed; …` and `test NAME ... ignored, REASON`.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            for part in counts.split(['.', ';']) {
                if let Some((number, what)) = part.trim().split_once(' ') {
                    let number = number.parse().unwrap_or(0);
                    match what {
                        "passed" => self.passed += number,
                        "failed" => self.failed += number,
                        _ => {}
                    }
                }
            }
        } else if let Some((name, reason)) = line
            .strip_prefix("test ")
            .and_then(|line| line.split_once(" ... ignored"))
        {
            let reason = reason.trim_start_matches([',', ' ']);
            let reason = if reason.is_empty() {
                "marked #[ignore]"
            } else {
                reason
            };
            self.ignored.insert(name.to_owned(), reason.to_owned());
        }
    }
}

/// The lines `name<TAB>reason` that tests wrote; a test that says so twice counts once.
fn noted_skips(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Tally, noted_skips};

    #[test]
    fn result_lines_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
            "test src/lib.rs - place (line 7) - compile fail ... ok",
            "test long_one ... ignored, takes an hour",
            "test other ... ignored",
        ] {
            tally.read(line);
        }
        assert_eq!((tally.passed, tally.failed), (16, 2));
        assert_eq!(tally.ignored["long_one"], "takes an hour");
        assert_eq!(tally.ignored.len(), 2);
    }

    #[test]
    fn a_skip_that_is_noted_twice_counts_once() {
        let skips = noted_skips("a\tno root\nb\tnot fetched\na\tno root\n");
        assert_eq!(skips.len(), 2);
        assert_eq!(skips["b"], "not fetched");
    }
}
