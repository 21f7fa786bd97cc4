//! The verifier on case files and on generated programs, one test a case.
//!
//! `cases/verifier/rejected`: each file has a failing form and a minimally mended twin. The failing form must be refused at
//! the marked line, about the named register or variable, in the stated words; the twin must be accepted.
//! `cases/verifier/accepted`: realistic patches that must be accepted. What is accepted also runs in the reference
//! interpreter, which checks every fact.

mod accepted;
mod case;
mod generated;
mod rejected;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::case::Case;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let mut trials = Vec::new();
    let mut add = |kind: &str, test: fn(&Case) -> Result<(), String>| {
        for path in files(kind) {
            let stem = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
            let name = format!("{kind}::{}", stem.unwrap_or_default());
            trials.push(Trial::test(name, move || {
                let case = Case::read(&path).map_err(Failed::from)?;
                test(&case).map_err(Failed::from)
            }));
        }
    };
    add("rejected", rejected::check);
    add("accepted", accepted::check);
    let count = trials.len();
    trials.extend(generated::trials());
    let listing = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !listing {
        println!("{count} case files");
    }
    conclusion.exit_code()
}

fn files(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("cases/verifier")
        .join(kind);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "c" || end == "s"))
        .collect();
    files.sort();
    files
}
