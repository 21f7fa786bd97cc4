//! Finding what patches have left in a process: `upatch:` mappings, their records, arenas, forgotten descriptors.
//!
//! Reads only. Believes the memory map and the bytes at a site; a record is believed as far as both agree with it.

use std::collections::BTreeMap;

use upatch_trampolines::{Avma, AvmaRange, PokePlan};

use super::arena::Backend;
use super::group;
use super::record::{HEADER_LEN, Record, RecordError, RecordState};
use crate::kernel;
use crate::process::maps::{Mapping, Maps};
use crate::process::{Memory, Process, ProcessError, passing, stub};

/// Most images of one process that are looked at; a patch has up to 64.
const MOST_REGIONS: usize = 4096;
/// Most bytes of their records in all.
const MOST_RECORDS: usize = 32 << 20;
/// Names of our memory files as the memory map shows them.
const IMAGE_PREFIX: &str = "/memfd:upatch:";
const ARENA_PREFIX: &str = "/memfd:upatch-arena:";

/// Name of the memory file of a patch's image.
#[must_use]
pub fn image_name(id: &str) -> String {
    format!("upatch:{id}")
}

/// Name of the memory file of a patch's arena.
#[must_use]
pub fn arena_name(id: &str) -> String {
    format!("upatch-arena:{id}")
}

/// What one of our patches turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// Every site jumps into its image, and the gate is open if there is one.
    Applied,
    /// Every site holds the original bytes: a killed `upatch` left it, or is at work.
    Leftover,
    /// Some sites jump, but the gate is closed, so that nothing is changed: a killed `upatch` left it in the middle.
    Interrupted,
    /// Reverted and kept, because a suspended context may return into it.
    Retired,
    /// A site holds neither the original bytes nor ours, or one of several sites is original again while the patch is live.
    Contested {
        /// What it holds.
        found: Vec<u8>,
    },
    /// Mapped, but its record was never written; nothing can jump there.
    Incomplete,
    /// There is a record that can't be believed.
    Damaged(String),
}

/// What a site holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SiteBytes {
    /// The jump to its image.
    Jump,
    /// What was there before.
    Original,
    /// Something else.
    Other(Vec<u8>),
    /// Nothing is mapped there: its module was unloaded.
    Gone,
    /// Unknown: there is no record that could be believed.
    Unknown,
}

/// One site's image, data and record in a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Inode of its memory file: the same in a process only if that was forked from this one, or this one from that.
    pub inode: u64,
    /// All mappings of its memory file.
    pub ranges: Vec<AvmaRange>,
    /// The executable part, if it is mapped.
    pub code: Option<AvmaRange>,
    /// Where the record begins, if it is mapped.
    pub record_at: Option<AvmaRange>,
    /// The record, if it can be believed.
    pub record: Option<Record>,
    /// What its site holds.
    pub site: SiteBytes,
}

impl Region {
    /// The poke that it is about, if its record can be believed.
    #[must_use]
    pub fn plan(&self) -> Option<PokePlan> {
        self.record.as_ref()?.plan()
    }
}

/// One patch, or the rest of one, in a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The id from the mapping's name.
    pub id: String,
    /// What it is.
    pub state: FoundState,
    /// Its sites, never none; the first is the leader, if that was found.
    pub regions: Vec<Region>,
}

impl Found {
    /// The first site's record, if it can be believed.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.regions.first()?.record.as_ref()
    }

    /// The first site's executable part, if it is mapped.
    #[must_use]
    pub fn code(&self) -> Option<AvmaRange> {
        self.regions.first()?.code
    }

    /// The first site's poke, if its record can be believed.
    #[must_use]
    pub fn plan(&self) -> Option<PokePlan> {
        self.record()?.plan()
    }

    /// The pokes of all sites whose records can be believed.
    pub fn plans(&self) -> impl Iterator<Item = PokePlan> {
        self.regions.iter().filter_map(Region::plan)
    }

    /// Its arena, if it has one.
    #[must_use]
    pub fn arena(&self) -> Option<AvmaRange> {
        let mut arenas = self.regions.iter();
        arenas.find_map(|region| Some(region.record.as_ref()?.arena?.range()))
    }

    /// Its gate byte, if it has several sites.
    #[must_use]
    pub fn gate(&self) -> Option<Avma> {
        Some(Avma(self.record()?.group?.gate.0))
    }

    /// All its mappings but the arena.
    pub fn ranges(&self) -> impl Iterator<Item = AvmaRange> {
        self.regions
            .iter()
            .flat_map(|region| region.ranges.iter().copied())
    }

    /// Is it the same one, looked at another time?
    pub(super) fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.ranges().eq(other.ranges())
    }
}

