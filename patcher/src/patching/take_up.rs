//! Taking up a retired patch again.

use upatch_trampolines::{Avma, AvmaRange, PokePlan};

use super::arena::Arena;
use super::place::{check_image, record_of};
use super::record::{Record, RecordState};
use super::region::{Found, FoundState, Inventory, Region};
use super::request::{Placement, PrepareError, Request};
use super::{clean, gap};
use crate::process::Process;
use crate::process::failpoint::{FailPoint, reach};

/// What is poked at a site, and its record.
type Site = (PokePlan, Record);

/// A retired patch serves again if the new images are the old ones, byte for byte at the same addresses: whoever still
/// returns into them finds what was there.
pub(super) fn take_up_retired(
    process: &Process,
    request: &Request<'_>,
    inventory: &Inventory,
) -> Result<Option<(Vec<Site>, Found)>, PrepareError> {
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
            wanted.replace_in(process, arena, request.links)?;
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
) -> Result<Option<Site>, PrepareError> {
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
