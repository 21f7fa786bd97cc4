//! Reading the files that the command line names.

use std::io::Read;
use std::path::Path;

use super::failure::{Exit, Failure};
use crate::object::PatchObject;

/// Longest file that is read: objects are kilobytes.
const LIMIT: u64 = 64 << 20;

/// The file's bytes.
///
/// # Errors
/// It can't be read, or is far too long.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let place = path.display().to_string();
    let failed = |error: std::io::Error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory => Exit::Usage,
            std::io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Internal,
        };
        Failure::new(exit, format!("can't read the file: {error}")).at(place.clone())
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Failure::new(Exit::Object, "the file is longer than 64 MiB").at(place));
    }
    Ok(bytes)
}

/// The object in the file.
///
/// # Errors
/// As [`read`], or it is no patch object.
pub(crate) fn object(path: &Path) -> Result<PatchObject, Failure> {
    let bytes = read(path)?;
    PatchObject::parse(&bytes).map_err(|error| {
        Failure::from(crate::apply::program::ProgramError::Object(error))
            .at(path.display().to_string())
    })
}

/// The file's name without its folders, for records and messages.
#[must_use]
pub(crate) fn name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}
