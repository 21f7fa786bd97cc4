//! `upatch apply`: a patch into a running process, or an explanation of what would be done.

use serde_json::{Value, json};
use upatch_verifier::Policy;

use super::args::ApplyArgs;
use super::{Failure, Report, files, rules, target};
use crate::apply::query::Override;
use crate::apply::{ApplyError, ApplyRequest, Plan, SitePlan, plan, stops_in_words};
use crate::patching::PrepareError;
use crate::revert::finish_interrupted;
use crate::rules::set_initial;

pub(super) fn run(args: &ApplyArgs) -> Result<Report, Failure> {
    let mut object = files::object(&args.object)?;
    let rules = rules::assignments(&args.rule)
        .and_then(|all| Ok(set_initial(&mut object, &all)?))
        .map_err(|failure| failure.at(args.object.display().to_string()))?;
    let process = target::open(args.pid)?;
    let request = ApplyRequest {
        object: &object,
        object_name: &files::name(&args.object),
        operator: Override {
            function: args.function.clone(),
            address: args.offset,
            build_ids: args.build_id.clone(),
        },
        policy: Policy {
            allow_write: args.allow_write,
            ..Policy::default()
        },
        backend: args.arena,
        devices: &args.dev,
    };
    let place = |failure: Failure| failure.at(target::place(args.pid));
    let failed = |error: ApplyError| {
        let pid = args.pid;
        let own_hint = match &error {
            ApplyError::Prepare(PrepareError::AlreadyPatched { id, .. }) => Some(format!(
                "revert it first: upatch revert --pid {pid} --patch {id}"
            )),
            ApplyError::Interrupted { id } => Some(format!(
                "an apply takes it off first, or: upatch revert --pid {pid} --patch {id}"
            )),
            _ => None,
        };
        let mut failure = place(error.into());
        failure.hint = own_hint.or(failure.hint);
        failure
    };
    let finished = if args.dry_run {
        Vec::new()
    } else {
        finish_interrupted(&process).map_err(|error| place(error.into()))?
    };
    let plan = plan(&process, &request).map_err(failed)?;
    let mut json = described(args.pid, &plan);
    json["finished"] = finished.clone().into();
    if !rules.is_empty() {
        json["rules"] = rules::to_json(&rules);
    }
    let head = head(&plan);
    let warnings: String = plan
        .sites
        .iter()
        .flat_map(|site| &site.warnings)
        .map(|(_, warning)| format!("  warning: {warning}\n"))
        .collect();
    let set = rules::in_words(&rules);
    if args.dry_run {
        let explained: String = plan.sites.iter().map(explained).collect();
        let (attached, kernel_programs) = planned_programs(&plan);
        let text = format!(
            "would patch {head}{attached}{set}{warnings}{explained}{}",
            arena(&plan)
        );
        json["kernel_programs"] = kernel_programs.into();
        json["dry_run"] = true.into();
        return Ok(Report { text, json });
    }
    let id = plan.id.clone();
    let backend = plan.backend;
    let (attached, kernel_programs) = planned_programs(&plan);
    let applied = plan.carry_out().map_err(failed)?;
    for (index, (poked, _)) in applied.sites.iter().enumerate() {
        json["sites"][index]["image"] = poked.image.start.to_string().into();
    }
    json["image"] = json["sites"][0]["image"].clone();
    json["arena"] = applied
        .arena()
        .map_or(Value::Null, |arena| arena.start.to_string().into());
    json["backend"] = applied.arena().map(|_| backend.name()).into();
    json["kernel_programs"] = kernel_programs.clone().into();
    json["stops"] = applied.figures.stops.into();
    json["longest_stop_us"] = json!(applied.figures.longest_stop.as_secs_f64() * 1e6);
    json["tasks"] = applied.figures.tasks.into();
    json["moved"] = applied.figures.moved.into();
    let finished: String = finished
        .iter()
        .map(|id| {
            format!("  took off patch {id}, which an interrupted upatch had left half applied\n")
        })
        .collect();
    let text = format!(
        "patch {id} applied to process {}: {head}{attached}{set}  {}\n{finished}{warnings}",
        args.pid,
        stops_in_words(&applied.figures)
    );
    Ok(Report { text, json })
}

/// The kernel programs that come along, a line each, and the same for the report.
fn planned_programs(plan: &Plan<'_>) -> (String, Vec<Value>) {
    let programs = &plan.kernel.programs;
    let lines = programs.iter().map(|program| {
        format!(
            "  kernel program {} on {} of {}\n",
            program.name, program.hook, program.interface
        )
    });
    let members = programs.iter().map(|program| {
        json!({
            "name": program.name,
            "hook": program.hook,
            "interface": program.interface,
        })
    });
    (lines.collect(), members.collect())
}

/// Where the patch goes: in the first line if there is one site, else a line each.
fn head(plan: &Plan<'_>) -> String {
    let one = |site: &SitePlan| {
        format!(
            "{} ({}) in {}, build-id {}\n",
            site.info.site_name(),
            site.site.avma(),
            site.info.module,
            site.info.build_id
        )
    };
    if let [site] = &*plan.sites {
        return one(site);
    }
    let sites = plan.sites.iter();
    let lines: String = sites.map(|site| format!("    {}", one(site))).collect();
    format!("{} sites at once\n{lines}", plan.sites.len())
}

fn described(pid: i32, plan: &Plan<'_>) -> Value {
    let first = plan.first();
    let warnings = plan.sites.iter().flat_map(|site| &site.warnings);
    json!({
        "ok": true,
        "pid": pid,
        "id": plan.id,
        "object": first.info.object,
        "module": first.info.module,
        "build_id": first.info.build_id,
        "function": first.info.site_name(),
        "site": first.site.avma().to_string(),
        "max_steps": first.max_steps,
        "code_bytes": first.compiled.bytes.len(),
        "sites": plan.sites.iter().map(site_json).collect::<Vec<_>>(),
        "warnings": warnings.map(|(_, warning)| warning).collect::<Vec<_>>(),
    })
}

fn site_json(site: &SitePlan) -> Value {
    json!({
        "module": site.info.module,
        "build_id": site.info.build_id,
        "function": site.info.site_name(),
        "site": site.site.avma().to_string(),
        "max_steps": site.max_steps,
        "code_bytes": site.compiled.bytes.len(),
    })
}

/// What `--dry-run` tells beyond the place: displaced instructions, registers, size.
fn explained(site: &SitePlan) -> String {
    let mut text = format!("  {}\n  displaced instructions:\n", site.info.site_name());
    for (at, bytes, insn) in site.displaced.listing() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("    {at}  {:<32} {insn}\n", hex.join(" "));
    }
    text += "  scratch registers at this place:\n";
    for decision in &site.liveness.decisions {
        text += &format!("    {decision}\n");
    }
    text += &format!(
        "  machine code: {} bytes; stack: {} bytes; at most {} instructions of BPF a call\n",
        site.compiled.bytes.len(),
        site.compiled.stack_bytes,
        site.max_steps
    );
    for (name, at) in site.compiled.extern_names.iter().zip(&site.externs) {
        text += &format!("  calls {name} at {at}\n");
    }
    text
}

fn arena(plan: &Plan<'_>) -> String {
    let window = plan.sites.iter().map(|site| site.compiled.arena_window);
    match window.max() {
        Some(bytes) if bytes > 0 => {
            format!(
                "  arena: {bytes} bytes ({}), shared with forked children\n",
                plan.backend.name()
            )
        }
        Some(_) | None => String::new(),
    }
}
