//! Patches in a running process: prepared, applied, found again, reverted.
//!
//! ```text
//! Request ─prepare→ Prepared ─apply→ Applied            image and arena are mapped and written before anybody stops
//! process ─inspect→ Inventory { Found … } ─revert→ Reverted
//! ```
//!
//! Knows pokes, images, arenas and records; doesn't know BPF or ELF. Killing this program at any point leaves the target
//! running, patched or not patched; whatever was left in it is found by [`inspect`] and finished by the next apply or
//! revert.

pub mod apply;
pub mod arena;
mod clean;
pub mod gap;
mod group;
mod place;
pub mod poke;
pub mod prepare;
pub mod quiesce;
pub mod record;
pub mod region;
pub mod request;
pub mod revert;
mod take_up;

pub use apply::{Applied, ApplyError, PokeFigures, apply};
pub use arena::{Arena, ArenaError, Backend};
pub use clean::sweep;
pub use poke::{PokeError, Poked, text_poke};
pub use prepare::{Prepared, prepare};
pub use quiesce::{Blocker, Busy, Quiescent};
pub use record::Record;
pub use region::{Found, FoundState, Inventory, Link, Region, SiteBytes, inspect};
pub use request::{BuildError, Placement, PrepareError, Request, SiteRequest};
pub use revert::{RevertError, RevertOutcome, Reverted, revert, revert_rest};
