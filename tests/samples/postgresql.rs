//! COPY … PROGRAM runs commands; then none, on connections old and new, while pgbench goes on.

use anyhow::{Context, Result, ensure};
use upatch_tests::samples::{
    Cycles, Outcome, Postgres, PostgresSession as Session, Scratch, Site, changed_text,
};
use upatch_tests::upatch::{build_sample, succeed};

use crate::package;

/// What a statement says whose command was refused: PostgreSQL's own words for errno EPERM, and its code for it.
fn refused(command: &str) -> Outcome {
    Outcome::Error {
        code: "42501".to_owned(),
        message: format!("could not execute command \"{command}\": Operation not permitted"),
    }
}

fn expect(session: &mut Session, statement: &str, expected: &Outcome) -> Result<()> {
    let outcome = session.query(statement)?;
    ensure!(outcome == *expected, "`{statement}`: {outcome:?}");
    Ok(())
}

/// Both directions run their commands, and the data goes through.
fn expect_programs_run(session: &mut Session, scratch: &Scratch) -> Result<()> {
    let file = scratch.path().join("written");
    let command = format!("cat > {}", file.display());
    expect(
        session,
        &format!("COPY (SELECT 42) TO PROGRAM '{command}'"),
        &Outcome::done(),
    )?;
    ensure!(
        std::fs::read_to_string(&file)? == "42\n",
        "another text was written"
    );
    std::fs::remove_file(&file)?;
    expect(
        session,
        "CREATE TEMP TABLE read (line text)",
        &Outcome::done(),
    )?;
    expect(
        session,
        "COPY read FROM PROGRAM 'echo hello'",
        &Outcome::done(),
    )?;
    ensure!(session.value("SELECT line FROM read")? == "hello");
    expect(session, "DROP TABLE read", &Outcome::done())
}

/// How many commands [`expect_none_runs`] asks for.
const ASKED: u64 = 3;

/// Each is refused in PostgreSQL's own way, and the connection goes on.
fn expect_none_runs(session: &mut Session, scratch: &Scratch) -> Result<()> {
    let file = scratch.path().join("written");
    let command = format!("cat > {}", file.display());
    expect(session, "BEGIN", &Outcome::done())?;
    expect(session, "CREATE TABLE undone ()", &Outcome::done())?;
    expect(
        session,
        &format!("COPY (SELECT 42) TO PROGRAM '{command}'"),
        &refused(&command),
    )?;
    expect(session, "ROLLBACK", &Outcome::done())?;
    ensure!(session.value("SELECT to_regclass('undone') IS NULL")? == "t");
    ensure!(!file.exists(), "the command ran");
    expect(
        session,
        "CREATE TEMP TABLE read (line text)",
        &Outcome::done(),
    )?;
    expect(
        session,
        "COPY read FROM PROGRAM 'echo hello'",
        &refused("echo hello"),
    )?;
    ensure!(session.value("SELECT count(*) FROM read")? == "0");
    expect(session, "DROP TABLE read", &Outcome::done())?;
    // The page says that this goes the same way.
    expect(
        session,
        "SELECT pg_import_system_collations('pg_catalog')",
        &refused("locale -a"),
    )
}

fn counter(pid: u32, name: &str) -> Result<u64> {
    let dump = succeed(&["telemetry", "dump", "--pid", &pid.to_string()])?;
    let value = dump["patches"][0]["globals"][name].as_u64();
    value.with_context(|| format!("no counter {name} in {dump:#}"))
}

#[test]
fn runs_programs_without_patch() -> Result<()> {
    let Some(package) = package("postgresql::runs_programs_without_patch", "postgresql") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let server = Postgres::start(&package, &scratch)?;
    expect_programs_run(&mut server.connect()?, &scratch)?;
    server.stop()
}

