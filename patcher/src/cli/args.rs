//! The command line, as clap reads it. Meaning is given to it by the commands.

use std::path::PathBuf;

use crate::kernel::Device;
use crate::patching::Backend;
use clap::{Args, Parser, Subcommand};

/// Live-patch a running program with verified BPF.
#[derive(Parser, Debug)]
#[command(name = "upatch", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print one JSON object on standard output, also on failure.
    #[arg(long, global = true)]
    pub json: bool,
    /// Colour in what is printed; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Colour::Auto, hide_possible_values = true)]
    pub color: Colour,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Compile a patch written in C to a BPF object, and verify it.
    Build(BuildArgs),
    /// Prove objects safe without touching any process.
    Verify(VerifyArgs),
    /// Put a patch into a running process.
    Apply(ApplyArgs),
    /// Say what upatch has put into a process, and what state it is in.
    Status(PidArgs),
    /// Read the counters and rules of the patches in a process.
    Telemetry(TelemetryArgs),
    /// Read and set the rules of a live patch.
    Rules(RulesArgs),
    /// Take patches out of a process again; prints the final counters.
    Revert(RevertArgs),
    /// Execute a patch on given registers and memory, or a BPF program that is no patch, in a child process.
    Run(RunArgs),
    /// Show C lines, BPF and machine code side by side, before or after applying.
    Inspect(InspectArgs),
    /// Say what works on this machine, what doesn't and why, and what would lift it.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print a man page, or write all of them to a folder.
    Man(ManArgs),
}

/// When to use colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Also into files and pipes.
    Always,
    /// Nowhere.
    Never,
}

/// `upatch inspect`
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The patch object; without --pid it is compiled for any function.
    #[arg(required_unless_present = "pid")]
    pub object: Option<PathBuf>,
    /// The process: what is in its memory, or with an object that isn't applied what would be.
    #[arg(short, long, value_parser = parse_pid, allow_negative_numbers = true)]
    pub pid: Option<i32>,
    /// Only the patch with this id (as `status` prints it).
    #[arg(long, requires = "pid")]
    pub patch: Option<String>,
    /// As for `apply`: the build-id of the module, repeatable.
    #[arg(long, requires = "pid")]
    pub build_id: Vec<String>,
    /// As for `apply`: the function, instead of the section's.
    #[arg(long, requires = "pid")]
    pub function: Option<String>,
    /// As for `apply`: the address in the module's file.
    #[arg(long, value_parser = parse_number, requires = "pid")]
    pub offset: Option<u64>,
}

/// `upatch doctor`
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Also say what holds for this process.
    #[arg(short, long, value_parser = parse_pid, allow_negative_numbers = true)]
    pub pid: Option<i32>,
}

/// `upatch completions`
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `upatch man`
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The command whose page to print, for example `apply` or `telemetry dump`; default: upatch itself.
    #[arg(conflicts_with = "out")]
    pub command: Vec<String>,
    /// The folder for all pages.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `upatch build`
#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// The C source.
    pub source: PathBuf,
    /// Where the object goes; default: the source's name with `.o`, in the current folder.
    #[arg(short, long)]
    pub output: Option<PathBuf>,
    /// More arguments for clang.
    #[arg(last = true)]
    pub clang: Vec<String>,
}

/// `upatch verify`
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Objects; with `--raw` files of bare instructions, 8 bytes each, little-endian.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The files are bare instructions.
    #[arg(long)]
    pub raw: bool,
    /// With `--raw`: bytes of memory that r1 points at (r2 holds the number); 0: r1 is a number.
    #[arg(long, default_value_t = 0, requires = "raw")]
    pub mem: u32,
    /// Accept helpers that write the program's memory.
    #[arg(long)]
    pub allow_write: bool,
}

