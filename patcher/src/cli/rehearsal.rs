//! `upatch run OBJECT`: a patch on given registers, memory and results of functions, told what it does.
//!
//! The object is verified here; a child process executes it (`rehearse`) and prints its report, which this process passes on.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use upatch_verifier::{Policy, VerifiedProgram};

use super::args::{Engine, RunArgs, SceneArgs, parse_number};
use super::run::{CHILD, start_child};
use super::{Exit, Failure, Report, files, rules};
use crate::apply::program::{ProgramError, verified};
use crate::object::{ObjectProgram, PatchObject, render};
use crate::rehearse::{
    ARENA, Call, LARGEST_ARENA, MAX_EXTERNS, Outcome, PAGE, STACK_POINTER, Scene, execute,
    incomparable, interpret, register_name, return_to,
};
use crate::rules::set_initial;
use crate::telemetry::ReadArena;

/// Where texts are put that are given as arguments: each ends with its page, so that reading on fails as behind a buffer.
const TEXTS: u64 = 0x7100_0000;
/// The patched address, unless rip is given.
const SITE: u64 = 0x40_1000;
/// Registers of arguments 1 to 6 (psABI §3.2.3), by number.
const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Most bytes of memory that one option gives.
const LARGEST: usize = 64 << 20;

pub(super) fn run(args: &RunArgs) -> Result<Report, Failure> {
    let Some(path) = args.what.as_deref() else {
        return Err(Failure::new(Exit::Usage, "there is nothing to run")
            .hint("name a patch object, or use --raw or --case; see `upatch run --help`"));
    };
    let path = Path::new(path);
    let place = |failure: Failure| failure.at(path.display().to_string());
    let mut object = files::object(path)?;
    rules::assignments(&args.scene.rule)
        .and_then(|rules| Ok(set_initial(&mut object, &rules)?))
        .map_err(place)?;
    let program = chosen(&object, args.scene.program.as_deref()).map_err(place)?;
    // Here nothing is harmed by what it writes.
    let policy = Policy {
        allow_write: true,
        ..Policy::default()
    };
    let verified = verified(&object, program, &policy)
        .map_err(|error: ProgramError| place(Failure::from(error)))?;
    let scene = scene(&args.scene, &object, &verified)?;
    if std::env::var_os(CHILD).is_some() {
        return Ok(in_child(args, &object, program, &verified, &scene));
    }
    let (output, errors) = start_child(args, "").map_err(|mut failure| {
        if failure.message.contains("signal") {
            // What is proven can't fault: if it does, it is ours.
            failure.exit = Exit::Internal;
            failure.hint = Some(
                "this is a bug of upatch: please report it with the object; --engine interp may go on"
                    .to_owned(),
            );
        }
        place(failure)
    })?;
    let answer: Value = serde_json::from_str(output.trim()).map_err(|_| {
        let said = errors.trim().trim_start_matches("upatch: ").to_owned();
        place(Failure::new(
            Exit::Internal,
            format!("the child process gave no report: {said}"),
        ))
    })?;
    if let Some(failure) = Failure::from_json(&answer) {
        return Err(place(failure));
    }
    Ok(Report {
        text: answer["text"].as_str().unwrap_or_default().to_owned(),
        json: answer["report"].clone(),
    })
}

fn chosen<'o>(object: &'o PatchObject, name: Option<&str>) -> Result<&'o ObjectProgram, Failure> {
    let programs = object.programs();
    let names: Vec<&str> = programs.iter().map(|program| &*program.name).collect();
    match (name, programs) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::new(
            Exit::Usage,
            format!("the object has {} programs", programs.len()),
        )
        .hint(format!("choose one by --program: {}", names.join(", ")))),
        (Some(name), _) => programs
            .iter()
            .find(|program| program.name == name)
            .ok_or_else(|| {
                Failure::new(Exit::Usage, format!("the object has no program `{name}`"))
                    .hint(format!("it has {}", names.join(", ")))
            }),
    }
}

fn usage(text: &str, what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("`{text}`: {what}"))
}

