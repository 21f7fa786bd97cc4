//! `upatch telemetry`: the variables and events of all live patches, typed by the BTF that the record carries.

mod follow;

use std::cell::RefCell;

use serde_json::{Value, json};

use super::args::{DumpArgs, DumpFormat, TelemetryAction, TelemetryArgs};
use super::status::{identity, other_places, place_of};
use super::{Exit, Failure, Report, several, target};
use crate::patching::{FoundState, inspect};
use crate::rules::is_companion;
use crate::telemetry::{Reading, openmetrics, read, to_line, words};

pub(super) fn run(args: &TelemetryArgs, as_json: bool) -> Result<Report, Failure> {
    match &args.action {
        TelemetryAction::Dump(args) => dump(args, as_json),
        TelemetryAction::Follow(args) => follow::run(args, as_json),
    }
}

fn dump(args: &DumpArgs, as_json: bool) -> Result<Report, Failure> {
    if as_json && args.format == DumpFormat::Openmetrics {
        return Err(Failure::new(
            Exit::Usage,
            "--json and --format openmetrics contradict each other",
        )
        .hint("leave one of them out"));
    }
    let readings = RefCell::new(Vec::new());
    let dumped = several::each(&args.of.targets, &args.of.build_id, |pid, _| {
        dump_one(pid, &readings)
    });
    match (args.format, dumped) {
        (DumpFormat::Table, dumped) => dumped,
        (DumpFormat::Json, Ok(report)) => Ok(Report {
            text: format!("{}\n", report.json),
            ..report
        }),
        (DumpFormat::Openmetrics, Ok(report)) => Ok(Report {
            text: openmetrics(&readings.take()),
            ..report
        }),
        (format, Err(mut failure)) => {
            let json = failure.to_json();
            if let Some(several) = &mut failure.several {
                several.text = match format {
                    DumpFormat::Openmetrics => openmetrics(&readings.take()),
                    DumpFormat::Table | DumpFormat::Json => format!("{json}\n"),
                };
            }
            Err(failure)
        }
    }
}

/// Patches of processes, to be shown together.
type Readings = RefCell<Vec<(i32, String, Reading)>>;

fn dump_one(pid: i32, readings: &Readings) -> Result<Report, Failure> {
    let process = target::open(pid)?;
    let inventory =
        inspect(&process).map_err(|error| Failure::from(error).at(target::place(pid)))?;
    let mut text = String::new();
    let mut patches = Vec::new();
    for found in inventory
        .found
        .iter()
        .filter(|found| found.state == FoundState::Applied)
    {
        let reading = read(&process, found);
        let mut json = identity(found, &reading);
        add_values(&mut json, &reading);
        text += &format!(
            "{}  {}\n{}{}",
            found.id,
            place_of(&reading),
            other_places(&reading),
            values_in_words(&reading)
        );
        patches.push(json);
        readings.borrow_mut().push((pid, found.id.clone(), reading));
    }
    if text.is_empty() {
        text = format!("process {} has no patches\n", pid);
    }
    Ok(Report {
        text,
        json: json!({"ok": true, "pid": pid, "patches": patches}),
    })
}

/// The members of a patch's object that hold what it has remembered: `globals`, and `events` if it has a ring.
pub(super) fn add_values(json: &mut Value, reading: &Reading) {
    json["globals"] = Value::Object(reading.globals.clone());
    if let Some(events) = &reading.events {
        json["events"] = json!(events.events);
        json["events_dropped"] = events.dropped.into();
    }
}

/// `name = value`, a line each, aligned.
pub(super) fn values_in_words(reading: &Reading) -> String {
    let known = reading.info.as_ref().map_or(&[][..], |info| &info.globals);
    let shown = || {
        reading
            .globals
            .iter()
            .filter(|(name, _)| !is_companion(known, name))
    };
    let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text: String = shown()
        .map(|(name, value)| format!("    {name:width$} = {}\n", words(value)))
        .collect();
    if let Some(missed) = reading.missed.filter(|missed| *missed > 0) {
        text += &format!("    ({missed} nested calls went on unpatched)\n");
    }
    if let Some(events) = &reading.events {
        text += &format!("    {} events", events.events.len());
        if events.dropped > 0 {
            text += &format!(", {} before them are gone", events.dropped);
        }
        text += "\n";
        for event in &events.events {
            text += &format!("      {}\n", to_line(event));
        }
    }
    text
}
