//! What holds for one process. Only looked at, never stopped: it is somebody's.

use super::{Finding, Section, read};
use crate::process::status::{Status, file_size_limit};
use crate::process::{Process, ProcessError};
use crate::target::TargetImage;

/// Everything about this process that decides whether and how it can be patched.
#[must_use]
pub fn of_target(pid: i32) -> Section {
    let mut findings = Vec::new();
    match Process::open(pid) {
        Ok(process) => {
            findings.push(Finding::ok(
                "access",
                "opened",
                "it is a 64-bit process that we may trace and nobody traces",
            ));
            findings.extend(threads(&process));
            findings.push(modules(&process));
            findings.extend(limits(&process));
            findings.push(memory_limit(&process));
            findings.push(patches(&process));
        }
        Err(error) => findings.push(closed(&error)),
    }
    Section {
        title: "process",
        findings,
    }
}

fn closed(error: &ProcessError) -> Finding {
    let lift = match error {
        ProcessError::NotPermitted { .. } => {
            Some("run upatch as root, or as the user who owns the process")
        }
        ProcessError::AlreadyTraced { .. } => Some("let the other tracer detach first"),
        ProcessError::ShadowStack(_) => {
            Some("start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off")
        }
        ProcessError::NotFound(_)
        | ProcessError::NotAProcess { .. }
        | ProcessError::NotSixtyFour(_)
        | ProcessError::KernelThread(_)
        | ProcessError::Zombie(_)
        | ProcessError::Locked(_)
        | ProcessError::TooMany { .. }
        | ProcessError::Maps(_)
        | ProcessError::Io { .. } => None,
    };
    Finding {
        lift,
        ..Finding::missing("access", error.to_string(), "it can't be patched")
    }
}

fn threads(process: &Process) -> Vec<Finding> {
    let tids = process.numbers_in("task").unwrap_or_default();
    let mut filtered = 0;
    let mut asleep_in_kernel = 0;
    for tid in &tids {
        // One that has ended meanwhile is none.
        let Ok(text) = process.read_text(&format!("task/{tid}/status")) else {
            continue;
        };
        let status = Status::parse(&text);
        filtered += usize::from(status.seccomp != 0);
        asleep_in_kernel += usize::from(status.state == 'D');
    }
    let count = match tids.len() {
        1 => "1 thread".to_owned(),
        count => format!("{count} threads"),
    };
    let mut findings = vec![if asleep_in_kernel == 0 {
        Finding::ok("threads", count, "all can be stopped")
    } else {
        Finding::limited(
            "threads",
            format!("{count}, {asleep_in_kernel} of them in an uninterruptible sleep"),
            "applying waits for these, and is refused if they don't wake",
        )
    }];
    findings.push(if filtered == 0 {
        Finding::ok("seccomp", "no filter", "any helper can be used")
    } else if filtered < tids.len() {
        Finding::limited(
            "seccomp",
            format!("a filter on {filtered} of them"),
            "patches whose helpers make system calls are refused",
        )
    } else {
        Finding::missing(
            "seccomp",
            "a filter on every thread",
            "it can't be patched: mapping memory in it takes a system call",
        )
        .lifted_by("patch it before it installs its filter, or lift the filter")
    });
    findings
}

fn modules(process: &Process) -> Finding {
    match TargetImage::snapshot(process) {
        Ok(image) => Finding::ok(
            "modules",
            format!("{} with code", image.modules().len()),
            "their functions can be looked up",
        ),
        Err(error) => {
            Finding::missing("modules", error.to_string(), "functions can't be looked up")
        }
    }
}

fn limits(process: &Process) -> Vec<Finding> {
    let Ok(text) = process.read_text("limits") else {
        return Vec::new();
    };
    let file_size = match file_size_limit(&text) {
        None => Finding::ok("file size limit", "none", "arenas of any size can be made"),
        Some(bytes) => Finding::limited(
            "file size limit",
            format!("{bytes} bytes"),
            "larger arenas and images are refused",
        )
        .lifted_by("prlimit --pid PID --fsize=SIZE"),
    };
    let soft = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let address_space = match soft("Max address space") {
        None => Finding::ok("address space limit", "none", "images and arenas find room"),
        Some(bytes) => Finding::limited(
            "address space limit",
            format!("{bytes} bytes"),
            "images and arenas count against it",
        )
        .lifted_by("prlimit --pid PID --as=SIZE"),
    };
    vec![file_size, address_space]
}

/// The memory controller's limit of its group, in either hierarchy (cgroups(7)).
fn memory_limit(process: &Process) -> Finding {
    const TOPIC: &str = "memory limit";
    let groups = process.read_text("cgroup").unwrap_or_default();
    let limit = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let file = if controllers.is_empty() {
            format!("/sys/fs/cgroup{path}/memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
        } else {
            return None;
        };
        read(&file)?.parse::<u64>().ok()
    });
    // The old hierarchy says "none" by a very large number.
    match limit.filter(|bytes| *bytes < 1 << 60) {
        None => Finding::ok(TOPIC, "none found", "arenas are not limited by it"),
        Some(bytes) => Finding::limited(
            TOPIC,
            format!("{bytes} bytes for its control group"),
            "an arena counts against it",
        ),
    }
}

fn patches(process: &Process) -> Finding {
    match crate::patching::inspect(process) {
        Ok(inventory) => Finding::ok(
            "patches",
            match inventory.found.len() {
                0 => "none of ours".to_owned(),
                1 => "1 of ours (see upatch status)".to_owned(),
                count => format!("{count} of ours (see upatch status)"),
            },
            "what is there can be read",
        ),
        Err(error) => Finding::missing("patches", error.to_string(), "what is there can't be read"),
    }
}
