//! Every stage's error in the words and exit codes of the command line: the one place that decides both.

use super::failure::{Exit, Failure};
use crate::apply::ApplyError;
use crate::apply::program::ProgramError;
use crate::apply::query::QueryError;
use crate::build::BuildError;
use crate::kernel::KernelError;
use crate::patching::{self, ArenaError, PokeError, PrepareError, RevertError};
use crate::process::{HoldError, MemoryError, ProcessError, RemoteError, StopError};
use crate::target::{self, ResolveError, SnapshotError};

/// An error and its sources in one line; a source that the message repeats already is not said twice.
fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::Object(error) => {
                let failure = Self::new(Exit::Object, in_one_line(&error));
                with_hint(failure, error.hint())
            }
            ProgramError::Link { .. } => Self::new(Exit::Object, in_one_line(&error)),
            ProgramError::Rejected { program, rejection } => {
                let failure = Self::new(
                    Exit::Object,
                    format!("program `{program}` is rejected: {rejection}"),
                );
                let failure = match &rejection.line {
                    Some(line) => failure.at(format!("{}:{}", line.file, line.line)),
                    None => failure.at(format!(
                        "instruction {} of `{}`",
                        rejection.pc.0, rejection.subprog
                    )),
                };
                with_hint(failure, rejection.hint.clone())
            }
        }
    }
}

fn with_hint(failure: Failure, hint: Option<String>) -> Failure {
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        let exit = match &error {
            BuildError::Object(_) | BuildError::Link { .. } | BuildError::Compile { .. } => {
                Exit::Object
            }
            BuildError::Source { .. } => Exit::Usage,
            BuildError::Clang(_) | BuildError::Io { .. } | BuildError::Output { .. } => {
                Exit::Internal
            }
        };
        with_hint(Self::new(exit, in_one_line(&error)), error.hint())
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let message = error.to_string();
        match error {
            QueryError::BadBuildId(_) => Self::new(Exit::Usage, message).hint(
                "a build-id is at least 8 hexadecimal digits; `file` or `readelf -n` shows it",
            ),
            QueryError::BadFunction { .. } => {
                Self::new(Exit::Usage, message).hint("write FUNCTION or MODULE:FUNCTION")
            }
            QueryError::Contradiction { .. } => Self::new(Exit::Usage, message)
                .hint("leave the module out of --function, or build the patch for that module"),
        }
    }
}

impl From<ProcessError> for Failure {
    fn from(error: ProcessError) -> Self {
        let message = in_one_line(&error);
        match error {
            ProcessError::NotPermitted { .. } => Self::new(Exit::Permission, message)
                .hint("run upatch as root, or as the user who owns the process (ptrace(2), \"Ptrace access mode checking\")"),
            ProcessError::AlreadyTraced { .. } if super::target::is_held_by_upatch(&error) => {
                Self::new(Exit::Refused, message).hint("wait for the other upatch, then try again")
            }
            ProcessError::AlreadyTraced { .. } => {
                Self::new(Exit::Permission, message).hint("let the other tracer detach first")
            }
            ProcessError::NotAProcess { pid, .. } => Self::new(Exit::Target, message).hint(format!("use --pid {pid}")),
            ProcessError::NotFound(_) | ProcessError::Zombie(_) => Self::new(Exit::Target, message),
            ProcessError::NotSixtyFour(_) | ProcessError::KernelThread(_) | ProcessError::ShadowStack(_) => {
                Self::new(Exit::Refused, message)
            }
            ProcessError::TooMany { .. } => Self::new(Exit::Refused, message)
                .hint("the process made them itself; restart it"),
            ProcessError::Locked(_) => Self::new(Exit::Refused, message).hint("wait for it, then try again"),
            ProcessError::Maps(_) => Self::new(Exit::Internal, message),
            ProcessError::Io { source, .. } => Self::new(target_exit(target::error::failure_of(&source)), message),
        }
    }
}

