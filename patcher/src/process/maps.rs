//! The text of `/proc/PID/maps`, parsed.
//!
//! Decides what one line says, and where an address lies; doesn't open files and doesn't know processes. The parser is
//! total: any bytes give mappings or a [`MapsError`] that names the line. Source: proc_pid_maps(5), `fs/proc/task_mmu.c`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use upatch_trampolines::{Avma, AvmaRange};

/// A line of `/proc/PID/maps` that isn't what the kernel writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed line {line} of the memory map: {text:?}")]
pub struct MapsError {
    /// 1 for the first line.
    pub line: usize,
    /// The line's first 200 bytes, lossily decoded.
    pub text: String,
}

/// What the mapping allows: the four letters after the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Perms {
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub exec: bool,
    /// `s`: stores reach the file and every other process; otherwise `p`, private (copy on write).
    pub shared: bool,
}

impl fmt::Display for Perms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |on, letter| if on { letter } else { '-' };
        let kind = if self.shared { 's' } else { 'p' };
        write!(
            f,
            "{}{}{}{kind}",
            flag(self.read, 'r'),
            flag(self.write, 'w'),
            flag(self.exec, 'x')
        )
    }
}

/// What lies behind a mapping, by the name at the end of the line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Backing {
    /// No name: anonymous memory.
    Anonymous,
    /// A name in brackets, brackets included: `[heap]`, `[stack]`, `[vdso]`, `[uprobes]`, `[anon:…]`.
    Pseudo(String),
    /// A file as the kernel names it (`/usr/lib/…`, also `/memfd:…`, `/SYSV…`, `anon_inode:…`).
    File {
        /// The path, with `\012` turned back into a line feed and without the ` (deleted)` mark.
        path: PathBuf,
        /// The kernel wrote ` (deleted)`: the path no longer leads to this file. A file whose own name ends so looks the
        /// same; device and inode tell them apart.
        deleted: bool,
    },
}

/// One line: a range of the address space with one backing and one set of permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The addresses; never empty, page-aligned when the kernel wrote it.
    pub range: AvmaRange,
    /// What it allows.
    pub perms: Perms,
    /// Byte offset into the file.
    pub offset: u64,
    /// Device number, major and minor (as the kernel prints it; btrfs and overlayfs print another one than `stat`).
    pub dev: (u32, u32),
    /// Inode number, 0 for anonymous memory.
    pub inode: u64,
    /// What lies behind it.
    pub backing: Backing,
}

impl Mapping {
    /// The file's path, if a file lies behind it.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match &self.backing {
            Backing::File { path, .. } => Some(path),
            Backing::Anonymous | Backing::Pseudo(_) => None,
        }
    }

    /// Is it backed by a file that the kernel marks as deleted?
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        match &self.backing {
            Backing::File { deleted, .. } => *deleted,
            Backing::Anonymous | Backing::Pseudo(_) => false,
        }
    }

    /// Has it this name in brackets (written with the brackets)?
    #[must_use]
    pub fn is_pseudo(&self, name: &str) -> bool {
        match &self.backing {
            Backing::Pseudo(own) => own == name,
            Backing::Anonymous | Backing::File { .. } => false,
        }
    }

    /// Offset in the file of the byte that is mapped at `at`, or `None` if `at` is outside or the sum overflows.
    #[must_use]
    pub fn file_offset(&self, at: Avma) -> Option<u64> {
        if !self.range.contains(at) {
            return None;
        }
        at.since(self.range.start)?.checked_add(self.offset)
    }
}

/// A whole address space at one moment, in the order of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maps {
    mappings: Vec<Mapping>,
}

