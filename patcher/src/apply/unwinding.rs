//! Could an exception pass through the image?
//!
//! An image has no unwind tables: an exception that a called function of the application throws would end in
//! `std::terminate`. Which functions throw nobody can tell; which modules can is told by what they import.

use upatch_trampolines::Avma;

use crate::process::Process;
use crate::target::{ResolveError, TargetImage};

/// What code that throws C++ or Rust exceptions, or lets them pass with clean-ups, refers to (Itanium C++ ABI, part II).
const UNWINDERS: [&[u8]; 3] = [b"__cxa_throw", b"_Unwind_RaiseException", b"_Unwind_Resume"];

/// A function to be called that may throw.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the patch calls {function} of {module}, which uses exceptions; one that passed through the patch would end the process"
)]
pub struct MayThrow {
    /// The function.
    pub function: String,
    /// Its module.
    pub module: String,
}

/// Refuses functions of modules that use exceptions.
///
/// # Errors
/// The outer: a module can't be read. The inner: the first such function.
pub fn check(
    process: &Process,
    target: &TargetImage,
    functions: impl Iterator<Item = (String, Avma)>,
) -> Result<Result<(), MayThrow>, ResolveError> {
    for (function, at) in functions {
        let Some(module) = target.module_at(at) else {
            continue;
        };
        let image = module.image(process)?;
        let throws = image
            .dynamic()
            .symbols(image.bytes())
            .any(|(name, _, _)| UNWINDERS.contains(&name));
        if throws {
            return Ok(Err(MayThrow {
                function,
                module: module.path().display().to_string(),
            }));
        }
    }
    Ok(Ok(()))
}
