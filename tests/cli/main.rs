//! The command line as its users meet it when something is wrong: exit code, the one JSON object, and the target unharmed.
//!
//! What patches do to programs is tested elsewhere (samples, live). Here each case misuses `upatch`, or interrupts it, and
//! then looks at the target: it answers as before, and its memory map and descriptors are as before.

mod inspect;
mod kernel;
mod many;
mod objects;
mod refusals;
mod rehearsal;
mod run;
mod several;
mod target;
mod tools;
mod traces;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use upatch_tests::child::{Answer, Driver};
use upatch_tests::upatch::run_json;

/// Refuses calls with arguments above a rule, and counts.
const CLAMP: &str = r#"
#include "upatch.h"
enum mode { OFF, ON = 5 };
struct pair { __u16 low; __s8 high; };
UPATCH_RULE(int, longest) = 100;
UPATCH_RULE(enum mode, mode) = ON;
UPATCH_COUNTER(__u64, hits);
char __arena text[8] = "hello";
struct pair __arena pairs[2] = {{1, -2}, {3, 4}};
SEC("upatch/exe:work") int UPATCH(clamp, int x)
{
	UPATCH_INC(hits);
	if (mode == ON && x > longest && text[0] == 'h' && pairs[1].high == 4)
		return upatch_return(ctx, -14);
	return UPATCH_CONTINUE;
}
"#;

