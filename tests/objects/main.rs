//! Patch objects: what clang makes of C is understood, refused with the right words, and survives being damaged.

mod accepted;
mod compare;
mod damaged;
mod refused;

use std::path::{Path, PathBuf};

use upatch::build::{BuildError, BuildReport, BuildRequest, build};

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

/// Where libbpf's headers are: below `$UPATCH_LIBBPF`, where `cargo xtask` put them, or installed.
fn libbpf_include() -> PathBuf {
    std::env::var_os("UPATCH_LIBBPF").map_or_else(|| PathBuf::from("/usr/include"), PathBuf::from)
}

/// Whether a case can be compiled here; without libbpf's headers some can't.
fn is_possible(test: &str, source: &Path) -> bool {
    let text = std::fs::read_to_string(source).expect("the case is readable");
    let possible = !text.contains("<bpf/") || libbpf_include().join("bpf/bpf_helpers.h").exists();
    if !possible {
        assert!(
            !upatch_tests::skip::is_strict(),
            "libbpf's headers are not installed"
        );
        upatch_tests::skip::skip(test, "libbpf's headers are not installed");
    }
    possible
}

/// Builds a source into a scratch folder.
fn build_case(source: &Path, clang_args: &[&str]) -> Result<(BuildReport, Vec<u8>), BuildError> {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let output = folder.path().join("patch.o");
    let mut clang_args: Vec<std::ffi::OsString> = clang_args.iter().map(Into::into).collect();
    if std::env::var_os("UPATCH_LIBBPF").is_some() {
        // After the system's folders: only what is not installed comes from there.
        clang_args.extend(["-idirafter".into(), libbpf_include().into()]);
    }
    let report = build(&BuildRequest {
        source: source.to_owned(),
        output: Some(output.clone()),
        clang_args,
    })?;
    let bytes = std::fs::read(output).expect("the object was written");
    Ok((report, bytes))
}
