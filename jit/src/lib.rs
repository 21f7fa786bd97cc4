//! Verified BPF to address-free x86-64, and the reference interpreter.
#![forbid(unsafe_code)]

pub mod interp;
