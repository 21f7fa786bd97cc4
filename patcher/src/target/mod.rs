//! From a running process to a patch site: modules by build-id, functions by name or address, their bounds and bytes.
//!
//! ```text
//! TargetMemory ─snapshot→ TargetImage ─resolve(TargetQuery)→ PatchSite ─text()→ FunctionText (trampolines)
//!                              │                                 └ compare_memory: before the poke, and before its revert
//!                              └ find_function → Avma (helpers of the application)
//! ```
//!
//! Decides which bytes are meant and refuses to guess; doesn't decide whether they can be displaced, and changes nothing.
//! Invariant: every reader of ELF bytes is total, and allocates no more than the bytes it was given, or a fixed bound.

pub mod address;
pub mod build_id;
pub mod bytes;
pub mod demangle;
pub mod dynamic;
pub mod elf;
pub mod errno;
pub mod error;
pub mod frames;
pub mod image;
pub mod memory;
pub mod module;
mod parts;
mod plt;
pub mod query;
mod resolve;
pub mod site;
pub mod symbols;

pub use address::{LoadBias, Svma};
pub use build_id::{BadBuildId, BuildId, BuildIdPrefix};
pub use elf::{ElfImage, Source};
pub use errno::Errno;
pub use error::{Failure, Foreign, ModuleId, ResolveError, SnapshotError};
pub use image::TargetImage;
pub use memory::{MemoryOnly, TargetMemory};
pub use module::Module;
pub use query::TargetQuery;
pub use site::PatchSite;