impl Maps {
    /// Parses the content of `/proc/PID/maps`.
    ///
    /// # Errors
    /// The first line that doesn't parse.
    pub fn parse(text: &[u8]) -> Result<Self, MapsError> {
        let mut mappings = Vec::new();
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            mappings.push(parse_line(line).ok_or_else(|| MapsError {
                line: index + 1,
                text: String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned(),
            })?);
        }
        mappings.sort_by_key(|mapping: &Mapping| mapping.range.start);
        Ok(Self { mappings })
    }

    /// The mapping that holds `at`.
    #[must_use]
    pub fn find(&self, at: Avma) -> Option<&Mapping> {
        let next = self
            .mappings
            .partition_point(|mapping| mapping.range.start <= at);
        self.mappings[..next]
            .last()
            .filter(|mapping| mapping.range.contains(at))
    }

    /// All mappings that share an address with `range`, in order.
    pub fn overlapping(&self, range: AvmaRange) -> impl Iterator<Item = &Mapping> {
        self.mappings
            .iter()
            .filter(move |mapping| mapping.range.overlaps(&range))
    }

    /// The same, with these addresses taken too.
    #[must_use]
    pub fn with(&self, taken: impl IntoIterator<Item = AvmaRange>) -> Self {
        let mut mappings = self.mappings.clone();
        let nothing = Perms {
            read: false,
            write: false,
            exec: false,
            shared: false,
        };
        mappings.extend(taken.into_iter().map(|range| Mapping {
            range,
            perms: nothing,
            offset: 0,
            dev: (0, 0),
            inode: 0,
            backing: Backing::Anonymous,
        }));
        mappings.sort_by_key(|mapping| mapping.range.start);
        Self { mappings }
    }

    /// All mappings in the order of addresses.
    pub fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.mappings.iter()
    }

    /// How many mappings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Is nothing mapped (a kernel thread, or a zombie)?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }
}

impl<'a> IntoIterator for &'a Maps {
    type Item = &'a Mapping;
    type IntoIter = std::slice::Iter<'a, Mapping>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// `start-end perms offset major:minor inode`, blanks, name.
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let (range, rest) = split_at_blank(line)?;
    let (perms, rest) = split_at_blank(rest)?;
    let (offset, rest) = split_at_blank(rest)?;
    let (dev, rest) = split_at_blank(rest)?;
    let (inode, name) = split_at_blank(rest).unwrap_or((rest, b""));

    let (start, end) = split_once(range, b'-')?;
    let (start, end) = (number(start, 16)?, number(end, 16)?);
    if start >= end {
        return None;
    }
    let (major, minor) = split_once(dev, b':')?;
    Some(Mapping {
        range: AvmaRange {
            start: Avma(start),
            end: Avma(end),
        },
        perms: parse_perms(perms)?,
        offset: number(offset, 16)?,
        dev: (
            u32::try_from(number(major, 16)?).ok()?,
            u32::try_from(number(minor, 16)?).ok()?,
        ),
        inode: number(inode, 10)?,
        backing: parse_name(name),
    })
}

fn parse_perms(text: &[u8]) -> Option<Perms> {
    let &[r, w, x, kind] = text else { return None };
    let flag = |byte, letter| match byte {
        b'-' => Some(false),
        _ if byte == letter => Some(true),
        _ => None,
    };
    Some(Perms {
        read: flag(r, b'r')?,
        write: flag(w, b'w')?,
        exec: flag(x, b'x')?,
        shared: match kind {
            b's' => true,
            b'p' => false,
            _ => return None,
        },
    })
}