fn pair(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('=')
        .ok_or_else(|| usage(text, "`=` is missing").hint("write NAME=VALUE"))
}

/// A number: decimal, hexadecimal with 0x, negative, `_` anywhere.
fn number(text: &str, within: &str) -> Result<u64, Failure> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, &*plain),
    };
    let value = parse_number(digits).map_err(|_| {
        usage(within, "the value is not a number")
            .hint("write a decimal number, or a hexadecimal one with 0x")
    })?;
    Ok(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// `"text"` (with its NUL), or the bytes of `@FILE`; `None`: something else.
fn content(text: &str) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(rest) = text.strip_prefix('"') {
        let inner = rest
            .strip_suffix('"')
            .ok_or_else(|| usage(text, "the closing quote is missing"))?;
        let mut bytes = inner.as_bytes().to_vec();
        bytes.push(0);
        return Ok(Some(bytes));
    }
    match text.strip_prefix('@') {
        Some(path) => files::read(Path::new(path)).map(Some),
        None => Ok(None),
    }
}

fn scene(
    args: &SceneArgs,
    object: &PatchObject,
    verified: &VerifiedProgram,
) -> Result<Scene, Failure> {
    let arena_len = object.arena().len;
    if arena_len > LARGEST_ARENA {
        return Err(Failure::new(
            Exit::Usage,
            format!("the patch's arena of {arena_len} bytes is too large to run here"),
        )
        .hint("build it with smaller arrays to try it"));
    }
    let mut arena = vec![0; usize::try_from(arena_len).unwrap_or(0)];
    object.arena().read_some(0, &mut arena);
    let mut scene = Scene {
        gpr: [0; 16],
        // The bits that are always set in user mode: IF, and one that is reserved.
        flags: 0x202,
        site: SITE,
        pages: BTreeMap::new(),
        arena,
        results: BTreeMap::new(),
    };
    scene.gpr[4] = STACK_POINTER;
    for text in &args.reg {
        let (name, value) = pair(text)?;
        let value = number(value, text)?;
        match name {
            "rip" => scene.site = value,
            "rsp" => {
                return Err(usage(text, "the stack is upatch's to choose")
                    .hint("put what the patch looks for on it into --mem"));
            }
            "rflags" | "eflags" => scene.flags = value & 0xcd5 | 0x202,
            name => {
                let known = (0..16).find(|number| register_name(*number) == name);
                let number = known.ok_or_else(|| {
                    usage(text, "there is no such register").hint("rax to r15, rip or rflags")
                })?;
                scene.gpr[number] = value;
            }
        }
    }
    let mut texts = TEXTS;
    for text in &args.arg {
        let (which, value) = pair(text)?;
        let register = which
            .parse::<usize>()
            .ok()
            .and_then(|which| ARGUMENTS.get(which.checked_sub(1)?))
            .ok_or_else(|| {
                usage(text, "there is no such argument")
                    .hint("arguments are numbered from 1 to 6, in the order of UPATCH()")
            })?;
        scene.gpr[*register] = match content(value)? {
            Some(bytes) => {
                // A page that isn't there before and behind it.
                let end = (texts + PAGE + bytes.len() as u64).next_multiple_of(PAGE);
                let at = end - bytes.len() as u64;
                put(&mut scene, at, &bytes, text)?;
                texts = end + PAGE;
                at
            }
            None => number(value, text)?,
        };
    }
    for text in &args.mem {
        let (at, value) = pair(text)?;
        let at = number(at, text)?;
        let bytes = match content(value)? {
            Some(bytes) => bytes,
            None => super::run::hex(&value.replace('_', ""))?,
        };
        put(&mut scene, at, &bytes, text)?;
    }
    results(args, verified, &mut scene)?;
    Ok(scene)
}

