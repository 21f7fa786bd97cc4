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
pub mod fragment;
pub mod plan;

pub use address::{Avma, AvmaRange};
pub use fragment::{Fixup, FixupKind, Fragment, GprSet};
pub use plan::{IpMap, PokePlan};
