//! The samples' real programs, started and spoken to: what the tests and the demo share.
//!
//! Decides how each program is run and asked; judges nothing. Invariant: each value here owns its process and its
//! scratch folder, and both are gone when it is dropped.

mod beanstalkd;
mod drivers;
mod lighttpd;
mod memcached;
mod patching;
mod postgres;
mod python;
mod redis;
mod scratch;
mod text;

pub use beanstalkd::{Beanstalkd, Job, Producer};
pub use drivers::{
    Transport, libc_driver, libc_file, libmodbus_driver, libssh_driver, libssh2_driver,
};
pub use lighttpd::Lighttpd;
pub use memcached::{Load, LoadReport, Memcached, Session};
pub use patching::{Applied, Site, apply, apply_several, apply_with};
pub use postgres::{
    BenchReport, CycleFigures, Cycles, Figures, Outcome, Pgbench, Postgres,
    Session as PostgresSession, Transaction,
};
pub use python::{cryptography_driver, cryptography_library, ssl_driver};
pub use redis::{Redis, Reply, without_consumer};
pub use scratch::Scratch;
pub use text::changed_text;