/// Everything of ours in one process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Patches and rests of patches, in the order of their first sites' images.
    pub found: Vec<Found>,
    /// Arenas that no record names.
    pub orphans: Vec<AvmaRange>,
    /// Descriptors of ours that have no business in the process any more: memory files, sockets, arenas, links without patch.
    pub descriptors: Vec<i32>,
    /// Descriptors that keep kernel programs of the patches found attached.
    pub links: Vec<Link>,
    /// Code by which a killed `upatch` made system calls in the process, in the unused end of a page. It harms nobody.
    pub stubs: Vec<Avma>,
}

impl Inventory {
    /// Is there something that belongs to no patch?
    #[must_use]
    pub fn has_strays(&self) -> bool {
        !(self.orphans.is_empty() && self.descriptors.is_empty() && self.stubs.is_empty())
    }
}

/// A descriptor in the process by which a kernel program stays attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in the process.
    pub fd: i32,
    /// The patch that it belongs to, by the program's name.
    pub id: String,
    /// The kernel's number of the link.
    pub link: u32,
    /// The kernel's number of the program.
    pub program: u32,
}

/// Looks for everything of ours in the process. Stops nothing.
///
/// # Errors
/// The process is gone or can't be read, or maps more that looks like ours than `upatch` ever makes.
pub fn inspect(process: &Process) -> Result<Inventory, ProcessError> {
    let maps = process.maps()?;
    let mut files: BTreeMap<(u32, u32, u64), Vec<&Mapping>> = BTreeMap::new();
    let mut arenas: Vec<AvmaRange> = Vec::new();
    for mapping in &maps {
        if name_after(mapping, IMAGE_PREFIX).is_some_and(is_id) {
            files
                .entry((mapping.dev.0, mapping.dev.1, mapping.inode))
                .or_default()
                .push(mapping);
        } else if name_after(mapping, ARENA_PREFIX).is_some() {
            arenas.push(mapping.range);
        }
    }
    if files.len() > MOST_REGIONS || arenas.len() > MOST_REGIONS {
        return Err(ProcessError::TooMany {
            pid: process.pid(),
            most: MOST_REGIONS,
        });
    }
    arenas.extend(kernel_arenas(&maps));
    let mut room = MOST_RECORDS;
    let looked_at = files
        .values()
        .map(|parts| examine(process.memory(), &maps, parts, &mut room))
        .collect();
    let mut found = group::gather(process.memory(), looked_at);
    found.sort_by_key(|found| found.ranges().next().map(|range| range.start));
    let named: Vec<AvmaRange> = found.iter().filter_map(Found::arena).collect();
    arenas.retain(|arena| !named.iter().any(|named| named.overlaps(arena)));
    let fds = process.numbers_in("fd")?;
    let (mut descriptors, mut links) = our_descriptors(process, fds)?;
    let in_use = |link: &Link| {
        found.iter().any(|found| {
            let live = match found.state {
                FoundState::Applied
                | FoundState::Interrupted
                | FoundState::Contested { .. }
                | FoundState::Damaged(_) => true,
                FoundState::Leftover | FoundState::Retired | FoundState::Incomplete => false,
            };
            live && found.id == link.id
        })
    };
    descriptors.extend(
        links
            .extract_if(.., |link| !in_use(link))
            .map(|link| link.fd),
    );
    Ok(Inventory {
        found,
        orphans: arenas,
        descriptors,
        links,
        stubs: stub::inherited_in(process.memory(), &maps),
    })
}

