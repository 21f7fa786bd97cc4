//! `upatch run` and `verify --raw`: programs that are no patches.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use upatch_tests::upatch::{run_json, upatch};

use super::{case, is_refusal, refused};

/// `r0 = 42; exit`
const ANSWER: &str = "b7000000 2a000000 95000000 00000000";
/// `r0 = *(u64 *)(r1 + 0); exit`
const LOAD: &str = "7910000000000000 9500000000000000";
/// A jump to itself.
const FOREVER: &str = "0500ffff00000000 9500000000000000";
/// `r0 = 0; r0 = *(u64 *)(r0 + 0); exit`
const NULL: &str = "b700000000000000 7900000000000000 9500000000000000";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("run::raw", raw),
        case("run::cases", cases),
        case("run::verify_raw", verify_raw),
    ]
}

/// `upatch run --raw` with this on standard input.
fn run(program: &[u8], arguments: &[&str]) -> Result<(i32, Value)> {
    let mut child = upatch()
        .args(["run", "--json", "--raw"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no pipe")?.write_all(program)?;
    let output = child.wait_with_output()?;
    let value = serde_json::from_slice(&output.stdout).context("no JSON")?;
    Ok((output.status.code().unwrap_or(-1), value))
}

fn raw() -> Result<()> {
    let limit = ["--time-limit", "300"];
    for engine in ["jit", "interp"] {
        let engine = ["--engine", engine];
        let ran = run(ANSWER.as_bytes(), &engine)?;
        ensure!(ran.0 == 0 && ran.1["r0"] == "0x2a", "{ran:?}");
        let ran = run(LOAD.as_bytes(), &["8877665544332211", engine[0], engine[1]])?;
        ensure!(ran.0 == 0 && ran.1["r0"] == "0x1122334455667788", "{ran:?}");
        let (code, value) = run(FOREVER.as_bytes(), &[limit, engine].concat())?;
        is_refusal(code, &value, 3, &["300 ms", "--time-limit"])?;
        let (code, value) = run(NULL.as_bytes(), &engine)?;
        is_refusal(code, &value, 3, &[])?;
    }
    let wrong: [(&[u8], i32, &str); 6] = [
        (b"", 3, "no instructions"),
        (b"zz", 2, "hexadecimal"),
        (b"b70", 2, "odd"),
        (b"\xff\xfe", 2, "standard input"),
        (b"b7000000", 3, "8-byte"),
        (b"ffffffffffffffff", 3, "r15"),
    ];
    for (program, code, says) in wrong {
        let (exit, value) = run(program, &[])?;
        is_refusal(exit, &value, code, &[says])?;
    }
    let (exit, value) = run(LOAD.as_bytes(), &["112"])?;
    is_refusal(exit, &value, 2, &["odd"])
}

/// One of each folder's letter is enough here: all of them run in `conformance`.
fn cases() -> Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/bpf");
    let mut ran = 0;
    let mut last = None;
    let mut files: Vec<_> = std::fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in files {
        let letter = file.file_name().to_string_lossy().chars().next();
        let text = std::fs::read_to_string(file.path())?;
        let Some((_, result)) = text.split_once("-- result\n") else {
            continue;
        };
        if std::mem::replace(&mut last, letter) == letter {
            continue;
        }
        let word = result.split_whitespace().next().unwrap_or_default();
        let (code, value) = run_json(&["run", "--case", &file.path().to_string_lossy()])?;
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
        ensure!(code == 0, "{}: {value:#}", file.path().display());
        ensure!(
            number(value["r0"].as_str().unwrap_or_default())? == number(word)?,
            "{}: {value:#}, and not {word}",
            file.path().display()
        );
        ran += 1;
    }
    ensure!(ran >= 10, "only {ran} cases");
    Ok(())
}

fn verify_raw() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.to_string_lossy().into_owned())
    };
    let good = write("good", b"\xb7\0\0\0\x2a\0\0\0\x95\0\0\0\0\0\0\0")?;
    let unset = write("unset", b"\x95\0\0\0\0\0\0\0")?;
    let odd = write("odd", b"\xb7\0\0\0\x2a\0\0\0\x95\0\0")?;
    let (code, value) = run_json(&["verify", "--raw", &good, &good])?;
    ensure!(
        code == 0
            && value["files"]
                .as_array()
                .is_some_and(|files| files.len() == 2),
        "{value:#}"
    );
    refused(
        &["verify", "--raw", &good, &unset, &good],
        3,
        &["r0", "unset"],
    )?;
    refused(&["verify", "--raw", &good, &odd], 3, &["odd"])?;
    refused(&["verify", "--raw", "--mem", "x", &good], 2, &["--mem"])?;
    Ok(())
}
