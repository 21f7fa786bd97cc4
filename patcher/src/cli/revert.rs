//! `upatch revert`: patches out of a process again, with their final counters.

use serde_json::{Value, json};

use super::args::RevertArgs;
use super::status::{identity, other_places, place_of, state_detail};
use super::telemetry::{add_values, values_in_words};
use super::{Exit, Failure, Report, several, target};
use crate::apply::stops_in_words;
use crate::kernel;
use crate::patching::{Found, FoundState, Inventory, RevertError, RevertOutcome, inspect, sweep};
use crate::process::Process;
use crate::revert::revert;
use crate::telemetry::read;

pub(super) fn run(args: &RevertArgs) -> Result<Report, Failure> {
    several::each(&args.of.targets, &args.of.build_id, |pid, named| {
        one(pid, named, args.patch.as_ref())
    })
}

/// The kernel's numbers of programs that the process kept attached, and others still do.
fn kept_programs(found: &Found, inventory: &Inventory) -> Vec<u32> {
    let links = inventory.links.iter();
    let held = links.filter(|link| link.id == found.id && kernel::is_held(link.link));
    held.map(|link| link.program).collect()
}

fn one(pid: i32, named: bool, patch: Option<&String>) -> Result<Report, Failure> {
    let process = target::open(pid)?;
    let place = |failure: Failure| failure.at(target::place(pid));
    let inventory = inspect(&process).map_err(|error| place(error.into()))?;
    let wanted: Vec<_> = inventory
        .found
        .iter()
        .filter(|found| patch.is_none_or(|id| found.id == *id))
        .filter(|found| patch.is_some() || found.state != FoundState::Retired)
        .collect();
    let before = if patch.is_none() {
        reverted_before(&process, &inventory.found)
    } else {
        (String::new(), Vec::new())
    };
    if wanted.is_empty() {
        // Without a patch there may still be what a killed upatch left.
        if inventory.has_strays() {
            sweep(&process).map_err(|error| place(error.into()))?;
        }
        // Of processes that are looked for some may never have had it.
        if let Some(id) = patch.filter(|_| named) {
            return Err(place(Failure::new(
                Exit::Target,
                format!("the process has no patch {id}"),
            ))
            .hint(format!("see `upatch status --pid {}`", pid)));
        }
        let (text, patches) = before;
        return Ok(Report {
            text: match &*text {
                "" => format!("process {} has no patches\n", pid),
                _ => text,
            },
            json: json!({"ok": true, "pid": pid, "patches": patches}),
        });
    }
    let (mut text, mut patches) = before;
    // One patch that can't be reverted doesn't keep the others; the first failure is told.
    let mut failed: Option<Failure> = None;
    for found in wanted {
        let done = match revert(&process, found) {
            Ok(done) => done,
            // Somebody else reverted it in the meantime, which is what was asked for.
            Err(RevertError::Vanished(_)) if patch.is_none() => continue,
            // The original bytes are back, only the image could not be unmapped.
            Err(RevertError::Remote(error)) => {
                let last = read(&process, found);
                let why = Failure::from(error).message;
                let mut json = identity(found, &last);
                json["outcome"] = "leftover".into();
                json["detail"] = why.clone().into();
                add_values(&mut json, &last);
                text += &format!(
                    "{}  reverted  {}\n{}{}",
                    found.id,
                    place_of(&last),
                    other_places(&last),
                    values_in_words(&last)
                );
                text += &format!("  the image stays mapped: {why}\n");
                patches.push(json);
                continue;
            }
            Err(error) => {
                failed.get_or_insert(error.into());
                continue;
            }
        };
        let (word, detail) = match &done.reverted.outcome {
            RevertOutcome::Clean => ("reverted", None),
            RevertOutcome::Retired { why } => ("retired", Some(why.to_string())),
            RevertOutcome::Contested { found: bytes, off } => {
                let message = if *off {
                    format!(
                        "patch {} does nothing any more, and its other sites are as before; one holds {bytes}, which isn't ours, \
                         so the images stay mapped",
                        found.id
                    )
                } else {
                    format!(
                        "patch {} was not reverted: its site holds {bytes}, which isn't ours",
                        found.id
                    )
                };
                let failure = Failure::new(Exit::Contested, message)
                    .hint("take the other tool's change off, then revert again");
                failed.get_or_insert(failure);
                continue;
            }
        };
        let again = found.state == FoundState::Retired;
        let mut json = identity(found, &done.last);
        if again {
            json["state"] = "retired".into();
        }
        json["outcome"] = word.into();
        json["detail"] = detail.clone().map_or(Value::Null, Value::from);
        add_values(&mut json, &done.last);
        let kept = kept_programs(found, &inventory);
        json["kernel_programs_kept"] = kept.clone().into();
        json["stops"] = done.reverted.figures.stops.into();
        json["longest_stop_us"] = json!(done.reverted.figures.longest_stop.as_secs_f64() * 1e6);
        text += &format!(
            "{}  {}  {}\n{}{}",
            found.id,
            if again { "reverted before" } else { "reverted" },
            place_of(&done.last),
            other_places(&done.last),
            values_in_words(&done.last)
        );
        if done.reverted.figures.stops > 0 {
            text += &format!("  {}\n", stops_in_words(&done.reverted.figures));
        }
        if !kept.is_empty() {
            text += &format!(
                "  kernel programs stay attached, because other processes hold them: {kept:?}\n"
            );
        }
        if let Some(detail) = detail {
            text += &format!("  the image stays mapped: {detail}\n");
        } else if again {
            text += "  nobody is in it any more: the image is no longer mapped\n";
        }
        patches.push(json);
    }
    match failed {
        Some(mut failure) => {
            if !patches.is_empty() {
                failure.message += &format!("; {} of the others reverted", patches.len());
            }
            Err(place(failure))
        }
        None => Ok(Report {
            text,
            json: json!({"ok": true, "pid": pid, "patches": patches}),
        }),
    }
}

/// What stays mapped of earlier reverts, without its counters: they were printed then.
fn reverted_before(process: &Process, found: &[Found]) -> (String, Vec<Value>) {
    let (mut text, mut patches) = (String::new(), Vec::new());
    for found in found
        .iter()
        .filter(|found| found.state == FoundState::Retired)
    {
        let reading = read(process, found);
        let why = state_detail(&found.state);
        text += &format!(
            "{}  reverted before  {}\n{}",
            found.id,
            place_of(&reading),
            other_places(&reading)
        );
        text += &format!("  {}\n", why.as_deref().unwrap_or_default());
        let mut json = identity(found, &reading);
        json["state"] = "retired".into();
        json["outcome"] = "retired".into();
        json["detail"] = why.into();
        patches.push(json);
    }
    (text, patches)
}
