//! The `upatch` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    upatch::cli::main()
}
