//! Trials on other processes: may they be traced, read, written, and made to call the kernel?

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use upatch_trampolines::{Avma, AvmaRange};

use super::companion::Companion;
use super::{Capability, Finding, has, read};
use crate::process::maps::Mapping;
use crate::process::remote::{Protection, Sharing};
use crate::process::{HeldThread, HoldError, Process, ProcessError, RemoteError, Tracer, trials};

const NOBODY: u32 = 65534;
const AS_ROOT: &str =
    "run upatch as root, or give it CAP_SYS_PTRACE: setcap cap_sys_ptrace=ep $(command -v upatch)";

pub(super) fn findings(companion: &Companion) -> Vec<Finding> {
    let mut findings = vec![same_user(companion), other_users(), own_seccomp()];
    match Process::open(companion.pid()) {
        Ok(process) => {
            let text = text_of(&process);
            findings.push(read_memory(companion, text.as_ref()));
            findings.push(write_memory(&process, text.as_ref()));
            findings.push(remote_calls(&process));
            findings.push(mapped_files(&process, text.as_ref()));
        }
        Err(error) => findings.push(
            Finding::missing(
                "opening",
                format!("the child can't be opened: {error}"),
                "no process can be patched",
            )
            .lifted_by(AS_ROOT),
        ),
    }
    findings.push(descriptors(companion));
    findings
}

/// The child's try to trace us stands for tracing any process of this user.
fn same_user(companion: &Companion) -> Finding {
    const TOPIC: &str = "own processes";
    let scope = read("/proc/sys/kernel/yama/ptrace_scope");
    let yama = match scope.as_deref() {
        None => "no Yama",
        Some("0") => "Yama off",
        Some("1") => "Yama 1: descendants only",
        Some("2") => "Yama 2: administrators only",
        Some(_) => "Yama 3: nobody",
    };
    if companion.traced_us == 0 {
        return Finding::ok(
            TOPIC,
            format!("a child traced this process ({yama})"),
            "processes of this user can be patched",
        );
    }
    let error = io::Error::from_raw_os_error(companion.traced_us);
    if read("/proc/self/status").is_some_and(|status| !status.contains("TracerPid:\t0\n")) {
        return Finding::limited(
            TOPIC,
            "can't be tried: this upatch is traced itself",
            "processes of this user can probably be patched",
        )
        .lifted_by("run doctor without a debugger or strace");
    }
    let finding = Finding::missing(
        TOPIC,
        format!("a child could not trace this process: {error} ({yama})"),
        "processes that upatch did not start can't be patched",
    );
    match scope.as_deref() {
        Some("3") => {
            finding.lifted_by("boot with another kernel.yama.ptrace_scope: 3 can't be lowered")
        }
        Some("1" | "2") => finding
            .lifted_by("run upatch as root (CAP_SYS_PTRACE), or sysctl kernel.yama.ptrace_scope=0"),
        Some(_) | None => finding.lifted_by(AS_ROOT),
    }
}

fn other_users() -> Finding {
    const TOPIC: &str = "other users";
    const MEANS: &str = "only processes of this user can be patched";
    if !has(Capability::SysPtrace) {
        return Finding::limited(TOPIC, "upatch has no CAP_SYS_PTRACE", MEANS).lifted_by(AS_ROOT);
    }
    if !has(Capability::SetUid) {
        return Finding::ok(
            TOPIC,
            "upatch has CAP_SYS_PTRACE (not tried: it can't start a process of another user)",
            "processes of all users in this user namespace can be patched",
        );
    }
    let tried = Companion::start(Some(NOBODY)).and_then(|child| {
        let traced = trials::try_to_trace(child.pid());
        child.end().and(traced)
    });
    match tried {
        Ok(()) => Finding::ok(
            TOPIC,
            "traced a process of user 65534",
            "processes of all users can be patched",
        ),
        Err(error) => Finding::limited(
            TOPIC,
            format!("could not trace a process of user 65534: {error}"),
            MEANS,
        )
        .lifted_by(AS_ROOT),
    }
}

fn own_seccomp() -> Finding {
    const TOPIC: &str = "seccomp";
    let status = read("/proc/self/status").unwrap_or_default();
    if crate::process::status::Status::parse(&status).seccomp == 0 {
        Finding::ok(
            TOPIC,
            "no filter on upatch",
            "nothing keeps upatch from its system calls",
        )
    } else {
        Finding::limited(
            TOPIC,
            "upatch runs under a seccomp filter",
            "what the filter forbids shows in the other lines",
        )
        .lifted_by("run upatch outside this container, or with a wider profile")
    }
}

/// The first executable mapping of the program's file.
fn text_of(process: &Process) -> Option<Mapping> {
    let maps = process.maps().ok()?;
    maps.iter()
        .find(|mapping| mapping.perms.exec && mapping.path().is_some())
        .cloned()
}

