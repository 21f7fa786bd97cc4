//! Reading a patch's variables and events out of the target: by its record, which came from the target, so with every
//! size checked.

mod arena;
mod event;
mod openmetrics;
mod ring;

use serde_json::{Map, Value};
use upatch_jit::private;

pub use arena::{ArenaView, ReadArena};
pub use event::{Clock, to_json, to_line};
pub use openmetrics::openmetrics;
pub use ring::{Cursor, RawEvent};

use crate::apply::info::PatchInfo;
use crate::object::Budget;
use crate::patching::Found;
use crate::process::Process;

/// Most events that are shown at once, the newest.
const MOST_EVENTS: u64 = 10_000;
/// What showing them may cost, roughly the bytes of their text.
const EVENTS_SHOWN: usize = 4 << 20;

/// What the record and the arena of one patch say.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    /// What the record says about the patch, if it can be understood.
    pub info: Option<PatchInfo>,
    /// The same of the sites behind the first one.
    pub others: Vec<PatchInfo>,
    /// The counter called `hits`, if there is one.
    pub hits: Option<u64>,
    /// Calls that went on unpatched because their thread was inside the patch already; `None` if the patch can't be
    /// re-entered.
    pub missed: Option<u64>,
    /// Every variable by name.
    pub globals: Map<String, Value>,
    /// What the ring of events holds; `None` if the patch has no ring.
    pub events: Option<Events>,
}

/// The events that a ring held at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Events {
    /// Oldest first, as the contract's objects.
    pub events: Vec<Map<String, Value>>,
    /// How many there were before that are not among them: newer ones took their place, or they were lost.
    pub dropped: u64,
}

/// What the record says about the patch, if it can be understood.
#[must_use]
pub fn info(found: &Found) -> Option<PatchInfo> {
    info_of(found.record()?.info.text())
}

/// As [`info`], of what a record holds for the upper layers.
#[must_use]
pub fn info_of(record: &str) -> Option<PatchInfo> {
    let mut info = serde_json::from_str::<PatchInfo>(record).ok()?;
    info.events = info.events.and_then(crate::object::EventRing::checked);
    // Names end up on terminals.
    let kernel = info.kernel.iter_mut();
    let kernel = kernel.flat_map(|one| [&mut one.name, &mut one.interface, &mut one.tag]);
    let names = info.globals.iter_mut().map(|global| &mut global.name);
    let types = info.events.iter_mut().flat_map(|ring| &mut ring.types);
    let types = types.map(|ty| &mut ty.name);
    let places = [
        &mut info.object,
        &mut info.build_id,
        &mut info.module,
        &mut info.function,
        &mut info.section,
    ];
    for text in names.chain(types).chain(places).chain(kernel) {
        if text.contains(char::is_control) {
            *text = plain(text);
        }
    }
    Some(info)
}

/// Text that stays within its line and leaves the terminal alone.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// Reads the variables and events of a patch as they are now. What can't be read is left out: a telemetry that fails
/// because one page is gone would hide the rest.
#[must_use]
pub fn read(process: &Process, found: &Found) -> Reading {
    let Some(info) = info(found) else {
        return Reading {
            info: None,
            others: Vec::new(),
            hits: None,
            missed: None,
            globals: Map::new(),
            events: None,
        };
    };
    let records = || found.regions.iter().map(|region| region.record.as_ref());
    let missed = records().filter_map(|record| {
        let data = record.filter(|record| record.calls_application)?.data?;
        let at = data.range().start.plus(private::MISSED);
        process.memory().read_u64(at).ok()
    });
    let missed = missed.reduce(u64::saturating_add);
    let others = records().skip(1);
    let others = others
        .map_while(|record| info_of(record?.info.text()))
        .collect();
    let view = ArenaView::new(process, found);
    let window = view.as_ref().map_or(0, |view| view.range().len());
    let reading = match &view {
        Some(view) => read_arena(info, view, window),
        None => read_arena(info, &[][..], window),
    };
    Reading {
        missed,
        others,
        ..reading
    }
}

/// As [`read`], of an arena of `window` bytes that is there already.
#[must_use]
pub fn read_arena<A: ReadArena + ?Sized>(info: PatchInfo, arena: &A, window: u64) -> Reading {
    let mut bytes = vec![0; usize::try_from(info.bytes_needed(window)).unwrap_or(0)];
    let there = arena.read_some(0, &mut bytes);
    bytes.truncate(there);
    Reading {
        hits: info.hits(&bytes),
        missed: None,
        others: Vec::new(),
        globals: info.values(&bytes),
        events: events(&info, arena),
        info: Some(info),
    }
}

fn events<A: ReadArena + ?Sized>(info: &PatchInfo, arena: &A) -> Option<Events> {
    let ring = info.events.as_ref()?;
    let (mut cursor, clock, mut budget) = (Cursor::new(), Clock::now(), Budget(EVENTS_SHOWN));
    let mut events = Vec::new();
    cursor.look(ring, arena, MOST_EVENTS, &mut |event| {
        events.push(to_json(info, &event, clock, &mut budget));
    });
    Some(Events {
        events,
        dropped: cursor.before.saturating_add(cursor.lost),
    })
}

/// Longest value that is printed for people, in characters.
const WORDS: usize = 1000;

/// A value for people. Large arrays fill screens; programs read JSON, which is whole.
#[must_use]
pub fn words(value: &Value) -> String {
    let text = plain(&value.to_string());
    match text.char_indices().nth(WORDS) {
        Some((at, _)) => format!(
            "{} … ({} characters; --json has all)",
            &text[..at],
            text.chars().count()
        ),
        None => text,
    }
}
