//! Compiled code in this process: compared with the interpreter on generated programs, and with its contract on every
//! helper: all registers, flags and vector state as they were.
#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on says so by panicking"
)]

mod application;
mod confined;
mod ctx;
mod from_c;
mod generated;
mod helpers;
mod rig;
mod user_memory;
