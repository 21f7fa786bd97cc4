//! What a terminal gets that a file or pipe doesn't: colour, and lines no longer than it is wide.
//!
//! Texts are made with styles in them; the streams leave them out where they don't belong (`--color`, `NO_COLOR`, no
//! terminal), so that no command needs to ask.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};

use super::args::Colour;

/// Headings and names.
pub(super) const STRONG: Style = Style::new().bold();
/// What is as it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What is limited, or a warning.
pub(super) const FAIR: Style = AnsiColor::Yellow.on_default();
/// What is missing or failed.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What only accompanies.
pub(super) const FAINT: Style = Style::new().dimmed();

/// `text` in a style.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Sets what all output of this process does about colour. `--color` is looked for by hand, because clap's own messages
/// are coloured before there are arguments.
pub(super) fn choose(arguments: impl Iterator<Item = std::ffi::OsString>) {
    let mut chosen = None;
    let mut is_next = false;
    for argument in arguments.take_while(|argument| argument != "--") {
        let Some(argument) = argument.to_str() else {
            continue;
        };
        if is_next {
            chosen = parse(argument);
        } else if let Some(value) = argument.strip_prefix("--color=") {
            chosen = parse(value);
        }
        is_next = argument == "--color";
    }
    match chosen {
        Some(Colour::Always) => ColorChoice::Always.write_global(),
        Some(Colour::Never) => ColorChoice::Never.write_global(),
        Some(Colour::Auto) | None => {}
    }
}

fn parse(value: &str) -> Option<Colour> {
    <Colour as clap::ValueEnum>::from_str(value, false).ok()
}

/// Columns of the terminal that standard output is; `None` if it is none, and lines may be as long as they like.
pub(super) fn width() -> Option<usize> {
    let (columns, _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(usize::from(columns.0))
}

/// `text`, broken at blanks into lines of at most `columns` with `indent` blanks before each but the first, which has
/// them already. Words longer than that stay whole. `None`: one line.
pub(super) fn wrapped(text: &str, indent: usize, columns: Option<usize>) -> String {
    let Some(room) = columns.map(|columns| columns.saturating_sub(indent).max(20)) else {
        return text.to_owned();
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let used = lines.last().map_or(0, |line| line.chars().count());
        if used > 0 && used + 1 + word.chars().count() > room {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join(&format!("\n{}", " ".repeat(indent)))
}

/// Writes to standard output, styles only where they belong.
///
/// # Errors
/// What the stream says.
pub(super) fn print(text: &str) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(harmless(text).as_bytes())
        .and_then(|()| out.flush())
}

/// Writes to standard error. Nothing can be done if that is closed.
pub(super) fn complain(text: &str) {
    let _ = anstream::stderr()
        .lock()
        .write_all(harmless(text).as_bytes());
}

/// Names come from processes and objects, and may be meant for the terminal: control characters and such as turn the
/// direction of text are shown as JSON shows them, `\u001b`. (In JSON they stand in strings only.) Line feeds, tabs and the
/// styles of our own stay.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for (at, character) in text.char_indices() {
        let harms = is_harmful(character) && !(character == '\x1b' && is_style(&text[at..]));
        if harms {
            safe += &format!("\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn is_harmful(character: char) -> bool {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || character.is_control() && !matches!(character, '\n' | '\t')
}

/// `ESC [ numbers m`: colour and weight (ECMA-48, SGR).
fn is_style(text: &str) -> bool {
    let rest = text.strip_prefix("\x1b[").map(|rest| {
        rest.trim_start_matches(|character: char| character.is_ascii_digit() || character == ';')
    });
    rest.is_some_and(|rest| rest.starts_with('m'))
}

/// Is there somebody who looks at standard error?
pub(super) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::{harmless, wrapped};

    #[test]
    fn leaves_the_terminal_alone() {
        let text = "a\tb\n\x1b[1;31mred\x1b[0m \x1b[m é";
        assert_eq!(harmless(text), text);
        assert_eq!(harmless("\x1b[2J"), "\\u001b[2J");
        assert_eq!(harmless("\x1b]0;title\x07"), "\\u001b]0;title\\u0007");
        assert_eq!(harmless("\u{9b}m \r \u{7f}"), "\\u009bm \\u000d \\u007f");
        assert_eq!(harmless("\u{202e}x"), "\\u202ex");
        assert_eq!(harmless("\x1b"), "\\u001b");
    }

    #[test]
    fn breaks_at_blanks() {
        let text = "one two three four five six seven";
        assert_eq!(wrapped(text, 2, None), text);
        assert_eq!(
            wrapped(text, 2, Some(22)),
            "one two three four\n  five six seven"
        );
        let word = "a".repeat(30);
        assert_eq!(
            wrapped(&format!("x {word} y"), 0, Some(20)),
            format!("x\n{word}\ny")
        );
        assert_eq!(wrapped("", 4, Some(1)), "");
    }
}