fn case(name: &'static str, run: fn() -> Result<()>) -> Trial {
    Trial::test(name, move || {
        run().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = target::trials();
    trials.extend(kernel::trials());
    trials.extend(objects::trials());
    trials.extend(several::trials());
    trials.extend(many::trials());
    trials.extend(run::trials());
    trials.extend(refusals::trials());
    trials.extend(rehearsal::trials());
    trials.extend(tools::trials());
    trials.extend(inspect::trials());
    trials.extend(traces::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

/// A running victim, a folder, and the patch for it.
struct Scene {
    driver: Driver,
    build_id: String,
    patch: PathBuf,
    folder: tempfile::TempDir,
    maps: String,
    text: Vec<u8>,
    descriptors: usize,
}

impl Scene {
    /// Compiles and starts the victim with these arguments, and builds the patch.
    fn new(arguments: &[&str]) -> Result<Self> {
        Self::of("cli", arguments)
    }

    /// The same of another victim that has a `work`.
    fn of(victim: &str, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("victim");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("victims/{victim}.c"));
        let status = Command::new("gcc")
            .args(["-O2", "-Wall", "-pthread", "-Wl,--build-id=sha1", "-o"])
            .args([&program, &source])
            .status()
            .context("running gcc")?;
        ensure!(status.success(), "gcc failed");
        let patch = build(folder.path(), "clamp", CLAMP)?;
        let driver = Driver::spawn(Command::new(&program).args(arguments))?;
        let mut scene = Self {
            driver,
            build_id: String::new(),
            patch,
            folder,
            maps: String::new(),
            text: Vec::new(),
            descriptors: 0,
        };
        // The refusal without a build-id lists those there are.
        let refused = scene.refused(&["apply", scene.object()], 4, &["no build-id given"])?;
        let listed = refused["message"]
            .as_str()
            .and_then(|text| text.lines().nth(1))
            .unwrap_or_default();
        scene.build_id = listed
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        ensure!(
            scene.build_id.len() == 40,
            "no build-id is listed: {refused:#}"
        );
        (scene.maps, scene.descriptors) = (scene.maps()?, scene.descriptors()?);
        scene.text = scene.text()?;
        Ok(scene)
    }

    fn object(&self) -> &str {
        self.patch.to_str().unwrap_or_default()
    }

    fn pid(&self) -> String {
        self.driver.pid().to_string()
    }

    /// `upatch ARGUMENTS --pid PID --json`.
    fn upatch(&self, arguments: &[&str]) -> Result<(i32, Value)> {
        let pid = self.pid();
        let mut all = arguments.to_vec();
        all.extend(["--pid", &pid]);
        run_json(&all)
    }

    fn done(&self, arguments: &[&str]) -> Result<Value> {
        let (code, value) = self.upatch(arguments)?;
        ensure!(
            code == 0 && value["ok"] == true,
            "{arguments:?} exited with {code}: {value:#}"
        );
        Ok(value)
    }

    fn refused(&self, arguments: &[&str], code: i32, says: &[&str]) -> Result<Value> {
        let pid = self.pid();
        let mut all = arguments.to_vec();
        all.extend(["--pid", &pid]);
        refused(&all, code, says)
    }

    fn apply(&self) -> Result<Value> {
        self.done(&["apply", "--build-id", &self.build_id, self.object()])
    }

    /// The victim refuses large arguments, or it doesn't; small ones it answers rightly either way.
    fn is_patched(&mut self) -> Result<bool> {
        let small = self.driver.ask("5")?;
        ensure!(small == Answer::line("87"), "work(5) is {small}");
        match self.driver.ask("500")? {
            Answer::Line(line) if line == "-14" => Ok(true),
            Answer::Line(line) if line == "1007" => Ok(false),
            other => anyhow::bail!("work(500) is {other}"),
        }
    }

    /// Nothing of upatch is in the victim, and it works.
    fn unharmed(&mut self) -> Result<()> {
        ensure!(!self.is_patched()?, "the victim is still patched");
        let (maps, before) = (self.maps()?, &self.maps);
        ensure!(
            maps == *before,
            "the memory map differs:\n{before}\nand now:\n{maps}"
        );
        ensure!(
            self.descriptors()? == self.descriptors,
            "descriptors stay open in the victim"
        );
        ensure!(self.text()? == self.text, "the victim's code differs");
        Ok(())
    }

    /// Every byte of its code is as before.
    fn untouched(&mut self) -> Result<()> {
        self.unharmed()
    }

    /// All executable bytes of its files.
    fn text(&self) -> Result<Vec<u8>> {
        upatch_tests::child::text_of(self.driver.pid())
    }

    fn maps(&self) -> Result<String> {
        // The victim's heap comes with its first answers; what is checked is whether anything of ours is there.
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        Ok(maps
            .lines()
            .filter(|line| !line.ends_with("[heap]"))
            .map(|line| format!("{line}\n"))
            .collect())
    }

    fn descriptors(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }
}

/// Builds a patch from its text.
fn build(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let (source, object) = (
        folder.join(format!("{name}.c")),
        folder.join(format!("{name}.o")),
    );
    std::fs::write(&source, text)?;
    upatch_tests::upatch::succeed(&[
        OsStr::new("build"),
        source.as_os_str(),
        OsStr::new("-o"),
        object.as_os_str(),
    ])?;
    Ok(object)
}

/// Insists that `upatch` fails with this code and the contract's object, whose texts contain `says`. Gives the error.
fn refused(arguments: &[&str], code: i32, says: &[&str]) -> Result<Value> {
    let (exit, value) = run_json(arguments)?;
    is_refusal(exit, &value, code, says)
        .with_context(|| format!("upatch {}", arguments.join(" ")))?;
    Ok(value["error"].clone())
}

fn is_refusal(exit: i32, value: &Value, code: i32, says: &[&str]) -> Result<()> {
    let error = &value["error"];
    ensure!(
        exit == code,
        "exited with {exit} instead of {code}: {value:#}"
    );
    ensure!(
        value["ok"] == false && error["code"] == code,
        "not the contract's object: {value:#}"
    );
    let members: Vec<_> = error
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .collect();
    ensure!(
        members == ["code", "message", "where", "hint"],
        "not the contract's members: {value:#}"
    );
    let all = error.to_string();
    for text in says {
        ensure!(all.contains(text), "`{text}` is not said: {value:#}");
    }
    Ok(())
}

/// An object that `upatch build` would refuse to write: compiled as it does, but not verified.
fn compile_unverified(source: &Path, object: &Path) -> Result<()> {
    let clang = std::env::var_os("UPATCH_CLANG").unwrap_or_else(|| "clang-19".into());
    let header = tempfile::tempdir()?;
    std::fs::write(header.path().join("upatch.h"), upatch_abi::UPATCH_H)?;
    let mut command = Command::new(clang);
    command
        .args(["-target", "bpf", "-mcpu=v4", "-O2", "-g", "-fno-builtin"])
        .args(["-idirafter", "/usr/include/x86_64-linux-gnu", "-isystem"])
        .arg(header.path())
        .arg("-c")
        .arg("-o")
        .args([object, source]);
    let status = command.status().context("running clang")?;
    ensure!(status.success(), "clang failed");
    Ok(())
}
