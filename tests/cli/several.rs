//! Several patches in one object: all at once, in every module, or not at all, wherever `upatch` is killed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use upatch::patching::inspect;
use upatch::patching::record::{Hex, Membership, RecordState};
use upatch::process::Process;
use upatch::target::TargetImage;
use upatch_tests::child::{Answer, Driver, text_of};
use upatch_tests::upatch::{run_json, upatch};

use super::{build, case};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("several::three_modules_at_once", three_modules_at_once),
        case("several::one_refused_refuses_all", one_refused_refuses_all),
        case("several::gate_and_kills", gate_and_kills),
        case("several::contested", contested),
        case("several::unloaded", unloaded),
        case("several::writes_that_fail", writes_that_fail),
        case("several::retired", retired),
        case("several::forged_records", forged_records),
    ]
}

const HEAD: &str =
    "#include \"upatch.h\"\nUPATCH_COUNTER(__u64, hits);\nUPATCH_RULE(__u64, on) = 1;\n";

/// One patch of the object: answers 4242 and counts.
fn answer(section: &str, name: &str) -> String {
    format!(
        "SEC(\"{section}\") int UPATCH({name}, int x)\n{{\n\tif (!on)\n\t\treturn UPATCH_CONTINUE;\n\tUPATCH_INC(hits);\n\t\
         return upatch_return(ctx, 4242);\n}}\n"
    )
}

/// A running victim with three modules to patch, and their build-ids.
pub(crate) struct Modules {
    pub(crate) driver: Driver,
    pub(crate) ids: Vec<String>,
    pub(crate) folder: tempfile::TempDir,
    maps: String,
    text: Vec<u8>,
}

impl Modules {
    /// Compiles and starts it; with any argument it has no threads.
    pub(crate) fn new(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let victims = Path::new(env!("CARGO_MANIFEST_DIR")).join("victims");
        let compile = |arguments: &[&str]| -> Result<()> {
            let status = Command::new("gcc")
                .args(["-O2", "-Wall", "-Wl,--build-id=sha1", "-pthread"])
                .args(arguments)
                .current_dir(folder.path())
                .status()
                .context("running gcc")?;
            ensure!(status.success(), "gcc failed");
            Ok(())
        };
        let source = |name: &str| victims.join(name).display().to_string();
        // Named after the folder, so that no two tests share a build-id: the path is in the debug information.
        let lib = source("several_lib.c");
        let unique = format!("-DUNIQUE=\"{}\"", folder.path().display());
        compile(&[
            "-g3",
            &unique,
            "-shared",
            "-fPIC",
            "-o",
            "libsecond.so",
            &lib,
        ])?;
        let program = source("several.c");
        compile(&[
            "-o",
            "victim",
            &program,
            "-L.",
            "-lsecond",
            "-Wl,-rpath,$ORIGIN",
        ])?;
        let driver = Self::another(folder.path(), arguments)?;
        let mut modules = Self {
            driver,
            ids: Vec::new(),
            folder,
            maps: String::new(),
            text: Vec::new(),
        };
        modules.ids = modules.build_ids(&["exe", "libsecond.so", "libc.so.6"])?;
        modules.maps = modules.read_maps()?;
        modules.text = text_of(modules.driver.pid())?;
        Ok(modules)
    }

    /// One more process of the same program.
    pub(crate) fn another(folder: &Path, arguments: &[&str]) -> Result<Driver> {
        Driver::spawn(Command::new(folder.join("victim")).args(arguments))
    }

    pub(crate) fn build_ids(&self, modules: &[&str]) -> Result<Vec<String>> {
        let process = Process::open(self.driver.pid().try_into()?)?;
        let image = TargetImage::snapshot(&process)?;
        let id = |name: &&str| {
            let module = image.modules().iter().find(|module| module.is_called(name));
            let id = module.context("no such module")?.id().build_id;
            Ok(id.context("no build-id")?.to_string())
        };
        modules.iter().map(id).collect()
    }

    /// Builds an object.
    pub(crate) fn object(&self, name: &str, programs: &[(&str, &str)]) -> Result<String> {
        let mut text = HEAD.to_owned();
        for (section, program) in programs {
            text += &answer(section, program);
        }
        let object = build(self.folder.path(), name, &text)?;
        Ok(object.display().to_string())
    }

