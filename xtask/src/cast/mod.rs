//! `cargo xtask cast`: a recorded run of the demo, as docs/demo.cast (asciicast 2, for players) and docs/demo.svg (for
//! the README).
//!
//! Decides that what is published comes from one real run which succeeded, and tells nothing about the machine's
//! folders. A test holds the picture to the recording.

mod record;
mod screen;
mod svg;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{programs, repository};

/// What the run looks like to whoever watches it.
const COMMAND: &str = "cargo xtask demo";

/// The demo takes some seconds; ten times as many on a loaded machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs the demo on a terminal of its own and writes both files.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    ensure!(arguments.is_empty(), "cast takes no arguments");
    // As `cargo xtask demo` builds it: its times are the ones that users see.
    let demo = programs::prepared("demo", false)?;
    let recording = record::record(demo, COMMAND, LIMIT)?;
    let shown: String = recording
        .events
        .iter()
        .map(|(_, text)| text.as_str())
        .collect();
    for folder in private_folders()? {
        let folder = folder.display().to_string();
        ensure!(
            !shown.contains(&folder),
            "the recording shows the folder {folder}"
        );
    }
    let docs = repository().join("docs");
    fs::create_dir_all(&docs)?;
    fs::write(docs.join("demo.cast"), recording.to_asciicast()?)?;
    fs::write(
        docs.join("demo.svg"),
        svg::draw(&screen::lines(&recording.events)),
    )?;
    println!("wrote docs/demo.cast and docs/demo.svg");
    Ok(())
}

/// Folders of this machine that nobody else should have to see.
fn private_folders() -> Result<Vec<PathBuf>> {
    let home = std::env::home_dir().filter(|home| home.components().count() > 1);
    let target = crate::target_folder()?;
    let temporary = std::env::temp_dir();
    let work = repository()
        .canonicalize()
        .context("the repository's folder")?;
    Ok(home.into_iter().chain([target, temporary, work]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_the_recording() -> Result<()> {
        let docs = repository().join("docs");
        let cast = fs::read_to_string(docs.join("demo.cast"))?;
        let recording = record::Recording::from_asciicast(&cast)?;
        let drawn = svg::draw(&screen::lines(&recording.events));
        ensure!(
            drawn == fs::read_to_string(docs.join("demo.svg"))?,
            "docs/demo.svg is not the picture of docs/demo.cast: run `cargo xtask cast`"
        );
        Ok(())
    }
}
