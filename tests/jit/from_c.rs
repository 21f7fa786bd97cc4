//! Patches from C as clang compiles them: samples, benchmark cases, what the verifier's cases accept. The machine-code check must follow all of
//! them, at every kind of place, and the hot ones must be as short as a hook written by hand.

use std::path::{Path, PathBuf};

use upatch::apply::program::all_verified;
use upatch::object::PatchObject;
use upatch_jit::{SiteRegs, compile};
use upatch_tests::c::{build_source, is_possible};
use upatch_tests::jit_diff::{checked, disassembly};
use upatch_tests::native::Bindings;
use upatch_verifier::{Policy, ProgramKind, VerifiedProgram};

use crate::rig::{SITE, sites};

fn sources(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "c") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn programs(source: &Path) -> Vec<VerifiedProgram> {
    let (_, bytes) =
        build_source(source, &[]).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let object =
        PatchObject::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let policy = Policy {
        allow_write: true,
        ..Policy::default()
    };
    all_verified(&object, &policy).unwrap_or_else(|error| panic!("{}: {error}", source.display()))
}

fn fits(verified: &VerifiedProgram, site: &SiteRegs) -> bool {
    match verified.program().kind() {
        ProgramKind::PatchEntry => site.at_entry,
        ProgramKind::PatchOffset => !site.at_entry,
        ProgramKind::Probe => true,
        ProgramKind::Memory { .. } => false,
    }
}

/// Compiles for each place; what the check says against it.
fn refusals(source: &Path) -> Vec<String> {
    let mut refusals = Vec::new();
    for verified in programs(source) {
        for site in sites().iter().filter(|site| fits(&verified, site)) {
            let patch = compile(&verified, site);
            let externs = (0..patch.extern_names.len() as u64).map(|n| 0x7000_0000_0000 + 64 * n);
            let bindings = Bindings {
                arena: 0x4000_0000_0000,
                externs: externs.collect(),
                site: SITE,
                private: 0x4100_0000_0000,
            };
            if let Err(refusal) = checked(&patch, site, &bindings, patch.arena_window + 4096) {
                let code = disassembly(&patch.bytes[..patch.code_len], 0);
                refusals.push(format!(
                    "{}: {refusal}\n{}\n{code}",
                    source.display(),
                    verified.program().listing()
                ));
                break;
            }
        }
    }
    refusals
}

/// Safe sources whose code the check can't follow: an index that depends on how often a loop ran, which takes it too many
/// paths to see.
const NOT_FOLLOWED: [&str; 2] = ["string-functions.c", "string-strip.c"];

#[test]
fn the_check_follows_what_is_compiled_from_c() {
    let folders = [
        "cases/bench",
        "cases/sanitise",
        "../samples",
        "cases/objects/accept",
        "cases/verifier/accepted",
    ];
    let (mut compiled, mut refused) = (0, Vec::new());
    for source in folders.iter().flat_map(|folder| sources(folder)) {
        if !is_possible("jit::the_check_follows_what_is_compiled_from_c", &source) {
            continue;
        }
        compiled += 1;
        let against = refusals(&source);
        if NOT_FOLLOWED.iter().any(|name| source.ends_with(name)) {
            assert!(
                !against.is_empty(),
                "{} is followed now: off the list",
                source.display()
            );
        } else {
            refused.extend(against);
        }
    }
    assert!(compiled > 10, "only {compiled} sources");
    let count = refused.len();
    assert!(
        refused.is_empty(),
        "{count} of {compiled} refused\n{}",
        refused.join("\n\n")
    );
}

/// Instructions of the fast path, the final jump included.
fn instructions(name: &str) -> usize {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cases/bench/{name}.c"));
    let programs = programs(&source);
    let patch = compile(&programs[0], &sites()[0]);
    disassembly(&patch.bytes[..patch.code_len], 0)
        .lines()
        .count()
}

#[test]
fn hot_patches_are_short() {
    // push, movabs, add (lock add), pop, jmp
    assert_eq!(
        (instructions("count"), instructions("count_atomic")),
        (5, 5)
    );
    // push; mov, cmp, jb; movabs, add; mov; pop, jmp
    assert_eq!(instructions("clamp"), 9);
}

/// Shows the code of one source: `UPATCH_SHOW=path cargo test -p upatch-tests --test jit show -- --nocapture --ignored`.
#[test]
#[ignore = "prints; checks nothing"]
fn show() {
    let source = std::env::var("UPATCH_SHOW").unwrap();
    for refusal in refusals(Path::new(&source)) {
        println!("{}", refusal.lines().next().unwrap_or_default());
    }
    for verified in programs(Path::new(&source)) {
        println!("{}", verified.program().listing());
        let patch = compile(&verified, &sites()[0]);
        println!("{}", disassembly(&patch.bytes[..patch.code_len], 0));
    }
}