    /// The object that patches all three.
    pub(crate) fn three(&self) -> Result<String> {
        self.object(
            "three",
            &[
                ("upatch/exe:first", "in_program"),
                ("upatch/libsecond.so:second", "in_library"),
                ("upatch/libc.so.6:getppid", "in_libc"),
            ],
        )
    }

    pub(crate) fn pid(&self) -> String {
        self.driver.pid().to_string()
    }

    /// `apply … --build-id …` for all modules.
    pub(crate) fn words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let mut all = words.to_vec();
        if words.first() == Some(&"apply") {
            for id in &self.ids {
                all.extend(["--build-id", id]);
            }
        }
        all
    }

    fn upatch(&self, words: &[&str]) -> Result<(i32, Value)> {
        let pid = self.pid();
        let mut all = self.words(words);
        all.extend(["--pid", &pid]);
        run_json(&all)
    }

    fn done(&self, words: &[&str]) -> Result<Value> {
        let (code, value) = self.upatch(words)?;
        ensure!(
            code == 0 && value["ok"] == true,
            "{words:?}: {code} {value:#}"
        );
        Ok(value)
    }

    fn refused(&self, words: &[&str], code: i32, says: &[&str]) -> Result<()> {
        let (exit, value) = self.upatch(words)?;
        super::is_refusal(exit, &value, code, says)
    }

    /// Which of the three are patched.
    fn answers(&mut self) -> Result<String> {
        match self.driver.ask("p")? {
            Answer::Line(line) => Ok(line),
            other => anyhow::bail!("the victim: {other}"),
        }
    }

    /// Changes that its threads saw, and calls that they made.
    fn seen(&mut self) -> Result<(u64, u64)> {
        let Answer::Line(line) = self.driver.ask("s")? else {
            anyhow::bail!("the victim is gone");
        };
        let (changes, calls) = line.split_once(' ').context("two numbers")?;
        Ok((changes.parse()?, calls.parse()?))
    }

    fn read_maps(&self) -> Result<String> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        let lines = maps.lines().filter(|line| !line.ends_with("[heap]"));
        Ok(lines.map(|line| format!("{line}\n")).collect())
    }

    pub(crate) fn unharmed(&mut self) -> Result<()> {
        ensure!(self.answers()? == "0 0 0", "still patched");
        let maps = self.read_maps()?;
        ensure!(maps == self.maps, "before:\n{}\nnow:\n{maps}", self.maps);
        ensure!(
            text_of(self.driver.pid())? == self.text,
            "the victim's code differs"
        );
        Ok(())
    }
}

