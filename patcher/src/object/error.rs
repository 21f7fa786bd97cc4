//! Why an object is no patch of ours, and what would help.

use super::btf::BtfError;
use super::core::CoreError;
use super::elf::ElfError;
use super::externs::ExternError;
use super::target::TargetError;

/// What patches ask of a C library that they don't have; clang makes calls of some of it by itself.
const LIBC: [&str; 10] = [
    "memcmp", "memcpy", "memmove", "memset", "strcmp", "strncmp", "strlen", "strchr", "strstr",
    "printf",
];

/// Why an object is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says it")]
pub enum ObjectError {
    #[error(transparent)]
    Elf(#[from] ElfError),
    #[error(transparent)]
    Btf(#[from] BtfError),
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error("the object has no type information (no section `{section}`)")]
    NoBtf { section: &'static str },
    #[error("the object has no program")]
    NoProgram,
    #[error("the section name `{section}` names no target: {error}")]
    BadTarget { section: String, error: TargetError },
    #[error("`{function}` in section `{section}`: {reason}")]
    RefusedSection {
        section: String,
        function: String,
        reason: &'static str,
    },
    #[error(
        "`{function}` in section `{section}` is a kernel program of a kind that upatch does not attach yet"
    )]
    KernelProgram { section: String, function: String },
    #[error(
        "`{first}` and `{second}` both go to `{target}`; more than one program at a place is not built yet"
    )]
    SeveralAtOnePlace {
        first: String,
        second: String,
        target: String,
    },
    #[error("two functions are named `{name}`")]
    SameName { name: String },
    #[error("the function `{name}` is not a whole number of instructions inside its section")]
    FunctionBounds { name: String },
    #[error("the functions `{first}` and `{second}` overlap")]
    FunctionOverlap { first: String, second: String },
    #[error(
        "`{name}` is an ordinary variable, which the kernel program `{program}` cannot share with a patch"
    )]
    MisplacedVariable {
        name: String,
        program: String,
        spelling: String,
    },
    #[error("map `{map}` ({kind}): upatch has no maps, only the arena")]
    Map { map: String, kind: String },
    #[error("the arena of {reserved} bytes is smaller than the variables in it, {needed} bytes")]
    ArenaTooSmall { reserved: u64, needed: u64 },
    #[error("an arena of {len} bytes is not between one page and 4 GiB")]
    ArenaTooLarge { len: u64 },
    #[error("section `{section}` is aligned to {align} bytes, more than a page")]
    Alignment { section: String, align: u64 },
    #[error("the variables `{first}` and `{second}` overlap")]
    Overlap { first: String, second: String },
    #[error("`{name}` lies outside of its section")]
    OutOfSection { name: String },
    #[error(
        "the initial value of `{variable}` holds an address, which is not known before the patch is placed"
    )]
    PointerInData { variable: String },
    #[error("upatch does not know what the data section `{section}` is for")]
    UnknownDataSection { section: String },
    #[error("the build-id `{text}` is not an even number of hexadecimal digits, at least 8")]
    BadBuildId { text: String },
    #[error("the external function `{name}`: {error}")]
    Extern { name: String, error: ExternError },
}

impl ObjectError {
    /// What would help, if we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Elf(ElfError::NotElf | ElfError::WrongKind { .. }) => {
                "compile the patch with `upatch build patch.c`".to_owned()
            }
            Self::NoBtf { .. } => "compile with `upatch build`, or with clang's -g".to_owned(),
            Self::NoProgram => "a patch begins with SEC(\"upatch/MODULE:FUNCTION\")".to_owned(),
            Self::BadTarget { .. } => "write SEC(\"upatch/MODULE:FUNCTION\") or SEC(\"upatch/MODULE:FUNCTION+OFFSET\")".to_owned(),
            Self::KernelProgram { .. } => {
                "attaching comes later for all but `tcx/ingress`, `tcx/egress` and `tc`; put the others into an object of their own".to_owned()
            }
            Self::SeveralAtOnePlace { .. } => "write one program that does both".to_owned(),
            Self::MisplacedVariable { spelling, .. } => format!("write `{spelling};`"),
            Self::Map { .. } => "count in UPATCH_COUNTER(type, name), look up in UPATCH_RULE(type, name)".to_owned(),
            Self::ArenaTooSmall { .. } => "raise max_entries (pages of 4096 bytes)".to_owned(),
            Self::PointerInData { .. } => "make it an array of arrays (`char names[][8]`), fill it in the program, or use an index instead".to_owned(),
            Self::Core(CoreError::Type { .. } | CoreError::Kind { .. }) => {
                "read with bpf_probe_read_user and offsets of your own, without preserve_access_index".to_owned()
            }
            // Calls that clang makes itself, or of a patch that looks for the C library.
            Self::Extern { error: ExternError::NotKsym, name } if LIBC.contains(&name.trim_start_matches("__builtin_")) => {
                "a patch has no C library: compare with bpf_strncmp() or in a loop with a constant bound".to_owned()
            }
            Self::Extern { error: ExternError::NotKsym, name } => {
                format!("declare `{name}` with __ksym if it is a function of the program, or define it")
            }
            Self::Extern { .. }
            | Self::Elf(_)
            | Self::Btf(_)
            | Self::Core(_)
            | Self::RefusedSection { .. }
            | Self::SameName { .. }
            | Self::FunctionBounds { .. }
            | Self::FunctionOverlap { .. }
            | Self::ArenaTooLarge { .. }
            | Self::Alignment { .. }
            | Self::Overlap { .. }
            | Self::OutOfSection { .. }
            | Self::UnknownDataSection { .. }
            | Self::BadBuildId { .. } => return None,
        };
        Some(hint)
    }
}
