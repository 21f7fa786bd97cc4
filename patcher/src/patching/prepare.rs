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
use super::record::{HEADER_LEN, Hex, Record, RecordState, STATE_OFFSET, Span, to_hex};
use super::region::{self, Found, FoundState, Inventory, inspect};
use super::request::{BuildError, Placement, PrepareError, Request};
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
    pub(super) plan: PokePlan,
    pub(super) record: Record,
    /// A retired region that was taken up again.
    pub(super) reused: Option<Found>,
    pub(super) leftovers: Rubbish,
    /// If everybody had to be stopped already.
    pub(super) figures: PokeFigures,
    pub(super) _lock: ProcessLock<'p>,
}

impl Prepared<'_> {
    /// What will be poked.
    #[must_use]
    pub fn plan(&self) -> &PokePlan {
        &self.plan
    }

    /// Its record.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
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
        let own = |found: &Found| found.code == Some(self.record.code.range());
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
    refuse_if_patched(&inventory, request.site)?;
    let leftovers = Rubbish::candidates(&inventory);
    if let Some((plan, record, found)) = take_up_retired(process, request, &inventory)? {
        return Ok(Prepared {
            process,
            plan,
            record,
            reused: Some(found),
            leftovers,
            figures: PokeFigures::default(),
            _lock: lock,
        });
    }
    check_sizes(process, request)?;
    for _ in 0..16 {
        let Some((image, record)) = place(&process.maps()?, request)? else {
            continue;
        };
        // Descriptors of a killed predecessor are closed by the way; its regions wait for a survey.
        let stray = Rubbish {
            descriptors: leftovers.descriptors.clone(),
            ..Rubbish::default()
        };
        let mut figures = PokeFigures::default();
        match map_all(process, &request.id, request.arena, &record, &stray) {
            // Somebody was faster, with one of the two addresses.
            Err(error) if error.errno() == Some(libc::EEXIST) => continue,
            result => result?.iter().for_each(|stop| figures.add_stop(stop)),
        }
        write_image(process, &image, &record)?;
        let plan = image.poke_plan();
        return Ok(Prepared {
            process,
            plan,
            record,
            reused: None,
            leftovers,
            figures,
            _lock: lock,
        });
    }
    Err(PrepareError::NoGap {
        site: request.site,
        len: request.max_len,
    })
}

