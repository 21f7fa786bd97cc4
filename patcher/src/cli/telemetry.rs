//! `upatch telemetry dump`: the variables of all live patches, typed by the BTF that the record carries.

use serde_json::{Value, json};

use super::args::{PidArgs, TelemetryAction, TelemetryArgs};
use super::status::{identity, place_of};
use super::{Failure, Report, target};
use crate::patching::{FoundState, inspect};
use crate::telemetry::{Reading, read};

pub(super) fn run(args: &TelemetryArgs) -> Result<Report, Failure> {
    match &args.action {
        TelemetryAction::Dump(args) => dump(args),
    }
}

fn dump(args: &PidArgs) -> Result<Report, Failure> {
    let process = target::open(args.pid)?;
    let inventory =
        inspect(&process).map_err(|error| Failure::from(error).at(target::place(args.pid)))?;
    let mut text = String::new();
    let mut patches = Vec::new();
    for found in inventory
        .found
        .iter()
        .filter(|found| found.state == FoundState::Applied)
    {
        let reading = read(&process, found);
        let mut json = identity(found, &reading);
        json["globals"] = Value::Object(reading.globals.clone());
        text += &format!(
            "{}  {}\n{}",
            found.id,
            place_of(&reading),
            values_in_words(&reading)
        );
        patches.push(json);
    }
    if text.is_empty() {
        text = format!("process {} has no patches\n", args.pid);
    }
    Ok(Report {
        text,
        json: json!({"ok": true, "pid": args.pid, "patches": patches}),
    })
}

/// `name = value`, a line each, aligned.
pub(super) fn values_in_words(reading: &Reading) -> String {
    let width = reading.globals.keys().map(String::len).max().unwrap_or(0);
    let mut text: String = reading
        .globals
        .iter()
        .map(|(name, value)| format!("    {name:width$} = {}\n", shortened(&value.to_string())))
        .collect();
    if let Some(missed) = reading.missed.filter(|missed| *missed > 0) {
        text += &format!("    ({missed} nested calls went on unpatched)\n");
    }
    text
}

/// Longest value that is printed for people, in characters.
const SHOWN: usize = 1000;

/// Large arrays fill screens; programs read `--json`, which is whole.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((at, _)) => format!(
            "{} … ({} characters; --json has all)",
            &value[..at],
            value.chars().count()
        ),
        None => value.to_owned(),
    }
}
