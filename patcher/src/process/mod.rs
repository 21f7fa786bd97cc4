//! Running processes: what lies where in them, and stopping, borrowing and resuming their threads.
//!
//! ```text
//! pid ─open→ Process ─┬─ hold one thread → HeldThread   makes system calls for us, all others run
//!                     └─ stop ───────────→ StoppedProcess   nobody runs; look, move, poke; resume
//! ```
//!
//! Both need a [`Tracer`], the right to trace, which lives on a thread of its own. Doesn't know patches: which bytes
//! become which is `patching`'s business.

pub mod failpoint;
pub mod family;
mod gather;
pub mod handle;
pub mod hold;
pub mod maps;
pub mod memory;
pub mod passing;
pub mod remote;
mod sharers;
mod stack;
pub mod status;
pub mod stop;
pub(crate) mod stub;
mod sys;
mod tracee;
pub mod tracer;

pub use handle::{Process, ProcessError};
pub use hold::{HeldThread, HoldError, RemoteError};
pub use memory::{Memory, MemoryError};
pub use stop::{StopError, StopFigures, StoppedProcess, TaskView};
pub(crate) use sys::{execute, map_for_reading, native, trials};
pub use tracer::Tracer;
