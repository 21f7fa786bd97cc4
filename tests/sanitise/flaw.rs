//! What cases say is wrong: `enum upatch_flaw`.

pub(crate) const UNREADABLE: i64 = -14;
pub(crate) const ESCAPES: i64 = -18;
pub(crate) const INVALID: i64 = -22;
pub(crate) const OVERFLOW: i64 = -34;
pub(crate) const TOO_LONG: i64 = -36;
pub(crate) const ILLEGAL: i64 = -84;
