//! What a patch leaves in the process, so that any later `upatch` finds everything again.
//!
//! ```text
//! one memory file, "upatch:<id>", mapped privately:      a second one, "upatch-arena:<id>", mapped shared:
//!   code    r-x   the image                                rules, counters, rings
//!   data    rw-   re-entry guards; the gate of a patch with several sites, in the first one's
//!   record  r--   64-byte header, JSON
//! ```
//!
//! A patch with several sites has one such file for each, all of the same name.
//!
//! The process may have overwritten any of it, so what is read back is an allegation: [`Record::decode`] checks form,
//! `region::validate` compares every address with the memory map. Original bytes for a revert come from the ELF file;
//! the record's copy is only compared.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use upatch_trampolines::{Avma, AvmaRange, IpMap, PokePlan};

use super::arena::Backend;

/// Header before the JSON text, in bytes.
pub const HEADER_LEN: usize = 64;
/// Longest JSON text that is written or read back, in bytes: types take up to six times as much when they are taken apart.
pub const LONGEST: usize = 2 << 20;
const MAGIC: [u8; 8] = *b"upatch\r\n";
const VERSION: u32 = 1;
/// Most sites of one patch.
pub const MAX_SITES: usize = 64;
/// Offset of the state word in the header.
pub const STATE_OFFSET: u64 = 12;

/// What the record says of itself; whether the patch is live is told by the bytes at its site, not by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// Prepared, and perhaps applied.
    Placed,
    /// Reverted, but a suspended context may still return into the image: stays mapped, may be used again.
    Retired,
}

impl RecordState {
    /// The word in the header.
    #[must_use]
    pub const fn word(self) -> u32 {
        match self {
            Self::Placed => 1,
            Self::Retired => 2,
        }
    }
}

/// A number that JSON holds as a hex string: 64-bit addresses don't survive every JSON reader otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub u64);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{:#x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text
            .strip_prefix("0x")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        value
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("not a hex address"))
    }
}

/// A range as start and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First address.
    pub start: Hex,
    /// Bytes.
    pub len: Hex,
}

impl From<AvmaRange> for Span {
    fn from(range: AvmaRange) -> Self {
        Self {
            start: Hex(range.start.0),
            len: Hex(range.len()),
        }
    }
}

impl Span {
    /// The range; saturates at the end of the address space.
    #[must_use]
    pub fn range(self) -> AvmaRange {
        AvmaRange::new(Avma(self.start.0), self.len.0)
    }
}

/// A site's place in a patch that has several: each has a region and a record of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Which site it is, counted from 0; 0 is the leader, whose data hold the gate and whose record names the arena.
    pub index: u32,
    /// How many sites there are, at least 2.
    pub count: u32,
    /// First byte of the leader's code.
    pub leader: Hex,
    /// The gate byte: 0 closed, else open.
    pub gate: Hex,
}

/// JSON that is carried as text: taken apart into values, a hostile process's would take a hundred times as much memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Info(Box<RawValue>);

impl Info {
    /// The value's text.
    #[must_use]
    pub fn new(value: &serde_json::Value) -> Self {
        // SANITY: a value has no way to fail.
        Self(serde_json::value::to_raw_value(value).expect("a value serialises"))
    }

    /// As JSON.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Info {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Info {}

/// One site of a patch in one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// First 8 hex digits of the object's SHA-256.
    pub id: String,
    /// The poke, as data.
    pub site: Hex,
    /// Bytes before, hex digits.
    pub old: String,
    /// Bytes while applied, hex digits.
    pub new: String,
    /// All displaced instructions.
    pub displaced: Span,
    /// (original, copy in the image) of each.
    pub ips: Vec<(Hex, Hex)>,
    /// The image's used part of the code pages.
    pub image: Span,
    /// Mapped r-x.
    pub code: Span,
    /// Mapped rw-, if any.
    pub data: Option<Span>,
    /// The shared memory, if any.
    pub arena: Option<Span>,
    /// What the shared memory is made of.
    #[serde(default)]
    pub backend: Backend,
    /// Its place among several sites; absent if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Membership>,
    /// Does the image call functions of the application?
    pub calls_application: bool,
    /// Seconds since 1970 when it was placed.
    pub placed_at: u64,
    /// What the layers above want to find again; opaque here.
    pub info: Info,
}

/// Why a record's bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// All zeros where the header should be: the preparation was cut short.
    #[error("no record was written")]
    Absent,
    /// Something else stands there.
    #[error("the record is damaged: {0}")]
    Damaged(&'static str),
    /// Written by another version of upatch.
    #[error("the record has version {0}")]
    Version(u32),
}

