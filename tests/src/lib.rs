//! What the end-to-end tests and benchmarks share: victims, packages, skips, and the machinery to watch them.

pub mod uprobe;

pub use uprobe::build_id_of;
