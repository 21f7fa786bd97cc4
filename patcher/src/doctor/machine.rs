//! Trials on the machine: kernel, memory files, processor, scheduling.

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use upatch_jit::VectorState;

use super::companion::Companion;
use super::{Finding, read};
use crate::process::trials;

/// PTRACE_GET_RSEQ_CONFIGURATION came with 5.13; everything else that upatch relies on is older.
const OLDEST: (u32, u32) = (5, 13);

pub(super) fn findings(companion: &Companion) -> Vec<Finding> {
    vec![
        kernel(),
        memory_files(),
        vectors(),
        transactions(),
        shadow_stack(companion),
        realtime(),
        memory_lock(),
        throttle(),
    ]
}

fn kernel() -> Finding {
    const TOPIC: &str = "kernel";
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map_while(|digits| digits.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        Finding::ok(TOPIC, format!("Linux {release}"), "new enough")
    } else {
        Finding::limited(
            TOPIC,
            format!("Linux {release}"),
            "threads in restartable sequences can't be told from others",
        )
        .lifted_by("Linux 5.13 or later")
    }
}

fn memory_files() -> Finding {
    const TOPIC: &str = "memfd";
    let sysctl = read("/proc/sys/vm/memfd_noexec").unwrap_or_else(|| "absent".to_owned());
    let attempt = || -> io::Result<()> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let exec = MFdFlags::from_bits_retain(libc::MFD_EXEC);
        // Kernels before 6.3 don't know MFD_EXEC.
        let file = memfd_create(c"doctor", flags | exec).or_else(|errno| match errno {
            nix::errno::Errno::EINVAL => memfd_create(c"doctor", flags),
            errno => Err(errno),
        })?;
        nix::unistd::ftruncate(&file, 4096)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        trials::map_executable(file.as_fd())
    };
    match attempt() {
        Ok(()) => Finding::ok(
            TOPIC,
            format!("made, sealed and mapped executable (vm.memfd_noexec {sysctl})"),
            "images and arenas can be made",
        ),
        Err(error) => Finding::missing(
            TOPIC,
            format!("{error} (vm.memfd_noexec {sysctl})"),
            "no image can be placed in a process",
        )
        .lifted_by(
            "sysctl vm.memfd_noexec=1; a security module may forbid executable mappings too",
        ),
    }
}

fn vectors() -> Finding {
    const TOPIC: &str = "vector registers";
    match VectorState::detect() {
        Some(state) => {
            let names = [(2, "AVX"), (5, "AVX-512")];
            let has: Vec<&str> = names
                .into_iter()
                .filter(|(bit, _)| state.mask >> bit & 1 == 1)
                .map(|(_, name)| name)
                .collect();
            let found = format!(
                "XSAVE area of {} bytes (x87, SSE{}{})",
                state.bytes,
                if has.is_empty() { "" } else { ", " },
                has.join(", ")
            );
            Finding::ok(TOPIC, found, "patches can call functions of the program")
        }
        None => Finding::limited(
            TOPIC,
            "the processor has no XSAVE",
            "patches that call functions of the program are refused",
        ),
    }
}

fn transactions() -> Finding {
    const TOPIC: &str = "transactions";
    const TRIES: u32 = 1000;
    const MEANS: &str =
        "none: patches read the program's memory by system calls (about half a microsecond each)";
    // CPUID.7.0:EBX bit 11
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).ebx >> 11 & 1 == 0 {
        return Finding::limited(TOPIC, "the processor has no RTM", MEANS);
    }
    let committed = trials::committed_transactions(TRIES);
    let found = format!("RTM: {committed} of {TRIES} empty transactions committed");
    if committed == 0 {
        Finding::limited(TOPIC, found, MEANS)
            .lifted_by("boot with tsx=on, at the risk that it names")
    } else {
        Finding::ok(TOPIC, found, "not used by this version of upatch")
    }
}

fn shadow_stack(companion: &Companion) -> Finding {
    const TOPIC: &str = "shadow stack";
    let status = read(&format!("/proc/{}/status", companion.pid())).unwrap_or_default();
    let active = crate::process::status::Status::parse(&status).shadow_stack;
    // CPUID.7.0:ECX bit 7
    let processor = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ecx >> 7 & 1 == 1;
    let kernel = status.contains("x86_Thread_features");
    if active {
        return Finding::limited(
            TOPIC,
            "a child runs with one",
            "programs built with -fcf-protection may be refused",
        )
        .lifted_by("start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off");
    }
    let found = match (processor, kernel) {
        (true, true) => "processor and kernel have them, a child runs without",
        (true, false) => "the kernel has none",
        (false, _) => "the processor has none",
    };
    Finding::ok(TOPIC, found, "no program is refused for it")
}

fn realtime() -> Finding {
    const TOPIC: &str = "real-time";
    // On a thread of its own: whatever happens, this one stays an ordinary one.
    let tried = std::thread::spawn(trials::try_realtime).join();
    match tried.unwrap_or_else(|_| Err(io::Error::other("the thread of the trial panicked"))) {
        Ok(()) => Finding::ok(
            TOPIC,
            "SCHED_FIFO works",
            "busy processes are stopped for well under a millisecond per hundred threads",
        ),
        Err(error) => Finding::limited(
            TOPIC,
            format!("SCHED_FIFO: {error}"),
            "a process whose threads are all busy may be stopped for tens of milliseconds",
        )
        .lifted_by(
            "run upatch as root, or raise its limit: prlimit --rtprio=10 (limits.conf: rtprio)",
        ),
    }
}

fn memory_lock() -> Finding {
    const TOPIC: &str = "memory lock";
    match trials::try_memory_lock() {
        Ok(()) => Finding::ok(
            TOPIC,
            "all pages can be locked",
            "upatch never waits for the disk while a process is stopped",
        ),
        Err(error) => Finding::limited(
            TOPIC,
            error.to_string(),
            "on a machine that swaps, a process may be stopped for longer",
        )
        .lifted_by("run upatch as root, or raise its limit: prlimit --memlock=unlimited"),
    }
}

/// Real-time threads leave the rest of the machine a share of each second, our watchdog among it.
fn throttle() -> Finding {
    const TOPIC: &str = "watchdog";
    match read("/proc/sys/kernel/sched_rt_runtime_us").as_deref() {
        Some("-1") => Finding::limited(
            TOPIC,
            "kernel.sched_rt_runtime_us is -1",
            "real-time threads of others may keep upatch's watchdog from running",
        )
        .lifted_by("sysctl kernel.sched_rt_runtime_us=950000"),
        Some(share) => Finding::ok(
            TOPIC,
            format!("real-time threads get {share} of 1000000 µs"),
            "a stop that takes too long is ended after 2 seconds",
        ),
        None => Finding::ok(
            TOPIC,
            "the kernel has no real-time limit to look at",
            "a stop that takes too long is ended after 2 seconds",
        ),
    }
}
