//! The fetched PostgreSQL 15: a new database cluster on a unix socket, its processes, and its log.
//!
//! Decides how the server is set up and what in its log is a failure. Invariant: the postmaster is ended by a signal that
//! makes it take its shared memory with it, also when the test dies.

mod bench;
mod cycles;
mod patched;
mod session;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

pub use bench::{BenchReport, Pgbench, Transaction};
pub use cycles::{CycleFigures, Cycles};
pub use patched::Figures;
pub use session::{Outcome, Session};

use super::Scratch;
use super::scratch::Owner;
use crate::child::{self, Child, PATIENCE};
use crate::packages::Package;

/// Where Debian has the server's programs.
const PROGRAMS: &str = "usr/lib/postgresql/15/bin";

/// For initdb and for filling pgbench's tables, on a loaded machine with a cold disk.
const LIMIT: Duration = Duration::from_secs(120);

/// What a log must not say: a crash, or a process that was ended or refused. `FATAL` is also what ends a connection that
/// the client did not end.
const FAILURES: [&str; 4] = [
    "PANIC:",
    "FATAL:",
    "was terminated by",
    "exited with exit code 2",
];

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    place: Place,
    program: PathBuf,
}

/// Where the server's programs and files are, and as whom they run.
#[derive(Debug, Clone)]
struct Place {
    package: Package,
    folder: PathBuf,
    owner: Owner,
}

impl Postgres {
    /// Makes a cluster and starts the server. It writes without syncing, and listens on a unix socket only.
    ///
    /// # Errors
    /// initdb fails, or the server isn't ready in time.
    pub fn start(package: &Package, scratch: &Scratch) -> Result<Self> {
        let package = package.copy_to(scratch.path())?;
        let place = Place {
            package,
            folder: scratch.path().to_owned(),
            owner: scratch.owner(),
        };
        let mut initdb = place.command("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--no-locale",
            "--encoding=UTF8",
        ]);
        initdb
            .args(["--no-sync", "--no-instructions", "--pgdata"])
            .arg(place.data());
        let made = child::run(&mut initdb, LIMIT)?;
        ensure!(made.code == 0, "initdb: {}{}", made.stdout, made.stderr);

        let mut server = place.command("postgres");
        server
            .arg("-D")
            .arg(place.data())
            .arg("-k")
            .arg(&place.folder);
        for setting in [
            "listen_addresses=",
            "fsync=off",
            "jit=off",
            "shared_buffers=32MB",
            "dynamic_shared_memory_type=mmap",
        ] {
            server.args(["-c", setting]);
        }
        server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(place.log())?);
        // SIGQUIT is PostgreSQL's immediate shutdown: all its processes end, and its shared memory is removed.
        let child = Child::spawn_ended_by(&mut server, libc::SIGQUIT)?;
        let program = place.program("postgres");
        let mut postgres = Self {
            child,
            place,
            program,
        };
        postgres.await_ready()?;
        Ok(postgres)
    }

    /// The server says so in its pid file; asking by connecting would leave a FATAL in the log.
    fn await_ready(&mut self) -> Result<()> {
        let file = self.place.data().join("postmaster.pid");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if text
                .lines()
                .nth(7)
                .is_some_and(|status| status.trim() == "ready")
            {
                return Ok(());
            }
            ensure!(
                self.child.is_running() && Instant::now() < deadline,
                "the server doesn't start: {}",
                self.log()?
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The server's executable, which all its processes run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The processes that the postmaster has now: backends and helpers.
    ///
    /// # Errors
    /// The postmaster is gone.
    pub fn children(&self) -> Result<Vec<u32>> {
        let pid = self.pid();
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        text.split_whitespace()
            .map(|pid| Ok(pid.parse()?))
            .collect()
    }

    /// Opens a connection: one more backend.
    ///
    /// # Errors
    /// The server refuses.
    pub fn connect(&self) -> Result<Session> {
        Session::open(&self.place.folder.join(".s.PGSQL.5432"))
    }

    /// Fills pgbench's tables.
    ///
    /// # Errors
    /// pgbench fails.
    pub fn fill(&self) -> Result<()> {
        let mut pgbench = self.place.command("pgbench");
        let filled = child::run(pgbench.args(["-i", "-q", "-s", "1", "postgres"]), LIMIT)?;
        ensure!(filled.code == 0, "pgbench -i: {}", filled.stderr);
        Ok(())
    }

    /// Starts pgbench with its own mix of transactions, for as long as wanted.
    pub fn bench(&self, arguments: &[&str]) -> Pgbench {
        Pgbench::start(self.place.clone(), arguments)
    }

    /// Makes sure that pgbench's tables hold what `reports` say was done: every transaction once, no sum differing.
    ///
    /// # Errors
    /// They don't.
    pub fn check_sums(&self, reports: &[BenchReport]) -> Result<()> {
        let mut session = self.connect()?;
        let answered: usize = reports.iter().map(|report| report.transactions.len()).sum();
        let found = session.value("SELECT count(*) FROM pgbench_history")?;
        ensure!(
            found == answered.to_string(),
            "pgbench counts {answered} transactions, the server has {found}"
        );
        let history = session.value("SELECT sum(delta) FROM pgbench_history")?;
        for (table, balance) in [
            ("accounts", "abalance"),
            ("tellers", "tbalance"),
            ("branches", "bbalance"),
        ] {
            let sum = session.value(&format!("SELECT sum({balance}) FROM pgbench_{table}"))?;
            ensure!(
                sum == history,
                "the {table} sum up to {sum}, what was booked to {history}"
            );
        }
        Ok(())
    }

    /// What the server has logged.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.place.log())?)
    }

    /// Makes sure that the server is alive and that nothing of it has crashed.
    ///
    /// # Errors
    /// It isn't, or something has; the error holds the lines.
    pub fn check(&mut self) -> Result<()> {
        ensure!(
            self.child.is_running(),
            "the postmaster has ended: {}",
            self.log()?
        );
        let log = self.log()?;
        let failures: Vec<&str> = log
            .lines()
            .filter(|line| FAILURES.iter().any(|failure| line.contains(failure)))
            .collect();
        ensure!(
            failures.is_empty(),
            "the server's log: {}",
            failures.join("\n")
        );
        Ok(())
    }

    /// Ends the server as an operator would, and makes sure that it ends well.
    ///
    /// # Errors
    /// It doesn't end, or not with 0, or its log holds a failure.
    pub fn stop(mut self) -> Result<()> {
        self.check()?;
        self.child.signal(libc::SIGINT)?;
        let status = self.child.wait(PATIENCE)?;
        ensure!(
            status.success(),
            "the postmaster ended with {status}: {}",
            self.log()?
        );
        Ok(())
    }
}

impl Place {
    fn program(&self, name: &str) -> PathBuf {
        self.package.file(PROGRAMS).join(name)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// One of the server's programs, with nothing of the tests' environment.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program(name));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LD_LIBRARY_PATH", self.package.library_path())
            .env("PGHOST", &self.folder)
            .env("PGUSER", "postgres");
        self.owner.run(&mut command).current_dir(&self.folder);
        command
    }
}
