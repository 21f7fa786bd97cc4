//! What the test programs share: case files, and assembly text turned into bytes at an address.
//!
//! A case file holds cases of the form
//!
//! ```text
//! === name
//! -- key value
//! instructions in GNU as, Intel syntax
//! ```
//!
//! The assembler and linker are those that every Rust installation links with.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) keys: Vec<(String, String)>,
    pub(crate) asm: String,
}

impl Case {
    /// The value of `key`, if the case has it.
    pub(crate) fn key(&self, key: &str) -> Option<&str> {
        self.keys
            .iter()
            .find(|pair| pair.0 == key)
            .map(|pair| pair.1.as_str())
    }

    /// All values of `key`.
    pub(crate) fn all(&self, key: &str) -> Vec<&str> {
        self.keys
            .iter()
            .filter(|pair| pair.0 == key)
            .map(|pair| pair.1.as_str())
            .collect()
    }
}

/// Reads `tests/cases/NAME`.
pub(crate) fn cases(name: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/cases")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case {
                name: name.to_owned(),
                keys: Vec::new(),
                asm: String::new(),
            });
        } else if let (Some(case), Some(pair)) = (cases.last_mut(), line.strip_prefix("-- ")) {
            let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
            case.keys.push((key.to_owned(), value.trim().to_owned()));
        } else if let Some(case) = cases.last_mut() {
            case.asm.push_str(line);
            case.asm.push('\n');
        }
    }
    cases
}

/// A folder that is removed when it goes out of scope.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Assembles Intel-syntax text for address `at`.
pub(crate) fn assemble(text: &str, at: u64) -> Vec<u8> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("upatch-asm-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let scratch = Scratch(folder);
    let file = |name: &str| scratch.0.join(name);
    std::fs::write(
        file("a.s"),
        format!(".intel_syntax noprefix\n.text\n{text}\n"),
    )
    .unwrap();
    run(
        Command::new("as")
            .arg("--64")
            .arg("-o")
            .arg(file("a.o"))
            .arg(file("a.s")),
        text,
    );
    let origin = format!("-Ttext={at:#x}");
    let mut ld = Command::new("ld");
    ld.args([
        "--no-relax",
        "--oformat",
        "binary",
        "-e",
        "0",
        &origin,
        "-o",
    ])
    .arg(file("a.bin"))
    .arg(file("a.o"));
    run(&mut ld, text);
    std::fs::read(file("a.bin")).unwrap()
}

fn run(command: &mut Command, text: &str) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{text}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Instructions of `bytes` at `at` in AT&T syntax, one per entry.
pub(crate) fn disassemble(bytes: &[u8], at: u64) -> Vec<String> {
    use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
    let mut formatter = GasFormatter::new();
    Decoder::with_ip(64, bytes, at, DecoderOptions::NONE)
        .into_iter()
        .map(|insn| {
            let mut text = String::new();
            formatter.format(&insn, &mut text);
            text
        })
        .collect()
}

/// Hex digits, blanks allowed.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}