/// Is this the id of a patch? The process may call its memory files whatever it likes.
fn is_id(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Mapped arenas of the kernel's that were made for patches; none where we may not ask the kernel.
fn kernel_arenas(maps: &Maps) -> Vec<AvmaRange> {
    let mapped: Vec<AvmaRange> = maps
        .iter()
        .filter(|mapping| is_kernel_arena(mapping))
        .map(|mapping| mapping.range)
        .collect();
    if mapped.is_empty() {
        return mapped;
    }
    let ours = kernel::arenas().unwrap_or_default();
    mapped
        .into_iter()
        .filter(|range| ours.contains(range))
        .collect()
}

fn is_kernel_arena(mapping: &Mapping) -> bool {
    let path = mapping.path().and_then(std::path::Path::to_str);
    path == Some("anon_inode:bpf-map") && mapping.perms.shared
}

/// Which of these descriptors are ours: what is only passed through (memory files, arenas, and the sockets for it), and links.
pub(super) fn our_descriptors(
    process: &Process,
    fds: Vec<i32>,
) -> Result<(Vec<i32>, Vec<Link>), ProcessError> {
    let sockets = passing::sockets(process)?;
    let mut links = Vec::new();
    let mut is_ours = |fd: &i32| {
        // Closed meanwhile, perhaps.
        let link = process.read_link(&format!("fd/{fd}")).unwrap_or_default();
        let link = link.to_str().unwrap_or_default();
        match kernel::held(process, *fd, link) {
            Some(kernel::Held::Arena) => return true,
            Some(kernel::Held::Link { id, link, program }) => {
                links.push(Link {
                    fd: *fd,
                    id,
                    link,
                    program,
                });
                return false;
            }
            None => {}
        }
        let file = link.starts_with(IMAGE_PREFIX) || link.starts_with(ARENA_PREFIX);
        let socket = link
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']')?.parse().ok())
            .is_some_and(|inode| sockets.contains(&inode));
        (file && link.ends_with(" (deleted)")) || socket
    };
    let passing = fds.into_iter().filter(|fd| is_ours(fd)).collect();
    Ok((passing, links))
}

fn name_after<'m>(mapping: &'m Mapping, prefix: &str) -> Option<&'m str> {
    mapping
        .path()
        .filter(|_| mapping.is_deleted())?
        .to_str()?
        .strip_prefix(prefix)
}

/// A region, and what its record's header says.
pub(super) struct Examined {
    pub(super) id: String,
    pub(super) region: Region,
    /// `None`: no record was written. An error: it can't be believed.
    pub(super) says: Result<Option<RecordState>, String>,
}

fn examine(memory: &Memory, maps: &Maps, parts: &[&Mapping], room: &mut usize) -> Examined {
    let id = parts
        .first()
        .and_then(|part| name_after(part, IMAGE_PREFIX))
        .unwrap_or_default()
        .to_owned();
    let code = parts
        .iter()
        .find(|part| part.perms.exec)
        .map(|part| part.range);
    let record_at = parts
        .iter()
        .find(|part| !part.perms.exec && !part.perms.write)
        .map(|part| part.range);
    let mut region = Region {
        inode: parts.first().map_or(0, |part| part.inode),
        ranges: parts.iter().map(|part| part.range).collect(),
        code,
        record_at,
        record: None,
        site: SiteBytes::Unknown,
    };
    let says = match record_at.map(|range| read_record(memory, range, room)) {
        None | Some(Err(RecordError::Absent)) => Ok(None),
        Some(Err(error @ (RecordError::Damaged(_) | RecordError::Version(_)))) => {
            Err(error.to_string())
        }
        Some(Ok((record, state))) => match validate(maps, parts, &record) {
            Err(why) => Err(why.to_owned()),
            Ok(plan) => {
                region.site = bytes_at_site(memory, maps, &plan);
                region.record = Some(record);
                Ok(Some(state))
            }
        },
    };
    Examined { id, region, says }
}

