//! C sources of the tests: whether they can be compiled on this machine, and how.
//!
//! Decides where libbpf's headers come from: below `$UPATCH_LIBBPF`, where `cargo xtask` puts them, or installed.

use std::path::{Path, PathBuf};

use upatch::build::{BuildError, BuildReport, BuildRequest, build};

use crate::skip;

fn libbpf_include() -> PathBuf {
    std::env::var_os("UPATCH_LIBBPF").map_or_else(|| PathBuf::from("/usr/include"), PathBuf::from)
}

/// Whether a source can be compiled here: some need libbpf's headers. If it can't be, notes that `test` left it out.
///
/// # Panics
/// If the source can't be read; if it can't be compiled and `UPATCH_STRICT=1` is set.
pub fn is_possible(test: &str, source: &Path) -> bool {
    let text = std::fs::read_to_string(source)
        .unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let possible = !text.contains("<bpf/") || libbpf_include().join("bpf/bpf_helpers.h").exists();
    if !possible {
        let reason = "libbpf's headers are not installed";
        assert!(!skip::is_strict(), "{test}: {reason}");
        skip::skip(test, reason);
    }
    possible
}

/// Builds a source into a scratch folder; the report, and the object's bytes.
///
/// # Errors
/// What [`build`] says against it.
///
/// # Panics
/// Without a writable folder for scratch files.
pub fn build_source(
    source: &Path,
    clang_args: &[&str],
) -> Result<(BuildReport, Vec<u8>), BuildError> {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("a scratch folder: {error}"));
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
    let bytes = std::fs::read(&output).unwrap_or_else(|error| panic!("the object: {error}"));
    Ok((report, bytes))
}

/// For [`stripped`]: without the section type of LLVM's own that the library can't copy.
pub const STRIPPABLE: [&str; 1] = ["-fno-addrsig"];

/// The object without debug sections, as `llvm-strip -g` leaves it.
///
/// # Panics
/// If it is no object of clang's with debug sections.
pub fn stripped(bytes: &[u8]) -> Vec<u8> {
    let mut builder = object::build::elf::Builder::read(bytes)
        .unwrap_or_else(|error| panic!("clang writes ELF: {error}"));
    let is_debug = |name: &[u8]| name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    for section in &mut builder.sections {
        section.delete = is_debug(&section.name);
    }
    builder.delete_orphans();
    // clang keeps all names in .strtab; the library wants those of sections apart.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .unwrap_or_else(|error| panic!("what was read can be written: {error}"));
    assert!(stripped.len() < bytes.len(), "clang writes debug sections");
    stripped
}
