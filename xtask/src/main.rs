//! `cargo xtask TASK`: everything a developer or CI runs, each by one name.
//!
//! Decides which cargo commands a task consists of and what this machine needs for them; knows nothing about how
//! upatch works. Invariant: a task's exit code is 0 only if all that it ran succeeded.

mod cast;
mod check;
mod fresh;
mod process;
mod programs;
mod provision;
mod test;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

/// A task: its name, its arguments for the help text, what it does, and the function that does it.
struct Task {
    name: &'static str,
    arguments: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const TASKS: &[Task] = &[
    Task {
        name: "check",
        arguments: "",
        help: "formatting, clippy and documentation, warnings denied",
        run: check::run,
    },
    Task {
        name: "test",
        arguments: "[ARGS]",
        help: "all tests, after fetching what they need",
        run: test::run,
    },
    Task {
        name: "demo",
        arguments: "",
        help: "patch three real programs while they run, and tell the story",
        run: programs::demo,
    },
    Task {
        name: "cast",
        arguments: "",
        help: "record the demo, for the README: docs/demo.cast and docs/demo.svg",
        run: cast::run,
    },
    Task {
        name: "bench",
        arguments: "NAME [--json]",
        help: "measure; without NAME: list them",
        run: programs::bench,
    },
    Task {
        name: "soak",
        arguments: "[--seconds N] [NAME...]",
        help: "apply and revert for a long time, on real programs under load",
        run: programs::soak,
    },
    Task {
        name: "fuzz",
        arguments: "TARGET --seconds N --seed S",
        help: "try generated inputs; without TARGET: list them",
        run: programs::fuzz,
    },
    Task {
        name: "bless",
        arguments: "[ARGS]",
        help: "rewrite expected outputs to what tests see now",
        run: test::bless,
    },
    Task {
        name: "fresh",
        arguments: "[TASK...]",
        help: "demo and test on a bare Debian 12, as root and as an ordinary user",
        run: fresh::run,
    },
    Task {
        name: "provision",
        arguments: "",
        help: "install or fetch clang 19 and the real programs that tests patch",
        run: provision::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (name, rest) = match arguments.split_first() {
        None => return usage(),
        Some((name, _)) if matches!(name.as_str(), "help" | "--help" | "-h") => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        Some((name, rest)) => (name, rest),
    };
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprintln!("there is no task {name}");
        return usage();
    };
    match (task.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{}", help());
    ExitCode::from(2)
}

fn help() -> String {
    let mut text = "usage: cargo xtask TASK\n\n".to_owned();
    for Task {
        name,
        arguments,
        help,
        ..
    } in TASKS
    {
        text.push_str(&format!("  {:<34} {help}\n", format!("{name} {arguments}")));
    }
    text
}

/// The repository's folder.
fn repository() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// Cargo's target folder, which this program lies in (TARGET/debug/xtask).
fn target_folder() -> Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program
        .ancestors()
        .nth(2)
        .map_or_else(|| repository().join("target"), Path::to_path_buf))
}