fn read_record(
    memory: &Memory,
    range: AvmaRange,
    room: &mut usize,
) -> Result<(Record, RecordState), RecordError> {
    let unreadable = |_| RecordError::Damaged("it can't be read");
    let mut header = [0; HEADER_LEN];
    memory.read(range.start, &mut header).map_err(unreadable)?;
    let len = HEADER_LEN + Record::announced_len(&header)?;
    if len as u64 > range.len() {
        return Err(RecordError::Damaged("it is longer than its mapping"));
    }
    *room = room.checked_sub(len).ok_or(RecordError::Damaged(
        "all records together are longer than upatch reads",
    ))?;
    Record::decode(&memory.read_vec(range.start, len).map_err(unreadable)?)
}

fn bytes_at_site(memory: &Memory, maps: &Maps, plan: &PokePlan) -> SiteBytes {
    if maps.find(plan.at).is_none() {
        return SiteBytes::Gone;
    }
    let mut found = vec![0; plan.new.len()];
    let len = memory.read_some(plan.at, &mut found);
    found.truncate(len);
    if found == plan.new {
        SiteBytes::Jump
    } else if found == plan.old {
        SiteBytes::Original
    } else {
        SiteBytes::Other(found)
    }
}

/// Does what the record says agree with the memory map and with itself?
fn validate(maps: &Maps, parts: &[&Mapping], record: &Record) -> Result<PokePlan, &'static str> {
    let own = |range: AvmaRange, exec: bool, write: bool| {
        let fits = |part: &&&Mapping| {
            part.range == range
                && part.perms.exec == exec
                && part.perms.write == write
                && !part.perms.shared
        };
        parts.iter().any(|part| fits(&part))
    };
    let plan = record.plan().ok_or("its bytes are not hex digits")?;
    let code = record.code.range();
    if !own(code, true, false) {
        return Err("its code isn't where it says");
    }
    if record
        .data
        .is_some_and(|data| !own(data.range(), false, true))
    {
        return Err("its data isn't where it says");
    }
    let inside = |inner: AvmaRange, outer: AvmaRange| {
        !inner.is_empty() && outer.start <= inner.start && inner.end <= outer.end
    };
    if !inside(plan.image, code) {
        return Err("its image lies outside its code");
    }
    if let Some(arena) = record.arena {
        let mapping = maps.find(arena.range().start);
        let fits = |mapping: &&Mapping| match record.backend {
            Backend::Memfd => {
                name_after(mapping, ARENA_PREFIX).is_some()
                    && inside(arena.range(), mapping.range)
                    && mapping.perms.shared
            }
            Backend::Kernel => is_kernel_arena(mapping) && arena.range() == mapping.range,
        };
        mapping
            .filter(fits)
            .ok_or("its arena isn't where it says")?;
    }
    check_plan(&plan)?;
    Ok(plan)
}

/// A poke of ours is one `jmp rel32` to the image's first byte, within one page.
fn check_plan(plan: &PokePlan) -> Result<(), &'static str> {
    let &[0xe9, a, b, c, d] = plan.new.as_slice() else {
        return Err("its jump is no jump");
    };
    let target = plan
        .at
        .plus(5)
        .plus(i64::from(i32::from_le_bytes([a, b, c, d])).cast_unsigned());
    if target != plan.image.start {
        return Err("its jump doesn't lead to its image");
    }
    if plan.old.len() != plan.new.len() || plan.at.0 % 4096 > 4096 - 5 {
        return Err("its poke has an impossible size");
    }
    let displaced = plan.displaced;
    if displaced.start != plan.at || displaced.len() < 5 || displaced.len() > 64 {
        return Err("its displaced instructions are impossible");
    }
    let resume = |at: Avma| displaced.contains(at) || at == displaced.end;
    if !plan
        .ips
        .pairs()
        .iter()
        .all(|&(from, to)| resume(from) && plan.image.contains(to))
    {
        return Err("its instruction map leads elsewhere");
    }
    Ok(())
}
