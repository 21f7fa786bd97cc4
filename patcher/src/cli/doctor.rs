//! `upatch doctor`: what works here, what that means, and what would lift what doesn't.

use serde_json::{Value, json};

use super::args::DoctorArgs;
use super::terminal::{self, BAD, FAINT, FAIR, GOOD, STRONG, styled, wrapped};
use super::{Exit, Failure, Report};
use crate::doctor::{Finding, ROLE, Section, State, accompany, examine, of_target};

pub(super) fn run(args: &DoctorArgs) -> Result<Report, Failure> {
    let internal = |error: std::io::Error| {
        Failure::new(Exit::Internal, format!("the trials broke off: {error}"))
    };
    if std::env::var_os(ROLE).is_some() {
        accompany().map_err(internal)?;
        return Ok(Report {
            text: String::new(),
            json: json!({"ok": true}),
        });
    }
    let mut sections = examine().map_err(internal)?;
    if let Some(pid) = args.pid {
        sections.push(of_target(pid));
    }
    Ok(Report {
        text: sections.iter().map(in_words).collect(),
        json: json!({
            "ok": true,
            "pid": args.pid,
            "findings": sections.iter().flat_map(in_json).collect::<Vec<Value>>(),
        }),
    })
}

fn in_words(section: &Section) -> String {
    let width = section
        .findings
        .iter()
        .map(|finding| finding.topic.len())
        .max()
        .unwrap_or(0);
    let columns = terminal::width();
    let indent = width + 13;
    let mut text = format!("{}\n", styled(STRONG, section.title));
    for finding in &section.findings {
        let (style, word) = match finding.state {
            State::Ok => (GOOD, "ok"),
            State::Limited => (FAIR, "limited"),
            State::Missing => (BAD, "missing"),
        };
        let found = wrapped(&finding.found, indent, columns);
        text += &format!(
            "  {style}{word:7}{style:#}  {:width$}  {found}\n",
            finding.topic
        );
        let means = wrapped(finding.means, indent, columns);
        let blanks = " ".repeat(indent);
        text += &format!("{blanks}{}\n", styled(FAINT, &means));
        if let Some(lift) = finding.lift {
            let lift = wrapped(&format!("to lift it: {lift}"), indent, columns);
            let lift = lift.replacen("to lift it:", &styled(STRONG, "to lift it:"), 1);
            text += &format!("{blanks}{lift}\n");
        }
    }
    text
}

fn in_json(section: &Section) -> Vec<Value> {
    let one = |finding: &Finding| {
        json!({
            "about": section.title,
            "topic": finding.topic,
            "state": match finding.state {
                State::Ok => "ok",
                State::Limited => "limited",
                State::Missing => "missing",
            },
            "found": finding.found,
            "means": finding.means,
            "lift": finding.lift,
        })
    };
    section.findings.iter().map(one).collect()
}