/// `upatch apply`
#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    /// The processes.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// The patch object.
    pub object: PathBuf,
    /// The build-id of the module that the patch was made for, or a unique prefix of at least 8 digits; repeatable.
    #[arg(long)]
    pub build_id: Vec<String>,
    /// The function, instead of the section's; `MODULE:FUNCTION` or `FUNCTION`.
    #[arg(long)]
    pub function: Option<String>,
    /// The patched address in the module's file (an SVMA, not a file offset), for stripped programs; hexadecimal with 0x.
    #[arg(long, value_parser = parse_number)]
    pub offset: Option<u64>,
    /// Allow helpers that write the program's memory.
    #[arg(long)]
    pub allow_write: bool,
    /// Set a rule before the patch goes live, as `rules set` does; repeatable.
    #[arg(long, value_name = "PATH=VALUE")]
    pub rule: Vec<String>,
    /// What the memory is made of that the patch shares: `memfd`, or `kernel`, which kernel programs reach too.
    /// Default: kernel if the object has kernel programs.
    #[arg(long, value_name = "BACKEND", value_parser = parse_backend)]
    pub arena: Option<Backend>,
    /// The network device of the object's kernel programs, or of one of them; repeatable.
    #[arg(long, value_name = "[PROGRAM=]IFACE", value_parser = parse_device)]
    pub dev: Vec<Device>,
    /// Do everything but touch the process, and print what would be done.
    #[arg(long)]
    pub dry_run: bool,
}

/// Which processes a command is about.
#[derive(Args, Debug)]
pub(crate) struct TargetArgs {
    /// The process; several: repeat it, or separate by commas.
    #[arg(short, long, value_delimiter = ',', required_unless_present = "all", value_parser = parse_pid, allow_negative_numbers = true)]
    pub pid: Vec<i32>,
    /// Every process that maps a module with the build-id.
    #[arg(long, conflicts_with = "pid")]
    pub all: bool,
    /// Also all descendants of the processes, those included that are born meanwhile.
    #[arg(long, conflicts_with = "all")]
    pub children: bool,
}

/// A command that only needs to know the processes.
#[derive(Args, Debug)]
pub(crate) struct PidArgs {
    /// The processes.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// With `--all`: the module's build-id, or a unique prefix of at least 8 digits; repeatable.
    #[arg(long, requires = "all")]
    pub build_id: Vec<String>,
}

/// `upatch telemetry`
#[derive(Args, Debug)]
pub(crate) struct TelemetryArgs {
    /// What to do with the counters.
    #[command(subcommand)]
    pub action: TelemetryAction,
}

/// What to do with the counters.
#[derive(Subcommand, Debug)]
pub(crate) enum TelemetryAction {
    /// Print variables and events once.
    Dump(DumpArgs),
    /// Print each event as it comes, a line each (with `--json` an object each), until the process ends, its patches are
    /// reverted, or SIGINT or SIGTERM comes.
    Follow(FollowArgs),
}

/// `upatch telemetry dump`
#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    /// The processes.
    #[command(flatten)]
    pub of: PidArgs,
    /// For people, for programs (as `--json`), or for metrics collectors.
    #[arg(long, value_enum, default_value_t = DumpFormat::Table)]
    pub format: DumpFormat,
}

/// What a dump looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum DumpFormat {
    /// Aligned lines.
    Table,
    /// One JSON object.
    Json,
    /// OpenMetrics text.
    Openmetrics,
}

/// `upatch telemetry follow`
#[derive(Args, Debug)]
pub(crate) struct FollowArgs {
    /// The process.
    #[arg(short, long, value_parser = parse_pid, allow_negative_numbers = true)]
    pub pid: i32,
    /// Only the patch with this id (as `status` prints it); default: all of ours, also those that come later.
    #[arg(long)]
    pub patch: Option<String>,
    /// Milliseconds between two looks; when events come quickly it looks earlier.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub interval: u64,
    /// End after this many events.
    #[arg(long)]
    pub count: Option<u64>,
    /// End after this many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
}

/// `upatch rules`
#[derive(Args, Debug)]
pub(crate) struct RulesArgs {
    /// What to do with the rules.
    #[command(subcommand)]
    pub action: RulesAction,
}

/// What to do with the rules.
#[derive(Subcommand, Debug)]
pub(crate) enum RulesAction {
    /// Print rules.
    Get(RulesGetArgs),
    /// Set rules; none is set if one of the values doesn't fit.
    Set(RulesSetArgs),
}

/// `upatch rules get`
#[derive(Args, Debug)]
pub(crate) struct RulesGetArgs {
    /// The process.
    #[arg(short, long, value_parser = parse_pid, allow_negative_numbers = true)]
    pub pid: i32,
    /// The patch with this id (as `status` prints it).
    #[arg(long)]
    pub patch: Option<String>,
    /// Rules or parts of them: `longest`, `limits[3].max`; default: all.
    pub paths: Vec<String>,
}

