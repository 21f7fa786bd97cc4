//! Every helper.
