//! Tools that building patches needs. Applying them needs none.

use std::path::Path;

use super::Finding;
use crate::build::Clang;

pub(super) fn findings() -> Vec<Finding> {
    vec![compiler(), headers()]
}

fn compiler() -> Finding {
    const TOPIC: &str = "clang";
    match Clang::from_env() {
        Ok(clang) => Finding::ok(
            TOPIC,
            format!("{} ({})", clang.path.display(), clang.version),
            "patches can be built here",
        ),
        Err(error) => Finding::missing(
            TOPIC,
            error.to_string(),
            "patches can't be built here; objects built elsewhere can be applied",
        )
        .lifted_by("install clang 19 (Debian: apt-get install clang-19), or set UPATCH_CLANG"),
    }
}

fn headers() -> Finding {
    const TOPIC: &str = "libbpf headers";
    let from_environment = std::env::var_os("UPATCH_LIBBPF").map(std::path::PathBuf::from);
    let folders = from_environment
        .iter()
        .map(std::path::PathBuf::as_path)
        .chain([Path::new("/usr/include"), Path::new("/usr/local/include")]);
    let found = folders
        .map(|folder| folder.join("bpf/bpf_helpers.h"))
        .find(|header| std::fs::metadata(header).is_ok());
    match found {
        Some(header) => Finding::ok(
            TOPIC,
            header.display().to_string(),
            "existing uprobe programs can be built",
        ),
        None => Finding::limited(
            TOPIC,
            "no bpf/bpf_helpers.h",
            "patches need only upatch.h; existing uprobe programs can't be built",
        )
        .lifted_by("install libbpf's headers (Debian: apt-get install libbpf-dev)"),
    }
}
