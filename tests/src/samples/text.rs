//! Whether a process's text is what its file holds: the plainest statement that nothing else was touched.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The offsets in `file` of all bytes that differ in `pid`'s executable mappings of that file; empty when it is as
/// it was loaded.
///
/// # Errors
/// The process doesn't map the file executable, or its memory can't be read.
pub fn changed_text(pid: u32, file: &Path) -> Result<Vec<u64>> {
    let file = file.canonicalize()?;
    let original = fs::read(&file)?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut found = false;
    let mut changed = Vec::new();
    for line in maps.lines() {
        // start-end perms offset device inode path (proc_pid_maps(5))
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, permissions, offset, _, _, path] = fields[..] else {
            continue;
        };
        if Path::new(path) != file || !permissions.contains('x') {
            continue;
        }
        found = true;
        let (start, end) = range.split_once('-').context("a mapping without a range")?;
        let (start, end) = (
            u64::from_str_radix(start, 16)?,
            u64::from_str_radix(end, 16)?,
        );
        let offset = u64::from_str_radix(offset, 16)?;
        let mut now = vec![0; usize::try_from(end - start)?];
        memory
            .read_exact_at(&mut now, start)
            .with_context(|| format!("reading {range} of process {pid}"))?;
        let before = original
            .get(usize::try_from(offset)?..)
            .context("a mapping behind the file's end")?;
        changed.extend(
            (offset..)
                .zip(now.iter().zip(before))
                .filter(|(_, (a, b))| a != b)
                .map(|(at, _)| at),
        );
    }
    ensure!(found, "process {pid} doesn't execute {}", file.display());
    Ok(changed)
}
