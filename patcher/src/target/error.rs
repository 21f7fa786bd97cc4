//! Why a process can't be looked at, and why a place in it can't be found or must not be patched.

use std::fmt;
use std::io;
use std::path::PathBuf;

use upatch_trampolines::Avma;

use super::address::Svma;
use super::build_id::{BuildId, BuildIdPrefix};
use super::elf::ElfError;
use super::symbols::Definition;
use crate::process::maps::Perms;

/// What kind of answer an error is; the command line maps it to an exit code (DESIGN, "Exit codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Internal or I/O: 1.
    System,
    /// The target isn't there or isn't the one that was meant: 4.
    NotFound,
    /// It is there, but patching it would not be safe: 5.
    Refused,
    /// We may not look: 6.
    Permission,
}

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading one of its files in `/proc` failed.
    #[error("cannot read the process's {what}")]
    Unreadable {
        /// `memory map` or so.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It has no memory: a kernel thread or a zombie.
    #[error("the process has no memory (a kernel thread, or it has ended)")]
    NoMemory,
}

impl SnapshotError {
    /// What kind of answer this is.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unreadable { source, .. } => failure_of(source),
            Self::NoMemory => Failure::NotFound,
        }
    }
}

/// The kind of an error of the kernel about a process.
#[must_use]
pub fn failure_of(error: &io::Error) -> Failure {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::PermissionDenied, _) => Failure::Permission,
        (io::ErrorKind::NotFound, _) | (_, Some(libc::ESRCH)) => Failure::NotFound,
        _ => Failure::System,
    }
}

/// A module as errors list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleId {
    /// Path as the process sees it, `[vdso]` for the vDSO.
    pub path: PathBuf,
    /// First address.
    pub at: Avma,
    /// Its build-id, if it has one.
    pub build_id: Option<BuildId>,
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.build_id {
            Some(id) => write!(f, "{id} {} at {}", self.path.display(), self.at),
            None => write!(f, "(no build-id) {} at {}", self.path.display(), self.at),
        }
    }
}

/// One line per item.
struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| write!(f, "\n  {item}"))
    }
}

/// Who else may have changed the text of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Foreign {
    /// `int3`: a kernel uprobe or a debugger's breakpoint.
    UprobeOrBreakpoint,
    /// A call into the kernel's `[uprobes-trampoline]`: an optimised kernel uprobe.
    OptimizedUprobe,
    /// A jump: another patcher, or a patch of ours.
    Jump {
        /// Where it leads.
        to: Avma,
    },
    /// Neither: the program changes its own code, or the file was overwritten.
    Unknown,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UprobeOrBreakpoint => {
                f.write_str("a kernel uprobe is there, or a debugger's breakpoint")
            }
            Self::OptimizedUprobe => f.write_str("a kernel uprobe is there (optimised to a call)"),
            Self::Jump { to } => write!(
                f,
                "a jump to {to} is there: the function is patched already"
            ),
            Self::Unknown => {
                f.write_str("the program changes its own code, or its file was overwritten")
            }
        }
    }
}

