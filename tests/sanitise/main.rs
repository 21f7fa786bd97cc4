//! The sanitising headers, function by function, against models that share nothing with them: std's paths, UTF-8 and checked
//! arithmetic. Inputs run as machine code and in the interpreter.
#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on says so by panicking"
)]

mod flaw;
mod length;
mod list;
mod path;
mod rig;
mod text;

/// Generated inputs for each function.
const GENERATED: u64 = 20_000;
