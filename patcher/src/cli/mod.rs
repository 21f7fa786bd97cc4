//! The commands: arguments in, one [`Report`] or [`Failure`] out, printed in one place as text or JSON.
//!
//! A command decides nothing about processes or patches; it turns arguments into requests of the library and results
//! into words. Exit codes are those of the contract ([`failure::Exit`]).

mod apply;
mod args;
mod build;
mod doctor;
mod explain;
pub mod failure;
mod files;
mod inspect;
mod manual;
mod progress;
mod rehearsal;
mod revert;
mod rules;
mod run;
mod several;
mod status;
mod target;
mod telemetry;
mod terminal;
mod verify;

use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;
use serde_json::Value;

use args::{Cli, Command};
pub use failure::{Exit, Failure};

/// What a command that worked has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// For people.
    pub text: String,
    /// For programs: an object whose `ok` is true.
    pub json: Value,
}

/// Parses the arguments, runs the command, prints what it has to say.
#[must_use]
pub fn main() -> ExitCode {
    // Rust ignores SIGPIPE; a reader that goes away early (`| head`) then shows as a write error, which `print` bears.
    terminal::choose(std::env::args_os());
    let parsed = manual::command()
        .try_get_matches()
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    start_tracing();
    match run(cli.command, cli.json) {
        Ok(report) => {
            let text = if cli.json {
                format!("{}\n", report.json)
            } else {
                report.text
            };
            print(&text)
        }
        Err(failure) => {
            failed(&failure, cli.json);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(command: Command, as_json: bool) -> Result<Report, Failure> {
    let _progress = slow(&command).map(progress::Progress::start);
    match command {
        Command::Build(args) => build::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Apply(args) => apply::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Telemetry(args) => telemetry::run(&args, as_json),
        Command::Rules(args) => rules::run(&args),
        Command::Revert(args) => revert::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => Ok(manual::completions(&args)),
        Command::Man(args) => manual::man(&args),
    }
}

/// What a command that may take longer than a second is doing.
fn slow(command: &Command) -> Option<String> {
    match command {
        Command::Build(args) => Some(format!("building {}", args.source.display())),
        Command::Verify(_) => Some("verifying".to_owned()),
        Command::Apply(args) => Some(format!("applying {}", args.object.display())),
        Command::Revert(_) => Some("reverting".to_owned()),
        Command::Run(_) => Some("running the program".to_owned()),
        Command::Doctor(_) => Some("trying what works here".to_owned()),
        Command::Status(_)
        | Command::Telemetry(_)
        | Command::Rules(_)
        | Command::Inspect(_)
        | Command::Completions(_)
        | Command::Man(_) => None,
    }
}

/// `UPATCH_LOG=debug` shows what goes on, on standard error.
fn start_tracing() {
    let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("UPATCH_LOG") else {
        return;
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Help and version are no failures; anything else is wrong use, said as JSON too when that was asked for.
fn misused(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return print(&error.render().ansi().to_string());
    }
    let as_json = std::env::args_os()
        .take_while(|arg| arg != "--")
        .any(|arg| arg == "--json");
    if as_json {
        failed(
            &Failure::new(Exit::Usage, misuse_in_one_line(error)).hint("see `upatch --help`"),
            true,
        );
    } else {
        // Nothing can be done if standard error is closed.
        let _ = error.print();
    }
    ExitCode::from(Exit::Usage as u8)
}

/// clap's message without its usage and tips: its first paragraph. For a missing subcommand clap shows the help instead.
fn misuse_in_one_line(error: &clap::Error) -> String {
    if matches!(
        error.kind(),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return "a command is missing".to_owned();
    }
    let rendered = error.render().to_string();
    let first: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    first.join(" ").trim_start_matches("error: ").to_owned()
}

fn failed(failure: &Failure, as_json: bool) {
    if as_json {
        // The exit code says already that it failed.
        let _ = print(&format!("{}\n", failure.to_json()));
    } else {
        if let Some(several) = &failure.several {
            // The exit code says already that not all is well.
            let _ = print(&several.text);
        }
        terminal::complain(&failure.to_text());
    }
}

/// To standard output. A reader that has gone away is its own business; a full disk is a failure.
fn print(text: &str) -> ExitCode {
    match terminal::print(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            terminal::complain(&format!(
                "upatch: can't write to standard output: {error}\n"
            ));
            ExitCode::from(Exit::Internal as u8)
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
