//! `upatch apply` for several processes: everything is planned before anything is touched, then each process is patched, all
//! with one arena at one address. A process that can't be patched doesn't keep the others.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::several::{Outcomes, Search};
use super::super::{Failure, Report, target};
use super::Work;
use crate::apply::program::all_verified;
use crate::apply::shared::Shared;
use crate::apply::{ApplyError, Plan};
use crate::patching::{Found, FoundState, PrepareError, inspect, sweep};
use crate::process::Process;

pub(super) fn run(work: &Work<'_>, mut search: Search) -> Result<Report, Failure> {
    // What is wrong with the object is said once.
    all_verified(work.request.object, &work.request.policy)?;
    let mut many = Many {
        work,
        looks: search.looks(),
        shared: None,
        patched: BTreeSet::new(),
        rounds: 0,
    };
    let mut outcomes = Outcomes::new();
    loop {
        let pids = search.more()?;
        if pids.is_empty() {
            return search.report(outcomes);
        }
        outcomes.extend(many.round(&pids));
    }
}

struct Many<'a> {
    work: &'a Work<'a>,
    /// Are processes looked for that nobody has named?
    looks: bool,
    /// One for all.
    shared: Option<Shared>,
    /// The memory files of the images in the processes that are patched.
    patched: BTreeSet<u64>,
    rounds: usize,
}

/// A process, what is to be done in it, and what was taken off for that.
type Job<'p> = (&'p Process, Plan<'p>, Vec<String>);

impl Many<'_> {
    fn round(&mut self, pids: &[i32]) -> Outcomes {
        self.rounds += 1;
        let opened: Vec<_> = pids.iter().map(|&pid| (pid, target::open(pid))).collect();
        let mut outcomes = Outcomes::new();
        let mut jobs: Vec<Job<'_>> = Vec::new();
        for (pid, process) in &opened {
            let process = match process {
                Ok(process) => process,
                Err(failure) => {
                    outcomes.push((*pid, Err(failure.clone())));
                    continue;
                }
            };
            // In the first round such leftovers are an older upatch's, which go with the next survey; in a child that was forked
            // while we prepared its parent they lie where ours are to go.
            let leftovers = self.rounds > 1;
            match self.already(process) {
                Ok(Some(report)) => outcomes.push((*pid, Ok(report))),
                Ok(None) => match self.work.plan(process, leftovers) {
                    Ok((plan, finished)) => jobs.push((process, plan, finished)),
                    Err(failure) => outcomes.push((*pid, Err(failure))),
                },
                Err(failure) => outcomes.push((*pid, Err(failure))),
            }
        }
        if !self.work.dry_run
            && self.shared.is_none()
            && let Err(failure) = self.make_shared(&mut jobs, &mut outcomes)
        {
            let all = jobs.drain(..);
            outcomes.extend(all.map(|(process, ..)| (process.pid(), Err(failure.clone()))));
        }
        for (process, plan, finished) in jobs {
            let done = self.work.finish(plan, &finished, self.shared.as_ref());
            if let Ok(Some(found)) = self.there(process) {
                self.patched.extend(inodes(&found));
            }
            outcomes.push((process.pid(), done));
        }
        outcomes.sort_by_key(|(pid, _)| pids.iter().position(|other| other == pid));
        outcomes
    }

    /// Processes that nobody named may be patched already: they were forked from one that is.
    fn already(&mut self, process: &Process) -> Result<Option<Report>, Failure> {
        if !self.looks {
            return Ok(None);
        }
        let (pid, id) = (process.pid(), self.work.request.object.id());
        let Some(found) = self.there(process)? else {
            return Ok(None);
        };
        // Forked while its parent was being patched: what only passed through the parent stayed in the child.
        if !self.work.dry_run && inspect(process).is_ok_and(|inventory| inventory.has_strays()) {
            // Else the next revert does it.
            let _ = sweep(process);
        }
        let inherited = inodes(&found).any(|inode| self.patched.contains(&inode));
        let how = if inherited { " (inherited)" } else { "" };
        self.patched.extend(inodes(&found));
        Ok(Some(Report {
            text: format!("patched already{how}: {id}\n"),
            json: json!({
                "ok": true, "pid": pid, "id": id, "already": true, "inherited": inherited,
            }),
        }))
    }

    /// The patch, if it is live in the process.
    fn there(&self, process: &Process) -> Result<Option<Found>, Failure> {
        let id = self.work.request.object.id();
        let inventory = inspect(process)
            .map_err(|error| Failure::from(error).at(target::place(process.pid())))?;
        let ours = |found: &Found| found.id == id && found.state == FoundState::Applied;
        Ok(inventory.found.into_iter().find(ours))
    }

    /// What all have in common: the arena, kernel programs. Processes that are gone by now fail alone.
    fn make_shared(
        &mut self,
        jobs: &mut Vec<Job<'_>>,
        outcomes: &mut Outcomes,
    ) -> Result<(), Failure> {
        let mut kept = Vec::new();
        for job in jobs.drain(..) {
            match job.0.maps() {
                Ok(_) => kept.push(job),
                Err(error) => {
                    let failure = Failure::from(error).at(target::place(job.0.pid()));
                    outcomes.push((job.0.pid(), Err(failure)));
                }
            }
        }
        *jobs = kept;
        let Some((_, plan, _)) = jobs.first() else {
            return Ok(());
        };
        let processes: Vec<&Process> = jobs.iter().map(|(process, ..)| *process).collect();
        let made = Shared::make(&processes, plan, true).map_err(|error| {
            let taken = matches!(error, ApplyError::Prepare(PrepareError::NoArenaGap { .. }));
            let mut failure = Failure::from(error);
            if taken {
                failure.message += &format!(" in all {} processes", processes.len());
                failure.hint =
                    Some("apply to them one by one: each gets an arena of its own then".to_owned());
            }
            failure
        })?;
        self.shared = Some(made);
        Ok(())
    }
}

/// The memory files of its images: a process has the same ones as another only by fork.
fn inodes(found: &Found) -> impl Iterator<Item = u64> {
    found.regions.iter().map(|region| region.inode)
}
