//! Trials on the kernel's BPF: arenas, attachment, probes. Patches need none of it; kernel programs in an object do.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::companion::Companion;
use super::{Finding, read};
use crate::process::{Process, trials};

const PRIVILEGE: &str = "run upatch as root, or give it CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN";

pub(super) fn findings(companion: &Companion) -> Vec<Finding> {
    vec![
        lockdown(),
        unprivileged(),
        arena(),
        tcx(),
        file_system(),
        uprobes(companion),
    ]
}

fn lockdown() -> Finding {
    const TOPIC: &str = "lockdown";
    let text = read("/sys/kernel/security/lockdown");
    let mode = text
        .as_deref()
        .and_then(|text| text.split_once('[')?.1.split_once(']'))
        .map(|(mode, _)| mode);
    match mode {
        Some("none") => Finding::ok(TOPIC, "none", "kernel programs may use all helpers"),
        Some(mode) => Finding::limited(
            TOPIC,
            mode,
            "patches are not affected; kernel programs that trace or write user memory are refused",
        )
        .lifted_by("boot without lockdown= and Secure Boot"),
        None => Finding::limited(
            TOPIC,
            "can't be told: /sys/kernel/security/lockdown isn't there",
            "patches are not affected",
        )
        .lifted_by("mount -t securityfs securityfs /sys/kernel/security"),
    }
}

fn unprivileged() -> Finding {
    const TOPIC: &str = "unprivileged BPF";
    match read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref() {
        Some("0") => Finding::ok(TOPIC, "allowed", "ordinary users may load simple programs"),
        Some(value) => Finding::limited(
            TOPIC,
            format!("kernel.unprivileged_bpf_disabled is {value}"),
            "patches are not affected; kernel programs need privilege, as they should",
        ),
        None => Finding::missing(
            TOPIC,
            "the kernel has no bpf(2)",
            "patches are not affected; kernel programs can't be loaded",
        ),
    }
}

fn arena() -> Finding {
    const TOPIC: &str = "BPF arena";
    const MEANS: &str = "patches use a memfd instead; kernel programs can't share their variables";
    match trials::create_arena() {
        Ok(_) => Finding::ok(
            TOPIC,
            "made one and closed it",
            "patches and kernel programs can share variables",
        ),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            Finding::limited(TOPIC, error.to_string(), MEANS).lifted_by(PRIVILEGE)
        }
        Err(error) => {
            Finding::missing(TOPIC, error.to_string(), MEANS).lifted_by("Linux 6.10 or later")
        }
    }
}

fn tcx() -> Finding {
    const TOPIC: &str = "tcx";
    const MEANS: &str = "patches are not affected; kernel programs can't be attached to interfaces";
    match trials::query_tcx() {
        Ok(()) => Finding::ok(
            TOPIC,
            "asked the loopback interface",
            "kernel programs can be attached to interfaces",
        ),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            Finding::limited(TOPIC, error.to_string(), MEANS).lifted_by(PRIVILEGE)
        }
        Err(error) => {
            Finding::missing(TOPIC, error.to_string(), MEANS).lifted_by("Linux 6.6 or later")
        }
    }
}

fn file_system() -> Finding {
    const TOPIC: &str = "bpffs";
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    let at = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "bpf").then(|| at.to_owned())
    });
    match at {
        Some(at) => Finding::ok(
            TOPIC,
            format!("mounted at {at}"),
            "kernel programs can be pinned",
        ),
        None => Finding::limited(
            TOPIC,
            "not mounted",
            "patches are not affected; nothing can be pinned",
        )
        .lifted_by("mount -t bpf bpf /sys/fs/bpf"),
    }
}

/// A probe on the child's program, in the child alone, at a function that only the dynamic linker calls and long has.
fn uprobes(companion: &Companion) -> Finding {
    const TOPIC: &str = "uprobes";
    const MEANS: &str =
        "patches are not affected; places that no jump fits can't be probed by the kernel";
    match attempt_uprobe(companion.pid()) {
        Ok(()) => Finding::ok(
            TOPIC,
            "put one on a child and took it off",
            "the kernel can probe programs",
        ),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
            Finding::limited(TOPIC, error.to_string(), MEANS)
                .lifted_by("run upatch as root, or give it CAP_PERFMON")
        }
        Err(error) => Finding::missing(TOPIC, error.to_string(), MEANS)
            .lifted_by("a kernel with CONFIG_UPROBE_EVENTS"),
    }
}

fn attempt_uprobe(pid: i32) -> io::Result<()> {
    let kind = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    let kind = kind.trim().parse().map_err(io::Error::other)?;
    let process = Process::open(pid).map_err(io::Error::other)?;
    let program = std::fs::read_link("/proc/self/exe")?;
    let bytes = std::fs::read(&program)?;
    let offset = entry_offset(&bytes).ok_or_else(|| io::Error::other("upatch has no ELF entry"))?;
    process.check_alive().map_err(io::Error::other)?;
    let path = CString::new(program.as_os_str().as_bytes()).map_err(io::Error::other)?;
    trials::open_uprobe(kind, &path, offset, pid).map(drop)
}

/// File offset of the program's entry point, which runs once, at the start.
fn entry_offset(bytes: &[u8]) -> Option<u64> {
    use object::{Object, ObjectSegment};
    let elf = object::File::parse(bytes).ok()?;
    let entry = elf.entry();
    elf.segments().find_map(|segment| {
        let into = entry.checked_sub(segment.address())?;
        (into < segment.size()).then(|| segment.file_range().0 + into)
    })
}