fn put(scene: &mut Scene, at: u64, bytes: &[u8], text: &str) -> Result<(), Failure> {
    let end = at.checked_add(bytes.len() as u64);
    // Not the lowest pages, not the kernel's half, nor what is laid out for the patch.
    let taken = [(ARENA, 1 << 32), (STACK_POINTER - (1 << 24), 1 << 25)];
    let overlaps =
        |(start, len): (u64, u64)| at < start + len && end.is_some_and(|end| end > start);
    let fits = end.is_some_and(|end| at >= 0x1_0000 && end <= 0x7fff_0000_0000);
    if bytes.len() > LARGEST || !fits || taken.into_iter().any(overlaps) {
        return Err(usage(
            text,
            "this memory can't be laid out: it is too large, or lies where nothing of a program can",
        )
        .hint("use addresses like 0x70000000"));
    }
    scene.put(at, bytes);
    Ok(())
}

fn results(args: &SceneArgs, verified: &VerifiedProgram, scene: &mut Scene) -> Result<(), Failure> {
    let externs = verified.program().externs();
    if externs.len() > MAX_EXTERNS {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "the patch calls {} functions; at most {MAX_EXTERNS} can be played",
                externs.len()
            ),
        ));
    }
    for text in &args.externs {
        let (name, list) = pair(text)?;
        if !externs.iter().any(|external| external.name == name) {
            let names: Vec<&str> = externs.iter().map(|external| &*external.name).collect();
            return Err(usage(text, "the patch calls no such function").hint(
                if names.is_empty() {
                    "it calls none".to_owned()
                } else {
                    format!("it calls {}", names.join(", "))
                },
            ));
        }
        let list = list
            .split(',')
            .map(|result| number(result, text))
            .collect::<Result<_, _>>()?;
        scene.results.insert(name.to_owned(), list);
    }
    match externs
        .iter()
        .find(|external| !scene.results.contains_key(&external.name))
    {
        Some(missing) => Err(Failure::new(
            Exit::Usage,
            format!(
                "the patch calls `{}`, and nobody says what it returns",
                missing.name
            ),
        )
        .hint(format!("add --extern {}=RESULT", missing.name))),
        None => Ok(()),
    }
}

/// Runs it and wraps the report for the parent.
fn in_child(
    args: &RunArgs,
    object: &PatchObject,
    program: &ObjectProgram,
    verified: &VerifiedProgram,
    scene: &Scene,
) -> Report {
    let engine = args.engine.unwrap_or(Engine::Both);
    let answer = match compared(engine, verified, scene) {
        Ok((outcome, unequal)) => {
            let (text, report) = told(object, program, scene, &outcome, engine, &unequal);
            json!({"ok": true, "text": text, "report": report})
        }
        Err(failure) => failure.to_json(),
    };
    Report {
        text: format!("{answer}\n"),
        json: answer,
    }
}

/// The outcome, and why the engines could not be compared, if they could not.
fn compared(
    engine: Engine,
    verified: &VerifiedProgram,
    scene: &Scene,
) -> Result<(Outcome, Vec<&'static str>), Failure> {
    let interpreted = || {
        interpret(verified, scene, return_to()).map_err(|fault| {
            Failure::new(
                Exit::Internal,
                format!("the interpreter met what is proven impossible: {fault}"),
            )
            .hint("this is a bug of upatch: please report it with the object")
        })
    };
    let native = || {
        execute(verified, scene).map_err(|error| {
            Failure::new(Exit::Internal, format!("can't lay the memory out: {error}"))
                .hint("use other addresses in --mem")
        })
    };
    match engine {
        Engine::Interp => Ok((interpreted()?, Vec::new())),
        Engine::Jit => Ok((native()?, Vec::new())),
        Engine::Both => {
            let one = interpreted()?;
            let other = native()?;
            let unequal = incomparable(verified);
            let differences = one.differences(&other);
            if unequal.is_empty() && !differences.is_empty() {
                return Err(Failure::new(
                    Exit::Internal,
                    format!(
                        "interpreter and machine code disagree: {}",
                        differences.join("; ")
                    ),
                )
                .hint("this is a bug of upatch: please report it with the object, and don't apply the patch"));
            }
            let outcome = Outcome {
                steps: one.steps,
                ..other
            };
            Ok((outcome, unequal))
        }
    }
}

