//! `upatch run`: executes a program in a child process with a time limit. Patches are `rehearsal`'s business; here are BPF
//! programs that are none, verified or not.
//!
//! The program may do anything, so nothing of it runs here: this process decodes it, starts itself again as the child that
//! compiles and executes, and waits. What runs is a `RawProgram`, which `apply` has no way to take.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use upatch_jit::interp::{Input, Machine, World};
use upatch_jit::{FixupKind, private};
use upatch_verifier::asm::Case;
use upatch_verifier::decode::decode;
use upatch_verifier::{Program, ProgramKind, RawProgram};

use super::args::{Engine, RunArgs};
use super::{Exit, Failure, Report, files};
use crate::process::execute;

/// Set in the environment of the child that executes.
pub(super) const CHILD: &str = "UPATCH_RUN_CHILD";
/// Longest program text on standard input, in bytes.
const LIMIT: u64 = 16 << 20;
/// Instructions that the interpreter executes before it gives up (the time limit comes first as a rule).
const STEP_LIMIT: u64 = 1 << 32;

pub(super) fn run(args: &RunArgs) -> Result<Report, Failure> {
    if !args.input.raw && args.input.case.is_none() {
        return super::rehearsal::run(args);
    }
    let scene = &args.scene;
    let given = [
        &scene.reg,
        &scene.arg,
        &scene.mem,
        &scene.externs,
        &scene.rule,
    ];
    if scene.program.is_some() || given.into_iter().any(|given| !given.is_empty()) {
        return Err(
            Failure::new(Exit::Usage, "a bare program meets nothing but its memory")
                .hint("leave --raw and --case out to run a patch object"),
        );
    }
    let (text, (program, memory)) = match &args.input.case {
        Some(path) => (String::new(), case(path)?),
        None => {
            let text = standard_input()?;
            let place = |failure: Failure| failure.at("standard input");
            let program = hex(&text)
                .and_then(|bytes| decoded(&bytes))
                .map_err(place)?;
            (text, (program, hex(args.what.as_deref().unwrap_or(""))?))
        }
    };
    let program = with_memory(program, &memory)?;
    let raw = RawProgram::new(program).ok_or_else(|| {
        Failure::new(
            Exit::Object,
            "the program is a patch; `upatch run` executes programs that are none",
        )
    })?;
    let r0 = if std::env::var_os(CHILD).is_some() {
        match args.engine {
            Some(Engine::Jit) | None => native(&raw, memory)?,
            Some(Engine::Interp) => interpreted(&raw, memory)?,
            Some(Engine::Both) => {
                let (one, other) = (interpreted(&raw, memory.clone())?, native(&raw, memory)?);
                if one != other {
                    return Err(Failure::new(
                        Exit::Internal,
                        format!("the interpreter gives {one:#x}, the JIT {other:#x}"),
                    ));
                }
                one
            }
        }
    } else {
        in_child(args, &text)?
    };
    Ok(Report {
        text: format!("{r0:#x}\n"),
        json: json!({"ok": true, "r0": format!("{r0:#x}")}),
    })
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("can't read the program from standard input: {error}"),
            )
        })?;
    Ok(text)
}

/// Hexadecimal digits, blanks ignored.
pub(super) fn hex(text: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |what: String| {
        Failure::new(Exit::Usage, what)
            .hint("give the bytes as pairs of hexadecimal digits, blanks allowed")
    };
    let mut digits = Vec::new();
    for letter in text.chars().filter(|letter| !letter.is_whitespace()) {
        let digit = letter
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok());
        digits.push(digit.ok_or_else(|| wrong(format!("`{letter}` is no hexadecimal digit")))?);
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong("an odd number of hexadecimal digits".to_owned()));
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn decoded(bytes: &[u8]) -> Result<Program, Failure> {
    let malformed = |message: String| Failure::new(Exit::Object, message);
    let insns = decode(bytes).map_err(|error| malformed(error.to_string()))?;
    Program::from_raw(ProgramKind::Memory { mem_len: 0 }, insns)
        .map_err(|error| malformed(error.to_string()))
}

fn case(path: &std::path::Path) -> Result<(Program, Vec<u8>), Failure> {
    let place = path.display().to_string();
    let bytes = files::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let malformed = |message: String| Failure::new(Exit::Object, message).at(place.clone());
    let case = Case::parse(&text).map_err(|error| malformed(error.to_string()))?;
    let program = case.program().map_err(malformed)?;
    Ok((program, case.mem))
}

