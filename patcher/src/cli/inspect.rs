//! `upatch inspect`: C lines, BPF and machine code side by side, before or after applying.

use serde_json::{Value, json};
use upatch_verifier::Policy;

use super::args::InspectArgs;
use super::terminal::{self, FAINT, STRONG, styled, wrapped};
use super::{Exit, Failure, Report, files, target};
use crate::apply::ApplyRequest;
use crate::apply::inspect::{Agreement, Inspected, of_both, of_memory, of_object, of_plan};
use crate::apply::query::Override;
use crate::listing::{Machine, Passage, Step};
use crate::object::PatchObject;
use crate::patching::{Found, FoundState, inspect};

/// Widest column of BPF instructions; longer ones push their machine code to the next line.
const BPF_COLUMN: usize = 44;
/// Terminals narrower than this get the machine code below the BPF instruction instead of beside it.
const SIDE_BY_SIDE: usize = 100;

/// Anything may be looked at; what may be applied is decided at apply.
fn policy() -> Policy {
    Policy {
        allow_write: true,
        ..Policy::default()
    }
}

pub(super) fn run(args: &InspectArgs) -> Result<Report, Failure> {
    let object = args.object.as_deref().map(files::object).transpose()?;
    let (pid, object) = match (args.pid, &object) {
        (Some(pid), object) => (pid, object.as_ref()),
        (None, Some(object)) => {
            let place = args.object.as_ref().map(|path| path.display().to_string());
            let programs = of_object(object, &policy())
                .map_err(|error| Failure::from(error).at(place.unwrap_or_default()))?;
            return Ok(report(Some(object.id()), None, &programs));
        }
        (None, None) => {
            return Err(Failure::new(Exit::Usage, "there is nothing to inspect")
                .hint("name an object, a process (--pid), or both"));
        }
    };
    let process = target::open(pid)?;
    let place = |failure: Failure| failure.at(target::place(pid));
    let inventory = inspect(&process).map_err(|error| place(error.into()))?;
    let id = args.patch.clone().or(object.map(PatchObject::id));
    let found: Vec<&Found> = inventory
        .found
        .iter()
        .filter(|found| id.as_ref().is_none_or(|id| found.id == *id))
        .filter(|found| found.state != FoundState::Incomplete)
        .collect();
    match object {
        Some(object) if found.is_empty() && args.patch.is_none() => {
            let request = request(object, "", args);
            let programs = of_plan(&process, &request).map_err(|error| place(error.into()))?;
            Ok(report(Some(object.id()), Some(pid), &programs))
        }
        _ if found.is_empty() => {
            let what = id.map_or("no patches".to_owned(), |id| format!("no patch {id}"));
            Err(
                place(Failure::new(Exit::Target, format!("the process has {what}"))).hint(format!(
                    "see `upatch status --pid {pid}`; with an object `inspect` shows what would be applied"
                )),
            )
        }
        object => {
            let mut shown = Vec::new();
            for found in found {
                shown.extend(match object {
                    Some(object) if object.id() == found.id => {
                        of_both(&process, found, &request(object, "", args))
                            .map_err(|error| place(error.into()))?
                    }
                    Some(_) | None => {
                        of_memory(&process, found).map_err(|error| place(error.into()))?
                    }
                });
            }
            Ok(report(id, Some(pid), &shown))
        }
    }
}

fn request<'a>(object: &'a PatchObject, name: &'a str, args: &InspectArgs) -> ApplyRequest<'a> {
    ApplyRequest {
        object,
        object_name: name,
        operator: Override {
            function: args.function.clone(),
            address: args.offset,
            build_ids: args.build_id.clone(),
        },
        policy: policy(),
        backend: None,
        devices: &[],
    }
}

fn report(id: Option<String>, pid: Option<i32>, shown: &[Inspected]) -> Report {
    let columns = terminal::width();
    Report {
        text: shown.iter().map(|one| in_words(one, columns)).collect(),
        json: json!({
            "ok": true,
            "id": id,
            "pid": pid,
            "programs": shown.iter().map(in_json).collect::<Vec<_>>(),
        }),
    }
}

fn in_words(one: &Inspected, columns: Option<usize>) -> String {
    let mut head = one.name.clone();
    if !one.section.is_empty() {
        head += &format!(" ({})", one.section);
    }
    head += &match &one.place {
        Some(place) => format!(", at {place}"),
        None => ", for any function: nothing is known but the ABI (--pid gives a place)".to_owned(),
    };
    let mut figures = format!("{} bytes of machine code", one.code_bytes);
    if let Some(stack) = one.stack_bytes {
        figures += &format!(", {stack} bytes of stack");
    }
    if let Some(free) = one.free {
        let names: Vec<String> = free
            .iter()
            .map(|reg| format!("{reg:?}").to_lowercase())
            .collect();
        let names = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(" ")
        };
        figures += &format!("; free registers: {names}");
    }
    let mut text = format!(
        "{}\n  {}\n",
        styled(STRONG, &wrapped(&head, 2, columns)),
        wrapped(&figures, 2, columns)
    );
    match &one.agreement {
        Some(Agreement::Same) => text += "  the code in memory is what the object gives\n",
        Some(Agreement::Differs { at, bytes }) => {
            let warning = format!(
                "the code in memory is NOT what the object gives: {bytes} bytes differ, the first at {at:#x}"
            );
            let warning = wrapped(&warning, 2, columns);
            text += &format!("  {}\n", styled(terminal::BAD, &warning));
        }
        None => {}
    }
    let column = one
        .passages
        .iter()
        .flat_map(|passage| &passage.steps)
        .map(|step| step.text.chars().count())
        .filter(|width| *width <= BPF_COLUMN)
        .max()
        .unwrap_or(0);
    let layout = Layout {
        bpf: column,
        beside: columns.is_none_or(|columns| columns >= SIDE_BY_SIDE),
        columns,
    };
    for passage in &one.passages {
        text += &layout.passage(passage);
    }
    text.push('\n');
    text
}

