//! A policy key by key, as its file writes it, so that two versions can be compared and each value can be told. Made from what is
//! stored, so that a key that is added is here without being named.

use std::collections::{BTreeMap, BTreeSet};

use coord_shared::duration;
use serde_json::Value;

use super::Policy;

/// Keys that the file names otherwise than the stored form does.
const RENAMED: [(&str, &str); 6] = [
    ("rules.caches", "exclude_caches"),
    ("rules.if_present", "exclude_if_present"),
    ("rules.nodump", "exclude_nodump"),
    ("rules.one_file_system", "one_file_system"),
    ("rules.larger_than", "exclude_larger_than"),
    ("verify.calendar.cron", "verify.cron"),
];
/// Kept twice: the zone of verifications is that of the schedule, and what a policy was made of is in what it became.
const LEFT_OUT: [&str; 2] = ["verify.calendar.zone", "layers"];
/// Times in whole seconds end so in the stored form, and are written with a unit in the file.
const SECONDS: &str = "_s";

/// Bytes a second in the stored form, and texts in the file.
const RATES: [&str; 2] = ["limits.read", "limits.write"];

/// A key whose value differs between two policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// Dotted, as in the file.
    pub key: String,
    /// The value before, as the file writes it; empty when there was none.
    pub was: String,
    /// The value after; empty when there is none.
    pub becomes: String,
}

/// Every key with its value as the file writes it. What is not set is not there.
pub fn keys(policy: &Policy) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    // A policy is made of texts, numbers and lists: it always has a stored form.
    if let Ok(stored) = serde_json::to_value(policy) {
        add("", &stored, &mut keys);
    }
    keys
}

fn add(path: &str, value: &Value, keys: &mut BTreeMap<String, String>) {
    match value {
        _ if LEFT_OUT.contains(&path) => {}
        Value::Null => {}
        Value::Object(inner) => {
            for (key, value) in inner {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                add(&path, value, keys);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let (key, value) = as_written(path, value);
            keys.insert(key, value);
        }
    }
}

fn as_written(path: &str, value: &Value) -> (String, String) {
    // How runs begin is one thing here, and in the file beside the schedule and in a section of its own.
    let beside = path.strip_prefix("timing.");
    let moved =
        beside.map(|rest| if rest.starts_with("windows.") { rest.to_owned() } else { format!("schedule.{rest}") });
    let path = moved.as_deref().unwrap_or(path);
    let seconds = value.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
    if let Some((key, seconds)) = path.strip_suffix(SECONDS).zip(seconds) {
        return (key.to_owned(), format!("\"{}\"", duration::shown(seconds)));
    }
    if let (true, Some(bytes)) = (RATES.contains(&path), value.as_u64()) {
        return (path.to_owned(), format!("\"{bytes}B/s\""));
    }
    let renamed = RENAMED.into_iter().find(|(stored, _)| *stored == path);
    (renamed.map_or(path, |(_, written)| written).to_owned(), text(value))
}

/// A value as TOML writes it on one line.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let pairs: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {}", text(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn with_overrides(policy: &Policy) -> BTreeMap<String, String> {
    keys(policy).into_iter().chain(policy.override_keys()).collect()
}

/// The keys whose values differ, in their order. `None` is a policy that is not there.
pub fn changes(was: Option<&Policy>, becomes: Option<&Policy>) -> Vec<KeyChange> {
    let (was, becomes) = (was.map(with_overrides).unwrap_or_default(), becomes.map(with_overrides).unwrap_or_default());
    differing(&was, &becomes)
}

/// The same of keys and values that are there already.
pub fn differing(was: &BTreeMap<String, String>, becomes: &BTreeMap<String, String>) -> Vec<KeyChange> {
    let all: BTreeSet<&String> = was.keys().chain(becomes.keys()).collect();
    let value = |keys: &BTreeMap<String, String>, key: &String| keys.get(key).cloned().unwrap_or_default();
    all.into_iter()
        .filter(|key| was.get(*key) != becomes.get(*key))
        .map(|key| KeyChange { key: key.clone(), was: value(was, key), becomes: value(becomes, key) })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn policy(lines: &str) -> Policy {
        Policy::parse(&format!("name = \"web\"\nhosts = \"role=web\"\nsources = [\"/etc\"]\n{lines}\n")).unwrap()
    }

    #[test]
    fn every_value_is_told_under_the_key_and_in_the_words_of_the_file() {
        let policy = policy(
            "exclude = [\"*.tmp\", \"a\\\"b\"]\nexclude_caches = true\nexclude_larger_than = 10\n\
             schedule = { cron = \"0 2 * * *\", zone = \"Europe/Berlin\", jitter = \"20m\" }\nwindows = { allowed = [\"00:00-12:00\"] }\nfull = { day = \"monday\" }\n\
             objectives = { rpo = \"26h\" }",
        );
        let keys = keys(&policy);
        for (key, value) in [
            ("name", "\"web\""),
            ("hosts", "\"role=web\""),
            ("sources", "[\"/etc\"]"),
            ("exclude_caches", "true"),
            ("exclude_larger_than", "10"),
            ("exclude_if_present", "[]"),
            ("one_file_system", "false"),
            ("schedule.zone", "\"Europe/Berlin\""),
            ("verify.cron", "\"0 6 * * *\""),
            ("schedule.jitter", "\"20m\""),
            ("schedule.catch_up", "\"latest\""),
            ("windows.allowed", "[\"00:00-12:00\"]"),
            ("full.day", "\"monday\""),
            ("full.max_age_days", "7"),
            ("objectives.rpo", "\"26h\""),
            ("compression.full.codec", "\"zstd\""),
        ] {
            assert_eq!(keys.get(key).map(String::as_str), Some(value), "{key} of {keys:?}");
        }
        assert!(
            !keys.contains_key("objectives.rto")
                && !keys.contains_key("verify.zone")
                && !keys.contains_key("windows.blackout"),
            "{keys:?}"
        );
        assert!(
            keys.keys().all(|key| !key.starts_with("rules") && !key.contains("calendar") && !key.contains("timing")),
            "{keys:?}"
        );
    }

    #[test]
    fn written_out_key_by_key_a_policy_reads_as_the_same_one() {
        let policy = policy(
            "exclude = [\"*.tmp\", \"a\\\"b\\u001b\"]\nexclude_nodump = true\nobjectives = { rpo = \"26h\", rto = \"90s\" }\n\
             schedule = { cron = \"0 22 * * *\", jitter = \"30m\", max_duration = \"6h\", catch_up = \"all\" }\n\
             windows = { allowed = [\"20:00-06:00\"], blackout = [{ from = \"2026-12-24\", to = \"2026-12-26\", reason = \"a \\\"b\\\"\" }] }",
        );
        let text: String = keys(&policy).iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        assert_eq!(keys(&Policy::parse(&text).unwrap()), keys(&policy), "{text}");
    }

    #[test]
    fn what_differs_is_told_key_by_key_and_nothing_else() {
        let (one, two) = (policy("full = { day = \"monday\" }"), policy("objectives = { rto = \"2h\" }"));
        let told = |was, becomes| {
            let changes = changes(was, becomes).into_iter();
            changes.map(|change| format!("{}: {} > {}", change.key, change.was, change.becomes)).collect::<Vec<_>>()
        };
        assert_eq!(told(Some(&one), Some(&two)), ["full.day: \"monday\" > \"sunday\"", "objectives.rto:  > \"2h\""]);
        assert_eq!(told(Some(&one), Some(&one)), [] as [&str; 0]);
        assert!(told(None, Some(&one)).contains(&"sources:  > [\"/etc\"]".to_owned()));
    }
}