/// The program with r1 and r2 set up for this memory.
fn with_memory(program: Program, memory: &[u8]) -> Result<Program, Failure> {
    let mut parts = program.into_parts();
    let mem_len = u32::try_from(memory.len())
        .map_err(|_| Failure::new(Exit::Usage, "the memory is longer than 4 GiB"))?;
    if matches!(parts.kind, ProgramKind::Memory { .. }) {
        parts.kind = ProgramKind::Memory { mem_len };
    }
    Program::new(parts).map_err(|error| Failure::new(Exit::Object, error.to_string()))
}

/// What a bare program's child found.
fn in_child(args: &RunArgs, text: &str) -> Result<u64, Failure> {
    let (output, errors) = start_child(args, text)?;
    let r0 = output
        .trim()
        .strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    r0.ok_or_else(|| {
        let said = errors.trim().trim_start_matches("upatch: ");
        Failure::new(
            Exit::Object,
            if said.is_empty() {
                "the program did not run"
            } else {
                said
            }
            .to_owned(),
        )
    })
}

/// Starts this program again with the same arguments, and `text` on its standard input. Gives what it printed.
pub(super) fn start_child(args: &RunArgs, text: &str) -> Result<(String, String), Failure> {
    let internal = |what: &str, error: std::io::Error| {
        Failure::new(Exit::Internal, format!("{what}: {error}"))
    };
    let mut child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1).filter(|arg| arg != "--json"))
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| internal("can't start the child process", error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that died early says so by its status.
        let _ = stdin.write_all(text.as_bytes());
    }
    // Both pipes are read while it runs: a report longer than a pipe holds would keep it from ending.
    let output = child.stdout.take().map(collect);
    let errors = child.stderr.take().map(collect);
    let status = wait(&mut child, Duration::from_millis(args.time_limit))
        .map_err(|error| internal("can't wait for the child process", error))?;
    let Some(status) = status else {
        return Err(Failure::new(
            Exit::Object,
            format!("the program did not end within {} ms", args.time_limit),
        )
        .hint("raise --time-limit if it is meant to run that long"));
    };
    if let Some(signal) = status.signal() {
        return Err(Failure::new(
            Exit::Object,
            format!("the program was ended by signal {signal}"),
        )
        .hint("it read or wrote memory that isn't there; `upatch verify --raw` may say where"));
    }
    let text = |pipe: Option<std::thread::JoinHandle<String>>| {
        pipe.and_then(|pipe| pipe.join().ok()).unwrap_or_default()
    };
    Ok((text(output), text(errors)))
}

fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits at most `limit`, then kills. `None`: it was killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn interpreted(raw: &RawProgram, memory: Vec<u8>) -> Result<u64, Failure> {
    let input = Input {
        memory,
        step_limit: STEP_LIMIT,
        ..Input::default()
    };
    let output = Machine::raw(raw).run(&input, &mut World::default());
    output
        .r0
        .map_err(|fault| Failure::new(Exit::Object, fault.to_string()))
}

fn native(raw: &RawProgram, mut memory: Vec<u8>) -> Result<u64, Failure> {
    let mut code = upatch_jit::compile_raw(raw);
    if let Some(name) = code.extern_names.first() {
        return Err(Failure::new(
            Exit::Object,
            format!("the program calls `{name}` of an application; there is none here"),
        ));
    }
    let mut private_data =
        vec![0_u64; usize::try_from(code.private_bytes.div_ceil(8)).unwrap_or(0)];
    if let Some(seed) = private_data.get_mut(usize::try_from(private::RANDOM / 8).unwrap_or(0)) {
        *seed = 1;
    }
    let private_base = private_data.as_ptr() as u64;
    for fixup in std::mem::take(&mut code.fixups) {
        let value = match fixup.kind {
            FixupKind::Private(offset) => private_base + offset,
            // A raw program has no arena, no site and nowhere to continue; its externs were refused above.
            FixupKind::Arena(_)
            | FixupKind::Continue
            | FixupKind::Extern(_)
            | FixupKind::Site
            | FixupKind::Gate => 0,
        };
        if let Some(field) = code.bytes.get_mut(fixup.at..fixup.at + 8) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }
    execute(&code.bytes, &mut memory)
        .map_err(|error| Failure::new(Exit::Internal, format!("can't map the code: {error}")))
}
