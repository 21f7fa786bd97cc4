//! `upatch run OBJECT`: what it says about a patch is what the patch does.

use std::path::Path;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use upatch_tests::upatch::run_json;

use super::{CLAMP, build, case, refused};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("rehearsal::verdicts", verdicts),
        case("rehearsal::memory", memory),
        case("rehearsal::functions", functions),
        case("rehearsal::changing_helpers", changing_helpers),
        case("rehearsal::usage", usage),
        case("rehearsal::unverifiable", unverifiable),
    ]
}

/// Reads its second argument, and writes what it read into a variable.
const READER: &str = r#"
#include "upatch.h"
UPATCH_COUNTER(__s64, result);
char __arena copy[32];
SEC("upatch/exe:work") int UPATCH(reader, int x, const void *from)
{
	char buffer[32] = {};
	long got = x ? bpf_probe_read_user_str(buffer, sizeof(buffer), from) : bpf_probe_read_user(buffer, 16, from);
	result = got;
	for (int i = 0; i < 32; i++)
		copy[i] = buffer[i];
	return UPATCH_CONTINUE;
}
"#;

const CALLER: &str = r#"
#include "upatch.h"
extern int lookup(int key, unsigned char kind) __ksym;
SEC("upatch/exe:work") int UPATCH(caller, int x)
{
	int sum = lookup(x, 255) + lookup(x + 1, 2);
	if (sum < 0) {
		upatch_set_errno(22);
		return upatch_return(ctx, sum);
	}
	ctx->di = sum;
	return UPATCH_CONTINUE;
}
"#;

const CLOCK: &str = r#"
#include "upatch.h"
UPATCH_COUNTER(__u64, when);
SEC("upatch/exe:work") int UPATCH(stamp, int x)
{
	when = bpf_ktime_get_ns();
	return UPATCH_CONTINUE;
}
"#;

fn run(object: &Path, arguments: &[&str]) -> Result<Value> {
    let object = object.to_string_lossy();
    let all = [&["run", &*object], arguments].concat();
    let (code, value) = run_json(&all)?;
    ensure!(code == 0, "{arguments:?} exited with {code}: {value:#}");
    Ok(value)
}

fn verdicts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let clamp = build(folder.path(), "clamp", CLAMP)?;
    for engine in ["both", "jit", "interp"] {
        let ran = run(&clamp, &["--arg", "1=500", "--engine", engine])?;
        ensure!(
            ran["verdict"] == "return" && ran["result"] == "0xfffffffffffffff2",
            "{ran:#}"
        );
        ensure!(
            ran["registers"] == json!({"rax": {"old": "0x0", "new": "0xfffffffffffffff2"}}),
            "{ran:#}"
        );
        ensure!(
            ran["globals"] == json!({"hits": {"old": 0, "new": 1}}),
            "{ran:#}"
        );
        ensure!(ran["steps"].is_null() == (engine == "jit"), "{ran:#}");
        ensure!(
            (ran["engines_agree"] == true) == (engine == "both"),
            "{ran:#}"
        );
        let others = [
            "--reg",
            "rbx=0x1_0000",
            "--reg",
            "r15=-1",
            "--reg",
            "rsi=77",
        ];
        let ran = run(
            &clamp,
            &[&["--reg", "rdi=5", "--engine", engine], &others[..]].concat(),
        )?;
        ensure!(
            ran["verdict"] == "continue" && ran["result"].is_null(),
            "{ran:#}"
        );
        ensure!(ran["registers"] == json!({}), "{ran:#}");
        for rule in ["longest=500", "mode=OFF"] {
            let ran = run(
                &clamp,
                &["--arg", "1=500", "--rule", rule, "--engine", engine],
            )?;
            ensure!(ran["verdict"] == "continue", "{rule}: {ran:#}");
        }
    }
    Ok(())
}

