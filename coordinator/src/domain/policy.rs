//! A policy: what to protect on which hosts, when and how, as its TOML file says it.
//!
//! Owns the invariant that a [`Policy`] is whole and possible: every one comes out of [`Policy::parse`], which finds all that is
//! wrong in one pass and names each key. A key whose effect is not built is refused by name, as an unknown one is, so that
//! nobody believes in a promise that is not kept.
//!
//! Not here: which hosts exist, and whether two policies protect the same path.

mod file;
mod keys;

use coord_archive::rules::Rules;
use coord_shared::selector::Selector;
use coord_shared::slug::PolicySlug;
use jiff::civil::Weekday;
use serde::{Deserialize, Serialize};

use super::pace::PaceRule;
use super::schedule::Calendar;
use super::timing::Timing;

pub use file::{Defaults, Layers, MAX_FILE, Origin};
pub use keys::{KeyChange, changes, differing, keys};

/// Excludes of a policy that says nothing about them.
pub const DEFAULT_EXCLUDE: [&str; 2] = ["*.tmp", "*.log"];
/// Schedule of a policy that says nothing about it.
pub const DEFAULT_CRON: &str = "0 2 * * *";
/// Verification schedule of a policy that says nothing about it.
pub const DEFAULT_VERIFY_CRON: &str = "0 6 * * *";

/// What to protect, when and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name, never reused.
    pub name: PolicySlug,
    /// The hosts it is for.
    pub hosts: Selector,
    /// Absolute paths, without a trailing slash; none lies below another.
    pub sources: Vec<String>,
    /// Globs of what is left out, in the order written: the last that matches decides, and `!` re-includes.
    pub exclude: Vec<String>,
    /// What else is left out. Policies of before there were rules have none.
    #[serde(default)]
    pub rules: Rules,
    /// When backups are due.
    pub schedule: Calendar,
    /// How those begin. Policies of before there were windows begin at once, at any time.
    #[serde(default)]
    pub timing: Timing,
    /// When a backup is a full.
    pub full: FullRule,
    /// A differential estimated or found larger than this share of the full's source bytes becomes a full.
    pub diff_threshold_percent: u32,
    /// How archives are compressed.
    pub compression: CompressionByLevel,
    /// When archives are read back besides after each backup.
    pub verify: VerifyRule,
    /// What is promised. Policies of before there were objectives promise nothing.
    #[serde(default)]
    pub objectives: Objectives,
    /// What goes first when runs wait for each other: 0 to 100. Policies of before there were priorities are in the middle.
    #[serde(default = "default_priority")]
    pub priority: u32,
    /// How fast its runs may read and write.
    #[serde(default, skip_serializing_if = "PaceRule::is_none")]
    pub limits: PaceRule,
    /// What it was made of besides its file's own keys.
    #[serde(default, skip_serializing_if = "Layers::is_empty")]
    pub layers: Layers,
}

/// The priority of a policy that says nothing about it.
pub const DEFAULT_PRIORITY: u32 = 50;

const fn default_priority() -> u32 {
    DEFAULT_PRIORITY
}

/// What a policy promises to those whose data it protects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objectives {
    /// Oldest that the newest good backup may become, in seconds.
    pub rpo_s: Option<u32>,
    /// Longest that a restore may take, in seconds.
    pub rto_s: Option<u32>,
}

/// When a backup is a full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullRule {
    /// On which day, in the policy's zone.
    #[serde(with = "full_day")]
    pub day: FullDay,
    /// The age after which a full is too old to stand on.
    pub max_age_days: u32,
}

/// The day of fulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullDay {
    /// A day of the week.
    Weekly(Weekday),
    /// The night that the plan over the whole fleet gives each job.
    Levelled,
}

/// How archives of each level are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressionByLevel {
    /// Of fulls.
    pub full: Compression,
    /// Of differentials.
    pub differential: Compression,
}

/// A codec and its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// Which codec.
    pub codec: Codec,
    /// Its own level: zstd 1 to 19, gzip 1 to 9.
    pub level: i32,
}

