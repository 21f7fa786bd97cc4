//! Debian's Python, unpacked, and wheels that its pip fetches: programs that samples patch like any other.
//!
//! Decides which versions; the interpreter and what belongs to it come from Debian's archive, so that a bare Debian
//! needs neither Python nor pip. Invariant: pip accepts a wheel only with the SHA-256 in the table here.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::apt::{Archive, Row, Unavailable};
use super::packages::{LIBSSL, ZLIB, kept};
use crate::process::output;

/// The name of the set that holds the interpreter; tests/src/samples/python.rs starts it.
const INTERPRETER: &str = "python";
/// What is shown of the interpreter's set, and is fetched first.
const MINIMAL: Row = Row {
    package: "python3.11-minimal",
    version: "3.11.2-6+deb12u8",
    sha256: "4aba533f7cc5e7b93b7ff24482840e96813f5bcde9cce028395b65a0d799ccee",
};

/// These belong together, at one version. That of Debian's last point release: the security archive replaces its own.
const PYTHON: &[Row] = &[
    MINIMAL,
    Row {
        package: "libpython3.11-minimal",
        version: "3.11.2-6+deb12u8",
        sha256: "f3beaa03994ffedacf73c43a0843d53b062d347115d8af65bee2034552a4e6f9",
    },
    Row {
        package: "libpython3.11-stdlib",
        version: "3.11.2-6+deb12u8",
        sha256: "890b3540dad8a1ccc0deeca025db735bcc82629a76adacbe3b50fcc06ed528ca",
    },
    Row {
        package: "python3-pip-whl",
        version: "23.0.1+dfsg-1",
        sha256: "cc373690a1cb469fb301b9fe0125048e3102f2e365d1b2d27cab091ec89fccdc",
    },
];

/// Libraries that a bare Debian lacks. Another version that is installed will do as well.
const SUPPORT: &[Row] = &[
    LIBSSL,
    ZLIB,
    Row {
        package: "libexpat1",
        version: "2.5.0-1+deb12u2",
        sha256: "2255e62fc22a86d2c544b8a3f516da9aee19383ad5742722ab4ce7f66a30dbc8",
    },
    Row {
        package: "libffi8",
        version: "3.4.4-1",
        sha256: "6d9f6c25c30efccce6d4bceaa48ea86c329a3432abb360a141f76ac223a4c34a",
    },
];

/// Where python3-pip-whl has its wheel, which Python runs as it is.
const PIP: &str = "usr/share/python-wheels/pip-23.0.1-py3-none-any.whl";

/// One wheel: project, version, SHA-256 of the file for CPython 3.11 on x86-64.
type Wheel = (&'static str, &'static str, &'static str);

/// Brings OpenSSL 3.0.5, linked in statically, with a symbol table.
const CRYPTOGRAPHY: Wheel = (
    "cryptography",
    "38.0.1",
    "3261725c0ef84e7592597606f6583385fed2a5ec3909f43bc475ade9729a41d6",
);
const WHEELS: &[Wheel] = &[
    CRYPTOGRAPHY,
    (
        "pyOpenSSL",
        "22.1.0",
        "b28437c9773bb6c6958628cf9c3bebe585de661dba6f63df17111966363dd15e",
    ),
    (
        "cffi",
        "1.15.1",
        "94411f22c3985acaec6f83c6df553f2dbe17b698cc7f8ae751ff2237d96b9e3c",
    ),
    (
        "pycparser",
        "2.21",
        "8ee45429555515e1f6b185e78100aea234072576aa43ab53aefcae078162fca9",
    ),
];

/// Fetches the interpreter and the wheels, unless they are in `folder` already.
///
/// # Errors
/// The folder can't be written. What can't be fetched is noted there, not an error.
pub(super) fn provide(archive: &mut Archive, folder: &Path) -> Result<()> {
    let rows: String = PYTHON.iter().chain(SUPPORT).map(Row::line).collect();
    kept(folder, INTERPRETER, &rows, |root| {
        for row in PYTHON {
            archive.unpack(row, root)?;
        }
        for row in SUPPORT {
            if let Err(missing) = archive.unpack(row, root) {
                eprintln!("{}", missing.reason());
            }
        }
        let (worked, said) = run(&mut python(root), &["-c", "import ssl, ctypes, zlib"])?;
        if worked {
            Ok(())
        } else {
            Err(Unavailable::Failed(format!(
                "Python doesn't run here: {said}"
            )))
        }
    })?;
    let interpreter = folder.join(INTERPRETER);
    // pip's way of writing requirements.
    let requirements: String = WHEELS
        .iter()
        .map(|(project, version, sha256)| format!("{project}=={version} --hash=sha256:{sha256}\n"))
        .collect();
    kept(folder, CRYPTOGRAPHY.0, &requirements, |root| {
        fetch_wheels(&interpreter, &requirements, root)
    })
}

/// The names of the sets, and what they are.
pub(super) fn names() -> [(&'static str, String); 2] {
    let (wheel, version, _) = CRYPTOGRAPHY;
    [
        (
            INTERPRETER,
            format!("{} {}", MINIMAL.package, MINIMAL.version),
        ),
        (wheel, format!("{wheel} {version} from PyPI")),
    ]
}

/// The unpacked interpreter, with its own libraries and without anybody's settings.
fn python(root: &Path) -> Command {
    let mut command = Command::new(root.join("usr/bin/python3.11"));
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .map(|sub| root.join(sub).display().to_string());
    command
        .arg("-B")
        .env("LD_LIBRARY_PATH", libraries.join(":"))
        .env("PYTHONHOME", root.join("usr"))
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONSTARTUP");
    command
}

fn fetch_wheels(interpreter: &Path, requirements: &str, root: &Path) -> Result<(), Unavailable> {
    let failed = |error: std::io::Error| Unavailable::Failed(error.to_string());
    let list = root.join("requirements.txt");
    fs::write(&list, requirements).map_err(failed)?;
    println!("fetching wheels: cryptography and what it needs");
    let mut pip = python(interpreter);
    pip.env("PYTHONPATH", interpreter.join(PIP))
        .env("LC_ALL", "C")
        // Settings of whoever works here that would contradict --target; where the index is, stays theirs to say.
        .envs([("PIP_USER", "0"), ("PIP_REQUIRE_VIRTUALENV", "0")]);
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-cache-dir"])
        .args(["--no-input", "--timeout", "30", "--retries", "2"])
        .args(["install", "--no-deps", "--no-compile", "--require-hashes"])
        .args(["--only-binary", ":all:", "--no-warn-script-location"])
        .arg("--requirement")
        .arg(&list)
        .arg("--target")
        .arg(root.join("site"));
    let (worked, said) = run(&mut pip, &[])?;
    if worked {
        return Ok(());
    }
    // An index that can't be reached, or isn't one, has no versions at all.
    let unreached = ["Retrying", "from versions: none"];
    let withdrawn = said.contains("No matching distribution found")
        && !unreached.iter().any(|word| said.contains(word));
    let line = |begin: &str| said.lines().rfind(|line| line.starts_with(begin));
    let last = line("Could not fetch URL")
        .or(line("ERROR:"))
        .unwrap_or("pip says no reason");
    Err(if withdrawn {
        Unavailable::Withdrawn(last.to_owned())
    } else {
        Unavailable::Failed(last.to_owned())
    })
}

/// Whether the command succeeds, and what it says.
fn run(command: &mut Command, arguments: &[&str]) -> Result<(bool, String), Unavailable> {
    output(command.args(arguments))
        .map(|(status, said)| (status.success(), said))
        .map_err(|error| Unavailable::Failed(format!("{error:#}")))
}
