//! `upatch apply`: a patch into a running process, or an explanation of what would be done.

use serde_json::{Value, json};
use upatch_verifier::Policy;

mod many;

use super::args::ApplyArgs;
use super::several::{self, Chosen};
use super::{Failure, Report, files, rules, target};
use crate::apply::query::Override;
use crate::apply::shared::Shared;
use crate::apply::{ApplyError, ApplyRequest, Plan, SitePlan, plan, stops_in_words};
use crate::patching::PrepareError;
use crate::process::Process;
use crate::revert::finish_interrupted;
use crate::rules::{Edit, set_initial};

pub(super) fn run(args: &ApplyArgs) -> Result<Report, Failure> {
    let mut object = files::object(&args.object)?;
    let rules = rules::assignments(&args.rule)
        .and_then(|all| Ok(set_initial(&mut object, &all)?))
        .map_err(|failure| failure.at(args.object.display().to_string()))?;
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
    let work = Work {
        request,
        rules: &rules,
        dry_run: args.dry_run,
    };
    let ids = if args.build_id.is_empty() {
        object.build_ids()
    } else {
        &args.build_id
    };
    match several::choose(&args.targets, ids)? {
        Chosen::One(pid) => {
            let process = target::open(pid)?;
            let (plan, finished) = work.plan(&process, false)?;
            work.finish(plan, &finished, None)
        }
        Chosen::Several(search) => many::run(&work, search),
    }
}

/// What is to be done in each process.
struct Work<'a> {
    request: ApplyRequest<'a>,
    rules: &'a [Edit],
    dry_run: bool,
}

impl Work<'_> {
    /// What would be done, and the ids of half applied patches that were taken off for it. With `leftovers` also what was
    /// never applied is taken away.
    fn plan<'p>(
        &self,
        process: &'p Process,
        leftovers: bool,
    ) -> Result<(Plan<'p>, Vec<String>), Failure> {
        let pid = process.pid();
        let finished = if self.dry_run {
            Vec::new()
        } else {
            finish_interrupted(process, leftovers)
                .map_err(|error| Failure::from(error).at(target::place(pid)))?
        };
        match plan(process, &self.request) {
            Ok(plan) => Ok((plan, finished)),
            Err(error) => Err(explained_for(pid, error)),
        }
    }

    /// Does it, or tells what would be done.
    fn finish(
        &self,
        plan: Plan<'_>,
        finished: &[String],
        shared: Option<&Shared>,
    ) -> Result<Report, Failure> {
        let pid = plan.pid();
        let mut json = described(pid, &plan);
        json["finished"] = finished.into();
        if !self.rules.is_empty() {
            json["rules"] = rules::to_json(self.rules);
        }
        let head = head(&plan);
        let warnings: String = plan
            .sites
            .iter()
            .flat_map(|site| &site.warnings)
            .map(|(_, warning)| format!("  warning: {warning}\n"))
            .collect();
        let set = rules::in_words(self.rules);
        let (attached, kernel_programs) = planned_programs(&plan);
        if self.dry_run {
            let explained: String = plan.sites.iter().map(explained).collect();
            let arena = arena_in_words(&plan);
            let text = format!("would patch {head}{attached}{set}{warnings}{explained}{arena}");
            json["kernel_programs"] = kernel_programs.into();
            json["dry_run"] = true.into();
            return Ok(Report { text, json });
        }
        let id = plan.id.clone();
        let backend = plan.backend;
        let applied = plan
            .carry_out(shared)
            .map_err(|error| explained_for(pid, error))?;
        for (index, (poked, _)) in applied.sites.iter().enumerate() {
            json["sites"][index]["image"] = poked.image.start.to_string().into();
        }
        json["image"] = json["sites"][0]["image"].clone();
        json["arena"] = applied
            .arena()
            .map_or(Value::Null, |arena| arena.start.to_string().into());
        json["backend"] = applied.arena().map(|_| backend.name()).into();
        json["kernel_programs"] = kernel_programs.into();
        json["stops"] = applied.figures.stops.into();
        json["longest_stop_us"] = json!(applied.figures.longest_stop.as_secs_f64() * 1e6);
        json["tasks"] = applied.figures.tasks.into();
        json["moved"] = applied.figures.moved.into();
        let half = "which an interrupted upatch had left half applied";
        let finished: String = finished
            .iter()
            .map(|id| format!("  took off patch {id}, {half}\n"))
            .collect();
        let text = format!(
            "patch {id} applied to process {pid}: {head}{attached}{set}  {}\n{finished}{warnings}",
            stops_in_words(&applied.figures)
        );
        Ok(Report { text, json })
    }
}

fn explained_for(pid: i32, error: ApplyError) -> Failure {
    let own_hint = match &error {
        ApplyError::Prepare(PrepareError::AlreadyPatched { id, .. }) => Some(format!(
            "revert it first: upatch revert --pid {pid} --patch {id}"
        )),
        ApplyError::Interrupted { id } => Some(format!(
            "an apply takes it off first, or: upatch revert --pid {pid} --patch {id}"
        )),
        _ => None,
    };
    let mut failure = Failure::from(error).at(target::place(pid));
    failure.hint = own_hint.or(failure.hint);
    failure
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

fn arena_in_words(plan: &Plan<'_>) -> String {
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
