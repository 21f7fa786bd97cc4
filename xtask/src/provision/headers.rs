//! libbpf's C headers, with which the tests compile existing uprobe programs.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::{Archive, Row};

const LIBBPF: Row = Row {
    package: "libbpf-dev",
    version: "1:1.1.2-0+deb12u1",
    sha256: "0100eea9fdf5cc925b9073b47684bba85b531657610e634be8bf90264a32b552",
};

/// Where libbpf's headers are, unless they are installed. `None` too if they can't be had: the tests that need them
/// say so.
pub(super) fn provide(archive: &mut Archive, tools: &Path) -> Option<PathBuf> {
    let header = "bpf/bpf_helpers.h";
    if Path::new("/usr/include").join(header).exists() {
        return None;
    }
    let root = tools.join("libbpf");
    let include = root.join("usr/include");
    if !include.join(header).exists()
        && let Err(reason) = unpack(archive, &root)
    {
        eprintln!("libbpf's headers: {reason}");
        return None;
    }
    Some(include)
}

fn unpack(archive: &mut Archive, root: &Path) -> Result<(), String> {
    fs::create_dir_all(root).map_err(|error| error.to_string())?;
    archive
        .unpack(&LIBBPF, root)
        .map_err(|missing| missing.reason().to_owned())
}
