//! An object's type information as the kernel takes it.
//!
//! clang's BTF has things that the kernel refuses: sections of size 0, functions and variables that are only declared,
//! parameters without names. Numbers of types stay: what can't be kept becomes something harmless in its place. Strings
//! are added for source lines.

use std::collections::HashMap;

/// Name of everything that needs one.
const PLACEHOLDER: &str = "upatch_unnamed";
const HEADER: usize = 24;
const KIND_FORWARD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNCTION: u32 = 12;
const KIND_PROTOTYPE: u32 = 13;
const KIND_VARIABLE: u32 = 14;
const KIND_SECTION: u32 = 15;
const LINKAGE_EXTERN: u32 = 2;

/// Type information for BPF_BTF_LOAD, still open for strings.
#[derive(Debug, Clone)]
pub(super) struct KernelBtf {
    types: Vec<u8>,
    strings: Vec<u8>,
    added: HashMap<String, u32>,
    /// Numbers of the functions that are defined here.
    pub(super) functions: HashMap<String, u32>,
}

impl KernelBtf {
    /// Rewrites a `.BTF` section. `None`: it isn't one.
    pub(super) fn new(section: &[u8]) -> Option<Self> {
        let header = usize::try_from(word(section, 4)?).ok()?;
        let part = |at: usize| {
            let start = header.checked_add(word(section, at)? as usize)?;
            section.get(start..start.checked_add(word(section, at + 4)? as usize)?)
        };
        let (types, strings) = (part(8)?, part(16)?);
        let mut this = Self {
            types: Vec::with_capacity(types.len()),
            strings: strings.to_vec(),
            added: HashMap::new(),
            functions: HashMap::new(),
        };
        let placeholder = this.string(PLACEHOLDER);
        let mut at = 0;
        let mut id = 0;
        while at < types.len() {
            id += 1;
            at += this.one(types.get(at..)?, id, placeholder)?;
        }
        Some(this)
    }

    /// Copies one type; tells how many bytes it took.
    fn one(&mut self, from: &[u8], id: u32, placeholder: u32) -> Option<usize> {
        let (name, info, third) = (word(from, 0)?, word(from, 4)?, word(from, 8)?);
        let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        let more = match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => count.checked_mul(12)?,
            6 | 13 => count.checked_mul(8)?,
            _ => 0,
        };
        let rest = from.get(12..12 + more)?;
        match kind {
            KIND_SECTION => self.push(&[placeholder, KIND_FORWARD << 24, 0]),
            KIND_VARIABLE => {
                let name = if self.is_identifier(name) {
                    name
                } else {
                    placeholder
                };
                self.push(&[name, KIND_TYPEDEF << 24, third]);
            }
            KIND_FUNCTION => {
                let linkage = info & 0xffff;
                let kept = if linkage == LINKAGE_EXTERN {
                    0
                } else {
                    linkage
                };
                self.push(&[name, KIND_FUNCTION << 24 | kept, third]);
                if linkage != LINKAGE_EXTERN {
                    self.functions.insert(self.text(name)?.to_owned(), id);
                }
            }
            KIND_PROTOTYPE => {
                self.push(&[name, info, third]);
                for param in rest.chunks_exact(8) {
                    let (name, ty) = (word(param, 0)?, word(param, 4)?);
                    // A last one without a type stands for `...`.
                    let named = if name == 0 && ty != 0 {
                        placeholder
                    } else {
                        name
                    };
                    self.push(&[named, ty]);
                }
            }
            _ => {
                self.push(&[name, info, third]);
                self.types.extend_from_slice(rest);
            }
        }
        Some(12 + more)
    }

    fn push(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
    }

    fn text(&self, at: u32) -> Option<&str> {
        let bytes = self.strings.get(at as usize..)?;
        std::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()
    }

    fn is_identifier(&self, at: u32) -> bool {
        self.text(at).is_some_and(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && name
                    .bytes()
                    .next()
                    .is_some_and(|first| !first.is_ascii_digit())
        })
    }

    /// The offset of a string, which is added if it wasn't before. Nothing behind a zero byte is kept.
    pub(super) fn string(&mut self, text: &str) -> u32 {
        let text = text.split('\0').next().unwrap_or_default();
        if let Some(&at) = self.added.get(text) {
            return at;
        }
        let at = u32::try_from(self.strings.len()).unwrap_or(0);
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        self.added.insert(text.to_owned(), at);
        at
    }

    /// The bytes for the kernel.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut bytes = Vec::with_capacity(HEADER + self.types.len() + self.strings.len());
        bytes.extend_from_slice(&[0x9f, 0xeb, 1, 0]);
        for word in [HEADER as u32, 0, types, types, strings] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.types);
        bytes.extend_from_slice(&self.strings);
        bytes
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// The number of the function `name` in the running kernel's type information (a kfunc), by `/sys/kernel/btf/vmlinux`.
pub(super) fn kernel_function(vmlinux: &[u8], name: &str) -> Option<u32> {
    KernelBtf::new(vmlinux)?.functions.get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        let len = types.len() as u32 * 4;
        for word in [24, 0, len, len, strings.len() as u32].iter().chain(types) {
            btf.extend_from_slice(&word.to_le_bytes());
        }
        btf.extend_from_slice(strings);
        btf
    }

    #[test]
    fn keeps_numbers_and_replaces_what_the_kernel_refuses() {
        let strings = b"\0int\0f.x\0g\0.ksyms\0";
        let types = [
            1,
            1 << 24,
            4,
            0x0100_0020, // 1: int
            5,
            14 << 24,
            1,
            0, // 2: static variable f.x
            0,
            13 << 24 | 1,
            1,
            0,
            1, // 3: int (*)(int)
            9,
            12 << 24 | 2,
            3, // 4: extern g
            9,
            12 << 24 | 1,
            3, // 5: global g
            11,
            15 << 24 | 1,
            0,
            4,
            0,
            0, // 6: .ksyms
        ];
        let btf = KernelBtf::new(&section(&types, strings)).unwrap();
        assert_eq!(btf.functions.get("g"), Some(&5));
        let placeholder = strings.len() as u32;
        let expected = [
            1,
            1 << 24,
            4,
            0x0100_0020,
            placeholder,
            8 << 24,
            1,
            0,
            13 << 24 | 1,
            1,
            placeholder,
            1,
            9,
            12 << 24,
            3,
            9,
            12 << 24 | 1,
            3,
            placeholder,
            7 << 24,
            0,
        ];
        let words: Vec<u32> = btf
            .types
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn damage_is_an_answer() {
        let whole = section(
            &[1, 1 << 24, 4, 0x0100_0020, 0, 13 << 24 | 9, 1],
            b"\0int\0",
        );
        assert!(KernelBtf::new(&whole).is_none());
        for len in 0..24 {
            assert!(KernelBtf::new(&whole[..len]).is_none());
        }
    }
}
