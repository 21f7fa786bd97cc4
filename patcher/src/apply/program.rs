//! From an object's bytes to a program that is proven safe.

use upatch_verifier::{Policy, Rejection, VerifiedProgram, verify};

use crate::object::{LinkError, ObjectError, ObjectProgram, PatchObject, link, link_kernel};

/// Why an object gives no verified program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is damaged, or wants what upatch can't honour.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Its parts don't fit together.
    #[error("program `{program}`: {error}")]
    Link {
        /// The C function.
        program: String,
        /// What is wrong.
        error: LinkError,
    },
    /// The verifier can't prove it safe.
    #[error("program `{program}` is rejected")]
    Rejected {
        /// The C function.
        program: String,
        /// What must hold, and what is known.
        rejection: Box<Rejection>,
    },
}

/// Links and verifies one program of an object.
///
/// # Errors
/// The stage that failed.
pub fn verified(
    object: &PatchObject,
    program: &ObjectProgram,
    policy: &Policy,
) -> Result<VerifiedProgram, ProgramError> {
    let name = || program.name.clone();
    let linked = link(object, program).map_err(|error| ProgramError::Link {
        program: name(),
        error,
    })?;
    verify(linked, policy).map_err(|rejection| ProgramError::Rejected {
        program: name(),
        rejection,
    })
}

/// Links and verifies all programs of an object; those for the kernel are only linked, it judges them itself.
///
/// # Errors
/// The first program that fails.
pub fn all_verified(
    object: &PatchObject,
    policy: &Policy,
) -> Result<Vec<VerifiedProgram>, ProgramError> {
    let verified: Result<Vec<_>, _> = object
        .programs()
        .iter()
        .map(|program| verified(object, program, policy))
        .collect();
    for program in object.kernel_programs() {
        link_kernel(object, program).map_err(|error| ProgramError::Link {
            program: program.name.clone(),
            error,
        })?;
    }
    verified
}