impl Record {
    /// The poke that this record is about.
    #[must_use]
    pub fn plan(&self) -> Option<PokePlan> {
        Some(PokePlan {
            at: Avma(self.site.0),
            old: from_hex(&self.old)?,
            new: from_hex(&self.new)?,
            displaced: self.displaced.range(),
            ips: IpMap::new(
                self.ips
                    .iter()
                    .map(|(from, to)| (Avma(from.0), Avma(to.0)))
                    .collect(),
            ),
            image: self.image.range(),
        })
    }

    /// Header and JSON.
    #[must_use]
    pub fn encode(&self, state: RecordState) -> Vec<u8> {
        // SANITY: a struct of strings, numbers and JSON values has no way to fail.
        let json = serde_json::to_vec(self).expect("a record serialises");
        let mut bytes = Vec::with_capacity(HEADER_LEN + json.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&state.word().to_le_bytes());
        bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&Sha256::digest(&json));
        bytes.resize(HEADER_LEN, 0);
        bytes.extend_from_slice(&json);
        bytes
    }

    /// Length of the JSON text that a header announces.
    ///
    /// # Errors
    /// It is no header.
    pub fn announced_len(header: &[u8; HEADER_LEN]) -> Result<usize, RecordError> {
        if header.iter().all(|&byte| byte == 0) {
            return Err(RecordError::Absent);
        }
        if header[..8] != MAGIC {
            return Err(RecordError::Damaged("no magic number"));
        }
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if word(8) != VERSION {
            return Err(RecordError::Version(word(8)));
        }
        let len = u64::from(word(16)) | u64::from(word(20)) << 32;
        let len = usize::try_from(len).ok().filter(|&len| len <= LONGEST);
        len.ok_or(RecordError::Damaged("its length is out of bounds"))
    }

    /// Reads header and JSON back.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, RecordState), RecordError> {
        let header = bytes
            .first_chunk::<HEADER_LEN>()
            .ok_or(RecordError::Damaged("it is cut short"))?;
        let len = Self::announced_len(header)?;
        let json = bytes.get(HEADER_LEN..).and_then(|rest| rest.get(..len));
        let json = json.ok_or(RecordError::Damaged("it is cut short"))?;
        if header[24..56] != *Sha256::digest(json) {
            return Err(RecordError::Damaged("its checksum is wrong"));
        }
        let state = match header[12..16] {
            [1, 0, 0, 0] => RecordState::Placed,
            [2, 0, 0, 0] => RecordState::Retired,
            _ => return Err(RecordError::Damaged("its state is unknown")),
        };
        let record: Self = serde_json::from_slice(json)
            .map_err(|_| RecordError::Damaged("its text has another form"))?;
        Ok((record, state))
    }
}

/// Lower-case hex digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let span = |start| Span {
            start: Hex(start),
            len: Hex(0x1000),
        };
        Record {
            id: "0011aabb".to_owned(),
            site: Hex(0x40_1000),
            old: "5548 89e5".replace(' ', "") + "90",
            new: "e9fbef0000".to_owned(),
            displaced: Span {
                start: Hex(0x40_1000),
                len: Hex(5),
            },
            ips: vec![(Hex(0x40_1000), Hex(0x41_0010))],
            image: Span {
                start: Hex(0x41_0000),
                len: Hex(0x40),
            },
            code: span(0x41_0000),
            data: None,
            arena: Some(span(0x1000_0000_0000)),
            backend: Backend::Memfd,
            group: None,
            calls_application: false,
            placed_at: 1,
            info: Info::new(&serde_json::json!({"function": "f"})),
        }
    }

    #[test]
    fn round_trips() {
        for state in [RecordState::Placed, RecordState::Retired] {
            let bytes = record().encode(state);
            assert_eq!(Record::decode(&bytes).unwrap(), (record(), state));
        }
        assert_eq!(record().plan().unwrap().old, [0x55, 0x48, 0x89, 0xe5, 0x90]);
    }

    #[test]
    fn every_damage_is_an_answer() {
        let bytes = record().encode(RecordState::Placed);
        assert_eq!(Record::decode(&[0; 200]), Err(RecordError::Absent));
        for end in 0..bytes.len() {
            assert!(Record::decode(&bytes[..end]).is_err());
        }
        for at in (0..56).chain(64..bytes.len()) {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x40;
            assert!(Record::decode(&bytes).is_err(), "byte {at}");
        }
        assert!(from_hex("+1").is_none() && from_hex("é").is_none() && from_hex("1").is_none());
    }
}