/// The variables whose values differ, with both.
fn changed_variables(
    object: &PatchObject,
    scene: &Scene,
    after: &[u8],
) -> Vec<(String, Value, Value)> {
    let layout = object.arena();
    let value = |arena: &[u8], offset: u64, size: u64, ty| {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        arena
            .get(start..end)
            .map_or(Value::Null, |bytes| render(&layout.types, ty, bytes))
    };
    layout
        .globals
        .iter()
        .filter_map(|global| {
            let old = value(&scene.arena, global.offset, global.size, global.ty);
            let new = value(after, global.offset, global.size, global.ty);
            (old != new).then(|| (global.name.clone(), old, new))
        })
        .collect()
}

fn told(
    object: &PatchObject,
    program: &ObjectProgram,
    scene: &Scene,
    outcome: &Outcome,
    engine: Engine,
    unequal: &[&str],
) -> (String, Value) {
    let verdict = if outcome.returned {
        "return"
    } else {
        "continue"
    };
    let mut text = format!(
        "{}: {}\n",
        program.name,
        if outcome.returned {
            format!("returns {:#x} to the caller", outcome.gpr[0])
        } else {
            "the call continues".to_owned()
        }
    );
    let mut registers = Map::new();
    for (number, (old, new)) in std::iter::zip(scene.gpr, outcome.gpr).enumerate() {
        if old != new {
            let name = register_name(number);
            text += &format!("  {name:<6} {old:#x} -> {new:#x}\n");
            registers.insert(
                name.to_owned(),
                json!({"old": format!("{old:#x}"), "new": format!("{new:#x}")}),
            );
        }
    }
    let mut variables = Map::new();
    for (name, old, new) in changed_variables(object, scene, &outcome.arena) {
        text += &format!("  {name}: {old} -> {new}\n");
        variables.insert(name, json!({"old": old, "new": new}));
    }
    for call in &outcome.calls {
        text += &format!("  called {}\n", call_in_words(call));
    }
    if let Some(errno) = outcome.errno {
        text += &format!("  errno = {errno}\n");
    }
    if outcome.memory != before(scene, outcome) {
        text += "  the program's memory was written\n";
    }
    if let Some(steps) = outcome.steps {
        text += &format!("  {steps} BPF instructions executed\n");
    }
    match engine {
        Engine::Both if unequal.is_empty() => text += "  interpreter and machine code agree\n",
        Engine::Both => {
            text += &format!(
                "  not compared: {} gives another result each time\n",
                unequal.join(", ")
            );
        }
        Engine::Jit | Engine::Interp => {}
    }
    let report = json!({
        "ok": true,
        "program": program.name,
        "verdict": verdict,
        "result": outcome.returned.then(|| format!("{:#x}", outcome.gpr[0])),
        "registers": registers,
        "globals": variables,
        "calls": outcome.calls.iter().map(|call| json!({
            "name": call.name,
            "arguments": call.arguments.iter().map(|value| value.map(|value| format!("{value:#x}"))).collect::<Vec<_>>(),
            "result": format!("{:#x}", call.result),
        })).collect::<Vec<_>>(),
        "errno": outcome.errno,
        "memory_written": outcome.memory != before(scene, outcome),
        "steps": outcome.steps,
        "engines_agree": (engine == Engine::Both && unequal.is_empty()).then_some(true),
    });
    (text, report)
}

/// The memory as it was, in the pieces of the outcome.
fn before(scene: &Scene, outcome: &Outcome) -> BTreeMap<u64, Vec<u8>> {
    outcome
        .memory
        .iter()
        .map(|(at, bytes)| {
            let pages = (0..bytes.len() as u64)
                .step_by(PAGE as usize)
                .filter_map(|offset| scene.pages.get(&(at + offset)));
            (*at, pages.flatten().copied().collect())
        })
        .collect()
}

fn call_in_words(call: &Call) -> String {
    let arguments: Vec<String> = call
        .arguments
        .iter()
        .map(|value| value.map_or("(memory)".to_owned(), |value| format!("{value:#x}")))
        .collect();
    format!(
        "{}({}) = {:#x}",
        call.name,
        arguments.join(", "),
        call.result
    )
}
