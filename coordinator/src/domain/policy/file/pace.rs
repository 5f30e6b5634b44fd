//! Reads how fast the runs of a policy may read and write.

use toml::{Table, Value};

use super::reader::{Reader, dotted, escaped, kind};
use crate::domain::pace::{DAY, PaceRule, Rate, Span};

/// Slowest rate, in bytes a second: at less, no backup ends.
const LEAST: u64 = 64 * 1024;
/// Most spans of a day.
const MAX_SPANS: usize = 24;

impl Reader {
    pub(super) fn pace(&mut self, top: &Table) -> PaceRule {
        let section = self.section(top, "", "limits", &["read", "write", "profile"]);
        let rate = self.rates(&section, "limits");
        let spans = match section.get("profile") {
            None => Vec::new(),
            Some(Value::Array(list)) if list.len() <= MAX_SPANS => list.clone(),
            Some(other) => {
                let found = if let Value::Array(list) = other {
                    format!("of {} spans", list.len())
                } else {
                    kind(other).to_owned()
                };
                self.find(
                    "limits.profile",
                    format!("limits.profile is {found}, not a list of at most {MAX_SPANS} spans of the day"),
                    "profile = [{ between = \"08:00-18:00\", read = \"20MiB/s\" }]",
                );
                Vec::new()
            }
        };
        let profile: Vec<Span> = spans.iter().filter_map(|span| self.span(span)).collect();
        let overlap = |(number, span): (usize, &Span)| {
            profile
                .iter()
                .take(number)
                .find(|other| (0..DAY).any(|minute| span.holds(minute) && other.holds(minute)))
                .copied()
        };
        if let Some((span, other)) =
            profile.iter().enumerate().find_map(|(number, span)| Some((*span, overlap((number, span))?)))
        {
            let message = format!("the spans {} and {} of limits.profile overlap", shown(&other), shown(&span));
            self.find("limits.profile", message, "let one begin where the other ends");
        }
        PaceRule { rate, profile }
    }

    fn span(&mut self, value: &Value) -> Option<Span> {
        let key = "limits.profile";
        let Value::Table(table) = value else {
            self.find(
                key,
                format!("an entry of {key} is {}, not a table", kind(value)),
                "{ between = \"08:00-18:00\", read = \"20MiB/s\" }",
            );
            return None;
        };
        self.unknown_keys(key, table, &["between", "read", "write"]);
        let rate = self.rates(table, key);
        let Some(text) = self.text(table, key, "between") else {
            if !table.contains_key("between") {
                self.find(key, format!("an entry of {key} does not say when"), "between = \"08:00-18:00\"");
            }
            return None;
        };
        let minutes = text.split_once('-').and_then(|(from, until)| Some((minute(from)?, minute(until)?)));
        // 24:00 is the beginning of the next day, but for a span of the whole day.
        let written = minutes.map(|(from, until)| match (from, until) {
            (0, DAY) => (0, DAY),
            (from, until) => (from % DAY, until % DAY),
        });
        match written {
            Some((from, until)) if from != until => Some(Span { from, until, rate }),
            Some(_) => {
                self.find(
                    "limits.profile.between",
                    format!("'{}' is no time at all", escaped(&text)),
                    "such as \"08:00-18:00\"; 22:00-06:00 goes over midnight",
                );
                None
            }
            None => {
                self.find(
                    "limits.profile.between",
                    format!("'{}' is no span of the day", escaped(&text)),
                    "hours and minutes, such as \"08:00-18:00\"",
                );
                None
            }
        }
    }

    fn rates(&mut self, table: &Table, section: &str) -> Rate {
        Rate { read: self.rate(table, section, "read"), write: self.rate(table, section, "write") }
    }

    /// A size a second.
    fn rate(&mut self, table: &Table, section: &str, key: &str) -> Option<u64> {
        let name = dotted(section, key);
        let hint = "such as \"100MiB/s\"; leave it out for no limit";
        let text = match table.get(key)? {
            Value::String(text) => text,
            other => {
                self.find(&name, format!("{name} is {}, not a rate", kind(other)), hint);
                return None;
            }
        };
        let size = text.trim().strip_suffix("/s").map(coord_shared::size::parse);
        match size {
            Some(Ok(0)) => self.find(&name, format!("{name} of 0 would stop every run"), hint),
            Some(Ok(rate)) if rate < LEAST => {
                self.find(&name, format!("'{}' is less than 64KiB/s: no backup would end", escaped(text)), hint);
            }
            Some(Ok(rate)) => return Some(rate),
            Some(Err(_)) | None => self.find(&name, format!("'{}' is no rate", escaped(text)), hint),
        }
        None
    }
}

/// The minute of the day of `HH:MM`; 24:00 is its end.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let two =
        |text: &str| (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?;
    let (hour, minute): (u16, u16) = (two(hour)?, two(minute)?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= DAY).then_some(all)
}

fn shown(span: &Span) -> String {
    let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    format!("{}-{}", time(span.from), time(span.until))
}