/// Why a query leads to no patch site.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No build-id was given.
    #[error("no build-id given; the process has{}", Lines(.found))]
    BuildIdMissing {
        /// What the process has; only the modules that were named, if any were.
        found: Vec<ModuleId>,
    },
    /// No module has such a build-id.
    #[error("no module has build-id {}; the process has{}", wanted_text(.wanted), Lines(.found))]
    BuildIdUnknown {
        /// What was asked for.
        wanted: Vec<BuildIdPrefix>,
        /// What there is.
        found: Vec<ModuleId>,
    },
    /// Several modules fit.
    #[error("more than one module fits{}", Lines(.found))]
    ModuleAmbiguous {
        /// Which.
        found: Vec<ModuleId>,
    },
    /// No module has this name.
    #[error("no module is called `{}`; the process has{}", .name.escape_debug(), Lines(.found))]
    ModuleNotFound {
        /// What was asked for.
        name: String,
        /// What there is.
        found: Vec<ModuleId>,
    },
    /// The module exists but has another build-id.
    #[error("module `{}` doesn't have build-id {}; it is{}{}", .name.escape_debug(), wanted_text(.wanted), Lines(.named), elsewhere(.others))]
    ModuleMismatch {
        /// The module that was named.
        name: String,
        /// The build-ids that were asked for.
        wanted: Vec<BuildIdPrefix>,
        /// The modules of that name.
        named: Vec<ModuleId>,
        /// Other modules that have that build-id.
        others: Vec<ModuleId>,
    },
    /// Neither a function nor an address was given.
    #[error("neither a function nor an address was given")]
    NothingNamed,
    /// The module's ELF image can't be used.
    #[error("{module}: {error}")]
    Elf {
        /// Which module.
        module: PathBuf,
        /// What is wrong.
        error: ElfError,
    },
    /// The file is not the one that is loaded.
    #[error(
        "{module}: the file has build-id {file:?}, the loaded module {memory:?}: it was overwritten in place"
    )]
    FileChanged {
        /// Which module.
        module: PathBuf,
        /// The file's.
        file: Option<BuildId>,
        /// The loaded one's.
        memory: Option<BuildId>,
    },
    /// No such function.
    #[error("{module}: no function `{}`{}", .name.escape_debug(), names_text("; similar: ", .similar))]
    FunctionNotFound {
        /// Which module.
        module: PathBuf,
        /// What was asked for.
        name: String,
        /// Names like it.
        similar: Vec<String>,
        /// Other modules that define it.
        defined_in: Vec<PathBuf>,
    },
    /// Several definitions of one name.
    #[error("{module}: `{}` has {} definitions{}", .name.escape_debug(), .definitions.len(), Lines(.definitions))]
    FunctionAmbiguous {
        /// Which module.
        module: PathBuf,
        /// What was asked for.
        name: String,
        /// Which there are.
        definitions: Vec<Definition>,
    },
    /// The symbol is a resolver that chooses among implementations.
    #[error(
        "{module}: `{}` is an IFUNC: a resolver that chooses the implementation at load time", .name.escape_debug()
    )]
    Ifunc {
        /// Which module.
        module: PathBuf,
        /// What was asked for.
        name: String,
        /// Implementations this process uses, as the global offset tables say.
        chosen: Vec<Svma>,
        /// Functions whose names look like implementations.
        candidates: Vec<String>,
    },
    /// Function and address were given and disagree.
    #[error("`{}` lies at {symbol}, not at {address}", .name.escape_debug())]
    Contradiction {
        /// The function.
        name: String,
        /// Where its symbol says it is.
        symbol: Svma,
        /// What was given.
        address: Svma,
    },
    /// Not code, or not in the file.
    #[error("{module}: {at} is not code of this module")]
    NotCode {
        /// Which module.
        module: PathBuf,
        /// The stated address.
        at: Svma,
    },
    /// The address is a jump to a function of another module.
    #[error("{module}: {at} lies in the procedure linkage table: it is no function")]
    Plt {
        /// Which module.
        module: PathBuf,
        /// The stated address.
        at: Svma,
    },
    /// Nothing says where the function begins or ends.
    #[error(
        "{module}: the bounds of the function at {at} are unknown: neither a symbol's size nor .eh_frame covers it"
    )]
    NoBounds {
        /// Which module.
        module: PathBuf,
        /// The stated address.
        at: Svma,
    },
    /// The offset lies behind the function's end.
    #[error("offset {offset:#x} lies outside the function of {len:#x} bytes")]
    OutsideFunction {
        /// Bytes from the entry.
        offset: u64,
        /// The function's length.
        len: u64,
    },
    /// The offset lies inside an instruction.
    #[error(
        "offset {offset:#x} lies inside an instruction: one begins at {before:#x}, the next at {after:#x}"
    )]
    NotAnInstruction {
        /// Bytes from the entry.
        offset: u64,
        /// Begin of the instruction that covers it, from the entry.
        before: u64,
        /// Begin of the next.
        after: u64,
    },
    /// The stated address lies inside an instruction.
    #[error("{at} lies inside an instruction: one begins at {before}, the next at {after}")]
    AddressInside {
        /// The stated address.
        at: Svma,
        /// Begin of the instruction that covers it.
        before: Svma,
        /// Begin of the next.
        after: Svma,
    },
    /// Bytes before the offset are no instructions.
    #[error("bytes at {at} before the site do not decode: instruction boundaries are unknown")]
    Undecodable {
        /// The stated address.
        at: Svma,
    },
    /// The text may change under us, or changing it would reach others.
    #[error("{module}: text at {at} is mapped {perms}: {why}")]
    Mapping {
        /// Which module.
        module: PathBuf,
        /// Where.
        at: Avma,
        /// How it is mapped.
        perms: Perms,
        /// What is wrong with that.
        why: MappingFault,
    },
    /// The text is no longer mapped, or other memory lies there.
    #[error("{module}: nothing of this module is mapped at {at}")]
    NotMapped {
        /// Which module.
        module: PathBuf,
        /// Where.
        at: Avma,
    },
    /// ld.so writes into the function.
    #[error("{module}: ld.so relocates the function's text at {at}")]
    TextRelocation {
        /// Which module.
        module: PathBuf,
        /// The relocated place.
        at: Svma,
    },
    /// Memory isn't what the file says.
    #[error(
        "{module}: memory differs from the file at {at}: {memory:#04x} instead of {file:#04x}: {foreign}"
    )]
    TextChanged {
        /// Which module.
        module: PathBuf,
        /// The first byte that differs.
        at: Avma,
        /// The byte in the file.
        file: u8,
        /// The byte in memory.
        memory: u8,
        /// Who may have changed it.
        foreign: Foreign,
    },
    /// Reading the process failed.
    #[error("cannot read the process at {at}")]
    Unreadable {
        /// Where.
        at: Avma,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What is wrong with a mapping of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MappingFault {
    /// A store would change the file and other processes.
    Shared,
    /// The program can change it at any time.
    Writable,
    /// It isn't code.
    NotExecutable,
}

impl fmt::Display for MappingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "a change would reach the file and other processes",
            Self::Writable => "the program may change it at any time",
            Self::NotExecutable => "it is not executable",
        })
    }
}