/// A codec of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// `.tar.zst`
    Zstd,
    /// `.tar.gz`
    Gzip,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Codec; 2] = [Codec::Zstd, Codec::Gzip];

    /// The word in files and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Codec::Zstd => "zstd",
            Codec::Gzip => "gzip",
        }
    }

    /// The codec's highest level that agents can afford; the lowest is 1.
    pub const fn most(self) -> i32 {
        match self {
            Codec::Zstd => 19,
            Codec::Gzip => 9,
        }
    }

    /// The codec on the wire.
    pub const fn to_api(self) -> coord_shared::api::Codec {
        match self {
            Codec::Zstd => coord_shared::api::Codec::Zstd,
            Codec::Gzip => coord_shared::api::Codec::Gzip,
        }
    }
}

/// When archives are read back besides after each backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRule {
    /// When, in the policy's zone.
    pub calendar: Calendar,
}

/// Something in a policy file that is wrong, or worth a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Dotted key in the file, such as `schedule.cron`; empty when it is about the file.
    pub key: String,
    /// What is the matter.
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the file's keys as they are documented.
    pub fn parse(text: &str) -> Result<Policy, Vec<Finding>> {
        Policy::parse_over(text, &Defaults::default())
    }

    /// Reads a policy file over the fleet's defaults.
    ///
    /// # Errors
    /// As for [`Policy::parse`].
    pub fn parse_over(text: &str, defaults: &Defaults) -> Result<Policy, Vec<Finding>> {
        file::parse(text, defaults)
    }

    /// What is not wrong and yet surprising.
    pub fn warnings(&self) -> Vec<Finding> {
        let mut warnings = Vec::new();
        if self.hosts.is_everything() {
            warnings.push(Finding {
                key: "hosts".to_owned(),
                message: "the empty selector means every host, those that join later too".to_owned(),
                hint: "name a label that the hosts have, such as hosts = \"role=web\"".to_owned(),
            });
        }
        warnings.extend(file::timing_warnings(self));
        warnings
    }

    /// What decides what is in a backup: a change of it makes the next backup a full.
    pub fn selection(&self) -> Selection<'_> {
        Selection { sources: &self.sources, exclude: &self.exclude, rules: &self.rules }
    }

    /// The sources as the catalog and archives write them: relative to the root, without a leading slash; the root is empty.
    pub fn relative_sources(&self) -> Vec<Vec<u8>> {
        self.sources.iter().map(|source| source.trim_start_matches('/').as_bytes().to_vec()).collect()
    }
}

/// What decides what is in a backup. Sources have no order; excludes do. Two equal selections print the same JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selection<'a> {
    /// Sorted.
    pub sources: &'a [String],
    /// As written.
    pub exclude: &'a [String],
    /// What else is left out.
    pub rules: &'a Rules,
}

/// The day of fulls as the policy file writes it.
mod full_day {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::FullDay;

    pub fn serialize<S: Serializer>(day: &FullDay, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match day {
            FullDay::Weekly(day) => super::weekday_name(*day),
            FullDay::Levelled => super::LEVELLED,
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FullDay, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::full_day_named(&text).ok_or_else(|| serde::de::Error::custom("not a day of the week, nor levelled"))
    }
}

/// The word for fulls that the plan over the fleet places.
const LEVELLED: &str = "levelled";

const WEEKDAYS: [(Weekday, &str); 7] = [
    (Weekday::Monday, "monday"),
    (Weekday::Tuesday, "tuesday"),
    (Weekday::Wednesday, "wednesday"),
    (Weekday::Thursday, "thursday"),
    (Weekday::Friday, "friday"),
    (Weekday::Saturday, "saturday"),
    (Weekday::Sunday, "sunday"),
];

/// The day's name in the policy file.
pub fn weekday_name(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "monday",
        Weekday::Tuesday => "tuesday",
        Weekday::Wednesday => "wednesday",
        Weekday::Thursday => "thursday",
        Weekday::Friday => "friday",
        Weekday::Saturday => "saturday",
        Weekday::Sunday => "sunday",
    }
}

fn full_day_named(text: &str) -> Option<FullDay> {
    if text == LEVELLED {
        return Some(FullDay::Levelled);
    }
    WEEKDAYS.into_iter().find(|(_, name)| *name == text).map(|(day, _)| FullDay::Weekly(day))
}

#[cfg(test)]
mod tests;
