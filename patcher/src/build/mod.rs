//! `upatch build`: a patch written in C becomes an object that parses and links.
//!
//! It brings the headers, finds the compiler and passes the flags that the verifier and the JIT rely on. Whether the
//! programs are safe is for the caller to ask. An output file is only replaced by an object that is a patch.
//! The same source in the same folder gives the same bytes, and so the same patch id.

mod clang;

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use upatch_verifier::Program;

pub use clang::{Clang, ClangError};

use crate::object::{LinkError, ObjectError, PatchObject, link, link_kernel};

/// Headers of the C library and the kernel for this machine, which a compiler for BPF doesn't look for.
const MULTIARCH: &str = "/usr/include/x86_64-linux-gnu";

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The C source.
    pub source: PathBuf,
    /// Where the object goes; default: the source's name with `.o`, in the current folder.
    pub output: Option<PathBuf>,
    /// More arguments for clang, after ours.
    pub clang_args: Vec<OsString>,
}

/// What was built.
#[derive(Debug)]
pub struct BuildReport {
    /// The compiler.
    pub clang: Clang,
    /// Where the object is.
    pub output: PathBuf,
    /// The object.
    pub object: PatchObject,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its programs, linked, in the order of [`PatchObject::programs`].
    pub programs: Vec<Program>,
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No compiler.
    #[error(transparent)]
    Clang(#[from] ClangError),
    /// A file can't be read or written.
    #[error("{what} `{}`: {error}", path.display())]
    Io {
        /// What was done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
    /// There is no such source.
    #[error("can't read the source `{}`: {reason}", path.display())]
    Source {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The source has no file name to make the object's name of, or would be overwritten.
    #[error("the object's name is missing: {}", reason)]
    Output {
        /// Why.
        reason: &'static str,
    },
    /// clang found errors and printed them on standard error.
    #[error("clang could not compile `{}`", path.display())]
    Compile {
        /// The source.
        path: PathBuf,
    },
    /// The object is no patch.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A program can't be linked.
    #[error("program `{program}`: {error}")]
    Link {
        /// Its name.
        program: String,
        /// Why.
        error: LinkError,
    },
}

impl BuildError {
    /// What would help, if we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Clang(_) => Some(
                "install clang 19 (Debian: apt-get install clang-19), or set UPATCH_CLANG"
                    .to_owned(),
            ),
            Self::Output { .. } => Some("name it with -o FILE".to_owned()),
            Self::Object(error) => error.hint(),
            // What clang says of these two sends people the wrong way.
            Self::Compile { .. } => Some(
                "a patch has no C library, and a stack of 512 bytes: see the beginning of upatch.h for what to use instead of \
                 <errno.h>, <stdint.h>, <string.h> and large buffers"
                    .to_owned(),
            ),
            Self::Io { .. } | Self::Source { .. } | Self::Link { .. } => None,
        }
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BuildError {
    let path = path.to_owned();
    move |error| BuildError::Io { what, path, error }
}

/// Compiles, parses, links and writes the object. clang's diagnostics go to standard error.
///
/// # Errors
/// The stage that failed; the output file is then as it was before.
pub fn build(request: &BuildRequest) -> Result<BuildReport, BuildError> {
    let report = compile_and_link(request)?;
    report.write()?;
    Ok(report)
}

impl BuildReport {
    /// Puts the object where it was asked for.
    ///
    /// # Errors
    /// It can't be written; the file is then as it was before.
    pub fn write(&self) -> Result<(), BuildError> {
        replace(&self.output, &self.bytes)
    }
}

/// As [`build`], but writes nothing yet: the caller may want to see the programs proven safe before.
///
/// # Errors
/// The stage that failed.
pub fn compile_and_link(request: &BuildRequest) -> Result<BuildReport, BuildError> {
    check_source(&request.source)?;
    let clang = Clang::from_env()?;
    let output = output_path(request)?;
    let scratch = tempfile::Builder::new()
        .prefix("upatch-build-")
        .tempdir()
        .map_err(io("create a folder in", &std::env::temp_dir()))?;
    for (name, text) in upatch_abi::HEADERS {
        let header = scratch.path().join(name);
        std::fs::write(&header, text).map_err(io("write", &header))?;
    }
    let compiled = scratch.path().join("patch.o");
    compile(&clang, request, scratch.path(), &compiled)?;

    let bytes = std::fs::read(&compiled).map_err(io("read", &compiled))?;
    let object = PatchObject::parse(&bytes)?;
    let programs = object
        .programs()
        .iter()
        .map(|program| {
            link(&object, program).map_err(|error| BuildError::Link {
                program: program.name.clone(),
                error,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    for program in object.kernel_programs() {
        link_kernel(&object, program).map_err(|error| BuildError::Link {
            program: program.name.clone(),
            error,
        })?;
    }
    Ok(BuildReport {
        clang,
        output,
        object,
        bytes,
        programs,
    })
}

/// clang takes a folder for an input of the linker, and says nothing about it that would help.
fn check_source(source: &Path) -> Result<(), BuildError> {
    let reason = match std::fs::metadata(source) {
        Ok(found) if found.is_dir() => "it is a folder".to_owned(),
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    Err(BuildError::Source {
        path: source.to_owned(),
        reason,
    })
}

fn output_path(request: &BuildRequest) -> Result<PathBuf, BuildError> {
    let output = match &request.output {
        Some(output) => output.clone(),
        None => match request.source.file_stem() {
            Some(stem) => PathBuf::from(stem).with_added_extension("o"),
            None => {
                return Err(BuildError::Output {
                    reason: "the source is no file",
                });
            }
        },
    };
    let same = output
        .canonicalize()
        .ok()
        .is_some_and(|output| Some(output) == request.source.canonicalize().ok());
    if same {
        Err(BuildError::Output {
            reason: "the source would be overwritten",
        })
    } else {
        Ok(output)
    }
}

fn compile(
    clang: &Clang,
    request: &BuildRequest,
    scratch: &Path,
    compiled: &Path,
) -> Result<(), BuildError> {
    let mut command = Command::new(&clang.path);
    command
        .args([
            "-target",
            "bpf",
            "-mcpu=v4",
            "-O2",
            "-g",
            "-D__TARGET_ARCH_x86",
        ])
        // Patches look at the program's memory through structs of their own.
        .arg("-fno-strict-aliasing")
        // A function of the program called `printf` is that function, and not to become `putchar`.
        .arg("-fno-builtin");
    // The scratch folder has another name each time; the object must not.
    let mut map = OsString::from("-ffile-prefix-map=");
    map.push(scratch);
    map.push("=upatch");
    command.arg(map).arg("-isystem").arg(scratch);
    if Path::new(MULTIARCH).is_dir() {
        command.args(["-idirafter", MULTIARCH]);
    }
    if std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
    {
        command.arg("-fcolor-diagnostics");
    }
    let done = command
        .args(&request.clang_args)
        .args([OsStr::new("-c"), OsStr::new("-o")])
        .arg(compiled)
        .arg("--")
        .arg(&request.source)
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .output()
        .map_err(io("start", &clang.path))?;
    // The scratch folder is gone when the message is read: headers go by the names under which patches include them.
    let said = String::from_utf8_lossy(&done.stderr);
    let said = said.replace(&format!("{}/", scratch.display()), "");
    // Nothing can be done if standard error is closed.
    let _ = std::io::stderr().write_all(said.as_bytes());
    if done.status.success() {
        Ok(())
    } else {
        Err(BuildError::Compile {
            path: request.source.clone(),
        })
    }
}

/// Puts the bytes into place in one step: nobody sees half an object.
fn replace(output: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    use std::os::unix::fs::PermissionsExt;
    // A device or pipe is written to, not replaced.
    if std::fs::metadata(output).is_ok_and(|found| !found.is_file()) {
        return std::fs::write(output, bytes).map_err(io("write", output));
    }
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".upatch-build-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(io("create a file in", folder))?;
    file.write_all(bytes).map_err(io("write", output))?;
    file.persist(output)
        .map_err(|error| io("write", output)(error.error))?;
    Ok(())
}
