//! What an event's bytes mean: JSON for programs, a line for people.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::ring::RawEvent;
use crate::apply::info::PatchInfo;
use crate::object::{Budget, PRINTK, render_within};

/// To what CLOCK_MONOTONIC's zero is rounded. It stays the same until somebody sets the clock, but reading it is off by some ten
/// nanoseconds each time; rounded, an event has the same time whenever it is shown, and no other distance to the next one.
const GRAIN_NS: u64 = 10_000;

/// CLOCK_MONOTONIC's zero in calendar time: what an event's time is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    zero: SystemTime,
}

impl Clock {
    /// As it is now; it moves when somebody sets the clock. Two clocks can't be read at once: the closest of a few
    /// readings is taken.
    #[must_use]
    pub fn now() -> Self {
        let monotonic = || {
            nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
                .map_or(Duration::ZERO, Duration::from)
        };
        let reading = || {
            let (before, calendar, after) = (monotonic(), SystemTime::now(), monotonic());
            let took = after.saturating_sub(before);
            (took, calendar, before + took / 2)
        };
        let closest = (0..16).map(|_| reading()).min_by_key(|reading| reading.0);
        let (_, calendar, since) = closest.unwrap_or_else(reading);
        Self {
            zero: calendar
                .checked_sub(since)
                .map_or(SystemTime::UNIX_EPOCH, rounded),
        }
    }

    /// `2026-11-21T11:44:01.123456Z`; `None` for a time beyond the calendar.
    #[must_use]
    pub fn calendar(self, monotonic: u64) -> Option<String> {
        let time = self.zero.checked_add(Duration::from_nanos(monotonic))?;
        // humantime's formatter fails beyond the year 9999.
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        (since.as_secs() < 253_402_300_800)
            .then(|| humantime::format_rfc3339_micros(time).to_string())
    }
}

/// To the nearest [`GRAIN_NS`].
fn rounded(time: SystemTime) -> SystemTime {
    let Ok(since) = time.duration_since(SystemTime::UNIX_EPOCH) else {
        return time;
    };
    let beyond = u64::from(since.subsec_nanos()) % GRAIN_NS;
    let down = time - Duration::from_nanos(beyond);
    if beyond < GRAIN_NS / 2 {
        down
    } else {
        down + Duration::from_nanos(GRAIN_NS)
    }
}

/// The event as the contract's object: `{"time"?, "monotonic_ns"?, "pid"?, "tid"?, "type", "value"}`.
#[must_use]
pub fn to_json(
    info: &PatchInfo,
    event: &RawEvent,
    clock: Clock,
    budget: &mut Budget,
) -> Map<String, Value> {
    let mut json = Map::new();
    if event.time != 0 {
        if let Some(time) = clock.calendar(event.time) {
            json.insert("time".to_owned(), time.into());
        }
        json.insert("monotonic_ns".to_owned(), event.time.into());
    }
    if event.thread != 0 {
        json.insert("pid".to_owned(), (event.thread >> 32).into());
        json.insert("tid".to_owned(), (event.thread & 0xffff_ffff).into());
    }
    let ty = info.events.as_ref().and_then(|ring| ring.type_of(event.ty));
    let value = match ty {
        Some(ty) if ty.name == PRINTK => text_of(&event.bytes).map_or(Value::Null, Value::from),
        Some(ty) => render_within(&info.types, ty.ty, &event.bytes, budget),
        None => Value::Null,
    };
    let name = ty.map_or_else(|| format!("type {}", event.ty), |ty| ty.name.clone());
    budget.0 = budget.0.saturating_sub(name.len());
    json.insert("type".to_owned(), name.into());
    json.insert("value".to_owned(), value);
    json
}

