//! Tools whose answers the tests compare with ours: bpftool. Without them those comparisons are skipped, visibly.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::apt::{Archive, Row};
use crate::process::output;

/// bpftool and the libraries that a bare Debian lacks for it. The version is that of Debian's last point release: the security
/// archive replaces its versions within weeks.
const BPFTOOL: &[Row] = &[
    Row {
        package: "bpftool",
        version: "7.1.0+6.1.176-1",
        sha256: "6df76ea6c957118b4c66507055abe7be85a64782724acb32d7a17c8ee1057c95",
    },
    Row {
        package: "libelf1",
        version: "0.188-2.1",
        sha256: "619add379c606b3ac6c1a175853b918e6939598a83d8ebadf3bdfd50d10b3c8c",
    },
    Row {
        package: "libcap2",
        version: "1:2.66-4+deb12u3+b1",
        sha256: "8d684c673e7483802a5c447834b0df6fce006eb3a7109e1be412f5ad425bb24f",
    },
    Row {
        package: "zlib1g",
        version: "1:1.2.13.dfsg-1",
        sha256: "d7dd1d1411fedf27f5e27650a6eff20ef294077b568f4c8c5e51466dc7c08ce4",
    },
];

/// Where bpftool is, unless PATH has it. `None` too if it can't be had: the tests that need it say so.
pub(super) fn provide(archive: &mut Archive, tools: &Path) -> Option<PathBuf> {
    if runs(Path::new("bpftool")) {
        return None;
    }
    let start = tools.join("bin/bpftool");
    if !runs(&start)
        && let Err(reason) = unpack(archive, tools, &start)
    {
        eprintln!("bpftool: {reason}");
    }
    runs(&start).then_some(start)
}

fn runs(bpftool: &Path) -> bool {
    // `bpftool version` fails where the kernel's symbols are hidden, `help` needs nothing.
    output(Command::new(bpftool).arg("help")).is_ok_and(|(status, _)| status.success())
}

/// Unpacks the rows below `tools` and writes a small program that starts bpftool with its own libraries.
fn unpack(archive: &mut Archive, tools: &Path, start: &Path) -> Result<(), String> {
    let in_words = |error: std::io::Error| error.to_string();
    let root = tools.join("bpftool");
    fs::create_dir_all(&root).map_err(in_words)?;
    fs::create_dir_all(tools.join("bin")).map_err(in_words)?;
    for row in BPFTOOL {
        // A library that is gone from the archive may be installed in another version; whether bpftool runs decides.
        if let Err(missing) = archive.unpack(row, &root) {
            eprintln!("{}", missing.reason());
        }
    }
    let root = root.canonicalize().map_err(in_words)?;
    let script = format!(
        "#!/bin/sh\nroot='{}'\nLD_LIBRARY_PATH=\"$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu\"\nexport LD_LIBRARY_PATH\nexec \"$root/usr/sbin/bpftool\" \"$@\"\n",
        root.display()
    );
    fs::write(start, script).map_err(in_words)?;
    fs::set_permissions(start, Permissions::from_mode(0o755)).map_err(in_words)
}