fn refuse_if_patched(inventory: &Inventory, site: Avma) -> Result<(), PrepareError> {
    let at_site = |found: &&Found| match found.state {
        FoundState::Applied | FoundState::Contested { .. } => found
            .plan()
            .is_some_and(|plan| plan.displaced.contains(site) || plan.at == site),
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
    let image_len = request.max_len + request.private_len + (1 << 20);
    match file_size_limit(&process.read_text("limits")?) {
        Some(limit) if limit < image_len => Err(PrepareError::FileSizeLimit {
            limit,
            len: image_len,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Chooses addresses and builds the image for them. `None`: try again with a fresh map.
fn place(
    maps: &Maps,
    request: &Request<'_>,
) -> Result<Option<(CheckedImage, Record)>, PrepareError> {
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
    let code_len = gap::pages(request.max_len.max(1));
    let data_len = gap::pages(request.private_len);
    // The record's length is known when the image is: most of it is the caller's information.
    let record_room =
        gap::pages(HEADER_LEN as u64 + 4096 + 2 * request.info.to_string().len() as u64);
    let mut elsewhere = None;
    for at in gap::near(maps, request.site, code_len + data_len + record_room) {
        let private = AvmaRange::new(at.plus(code_len), request.private_len);
        match (request.build)(&Placement {
            image: at,
            arena,
            private,
        }) {
            Ok(image) => {
                check_image(request, &image, at)?;
                let record = record_of(request, &image, code_len, data_len, arena);
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
            site: request.site,
            len: request.max_len,
        },
    })
}

fn check_image(request: &Request<'_>, image: &CheckedImage, at: Avma) -> Result<(), PrepareError> {
    let plan = image.poke_plan();
    if plan.at != request.site {
        return Err(PrepareError::Mismatch("its poke is elsewhere"));
    }
    if plan.image.start != at || plan.image.len() > request.max_len {
        return Err(PrepareError::Mismatch("it lies elsewhere or is longer"));
    }
    Ok(())
}

fn record_of(
    request: &Request<'_>,
    image: &CheckedImage,
    code_len: u64,
    data_len: u64,
    arena: AvmaRange,
) -> Record {
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
        arena: (!arena.is_empty()).then(|| arena.into()),
        backend: request.arena.map(Arena::backend).unwrap_or_default(),
        calls_application: image.image().calls_application(),
        placed_at: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        info: request.info.clone(),
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
    record: &Record,
    stray: &Rubbish,
) -> Result<Option<StopFigures>, RemoteError> {
    Tracer::session(|tracer| {
        let mut held = HeldThread::hold(tracer, process)?;
        clean::clean_with(&mut held, stray)?;
        let arena = arena.zip(record.arena.map(Span::range));
        if let Some((arena, range)) = arena {
            arena.map_into(&mut held, range)?;
        }
        if let Err(error) = map_image(&mut held, id, record) {
            if let Some((_, range)) = arena {
                held.unmap(range)?;
            }
            return Err(error);
        }
        Ok(held.release()?)
    })
}

fn map_image(held: &mut HeldThread<'_>, id: &str, record: &Record) -> Result<(), RemoteError> {
    let fd = held.memfd_create(&region::image_name(id))?;
    reach(FailPoint::FileCreated);
    let mut mapped = Vec::new();
    let result = map_image_from(held, fd, record, &mut mapped);
    if result.is_err() {
        for range in mapped {
            held.unmap(range)?;
        }
    }
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

/// A retired region serves again if the new image is the old one, byte for byte at the same address: whoever still
/// returns into it finds what was there.
fn take_up_retired(
    process: &Process,
    request: &Request<'_>,
    inventory: &Inventory,
) -> Result<Option<(PokePlan, Record, Found)>, PrepareError> {
    for found in inventory
        .found
        .iter()
        .filter(|found| found.state == FoundState::Retired)
    {
        let (Some(old), Some(room)) = (&found.record, found.record_at) else {
            continue;
        };
        let code = old.code.range();
        let arena_len = request.arena.map_or(0, Arena::len);
        let data_len = gap::pages(request.private_len);
        let arena = found.arena().unwrap_or(AvmaRange::new(Avma(0), 0));
        let fits = old.id == request.id
            && old.site.0 == request.site.0
            && code.len() == gap::pages(request.max_len.max(1))
            && arena.len() == arena_len
            && request.arena.is_none_or(|wanted| {
                wanted.backend() == old.backend && wanted.at().is_none_or(|at| at == arena.start)
            })
            && old.data.map_or(0, |data| data.len.0) == data_len;
        if !fits {
            continue;
        }
        let private = AvmaRange::new(code.end, request.private_len);
        let Ok(image) = (request.build)(&Placement {
            image: code.start,
            arena,
            private,
        }) else {
            continue;
        };
        let same = check_image(request, &image, code.start).is_ok()
            && process
                .memory()
                .read_vec(code.start, image.image().bytes().len())?
                == image.image().bytes();
        let record = record_of(request, &image, code.len(), data_len, arena);
        let agrees = record.site == old.site && record.new == old.new && record.old == old.old;
        if !same || !agrees {
            continue;
        }
        if let Some(wanted) = request.arena {
            wanted.replace_in(process, arena)?;
        }
        // Only the state word: rewriting the whole record would leave a moment without one, in which a killed upatch made the
        // retired image look like rubbish.
        let word = RecordState::Placed.word().to_le_bytes();
        process
            .memory()
            .write(room.start.plus(STATE_OFFSET), &word)?;
        reach(FailPoint::Prepared);
        return Ok(Some((image.poke_plan(), old.clone(), found.clone())));
    }
    Ok(None)
}
