//! Shell completions, man pages, and what `--help` says beyond the options: examples, exit codes, files, environment.
//!
//! Help and man pages are made from the same definitions (`args`) and the same examples, so they can't disagree.

use std::io::Write;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use serde_json::json;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::{Exit, Failure, Report};

/// What people do with each command: its name (words of a subcommand joined by a blank), then what is reached and how.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[
            (
                "Compile and verify a patch:",
                "upatch build patch.c -o patch.o",
            ),
            (
                "Say what would be done:",
                "upatch apply --dry-run --pid 1234 --build-id 44c007cf patch.o",
            ),
            (
                "Do it, read the counters, take it off:",
                "upatch apply --pid 1234 --build-id 44c007cf patch.o\nupatch telemetry dump --pid 1234\nupatch revert --pid 1234",
            ),
        ],
    ),
    (
        "build",
        &[
            (
                "Compile patch.c to patch.o in this folder:",
                "upatch build patch.c",
            ),
            (
                "With a header of one's own:",
                "upatch build patch.c -o /tmp/patch.o -- -I include -DLONGEST=64",
            ),
        ],
    ),
    (
        "verify",
        &[
            ("Prove two objects safe:", "upatch verify one.o two.o"),
            (
                "Bare instructions that get 64 bytes of memory:",
                "upatch verify --raw --mem 64 program.bin",
            ),
        ],
    ),
    (
        "apply",
        &[
            (
                "Say what would be done:",
                "upatch apply --dry-run --pid 1234 --build-id 44c007cf patch.o",
            ),
            (
                "A function in a stripped program, by its address in the file:",
                "upatch apply --pid 1234 --build-id 44c007cf --offset 0xa790 patch.o",
            ),
        ],
    ),
    (
        "status",
        &[("What is in process 1234:", "upatch status --pid 1234")],
    ),
    (
        "telemetry",
        &[
            (
                "Rules, counters and the newest events of process 1234:",
                "upatch telemetry dump --pid 1234",
            ),
            (
                "Its events as they come, for a minute, an object a line:",
                "upatch telemetry follow --pid 1234 --seconds 60 --json",
            ),
            (
                "For a metrics collector:",
                "upatch telemetry dump --pid 1234 --format openmetrics",
            ),
        ],
    ),
    (
        "rules",
        &[
            ("All rules of process 1234:", "upatch rules get --pid 1234"),
            (
                "A number, an enumerator and a part of an array of structs, all or none:",
                "upatch rules set --pid 1234 longest=60 mode=REFUSE 'limits[3].max=7'",
            ),
            (
                "Text, a whole array, and two members of a struct:",
                r#"upatch rules set --pid 1234 'name="a b"' 'list=[1,2]' 'l={"max":5,"on":true}'"#,
            ),
        ],
    ),
    (
        "revert",
        &[
            ("Take off everything of ours:", "upatch revert --pid 1234"),
            (
                "One of several patches:",
                "upatch revert --pid 1234 --patch 3f2a9c01",
            ),
        ],
    ),
    (
        "run",
        &[
            (
                "A patch on two arguments, the second a string:",
                "upatch run patch.o --arg 1=500 --arg '2=\"bob\"'",
            ),
            (
                "With other rules, and a function of the program that fails, then succeeds:",
                "upatch run patch.o --reg rdi=0x70000000 --mem 0x70000000=0011ff --rule longest=60 --extern lookup=-1,0",
            ),
            (
                "Bare instructions:",
                "echo b7000000 2a000000 95000000 00000000 | upatch run --raw",
            ),
        ],
    ),
    (
        "inspect",
        &[
            ("What a patch is compiled to:", "upatch inspect patch.o"),
            (
                "What would be put into a process:",
                "upatch inspect --pid 1234 --build-id 44c007cf patch.o",
            ),
            (
                "What is in its memory now, beside its source:",
                "upatch inspect --pid 1234 patch.o",
            ),
        ],
    ),
    (
        "doctor",
        &[
            ("This machine:", "upatch doctor"),
            ("And a process on it:", "upatch doctor --pid 1234"),
        ],
    ),
    (
        "completions",
        &[
            (
                "bash:",
                "upatch completions bash > ~/.local/share/bash-completion/completions/upatch",
            ),
            (
                "zsh (a folder in $fpath):",
                "upatch completions zsh > ~/.zfunc/_upatch",
            ),
            (
                "fish:",
                "upatch completions fish > ~/.config/fish/completions/upatch.fish",
            ),
        ],
    ),
    (
        "man",
        &[
            ("Read the page of a command:", "upatch man apply | man -l -"),
            (
                "Install all of them:",
                "upatch man --out /usr/local/share/man/man1",
            ),
        ],
    ),
];

/// The contract's exit codes.
const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "Done."),
    (
        "1",
        "Internal error, or a file could not be read or written.",
    ),
    ("2", "Wrong use of the command line."),
    ("3", "The object is malformed, or the verifier rejected it."),
    (
        "4",
        "The target was not found, or is not what the patch was made for.",
    ),
    ("5", "Refused for safety; the target is unchanged."),
    ("6", "No permission."),
    ("7", "Some of several targets failed."),
    (
        "8",
        "Contested: somebody else changed our bytes in the target.",
    ),
];

