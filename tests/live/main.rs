//! Live tests: hand-assembled hooks on real processes, applied and reverted while their threads run.
//!
//! Each case prints one line of figures. `UPATCH_LONG=1` multiplies the cycles by ten. Run as `live --upatch …` this
//! program is the `upatch` that the kill tests kill.

mod cycles;
mod hook;
mod kill;
mod servers;
mod states;
mod victim;

use libtest_mimic::{Arguments, Failed, Trial};

fn case(name: &'static str, run: fn() -> anyhow::Result<String>) -> Trial {
    Trial::test(name, move || match run() {
        Ok(figures) => {
            println!("{name}: {figures}");
            Ok(())
        }
        Err(error) => Err(Failed::from(format!("{error:#}"))),
    })
}

/// How many times the default a test runs: 10 with `UPATCH_LONG=1`.
fn scale() -> usize {
    if std::env::var_os("UPATCH_LONG").is_some_and(|value| value == "1") {
        10
    } else {
        1
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|first| first == kill::CHILD_FLAG) {
        std::process::exit(kill::child(&words[1..]));
    }
    let mut arguments = Arguments::from_args();
    // Two processors: tests beside each other would only measure each other.
    arguments.test_threads.get_or_insert(1);
    // Victims inherit it: how long a stop takes must not depend on what else this machine is busy with. Best effort.
    let _ = std::process::Command::new("renice")
        .args(["-n", "-15", "-p", &std::process::id().to_string()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    let mut trials = Vec::new();
    trials.extend(cycles::trials());
    trials.extend(servers::trials());
    trials.extend(states::trials());
    trials.extend(kill::trials());
    libtest_mimic::run(&arguments, trials).exit();
}
