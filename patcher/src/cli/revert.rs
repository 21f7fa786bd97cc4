//! `upatch revert`: patches out of a process again, with their final counters.

use serde_json::{Value, json};

use super::args::RevertArgs;
use super::status::{identity, place_of};
use super::telemetry::values_in_words;
use super::{Exit, Failure, Report};
use crate::apply::stops_in_words;
use crate::patching::{FoundState, RevertOutcome, inspect};
use crate::process::Process;
use crate::revert::revert;

pub(super) fn run(args: &RevertArgs) -> Result<Report, Failure> {
    let process = Process::open(args.pid)?;
    let place = |failure: Failure| failure.at(format!("process {}", args.pid));
    let inventory = inspect(&process).map_err(|error| place(error.into()))?;
    let wanted: Vec<_> = inventory
        .found
        .iter()
        .filter(|found| args.patch.as_ref().is_none_or(|id| found.id == *id))
        .filter(|found| args.patch.is_some() || found.state != FoundState::Retired)
        .collect();
    if wanted.is_empty() {
        if let Some(id) = &args.patch {
            return Err(place(Failure::new(Exit::Target, format!("the process has no patch {id}")))
                .hint(format!("see `upatch status --pid {}`", args.pid)));
        }
        let json = json!({"ok": true, "pid": args.pid, "patches": []});
        return Ok(Report { text: format!("process {} has no patches\n", args.pid), json });
    }
    let mut text = String::new();
    let mut patches = Vec::new();
    let mut contested = None;
    for found in wanted {
        let done = revert(&process, found).map_err(|error| place(error.into()))?;
        let (word, detail) = match &done.reverted.outcome {
            RevertOutcome::Clean => ("reverted", None),
            RevertOutcome::Retired { why } => ("retired", Some(why.to_string())),
            RevertOutcome::Contested { found: bytes } => {
                let message = format!("patch {} was not reverted: its site holds {bytes}, which isn't ours", found.id);
                contested = Some(Failure::new(Exit::Contested, message).hint("take the other tool's change off first"));
                continue;
            }
        };
        let mut json = identity(found, &done.last);
        json["outcome"] = word.into();
        json["detail"] = detail.clone().map_or(Value::Null, Value::from);
        json["globals"] = Value::Object(done.last.globals.clone());
        json["stops"] = done.reverted.figures.stops.into();
        json["longest_stop_us"] = json!(done.reverted.figures.longest_stop.as_secs_f64() * 1e6);
        text += &format!("{}  reverted  {}\n{}", found.id, place_of(&done.last), values_in_words(&done.last));
        if done.reverted.figures.stops > 0 {
            text += &format!("  {}\n", stops_in_words(&done.reverted.figures));
        }
        if let Some(detail) = detail {
            text += &format!("  the image stays mapped: {detail}\n");
        }
        patches.push(json);
    }
    match contested {
        Some(failure) => Err(place(failure)),
        None => Ok(Report { text, json: json!({"ok": true, "pid": args.pid, "patches": patches}) }),
    }
}