fn target_exit(failure: target::Failure) -> Exit {
    match failure {
        target::Failure::System => Exit::Internal,
        target::Failure::NotFound => Exit::Target,
        target::Failure::Refused => Exit::Refused,
        target::Failure::Permission => Exit::Permission,
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        Self::new(target_exit(error.failure()), in_one_line(&error))
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let failure = Self::new(target_exit(error.failure()), in_one_line(&error));
        with_hint(failure, error.hint())
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        let message = in_one_line(&error);
        match error {
            ApplyError::Program(error) => error.into(),
            ApplyError::Query(error) => error.into(),
            ApplyError::Process(error) => error.into(),
            ApplyError::Snapshot(error) => error.into(),
            ApplyError::Resolve(error) => error.into(),
            ApplyError::OverrideOfSeveral { .. } => Self::new(Exit::Usage, message)
                .hint("name the places in the sections: SEC(\"upatch/MODULE:FUNCTION\"), in stripped programs SEC(\"upatch/MODULE:NAME@0xADDRESS\")"),
            ApplyError::TooManySites { .. } => Self::new(Exit::Object, message).hint("make several objects of it"),
            ApplyError::SitesOverlap { .. } => {
                Self::new(Exit::Refused, message).hint("merge the two programs, or patch a place further away")
            }
            ApplyError::Interrupted { id } => Self::new(Exit::Refused, message)
                .hint(format!("take it off: upatch revert --pid PID --patch {id}")),
            ApplyError::WrongKind { .. } => Self::new(Exit::Refused, message)
                .hint("write +OFFSET in the section for a place inside a function, and none for its entry"),
            ApplyError::Undisplaceable { .. } => {
                Self::new(Exit::Refused, message).hint("patch a caller or callee of the function, or a place further in (+OFFSET)")
            }
            ApplyError::Seccomp(_) => {
                Self::new(Exit::Refused, message).hint("write the patch without these helpers, or lift the seccomp filter")
            }
            ApplyError::MayThrow(_) => Self::new(Exit::Refused, message)
                .hint("refuse the call with a result instead of calling the program, or patch a function that need not call it"),
            ApplyError::NoXsave => Self::new(Exit::Refused, message),
            ApplyError::Check(_) => {
                Self::new(Exit::Refused, message).hint("this is a bug of upatch that did no harm: please report it with the object")
            }
            ApplyError::Arena(error) => error.into(),
            ApplyError::Kernel(error) => error.into(),
            ApplyError::MemfdForKernel => {
                Self::new(Exit::Usage, message).hint("leave --arena memfd out")
            }
            ApplyError::Prepare(error) => error.into(),
            ApplyError::Apply(error) => error.into(),
            ApplyError::Memory(error) => error.into(),
        }
    }
}

impl From<ArenaError> for Failure {
    fn from(error: ArenaError) -> Self {
        let message = in_one_line(&error);
        match error {
            ArenaError::FileSizeLimit { .. } => Self::new(Exit::Refused, message)
                .hint("raise the limit: ulimit -f unlimited (setrlimit(2), RLIMIT_FSIZE)"),
            ArenaError::Failed { .. } => Self::new(Exit::Internal, message)
                .hint("the arena's memory is upatch's own: see the machine's free memory and the limits of upatch's cgroup"),
            ArenaError::NotPermitted(_) => Self::new(Exit::Permission, message)
                .hint("run upatch as root (CAP_BPF); a patch without kernel programs also works with --arena memfd"),
            ArenaError::Unsupported(_) => Self::new(Exit::Refused, message)
                .hint("a patch without kernel programs also works with --arena memfd, on any kernel"),
            ArenaError::TooLarge { .. } => Self::new(Exit::Object, message)
                .hint("make the variables of the patch smaller"),
            ArenaError::Taken { .. } => Self::new(Exit::Refused, message).hint("try again"),
            ArenaError::TooSmall { .. } => Self::new(Exit::Internal, message),
        }
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let message = in_one_line(&error);
        match error {
            KernelError::Link { .. } | KernelError::TypeInformation { .. } => {
                Self::new(Exit::Object, message)
            }
            KernelError::NoKfunc { .. } => Self::new(Exit::Object, message)
                .hint("functions of the program can be called by patches only, functions of the kernel by kernel programs only"),
            KernelError::Rejected { .. } => Self::new(Exit::Object, message)
                .hint("kernel programs are judged by the running kernel; its last words are above"),
            KernelError::NoDevice { .. } => Self::new(Exit::Usage, message)
                .hint("name the network device: --dev IFACE, or --dev PROGRAM=IFACE for each"),
            KernelError::NoProgram { .. } => Self::new(Exit::Usage, message)
                .hint("--dev says where the object's kernel programs go"),
            KernelError::NoInterface { .. } => Self::new(Exit::Target, message).hint(
                "`ip link` lists them; for a device in a container run upatch in its network namespace: nsenter --net=/proc/PID/ns/net upatch …",
            ),
            KernelError::NotPermitted { .. } => Self::new(Exit::Permission, message)
                .hint("run upatch as root (CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN)"),
            KernelError::Attach { .. } => Self::new(Exit::Refused, message)
                .hint("tcx came with Linux 6.6; `bpftool net` shows what is attached there"),
            KernelError::Failed { .. } => Self::new(Exit::Internal, message),
        }
    }
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        let message = in_one_line(&error);
        match error {
            PrepareError::AlreadyPatched { id, .. } => Self::new(Exit::Refused, message).hint(
                format!("revert it first: upatch revert --pid PID --patch {id}"),
            ),
            PrepareError::RecordTooLong { .. } => Self::new(Exit::Refused, message)
                .hint("leave out variables, or give them types with fewer members and enumerators"),
            PrepareError::FileSizeLimit { .. } => Self::new(Exit::Refused, message)
                .hint("raise the limit: prlimit --pid PID --fsize=SIZE (prlimit(1))"),
            PrepareError::NoGap { .. }
            | PrepareError::NoArenaGap { .. }
            | PrepareError::Build(_) => Self::new(Exit::Refused, message),
            PrepareError::Remote(error) => error.into(),
            PrepareError::Process(error) => error.into(),
            PrepareError::Memory(error) => error.into(),
            PrepareError::Mismatch(_) => Self::new(Exit::Internal, message),
        }
    }
}