/// The kernel pads the name with blanks, and escapes line feeds only: a backslash in a file's name stays as it is.
fn parse_name(padded: &[u8]) -> Backing {
    const DELETED: &[u8] = b" (deleted)";
    let start = padded
        .iter()
        .position(|&byte| byte != b' ')
        .unwrap_or(padded.len());
    let name = &padded[start..];
    if name.is_empty() {
        return Backing::Anonymous;
    }
    if name.starts_with(b"[") && name.ends_with(b"]") {
        return Backing::Pseudo(String::from_utf8_lossy(name).into_owned());
    }
    let (name, deleted) = match name.strip_suffix(DELETED) {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    Backing::File {
        path: PathBuf::from(OsString::from_vec(unescape(name))),
        deleted,
    }
}

fn unescape(name: &[u8]) -> Vec<u8> {
    const LINE_FEED: &[u8] = b"\\012";
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(LINE_FEED) {
            bytes.push(b'\n');
            rest = tail;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    bytes
}

fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

fn split_at_blank(text: &[u8]) -> Option<(&[u8], &[u8])> {
    split_once(text, b' ')
}

/// Digits only: `from_str_radix` alone would accept a sign.
fn number(text: &[u8], radix: u32) -> Option<u64> {
    if text.is_empty() || !text.iter().all(|&byte| char::from(byte).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = "\
55d0c0000000-55d0c0002000 r--p 00000000 fe:01 1234                       /usr/bin/victim\n\
55d0c0002000-55d0c0005000 r-xp 00002000 fe:01 1234                       /usr/bin/victim\n\
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]\n\
7f0000000000-7f0000001000 r-xp 00001000 00:01 77                         /memfd:upatch:0011aabb (deleted)\n\
7f0000002000-7f0000003000 rw-s 00000000 00:01 78                         /tmp/a\\012b\\040c (deleted)\n\
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

    #[test]
    fn reads_every_kind_of_line() {
        let maps = Maps::parse(TEXT.as_bytes()).unwrap();
        assert_eq!(maps.len(), 7);
        let text = maps.find(Avma(0x55d0_c000_4fff)).unwrap();
        assert_eq!(text.perms.to_string(), "r-xp");
        assert_eq!(
            (text.offset, text.dev, text.inode),
            (0x2000, (0xfe, 1), 1234)
        );
        assert_eq!(text.file_offset(Avma(0x55d0_c000_2010)), Some(0x2010));
        assert_eq!(text.path(), Some(Path::new("/usr/bin/victim")));
        assert!(maps.find(Avma(0x55d0_c000_5000)).is_none());
        assert!(maps.find(Avma(0)).is_none());
        assert!(
            maps.find(Avma(0x55d0_c100_0000))
                .unwrap()
                .is_pseudo("[heap]")
        );
        assert!(
            maps.find(Avma(0xffff_ffff_ff60_0000))
                .unwrap()
                .is_pseudo("[vsyscall]")
        );
        let memfd = maps.find(Avma(0x7f00_0000_0000)).unwrap();
        assert!(memfd.is_deleted());
        assert_eq!(memfd.path(), Some(Path::new("/memfd:upatch:0011aabb")));
        let odd = maps.find(Avma(0x7f00_0000_2000)).unwrap();
        assert!(odd.perms.shared);
        assert_eq!(odd.path(), Some(Path::new("/tmp/a\nb\\040c")));
        assert_eq!(
            maps.find(Avma(0x7ffd_0000_0000)).unwrap().backing,
            Backing::Anonymous
        );
        let both = AvmaRange {
            start: Avma(0x55d0_c000_1fff),
            end: Avma(0x55d0_c000_2001),
        };
        assert_eq!(maps.overlapping(both).count(), 2);
    }

    #[test]
    fn refuses_what_the_kernel_would_not_write() {
        for bad in [
            "zz",
            "1000-2000 r-xp 0 fe:01",
            "2000-1000 r-xp 0 fe:01 1",
            "1000-1000 r-xp 0 fe:01 1",
            "+1000-2000 r-xp 0 fe:01 1",
            "1000-2000 rwxq 0 fe:01 1",
            "1000-2000 rxwp 0 fe:01 1",
            "1000-10000000000000000 r-xp 0 fe:01 1",
            "1000-2000 r-xp 0 1000000000:01 1",
            "1000-2000 r-xp 0 fe:01 -1",
        ] {
            let error =
                Maps::parse(format!("1000-2000 r-xp 0 fe:01 1\n{bad}\n").as_bytes()).unwrap_err();
            assert_eq!(error.line, 2, "{bad}");
        }
    }

    /// Every prefix and every single-byte change gives an answer, not a panic.
    #[test]
    fn is_total() {
        for end in 0..TEXT.len() {
            let _ = Maps::parse(&TEXT.as_bytes()[..end]);
        }
        for at in 0..TEXT.len() {
            for byte in [0u8, b' ', b'\n', b'-', b'g', 0xff] {
                let mut text = TEXT.as_bytes().to_vec();
                text[at] = byte;
                let _ = Maps::parse(&text);
            }
        }
    }

    #[test]
    fn reads_this_process() {
        let maps = Maps::parse(&std::fs::read("/proc/self/maps").unwrap()).unwrap();
        let here = maps
            .find(Avma(reads_this_process as *const () as usize as u64))
            .unwrap();
        assert!(here.perms.exec && !here.perms.write);
    }
}
