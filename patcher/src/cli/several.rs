//! Commands for several processes: which ones are meant, and one report of all.
//!
//! Processes that are looked for (`--children`, `--all`) are looked for again after each round, until there are no new ones: a
//! child that is forked while we work is found. One that ends meanwhile is no failure unless it was named.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::args::TargetArgs;
use super::{Exit, Failure, Report, target};
use crate::apply::query::QueryError;
use crate::process::{Process, ProcessError, family};
use crate::target::{BuildIdPrefix, TargetImage};

/// How often is looked for more processes: a fork bomb is not followed for ever.
const ROUNDS: usize = 100;

/// Which processes a command is about.
pub(super) enum Chosen {
    /// The one that was named.
    One(i32),
    /// Several, or however many are found.
    Several(Search),
}

/// The processes that were named, and the way to find the others.
pub(super) struct Search {
    named: Vec<i32>,
    children: bool,
    /// With `--all`: what they map.
    ids: Option<Vec<BuildIdPrefix>>,
    seen: BTreeSet<i32>,
    rounds: usize,
    skipped: BTreeMap<i32, String>,
}

/// What became of each process.
pub(super) type Outcomes = Vec<(i32, Result<Report, Failure>)>;

/// Reads the arguments; `build_ids` are those of the command line or of the object.
pub(super) fn choose(args: &TargetArgs, build_ids: &[String]) -> Result<Chosen, Failure> {
    let mut named: Vec<i32> = Vec::new();
    for &pid in &args.pid {
        if !named.contains(&pid) {
            named.push(pid);
        }
    }
    if let (&[pid], false, false) = (&*named, args.all, args.children) {
        return Ok(Chosen::One(pid));
    }
    let mut ids = Vec::new();
    for text in build_ids {
        let id = text.parse::<BuildIdPrefix>();
        ids.push(id.map_err(|error| Failure::from(QueryError::BadBuildId(error)))?);
    }
    if args.all && ids.is_empty() {
        return Err(
            Failure::new(Exit::Usage, "--all needs a build-id: of which module?")
                .hint("give --build-id, or UPATCH_BUILD_ID(\"…\") in the patch"),
        );
    }
    Ok(Chosen::Several(Search {
        named,
        children: args.children,
        ids: args.all.then_some(ids),
        seen: BTreeSet::new(),
        rounds: 0,
        skipped: BTreeMap::new(),
    }))
}

/// Runs the command for every process that is meant; it is told whether the process was named, or only found.
pub(super) fn each(
    args: &TargetArgs,
    build_ids: &[String],
    run: impl Fn(i32, bool) -> Result<Report, Failure>,
) -> Result<Report, Failure> {
    let mut search = match choose(args, build_ids)? {
        Chosen::One(pid) => return run(pid, true),
        Chosen::Several(search) => search,
    };
    let mut outcomes = Outcomes::new();
    loop {
        let more = search.more()?;
        if more.is_empty() {
            return search.report(outcomes);
        }
        for pid in more {
            outcomes.push((pid, run(pid, search.named.contains(&pid))));
        }
    }
}

impl Search {
    /// Are processes looked for that nobody has named?
    pub(super) fn looks(&self) -> bool {
        self.children || self.ids.is_some()
    }

    /// The processes that have not been handed out yet; none when all have been.
    pub(super) fn more(&mut self) -> Result<Vec<i32>, Failure> {
        self.rounds += 1;
        if self.rounds > ROUNDS {
            return Ok(Vec::new());
        }
        let mut pids = self.named.clone();
        let unreadable = |error| Failure::new(Exit::Internal, format!("can't read /proc: {error}"));
        if self.children {
            pids.extend(family::descendants(&self.named).map_err(unreadable)?);
        }
        if let Some(ids) = &self.ids {
            let own = i32::try_from(std::process::id()).unwrap_or(0);
            for pid in family::all().map_err(unreadable)? {
                if pid == own || self.seen.contains(&pid) || self.skipped.contains_key(&pid) {
                    continue;
                }
                match maps_one(pid, ids) {
                    Ok(true) => pids.push(pid),
                    Ok(false) => {}
                    Err(why) => drop(self.skipped.insert(pid, why)),
                }
            }
        }
        pids.retain(|pid| self.seen.insert(*pid));
        Ok(pids)
    }

    /// One report of all. Exit 0 if every process is fine, the common code if all failed with one, else 7.
    pub(super) fn report(mut self, outcomes: Outcomes) -> Result<Report, Failure> {
        let mut text = String::new();
        let (mut processes, mut failures) = (Vec::new(), Vec::new());
        let mut fine = 0;
        for (pid, outcome) in outcomes {
            match outcome {
                Ok(report) => {
                    fine += 1;
                    text += &format!("process {pid}:\n{}", report.text);
                    processes.push(report.json);
                }
                Err(_) if !self.named.contains(&pid) && has_ended(pid) => {
                    self.skipped
                        .insert(pid, "it has ended meanwhile".to_owned());
                }
                Err(failure) => {
                    let mut json = failure.to_json();
                    json["pid"] = pid.into();
                    processes.push(json);
                    failures.push(failure.at(target::place(pid)));
                }
            }
        }
        for (pid, why) in &self.skipped {
            text += &format!("process {pid}: skipped: {why}\n");
        }
        let skipped: Vec<Value> = self
            .skipped
            .iter()
            .map(|(pid, why)| json!({"pid": pid, "reason": why}))
            .collect();
        if processes.is_empty() && self.ids.is_some() {
            let none = Failure::new(Exit::Target, "no process maps a module with that build-id");
            return Err(none.with_processes(text, processes, skipped, failures));
        }
        let Some(first) = failures.first() else {
            let json = json!({"ok": true, "processes": processes, "skipped": skipped});
            return Ok(Report { text, json });
        };
        let same = failures.iter().all(|failure| failure.exit == first.exit);
        let exit = if fine == 0 && same {
            first.exit
        } else {
            Exit::Partial
        };
        let message = format!("{} of {} processes failed", failures.len(), processes.len());
        Err(Failure::new(exit, message).with_processes(text, processes, skipped, failures))
    }
}

/// Does the process map a module with one of these build-ids? An error: it may not be looked at.
fn maps_one(pid: i32, ids: &[BuildIdPrefix]) -> Result<bool, String> {
    let process = match Process::open(pid) {
        Ok(process) => process,
        // Gone, or nothing that could be patched.
        Err(
            ProcessError::NotFound(_)
            | ProcessError::Zombie(_)
            | ProcessError::KernelThread(_)
            | ProcessError::NotAProcess { .. }
            | ProcessError::NotSixtyFour(_),
        ) => return Ok(false),
        Err(error) if target::is_held_by_upatch(&error) => {
            target::open(pid).map_err(|failure| failure.message)?
        }
        Err(error) => return Err(error.to_string()),
    };
    match TargetImage::snapshot(&process) {
        Ok(image) => Ok(image.modules().iter().any(|module| {
            let id = module.build_id();
            id.is_some_and(|id| ids.iter().any(|wanted| wanted.matches(id)))
        })),
        Err(_) if has_ended(pid) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// Gone, a zombie, or about to be one.
fn has_ended(pid: i32) -> bool {
    matches!(
        Process::open(pid),
        Err(ProcessError::NotFound(_) | ProcessError::Zombie(_))
    )
}