/// `upatch rules set`
#[derive(Args, Debug)]
pub(crate) struct RulesSetArgs {
    /// The process.
    #[arg(short, long, value_parser = parse_pid, allow_negative_numbers = true)]
    pub pid: i32,
    /// The patch with this id (as `status` prints it); needed if several have rules.
    #[arg(long)]
    pub patch: Option<String>,
    /// `longest=60`, `mode=REFUSE`, `name="a b"`, `limits[3].max=7`, `limits=[1,2,3]`, `l={"max":5}`.
    #[arg(required = true, value_name = "PATH=VALUE")]
    pub assignments: Vec<String>,
}

/// `upatch revert`
#[derive(Args, Debug)]
pub(crate) struct RevertArgs {
    /// The processes.
    #[command(flatten)]
    pub of: PidArgs,
    /// Only the patch with this id (as `status` prints it); default: all of ours.
    #[arg(long)]
    pub patch: Option<String>,
}

/// `upatch run`
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Where the program comes from.
    #[command(flatten)]
    pub input: RunInput,
    /// The patch object; with `--raw` the memory that r1 points at, as hexadecimal digits.
    #[arg(value_name = "OBJECT|MEMORY")]
    pub what: Option<String>,
    /// What executes it; a patch by default both, and both must agree.
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// Time limit in milliseconds.
    #[arg(long, default_value_t = 5000)]
    pub time_limit: u64,
    /// What a patch meets.
    #[command(flatten)]
    pub scene: SceneArgs,
}

/// What a patch meets in `upatch run`.
#[derive(Args, Debug)]
#[command(next_help_heading = "What a patch meets")]
pub(crate) struct SceneArgs {
    /// The program in the object, by the C function's name; needed if there are several.
    #[arg(long)]
    pub program: Option<String>,
    /// A register at the patched place, for example rdi=0x10; repeatable. The others are 0.
    #[arg(long, value_name = "NAME=NUMBER")]
    pub reg: Vec<String>,
    /// An argument of the function by its number from 1, for example `1=7`, or `2="bob"`, which is put into memory; repeatable.
    #[arg(long, value_name = "N=VALUE")]
    pub arg: Vec<String>,
    /// Memory of the program: hexadecimal digits, "text" or @FILE; repeatable. What isn't given isn't there.
    #[arg(long, value_name = "ADDRESS=BYTES")]
    pub mem: Vec<String>,
    /// What a function of the program returns, call by call; the last result repeats; repeatable.
    #[arg(long = "extern", value_name = "NAME=RESULT[,RESULT...]")]
    pub externs: Vec<String>,
    /// Set a rule before the patch runs, as `rules set` does; repeatable.
    #[arg(long, value_name = "PATH=VALUE")]
    pub rule: Vec<String>,
}

/// Where `upatch run` has its program from, if not from an object. A struct of its own, as clap puts every field of a struct
/// into its group.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct RunInput {
    /// Read the program as hexadecimal digits from standard input.
    #[arg(long)]
    pub raw: bool,
    /// Read the program from a file in bpf_conformance's format.
    #[arg(long, value_name = "FILE", conflicts_with = "what")]
    pub case: Option<PathBuf>,
}

/// What executes a program in `upatch run`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Engine {
    /// The JIT's machine code.
    Jit,
    /// The reference interpreter.
    Interp,
    /// Both, compared.
    Both,
}

/// A number in decimal, or hexadecimal with 0x.
pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not a number (decimal, or hexadecimal with 0x)"))
}

/// A process's number. Whoever gives a name wants to be told how the number is found.
fn parse_pid(text: &str) -> Result<i32, String> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(_) => Err("a process's number is 1 or more".to_owned()),
        Err(_)
            if !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_alphanumeric() || "._-".contains(c))
                && text.contains(char::is_alphabetic) =>
        {
            Err(format!(
                "a process's number is meant, not its name: try `pidof {text}`"
            ))
        }
        Err(_) => Err("a process's number is meant, as `pidof NAME` prints it".to_owned()),
    }
}

fn parse_backend(text: &str) -> Result<Backend, String> {
    match text {
        "memfd" => Ok(Backend::Memfd),
        "kernel" => Ok(Backend::Kernel),
        _ => Err("memfd or kernel".to_owned()),
    }
}

fn parse_device(text: &str) -> Result<Device, String> {
    let (program, interface) = match text.split_once('=') {
        Some((program, interface)) => (Some(program.to_owned()), interface),
        None => (None, text),
    };
    if interface.is_empty() || program.as_deref() == Some("") {
        return Err("IFACE or PROGRAM=IFACE".to_owned());
    }
    Ok(Device {
        program,
        interface: interface.to_owned(),
    })
}
