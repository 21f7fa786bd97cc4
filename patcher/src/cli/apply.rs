//! `upatch apply`: a patch into a running process, or an explanation of what would be done.

use serde_json::{Value, json};
use upatch_verifier::Policy;

use super::args::ApplyArgs;
use super::{Failure, Report, files, rules, target};
use crate::apply::query::Override;
use crate::apply::{ApplyError, ApplyRequest, Plan, plan, stops_in_words};
use crate::patching::PrepareError;
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
    };
    let place = |failure: Failure| failure.at(target::place(args.pid));
    let failed = |error: ApplyError| {
        let mut again = None;
        if let ApplyError::Prepare(PrepareError::AlreadyPatched { id, .. }) = &error {
            again = Some(format!(
                "revert it first: upatch revert --pid {} --patch {id}",
                args.pid
            ));
        }
        let mut failure = place(error.into());
        failure.hint = again.or(failure.hint);
        failure
    };
    let plan = plan(&process, &request).map_err(failed)?;
    let mut json = described(args.pid, &plan);
    if !rules.is_empty() {
        json["rules"] = rules::to_json(&rules);
    }
    let head = format!(
        "{} ({}) in {}, build-id {}",
        plan.info.site_name(),
        plan.site.avma(),
        plan.info.module,
        plan.info.build_id
    );
    let warnings: String = plan
        .warnings
        .iter()
        .map(|(_, warning)| format!("  warning: {warning}\n"))
        .collect();
    let set = rules::in_words(&rules);
    if args.dry_run {
        let text = format!("would patch {head}\n{set}{warnings}{}", explained(&plan));
        json["dry_run"] = true.into();
        return Ok(Report { text, json });
    }
    let id = plan.id.clone();
    let applied = plan.carry_out().map_err(failed)?;
    json["image"] = applied.plan.image.start.to_string().into();
    json["arena"] = applied
        .record
        .arena
        .map_or(Value::Null, |arena| arena.range().start.to_string().into());
    json["stops"] = applied.figures.stops.into();
    json["longest_stop_us"] = json!(applied.figures.longest_stop.as_secs_f64() * 1e6);
    json["tasks"] = applied.figures.tasks.into();
    json["moved"] = applied.figures.moved.into();
    let text = format!(
        "patch {id} applied to process {}: {head}\n{set}  {}\n{warnings}",
        args.pid,
        stops_in_words(&applied.figures)
    );
    Ok(Report { text, json })
}

fn described(pid: i32, plan: &Plan<'_>) -> Value {
    json!({
        "ok": true,
        "pid": pid,
        "id": plan.id,
        "object": plan.info.object,
        "module": plan.info.module,
        "build_id": plan.info.build_id,
        "function": plan.info.site_name(),
        "site": plan.site.avma().to_string(),
        "max_steps": plan.max_steps,
        "code_bytes": plan.compiled.bytes.len(),
        "warnings": plan.warnings.iter().map(|(_, warning)| warning).collect::<Vec<_>>(),
    })
}

/// What `--dry-run` tells beyond the place: displaced instructions, registers, size.
fn explained(plan: &Plan<'_>) -> String {
    let mut text = "  displaced instructions:\n".to_owned();
    for (at, bytes, insn) in plan.displaced.listing() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("    {at}  {:<32} {insn}\n", hex.join(" "));
    }
    text += "  scratch registers at this place:\n";
    for decision in &plan.liveness.decisions {
        text += &format!("    {decision}\n");
    }
    text += &format!(
        "  machine code: {} bytes; stack: {} bytes; at most {} instructions of BPF a call\n",
        plan.compiled.bytes.len(),
        plan.compiled.stack_bytes,
        plan.max_steps
    );
    if plan.compiled.arena_window > 0 {
        text += &format!(
            "  arena: {} bytes, shared with forked children\n",
            plan.compiled.arena_window
        );
    }
    for (name, at) in plan.compiled.extern_names.iter().zip(&plan.externs) {
        text += &format!("  calls {name} at {at}\n");
    }
    text
}
