//! Each case of misuse is refused with exactly the words that its first lines say.

use upatch::build::BuildError;
use upatch::object::PatchObject;

use crate::{build_case, case, cases, is_possible};

#[test]
fn misuse_is_refused_in_these_words() {
    let mut wrong = Vec::new();
    let files = cases("refuse");
    for source in &files {
        if !is_possible("objects::misuse_is_refused_in_these_words", source) {
            continue;
        }
        let text = std::fs::read_to_string(source).unwrap();
        let says = |what: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(what))
                .map(str::to_owned)
        };
        let wanted = says("// refused: ").expect("the case says what is refused");
        match build_case(source, &["-Wno-all"]) {
            Ok(_) => wrong.push(format!("{}: accepted", source.display())),
            Err(error) => {
                if error.to_string() != wanted {
                    wrong.push(format!(
                        "{}:\n  wanted {wanted}\n  found  {error}",
                        source.display()
                    ));
                }
                if let Some(hint) = says("// hint: ")
                    && error.hint().as_deref() != Some(&*hint)
                {
                    wrong.push(format!("{}: hint {:?}", source.display(), error.hint()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() >= 30, "{}", files.len());
}

/// Compiles with clang alone, for objects that `upatch build` wouldn't make.
fn clang(args: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let clang = upatch::build::Clang::from_env().expect("clang 19");
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/../helpers-abi/include");
    let status = std::process::Command::new(clang.path)
        .args(["-O2", "-I", include, "-c", "-o", "out.o"])
        .args(args)
        .current_dir(folder.path())
        .status()
        .expect("clang starts");
    assert!(status.success());
    std::fs::read(folder.path().join("out.o")).expect("an object")
}

#[test]
fn other_files_are_named() {
    let bare = case("accept/bare.c");
    let bare = bare.to_str().unwrap();
    let c = tempfile::NamedTempFile::with_suffix(".c").unwrap();
    std::fs::write(c.path(), "int f(void) { return 0; }\n").unwrap();
    let c = c.path().to_str().unwrap();
    for (bytes, wanted) in [
        (Vec::new(), "the file is not an ELF file"),
        (b"int main(void) {}".to_vec(), "the file is not an ELF file"),
        (
            clang(&[c]),
            "the file is an ELF file for x86-64, not a 64-bit little-endian BPF object",
        ),
        (
            clang(&["-m32", c]),
            "the file is a 32-bit ELF file, not a 64-bit little-endian BPF object",
        ),
        (
            clang(&["-target", "bpfeb", "-mcpu=v4", "-g", bare]),
            "the file is a big-endian ELF file, not a 64-bit little-endian BPF object",
        ),
        (
            clang(&["-target", "bpf", "-mcpu=v4", bare]),
            "the object has no type information (no section `.BTF`)",
        ),
        (
            std::fs::read("/proc/self/exe").unwrap(),
            "the file is an ELF file for x86-64, not a 64-bit little-endian BPF object",
        ),
    ] {
        let error = PatchObject::parse(&bytes).unwrap_err();
        assert_eq!(error.to_string(), wanted);
    }
}

#[test]
fn every_truncation_is_refused() {
    let (_, bytes) = build_case(&case("accept/everything.c"), &[]).unwrap();
    // The section table is at the end, so that no beginning is complete.
    for len in (0..bytes.len())
        .step_by(7)
        .chain(bytes.len() - 64..bytes.len())
    {
        assert!(
            PatchObject::parse(&bytes[..len]).is_err(),
            "{len} of {} bytes",
            bytes.len()
        );
    }
    let error = PatchObject::parse(&bytes[..bytes.len() / 2]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the object is truncated or damaged"),
        "{error}"
    );
}

#[test]
fn a_failed_build_leaves_the_output_alone() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("patch.o");
    std::fs::write(&output, "as before").unwrap();
    let broken = folder.path().join("broken.c");
    std::fs::write(&broken, "this is not C\n").unwrap();
    let request = |source: std::path::PathBuf| upatch::build::BuildRequest {
        source,
        output: Some(output.clone()),
        clang_args: vec!["-w".into()],
    };
    let error = upatch::build::build(&request(broken)).unwrap_err();
    assert!(matches!(error, BuildError::Compile { .. }), "{error}");
    let error = upatch::build::build(&request(case("refuse/two_on_one.c"))).unwrap_err();
    assert!(
        matches!(error, BuildError::Object(_) | BuildError::Compile { .. }),
        "{error}"
    );
    let error = upatch::build::build(&request(output.clone())).unwrap_err();
    assert!(matches!(error, BuildError::Output { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "as before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}
