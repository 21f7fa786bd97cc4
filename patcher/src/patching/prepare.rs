//! Everything that can be done before the world stops: addresses, mappings, code, arena, record.
//!
//! Decides where things go; what the image contains is the caller's `build`. Afterwards the target holds pages that
//! nothing refers to: dropping a [`Prepared`] leaves them to be found and removed, the target never notices.

use std::time::{SystemTime, UNIX_EPOCH};

use upatch_trampolines::{Avma, AvmaRange, CheckedImage, PokePlan};

use super::apply::PokeFigures;
use super::arena::Arena;
use super::clean::{self, Rubbish};
use super::gap::{self, PAGE};
use super::record::{HEADER_LEN, Hex, Membership, Record, RecordState, Span, to_hex};
use super::region::{self, Found, FoundState, Inventory, Region, inspect};
use super::request::{BuildError, Placement, PrepareError, Request, SiteRequest};
use crate::process::failpoint::{FailPoint, reach};
use crate::process::handle::ProcessLock;
use crate::process::maps::Maps;
use crate::process::remote::{Protection, RemoteFd, Sharing};
use crate::process::status::file_size_limit;
use crate::process::{
    HeldThread, HoldError, MemoryError, Process, RemoteError, StopFigures, Tracer,
};

/// An image that lies in the target, and that nothing refers to yet.
///
/// Holding a `Prepared` tells you: its pages are mapped as they will stay (code never writable, data never executable),
/// written and read back; its arena is populated; its record is there; nobody else changes the process meanwhile.
#[derive(Debug)]
#[must_use]
pub struct Prepared<'p> {
    pub(super) process: &'p Process,
    /// Per site, the leader first.
    pub(super) sites: Vec<(PokePlan, Record)>,
    /// The gate byte, if there are several sites; closed.
    pub(super) gate: Option<Avma>,
    /// A retired patch that was taken up again.
    pub(super) reused: Option<Found>,
    pub(super) leftovers: Rubbish,
    /// If everybody had to be stopped already.
    pub(super) figures: PokeFigures,
    pub(super) _lock: ProcessLock<'p>,
}

impl Prepared<'_> {
    /// What will be poked.
    pub fn plans(&self) -> impl Iterator<Item = &PokePlan> {
        self.sites.iter().map(|(plan, _)| plan)
    }

    /// The records, one for each site.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.sites.iter().map(|(_, record)| record)
    }

    /// Takes everything out of the target again.
    ///
    /// # Errors
    /// No thread could be borrowed; then it stays to be found.
    pub fn discard(self) -> Result<(), RemoteError> {
        if let Some(found) = &self.reused {
            return Ok(clean::retire(self.process, found).map_err(HoldError::from)?);
        }
        let found = inspect(self.process).map_err(HoldError::from)?.found;
        let codes: Vec<AvmaRange> = self.records().map(|record| record.code.range()).collect();
        let own = |found: &Found| {
            let mut regions = found.regions.iter();
            regions.any(|region| region.code.is_some_and(|code| codes.contains(&code)))
        };
        let regions = found.into_iter().filter(own).collect();
        clean::clean(
            self.process,
            &Rubbish {
                regions,
                ..Rubbish::default()
            },
        )
        .map(drop)
    }
}

/// Maps and writes everything that a patch needs in the target, with one thread borrowed for a moment.
///
/// # Errors
/// See [`PrepareError`].
pub fn prepare<'p>(
    process: &'p Process,
    request: &Request<'_>,
) -> Result<Prepared<'p>, PrepareError> {
    let lock = process.lock()?;
    let inventory = inspect(process)?;
    for site in &request.sites {
        refuse_if_patched(&inventory, site.site)?;
    }
    let leftovers = Rubbish::candidates(&inventory);
    if let Some((sites, found)) = take_up_retired(process, request, &inventory)? {
        return Ok(Prepared {
            process,
            sites,
            gate: found.gate(),
            reused: Some(found),
            leftovers,
            figures: PokeFigures::default(),
            _lock: lock,
        });
    }
    check_sizes(process, request)?;
    for _ in 0..16 {
        let Some(placed) = place(&process.maps()?, request)? else {
            continue;
        };
        let records: Vec<&Record> = placed.iter().map(|(_, record)| record).collect();
        // Descriptors of a killed predecessor are closed by the way; its regions wait for a survey.
        let stray = Rubbish {
            descriptors: leftovers.descriptors.clone(),
            ..Rubbish::default()
        };
        let mut figures = PokeFigures::default();
        match map_all(process, &request.id, request.arena, &records, &stray) {
            // Somebody was faster, with one of the two addresses.
            Err(error) if error.errno() == Some(libc::EEXIST) => continue,
            result => result?.iter().for_each(|stop| figures.add_stop(stop)),
        }
        for (image, record) in &placed {
            write_image(process, image, record)?;
        }
        let gate = records.first().and_then(|record| record.group);
        let sites = placed.into_iter();
        return Ok(Prepared {
            process,
            gate: gate.map(|group| Avma(group.gate.0)),
            sites: sites
                .map(|(image, record)| (image.poke_plan(), record))
                .collect(),
            reused: None,
            leftovers,
            figures,
            _lock: lock,
        });
    }
    let first = request.sites.first();
    Err(PrepareError::NoGap {
        site: first.map_or(Avma(0), |site| site.site),
        len: first.map_or(0, |site| site.max_len),
    })
}

