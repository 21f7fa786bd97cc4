//! `cargo xtask fresh`: the demo and the tests on a bare Debian 12, as root and as an ordinary user.
//!
//! Decides what such a machine has: a minimal Debian, a C compiler (Rust links with it), this Rust toolchain, and a
//! clone of what is committed. Everything else the tasks must get for themselves. Runs in namespaces of its own, so
//! that every mount and process in there ends with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{is_root, output, succeed, wait};
use crate::{provision, repository, target_folder};

/// To build the system, from a mirror that answers.
const SYSTEM_LIMIT: Duration = Duration::from_secs(15 * 60);
/// For one user's demo and tests, with a cold build.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Who runs the tasks, with the ids in the fresh system.
const USERS: [(&str, u32); 2] = [("root", 0), ("upatch", 1000)];

/// Run as root in new mount and pid namespaces: $1 system, $2 toolchain, $3 cargo registry, $4 user, $5 id, $6 tasks.
const ENTER: &str = r#"
set -eu
mount --rbind /dev "$1/dev"
mount --rbind /sys "$1/sys"
mount -t proc proc "$1/proc"
mkdir -p "$1/opt/rust" "$1/opt/cargo-$4"
mount --bind -o ro "$2" "$1/opt/rust"
# Whom this machine trusts: the network's own authority may stand between it and every https server.
authorities=/etc/ssl/certs/ca-certificates.crt
[ ! -f "$authorities" ] || mount --bind -o ro "$authorities" "$1$authorities"
[ -d "$1/opt/cargo-$4/registry" ] || cp -a "$3" "$1/opt/cargo-$4/registry"
home=/root
if [ "$5" != 0 ]; then
    home=/home/$4
    grep -q "^$4:" "$1/etc/passwd" || chroot "$1" useradd --create-home --uid "$5" "$4"
    chown -R "$5:$5" "$1/opt/cargo-$4" "$1/src-$4"
fi
exec chroot --userspec="$5:$5" "$1" env -i PATH=/opt/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="$home" \
    CARGO_HOME="/opt/cargo-$4" UPATCH_STRICT=1 \
    sh -c "cd /src-$4 || exit; failed=; for task in $6; do cargo xtask \$task || failed=\"\$failed \$task\"; done
           [ -z \"\$failed\" ] || { echo \"failed:\$failed\"; exit 1; }"
"#;

/// `cargo xtask fresh [USER] [TASK…]`: builds the system and runs the named tasks in it, or demo and test, as both users or
/// the one that is named.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let named = |word: &String| USERS.iter().find(|(user, _)| user == word);
    let (users, arguments) = match arguments.split_first() {
        Some((word, rest)) if named(word).is_some() => {
            let user = USERS.into_iter().filter(|(user, _)| user == word);
            (user.collect(), rest)
        }
        Some(_) | None => (USERS.to_vec(), arguments),
    };
    let is_task = |word: &String| word.chars().all(|letter| letter.is_ascii_lowercase());
    ensure!(arguments.iter().all(is_task), "fresh takes names of tasks");
    let tasks = if arguments.is_empty() {
        "demo test".to_owned()
    } else {
        arguments.join(" ")
    };
    ensure!(is_root(), "only root can make and enter a fresh system");
    let system = target_folder()?.join("upatch-fresh");
    make(&system)?;
    let (_, sysroot) = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let registry = cargo_registry()?;
    let mut reports = Vec::new();
    for (user, id) in users {
        let clone = system.join(format!("src-{user}"));
        if clone.exists() {
            fs::remove_dir_all(&clone)?;
        }
        let mut git = Command::new("git");
        git.args(["clone", "--quiet", "--no-hardlinks"])
            .arg(repository())
            .arg(&clone);
        succeed(&mut git, LIMIT)?;
        println!("\n== {tasks} as {user}, in {}", system.display());
        let mut enter = Command::new("unshare");
        enter.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]);
        enter
            .args(["sh", "-c", ENTER, "enter"])
            .arg(&system)
            .arg(sysroot.trim())
            .arg(&registry);
        let started = Instant::now();
        let (ended, lines) = watched(enter.args([user, &id.to_string(), &tasks]))?;
        reports.push((user, started.elapsed().as_secs(), ended, lines));
    }
    summarise(&reports)
}

/// Runs the tasks of one user, shows what they print, and keeps the lines that tell how it went.
fn watched(command: &mut Command) -> Result<(Result<()>, Vec<String>)> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("no pipe from the tasks")?;
    let reader = thread::spawn(move || {
        let mut kept = Vec::new();
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            println!("{line}");
            if is_telling(&line) {
                kept.push(line);
            }
        }
        kept
    });
    let ended = match wait(child, LIMIT) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(anyhow::anyhow!("{status}")),
        Err(error) => Err(error),
    };
    let Ok(lines) = reader.join() else {
        bail!("reading the output of the tasks")
    };
    Ok((ended, lines))
}

/// Counts, tests that failed or were left out, tasks that failed.
fn is_telling(line: &str) -> bool {
    ["ran ", "skipped: ", "failed:"]
        .iter()
        .any(|start| line.starts_with(start))
        || (line.starts_with("test ") && line.ends_with("FAILED"))
}

/// What came of it, for each user.
fn summarise(reports: &[(&str, u64, Result<()>, Vec<String>)]) -> Result<()> {
    for (user, seconds, ended, lines) in reports {
        let word = match ended {
            Ok(()) => "passed".to_owned(),
            Err(error) => format!("failed ({error:#})"),
        };
        println!("\n== as {user}: {word} after {seconds} s");
        for line in lines {
            println!("   {line}");
        }
    }
    ensure!(
        reports.iter().all(|(_, _, ended, _)| ended.is_ok()),
        "not everything passed in the fresh system"
    );
    Ok(())
}

/// A minimal Debian 12 with a C compiler, made once.
fn make(system: &Path) -> Result<()> {
    if system.join("usr/bin/gcc").exists() {
        return Ok(());
    }
    if output(Command::new("mmdebstrap").arg("--version")).is_err() {
        provision::install(&["mmdebstrap"])?;
    }
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args([
        "--quiet",
        "--variant=minbase",
        "--include=ca-certificates,gcc,libc6-dev",
        "bookworm",
    ]);
    succeed(mmdebstrap.arg(system), SYSTEM_LIMIT)
}

/// The crates that were downloaded already: in a fresh system they would only be downloaded again.
fn cargo_registry() -> Result<std::path::PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    Ok(home
        .context("neither CARGO_HOME nor HOME is set")?
        .join("registry"))
}

#[cfg(test)]
mod tests {
    use super::is_telling;

    #[test]
    fn counts_skips_and_failures_are_told() {
        for line in [
            "ran 812, skipped 3",
            "skipped: live::uprobe: needs CAP_BPF",
            "failed: test",
            "test live::memcached ... FAILED",
        ] {
            assert!(is_telling(line), "{line}");
        }
        for line in ["running 3 tests", "test live::memcached ... ok", ""] {
            assert!(!is_telling(line), "{line}");
        }
    }
}