fn three_modules_at_once() -> Result<()> {
    let mut victim = Modules::new(&[])?;
    let object = victim.three()?;
    let dry = victim.done(&["apply", "--dry-run", &object])?;
    ensure!(
        dry["sites"]
            .as_array()
            .is_some_and(|sites| sites.len() == 3),
        "{dry:#}"
    );
    victim.unharmed()?;
    let applied = victim.done(&["apply", &object])?;
    ensure!(
        victim.answers()? == "1 1 1",
        "not all are patched: {applied:#}"
    );
    let functions = |value: &Value| -> Vec<String> {
        let sites = value["sites"].as_array().into_iter().flatten();
        sites
            .map(|site| site["function"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    ensure!(
        functions(&applied) == ["first", "second", "getppid"],
        "{applied:#}"
    );
    let status = victim.done(&["status"])?;
    let patches = status["patches"].as_array().context("no patches")?;
    ensure!(
        patches.len() == 1 && patches[0]["state"] == "applied",
        "{status:#}"
    );
    ensure!(patches[0]["function"] == "first", "{status:#}");
    ensure!(
        functions(&patches[0]) == ["first", "second", "getppid"],
        "{status:#}"
    );
    victim.refused(&["apply", &object], 5, &["applied", "--patch"])?;
    let dump = victim.done(&["telemetry", "dump"])?;
    ensure!(
        dump["patches"].as_array().is_some_and(|all| all.len() == 1),
        "{dump:#}"
    );
    let hits = dump["patches"][0]["hits"].as_u64().context("no hits")?;
    ensure!(hits >= 3, "{dump:#}");
    // A forked child has a gate of its own, open like its parent's.
    ensure!(
        victim.driver.ask("f")? == Answer::line("1 1 1"),
        "a child isn't patched"
    );
    let reverted = victim.done(&["revert"])?;
    ensure!(
        reverted["patches"][0]["outcome"] == "reverted",
        "{reverted:#}"
    );
    ensure!(
        functions(&reverted["patches"][0]).len() == 3,
        "{reverted:#}"
    );
    victim.unharmed()
}

fn one_refused_refuses_all() -> Result<()> {
    let mut victim = Modules::new(&[])?;
    let first = ("upatch/exe:first", "in_program");
    let missing = victim.object(
        "missing",
        &[first, ("upatch/libsecond.so:third", "nowhere")],
    )?;
    victim.refused(&["apply", &missing], 4, &["third"])?;
    let twice = victim.object("twice", &[first, ("upatch/victim:first", "again")])?;
    victim.refused(&["apply", &twice], 5, &["too close together"])?;
    let three = victim.three()?;
    let (words, says) = (["apply", &*three, "--function", "first"], ["3 programs"]);
    victim.refused(&words, 2, &says)?;
    victim.refused(&["apply", &three, "--offset", "0x1000"], 2, &says)?;
    victim.unharmed()?;
    // One of them is patched already.
    let second = victim.object("second", &[("upatch/libsecond.so:second", "alone")])?;
    victim.done(&["apply", &second])?;
    victim.refused(&["apply", &three], 5, &["is applied at"])?;
    ensure!(victim.answers()? == "0 1 0", "a refused patch is there");
    victim.done(&["revert"])?;
    victim.unharmed()
}

/// Threads never see one function patched and the other not for longer than the gate takes, whatever is killed when.
fn gate_and_kills() -> Result<()> {
    let mut victim = Modules::new(&[])?;
    let object = victim.three()?;
    let pid = victim.pid();
    let mut switched = 0;
    for _ in 0..5 {
        victim.done(&["apply", &object])?;
        victim.done(&["revert"])?;
        switched += 2;
    }
    let places = [
        ("apply", "mapped:2", "0 0 0"),
        ("apply", "code-written:3", "0 0 0"),
        ("apply", "prepared:2", "0 0 0"),
        ("apply", "poked:1", "0 0 0"),
        ("apply", "poked:2", "0 0 0"),
        ("apply", "poked:3", "0 0 0"),
        ("apply", "gate-opened", "1 1 1"),
        ("apply", "resumed", "1 1 1"),
        ("revert", "stopped", "1 1 1"),
        ("revert", "gate-closed", "0 0 0"),
        ("revert", "poked:1", "0 0 0"),
        ("revert", "poked:3", "0 0 0"),
        ("revert", "partly-unmapped:1", "0 0 0"),
        ("revert", "partly-unmapped:3", "0 0 0"),
        ("revert", "image-unmapped:2", "0 0 0"),
        ("revert", "image-unmapped:3", "0 0 0"),
    ];
    for (round, (command, point, answers)) in places.iter().flat_map(|p| [p, p]).enumerate() {
        if *command == "revert" {
            victim.done(&["apply", &object])?;
            switched += 1;
        }
        let words: &[&str] = if *command == "apply" {
            &["apply", &object]
        } else {
            &["revert"]
        };
        let status = upatch()
            .args(victim.words(words))
            .args(["--pid", &pid])
            .env("UPATCH_FAILPOINT", point)
            .output()?
            .status;
        ensure!(status.code().is_none(), "{command} reached no {point}");
        let now = victim.answers()?;
        ensure!(now == *answers, "{command} killed at {point}: {now}");
        switched += u64::from((*command == "apply") == (*answers == "1 1 1"));
        let status = victim.done(&["status"])?;
        let state = &status["patches"][0]["state"];
        let half = ["poked:1", "poked:2", "gate-closed"].contains(point)
            || *command == "apply" && *point == "poked:3";
        ensure!(
            (state == "interrupted") == half && (state == "applied") == (*answers == "1 1 1"),
            "{command} killed at {point}: {status:#}"
        );
        if half {
            // It can't be explained away by planning for it.
            victim.refused(&["apply", "--dry-run", &object], 5, &["interrupted"])?;
        }
        // The next command finishes it, by turns an apply and a revert.
        if round % 2 == 0 && *answers == "0 0 0" {
            let applied = victim.done(&["apply", &object])?;
            ensure!(
                applied["finished"]
                    .as_array()
                    .is_some_and(|all| all.len() == usize::from(half)),
                "{applied:#}"
            );
            ensure!(victim.answers()? == "1 1 1", "not applied after {point}");
            victim.done(&["revert"])?;
            switched += 2;
        } else {
            victim.done(&["revert"])?;
            switched += u64::from(*answers == "1 1 1");
        }
        victim
            .unharmed()
            .with_context(|| format!("after {command} was killed at {point}"))?;
    }
    let (changes, calls) = victim.seen()?;
    // Each thread sees each switch once at most; were a transaction visible half, it would see thousands.
    ensure!(
        changes <= 2 * switched && changes > switched / 4 && calls > 10_000,
        "{changes} changes in {calls} calls of 2 threads, {switched} switches"
    );
    println!("several: {changes} changes seen in {calls} calls of 2 threads, {switched} switches");
    Ok(())
}

/// Somebody writes over one site: his bytes stay, the patch does nothing any more, the rest comes off when he is gone.
fn contested() -> Result<()> {
    let mut victim = Modules::new(&[])?;
    let object = victim.three()?;
    let applied = victim.done(&["apply", &object])?;
    let site = applied["sites"][1]["site"].as_str().context("no site")?;
    let at = u64::from_str_radix(site.trim_start_matches("0x"), 16)?;
    let process = Process::open(victim.driver.pid().try_into()?)?;
    let jump = process.memory().read_vec(at.into_avma(), 5)?;
    process
        .memory()
        .write(at.into_avma(), &[0x66, 0x90, 0x66, 0x90, 0x90])?;
    victim.refused(&["revert"], 8, &["6690669090"])?;
    let there = process.memory().read_vec(at.into_avma(), 5)?;
    ensure!(there == [0x66, 0x90, 0x66, 0x90, 0x90], "written over");
    let answers = victim.answers()?;
    ensure!(
        answers.starts_with("0 ") && answers.ends_with(" 0"),
        "the others are still patched: {answers}"
    );
    let status = victim.done(&["status"])?;
    ensure!(status["patches"][0]["state"] == "contested", "{status:#}");
    // Again, and an apply: refused, and nothing changes.
    victim.refused(&["revert"], 8, &["6690669090", "does nothing any more"])?;
    ensure!(victim.upatch(&["apply", &object])?.0 == 5, "applied again");
    // The other tool brings our jump back: into an image that does nothing.
    process.memory().write(at.into_avma(), &jump)?;
    ensure!(victim.answers()? == "0 0 0", "live again");
    let status = victim.done(&["status"])?;
    ensure!(status["patches"][0]["state"] == "interrupted", "{status:#}");
    victim.done(&["revert"])?;
    victim.unharmed()?;
    // The original bytes are back at one site: the rest comes off.
    victim.done(&["apply", &object])?;
    let original = {
        let status = victim.done(&["status"])?;
        ensure!(status["patches"][0]["state"] == "applied", "{status:#}");
        let image = TargetImage::snapshot(&process)?;
        let module = image.module_at(at.into_avma()).context("no module")?;
        let file = module.image(&process)?;
        let svma = module.bias().svma(at.into_avma());
        file.at(svma, 5).context("no bytes")?.to_vec()
    };
    process.memory().write(at.into_avma(), &original)?;
    let status = victim.done(&["status"])?;
    ensure!(status["patches"][0]["state"] == "contested", "{status:#}");
    victim.done(&["revert"])?;
    victim.unharmed()
}

/// A library with a site is unloaded while it is patched: the rest comes off, and so does a patch of that library alone.
fn unloaded() -> Result<()> {
    let mut victim = Modules::new(&["quiet"])?;
    let folder = victim.folder.path().display().to_string();
    std::fs::copy(
        format!("{folder}/libsecond.so"),
        format!("{folder}/third.so"),
    )?;
    let section = format!("upatch/{folder}/third.so:second");
    let both = victim.object(
        "both",
        &[("upatch/exe:first", "in_program"), (&section, "in_plugin")],
    )?;
    let one = victim.object("one", &[(&section, "alone")])?;
    for object in [&both, &one] {
        let open = format!("o{folder}/third.so");
        ensure!(
            victim.driver.ask(&open)? == Answer::line("open"),
            "not loaded"
        );
        victim.done(&["apply", object])?;
        ensure!(
            victim.driver.ask("u")? == Answer::line("closed"),
            "not unloaded"
        );
        let status = victim.done(&["status"])?;
        let patch = &status["patches"][0];
        ensure!(
            patch["state"] == "contested" && patch["detail"].to_string().contains("was unloaded"),
            "{status:#}"
        );
        let reverted = victim.done(&["revert"])?;
        ensure!(
            reverted["patches"][0]["outcome"] == "reverted",
            "{reverted:#}"
        );
        ensure!(victim.answers()? == "0 0 0", "still patched");
        let status = victim.done(&["status"])?;
        ensure!(
            status["patches"].as_array().is_some_and(Vec::is_empty),
            "{status:#}"
        );
        ensure!(
            text_of(victim.driver.pid())? == victim.text,
            "the victim's code differs"
        );
    }
    Ok(())
}

/// Writes into the text, or to the gate, fail in the middle: all sites or none, and the next command finishes it.
fn writes_that_fail() -> Result<()> {
    let mut victim = Modules::new(&[])?;
    let object = victim.three()?;
    let pid = victim.pid();
    let with = |victim: &Modules, words: &[&str], fault: &str| -> Result<i32> {
        let status = upatch()
            .args(victim.words(words))
            .args(["--pid", &pid, "--json"])
            .env("UPATCH_FAULT", fault)
            .output()?
            .status;
        status.code().context("killed")
    };
    for fault in ["poke:1", "poke:2", "poke:3", "gate"] {
        let code = with(&victim, &["apply", &object], fault)?;
        ensure!(code != 0, "{fault} did not fail");
        // Nothing is left for a later command.
        victim.unharmed().with_context(|| fault.to_owned())?;
    }
    for fault in [
        "poke:3,take-back:1",
        "poke:3,take-back:2",
        "gate,take-back:2",
    ] {
        let code = with(&victim, &["apply", &object], fault)?;
        ensure!(code == 5, "{fault}: {code}");
        ensure!(victim.answers()? == "0 0 0", "{fault}: patched");
        let status = victim.done(&["status"])?;
        ensure!(status["patches"][0]["state"] == "interrupted", "{status:#}");
        victim.done(&["revert"])?;
        victim.unharmed().with_context(|| fault.to_owned())?;
    }
    for (fault, answers) in [("gate", "1 1 1"), ("poke:1", "0 0 0"), ("poke:3", "0 0 0")] {
        victim.done(&["apply", &object])?;
        let code = with(&victim, &["revert"], fault)?;
        ensure!(code != 0, "{fault} did not fail");
        let now = victim.answers()?;
        ensure!(now == answers, "revert with {fault}: {now}");
        victim.done(&["revert"])?;
        victim.unharmed().with_context(|| fault.to_owned())?;
    }
    Ok(())
}

trait IntoAvma {
    fn into_avma(self) -> upatch_trampolines::Avma;
}

impl IntoAvma for u64 {
    fn into_avma(self) -> upatch_trampolines::Avma {
        upatch_trampolines::Avma(self)
    }
}

/// Patches that call the program are kept as a whole, and taken up again as a whole.
fn retired() -> Result<()> {
    let mut victim = Modules::new(&[])?;
    let calling = "#include \"upatch.h\"\nUPATCH_COUNTER(__u64, hits);\n\
        SEC(\"upatch/exe:first\") int UPATCH(one, int x) { UPATCH_INC(hits); upatch_set_errno(5); return upatch_return(ctx, 4242); }\n\
        SEC(\"upatch/libsecond.so:second\") int UPATCH(two, int x) { UPATCH_INC(hits); return upatch_return(ctx, 4242); }\n";
    let object = build(victim.folder.path(), "calling", calling)?;
    let object = object.display().to_string();
    let mut images = Vec::new();
    for _ in 0..3 {
        let applied = victim.done(&["apply", &object])?;
        ensure!(victim.answers()? == "1 1 0", "{applied:#}");
        images.push((
            applied["sites"][0]["image"].clone(),
            applied["sites"][1]["image"].clone(),
        ));
        let reverted = victim.done(&["revert"])?;
        ensure!(
            reverted["patches"][0]["outcome"] == "retired",
            "{reverted:#}"
        );
        ensure!(victim.answers()? == "0 0 0", "still patched");
        let status = victim.done(&["status"])?;
        let patches = status["patches"].as_array().context("no patches")?;
        ensure!(
            patches.len() == 1 && patches[0]["state"] == "retired",
            "{status:#}"
        );
    }
    images.dedup();
    ensure!(images.len() == 1, "taken up elsewhere: {images:?}");
    // Once more: nothing to do, and what was counted was told then; who asks for it by its id is told again.
    let again = victim.done(&["revert"])?;
    let patch = &again["patches"][0];
    ensure!(
        patch["state"] == "retired"
            && patch["outcome"] == "retired"
            && patch["detail"]
                .as_str()
                .is_some_and(|why| why.contains("stays mapped"))
            && patch["globals"] == Value::Null,
        "{again:#}"
    );
    let id = patch["id"].as_str().context("no id")?;
    let again = victim.done(&["revert", "--patch", id])?;
    let patch = &again["patches"][0];
    ensure!(
        patch["state"] == "retired"
            && patch["globals"]["hits"]
                .as_u64()
                .is_some_and(|hits| hits >= 2),
        "{again:#}"
    );
    let mut command = upatch();
    let pid = victim.pid();
    let said = upatch_tests::child::run(
        command.args(["revert", "--pid", &pid]),
        std::time::Duration::from_secs(60),
    )?;
    ensure!(
        said.stdout.contains("reverted before") && !said.stdout.contains("hits"),
        "{said:?}"
    );
    Ok(())
}

/// What is changed in a record.
type Forge = fn(&mut Membership);

/// The process has rewritten what our records say of the other sites: nobody touches anything, and it runs on.
fn forged_records() -> Result<()> {
    let mut victim = Modules::new(&["quiet"])?;
    let object = victim.three()?;
    victim.done(&["apply", &object])?;
    let process = Process::open(victim.driver.pid().try_into()?)?;
    let found = inspect(&process)?.found.pop().context("nothing is there")?;
    let forge: [(usize, Forge); 6] = [
        (1, |group| group.index = 2),
        (1, |group| group.index = 9),
        (1, |group| group.count = 2),
        (2, |group| group.gate = Hex(group.gate.0 + 1)),
        (2, |group| group.leader = Hex(group.leader.0 + 4096)),
        (0, |group| group.gate = Hex(group.leader.0)),
    ];
    for (number, (site, change)) in forge.into_iter().enumerate() {
        let region = &found.regions[site];
        let at = region.record_at.context("no record")?.start;
        let mut record = region.record.clone().context("no record")?;
        let honest = record.encode(RecordState::Placed);
        change(record.group.as_mut().context("no group")?);
        process
            .memory()
            .write(at, &record.encode(RecordState::Placed))?;
        let status = victim.done(&["status"])?;
        let patches = status["patches"].as_array().context("no patches")?;
        let damaged = patches.iter().any(|patch| patch["state"] == "damaged");
        let applied = patches.iter().any(|patch| patch["state"] == "applied");
        ensure!(damaged && !applied, "forgery {number}: {status:#}");
        let (code, reverted) = victim.upatch(&["revert"])?;
        ensure!(code == 8, "forgery {number}: {code} {reverted:#}");
        ensure!(
            victim.answers()? == "1 1 1",
            "forgery {number} took something off"
        );
        process.memory().write(at, &honest)?;
    }
    victim.done(&["revert"])?;
    victim.unharmed()
}
