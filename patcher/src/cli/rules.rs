//! `upatch rules get|set`: the variables of a live patch that are set from outside, by name and type.

use std::fs::{File, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::args::{RulesAction, RulesArgs, RulesGetArgs, RulesSetArgs};
use super::{Exit, Failure, Report, target};
use crate::apply::info::PatchInfo;
use crate::patching::{Found, FoundState, inspect};
use crate::process::Process;
use crate::rules::{Assignment, Edit, Path, RuleError, Rules, is_companion};
use crate::telemetry::{ArenaView, info, words};

/// How long to wait for another editor; one edit takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &RulesArgs) -> Result<Report, Failure> {
    match &args.action {
        RulesAction::Get(args) => get(args),
        RulesAction::Set(args) => set(args),
    }
}

impl From<RuleError> for Failure {
    fn from(error: RuleError) -> Self {
        let exit = match &error {
            RuleError::Damaged { .. } => Exit::Contested,
            _ => Exit::Usage,
        };
        let failure = Self::new(exit, error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// A live patch whose arena can be reached.
struct Patch<'p> {
    id: String,
    info: PatchInfo,
    arena: ArenaView<'p>,
}

impl Patch<'_> {
    fn rules(&self) -> Rules<'_> {
        Rules {
            globals: &self.info.globals,
            types: &self.info.types,
        }
    }
}

/// The live patches with rules, or the one with this id. Several places of one patch are one.
fn patches<'p>(
    process: &'p Process,
    pid: i32,
    wanted: Option<&str>,
) -> Result<Vec<Patch<'p>>, Failure> {
    let place = |failure: Failure| failure.at(target::place(pid));
    let inventory = inspect(process).map_err(|error| place(error.into()))?;
    let live: Vec<&Found> = inventory
        .found
        .iter()
        .filter(|found| found.state == FoundState::Applied)
        .filter(|found| wanted.is_none_or(|id| found.id == id))
        .collect();
    if let (true, Some(id)) = (live.is_empty(), wanted) {
        return Err(place(Failure::new(
            Exit::Target,
            format!("the process has no live patch {id}"),
        ))
        .hint(format!("see `upatch status --pid {pid}`")));
    }
    let mut patches: Vec<Patch<'p>> = Vec::new();
    for found in live {
        let Some((info, arena)) = info(found).zip(ArenaView::new(process, found)) else {
            continue;
        };
        let patch = Patch {
            id: found.id.clone(),
            info,
            arena,
        };
        let known = patches.iter().any(|known| known.id == patch.id);
        if !known && patch.rules().all().next().is_some() {
            patches.push(patch);
        }
    }
    Ok(patches)
}

fn get(args: &RulesGetArgs) -> Result<Report, Failure> {
    let process = target::open(args.pid)?;
    let place = |failure: Failure| failure.at(target::place(args.pid));
    let paths = args
        .paths
        .iter()
        .map(|text| text.parse::<Path>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| place(error.into()))?;
    let mut all = patches(&process, args.pid, args.patch.as_deref())?;
    if !paths.is_empty() && all.len() != 1 {
        all = vec![only(all, args.pid)?];
    }
    let (mut text, mut json) = (String::new(), Vec::new());
    for patch in &all {
        let mut values = match &paths[..] {
            [] => {
                let mut values = patch.rules().values(&patch.arena);
                values.retain(|name, _| !is_companion(&patch.info.globals, name));
                values
            }
            _ => Map::new(),
        };
        for path in &paths {
            let value = patch
                .rules()
                .get(path, &patch.arena)
                .map_err(|error| place(error.into()))?;
            values.insert(path.to_string(), value);
        }
        text += &format!(
            "{}  {} in {} ({})\n",
            patch.id,
            patch.info.site_name(),
            patch.info.module,
            patch.info.object
        );
        let width = values.keys().map(String::len).max().unwrap_or(0);
        for (name, value) in &values {
            text += &format!("    {name:width$} = {}\n", words(value));
        }
        json.push(json!({"id": patch.id, "object": patch.info.object, "function": patch.info.site_name(), "rules": values}));
    }
    if all.is_empty() {
        text = format!("process {} has no patches with rules\n", args.pid);
    }
    Ok(Report {
        text,
        json: json!({"ok": true, "pid": args.pid, "patches": json}),
    })
}

