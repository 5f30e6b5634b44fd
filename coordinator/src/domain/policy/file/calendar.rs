//! Reads when a policy's runs are due, and when a backup is a full.

use coord_shared::slug::nearest;
use jiff::civil::Weekday;
use toml::{Table, Value};

use super::reader::{Reader, dotted, escaped, kind};
use crate::domain::policy::{DEFAULT_CRON, DEFAULT_VERIFY_CRON, FullDay, FullRule, LEVELLED, WEEKDAYS, full_day_named};
use crate::domain::schedule::{Calendar, CronError, CronLine, Zone};

/// The day of the full of a policy that says nothing about it.
const DEFAULT_FULL_DAY: FullDay = FullDay::Weekly(Weekday::Sunday);

impl Reader {
    pub(super) fn cron(&mut self, section: &Table, name: &str, default: &str) -> Option<CronLine> {
        let key = dotted(name, "cron");
        let text = match self.text(section, name, "cron") {
            Some(text) => text,
            None if section.contains_key("cron") => return None,
            None => default.to_owned(),
        };
        match text.parse() {
            Ok(line) => Some(line),
            Err(error) => {
                let error: CronError = error;
                self.find(&key, error.to_string(), format!("minute hour day month weekday, such as \"{default}\""));
                None
            }
        }
    }

    /// The calendar of the section `schedule`.
    pub(super) fn calendar(&mut self, section: &Table) -> Option<Calendar> {
        let cron = self.cron(section, "schedule", DEFAULT_CRON);
        let zone = match self.text(section, "schedule", "zone") {
            Some(text) => match text.parse::<Zone>() {
                Ok(zone) => Some(zone),
                Err(error) => {
                    self.find("schedule.zone", error.to_string(), "such as \"Europe/Berlin\" or \"UTC\"");
                    None
                }
            },
            None if section.contains_key("zone") => None,
            None => Some(Zone::utc()),
        };
        Some(Calendar { cron: cron?, zone: zone? })
    }

    pub(super) fn full(&mut self, top: &Table) -> FullRule {
        let section = self.section(top, "", "full", &["day", "max_age_days"]);
        let day = match self.text(&section, "full", "day") {
            None => DEFAULT_FULL_DAY,
            Some(text) => full_day_named(&text).unwrap_or_else(|| {
                let names = || WEEKDAYS.map(|(_, name)| name).into_iter().chain([LEVELLED]);
                let hint = nearest(&text, names()).map_or_else(
                    || format!("one of {}", names().collect::<Vec<_>>().join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                self.find("full.day", format!("'{}' is no day of the week, nor {LEVELLED}", escaped(&text)), hint);
                DEFAULT_FULL_DAY
            }),
        };
        FullRule { day, max_age_days: self.number(&section, "full", "max_age_days", 1..=3650, 7) }
    }

    pub(super) fn verify(&mut self, top: &Table) -> Option<CronLine> {
        let section = self.section(top, "", "verify", &["after_backup", "cron"]);
        match section.get("after_backup") {
            None | Some(Value::Boolean(true)) => {}
            Some(Value::Boolean(false)) => self.find(
                "verify.after_backup",
                "a backup counts as protected only when it was read back, so this cannot be switched off",
                "leave it out, or write true",
            ),
            Some(other) => {
                self.find("verify.after_backup", format!("verify.after_backup is {}, not true", kind(other)), "")
            }
        }
        self.cron(&section, "verify", DEFAULT_VERIFY_CRON)
    }
}
