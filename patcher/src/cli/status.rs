//! `upatch status`: what is in the process, by the memory map and the bytes at each site.

use serde_json::{Value, json};

use super::args::PidArgs;
use super::{Failure, Report, several, target};
use crate::apply::info::PatchInfo;
use crate::patching::{Found, FoundState, Inventory, Link, inspect};
use crate::telemetry::{Reading, read};

pub(super) fn run(args: &PidArgs) -> Result<Report, Failure> {
    several::each(&args.targets, &args.build_id, |pid, _| one(pid))
}

fn one(pid: i32) -> Result<Report, Failure> {
    let process = target::open(pid)?;
    let inventory =
        inspect(&process).map_err(|error| Failure::from(error).at(target::place(pid)))?;
    let mut text = String::new();
    let mut patches = Vec::new();
    for found in &inventory.found {
        let reading = read(&process, found);
        let mut json = identity(found, &reading);
        json["state"] = state_word(&found.state).into();
        if let Some(why) = state_detail(&found.state) {
            json["detail"] = why.into();
        }
        json["site"] = found
            .plan()
            .map_or(Value::Null, |plan| plan.at.to_string().into());
        json["image"] = found
            .code()
            .map_or(Value::Null, |code| code.start.to_string().into());
        json["arena"] = found
            .arena()
            .map_or(Value::Null, |arena| arena.start.to_string().into());
        let (programs, lines) = kernel_programs(found, &reading, &inventory);
        json["backend"] = found
            .record()
            .filter(|record| record.arena.is_some())
            .map(|record| record.backend.name())
            .into();
        json["kernel_programs"] = programs.into();
        text += &format!(
            "{}  {:<10} {}\n",
            found.id,
            state_word(&found.state),
            place_of(&reading)
        );
        text += &other_places(&reading);
        text += &lines;
        if let Some(why) = state_detail(&found.state) {
            text += &format!("          {why}\n");
        }
        patches.push(json);
    }
    if text.is_empty() {
        text = format!("process {} has no patches\n", pid);
    }
    if inventory.has_strays() {
        text += &format!(
            "left by an interrupted upatch: {} arenas, {} descriptors, {} stubs (the next apply or revert removes them)\n",
            inventory.orphans.len(),
            inventory.descriptors.len(),
            inventory.stubs.len()
        );
    }
    Ok(Report {
        text,
        json: json!({
            "ok": true,
            "pid": pid,
            "patches": patches,
            "orphaned_arenas": inventory.orphans.iter().map(|arena| arena.start.to_string()).collect::<Vec<_>>(),
            "stray_descriptors": inventory.descriptors,
            "stray_stubs": inventory.stubs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    })
}

/// The kernel programs of which the record tells, and whether the process really keeps them attached.
fn kernel_programs(
    found: &Found,
    reading: &Reading,
    inventory: &Inventory,
) -> (Vec<Value>, String) {
    let mut programs = Vec::new();
    let mut lines = String::new();
    for info in reading.info.iter().flat_map(|info| &info.kernel) {
        let holds = |link: &Link| {
            link.id == found.id && link.link == info.link && link.program == info.program
        };
        let attached = inventory.links.iter().any(holds);
        programs.push(json!({
            "name": info.name,
            "hook": info.hook,
            "interface": info.interface,
            "ifindex": info.ifindex,
            "program": info.program,
            "tag": info.tag,
            "attached": attached,
        }));
        let word = if attached {
            "attached to"
        } else {
            "no longer (or invisibly, without CAP_SYS_ADMIN) attached to"
        };
        lines += &format!(
            "          kernel program {} ({}) {word} {} of {}\n",
            info.name, info.program, info.hook, info.interface
        );
    }
    (programs, lines)
}

/// The members by which a patch is known everywhere: id, object, build-id, function, and hits if it counts them.
pub(super) fn identity(found: &Found, reading: &Reading) -> Value {
    let info = reading.info.as_ref();
    let mut json = json!({
        "id": found.id,
        "object": info.map(|info| &info.object),
        "build_id": info.map(|info| &info.build_id),
        "module": info.map(|info| &info.module),
        "function": info.map(|info| info.site_name()),
    });
    let infos = info.into_iter().chain(&reading.others);
    let sites = infos.zip(&found.regions).map(|(info, region)| {
        json!({
            "module": info.module,
            "build_id": info.build_id,
            "function": info.site_name(),
            "site": region.plan().map(|plan| plan.at.to_string()),
            "image": region.code.map(|code| code.start.to_string()),
        })
    });
    json["sites"] = sites.collect();
    if let Some(hits) = reading.hits {
        json["hits"] = hits.into();
    }
    if let Some(missed) = reading.missed {
        json["missed"] = missed.into();
    }
    json
}

/// `function in module (object)`, for people.
pub(super) fn place_of(reading: &Reading) -> String {
    match &reading.info {
        Some(info) => format!("{} in {} ({})", info.site_name(), info.module, info.object),
        None => "(no readable record)".to_owned(),
    }
}

/// The sites behind the first one, a line each.
pub(super) fn other_places(reading: &Reading) -> String {
    let line =
        |info: &PatchInfo| format!("          and {} in {}\n", info.site_name(), info.module);
    reading.others.iter().map(line).collect()
}

const fn state_word(state: &FoundState) -> &'static str {
    match state {
        FoundState::Applied => "applied",
        FoundState::Leftover => "leftover",
        FoundState::Interrupted => "interrupted",
        FoundState::Retired => "retired",
        FoundState::Contested { .. } => "contested",
        FoundState::Incomplete => "incomplete",
        FoundState::Damaged(_) => "damaged",
    }
}

pub(super) fn state_detail(state: &FoundState) -> Option<String> {
    match state {
        FoundState::Applied => None,
        FoundState::Leftover => Some("never applied, or reverted by an upatch that was interrupted; removed by the next apply or revert".to_owned()),
        FoundState::Interrupted => Some("some of its sites jump, its gate is closed: it changes nothing; taken off by the next apply or revert".to_owned()),
        FoundState::Retired => Some("reverted; the image stays mapped because a suspended context may return into it".to_owned()),
        FoundState::Contested { found } if found.is_empty() => Some(
            "the module of a site was unloaded; `upatch revert` takes off the rest".to_owned(),
        ),
        FoundState::Contested { found } => {
            let hex: Vec<String> = found.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("the site holds {}, which isn't ours", hex.join(" ")))
        }
        FoundState::Incomplete => Some("an interrupted upatch left it; removed by the next apply or revert".to_owned()),
        FoundState::Damaged(why) => Some(why.clone()),
    }
}