impl From<patching::ApplyError> for Failure {
    fn from(error: patching::ApplyError) -> Self {
        let message = in_one_line(&error);
        match error {
            patching::ApplyError::Busy(_) => Self::new(Exit::Refused, message)
                .hint("the process was too busy in that function; try again"),
            patching::ApplyError::NoThreadPointer { .. } => Self::new(Exit::Refused, message)
                .hint("write the patch without calls of the program"),
            patching::ApplyError::Poke(error) => error.into(),
            patching::ApplyError::Stop(error) => error.into(),
        }
    }
}

impl From<RevertError> for Failure {
    fn from(error: RevertError) -> Self {
        let message = in_one_line(&error);
        match error {
            RevertError::Vanished(_) => Self::new(Exit::Target, message),
            RevertError::NotPermitted(_) => Self::new(Exit::Permission, message)
                .hint("run upatch as root (CAP_SYS_ADMIN)"),
            RevertError::Damaged { .. } => Self::new(Exit::Contested, message)
                .hint("something overwrote upatch's record in the process; restart the process to be rid of the patch"),
            RevertError::FileDisagrees { .. } => Self::new(Exit::Contested, message),
            RevertError::Poke(error) => error.into(),
            RevertError::Stop(error) => error.into(),
            RevertError::Remote(error) => error.into(),
            RevertError::Process(error) => error.into(),
            RevertError::Memory(error) => error.into(),
        }
    }
}

impl From<PokeError> for Failure {
    fn from(error: PokeError) -> Self {
        let message = in_one_line(&error);
        match error {
            PokeError::Differs { .. } => {
                Self::new(Exit::Contested, message).hint("see what else patches this process")
            }
            PokeError::Lost { .. } | PokeError::NotOneWrite { .. } => {
                Self::new(Exit::Refused, message)
            }
            PokeError::Stop(error) => error.into(),
            PokeError::Memory(error) => error.into(),
        }
    }
}

impl From<StopError> for Failure {
    fn from(error: StopError) -> Self {
        let message = in_one_line(&error);
        match error {
            StopError::NotStopping { .. } => Self::new(Exit::Refused, message)
                .hint("the thread waits in the kernel and can't be stopped; try again when it is out of there"),
            StopError::AlreadyTraced { .. } => {
                Self::new(Exit::Permission, message).hint("let the other tracer detach first")
            }
            StopError::Process(error) => error.into(),
            StopError::Trace { .. } => Self::new(Exit::Internal, message),
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let message = in_one_line(&error);
        match error {
            RemoteError::Hold(error) => error.into(),
            RemoteError::Passing { source, .. } => match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => Self::new(Exit::Permission, message).hint(
                    "pidfd_getfd(2) must be permitted: run upatch as root, and outside of a container that filters it",
                ),
                Some(libc::ENOSYS) => Self::new(Exit::Refused, message)
                    .hint("pidfd_getfd(2) came with Linux 5.6; older kernels, and filters that hide it, won't do"),
                _ => Self::new(Exit::Internal, message),
            },
            RemoteError::NotTaken => Self::new(Exit::Refused, message)
                .hint("raise its limit: prlimit --pid PID --nofile=N (prlimit(1))"),
            RemoteError::Failed { source, .. } if source.raw_os_error() == Some(libc::EMFILE) => {
                Self::new(Exit::Refused, message)
                    .hint("it has no free descriptor, of which upatch needs two for a moment: prlimit --pid PID --nofile=N (prlimit(1))")
            }
            RemoteError::Failed { .. } => Self::new(Exit::Refused, message)
                .hint("the process may be at a limit of its own (see its /proc/PID/limits)"),
        }
    }
}

impl From<HoldError> for Failure {
    fn from(error: HoldError) -> Self {
        let message = in_one_line(&error);
        match error {
            HoldError::NoThread { .. } if message.contains("seccomp") => Self::new(Exit::Refused, message).hint(
                "upatch makes system calls in a thread of the process, for which a filter may kill it; patch the process before it installs its filter",
            ),
            HoldError::NoThread { .. } | HoldError::NoRoomForStub(_) | HoldError::Restless(_) => {
                Self::new(Exit::Refused, message)
            }
            HoldError::Gone => Self::new(Exit::Target, message),
            HoldError::Process(error) => error.into(),
            HoldError::Memory(error) => error.into(),
            HoldError::Trace { .. } => Self::new(Exit::Internal, message),
        }
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        let message = in_one_line(&error);
        match error {
            MemoryError::Gone => Self::new(Exit::Target, message),
            MemoryError::Fault { .. } => Self::new(Exit::Internal, message),
        }
    }
}
