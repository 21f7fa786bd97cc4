//! clang 19 with its BPF back end, and a C compiler for the drivers.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::apt::{Archive, Row};
use crate::process::{is_root, output};

/// What clang 19 consists of when it is not installed but unpacked. Libraries that apt itself needs are left out:
/// where there is no apt, nothing can be fetched either.
const CLANG: &[Row] = &[
    Row {
        package: "clang-19",
        version: "1:19.1.7-3~deb12u1",
        sha256: "89ab931a9bbfd567a76df3141af5d5ec67b01d800150e614f2c9bf4671da9b08",
    },
    Row {
        package: "libclang-cpp19",
        version: "1:19.1.7-3~deb12u1",
        sha256: "5daa784e1d747db320c16604729ffa805e6bfd72d3ac0b7cb0ee5f1a7ebc8aae",
    },
    Row {
        package: "libllvm19",
        version: "1:19.1.7-3~deb12u1",
        sha256: "6edf3a8b28495cdba883d9760e0dca1a81983fc497a5f989dc64d0d96d23b4aa",
    },
    Row {
        package: "libclang-common-19-dev",
        version: "1:19.1.7-3~deb12u1",
        sha256: "811c2d398ad772204ec05ffde485cbbc4c210abc5dcf0068ff9ca3e647591ce7",
    },
    Row {
        package: "libedit2",
        version: "3.1-20221030-2",
        sha256: "1cf14abf2716d3279db12d0657a5737cf70074a1e71d3bdf73206625e3c89ce6",
    },
    Row {
        package: "libz3-4",
        version: "4.8.12-3.1",
        sha256: "6221ca25ad5abcfbe1965801029d85a88b4775320384b4b716de8fab7a4d2f7a",
    },
    Row {
        package: "libxml2",
        version: "2.9.14+dfsg-1.3~deb12u6",
        sha256: "4460e39dda10a815881374217cde08474747cfa018358cd8612c14b390eff53b",
    },
    Row {
        package: "libicu72",
        version: "72.1-3+deb12u1",
        sha256: "f7f6f99c6d7b025914df2447fc93e11d22c44c0c8bdd8b6f36691c9e7ddcef88",
    },
    Row {
        package: "libbsd0",
        version: "0.11.7-2",
        sha256: "bb31cc8b40f962a85b2cec970f7f79cc704a1ae4bad24257a822055404b2c60b",
    },
    Row {
        package: "libmd0",
        version: "1.0.4-2",
        sha256: "03539fd30c509e27101d13a56e52eda9062bdf1aefe337c07ab56def25a13eab",
    },
    Row {
        package: "libffi8",
        version: "3.4.4-1",
        sha256: "6d9f6c25c30efccce6d4bceaa48ea86c329a3432abb360a141f76ac223a4c34a",
    },
    Row {
        package: "libtinfo6",
        version: "6.4-4",
        sha256: "072d908f38f51090ca28ca5afa3b46b2957dc61fe35094c0b851426859a49a51",
    },
];

/// Makes sure that there is a clang 19 and a C compiler; returns where clang is, unless PATH has it as `clang-19`.
///
/// # Errors
/// There is none and none could be had.
pub(super) fn provide(archive: &mut Archive, tools: &Path) -> Result<Option<PathBuf>> {
    provide_cc(archive)?;
    if let Some(clang) = env::var_os("UPATCH_CLANG") {
        let clang = PathBuf::from(clang);
        ensure!(
            runs(&clang),
            "UPATCH_CLANG is set to {}, which is no clang 19",
            clang.display()
        );
        return Ok(Some(clang));
    }
    if runs(Path::new("clang-19")) {
        return Ok(None);
    }
    let unpacked = tools.join("bin/clang-19");
    if runs(&unpacked) {
        return Ok(Some(unpacked));
    }
    if is_root() {
        match archive.install(&["clang-19"]) {
            Ok(()) if runs(Path::new("clang-19")) => return Ok(None),
            Ok(()) => eprintln!("clang-19 was installed and still doesn't run"),
            Err(error) => eprintln!("installing clang-19: {error:#}"),
        }
    }
    unpack(archive, tools).context("clang 19 is neither installed nor could it be unpacked")?;
    ensure!(
        runs(&unpacked),
        "clang 19 was unpacked into {} and doesn't run",
        tools.display()
    );
    Ok(Some(unpacked))
}

fn provide_cc(archive: &mut Archive) -> Result<()> {
    let compiles = |header: &str| {
        let source = format!("#include <{header}>\nint main(void) {{ return 0; }}\n");
        let Ok(folder) = crate::target_folder() else {
            return false;
        };
        let file = folder.join("upatch-probe.c");
        fs::write(&file, source).is_ok()
            && output(Command::new("cc").arg("-fsyntax-only").arg(&file))
                .is_ok_and(|(status, _)| status.success())
    };
    if compiles("stdio.h") {
        return Ok(());
    }
    if !is_root() {
        bail!("there is no C compiler with the C library's headers: install gcc and libc6-dev");
    }
    archive.install(&["gcc", "libc6-dev"])
}

fn runs(clang: &Path) -> bool {
    output(Command::new(clang).arg("--version")).is_ok_and(|(status, said)| {
        status.success() && said.lines().any(|line| line.contains("clang version 19."))
    })
}

/// Unpacks clang below `tools` and writes a small program that starts it with its own libraries.
fn unpack(archive: &mut Archive, tools: &Path) -> Result<()> {
    let root = tools.join("root");
    fs::create_dir_all(&root)?;
    for row in CLANG {
        // A library that is gone from the archive may be installed in another version; whether clang runs decides.
        if let Err(missing) = archive.unpack(row, &root) {
            eprintln!("{}", missing.reason());
        }
    }
    let start = tools.join("bin/clang-19");
    fs::create_dir_all(tools.join("bin"))?;
    let root = root.canonicalize()?;
    fs::write(
        &start,
        format!(
            "#!/bin/sh\nroot='{}'\nLD_LIBRARY_PATH=\"$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu:$root/usr/lib/llvm-19/lib\"\nexport LD_LIBRARY_PATH\nexec \"$root/usr/lib/llvm-19/bin/clang\" \"$@\"\n",
            root.display()
        ),
    )?;
    fs::set_permissions(&start, Permissions::from_mode(0o755))?;
    Ok(())
}
