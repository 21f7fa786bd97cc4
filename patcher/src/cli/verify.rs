//! `upatch verify`: are these programs safe? Touches no process.

use std::path::Path;

use serde_json::{Value, json};
use upatch_verifier::decode::decode;
use upatch_verifier::{Policy, Program, ProgramKind, VerifiedProgram, verify};

use super::args::VerifyArgs;
use super::{Exit, Failure, Report, files};
use crate::apply::program::{ProgramError, all_verified};
use crate::object::ObjectProgram;

pub(super) fn run(args: &VerifyArgs) -> Result<Report, Failure> {
    let policy = Policy {
        allow_write: args.allow_write,
        ..Policy::default()
    };
    let mut text = String::new();
    let mut reports = Vec::new();
    for path in &args.files {
        let shown = path.display().to_string();
        if args.raw {
            let verified =
                raw(path, args.mem, &policy).map_err(|failure| failure.at(shown.clone()))?;
            text += &format!(
                "{shown}: accepted, at most {} instructions\n",
                verified.facts().max_steps
            );
            reports.push(json!({"file": shown, "max_steps": verified.facts().max_steps}));
            continue;
        }
        let object = files::object(path)?;
        let programs = all_verified(&object, &policy)
            .map_err(|error| Failure::from(error).at(shown.clone()))?;
        text += &format!("{shown}: patch {}\n", object.id());
        for (program, verified) in object.programs().iter().zip(&programs) {
            text += &format!("  {}\n", described(program, verified));
            text += &warnings_in_words(verified);
        }
        for program in object.kernel_programs() {
            text += &format!(
                "  {} ({}): for the kernel, which judges it when it is applied\n",
                program.name, program.section
            );
        }
        reports.push(json!({
            "file": shown,
            "id": object.id(),
            "programs": object.programs().iter().zip(&programs)
                .map(|(program, verified)| in_json(program, verified)).collect::<Vec<_>>(),
        }));
    }
    Ok(Report {
        text,
        json: json!({"ok": true, "files": reports}),
    })
}

/// Bare instructions: a program whose r1 points at `mem` bytes.
fn raw(path: &Path, mem: u32, policy: &Policy) -> Result<VerifiedProgram, Failure> {
    let bytes = files::read(path)?;
    let malformed = |message: String| Failure::new(Exit::Object, message);
    let insns = decode(&bytes).map_err(|error| malformed(error.to_string()))?;
    let program = Program::from_raw(ProgramKind::Memory { mem_len: mem }, insns)
        .map_err(|error| malformed(error.to_string()))?;
    verify(program, policy).map_err(|rejection| {
        ProgramError::Rejected {
            program: files::name(path),
            rejection,
        }
        .into()
    })
}

/// One line about a program that was accepted.
pub(super) fn described(program: &ObjectProgram, verified: &VerifiedProgram) -> String {
    let facts = verified.facts();
    let steps = facts.max_steps;
    let instructions = if steps == 1 {
        "instruction"
    } else {
        "instructions"
    };
    // Of a loop that ends by can_loop nothing else is known than when it would be ended.
    let bound = if facts.may_goto_budget > 0 {
        format!(
            "can_loop ends it within the budget of {} instructions a call",
            Policy::default().max_steps
        )
    } else {
        format!("at most {steps} {instructions} a call")
    };
    format!("{} ({}): accepted, {bound}", program.name, program.section)
}

/// Findings that refuse nothing, a line each.
pub(super) fn warnings_in_words(verified: &VerifiedProgram) -> String {
    let line = |(pc, warning): &(upatch_verifier::Pc, String)| match verified.program().line_of(*pc)
    {
        Some(line) => format!("    warning: {}:{}: {warning}\n", line.file, line.line),
        None => format!("    warning: instruction {}: {warning}\n", pc.0),
    };
    verified.facts().warnings.iter().map(line).collect()
}

/// The same for programs.
pub(super) fn in_json(program: &ObjectProgram, verified: &VerifiedProgram) -> Value {
    let facts = verified.facts();
    let warnings: Vec<Value> = facts
        .warnings
        .iter()
        .map(|(pc, warning)| {
            let line = verified.program().line_of(*pc);
            json!({"message": warning, "file": line.map(|line| &line.file), "line": line.map(|line| line.line)})
        })
        .collect();
    json!({
        "name": program.name,
        "section": program.section,
        "max_steps": facts.max_steps,
        "stack": facts.total_stack,
        "warnings": warnings,
    })
}
