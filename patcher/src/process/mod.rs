//! Running processes: what lies where in them, and stopping, borrowing and resuming their threads.

pub mod maps;
