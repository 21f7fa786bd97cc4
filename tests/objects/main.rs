//! Patch objects: what clang makes of C is understood, refused with the right words, and survives being damaged.

mod accepted;
mod compare;
mod damaged;
mod refused;

use std::path::{Path, PathBuf};

use upatch_tests::c::{build_source as build_case, is_possible};

/// The case files of one kind, sorted.
fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("cases/objects")
        .join(kind);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of cases exists")
        .map(|entry| entry.expect("the folder of cases is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    files.sort();
    files
}

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("cases/objects")
        .join(name)
}
