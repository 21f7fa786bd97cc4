//! Files that are no patch objects, sources that are no patches, arguments that make no sense.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use upatch_tests::child::{Finished, run};
use upatch_tests::upatch::{run_json, upatch};

use super::{Scene, case, refused};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        case("objects::damaged", damaged),
        case("objects::rejected_sources", rejected_sources),
        case("objects::usage", usage),
        case("objects::formats", formats),
        case("objects::closed_output", closed_output),
    ]
}

fn damaged() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let whole = std::fs::read(scene.object())?;
    let path = scene.folder.path().join("damaged.o");
    let shown = path.to_string_lossy().into_owned();
    let apply = ["apply", "--build-id", &scene.build_id, &shown];
    for len in [0, 1, 5, 63, 64, 200, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len])?;
        scene.refused(&apply, 3, &[&shown])?;
        refused(&["verify", &shown], 3, &[&shown])?;
    }
    std::fs::copy("/proc/self/exe", &path)?;
    scene.refused(&apply, 3, &["x86-64", "upatch build"])?;
    std::fs::remove_file(&path)?;
    scene.refused(&apply, 2, &["No such file"])?;
    std::fs::create_dir(&path)?;
    scene.refused(&apply, 2, &["directory"])?;
    scene.unharmed()
}

/// What isn't proven safe leaves no object.
fn rejected_sources() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (source, object) = (folder.path().join("patch.c"), folder.path().join("patch.o"));
    let (source_shown, object_shown) = (source.to_string_lossy(), object.to_string_lossy());
    let build = ["build", &source_shown, "-o", &object_shown];
    refused(&build, 2, &["patch.c"])?;
    let texts = [
        ("int x", 3, "could not compile"),
        // A verdict that ends the call, inside a function.
        (
            "#include \"upatch.h\"\nSEC(\"upatch/exe:work+4\") int refuse(struct pt_regs *ctx)\n{\n\treturn upatch_return(ctx, 1);\n}\n",
            3,
            "patch.c:4",
        ),
    ];
    for (text, code, says) in texts {
        std::fs::write(&source, text)?;
        refused(&build, code, &[says])?;
        ensure!(!object.exists(), "an object was written for {text}");
    }
    Ok(())
}

fn usage() -> Result<()> {
    let cases: [(&[&str], &str); 8] = [
        (&[], "a command is missing"),
        (&["telemetry"], "a command is missing"),
        (&["frobnicate"], "frobnicate"),
        (&["apply"], "--pid"),
        (&["status"], "--pid"),
        (&["verify"], "<FILES>"),
        (&["run"], "--raw"),
        (&["run", "--case", "x", "--raw"], "--case"),
    ];
    for (arguments, says) in cases {
        refused(arguments, 2, &[says, "--help"])?;
    }
    // Whoever gives a name is told how its number is found.
    let pids = [
        ("beanstalkd", "try `pidof beanstalkd`"),
        ("a b", "as `pidof NAME` prints it"),
        ("0", "1 or more"),
        ("-7", "1 or more"),
    ];
    for command in [&["status"][..], &["rules", "get"], &["telemetry", "follow"]] {
        for (pid, says) in pids {
            refused(&[command, &["--pid", pid]].concat(), 2, &[pid, says])?;
        }
    }
    let (code, _) = run_json(&["run", "--case", "/nonexistent"])?;
    ensure!(code == 2, "a missing case exits with {code}");
    Ok(())
}

/// What upatch_printk could not show is refused by the compiler, in words and by the header's name.
fn formats() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("patch.c");
    let build = |format: &str, more: &str| -> Result<Finished> {
        let text = format!(
            "#include \"upatch.h\"\nSEC(\"upatch/exe:f\") int UPATCH(p, char *text, int n) {{\n\
             upatch_printk(\"{format}\", {more}); return UPATCH_CONTINUE; }}\n"
        );
        std::fs::write(&source, text)?;
        let mut command = upatch();
        command.args(["build", "-o", "/dev/null"]).arg(&source);
        run(&mut command, Duration::from_secs(60))
    };
    let full = "x".repeat(61);
    for format in [
        "",
        "plain",
        "%d of %5u",
        "%08llx %#lx",
        "%c%%%o %i %X%%",
        "%-8zd|",
        &format!("{full}%d"),
    ] {
        let done = build(format, "n")?;
        ensure!(done.code == 0, "`{format}`: {done:?}");
    }
    for format in [
        "is %s",
        "%16s",
        "100%",
        "%f",
        "%l%",
        "%d %n",
        "%%%",
        "%é",
        &format!("{full}%s"),
        &format!("{full}x%"),
    ] {
        let done = build(format, "text")?;
        ensure!(
            done.code == 3
                && done.stderr.contains("upatch_printk takes numbers only")
                && done.stderr.contains("bpf_probe_read_user_str")
                && done.stderr.contains("upatch.h:")
                && !done.stderr.contains("upatch-build-")
                && done.stderr.len() < 4000,
            "`{format}`: {done:?}"
        );
    }
    Ok(())
}

/// A reader that goes away is no failure; a full disk is.
fn closed_output() -> Result<()> {
    for (file, code) in [("/dev/null", 0), ("/dev/full", 1)] {
        let out = File::options().write(true).open(file)?;
        let status = upatch()
            .arg("--help")
            .stdout(out)
            .stderr(Stdio::null())
            .status()?;
        ensure!(
            status.code() == Some(code),
            "--help into {file} exits with {status}"
        );
    }
    let mut child = upatch()
        .arg("--help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "a closed pipe: {output:?}"
    );
    Ok(())
}