fn read_memory(companion: &Companion, text: Option<&Mapping>) -> Finding {
    const TOPIC: &str = "process_vm_readv";
    let at = text.map_or(0, |text| text.range.start.0);
    let mut buffer = [0; 8];
    let remote = [RemoteIoVec {
        base: usize::try_from(at).unwrap_or(0),
        len: buffer.len(),
    }];
    let read = process_vm_readv(
        Pid::from_raw(companion.pid()),
        &mut [io::IoSliceMut::new(&mut buffer)],
        &remote,
    );
    match read {
        Ok(8) => Finding::ok(
            TOPIC,
            "read 8 bytes of a child",
            "patches can read the program's memory without crashing it",
        ),
        result => Finding::missing(
            TOPIC,
            format!("reading a child gave {result:?}"),
            "patches that call bpf_probe_read_user always get -EFAULT",
        )
        .lifted_by("a kernel with CONFIG_CROSS_MEMORY_ATTACH, and no filter that forbids the call"),
    }
}

/// Writes the bytes that are there already over the child's text.
fn write_memory(process: &Process, text: Option<&Mapping>) -> Finding {
    const TOPIC: &str = "writing text";
    let tried = text.map(|text| {
        let at = text.range.start;
        let bytes = process.memory().read_vec(at, 8)?;
        process.memory().write(at, &bytes)
    });
    match tried {
        Some(Ok(())) => Finding::ok(
            TOPIC,
            "wrote to a child's read-execute page through /proc/PID/mem",
            "code can be patched",
        ),
        Some(Err(error)) => Finding::missing(TOPIC, error.to_string(), "no code can be patched")
            .lifted_by("boot with proc_mem.force_override=always, or build the kernel with CONFIG_PROC_MEM_ALWAYS_FORCE"),
        None => Finding::missing(TOPIC, "the child's memory map has no text", "no code can be patched"),
    }
}

/// What `apply` does to make room for an image, without a patch: memfd, size, executable mapping, and everything off again.
fn remote_calls(process: &Process) -> Finding {
    const TOPIC: &str = "remote calls";
    fn attempt(process: &Process) -> Result<bool, RemoteError> {
        Tracer::session(|tracer| {
            let mut held = HeldThread::hold(tracer, process).map_err(RemoteError::Hold)?;
            let has_rseq = trials::has_rseq(held.tid()).unwrap_or(false);
            let fd = held.memfd_create("doctor")?;
            held.ftruncate(fd, 4096)?;
            held.seal_size(fd)?;
            let free = free_page(process).map_err(RemoteError::Hold)?;
            held.map(free, Protection::Code, Sharing::Private, fd, 0)?;
            held.unmap(free)?;
            held.close(fd)?;
            held.release().map_err(RemoteError::Hold)?;
            Ok(has_rseq)
        })
    }
    match attempt(process) {
        Ok(has_rseq) => Finding::ok(
            TOPIC,
            format!(
                "a child mapped and unmapped a page of code for us{}",
                if has_rseq {
                    "; its rseq area is seen"
                } else {
                    ""
                }
            ),
            "images can be placed in processes",
        ),
        Err(error) => Finding::missing(TOPIC, error.to_string(), "no image can be placed")
            .lifted_by("see the lines above; security modules may forbid executable mappings (SELinux: execmem, execmod)"),
    }
}

/// A page of address space that nothing uses, below the lowest mapping.
fn free_page(process: &Process) -> Result<AvmaRange, HoldError> {
    let maps = process.maps()?;
    let lowest = maps
        .iter()
        .next()
        .map_or(1 << 30, |first| first.range.start.0);
    Ok(AvmaRange::new(Avma((lowest - (1 << 20)) & !0xfff), 4096))
}

fn mapped_files(process: &Process, text: Option<&Mapping>) -> Finding {
    const TOPIC: &str = "map_files";
    let tried = text.map(|text| {
        let (start, end) = (text.range.start.0, text.range.end.0);
        process.open_file(&format!("map_files/{start:x}-{end:x}"))
    });
    match tried {
        Some(Ok(file)) => {
            let _: File = file;
            Finding::ok(
                TOPIC,
                "opened the file behind a child's mapping",
                "programs whose files were replaced or deleted can be patched",
            )
        }
        Some(Err(error)) => Finding::limited(
            TOPIC,
            match error {
                ProcessError::NotPermitted { source, .. } => source.to_string(),
                error => error.to_string(),
            },
            "programs whose files were replaced or deleted can't be patched",
        )
        .lifted_by("run upatch as root (CAP_SYS_ADMIN, or CAP_CHECKPOINT_RESTORE)"),
        None => Finding::limited(TOPIC, "the child's memory map has no text", "not known"),
    }
}

fn descriptors(companion: &Companion) -> Finding {
    const TOPIC: &str = "pidfd_getfd";
    let tried = trials::open_pidfd(companion.pid())
        .and_then(|pidfd| trials::borrow_descriptor(pidfd.as_fd(), 0));
    match tried {
        Ok(_) => Finding::ok(
            TOPIC,
            "borrowed a descriptor of a child",
            "arenas can be handed to processes, and shared with the kernel",
        ),
        Err(error) => Finding::limited(
            TOPIC,
            error.to_string(),
            "patches with rules, counters or events are refused: their memory can't be handed to the process",
        )
        .lifted_by("Linux 5.6 or later, with the right to trace the process"),
    }
}