/// How a listing is laid out.
struct Layout {
    /// Columns for the BPF instruction.
    bpf: usize,
    /// Machine code beside the BPF instruction, not below it?
    beside: bool,
    columns: Option<usize>,
}

impl Layout {
    fn passage(&self, passage: &Passage) -> String {
        let head = match (&passage.source, &passage.title) {
            (Some(source), _) => {
                // The folders are what can be done without.
                let file = match self.columns {
                    Some(_) => source.file.rsplit('/').next().unwrap_or_default(),
                    None => &source.file,
                };
                format!("{file}:{}  {}", source.line, source.text)
            }
            (None, Some(title)) => title.clone(),
            (None, None) => String::new(),
        };
        let mut text = format!("\n{}\n", styled(STRONG, &self.cut(&head, 0)));
        for step in &passage.steps {
            text += &self.step(step);
        }
        text
    }

    fn step(&self, step: &Step) -> String {
        let label = step
            .pc
            .map_or(String::new(), |pc| format!("{:>4}: {}", pc.0, step.text));
        let width = if self.beside && self.bpf > 0 {
            self.bpf + 6
        } else {
            4
        };
        let mut text = String::new();
        let mut lines = step.code.iter();
        let fits = label.chars().count() <= width;
        if step.code.is_empty() {
            text += &format!("{}\n", self.cut(&label, 0));
        } else if label.is_empty() || (self.beside && fits) {
            if let Some(first) = lines.next() {
                text += &format!("{label:width$}  {}\n", self.machine(first, width + 2));
            }
        } else {
            text += &format!("{}\n", self.cut(&label, 0));
        }
        for line in lines {
            text += &format!("{:width$}  {}\n", "", self.machine(line, width + 2));
        }
        text
    }

    /// Address, bytes if there is room, text, remark.
    fn machine(&self, line: &Machine, indent: usize) -> String {
        let at = format!("{:>6x}", line.at);
        let note = line
            .note
            .as_ref()
            .map_or(String::new(), |note| format!("  # {note}"));
        let plain = format!("{at}  {}{note}", line.text);
        let hex: String = line
            .bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let whole = format!("{at}  {hex:<20}  {}{note}", line.text);
        let room = self.columns.map(|columns| columns.saturating_sub(indent));
        let chosen = if room.is_none_or(|room| whole.chars().count() <= room) {
            whole
        } else {
            plain
        };
        let cut = self.cut(&chosen, indent);
        match cut.split_once("  # ") {
            Some((code, note)) => format!("{code}{}", styled(FAINT, &format!("  # {note}"))),
            None => cut,
        }
    }

    /// No line is longer than the terminal is wide.
    fn cut(&self, line: &str, indent: usize) -> String {
        let Some(columns) = self.columns else {
            return line.to_owned();
        };
        let room = columns.saturating_sub(indent).max(10);
        if line.chars().count() <= room {
            return line.to_owned();
        }
        let mut short: String = line.chars().take(room - 1).collect();
        short.push('…');
        short
    }
}

fn in_json(one: &Inspected) -> Value {
    let machine = |line: &Machine| {
        json!({
            "at": format!("{:#x}", line.at),
            "bytes": line.bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "x86": line.text,
            "note": line.note,
        })
    };
    let step = |step: &Step| {
        json!({
            "pc": step.pc.map(|pc| pc.0),
            "bpf": step.pc.map(|_| &step.text),
            "code": step.code.iter().map(machine).collect::<Vec<_>>(),
        })
    };
    let passage = |passage: &Passage| {
        json!({
            "file": passage.source.as_ref().map(|source| &source.file),
            "line": passage.source.as_ref().map(|source| source.line),
            "text": passage.source.as_ref().map(|source| &source.text),
            "title": passage.title,
            "steps": passage.steps.iter().map(step).collect::<Vec<_>>(),
        })
    };
    json!({
        "name": one.name,
        "section": one.section,
        "place": one.place,
        "free": one.free.map(|free| free.iter().map(|reg| format!("{reg:?}").to_lowercase()).collect::<Vec<_>>()),
        "code_bytes": one.code_bytes,
        "stack_bytes": one.stack_bytes,
        "same_as_object": one.agreement.as_ref().map(|agreement| *agreement == Agreement::Same),
        "passages": one.passages.iter().map(passage).collect::<Vec<_>>(),
    })
}
