//! Readings as OpenMetrics text (OpenMetrics 1.0, "Text format"), for Prometheus's node exporter and its kind.
//!
//! Numbers become samples, labelled with the process, the patch, its function and the variable's name (`hits`,
//! `limits[3].max`); text and enumerators of rules become labels of an info metric. Names and values come from the
//! target, so labels are escaped.

use std::fmt::Write;

use serde_json::Value;

use super::Reading;
use crate::object::Role;

/// One family: its name, type and explanation, and the samples so far.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: String,
}

/// The families, in the order of the text.
struct Families {
    patch: Family,
    counter: Family,
    rule: Family,
    setting: Family,
    variable: Family,
    events: Family,
    lost: Family,
    missed: Family,
}

/// Readings of patches, each with its process and its id, as a whole exposition.
#[must_use]
pub fn openmetrics(readings: &[(i32, String, Reading)]) -> String {
    let family = |name, kind, help| Family {
        name,
        kind,
        help,
        samples: String::new(),
    };
    let mut all = Families {
        patch: family("upatch_patch", "info", "Patches that are live."),
        counter: family("upatch_counter", "counter", "Counters of patches."),
        rule: family("upatch_rule", "gauge", "Rules of patches that are numbers."),
        setting: family("upatch_setting", "info", "Rules of patches that are words."),
        variable: family("upatch_variable", "gauge", "Other variables of patches."),
        events: family("upatch_events", "counter", "Events that patches recorded."),
        lost: family(
            "upatch_events_gone",
            "gauge",
            "Events that the ring no longer holds.",
        ),
        missed: family(
            "upatch_missed_calls",
            "counter",
            "Nested calls that went on unpatched.",
        ),
    };
    for (pid, id, reading) in readings {
        all.add(*pid, id, reading);
    }
    let mut text = String::new();
    for family in all.into_array() {
        if !family.samples.is_empty() {
            let Family {
                name,
                kind,
                help,
                samples,
            } = family;
            text += &format!("# TYPE {name} {kind}\n# HELP {name} {help}\n{samples}");
        }
    }
    text + "# EOF\n"
}

impl Families {
    fn into_array(self) -> [Family; 8] {
        [
            self.patch,
            self.counter,
            self.rule,
            self.setting,
            self.variable,
            self.events,
            self.lost,
            self.missed,
        ]
    }

    fn add(&mut self, pid: i32, id: &str, reading: &Reading) {
        let pid = pid.to_string();
        let function = reading
            .info
            .as_ref()
            .map_or_else(String::new, |info| info.site_name());
        let of = [("pid", &*pid), ("patch", id), ("function", &*function)];
        if let Some(info) = &reading.info {
            let more = [
                ("module", &*info.module),
                ("build_id", &*info.build_id),
                ("object", &*info.object),
            ];
            self.patch.sample("_info", &[&of[..], &more].concat(), "1");
        }
        let role_of = |name: &str| {
            let globals = reading.info.iter().flat_map(|info| &info.globals);
            let found = globals.into_iter().find(|global| global.name == name);
            found.map_or(Role::Plain, |global| global.role)
        };
        for (name, value) in &reading.globals {
            self.value(&of, role_of(name), name, value);
        }
        if let Some(events) = &reading.events {
            let total = events.dropped.saturating_add(events.events.len() as u64);
            self.events.sample("_total", &of, &total.to_string());
            self.lost.sample("", &of, &events.dropped.to_string());
        }
        if let Some(missed) = reading.missed {
            self.missed.sample("_total", &of, &missed.to_string());
        }
    }

    fn value(&mut self, of: &[(&str, &str)], role: Role, name: &str, value: &Value) {
        let labels = [of, &[("name", name)]].concat();
        let number = match value {
            Value::Bool(value) => u8::from(*value).to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => {
                if role == Role::Rule {
                    let labels = [&labels[..], &[("value", text)]].concat();
                    self.setting.sample("_info", &labels, "1");
                }
                return;
            }
            Value::Null => return,
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.value(of, role, &format!("{name}[{index}]"), element);
                }
                return;
            }
            Value::Object(members) => {
                for (member, value) in members {
                    self.value(of, role, &format!("{name}.{member}"), value);
                }
                return;
            }
        };
        match role {
            // A counter of OpenMetrics is never negative.
            Role::Counter if !number.starts_with('-') => {
                self.counter.sample("_total", &labels, &number);
            }
            Role::Rule => self.rule.sample("", &labels, &number),
            Role::Counter | Role::Plain | Role::Events => {
                self.variable.sample("", &labels, &number)
            }
        }
    }
}

impl Family {
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: &str) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        // Writing to a string can't fail.
        let _ = writeln!(
            self.samples,
            "{}{suffix}{{{}}} {value}",
            self.name,
            labels.join(",")
        );
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
