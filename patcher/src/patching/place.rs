//! Where everything goes, and what each site's record says: pure, on a snapshot of the memory map.

use std::time::{SystemTime, UNIX_EPOCH};

use upatch_trampolines::{Avma, AvmaRange, CheckedImage};

use super::arena::Arena;
use super::gap;
use super::record::{HEADER_LEN, Hex, Info, Membership, Record, RecordState, Span, to_hex};
use super::request::{BuildError, Placement, PrepareError, Request, SiteRequest};
use crate::process::maps::Maps;

/// Chooses addresses and builds the images for them. `None`: try again with a fresh map.
pub(super) fn place(
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

pub(super) fn check_image(
    site: &SiteRequest<'_>,
    image: &CheckedImage,
    at: Avma,
) -> Result<(), PrepareError> {
    let plan = image.poke_plan();
    if plan.at != site.site {
        return Err(PrepareError::Mismatch("its poke is elsewhere"));
    }
    if plan.image.start != at || plan.image.len() > site.max_len {
        return Err(PrepareError::Mismatch("it lies elsewhere or is longer"));
    }
    Ok(())
}

pub(super) fn record_of(
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
        info: Info::new(&site.info),
    }
}

/// Where the record of a region lies: behind code and data.
pub(super) fn record_range(record: &Record) -> AvmaRange {
    let before = record.data.unwrap_or(record.code).range();
    AvmaRange::new(
        before.end,
        gap::pages(record.encode(RecordState::Placed).len() as u64),
    )
}
