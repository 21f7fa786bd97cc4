//! Displaced instructions, trampoline images, poke plans and the machine-code check.
//!
//! ```text
//! FunctionText ─displace→ DisplacedInsns ─┐
//!                                         ├→ TrampolineTemplate ─place(address, bindings)→ TrampolineImage
//! Fragment (hook code, address-free) ─────┘        │ len()                                    │ check
//!                                                                                             ▼
//!                                                                     CheckedImage ─poke_plan()→ PokePlan
//! ```
//!
//! Pure: knows x86-64 machine code and addresses as numbers; does not know BPF, ELF or processes.
#![forbid(unsafe_code)]

pub mod address;
pub mod check;
pub mod displace;
pub mod fragment;
pub mod function;
pub mod image;
pub mod liveness;
pub mod plan;
mod relocate;
mod scan;
pub mod template;

pub use address::{Avma, AvmaRange};
pub use check::{CheckFailure, CheckPolicy, check};
pub use displace::{DisplacedInsns, Immovable, JUMP_LEN, Tactic, Undisplaceable, displace};
pub use fragment::{Fixup, FixupKind, Fragment, GprSet};
pub use function::{CodePart, FunctionText, SiteKind};
pub use image::{CheckedImage, TrampolineImage};
pub use liveness::{Because, Liveness, RegisterDecision, free_registers, liveness};
pub use plan::{IpMap, PokePlan};
pub use template::{Bindings, IMAGE_ALIGN, PlaceError, TrampolineTemplate};
