//! The patcher: finds a function in a running process, and changes its entry without hurting the process.

pub mod apply;
pub mod build;
pub mod cli;
pub mod doctor;
pub mod kernel;
pub mod listing;
pub mod object;
pub mod patching;
pub mod process;
pub mod rehearse;
pub mod revert;
pub mod rules;
pub mod target;
pub mod telemetry;
