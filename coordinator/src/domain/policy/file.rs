//! Reads the policy file key by key, so that one pass finds everything that is wrong in it. Values are read by [`reader`], each
//! group of keys in a file of its own.

mod calendar;
mod compression;
mod layers;
mod objectives;
mod pace;
mod reader;
mod selection;
mod timing;

pub use layers::{Defaults, Layers, Origin};
use reader::{Reader, escaped};
pub(super) use timing::warnings as timing_warnings;
use toml::Table;

use super::{DEFAULT_PRIORITY, Finding, Policy, VerifyRule};
use crate::domain::schedule::Calendar;

/// Longest policy file, in bytes.
pub const MAX_FILE: usize = 64 * 1024;

const TOP: [&str; 18] = [
    "name",
    "hosts",
    "sources",
    "exclude",
    "exclude_caches",
    "exclude_if_present",
    "exclude_nodump",
    "exclude_larger_than",
    "one_file_system",
    "schedule",
    "windows",
    "full",
    "diff_threshold_percent",
    "compression",
    "verify",
    "objectives",
    "priority",
    "limits",
];
const SCHEDULE: [&str; 6] = ["cron", "zone", "jitter", "max_start_delay", "max_duration", "catch_up"];
/// Keys of the file's shape whose effect is not built yet.
const NOT_BUILT: [&str; 1] = ["retention"];

/// Reads a policy over the fleet's defaults, or says everything that is wrong with it.
pub(super) fn parse(text: &str, defaults: &Defaults) -> Result<Policy, Vec<Finding>> {
    layers::parse(text, defaults)
}

/// The file's tables.
fn table_of(text: &str) -> Result<Table, Vec<Finding>> {
    let mut reader = Reader::default();
    if text.len() > MAX_FILE {
        reader.find("", format!("the file has {} bytes, and a policy at most {MAX_FILE}", text.len()), "");
        return Err(reader.findings);
    }
    text.parse::<Table>().map_err(|error| {
        let line =
            error.span().map_or(0, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
        reader.find("", format!("line {line} is not TOML: {}", escaped(error.message())), "see https://toml.io");
        reader.findings
    })
}

/// Reads a policy whose layers were put on each other.
fn read(top: &Table) -> Result<Policy, Vec<Finding>> {
    let mut reader = Reader::default();
    reader.unknown_keys("", top, &TOP);
    let name = reader.name(top);
    let hosts = reader.hosts(top);
    let sources = reader.sources(top);
    let exclude = reader.exclude(top);
    let rules = reader.rules(top);
    let section = reader.section(top, "", "schedule", &SCHEDULE);
    let schedule = reader.calendar(&section);
    let timing = reader.timing(top, &section, schedule.as_ref());
    let full = reader.full(top);
    let diff_threshold_percent = reader.number(top, "", "diff_threshold_percent", 1..=100, 50);
    let compression = reader.compression(top);
    let verify_cron = reader.verify(top);
    let objectives = reader.objectives(top);
    let priority = reader.number(top, "", "priority", 0..=100, DEFAULT_PRIORITY);
    let limits = reader.pace(top);
    match (name, hosts, schedule, verify_cron) {
        (Some(name), Some(hosts), Some(schedule), Some(cron)) if reader.findings.is_empty() => {
            let verify = VerifyRule { calendar: Calendar { cron, zone: schedule.zone.clone() } };
            Ok(Policy {
                name,
                hosts,
                sources,
                exclude,
                rules,
                schedule,
                timing,
                full,
                diff_threshold_percent,
                compression,
                verify,
                objectives,
                priority,
                limits,
                layers: Layers::default(),
            })
        }
        (_, _, _, _) => Err(reader.findings),
    }
}
