//! What a patch program returns in R0 (DESIGN decision 1).

/// The call goes on: displaced instructions, then the original function.
pub const UPATCH_CONTINUE: u64 = 0;
/// The call ends here: rax (and rdx, where the type needs it) come from ctx. Only at a function's entry.
pub const UPATCH_RETURN: u64 = 1;