const FILES: &[(&str, &str)] = &[
    (
        "patch.c, patch.o",
        "A patch and the BPF object that upatch build makes of it. The header upatch.h is part of upatch.",
    ),
    (
        "/proc/PID/maps, mem, status, map_files",
        "What is looked at in a process. upatch keeps no files of its own: a patch and its record live in the process.",
    ),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "UPATCH_CLANG",
        "The clang that build uses; without it clang-19, clang and newer ones are looked for in PATH.",
    ),
    (
        "UPATCH_LOG",
        "What to log on standard error: error, warn, info, debug, trace.",
    ),
    ("NO_COLOR", "If set and not empty: no colour."),
];

/// The command line's definition, with examples in the long help.
pub(super) fn command() -> Command {
    with_examples(Cli::command(), "")
}

fn with_examples(mut command: Command, path: &str) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        let path = format!("{path} {name}").trim().to_owned();
        command = command.mut_subcommand(name, |sub| with_examples(sub, &path));
    }
    match examples(path) {
        Some(examples) => {
            let text: Vec<String> = examples
                .iter()
                .map(|(what, how)| format!("  {what}\n    {}", how.replace('\n', "\n    ")))
                .collect();
            let heading = super::terminal::styled(super::terminal::STRONG, "Examples:");
            command.after_long_help(format!("{heading}\n{}", text.join("\n")))
        }
        None => command,
    }
}

fn examples(path: &str) -> Option<&'static [(&'static str, &'static str)]> {
    EXAMPLES
        .iter()
        .find(|(name, _)| *name == path)
        .map(|(_, examples)| *examples)
}

/// `upatch completions SHELL`
pub(super) fn completions(args: &CompletionsArgs) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "upatch", &mut script);
    let text = String::from_utf8_lossy(&script).into_owned();
    let json = json!({"ok": true, "shell": args.shell.to_string(), "script": text});
    Report { text, json }
}

/// `upatch man [COMMAND] [--out DIR]`
pub(super) fn man(args: &ManArgs) -> Result<Report, Failure> {
    let pages = pages();
    let Some(folder) = &args.out else {
        let name = ["upatch"]
            .into_iter()
            .chain(args.command.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join("-");
        let page = pages.into_iter().find(|page| page.name == name);
        let page = page.ok_or_else(|| {
            Failure::new(Exit::Usage, format!("there is no page `{name}`"))
                .hint("name a command as `upatch --help` lists it")
        })?;
        let json = json!({"ok": true, "page": page.file(), "roff": page.roff});
        return Ok(Report {
            text: page.roff,
            json,
        });
    };
    let mut written = Vec::new();
    for page in &pages {
        let path = folder.join(page.file());
        write(&path, page.roff.as_bytes())?;
        written.push(path.display().to_string());
    }
    Ok(Report {
        text: written.iter().map(|path| format!("{path}\n")).collect(),
        json: json!({"ok": true, "pages": written}),
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| {
            let exit = match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Exit::Usage,
                std::io::ErrorKind::PermissionDenied => Exit::Permission,
                _ => Exit::Internal,
            };
            Failure::new(exit, format!("can't write the page: {error}"))
                .at(path.display().to_string())
        })
}

/// A man page of section 1.
struct Page {
    /// `upatch`, `upatch-apply`, `upatch-telemetry-dump`.
    name: String,
    roff: String,
}

impl Page {
    fn file(&self) -> String {
        format!("{}.1", self.name)
    }
}

/// One page a command, the subcommands of commands included.
fn pages() -> Vec<Page> {
    let mut command = Cli::command()
        .disable_help_subcommand(true)
        .bin_name("upatch");
    command.build();
    let mut pages = Vec::new();
    collect(&command, "upatch", &mut pages);
    pages
}

fn collect(command: &Command, name: &str, pages: &mut Vec<Page>) {
    pages.push(Page {
        name: name.to_owned(),
        roff: page(command, name),
    });
    for sub in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        collect(sub, &format!("{name}-{}", sub.get_name()), pages);
    }
}

fn page(command: &Command, name: &str) -> String {
    let path = name
        .strip_prefix("upatch")
        .unwrap_or(name)
        .replace('-', " ")
        .trim()
        .to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let named = command
        .clone()
        .display_name(name.to_owned())
        .version(version);
    let man = Man::new(named)
        .title(name)
        .section("1")
        .source(format!("upatch {version}"))
        .manual("Live patching");
    let mut out = Vec::new();
    // Writing to memory doesn't fail.
    let _ = man.render_title(&mut out);
    let _ = man.render_name_section(&mut out);
    let _ = man.render_synopsis_section(&mut out);
    let _ = man.render_description_section(&mut out);
    let _ = man.render_options_section(&mut out);
    if command
        .get_subcommands()
        .any(|sub| sub.get_name() != "help")
    {
        let _ = man.render_subcommands_section(&mut out);
    }
    let mut roff = Roff::new();
    list(&mut roff, "EXIT STATUS", EXIT_CODES);
    list(&mut roff, "ENVIRONMENT", ENVIRONMENT);
    list(&mut roff, "FILES", FILES);
    if let Some(examples) = examples(&path) {
        roff.control("SH", ["EXAMPLES"]);
        for (what, how) in examples {
            roff.control("PP", []);
            roff.text([roman(*what)]);
            roff.control("PP", []);
            roff.control("RS", ["4"]);
            roff.control("nf", []);
            for line in how.lines() {
                roff.text([roman(line)]);
            }
            roff.control("fi", []);
            roff.control("RE", []);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    let see = if path.is_empty() {
        "ptrace(2), bpf(2), proc(5)"
    } else {
        "upatch(1), ptrace(2), proc(5)"
    };
    roff.text([roman(see)]);
    let _ = roff.to_writer(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A section of terms and what they mean.
fn list(roff: &mut Roff, heading: &str, terms: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (term, meaning) in terms {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}
