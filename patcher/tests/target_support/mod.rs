//! Victims for the tests of `target`: compiled by gcc into a folder of their own, started, ended by their handle.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use upatch::process::Process;
use upatch::target::{
    BuildId, BuildIdPrefix, ElfImage, PatchSite, ResolveError, Source, Svma, TargetImage,
    TargetMemory, TargetQuery, bytes::Bytes,
};

/// What every victim ends with: it says that it is ready and sleeps until its parent goes.
pub const MAIN: &str = r#"
#include <stdio.h>
#include <unistd.h>
int work(int);
int main(void) { printf("%d ready\n", work(3)); fflush(stdout); for (;;) if (getppid() == 1) return 0; else usleep(20000); }
"#;

/// An ordinary function that gcc keeps.
pub const WORK: &str = r#"
__attribute__((noipa)) int work(int x) { int sum = 0; for (int i = 0; i < x; i++) sum += i * x; return sum + 40; }
"#;

/// A folder with sources and binaries.
pub struct Workshop {
    pub dir: TempDir,
}

impl Workshop {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs a tool in the folder; its failure is the test's.
    pub fn run(&self, tool: &str, args: &[&str]) {
        let out = Command::new(tool)
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{tool} {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// Compiles `source` (plus [`MAIN`]) to `name`.
    pub fn victim(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        self.write(&format!("{name}.c"), &format!("{source}\n{MAIN}"));
        let source = format!("{name}.c");
        let mut args = vec!["-O2", "-Wl,--build-id=sha1", "-o", name, source.as_str()];
        args.extend(flags);
        self.run("gcc", &args);
        self.path(name)
    }

    pub fn start(&self, binary: &Path) -> Victim {
        Victim::start(Command::new(binary).env("LD_LIBRARY_PATH", self.dir.path()))
    }
}

/// A running victim; ended when dropped.
pub struct Victim {
    child: Child,
}

impl Victim {
    /// Starts it and waits for its first line.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("ready"), "victim said {line:?}");
        Self { child }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn memory(&self) -> Process {
        Process::open(self.pid()).unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ELF image of a file.
pub fn image(path: &Path) -> ElfImage {
    ElfImage::from_file(Bytes::of_file(&fs::File::open(path).unwrap()).unwrap()).unwrap()
}

pub fn build_id(path: &Path) -> BuildId {
    image(path).build_id().expect("a build-id").clone()
}

pub fn ids(path: &Path) -> Vec<BuildIdPrefix> {
    vec![BuildIdPrefix::from(&build_id(path))]
}

/// What nm says about a symbol: address and size.
pub fn nm(path: &Path, symbol: &str) -> (u64, u64) {
    nm_with(path, symbol, &["-S"])
}

pub fn nm_with(path: &Path, symbol: &str, flags: &[&str]) -> (u64, u64) {
    let out = Command::new("nm").args(flags).arg(path).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.split_whitespace().last() == Some(symbol))
        .expect("a symbol");
    let words: Vec<&str> = line.split_whitespace().collect();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    (
        hex(words[0]),
        if words.len() > 3 { hex(words[1]) } else { 0 },
    )
}

/// Snapshot and resolve `module:function`.
pub fn resolve(victim: &Victim, query: &TargetQuery) -> Result<PatchSite, ResolveError> {
    let memory = victim.memory();
    TargetImage::snapshot(&memory)
        .unwrap()
        .resolve(&memory, query)
}

/// The error of a query that must fail.
pub fn refusal(victim: &Victim, query: &TargetQuery) -> ResolveError {
    match resolve(victim, query) {
        Ok(site) => panic!("resolved to {:?} at {}", site.function(), site.svma()),
        Err(error) => error,
    }
}

/// Everything that must hold for `work` in a victim whose symbol table is at hand.
pub fn check(
    victim: &Victim,
    query: &TargetQuery,
    start: u64,
    size: u64,
    source: Source,
) -> PatchSite {
    let memory = victim.memory();
    let snapshot = TargetImage::snapshot(&memory).unwrap();
    let site = snapshot.resolve(&memory, query).unwrap();
    check_site(&memory, &site, start, size, source);
    site
}

pub fn check_site(
    memory: &impl TargetMemory,
    site: &PatchSite,
    start: u64,
    size: u64,
    source: Source,
) {
    assert_eq!(site.svma(), Svma(start));
    assert_eq!(site.range().len(), size);
    assert!(site.is_entry());
    assert_eq!(site.source(), source);
    let mut bytes = vec![0; site.bytes().len()];
    memory.read_exact_at(site.avma(), &mut bytes).unwrap();
    assert_eq!(bytes, site.bytes());
    site.compare_memory(memory).unwrap();
    assert_eq!(site.text().bytes.len() as u64, size);
}