impl ResolveError {
    /// What kind of answer this is.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::BuildIdMissing { .. }
            | Self::BuildIdUnknown { .. }
            | Self::ModuleAmbiguous { .. }
            | Self::ModuleNotFound { .. }
            | Self::ModuleMismatch { .. }
            | Self::NothingNamed
            | Self::Elf { .. }
            | Self::FileChanged { .. }
            | Self::FunctionNotFound { .. }
            | Self::FunctionAmbiguous { .. }
            | Self::Contradiction { .. }
            | Self::NotCode { .. }
            | Self::OutsideFunction { .. }
            | Self::NotMapped { .. } => Failure::NotFound,
            Self::Ifunc { .. }
            | Self::Plt { .. }
            | Self::NoBounds { .. }
            | Self::NotAnInstruction { .. }
            | Self::AddressInside { .. }
            | Self::Undecodable { .. }
            | Self::Mapping { .. }
            | Self::TextRelocation { .. }
            | Self::TextChanged { .. } => Failure::Refused,
            Self::Unreadable { source, .. } => failure_of(source),
        }
    }

    /// What would help, if something is known to.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BuildIdMissing { found } | Self::ModuleMismatch { named: found, .. }
                if !found.is_empty() && found.iter().all(|module| module.build_id.is_none()) =>
            {
                "a module without a build-id can't be patched: link it with -Wl,--build-id and restart the program".to_owned()
            }
            Self::BuildIdMissing { .. } => "pass --build-id with the id of the binary the patch was made for".to_owned(),
            Self::BuildIdUnknown { .. } | Self::ModuleMismatch { .. } => {
                "the process runs another build: make the patch for it, or restart the program if its file was replaced".to_owned()
            }
            Self::ModuleAmbiguous { .. } => "name the module, or more digits of its build-id".to_owned(),
            Self::NothingNamed => "name a function, or pass --offset with the address of one".to_owned(),
            Self::FunctionNotFound { defined_in, .. } if !defined_in.is_empty() => {
                let modules: Vec<_> = defined_in.iter().map(|path| path.display().to_string()).collect();
                format!("defined in {}", modules.join(", "))
            }
            Self::FunctionNotFound { similar, .. } if !similar.is_empty() => {
                "check the spelling; a function without a name is given by --offset with its address in the file".to_owned()
            }
            Self::FunctionNotFound { .. } => {
                "a stripped binary has no names: give the function's address, as `objdump -d` prints it, by --offset or in the section, NAME@0xADDRESS".to_owned()
            }
            Self::FunctionAmbiguous { definitions, .. } if definitions.iter().any(|one| !one.versions.is_empty()) => {
                "choose one by NAME@VERSION, or by --offset".to_owned()
            }
            Self::FunctionAmbiguous { .. } => "choose one by --offset with its address".to_owned(),
            Self::Ifunc { chosen, candidates, .. } => match (chosen.as_slice(), candidates.as_slice()) {
                ([], []) => "the implementation has no name: find it in a debugger and pass --offset with its address".to_owned(),
                ([], names) => format!("name the implementation; candidates: {}", names.join(", ")),
                (chosen, _) => {
                    let chosen: Vec<_> = chosen.iter().map(ToString::to_string).collect();
                    format!("this process calls the implementation at {}: pass it by --offset", chosen.join(", "))
                }
            },
            Self::NoBounds { .. } => "name a function that has a symbol with a size".to_owned(),
            Self::NotAnInstruction { before, .. } => format!("use +{before:#x}"),
            Self::AddressInside { before, .. } => format!("use {before}"),
            Self::TextChanged { foreign: Foreign::UprobeOrBreakpoint | Foreign::OptimizedUprobe, .. } => {
                "detach the probe first".to_owned()
            }
            Self::TextChanged { foreign: Foreign::Jump { .. }, .. } => "revert the other patch first".to_owned(),
            Self::Unreadable { source, .. } if failure_of(source) == Failure::Permission => {
                "ptrace access to the process is needed".to_owned()
            }
            Self::Contradiction { .. } => {
                "leave --offset out, or name the function at that address by --function".to_owned()
            }
            Self::ModuleNotFound { .. }
            | Self::Elf { .. }
            | Self::FileChanged { .. }
            | Self::NotCode { .. }
            | Self::Plt { .. }
            | Self::OutsideFunction { .. }
            | Self::Undecodable { .. }
            | Self::Mapping { .. }
            | Self::NotMapped { .. }
            | Self::TextRelocation { .. }
            | Self::TextChanged { foreign: Foreign::Unknown, .. }
            | Self::Unreadable { .. } => return None,
        })
    }
}

fn wanted_text(wanted: &[BuildIdPrefix]) -> String {
    let texts: Vec<_> = wanted.iter().map(ToString::to_string).collect();
    texts.join(" or ")
}

fn names_text(lead: &str, names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!("{lead}{}", names.join(", "))
    }
}

fn elsewhere(others: &[ModuleId]) -> String {
    if others.is_empty() {
        String::new()
    } else {
        format!("; that build-id is{}", Lines(others))
    }
}
