//! What the end-to-end tests and benchmarks share: victims, packages, skips, and the machinery to watch them.

pub mod c;
pub mod child;
pub mod jit_diff;
pub mod native;
pub mod network;
pub mod object_fuzz;
pub mod packages;
pub mod programs;
pub mod samples;
pub mod skip;
pub mod telemetry_fuzz;
pub mod upatch;
pub mod uprobe;

pub use uprobe::build_id_of;
