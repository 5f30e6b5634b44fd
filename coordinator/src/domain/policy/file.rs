//! Reads the policy file key by key, so that one pass finds everything that is wrong in it.

use std::collections::BTreeSet;

use coord_archive::rules::{Rules, RulesError};
use coord_shared::selector::Selector;
use coord_shared::slug::{PolicySlug, nearest};
use jiff::civil::Weekday;
use toml::{Table, Value};

use super::{
    Codec, Compression, CompressionByLevel, DEFAULT_CRON, DEFAULT_EXCLUDE, DEFAULT_VERIFY_CRON, Finding, FullRule,
    Policy, VerifyRule, WEEKDAYS, weekday_named,
};
use crate::domain::schedule::{Calendar, CronLine, Zone};

/// Longest policy file, in bytes.
pub const MAX_FILE: usize = 64 * 1024;
/// Most sources, and most excludes, of a policy.
const MAX_LIST: usize = 1000;
/// Longest source or exclude, in bytes.
const MAX_PATTERN: usize = 4096;

const TOP: [&str; 14] = [
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
    "full",
    "diff_threshold_percent",
    "compression",
    "verify",
];
/// Keys of the file's shape whose effect is not built yet.
const NOT_BUILT: [&str; 2] = ["retention", "objectives"];

/// Reads a policy, or says everything that is wrong with it.
pub(super) fn parse(text: &str) -> Result<Policy, Vec<Finding>> {
    let mut reader = Reader::default();
    if text.len() > MAX_FILE {
        reader.find("", format!("the file has {} bytes, and a policy at most {MAX_FILE}", text.len()), "");
        return Err(reader.findings);
    }
    let top = match text.parse::<Table>() {
        Ok(top) => top,
        Err(error) => {
            let line =
                error.span().map_or(0, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
            reader.find("", format!("line {line} is not TOML: {}", escaped(error.message())), "see https://toml.io");
            return Err(reader.findings);
        }
    };
    reader.unknown_keys("", &top, &TOP);
    let name = reader.name(&top);
    let hosts = reader.hosts(&top);
    let sources = reader.sources(&top);
    let exclude = reader.exclude(&top);
    let rules = reader.rules(&top);
    let schedule = reader.schedule(&top);
    let full = reader.full(&top);
    let diff_threshold_percent = reader.number(&top, "", "diff_threshold_percent", 1..=100, 50);
    let compression = reader.compression(&top);
    let verify_cron = reader.verify(&top);
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
                full,
                diff_threshold_percent,
                compression,
                verify,
            })
        }
        (_, _, _, _) => Err(reader.findings),
    }
}

fn escaped(text: &str) -> String {
    text.chars().take(200).collect::<String>().escape_debug().to_string()
}

fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    fn find(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(Finding { key: key.to_owned(), message: message.into(), hint: hint.into() });
    }

    fn unknown_keys(&mut self, section: &str, table: &Table, known: &[&'static str]) {
        for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
            let dotted = escaped(&dotted(section, key));
            if section.is_empty() && NOT_BUILT.contains(&key.as_str()) {
                let message =
                    format!("the effect of {dotted} is not built yet: it would be a promise that nothing keeps");
                self.find(&dotted, message, "leave it out");
                continue;
            }
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.find(&dotted, format!("{dotted} is no key of a policy"), hint);
        }
    }

    /// The section's table; an absent one is empty.
    fn section(&mut self, table: &Table, section: &str, key: &str, known: &[&'static str]) -> Table {
        let dotted = dotted(section, key);
        match table.get(key) {
            None => Table::new(),
            Some(Value::Table(inner)) => {
                self.unknown_keys(&dotted, inner, known);
                inner.clone()
            }
            Some(other) => {
                self.find(
                    &dotted,
                    format!("{dotted} is {}, not a table", kind(other)),
                    format!("such as {dotted} = {{ {} = ... }}", known.join(" = ..., ")),
                );
                Table::new()
            }
        }
    }

    /// A text; `None` when absent or of another kind (which is found).
    fn text(&mut self, table: &Table, section: &str, key: &str) -> Option<String> {
        let dotted = dotted(section, key);
        match table.get(key) {
            None => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => {
                self.find(
                    &dotted,
                    format!("{dotted} is {}, not a text", kind(other)),
                    format!("write it in quotes: {key} = \"...\""),
                );
                None
            }
        }
    }

    fn number(
        &mut self,
        table: &Table,
        section: &str,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let dotted = dotted(section, key);
        let found = match table.get(key) {
            None => return default,
            Some(Value::Integer(number)) => match u32::try_from(*number) {
                Ok(number) if range.contains(&number) => return number,
                Ok(_) | Err(_) => number.to_string(),
            },
            Some(other) => kind(other).to_owned(),
        };
        self.find(
            &dotted,
            format!("{dotted} is {found}, not a whole number from {} to {}", range.start(), range.end()),
            format!("the default is {default}"),
        );
        default
    }

    /// A list of texts, in order; `None` when absent.
    fn texts(&mut self, table: &Table, key: &str) -> Option<Vec<String>> {
        let list = match table.get(key)? {
            Value::Array(list) => list,
            other => {
                self.find(key, format!("{key} is {}, not a list", kind(other)), format!("write {key} = [\"...\"]"));
                return Some(Vec::new());
            }
        };
        if list.len() > MAX_LIST {
            self.find(
                key,
                format!("{key} has {} entries, and at most {MAX_LIST} may be", list.len()),
                "make several policies",
            );
            return Some(Vec::new());
        }
        let mut texts = Vec::with_capacity(list.len());
        for (number, value) in list.iter().enumerate() {
            match value {
                Value::String(text) if text.len() <= MAX_PATTERN && !text.contains('\0') => texts.push(text.clone()),
                Value::String(_) => self.find(
                    key,
                    format!("entry {} of {key} is longer than {MAX_PATTERN} bytes or has a NUL in it", number + 1),
                    "",
                ),
                other => self.find(
                    key,
                    format!("entry {} of {key} is {}, not a text", number + 1, kind(other)),
                    "write it in quotes",
                ),
            }
        }
        Some(texts)
    }

    fn name(&mut self, top: &Table) -> Option<PolicySlug> {
        match self.text(top, "", "name") {
            Some(text) => match PolicySlug::new(text) {
                Ok(name) => Some(name),
                Err(error) => {
                    self.find("name", error.to_string(), "such as name = \"web\"");
                    None
                }
            },
            None if top.contains_key("name") => None,
            None => {
                self.find("name", "a policy has a name", "such as name = \"web\"");
                None
            }
        }
    }

    fn hosts(&mut self, top: &Table) -> Option<Selector> {
        match self.text(top, "", "hosts") {
            Some(text) => match text.parse() {
                Ok(selector) => Some(selector),
                Err(error) => {
                    self.find(
                        "hosts",
                        format!("'{}' is no selector: {error}", escaped(&text)),
                        "such as hosts = \"role in (web, api), env=prod, !canary\"",
                    );
                    None
                }
            },
            None if top.contains_key("hosts") => None,
            None => {
                self.find(
                    "hosts",
                    "a policy says which hosts it is for",
                    "such as hosts = \"role=web\"; the empty selector means every host",
                );
                None
            }
        }
    }

    fn sources(&mut self, top: &Table) -> Vec<String> {
        let findings = self.findings.len();
        let written = self.texts(top, "sources").unwrap_or_default();
        let mut sources = BTreeSet::new();
        for source in &written {
            if let Some(source) = self.source(source)
                && !sources.insert(source.clone())
            {
                self.find("sources", format!("'{}' is there twice", escaped(&source)), "leave one out");
            }
        }
        if written.is_empty() && findings == self.findings.len() {
            self.find("sources", "a policy has at least one source", "such as sources = [\"/etc\", \"/srv\"]");
        }
        for source in &sources {
            if let Some(outer) = sources.iter().find(|outer| is_below(source, outer)) {
                let message =
                    format!("'{}' lies below '{}', which protects it already", escaped(source), escaped(outer));
                self.find("sources", message, "leave out the inner one");
            }
        }
        sources.into_iter().collect()
    }

    /// One source, without trailing slashes.
    fn source(&mut self, source: &str) -> Option<String> {
        if !source.starts_with('/') {
            let hint = if source.is_empty() {
                "such as \"/etc\"".to_owned()
            } else {
                format!("write the whole path, such as \"/{}\"", escaped(source))
            };
            self.find("sources", format!("'{}' is not an absolute path", escaped(source)), hint);
            return None;
        }
        let parts: Vec<&str> = source.split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| *part == "." || *part == "..") {
            self.find(
                "sources",
                format!("'{}' has '.' or '..' in it", escaped(source)),
                "write the path that is meant",
            );
            return None;
        }
        Some(format!("/{}", parts.join("/")))
    }

    fn exclude(&mut self, top: &Table) -> Vec<String> {
        let Some(patterns) = self.texts(top, "exclude") else {
            return DEFAULT_EXCLUDE.map(str::to_owned).to_vec();
        };
        for pattern in &patterns {
            let glob = pattern.strip_prefix('!').unwrap_or(pattern);
            let glob = glob.strip_suffix('/').unwrap_or(glob);
            let glob = glob.strip_prefix('/').unwrap_or(glob);
            if glob.is_empty() {
                self.find(
                    "exclude",
                    format!("'{}' leaves out nothing", escaped(pattern)),
                    "such as \"*.tmp\" or \"/srv/cache/**\"",
                );
            } else if let Err(error) = globset::GlobBuilder::new(glob).literal_separator(true).build() {
                self.find(
                    "exclude",
                    format!("'{}' is no glob: {}", escaped(pattern), escaped(&error.kind().to_string())),
                    "quote a bracket by [[] and []]",
                );
            }
        }
        patterns
    }

    /// The rules beside the patterns; nothing is left out by one that the file does not name.
    fn rules(&mut self, top: &Table) -> Rules {
        let rules = Rules {
            caches: self.yes(top, "exclude_caches"),
            if_present: self.texts(top, "exclude_if_present").unwrap_or_default(),
            nodump: self.yes(top, "exclude_nodump"),
            one_file_system: self.yes(top, "one_file_system"),
            larger_than: self.size(top, "exclude_larger_than"),
        };
        if let Err(error) = rules.check() {
            let (key, hint) = match &error {
                RulesError::Marker { .. } | RulesError::TooMany { .. } => {
                    ("exclude_if_present", "such as exclude_if_present = [\".nobackup\"]")
                }
                RulesError::NoSize => ("exclude_larger_than", "leave it out for no limit"),
            };
            self.find(key, error.to_string(), hint);
        }
        rules
    }

    /// Whether a key says yes; an absent one says no.
    fn yes(&mut self, table: &Table, key: &str) -> bool {
        match table.get(key) {
            None => false,
            Some(Value::Boolean(yes)) => *yes,
            Some(other) => {
                self.find(key, format!("{key} is {}, not true or false", kind(other)), format!("write {key} = true"));
                false
            }
        }
    }

    /// A number of bytes, or a text with a unit.
    fn size(&mut self, table: &Table, key: &str) -> Option<u64> {
        let hint = "such as \"4GiB\", or a whole number of bytes";
        match table.get(key)? {
            Value::Integer(bytes) if *bytes >= 0 => return Some(bytes.unsigned_abs()),
            Value::Integer(bytes) => self.find(key, format!("{key} is {bytes}, not a size"), hint),
            Value::String(text) => match coord_shared::size::parse(text) {
                Ok(bytes) => return Some(bytes),
                Err(error) => self.find(key, format!("'{}' is {error}", escaped(text)), hint),
            },
            other => self.find(key, format!("{key} is {}, not a size", kind(other)), hint),
        }
        None
    }

    fn cron(&mut self, section: &Table, name: &str, default: &str) -> Option<CronLine> {
        let key = dotted(name, "cron");
        let text = match self.text(section, name, "cron") {
            Some(text) => text,
            None if section.contains_key("cron") => return None,
            None => default.to_owned(),
        };
        match text.parse() {
            Ok(line) => Some(line),
            Err(error) => {
                let error: crate::domain::schedule::CronError = error;
                self.find(&key, error.to_string(), format!("minute hour day month weekday, such as \"{default}\""));
                None
            }
        }
    }

    fn schedule(&mut self, top: &Table) -> Option<Calendar> {
        let section = self.section(top, "", "schedule", &["cron", "zone"]);
        let cron = self.cron(&section, "schedule", DEFAULT_CRON);
        let zone = match self.text(&section, "schedule", "zone") {
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

    fn full(&mut self, top: &Table) -> FullRule {
        let section = self.section(top, "", "full", &["day", "max_age_days"]);
        let day = match self.text(&section, "full", "day") {
            None => Weekday::Sunday,
            Some(text) => weekday_named(&text).unwrap_or_else(|| {
                let names = WEEKDAYS.map(|(_, name)| name);
                let hint = nearest(&text, names)
                    .map_or_else(|| format!("one of {}", names.join(", ")), |near| format!("did you mean {near}?"));
                self.find("full.day", format!("'{}' is no day of the week", escaped(&text)), hint);
                Weekday::Sunday
            }),
        };
        FullRule { day, max_age_days: self.number(&section, "full", "max_age_days", 1..=3650, 7) }
    }

    fn compression(&mut self, top: &Table) -> CompressionByLevel {
        let section = self.section(top, "", "compression", &["full", "differential"]);
        CompressionByLevel {
            full: self.compression_of(&section, "full", 3, 9),
            differential: self.compression_of(&section, "differential", 1, 6),
        }
    }

    /// Compression of one level; `zstd` and `gzip` are the defaults of the codecs' levels.
    fn compression_of(&mut self, table: &Table, key: &str, zstd: u32, gzip: u32) -> Compression {
        let name = dotted("compression", key);
        let section = self.section(table, "compression", key, &["codec", "level"]);
        let codec = match self.text(&section, &name, "codec") {
            None => Codec::Zstd,
            Some(text) => Codec::ALL.into_iter().find(|codec| codec.as_str() == text).unwrap_or_else(|| {
                self.find(&dotted(&name, "codec"), format!("'{}' is no codec", escaped(&text)), "zstd or gzip");
                Codec::Zstd
            }),
        };
        let default = match codec {
            Codec::Zstd => zstd,
            Codec::Gzip => gzip,
        };
        let most = codec.most().unsigned_abs();
        let level = self.number(&section, &name, "level", 1..=most, default);
        Compression { codec, level: i32::try_from(level).unwrap_or(codec.most()) }
    }

    fn verify(&mut self, top: &Table) -> Option<CronLine> {
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

fn is_below(inner: &str, outer: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    inner != "/" && inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