#[test]
fn story() -> Result<()> {
    let Some(package) = package("postgresql::story", "postgresql") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let server = Postgres::start(&package, &scratch)?;
    let entry = Site::function(server.program(), "OpenPipeStream")?.file_offset;
    let jump: Vec<u64> = (entry..entry + 5).collect();
    server.fill()?;
    let load = [
        server.bench(&["--client=2"]),
        server.bench(&["--client=1", "--connect"]),
    ];
    let mut old = server.connect()?;
    expect_programs_run(&mut old, &scratch)?;

    let object = build_sample("postgresql", scratch.path())?;
    let figures = server.apply(&object)?;
    // Postmaster, five helpers of its own, and the backend of `old` at the least.
    ensure!(figures.processes >= 7, "{figures:?}");
    let mut new = server.connect()?;
    for session in [&mut old, &mut new] {
        expect_none_runs(session, &scratch)?;
    }
    for pid in [server.pid(), old.backend(), new.backend()] {
        let changed = changed_text(pid, server.program())?;
        ensure!(
            !changed.is_empty() && changed.iter().all(|at| jump.contains(at)),
            "process {pid}: text changed at {changed:x?}"
        );
    }
    // One arena for all: those that were patched, and those that were born of them.
    for pid in [server.pid(), old.backend(), new.backend()] {
        let counts = (counter(pid, "hits")?, counter(pid, "refused")?);
        assert_eq!(counts, (2 * ASKED, 2 * ASKED), "process {pid}");
    }

    server.revert()?;
    let mut newest = server.connect()?;
    for session in [&mut old, &mut new, &mut newest] {
        expect_programs_run(session, &scratch)?;
    }
    for pid in [server.pid(), old.backend(), new.backend(), newest.backend()] {
        let changed = changed_text(pid, server.program())?;
        ensure!(
            changed.is_empty(),
            "process {pid}: text changed at {changed:x?}"
        );
    }
    let [steady, reconnecting] = load.map(|load| load.finish());
    server.check_sums(&[steady?, reconnecting?])?;
    server.stop()
}

#[test]
fn allows_one_command() -> Result<()> {
    let Some(package) = package("postgresql::allows_one_command", "postgresql") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let server = Postgres::start(&package, &scratch)?;
    let mut old = server.connect()?;
    server.apply(&build_sample("postgresql", scratch.path())?)?;
    let mut new = server.connect()?;
    let copy = |command: &str| format!("COPY (SELECT 42) TO PROGRAM '{command}'");
    let wanted = "cat >/dev/null";
    let mut rest = format!("{wanted}{}", " ".repeat(300));
    expect(&mut old, &copy(wanted), &refused(wanted))?;
    // Set in the postmaster, it holds in every backend: they share the arena.
    let pid = server.pid().to_string();
    succeed(&[
        "rules",
        "set",
        "--pid",
        &pid,
        &format!("allowed[0]=\"{wanted}\""),
    ])?;
    for session in [&mut old, &mut new] {
        for command in [
            "cat >/dev/nul",
            "cat >/dev/null ",
            "Cat >/dev/null",
            "cat >/dev/null; id",
            "",
            &rest,
        ] {
            expect(session, &copy(command), &refused(command))?;
        }
        expect(session, &copy(wanted), &Outcome::done())?;
    }
    // As long as fits, and one letter longer.
    rest.truncate(254);
    succeed(&[
        "rules",
        "set",
        "--pid",
        &pid,
        &format!("allowed[1]=\"{rest}\""),
    ])?;
    expect(&mut new, &copy(&rest), &Outcome::done())?;
    rest.push(' ');
    expect(&mut new, &copy(&rest), &refused(&rest))?;
    // While the list is written, or if its editor died over it, nothing is allowed.
    let generation = |word: u32| {
        let word = format!("allowed_generation={word}");
        succeed(&["rules", "set", "--pid", &pid, &word])
    };
    generation(1)?;
    expect(&mut old, &copy(wanted), &refused(wanted))?;
    generation(2)?;
    expect(&mut old, &copy(wanted), &Outcome::done())?;
    succeed(&["rules", "set", "--pid", &pid, "allowed[0]=\"\""])?;
    expect(&mut old, &copy(wanted), &refused(wanted))?;
    assert_eq!(
        (
            counter(server.pid(), "hits")?,
            counter(server.pid(), "refused")?
        ),
        (20, 16)
    );
    server.revert()?;
    expect(&mut old, &copy(&rest), &Outcome::done())?;
    server.stop()
}

/// `cargo xtask soak` does the same a hundred times and more.
#[test]
fn cycles_under_pgbench() -> Result<()> {
    let Some(package) = package("postgresql::cycles_under_pgbench", "postgresql") else {
        return Ok(());
    };
    let scratch = Scratch::new()?;
    let mut cycles = Cycles::start(Postgres::start(&package, &scratch)?, &scratch)?;
    for _ in 0..6 {
        cycles.cycle()?;
    }
    let figures = cycles.finish()?;
    eprintln!("{figures}");
    ensure!(figures.transactions > 0 && figures.hits > 0, "{figures}");
    Ok(())
}