/// The event as a line without its end: `11:44:01.123456 tid 4711 struct refusal {…}`.
#[must_use]
pub fn to_line(event: &Map<String, Value>) -> String {
    let mut words = Vec::new();
    if let Some(time) = event.get("time").and_then(Value::as_str) {
        // The time of day, to the microsecond.
        words.push(time.get(11..26).unwrap_or(time).to_owned());
    }
    if let Some(tid) = event.get("tid") {
        words.push(format!("tid {tid}"));
    }
    match (
        event.get("type").and_then(Value::as_str),
        event.get("value"),
    ) {
        (Some(PRINTK), Some(Value::String(text))) => {
            words.push(super::plain(text.trim_end_matches('\n')))
        }
        (ty, value) => {
            words.push(ty.unwrap_or_default().to_owned());
            words.push(super::words(value.unwrap_or(&Value::Null)));
        }
    }
    words.join("  ")
}

/// What `upatch_printk` recorded: three numbers and the format, both from the target.
fn text_of(bytes: &[u8]) -> Option<String> {
    let (args, format) = bytes.split_at_checked(24)?;
    let mut args = args
        .chunks_exact(8)
        .filter_map(<[u8]>::first_chunk)
        .map(|word| u64::from_le_bytes(*word));
    let end = format.iter().position(|&byte| byte == 0)?;
    let format = String::from_utf8_lossy(&format[..end]).into_owned();
    let mut text = String::new();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut spec = String::new();
        while let Some(c) = rest.next_if(|c| c.is_ascii_digit() || "#-+ lhjzt.".contains(*c)) {
            spec.push(c);
        }
        match rest.next() {
            Some('%') if spec.is_empty() => text.push('%'),
            Some(letter @ ('d' | 'i' | 'u' | 'x' | 'X' | 'o' | 'c' | 'p')) => match args.next() {
                Some(number) => text += &formatted(&spec, letter, number),
                None => text += "?",
            },
            // What no number can be is shown as it stands.
            other => {
                text.push('%');
                text += &spec;
                text.extend(other);
            }
        }
    }
    Some(text)
}

/// One conversion of printf(3): its length, `0`, `#` and a width of at most two digits.
fn formatted(spec: &str, letter: char, number: u64) -> String {
    let long = spec.contains(['l', 'j', 'z', 't']);
    let short = number as u32;
    let unsigned = if long { number } else { u64::from(short) };
    let digits = match letter {
        'd' | 'i' if long => number.cast_signed().to_string(),
        'd' | 'i' => short.cast_signed().to_string(),
        'u' => unsigned.to_string(),
        'x' if spec.contains('#') => format!("{unsigned:#x}"),
        'x' => format!("{unsigned:x}"),
        'X' => format!("{unsigned:X}"),
        'o' => format!("{unsigned:o}"),
        'p' => format!("{number:#x}"),
        _ => char::from_u32(short).unwrap_or('?').to_string(),
    };
    let flags: String = spec.chars().take_while(|c| "#-+ 0".contains(*c)).collect();
    let width: String = spec[flags.len()..]
        .chars()
        .take_while(char::is_ascii_digit)
        .take(2)
        .collect();
    let width = width.parse::<usize>().unwrap_or(0);
    let missing = width.saturating_sub(digits.chars().count());
    match (
        flags.contains('-'),
        flags.contains('0'),
        digits.strip_prefix('-'),
    ) {
        (true, ..) => digits + &" ".repeat(missing),
        (false, true, Some(digits)) => format!("-{}{digits}", "0".repeat(missing)),
        (false, true, None) => "0".repeat(missing) + &digits,
        (false, false, _) => " ".repeat(missing) + &digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readings_of_the_clock_agree() {
        let at = |ns| SystemTime::UNIX_EPOCH + Duration::new(7, ns);
        for (read, kept) in [
            (0, 0),
            (4_999, 0),
            (5_000, 10_000),
            (123_459_990, 123_460_000),
            (123_460_070, 123_460_000),
        ] {
            assert_eq!(rounded(at(read)), at(kept), "{read}");
        }
        assert_eq!(rounded(at(999_999_999)), at(0) + Duration::from_secs(1));
        let (one, two) = (Clock::now().zero, Clock::now().zero);
        let apart = one.duration_since(two).or(two.duration_since(one));
        assert!(apart.is_ok_and(|apart| apart < Duration::from_millis(1)));
    }
}