/// The one patch that is meant.
fn only(mut all: Vec<Patch<'_>>, pid: i32) -> Result<Patch<'_>, Failure> {
    let place = |failure: Failure| failure.at(target::place(pid));
    match (all.pop(), all.is_empty()) {
        (Some(patch), true) => Ok(patch),
        (None, _) => Err(place(Failure::new(
            Exit::Target,
            "the process has no patch with rules",
        ))
        .hint(format!(
            "UPATCH_RULE declares a rule; see `upatch status --pid {pid}`"
        ))),
        (Some(last), false) => {
            let ids: Vec<&str> = all.iter().chain([&last]).map(|patch| &*patch.id).collect();
            Err(place(Failure::new(
                Exit::Usage,
                format!("several patches have rules: {}", ids.join(", ")),
            ))
            .hint("say which: --patch ID"))
        }
    }
}

fn set(args: &RulesSetArgs) -> Result<Report, Failure> {
    let process = target::open(args.pid)?;
    let place = |failure: Failure| failure.at(target::place(args.pid));
    let assignments = assignments(&args.assignments).map_err(place)?;
    let patch = only(
        patches(&process, args.pid, args.patch.as_deref())?,
        args.pid,
    )?;
    // Two editors of one list would take each other's guard away.
    let _alone = alone(args.pid).map_err(place)?;
    let edits = patch
        .rules()
        .plan(&assignments, &patch.arena)
        .map_err(|error| place(error.into()))?;
    let names = assignments.iter().map(|one| &*one.path.name);
    let guards = patch
        .rules()
        .guards(names, &patch.arena)
        .map_err(|error| place(error.into()))?;
    let opening = guards.iter().map(|guard| guard.opening());
    let stores = edits.iter().flat_map(|edit| edit.stores.iter().cloned());
    let closing = guards.iter().map(|guard| guard.closing());
    for store in opening.chain(stores).chain(closing) {
        patch
            .arena
            .write(store.offset, &store.bytes)
            .map_err(|error| place(error.into()))?;
    }
    Ok(Report {
        text: format!(
            "{}  {}\n{}",
            patch.id,
            patch.info.site_name(),
            in_words(&edits)
        ),
        json: json!({"ok": true, "pid": args.pid, "id": patch.id, "set": to_json(&edits)}),
    })
}

/// The right to edit rules of this process, given back when dropped: a lock on its memory, which only who may trace the
/// process can have. Processes that share an arena have a lock each: editors through different ones don't wait for each other.
fn alone(pid: i32) -> Result<File, Failure> {
    let memory = File::open(format!("/proc/{pid}/mem")).map_err(|error| {
        Failure::new(
            Exit::Internal,
            format!("can't open /proc/{pid}/mem: {error}"),
        )
    })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match memory.try_lock() {
            Ok(()) => return Ok(memory),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(
                    Exit::Contested,
                    "another upatch is at work on this process",
                )
                .hint("wait for it, or end it if it hangs"));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Failure::new(
                    Exit::Internal,
                    format!("can't lock /proc/{pid}/mem: {error}"),
                ));
            }
        }
    }
}

/// `PATH=VALUE`, several of them.
pub(super) fn assignments(texts: &[String]) -> Result<Vec<Assignment>, Failure> {
    let all: Result<_, RuleError> = texts.iter().map(|text| text.parse()).collect();
    Ok(all?)
}

/// `path = old -> new`, a line each.
pub(super) fn in_words(edits: &[Edit]) -> String {
    let width = edits.iter().map(|edit| edit.path.len()).max().unwrap_or(0);
    edits
        .iter()
        .map(|edit| {
            format!(
                "    {:width$} = {} -> {}\n",
                edit.path,
                words(&edit.old),
                words(&edit.new)
            )
        })
        .collect()
}

/// `[{"path", "old", "new"}]`
pub(super) fn to_json(edits: &[Edit]) -> Value {
    edits
        .iter()
        .map(|edit| json!({"path": edit.path, "old": edit.old, "new": edit.new}))
        .collect()
}
