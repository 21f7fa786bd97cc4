//! Build-ids: what identifies a binary. Decides which notes count (named `GNU`, type `NT_GNU_BUILD_ID`; stapsdt and
//! others use type 3 too) and what a usable prefix is; doesn't know where the note bytes came from.

use std::fmt;
use std::str::FromStr;

use object::LittleEndian;
use object::elf::{FileHeader64, NT_GNU_BUILD_ID};
use object::read::elf::NoteIterator;

/// A build-id as found in a note: 1 to 64 bytes (20 from `ld`, 16 with md5, 8 from lld's fast hash).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(Vec<u8>);

impl BuildId {
    /// Longest id that is believed.
    pub const MAX_LEN: usize = 64;

    /// The id with these bytes, or `None` for none or more than [`BuildId::MAX_LEN`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty() && bytes.len() <= Self::MAX_LEN).then(|| Self(bytes.to_vec()))
    }

    /// The first build-id in the bytes of a `PT_NOTE` segment; `align` is the segment's `p_align` (4 or 8).
    #[must_use]
    pub fn in_notes(notes: &[u8], align: u64) -> Option<Self> {
        let align = if align == 8 { 8 } else { 4 };
        let mut notes =
            NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, align, notes).ok()?;
        while let Ok(Some(note)) = notes.next() {
            if note.name() == b"GNU" && note.n_type(LittleEndian) == NT_GNU_BUILD_ID {
                return Self::new(note.desc());
            }
        }
        None
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// The beginning of a build-id: 8 to 128 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BuildIdPrefix(String);

/// A text that can't be the beginning of a build-id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no build-id: 8 to 128 hex digits are needed", .given.escape_debug())]
pub struct BadBuildId {
    /// What was given.
    pub given: String,
}

impl BuildIdPrefix {
    /// Fewest digits that may stand for an id.
    pub const MIN_DIGITS: usize = 8;

    /// Does the id begin so?
    #[must_use]
    pub fn matches(&self, id: &BuildId) -> bool {
        id.to_string().starts_with(&self.0)
    }
}

impl FromStr for BuildIdPrefix {
    type Err = BadBuildId;

    fn from_str(text: &str) -> Result<Self, BadBuildId> {
        let digits = text.trim().to_ascii_lowercase();
        let usable = (Self::MIN_DIGITS..=2 * BuildId::MAX_LEN).contains(&digits.len());
        if usable && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(digits))
        } else {
            Err(BadBuildId {
                given: text.chars().take(200).collect(),
            })
        }
    }
}

impl From<&BuildId> for BuildIdPrefix {
    /// The whole id; ids of fewer than four bytes are allowed here because nobody typed them.
    fn from(id: &BuildId) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for BuildIdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BuildIdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildIdPrefix({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, desc.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        for part in [name, desc] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn only_notes_named_gnu_count() {
        let mut notes = note(b"stapsdt\0", 3, b"\x11\x22\x33\x44\x55\x66\x77\x88");
        assert_eq!(BuildId::in_notes(&notes, 4), None);
        notes.extend(note(b"GNU\0", 1, &[0; 16]));
        notes.extend(note(b"GNU\0", 3, &[0xab; 8]));
        let id = BuildId::in_notes(&notes, 4).unwrap();
        assert_eq!(id.to_string(), "abababababababab");
        for end in 0..notes.len() {
            let _ = BuildId::in_notes(&notes[..end], 4);
        }
        assert_eq!(BuildId::in_notes(&note(b"GNU\0", 3, b""), 4), None);
    }

    #[test]
    fn prefixes() {
        let id = BuildId::new(&[0x01, 0x23, 0x45, 0x67, 0x89]).unwrap();
        assert!("01234567".parse::<BuildIdPrefix>().unwrap().matches(&id));
        assert!("0123456789".parse::<BuildIdPrefix>().unwrap().matches(&id));
        assert!(
            !"012345678900"
                .parse::<BuildIdPrefix>()
                .unwrap()
                .matches(&id)
        );
        assert!("012345678".parse::<BuildIdPrefix>().unwrap().matches(&id));
        for bad in ["", "0123456", "0123456g", "0x012345678"] {
            assert!(bad.parse::<BuildIdPrefix>().is_err(), "{bad}");
        }
    }
}
