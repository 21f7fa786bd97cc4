//! Terminal output as lines of styled text: as much of ECMA-48 as the demo uses (SGR), everything else dropped.

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Style {
    pub(super) bold: bool,
    pub(super) dim: bool,
    /// 1 red, 2 green, 3 yellow, 4 blue, 5 magenta, 6 cyan.
    pub(super) colour: Option<u8>,
}

/// A line, with the seconds at which it was complete.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) at: f64,
    pub(super) pieces: Vec<(Style, String)>,
}

/// The lines of a recording.
pub(super) fn lines(events: &[(f64, String)]) -> Vec<Line> {
    let mut style = Style::default();
    let mut lines = Vec::new();
    for (at, text) in events {
        for line in text.lines() {
            let pieces = pieces(line, &mut style);
            lines.push(Line { at: *at, pieces });
        }
    }
    lines
}

fn pieces(line: &str, style: &mut Style) -> Vec<(Style, String)> {
    let mut pieces: Vec<(Style, String)> = Vec::new();
    let mut push = |style: Style, text: &str| {
        let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
        if !text.is_empty() {
            pieces.push((style, text));
        }
    };
    let mut rest = line;
    while let Some((plain, behind)) = rest.split_once("\x1b[") {
        push(*style, plain);
        // Parameters, then one final byte from @ to ~.
        let end = behind.find(|letter: char| ('@'..='~').contains(&letter));
        let (parameters, kind) = match end {
            Some(end) => (&behind[..end], &behind[end..=end]),
            None => (behind, ""),
        };
        if kind == "m" {
            for parameter in parameters.split(';') {
                apply(style, parameter.parse().unwrap_or(0));
            }
        }
        rest = &behind[parameters.len() + kind.len()..];
    }
    push(*style, rest);
    pieces
}

fn apply(style: &mut Style, parameter: u8) {
    match parameter {
        0 => *style = Style::default(),
        1 => style.bold = true,
        2 => style.dim = true,
        22 => (style.bold, style.dim) = (false, false),
        31..=36 => style.colour = Some(parameter - 30),
        39 => style.colour = None,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_begin_and_end_where_they_are_set() {
        let text = "a\x1b[1;31mb\x1b[0mc\x1b[2K\x1b]\r\n\x1b[32m\r\n d\x1b[".to_owned();
        let found = lines(&[(1.5, text)]);
        let plain = Style::default();
        let red = Style {
            bold: true,
            colour: Some(1),
            ..plain
        };
        let green = Style {
            colour: Some(2),
            ..plain
        };
        let expected = [
            vec![
                (plain, "a".to_owned()),
                (red, "b".to_owned()),
                (plain, "c".to_owned()),
                (plain, "]".to_owned()),
            ],
            vec![],
            vec![(green, " d".to_owned())],
        ];
        assert_eq!(
            found
                .iter()
                .map(|line| line.pieces.clone())
                .collect::<Vec<_>>(),
            expected
        );
        assert!(found.iter().all(|line| line.at == 1.5));
    }
}
