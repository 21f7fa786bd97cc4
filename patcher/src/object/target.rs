//! What a section's name says about the program in it: its plane, its kind, and where it goes (DESIGN, contract).

use serde::{Deserialize, Serialize};
use upatch_verifier::ProgramKind;

/// Where a program goes: a function of a module, or a place inside of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// A soname, file name or path; `exe` is the main program.
    pub module: String,
    /// The function as the symbol table spells it.
    pub function: String,
    /// Bytes from the function's start; 0: its entry.
    pub offset: u64,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.module, self.function)?;
        match self.offset {
            0 => Ok(()),
            offset => write!(f, "+{offset:#x}"),
        }
    }
}

/// Where a kernel program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Hook {
    /// Packets that a network device receives.
    #[serde(rename = "tcx/ingress")]
    TcxIngress,
    /// Packets that a network device sends.
    #[serde(rename = "tcx/egress")]
    TcxEgress,
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TcxIngress => "tcx/ingress",
            Self::TcxEgress => "tcx/egress",
        })
    }
}

/// What a section of code is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SectionRole {
    /// Functions that others call.
    Subprograms,
    /// A program of ours; without a target it is named on the command line.
    Program(ProgramKind, Option<Target>),
    /// A program for the kernel; without a hook one that we can't attach.
    Kernel(Option<Hook>),
    /// Ours by name, but not to be had.
    Refused(&'static str),
}

/// Where a section's name can't be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// No `:`.
    #[error("there is no `:` between module and function")]
    NoColon,
    /// Nothing before or after it.
    #[error("the {0} is missing")]
    Missing(&'static str),
    /// More than 64 bits.
    #[error("the offset is larger than 64 bits")]
    OffsetTooLarge,
}

/// Understands the name of a section of code.
pub(super) fn role(section: &str) -> Result<SectionRole, TargetError> {
    if section == ".text" || section.starts_with(".text.") {
        return Ok(SectionRole::Subprograms);
    }
    let (kind, rest) = match section.split_once('/') {
        Some((kind, rest)) => (kind, Some(rest)),
        None => (section, None),
    };
    let target = || rest.map(parse_target).transpose();
    Ok(match kind {
        "upatch" => {
            let target = target()?;
            let inside = target.as_ref().is_some_and(|target| target.offset != 0);
            let kind = if inside {
                ProgramKind::PatchOffset
            } else {
                ProgramKind::PatchEntry
            };
            SectionRole::Program(kind, target)
        }
        "uprobe" => SectionRole::Program(ProgramKind::Probe, target()?),
        "upatch.ret" | "uretprobe" | "uretprobe.s" | "uretprobe.multi" | "uretprobe.multi.s" => {
            SectionRole::Refused("programs that run when a function returns are not built yet")
        }
        "uprobe.s" => {
            SectionRole::Refused("sleepable programs are for kernel uprobes; write `uprobe/…`")
        }
        "uprobe.multi" | "uprobe.multi.s" | "uprobe.session" | "uprobe.session.s" => {
            SectionRole::Refused(
                "one program for many functions is not built yet; write one `uprobe/…` for each",
            )
        }
        "usdt" | "usdt.s" => {
            SectionRole::Refused("statically defined tracepoints are not built yet")
        }
        // `tc` alone is what libbpf's users write; it says no direction, and nearly always means this one.
        "tc" | "tcx" => SectionRole::Kernel(match (kind, rest) {
            ("tc", None) | (_, Some("ingress")) => Some(Hook::TcxIngress),
            (_, Some("egress")) => Some(Hook::TcxEgress),
            (_, _) => None,
        }),
        _ => SectionRole::Kernel(None),
    })
}

/// `MODULE:FUNCTION[+OFFSET]`, split at the first `:`; an offset only if all after the last `+` is a number.
///
/// # Errors
/// What is missing.
pub fn parse_target(text: &str) -> Result<Target, TargetError> {
    let (module, rest) = text.split_once(':').ok_or(TargetError::NoColon)?;
    let (function, offset) = match rest
        .rsplit_once('+')
        .map(|(function, digits)| (function, number(digits)))
    {
        Some((_, Number::TooLarge)) => return Err(TargetError::OffsetTooLarge),
        Some((function, Number::Is(offset))) => (function, offset),
        Some((_, Number::Not)) | None => (rest, 0),
    };
    match (module, function) {
        ("", _) => Err(TargetError::Missing("module")),
        (_, "") => Err(TargetError::Missing("function")),
        _ => Ok(Target {
            module: module.to_owned(),
            function: function.to_owned(),
            offset,
        }),
    }
}

enum Number {
    Is(u64),
    Not,
    TooLarge,
}

fn number(text: &str) -> Number {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Number::Not;
    }
    // SANITY of the error: all digits are valid, so only the size can be wrong.
    u64::from_str_radix(digits, radix).map_or(Number::TooLarge, Number::Is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_the_first_colon_and_the_last_plus() {
        for (text, module, function, offset) in [
            ("exe:main", "exe", "main", 0),
            ("libc.so.6:system+0x1f", "libc.so.6", "system", 0x1f),
            ("libc.so.6:system+12", "libc.so.6", "system", 12),
            ("/usr/lib/x+1.so:f", "/usr/lib/x+1.so", "f", 0),
            ("libA.so:ns::operator+", "libA.so", "ns::operator+", 0),
            ("libA.so:ns::operator++8", "libA.so", "ns::operator+", 8),
            ("libA.so:f+0xzz", "libA.so", "f+0xzz", 0),
            ("libA.so:f+0x", "libA.so", "f+0x", 0),
            ("libA.so:f+-1", "libA.so", "f+-1", 0),
        ] {
            let target = parse_target(text).unwrap();
            assert_eq!(
                (&*target.module, &*target.function, target.offset),
                (module, function, offset),
                "{text}"
            );
        }
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(parse_target("main"), Err(TargetError::NoColon));
        assert_eq!(parse_target(":main"), Err(TargetError::Missing("module")));
        assert_eq!(parse_target("exe:"), Err(TargetError::Missing("function")));
        assert_eq!(
            parse_target("exe:+8"),
            Err(TargetError::Missing("function"))
        );
        assert_eq!(
            parse_target("exe:f+99999999999999999999"),
            Err(TargetError::OffsetTooLarge)
        );
    }

    #[test]
    fn tells_the_planes_apart() {
        assert_eq!(role(".text"), Ok(SectionRole::Subprograms));
        assert_eq!(
            role("uprobe"),
            Ok(SectionRole::Program(ProgramKind::Probe, None))
        );
        for (section, hook) in [
            ("tc", Some(Hook::TcxIngress)),
            ("tcx/ingress", Some(Hook::TcxIngress)),
            ("tc/egress", Some(Hook::TcxEgress)),
            ("tcx", None),
            ("tcx/sideways", None),
            ("xdp", None),
        ] {
            assert_eq!(role(section), Ok(SectionRole::Kernel(hook)), "{section}");
        }
        assert!(matches!(
            role("uretprobe/exe:f"),
            Ok(SectionRole::Refused(_))
        ));
        assert!(matches!(
            role("upatch/exe:f+4"),
            Ok(SectionRole::Program(ProgramKind::PatchOffset, Some(_)))
        ));
        assert!(matches!(
            role("upatch/exe:f+0"),
            Ok(SectionRole::Program(ProgramKind::PatchEntry, Some(_)))
        ));
    }
}
