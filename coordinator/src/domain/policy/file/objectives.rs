//! Reads what a policy promises.

use coord_shared::duration;
use toml::Table;

use super::reader::{Reader, dotted, escaped};
use crate::domain::policy::Objectives;

/// Shortest objective: less than the resolution of a schedule can be kept by nobody.
const LEAST_S: u32 = 60;
/// Longest objective: ten years.
const MOST_S: u32 = 10 * 366 * 86_400;

impl Reader {
    pub(super) fn objectives(&mut self, top: &Table) -> Objectives {
        let section = self.section(top, "", "objectives", &["rpo", "rto"]);
        Objectives { rpo_s: self.objective(&section, "rpo"), rto_s: self.objective(&section, "rto") }
    }

    fn objective(&mut self, section: &Table, key: &str) -> Option<u32> {
        let text = self.text(section, "objectives", key)?;
        let seconds = duration::parse(&text).and_then(|span| u32::try_from(span.as_secs()).ok());
        let found = seconds.filter(|seconds| (LEAST_S..=MOST_S).contains(seconds));
        if found.is_none() {
            self.find(
                &dotted("objectives", key),
                format!("'{}' is not a time from a minute to ten years", escaped(&text)),
                "a whole number with m, h, d or w, such as \"26h\"",
            );
        }
        found
    }
}