fn refuse_if_patched(inventory: &Inventory, site: Avma) -> Result<(), PrepareError> {
    let at_site = |found: &&Found| match found.state {
        FoundState::Applied | FoundState::Interrupted | FoundState::Contested { .. } => found
            .plans()
            .any(|plan| plan.displaced.contains(site) || plan.at == site),
        FoundState::Leftover
        | FoundState::Retired
        | FoundState::Incomplete
        | FoundState::Damaged(_) => false,
    };
    match inventory.found.iter().find(at_site) {
        Some(found) => Err(PrepareError::AlreadyPatched {
            id: found.id.clone(),
            site,
        }),
        None => Ok(()),
    }
}

fn check_sizes(process: &Process, request: &Request<'_>) -> Result<(), PrepareError> {
    let lens = request.sites.iter();
    let longest = lens.map(|site| site.max_len + site.private_len).max();
    let image_len = longest.unwrap_or(0) + (1 << 20);
    match file_size_limit(&process.read_text("limits")?) {
        Some(limit) if limit < image_len => Err(PrepareError::FileSizeLimit {
            limit,
            len: image_len,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Chooses addresses and builds the images for them. `None`: try again with a fresh map.
fn place(
    maps: &Maps,
    request: &Request<'_>,
) -> Result<Option<Vec<(CheckedImage, Record)>>, PrepareError> {
    let arena = match request.arena {
        None => AvmaRange::new(Avma(0), 0),
        Some(arena) => {
            let at = arena
                .at()
                .or_else(|| gap::aligned(maps, arena.len()).first().copied());
            let range = at
                .map(|at| AvmaRange::new(at, arena.len()))
                .filter(|range| maps.overlapping(*range).next().is_none());
            range.ok_or(PrepareError::NoArenaGap {
                len: arena.len(),
                at: arena.at(),
            })?
        }
    };
    let mut taken: Vec<AvmaRange> = Vec::new();
    taken.extend((!arena.is_empty()).then_some(arena));
    let mut placed: Vec<(CheckedImage, Record)> = Vec::new();
    for index in 0..request.sites.len() {
        let leader = placed.first().and_then(|(_, record)| record.group);
        let free = maps.with(taken.iter().copied());
        let Some((image, record)) = place_site(&free, request, index, leader, arena)? else {
            return Ok(None);
        };
        taken.push(AvmaRange {
            start: record.code.range().start,
            end: record_range(&record).end,
        });
        placed.push((image, record));
    }
    Ok(Some(placed))
}

/// The same for one site; `leader` is what the first site's record says of the group.
fn place_site(
    maps: &Maps,
    request: &Request<'_>,
    index: usize,
    leader: Option<Membership>,
    arena: AvmaRange,
) -> Result<Option<(CheckedImage, Record)>, PrepareError> {
    let Some(site) = request.sites.get(index) else {
        return Ok(None);
    };
    let code_len = gap::pages(site.max_len.max(1));
    let data_len = gap::pages(site.private_len);
    // The record's length is known when the image is: most of it is the caller's information.
    let record_room = gap::pages(HEADER_LEN as u64 + 4096 + 2 * site.info.to_string().len() as u64);
    let mut elsewhere = None;
    for at in gap::near(maps, site.site, code_len + data_len + record_room) {
        let private = AvmaRange::new(at.plus(code_len), site.private_len);
        let group = membership(request, index, leader, at, private);
        match (site.build)(&Placement {
            image: at,
            arena,
            private,
            gate: group.map(|group| Avma(group.gate.0)),
        }) {
            Ok(image) => {
                check_image(site, &image, at)?;
                let lens = (code_len, data_len);
                let record = record_of(request, site, &image, lens, arena, group);
                return Ok(
                    (record.encode(RecordState::Placed).len() as u64 <= record_room)
                        .then_some((image, record)),
                );
            }
            Err(error @ BuildError::Elsewhere(_)) => elsewhere = Some(error),
            Err(error @ BuildError::Never(_)) => return Err(PrepareError::Build(error)),
        }
    }
    Err(match elsewhere {
        Some(error) => PrepareError::Build(error),
        None => PrepareError::NoGap {
            site: site.site,
            len: site.max_len,
        },
    })
}

/// What the record of a site with its image at `at` says of the others; `None` if there are none.
fn membership(
    request: &Request<'_>,
    index: usize,
    leader: Option<Membership>,
    at: Avma,
    private: AvmaRange,
) -> Option<Membership> {
    let count = u32::try_from(request.sites.len()).unwrap_or(u32::MAX);
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    (count > 1).then(|| Membership {
        index,
        count,
        leader: leader.map_or(Hex(at.0), |leader| leader.leader),
        gate: leader.map_or(Hex(private.start.plus(request.gate).0), |leader| {
            leader.gate
        }),
    })
}

fn check_image(site: &SiteRequest<'_>, image: &CheckedImage, at: Avma) -> Result<(), PrepareError> {
    let plan = image.poke_plan();
    if plan.at != site.site {
        return Err(PrepareError::Mismatch("its poke is elsewhere"));
    }
    if plan.image.start != at || plan.image.len() > site.max_len {
        return Err(PrepareError::Mismatch("it lies elsewhere or is longer"));
    }
    Ok(())
}

fn record_of(
    request: &Request<'_>,
    site: &SiteRequest<'_>,
    image: &CheckedImage,
    (code_len, data_len): (u64, u64),
    arena: AvmaRange,
    group: Option<Membership>,
) -> Record {
    // One site owns it.
    let arena =
        Some(arena).filter(|arena| !arena.is_empty() && group.is_none_or(|group| group.index == 0));
    let plan = image.poke_plan();
    let code = AvmaRange::new(plan.image.start, code_len);
    let data = AvmaRange::new(code.end, data_len);
    Record {
        id: request.id.clone(),
        site: Hex(plan.at.0),
        old: to_hex(&plan.old),
        new: to_hex(&plan.new),
        displaced: plan.displaced.into(),
        ips: plan
            .ips
            .pairs()
            .iter()
            .map(|(from, to)| (Hex(from.0), Hex(to.0)))
            .collect(),
        image: plan.image.into(),
        code: code.into(),
        data: (!data.is_empty()).then(|| data.into()),
        arena: arena.map(Span::from),
        backend: request.arena.map(Arena::backend).unwrap_or_default(),
        group,
        calls_application: image.image().calls_application(),
        placed_at: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        info: site.info.clone(),
    }
}

/// Where the record of a region lies: behind code and data.
fn record_range(record: &Record) -> AvmaRange {
    let before = record.data.unwrap_or(record.code).range();
    AvmaRange::new(
        before.end,
        gap::pages(record.encode(RecordState::Placed).len() as u64),
    )
}

fn map_all(
    process: &Process,
    id: &str,
    arena: Option<&Arena>,
    records: &[&Record],
    stray: &Rubbish,
) -> Result<Option<StopFigures>, RemoteError> {
    Tracer::session(|tracer| {
        let mut held = HeldThread::hold(tracer, process)?;
        clean::clean_with(&mut held, stray)?;
        let range = records.iter().find_map(|record| record.arena);
        let arena = arena.zip(range.map(Span::range));
        if let Some((arena, range)) = arena {
            arena.map_into(&mut held, range)?;
        }
        let arena = arena.map(|(_, range)| range);
        let mut mapped = Vec::new();
        for record in records {
            if let Err(error) = map_image(&mut held, id, record, &mut mapped) {
                for range in mapped.into_iter().chain(arena) {
                    held.unmap(range)?;
                }
                return Err(error);
            }
        }
        Ok(held.release()?)
    })
}

fn map_image(
    held: &mut HeldThread<'_>,
    id: &str,
    record: &Record,
    mapped: &mut Vec<AvmaRange>,
) -> Result<(), RemoteError> {
    let fd = held.memfd_create(&region::image_name(id))?;
    reach(FailPoint::FileCreated);
    let result = map_image_from(held, fd, record, mapped);
    reach(FailPoint::Mapped);
    held.close(fd)?;
    result
}

fn map_image_from(
    held: &mut HeldThread<'_>,
    fd: RemoteFd,
    record: &Record,
    mapped: &mut Vec<AvmaRange>,
) -> Result<(), RemoteError> {
    let code = record.code.range();
    let own = record_range(record);
    held.ftruncate(fd, own.end.0 - code.start.0)?;
    held.seal_size(fd)?;
    let data = record.data.map(|data| (data.range(), Protection::Data));
    let parts = [
        Some((code, Protection::Code)),
        data,
        Some((own, Protection::ReadOnly)),
    ];
    for (range, protection) in parts.into_iter().flatten() {
        held.map(
            range,
            protection,
            Sharing::Private,
            fd,
            range.start.0 - code.start.0,
        )?;
        mapped.push(range);
    }
    Ok(())
}

fn write_image(
    process: &Process,
    image: &CheckedImage,
    record: &Record,
) -> Result<(), PrepareError> {
    let memory = process.memory();
    let bytes = image.image().bytes();
    memory.write(record.code.range().start, bytes)?;
    if let Some(data) = record.data {
        // Touched, so that nothing is paged in by the first call.
        for page in (0..data.len.0).step_by(PAGE as usize) {
            memory.write(data.range().start.plus(page), &[0])?;
        }
    }
    if memory.read_vec(record.code.range().start, bytes.len())? != bytes {
        return Err(PrepareError::Mismatch("its code did not arrive"));
    }
    reach(FailPoint::CodeWritten);
    write_record(process, record, record_range(record).start)?;
    reach(FailPoint::Prepared);
    Ok(())
}

/// The header last: without it there is no record.
fn write_record(process: &Process, record: &Record, at: Avma) -> Result<(), MemoryError> {
    let bytes = record.encode(RecordState::Placed);
    process.memory().write(at, &[0; HEADER_LEN])?;
    process
        .memory()
        .write(at.plus(HEADER_LEN as u64), &bytes[HEADER_LEN..])?;
    process.memory().write(at, &bytes[..HEADER_LEN])
}

/// A retired patch serves again if the new images are the old ones, byte for byte at the same addresses: whoever still
/// returns into them finds what was there.
fn take_up_retired(
    process: &Process,
    request: &Request<'_>,
    inventory: &Inventory,
) -> Result<Option<(Vec<(PokePlan, Record)>, Found)>, PrepareError> {
    for found in inventory
        .found
        .iter()
        .filter(|found| found.state == FoundState::Retired)
    {
        let arena_len = request.arena.map_or(0, Arena::len);
        let arena = found.arena().unwrap_or(AvmaRange::new(Avma(0), 0));
        let fits = found.id == request.id
            && found.regions.len() == request.sites.len()
            && arena.len() == arena_len
            && request.arena.is_none_or(|wanted| {
                let backend = found.record().map(|record| record.backend);
                backend == Some(wanted.backend()) && wanted.at().is_none_or(|at| at == arena.start)
            });
        if !fits {
            continue;
        }
        let mut sites = Vec::new();
        for (index, region) in found.regions.iter().enumerate() {
            sites.extend(same_again(process, request, index, region, arena)?);
        }
        if sites.len() != request.sites.len() {
            continue;
        }
        if let Some(gate) = found.gate() {
            process.memory().write(gate, &[0])?;
        }
        if let Some(wanted) = request.arena {
            wanted.replace_in(process, arena)?;
        }
        // Only the state word: rewriting a whole record would leave a moment without one, in which a killed upatch made the
        // retired image look like rubbish.
        clean::mark(process, found, RecordState::Placed)?;
        reach(FailPoint::Prepared);
        return Ok(Some((sites, found.clone())));
    }
    Ok(None)
}

/// One site of a retired patch, if it would come out just the same.
fn same_again(
    process: &Process,
    request: &Request<'_>,
    index: usize,
    region: &Region,
    arena: AvmaRange,
) -> Result<Option<(PokePlan, Record)>, PrepareError> {
    let (Some(old), Some(site)) = (&region.record, request.sites.get(index)) else {
        return Ok(None);
    };
    let code = old.code.range();
    let data_len = gap::pages(site.private_len);
    let fits = old.site.0 == site.site.0
        && code.len() == gap::pages(site.max_len.max(1))
        && old.data.map_or(0, |data| data.len.0) == data_len
        && old.group.is_some() == (request.sites.len() > 1);
    if !fits {
        return Ok(None);
    }
    let Ok(image) = (site.build)(&Placement {
        image: code.start,
        arena,
        private: AvmaRange::new(code.end, site.private_len),
        gate: old.group.map(|group| Avma(group.gate.0)),
    }) else {
        return Ok(None);
    };
    let bytes = image.image().bytes();
    let same = check_image(site, &image, code.start).is_ok()
        && process.memory().read_vec(code.start, bytes.len())? == bytes;
    let record = record_of(
        request,
        site,
        &image,
        (code.len(), data_len),
        arena,
        old.group,
    );
    let agrees = record.site == old.site && record.new == old.new && record.old == old.old;
    Ok((same && agrees).then(|| (image.poke_plan(), old.clone())))
}
