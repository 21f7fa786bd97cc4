//! A server of many processes under load: the patch goes into all of them, and no request is lost.

use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use upatch_tests::packages::Package;
use upatch_tests::samples::{BenchReport, Outcome as Answer, Postgres, PostgresSession, Scratch};
use upatch_tests::upatch::{build_sample, succeed};

use crate::Outcome;
use crate::teller::{Label, Teller, millis, shortened};

/// SQL that runs a program of the machine, and keeps what it says.
const ASK: &str = "COPY said FROM PROGRAM 'id -un'";

/// How long the server is watched under load before and after each change.
const WATCH: Duration = Duration::from_millis(700);

/// A connection with a table for the answer.
fn connect(server: &Postgres) -> Result<PostgresSession> {
    let mut session = server.connect()?;
    let made = session.query("CREATE TEMP TABLE said (line text)")?;
    ensure!(made == Answer::done(), "{made:?}");
    Ok(session)
}

/// The program ran: what it said.
fn runs(session: &mut PostgresSession) -> Result<String> {
    let copied = session.query(ASK)?;
    ensure!(copied == Answer::done(), "{ASK}: {copied:?}");
    let said = session.value("SELECT line FROM said")?;
    session.query("TRUNCATE said")?;
    Ok(said)
}

/// The program did not run: PostgreSQL's own words.
fn refused(session: &mut PostgresSession) -> Result<String> {
    match session.query(ASK)? {
        Answer::Error { code, message } if code == "42501" => Ok(message),
        other => bail!("{ASK} while patched: {other:?}"),
    }
}

/// Begin and end of something, for counting what was answered meanwhile.
type Span = (SystemTime, SystemTime);

/// How many transactions were answered in a span of time, and the longest of those under way in it.
fn during(report: &BenchReport, (from, to): Span) -> (usize, Duration) {
    let all = report.transactions.iter();
    let answered = all
        .clone()
        .filter(|one| (from..=to).contains(&one.answered))
        .count();
    let under_way = all.filter(|one| one.answered >= from && one.answered - one.took <= to);
    (
        answered,
        under_way.map(|one| one.took).max().unwrap_or_default(),
    )
}

fn counter(pid: u32, name: &str) -> Result<u64> {
    let dump = succeed(&["telemetry", "dump", "--pid", &pid.to_string()])?;
    let value = dump["patches"][0]["globals"][name].as_u64();
    value.with_context(|| format!("no counter {name} in {dump:#}"))
}

pub(crate) fn act(teller: &Teller, package: &Package) -> Result<Outcome> {
    let scratch = Scratch::new()?;
    let root = scratch.path().join("postgresql/usr/lib/postgresql/15/bin");
    let folders = [&root, scratch.path()];

    teller.title("3. PostgreSQL 15 under load: SQL runs programs, and no setting forbids it");
    let server = Postgres::start(package, &scratch)?;
    server.fill()?;
    let mut old = connect(&server)?;
    let user = runs(&mut old)?;
    teller.line(Label::Before, &format!("{ASK}: it ran, and said `{user}`"));
    let load = server.bench(&["--client=4"]);
    teller.line(
        Label::Note,
        "now pgbench asks without pause, on four connections",
    );
    thread::sleep(WATCH);

    let object = build_sample("postgresql", scratch.path())?;
    let begin = SystemTime::now();
    let applied = server.apply(&object)?;
    let applying: Span = (begin, SystemTime::now());
    teller.command(
        "apply",
        &shortened(&server.apply_command(&object)?, &folders),
    );
    teller.line(
        Label::Note,
        &format!(
            "in {} processes of the server, in {}",
            applied.processes,
            millis(applied.took)
        ),
    );
    let message = refused(&mut old)?;
    teller.line(Label::After, "the same on the same connection:");
    teller.line(Label::Note, &format!("ERROR: {message}"));
    ensure!(
        refused(&mut connect(&server)?)? == message,
        "a new connection is told something else"
    );
    teller.line(
        Label::Note,
        "and on a new one: its process was born patched",
    );
    thread::sleep(WATCH);
    let pid = server.pid().to_string();
    teller.run("counters", &["telemetry", "dump", "--pid", &pid], &folders)?;
    let (calls, denied) = (
        counter(server.pid(), "hits")?,
        counter(server.pid(), "refused")?,
    );
    ensure!(
        (calls, denied) == (2, 2),
        "{calls} calls and {denied} refused instead of 2 and 2"
    );

    let begin = SystemTime::now();
    server.revert()?;
    let reverting: Span = (begin, SystemTime::now());
    teller.command("revert", &server.revert_command());
    ensure!(runs(&mut old)? == user, "it says something else now");
    teller.line(
        Label::AsBefore,
        &format!("{ASK}: it runs, and says `{user}`"),
    );

    let report = load.finish()?;
    let (while_applied, slowest) = during(&report, applying);
    let (while_reverted, slower) = during(&report, reverting);
    ensure!(
        while_applied > 0,
        "nothing was answered while the patch was applied"
    );
    let all = report.transactions.len();
    server.check_sums(&[report])?;
    server.stop()?;
    teller.line(
        Label::Operator("pgbench"),
        &format!(
            "transactions answered during apply: {while_applied}, slowest {}",
            millis(slowest)
        ),
    );
    teller.line(
        Label::Note,
        &format!(
            "during revert: {while_reverted}, slowest {}",
            millis(slower)
        ),
    );
    teller.line(
        Label::Note,
        &format!("{all} in all, errors 0, every balance right, no connection lost"),
    );
    Ok(Outcome {
        program: "postgresql",
        function: "OpenPipeStream",
        calls,
        refused: denied,
        took: applied.took,
    })
}
