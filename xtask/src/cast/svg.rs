//! The recording as a picture: a terminal window whose lines appear as they did in the run, and stay.
//!
//! Decides colours and sizes. A viewer that doesn't animate shows all lines at once. Invariant: nothing is loaded from
//! anywhere, and the same recording gives the same bytes.

use std::fmt::Write;

use super::record::COLUMNS;
use super::screen::{Line, Style};

/// Pixels of one character cell; the width is that of common monospaced fonts, and browsers are told to keep to it.
const CELL: (f64, f64) = (7.5, 17.0);
const FONT_SIZE: f64 = 12.5;
const MARGIN: f64 = 16.0;
/// The window's title bar.
const BAR: f64 = 30.0;

/// Seconds between two lines in the picture: those of the run, within these bounds, so that it can be read along.
const PACE: (f64, f64) = (0.12, 1.2);

/// Red, green, yellow, blue, magenta, cyan on the dark background, as legible as the text.
const COLOURS: [&str; 6] = [
    "#ff8272", "#7ee787", "#e3b341", "#79b8ff", "#d2a8ff", "#76e3ea",
];

/// Draws the lines.
pub(super) fn draw(lines: &[Line]) -> String {
    let width = MARGIN * 2.0 + f64::from(COLUMNS) * CELL.0;
    let mut body = String::new();
    let (mut y, mut shown, mut before) = (BAR + CELL.1, 0.0, 0.0);
    for line in lines {
        let gap = if line.pieces.is_empty() {
            0.0
        } else {
            (line.at - before).clamp(PACE.0, PACE.1)
        };
        shown += gap;
        before = line.at;
        draw_line(&mut body, line, y, shown);
        y += CELL.1;
    }
    let height = y + MARGIN - CELL.1 / 2.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-label=\"A recorded run of cargo xtask demo\">\n\
         <style>\n\
         text {{ font: {FONT_SIZE}px ui-monospace, SFMono-Regular, Menlo, Consolas, \"DejaVu Sans Mono\", monospace; \
         fill: #d6dbe1; white-space: pre }}\n\
         .b {{ font-weight: bold; fill: #ffffff }}\n.d {{ fill: #9aa4b0 }}\n{}\
         g {{ animation: appear 1ms both }}\n\
         @keyframes appear {{ from {{ opacity: 0 }} }}\n\
         @media (prefers-reduced-motion: reduce) {{ g {{ animation: none }} }}\n\
         </style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#161b22\"/>\n\
         <circle cx=\"20\" cy=\"16\" r=\"6\" fill=\"#ff5f57\"/>\n\
         <circle cx=\"40\" cy=\"16\" r=\"6\" fill=\"#febc2e\"/>\n\
         <circle cx=\"60\" cy=\"16\" r=\"6\" fill=\"#28c840\"/>\n\
         {body}</svg>\n",
        classes()
    )
}

fn classes() -> String {
    let class = |(index, colour): (usize, &&str)| format!(".c{} {{ fill: {colour} }}\n", index + 1);
    COLOURS.iter().enumerate().map(class).collect()
}

fn draw_line(body: &mut String, line: &Line, y: f64, at: f64) {
    if line.pieces.is_empty() {
        return;
    }
    // Writing to a String can't fail.
    let _ = write!(body, "<g style=\"animation-delay:{at:.2}s\">");
    let mut column = 0;
    for (style, text) in &line.pieces {
        let length = text.chars().count();
        // Blanks at the ends are positions, not text: viewers differ in how they treat them.
        let begin = column + text.chars().take_while(|letter| *letter == ' ').count();
        let visible = text.trim_matches(' ');
        column += length;
        if visible.is_empty() {
            continue;
        }
        let x = MARGIN + cells(begin);
        let width = cells(visible.chars().count());
        let class = class(*style);
        let _ = write!(
            body,
            "<text x=\"{x}\" y=\"{y}\" textLength=\"{width}\"{class} xml:space=\"preserve\">{}</text>",
            escaped(visible)
        );
    }
    body.push_str("</g>\n");
}

fn cells(count: usize) -> f64 {
    // No line is that long.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) * CELL.0
}

fn class(style: Style) -> String {
    let mut classes = Vec::new();
    if style.bold {
        classes.push("b".to_owned());
    }
    if style.dim {
        classes.push("d".to_owned());
    }
    classes.extend(style.colour.map(|colour| format!("c{colour}")));
    if classes.is_empty() {
        String::new()
    } else {
        format!(" class=\"{}\"", classes.join(" "))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_placed_by_columns_and_escaped() {
        let red = Style {
            colour: Some(1),
            ..Style::default()
        };
        let line = Line {
            at: 0.0,
            pieces: vec![
                (red, "a ".to_owned()),
                (Style::default(), "  x < y && z".to_owned()),
            ],
        };
        let drawn = draw(&[line]);
        assert!(drawn.contains(
            "x=\"16\" y=\"47\" textLength=\"7.5\" class=\"c1\" xml:space=\"preserve\">a</text>"
        ));
        assert!(drawn.contains("x=\"46\" y=\"47\" textLength=\"75\" xml:space=\"preserve\">x &lt; y &amp;&amp; z</text>"));
    }

    #[test]
    fn pauses_are_bounded() {
        let line = |at| Line {
            at,
            pieces: vec![(Style::default(), "x".to_owned())],
        };
        let drawn = draw(&[line(0.0), line(0.0), line(60.0)]);
        for delay in ["0.12s", "0.24s", "1.44s"] {
            assert!(
                drawn.contains(&format!("animation-delay:{delay}")),
                "{delay}: {drawn}"
            );
        }
    }
}