/// Texts and memory are found where they were put, and nothing is found elsewhere.
fn memory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let reader = build(folder.path(), "reader", READER)?;
    let file = folder.path().join("bytes");
    std::fs::write(&file, b"0123456789abcdefg")?;
    let from_file = format!("2=@{}", file.display());
    let mem_file = format!("0x7000_0ff8=@{}", file.display());
    // (arguments, result, copy)
    let cases: [(&[&str], i64, &str); 8] = [
        (&["--arg", "1=1", "--arg", "2=\"bob\""], 4, "bob"),
        (&["--arg", "1=1", "--arg", "2=\"\""], 1, ""),
        (
            &["--arg", "1=0", "--arg", &from_file],
            0,
            "0123456789abcdef",
        ),
        // A text ends with its page: 16 bytes from there aren't.
        (&["--arg", "1=0", "--arg", "2=\"bob\""], -14, ""),
        (&["--arg", "1=1", "--arg", "2=0x1234"], -14, ""),
        (&["--arg", "1=1", "--arg", "2=0"], -14, ""),
        // Over the border of two pages.
        (
            &[
                "--arg",
                "1=0",
                "--reg",
                "rsi=0x70000ff8",
                "--mem",
                &mem_file,
            ],
            0,
            "0123456789abcdef",
        ),
        (
            &[
                "--arg",
                "1=1",
                "--reg",
                "rsi=0x70000002",
                "--mem",
                "0x70000000=4142 4344 00",
            ],
            3,
            "CD",
        ),
    ];
    for (arguments, result, copy) in cases {
        let ran = run(&reader, arguments)?;
        let globals = &ran["globals"];
        let got = globals["result"]["new"].as_i64().unwrap_or(0);
        ensure!(got == result, "{arguments:?}: {ran:#}");
        let got = globals["copy"]["new"].as_str().unwrap_or("");
        ensure!(got == copy, "{arguments:?}: {ran:#}");
        ensure!(ran["memory_written"] == false, "{ran:#}");
    }
    Ok(())
}

fn functions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let caller = build(folder.path(), "caller", CALLER)?;
    let ran = run(&caller, &["--arg", "1=7", "--extern", "lookup=5,9"])?;
    ensure!(
        ran["verdict"] == "continue" && ran["registers"]["rdi"]["new"] == "0xe",
        "{ran:#}"
    );
    let calls = json!([
        {"name": "lookup", "arguments": ["0x7", "0xff"], "result": "0x5"},
        {"name": "lookup", "arguments": ["0x8", "0x2"], "result": "0x9"},
    ]);
    ensure!(ran["calls"] == calls && ran["errno"].is_null(), "{ran:#}");
    // The last result repeats.
    let ran = run(&caller, &["--extern", "lookup=-3"])?;
    ensure!(
        ran["verdict"] == "return" && ran["result"] == "0xfffffffffffffffa" && ran["errno"] == 22,
        "{ran:#}"
    );
    let object = caller.to_string_lossy();
    refused(&["run", &object], 2, &["lookup", "--extern lookup=RESULT"])?;
    refused(
        &["run", &object, "--extern", "look=1"],
        2,
        &["look=1", "lookup"],
    )?;
    Ok(())
}

/// Time passes between the engines: said, not taken for a difference.
fn changing_helpers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = build(folder.path(), "clock", CLOCK)?;
    let ran = run(&clock, &[])?;
    ensure!(ran["engines_agree"].is_null(), "{ran:#}");
    ensure!(ran["globals"]["when"]["new"].as_u64() > Some(0), "{ran:#}");
    Ok(())
}

fn usage() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let clamp = build(folder.path(), "clamp", CLAMP)?;
    let object = clamp.to_string_lossy().into_owned();
    let cases: [(&[&str], &[&str]); 14] = [
        (&["--reg", "rdi"], &["`=` is missing"]),
        (&["--reg", "edi=1"], &["no such register", "r15"]),
        (&["--reg", "rsp=1"], &["the stack"]),
        (&["--reg", "rdi=x"], &["not a number"]),
        (&["--arg", "0=1"], &["no such argument"]),
        (&["--arg", "7=1"], &["no such argument"]),
        (&["--arg", "1=\"bob"], &["closing quote"]),
        (&["--arg", "1=@/nonexistent"], &["/nonexistent"]),
        (&["--mem", "0x70000000=zz"], &["hexadecimal"]),
        (&["--mem", "0=00"], &["can't be laid out"]),
        (
            &["--mem", "0xffffffffffffffff=0000"],
            &["can't be laid out"],
        ),
        (&["--mem", "0x400000000000=00"], &["can't be laid out"]),
        (&["--program", "nosuch"], &["nosuch", "clamp"]),
        (&["--extern", "f=1"], &["no such function"]),
    ];
    for (arguments, says) in cases {
        let all = [&["run", &*object], arguments].concat();
        refused(&all, 2, says)?;
    }
    refused(&["run"], 2, &["nothing to run", "--raw"])?;
    refused(&["run", "--raw", "--arg", "1=2"], 2, &["--raw"])?;
    refused(&["run", "/nonexistent.o"], 2, &["/nonexistent.o"])?;
    Ok(())
}

/// What can't be proven isn't run.
fn unverifiable() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("five.c");
    let object = folder.path().join("five.o");
    std::fs::write(
        &source,
        "#include \"upatch.h\"\nSEC(\"upatch/exe:work\") int UPATCH(five, long x)\n{\n\treturn 5;\n}\n",
    )?;
    super::compile_unverified(&source, &object)?;
    let object = object.to_string_lossy();
    refused(&["run", &object], 3, &["five.c"])?;
    refused(&["verify", &object], 3, &["five.c"])?;
    Ok(())
}
