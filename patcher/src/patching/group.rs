//! Which regions belong together, and what a patch with several sites is.
//!
//! ```text
//! region 0 (leader)  code │ data: … gate … │ record { index 0, count n, leader, gate, arena }
//! region 1           code │ data, if any   │ record { index 1, count n, leader, gate }
//! …
//! ```
//! Each image begins with a test of the gate and goes straight on while it is closed; so a patch is live when every site
//! jumps and the gate is open, and one that a killed `upatch` left in the middle changes nothing. Records are allegations:
//! sites whose records disagree make the whole patch damaged, which nobody then touches.

use std::collections::BTreeMap;

use upatch_trampolines::{Avma, AvmaRange};

use super::record::{MAX_SITES, Membership, RecordState};
use super::region::{Examined, Found, FoundState, Region, SiteBytes};
use crate::process::Memory;

/// Puts regions that are sites of one patch together.
pub(super) fn gather(memory: &Memory, looked_at: Vec<Examined>) -> Vec<Found> {
    let mut found = Vec::new();
    let mut groups: BTreeMap<(String, u64), Vec<Examined>> = BTreeMap::new();
    for one in looked_at {
        let membership = one.region.record.as_ref().and_then(|record| record.group);
        match membership {
            Some(group) => {
                let key = (one.id.clone(), group.leader.0);
                groups.entry(key).or_default().push(one);
            }
            None => found.push(alone(one)),
        }
    }
    for ((id, _), mut sites) in groups {
        sites.sort_by_key(|one| membership(one).map(|group| group.index));
        // One whose record can't be read may be a site of this patch.
        let suspect = found
            .iter()
            .any(|other| other.id == id && matches!(other.state, FoundState::Damaged(_)));
        let state = match check(&sites) {
            Err(why) => FoundState::Damaged(why.to_owned()),
            Ok(whole) => state(memory, &sites, whole, suspect),
        };
        let damaged = matches!(state, FoundState::Damaged(_));
        let mut regions: Vec<Region> = sites.into_iter().map(|one| one.region).collect();
        if damaged {
            for region in &mut regions {
                region.record = None;
                region.site = SiteBytes::Unknown;
            }
        }
        found.push(Found { id, state, regions });
    }
    found
}

fn membership(one: &Examined) -> Option<Membership> {
    one.region.record.as_ref()?.group
}

/// A region that is a patch of its own.
fn alone(one: Examined) -> Found {
    let state = match (one.says, &one.region.site) {
        (Err(why), _) => FoundState::Damaged(why),
        (Ok(None), _) | (Ok(Some(_)), SiteBytes::Unknown) => FoundState::Incomplete,
        (Ok(Some(_)), SiteBytes::Jump) => FoundState::Applied,
        (Ok(Some(_)), SiteBytes::Other(found)) => FoundState::Contested {
            found: found.clone(),
        },
        (Ok(Some(RecordState::Placed)), SiteBytes::Gone) => {
            FoundState::Contested { found: Vec::new() }
        }
        (Ok(Some(RecordState::Retired)), SiteBytes::Gone) => FoundState::Retired,
        (Ok(Some(RecordState::Placed)), SiteBytes::Original) => FoundState::Leftover,
        (Ok(Some(RecordState::Retired)), SiteBytes::Original) => FoundState::Retired,
    };
    Found {
        id: one.id,
        state,
        regions: vec![one.region],
    }
}

/// Do the records agree with each other? True if no site is missing.
fn check(sites: &[Examined]) -> Result<bool, &'static str> {
    let groups: Vec<Membership> = sites.iter().filter_map(membership).collect();
    let Some(first) = groups.first() else {
        return Err("it has no sites");
    };
    if !(2..=MAX_SITES).contains(&usize::try_from(first.count).unwrap_or(0)) {
        return Err("it has an impossible number of sites");
    }
    let agree = |other: &Membership| other.count == first.count && other.gate == first.gate;
    if !groups.iter().all(agree) {
        return Err("the records of its sites disagree");
    }
    let rising = groups.windows(2).all(|pair| pair[0].index < pair[1].index);
    if !rising || groups.iter().any(|group| group.index >= group.count) {
        return Err("its sites are numbered wrongly");
    }
    let plans: Vec<AvmaRange> = sites
        .iter()
        .filter_map(|one| one.region.plan())
        .map(|plan| plan.displaced)
        .collect();
    let overlap = |(at, range): (usize, &AvmaRange)| plans[..at].iter().any(|o| o.overlaps(range));
    if plans.iter().enumerate().any(overlap) {
        return Err("its sites overlap");
    }
    if let Some(leader) = sites.first().filter(|_| first.index == 0) {
        let gate = Avma(first.gate.0);
        let record = leader.region.record.as_ref();
        let owns = record
            .and_then(|record| record.data)
            .is_some_and(|data| data.range().contains(gate));
        let leads = leader
            .region
            .code
            .is_some_and(|code| code.start.0 == first.leader.0);
        if !owns || !leads {
            return Err("its gate isn't where it says");
        }
    }
    Ok(groups.len() == usize::try_from(first.count).unwrap_or(0))
}

fn state(memory: &Memory, sites: &[Examined], whole: bool, suspect: bool) -> FoundState {
    let of = |one: &Examined| one.region.site.clone();
    let other = sites.iter().find_map(|one| match of(one) {
        SiteBytes::Other(found) => Some(found),
        SiteBytes::Gone => Some(Vec::new()),
        SiteBytes::Jump | SiteBytes::Original | SiteBytes::Unknown => None,
    });
    let jumps = sites
        .iter()
        .filter(|one| of(one) == SiteBytes::Jump)
        .count();
    let foreign = sites
        .iter()
        .any(|one| matches!(of(one), SiteBytes::Other(_)));
    if jumps == 0 && !foreign && !suspect {
        let retired = |one: &Examined| one.says == Ok(Some(RecordState::Retired));
        return if whole && sites.iter().all(retired) {
            FoundState::Retired
        } else {
            FoundState::Leftover
        };
    }
    let damaged = |why: &str| FoundState::Damaged(why.to_owned());
    if suspect {
        return damaged("the record of one of its sites is damaged");
    }
    let leader = sites.first().and_then(membership);
    let Some(leader) = leader.filter(|group| group.index == 0) else {
        return damaged("the image that holds its gate is missing");
    };
    if let Some(found) = other {
        return FoundState::Contested { found };
    }
    let mut gate = [0];
    if memory.read(Avma(leader.gate.0), &mut gate).is_err() {
        return damaged("its gate can't be read");
    }
    if gate == [0] {
        return FoundState::Interrupted;
    }
    if !whole {
        return damaged("some of its sites are missing");
    }
    match sites.iter().find(|one| of(one) == SiteBytes::Original) {
        None => FoundState::Applied,
        Some(one) => FoundState::Contested {
            found: one.region.plan().map(|plan| plan.old).unwrap_or_default(),
        },
    }
}
