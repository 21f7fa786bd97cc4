//! What patch authors and the toolkit agree on, in Rust: the layout of ctx, the verdicts, the helper table and the arena.
//!
//! The C side is `include/upatch.h`, written by hand for its readers; a test compiles it and compares every offset and
//! number with this crate. This crate knows nothing of verifying, compiling or processes.
#![no_std]
#![forbid(unsafe_code)]

pub mod arena;
pub mod ctx;
pub mod helpers;
pub mod verdict;

/// The header that patch authors include, embedded so that `upatch build` needs no installed file.
pub const UPATCH_H: &str = include_str!("../include/upatch.h");
