//! Everything that can be done before the world stops: addresses, mappings, code, arena, record.
//!
//! Decides where things go; what the image contains is the caller's `build`. Afterwards the target holds pages that
//! nothing refers to: dropping a [`Prepared`] leaves them to be found and removed, the target never notices.

use std::os::fd::BorrowedFd;

use upatch_trampolines::{Avma, AvmaRange, CheckedImage, PokePlan};

use super::apply::PokeFigures;
use super::arena::Arena;
use super::clean::{self, Rubbish};
use super::gap::PAGE;
use super::place::{place, record_range};
use super::record::{HEADER_LEN, LONGEST, Record, RecordState, Span};
use super::region::{self, Found, FoundState, Inventory, inspect};
use super::request::{PrepareError, Request};
use super::take_up::take_up_retired;
use crate::process::failpoint::{FailPoint, reach};
use crate::process::handle::ProcessLock;
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
            clean::retire(self.process, found).map_err(HoldError::from)?;
        }
        let inventory = inspect(self.process).map_err(HoldError::from)?;
        let codes: Vec<AvmaRange> = self.records().map(|record| record.code.range()).collect();
        let own = |found: &Found| {
            let mut regions = found.regions.iter();
            regions.any(|region| region.code.is_some_and(|code| codes.contains(&code)))
        };
        let mut regions: Vec<Found> = inventory.found.into_iter().filter(own).collect();
        if self.reused.is_some() {
            regions.clear();
        }
        clean::clean(
            self.process,
            &Rubbish {
                regions,
                // Among them the links of its kernel programs: nothing is live that they could belong to.
                descriptors: inventory.descriptors,
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
        let shared = (request.arena, request.links);
        match map_all(process, &request.id, shared, &records, &stray) {
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

/// Most bytes of a record's text beside the caller's information.
const RECORD_OWN: usize = 16 << 10;

fn check_sizes(process: &Process, request: &Request<'_>) -> Result<(), PrepareError> {
    let records = request.sites.iter();
    let record = records.map(|site| site.info.to_string().len()).max();
    let record = record.unwrap_or(0) + RECORD_OWN;
    if record > LONGEST {
        return Err(PrepareError::RecordTooLong { len: record });
    }
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

fn map_all(
    process: &Process,
    id: &str,
    (arena, links): (Option<&Arena>, &[BorrowedFd<'_>]),
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
        let (mut mapped, mut passed) = (Vec::new(), Vec::new());
        let parts = map_parts(&mut held, id, records, links, &mut mapped, &mut passed);
        if let Err(error) = parts {
            for fd in passed {
                held.close(fd)?;
            }
            for range in mapped.into_iter().chain(arena) {
                held.unmap(range)?;
            }
            return Err(error);
        }
        Ok(held.release()?)
    })
}

/// The images, then the links: one without image is known to be unused.
fn map_parts(
    held: &mut HeldThread<'_>,
    id: &str,
    records: &[&Record],
    links: &[BorrowedFd<'_>],
    mapped: &mut Vec<AvmaRange>,
    passed: &mut Vec<RemoteFd>,
) -> Result<(), RemoteError> {
    for record in records {
        map_image(held, id, record, mapped)?;
    }
    for link in links {
        passed.push(held.receive(*link)?);
        reach(FailPoint::LinkPassed);
    }
    Ok(())
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
