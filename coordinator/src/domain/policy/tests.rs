#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use jiff::civil::Time;
use proptest::prelude::*;

use super::*;
use crate::domain::pace::{Rate, Span};
use crate::domain::timing::{CatchUp, Window};

const WHOLE: &str = r#"
name = "web"
hosts = "role in (web, api), env = prod, !canary"
sources = ["/srv", "/etc/"]
exclude = ["*.tmp", "!keep.tmp", "/srv/cache/**"]
exclude_caches = true
exclude_if_present = [".nobackup", ".skip"]
exclude_nodump = true
exclude_larger_than = "4GiB"
one_file_system = true
schedule = { cron = "30 1 * * 1-5", zone = "Europe/Berlin", jitter = "30m", max_start_delay = "2h", max_duration = "6h", catch_up = "all" }
windows = { allowed = ["sun-fri 20:00-06:00", "sat 06:00-24:00"], blackout = [{ from = "2026-12-24 18:00", to = 2026-12-26, reason = "closing" }] }
full = { day = "saturday", max_age_days = 14 }
diff_threshold_percent = 40
compression = { full = { codec = "gzip", level = 9 }, differential = { codec = "zstd", level = 2 } }
verify = { after_backup = true, cron = "0 7 * * *" }
objectives = { rpo = "26h", rto = "90m" }
priority = 80
limits = { read = "100MiB/s", write = "50MB/s", profile = [{ between = "22:00-06:00", write = "1GiB/s" }] }
"#;

fn findings(text: &str) -> Vec<Finding> {
    Policy::parse(text).expect_err("the file is wrong")
}

/// A small good policy with more lines.
fn with(lines: &str) -> String {
    format!("name = \"web\"\nhosts = \"role=web\"\nsources = [\"/etc\"]\n{lines}\n")
}

#[test]
fn every_key_is_read() {
    let policy = Policy::parse(WHOLE).unwrap();
    assert_eq!(policy.name.as_str(), "web");
    assert_eq!(policy.sources, ["/etc", "/srv"], "sorted, without trailing slashes");
    assert_eq!(policy.exclude, ["*.tmp", "!keep.tmp", "/srv/cache/**"], "in the order written");
    let if_present = vec![".nobackup".to_owned(), ".skip".to_owned()];
    let rules = Rules { caches: true, if_present, nodump: true, one_file_system: true, larger_than: Some(4 << 30) };
    assert_eq!(policy.rules, rules);
    assert_eq!((policy.schedule.cron.as_str(), policy.schedule.zone.as_str()), ("30 1 * * 1-5", "Europe/Berlin"));
    let timing = &policy.timing;
    assert_eq!((timing.jitter_s, timing.max_start_delay_s, timing.max_duration_s), (1800, Some(7200), Some(21_600)));
    assert_eq!(timing.catch_up, CatchUp::All);
    let texts: Vec<&str> = timing.windows.allowed.iter().map(Window::as_str).collect();
    assert_eq!(texts, ["sun-fri 20:00-06:00", "sat 06:00-24:00"]);
    let blackout = &timing.windows.blackout[0];
    assert_eq!(blackout.from.to_string(), "2026-12-24T17:00:00Z");
    assert_eq!(
        (blackout.to.to_string().as_str(), blackout.reason.as_str()),
        ("2026-12-26T23:00:00Z", "closing"),
        "the whole day"
    );
    assert_eq!(policy.full, FullRule { day: FullDay::Weekly(Weekday::Saturday), max_age_days: 14 });
    assert_eq!(policy.diff_threshold_percent, 40);
    assert_eq!(policy.compression.full, Compression { codec: Codec::Gzip, level: 9 });
    assert_eq!(policy.compression.differential, Compression { codec: Codec::Zstd, level: 2 });
    assert_eq!(policy.verify.calendar.zone, policy.schedule.zone, "one zone for the whole policy");
    assert_eq!(policy.objectives, Objectives { rpo_s: Some(26 * 3600), rto_s: Some(90 * 60) });
    assert_eq!(policy.priority, 80);
    let night = Span { from: 22 * 60, until: 6 * 60, rate: Rate { read: None, write: Some(1 << 30) } };
    let always = Rate { read: Some(100 << 20), write: Some(50_000_000) };
    assert_eq!(policy.limits, PaceRule { rate: always, profile: vec![night] });
    assert_eq!(policy.warnings(), []);
    let stored = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&stored).unwrap(), policy, "it survives the catalog");
}

#[test]
fn a_policy_of_three_lines_gets_the_documented_defaults() {
    let policy = Policy::parse(&with("")).unwrap();
    assert_eq!(policy.exclude, DEFAULT_EXCLUDE);
    assert_eq!(policy.rules, Rules::default(), "no rule is followed that nobody asked for");
    assert_eq!((policy.schedule.cron.as_str(), policy.schedule.zone.as_str()), ("0 2 * * *", "UTC"));
    assert_eq!(policy.timing, Timing::default(), "runs begin when they are due, at any time");
    assert_eq!(policy.verify.calendar.cron.as_str(), "0 6 * * *");
    assert_eq!(policy.full, FullRule { day: FullDay::Weekly(Weekday::Sunday), max_age_days: 7 });
    assert_eq!(policy.diff_threshold_percent, 50);
    assert_eq!(policy.objectives, Objectives::default(), "nothing is promised that nobody stated");
    assert_eq!((policy.priority, policy.limits.is_none()), (50, true));
    assert_eq!(policy.compression.full, Compression { codec: Codec::Zstd, level: 3 });
    assert_eq!(policy.compression.differential, Compression { codec: Codec::Zstd, level: 1 });
    let gzip =
        Policy::parse(&with("compression = { full = { codec = \"gzip\" }, differential = { codec = \"gzip\" } }"))
            .unwrap();
    assert_eq!((gzip.compression.full.level, gzip.compression.differential.level), (9, 6));
    assert_eq!(
        Policy::parse(&with("exclude = []")).unwrap().exclude,
        [] as [&str; 0],
        "the defaults can be overridden"
    );
}

#[test]
fn limits_that_stop_every_run_or_contradict_each_other_are_refused() {
    let span = |text: &str| format!("limits = {{ profile = [{text}] }}");
    for (lines, key, said) in [
        ("limits = { read = \"0MiB/s\" }".to_owned(), "limits.read", "would stop every run"),
        ("limits = { write = \"-5MiB/s\" }".to_owned(), "limits.write", "'-5MiB/s' is no rate"),
        ("limits = { read = \"5MiB\" }".to_owned(), "limits.read", "'5MiB' is no rate"),
        ("limits = { read = \"1KiB/s\" }".to_owned(), "limits.read", "no backup would end"),
        ("limits = { read = 100 }".to_owned(), "limits.read", "is a whole number, not a rate"),
        ("limits = { raed = \"5MiB/s\" }".to_owned(), "limits.raed", "is no key"),
        (span("{ read = \"5MiB/s\" }"), "limits.profile", "does not say when"),
        (span("{ between = \"8-18\" }"), "limits.profile.between", "no span of the day"),
        (span("{ between = \"25:00-26:00\" }"), "limits.profile.between", "no span of the day"),
        (span("{ between = \"08:00-08:00\" }"), "limits.profile.between", "no time at all"),
        (span("{ between = \"24:00-00:00\" }"), "limits.profile.between", "no time at all"),
        (
            span("{ between = \"00:00-24:00\" }, { between = \"05:00-07:00\" }"),
            "limits.profile",
            "the spans 00:00-24:00 and 05:00-07:00 of limits.profile overlap",
        ),
        (
            span("{ between = \"22:00-06:00\" }, { between = \"05:00-07:00\" }"),
            "limits.profile",
            "the spans 22:00-06:00 and 05:00-07:00 of limits.profile overlap",
        ),
        ("priority = 101".to_owned(), "priority", "not a whole number from 0 to 100"),
        ("priority = -1".to_owned(), "priority", "not a whole number from 0 to 100"),
    ] {
        let found = findings(&with(&lines));
        assert_eq!(found.len(), 1, "{lines}: {found:?}");
        assert_eq!(found[0].key, key, "{found:?}");
        assert!(found[0].message.contains(said), "{found:?}");
    }
    let touching = span("{ between = \"00:00-08:00\" }, { between = \"08:00-24:00\" }");
    assert_eq!(Policy::parse(&with(&touching)).err(), None, "one begins where the other ends");
    let always = Policy::parse(&with(&span("{ between = \"00:00-24:00\", read = \"5MiB/s\" }"))).unwrap();
    for (hour, minute) in [(0, 0), (12, 30), (23, 59)] {
        let read = always.limits.at(Time::constant(hour, minute, 0, 0)).read;
        assert_eq!(read, Some(5 << 20), "the whole day is a span too: {hour}:{minute}");
    }
}

#[test]
fn the_day_of_the_full_may_be_left_to_the_plan() {
    let levelled = Policy::parse(&with("full = { day = \"levelled\", max_age_days = 10 }")).unwrap();
    assert_eq!(levelled.full, FullRule { day: FullDay::Levelled, max_age_days: 10 });
    let stored = serde_json::to_string(&levelled).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&stored).unwrap(), levelled, "it survives the catalog");
}

#[test]
fn what_is_wrong_is_found_under_its_key() {
    for (lines, key, part) in [
        ("shedule = { cron = \"0 2 * * *\" }", "shedule", "did you mean schedule?"),
        ("retention = { days = 30 }", "retention", "not built yet"),
        ("objectives = { rpo = \"soon\" }", "objectives.rpo", "not a time"),
        ("objectives = { rto = \"0h\" }", "objectives.rto", "from a minute"),
        ("objectives = { rpo = 26 }", "objectives.rpo", "not a text"),
        ("objectives = { rpu = \"26h\" }", "objectives.rpu", "did you mean rpo?"),
        ("schedule = { cron = \"0 2 * * *\", zones = \"UTC\" }", "schedule.zones", "did you mean zone?"),
        ("schedule = { cron = \"61 2 * * *\" }", "schedule.cron", "no cron line"),
        ("schedule = { cron = \"0 2 30 2 *\" }", "schedule.cron", "never comes true"),
        ("schedule = { zone = \"Europe/Berlln\" }", "schedule.zone", "no time zone"),
        ("schedule = { cron = 5 }", "schedule.cron", "not a text"),
        ("schedule = \"0 2 * * *\"", "schedule", "not a table"),
        ("exclude = [\"[a\"]", "exclude", "no glob"),
        ("exclude = [\"\"]", "exclude", "leaves out nothing"),
        ("exclude = [\"!//\"]", "exclude", "leaves out nothing"),
        ("exclude = \"*.tmp\"", "exclude", "not a list"),
        ("exclude_caches = \"yes\"", "exclude_caches", "not true or false"),
        ("exclude_cache = true", "exclude_cache", "did you mean exclude_caches?"),
        ("one_file_system = 1", "one_file_system", "not true or false"),
        ("exclude_nodump = []", "exclude_nodump", "not true or false"),
        ("exclude_if_present = \".nobackup\"", "exclude_if_present", "not a list"),
        ("exclude_if_present = [\"a/b\"]", "exclude_if_present", "not the name of a file"),
        ("exclude_larger_than = \"4G\"", "exclude_larger_than", "not a size"),
        ("exclude_larger_than = -1", "exclude_larger_than", "not a size"),
        ("exclude_larger_than = 0", "exclude_larger_than", "leaves out every file"),
        ("exclude_larger_than = 1.5", "exclude_larger_than", "a fraction"),
        ("full = { day = \"sunda\" }", "full.day", "did you mean sunday?"),
        ("full = { day = \"leveled\" }", "full.day", "did you mean levelled?"),
        ("full = { max_age_days = 0 }", "full.max_age_days", "from 1 to"),
        ("diff_threshold_percent = 0", "diff_threshold_percent", "from 1 to 100"),
        ("diff_threshold_percent = 101", "diff_threshold_percent", "from 1 to 100"),
        ("diff_threshold_percent = -1", "diff_threshold_percent", "from 1 to 100"),
        ("diff_threshold_percent = 0.5", "diff_threshold_percent", "a fraction"),
        ("compression = { full = { codec = \"lz4\" } }", "compression.full.codec", "zstd or gzip"),
        ("compression = { full = { codec = \"gzip\", level = 12 } }", "compression.full.level", "from 1 to 9"),
        ("compression = { differential = { level = 20 } }", "compression.differential.level", "from 1 to 19"),
        ("compression = { fulls = { level = 3 } }", "compression.fulls", "did you mean full?"),
        ("verify = { after_backup = false }", "verify.after_backup", "cannot be switched off"),
        ("verify = { cron = \"x\" }", "verify.cron", "no cron line"),
    ] {
        assert_one_finding(lines, key, part);
    }
}

#[test]
fn what_is_wrong_with_windows_and_limits_of_time_is_found_under_its_key() {
    for (lines, key, part) in [
        ("windows = []", "windows", "not a table"),
        ("windows = {}", "windows", "neither allowed windows nor blackouts"),
        ("windows = { allow = [] }", "windows.allow", "did you mean allowed?"),
        ("windows = { allowed = [] }", "windows.allowed", "is empty"),
        ("windows = { allowed = \"20:00-06:00\" }", "windows.allowed", "not a list"),
        ("windows = { allowed = [5] }", "windows.allowed", "not a text"),
        ("windows = { allowed = [\"20:00-20:00\"] }", "windows.allowed", "an empty window"),
        ("windows = { allowed = [\"mon 00:00-06:00\", \"sun 22:00-02:00\"] }", "windows.allowed", "overlap"),
        ("windows = { allowed = [\"20:00-22:00\"] }", "windows.allowed", "ever due inside the allowed windows"),
        ("windows = { blackout = [] }", "windows.blackout", "is empty"),
        (
            "windows = { blackout = [{ from = \"2026-12-24\", to = \"2026-12-23\", reason = \"r\" }] }",
            "windows.blackout",
            "ends before it has begun",
        ),
        (
            "windows = { blackout = [{ from = \"2026-12-24\", to = \"2026-12-26\", reason = \"r\" }, { from = \"2026-12-26\", to = \"2026-12-27\", reason = \"s\" }] }",
            "windows.blackout",
            "'r' and 's' overlap",
        ),
        (
            "windows = { blackout = [{ from = \"2026-12-24\", to = \"2026-12-26\" }] }",
            "windows.blackout.reason",
            "says why",
        ),
        (
            "windows = { blackout = [{ from = \"24 December\", to = \"2026-12-26\", reason = \"r\" }] }",
            "windows.blackout.from",
            "no date and no local time",
        ),
        ("schedule = { jitter = \"25h\" }", "schedule.jitter", "larger than the period of the schedule"),
        ("schedule = { cron = \"*/10 * * * *\", jitter = \"11m\" }", "schedule.jitter", "runs are 10m apart"),
        ("schedule = { jitter = \"0m\" }", "schedule.jitter", "not a time from a minute"),
        ("schedule = { jitter = 30 }", "schedule.jitter", "not a text"),
        ("schedule = { max_start_delay = \"soon\" }", "schedule.max_start_delay", "not a time"),
        ("schedule = { max_duration = \"32d\" }", "schedule.max_duration", "to 31 days"),
        ("schedule = { catch_up = \"last\" }", "schedule.catch_up", "latest"),
    ] {
        assert_one_finding(lines, key, part);
    }
}

fn assert_one_finding(lines: &str, key: &str, part: &str) {
    let found = findings(&with(lines));
    assert_eq!(found.len(), 1, "{lines}: {found:?}");
    assert_eq!(found[0].key, key, "{lines}");
    assert!(format!("{} {}", found[0].message, found[0].hint).contains(part), "{lines}: {:?}", found[0]);
}

#[test]
fn sources_that_cannot_be_are_refused() {
    for (sources, part) in [
        ("[]", "at least one source"),
        ("[\"etc\"]", "not an absolute path"),
        ("[\"\"]", "not an absolute path"),
        ("[\"/etc/../srv\"]", "'.' or '..'"),
        ("[\"/etc\", \"/etc/\"]", "twice"),
        ("[\"/etc\", \"/etc/nginx\"]", "lies below"),
        ("[\"/\", \"/etc\"]", "lies below"),
        ("[1]", "not a text"),
        ("\"/etc\"", "not a list"),
        ("[\"/a\\u0000b\"]", "NUL"),
    ] {
        let found = findings(&format!("name = \"web\"\nhosts = \"\"\nsources = {sources}\n"));
        assert_eq!(found.len(), 1, "{sources}: {found:?}");
        assert!(found[0].message.contains(part), "{sources}: {:?}", found[0]);
    }
    let neighbours =
        Policy::parse("name = \"a\"\nhosts = \"x\"\nsources = [\"/etc\", \"/etcetera\", \"/srv//data/\"]").unwrap();
    assert_eq!(neighbours.sources, ["/etc", "/etcetera", "/srv/data"]);
    assert_eq!(
        Policy::parse("name = \"a\"\nhosts = \"x\"\nsources = [\"/\"]").unwrap().relative_sources(),
        [b"".to_vec()]
    );
}

#[test]
fn everything_is_found_in_one_pass() {
    let found =
        findings("nam = \"web\"\nsources = [\"x\"]\nhosts = \"a b\"\nschedule = { cron = \"\", zone = \"x\" }\n");
    let keys: Vec<&str> = found.iter().map(|finding| finding.key.as_str()).collect();
    assert_eq!(keys, ["nam", "name", "hosts", "sources", "schedule.cron", "schedule.zone"]);
}

#[test]
fn a_file_that_is_no_toml_names_the_line() {
    let found = findings("name = \"web\"\nsources = [\"/etc\"\nhosts");
    assert!(found[0].message.contains("is not TOML"), "{found:?}");
    let found = findings("name = \"web\"\nname = \"web\"\n");
    assert!(found[0].message.contains("line 2"), "{found:?}");
    assert!(findings(&"#".repeat(MAX_FILE + 1))[0].message.contains("at most"));
}

#[test]
fn the_selector_for_every_host_is_allowed_with_a_warning() {
    let policy = Policy::parse("name = \"all\"\nhosts = \"\"\nsources = [\"/etc\"]").unwrap();
    assert_eq!(policy.warnings()[0].key, "hosts");
}

#[test]
fn a_blackout_that_begins_at_a_time_that_comes_twice_or_never_names_both_instants() {
    for (from, part) in [
        ("2027-10-31 02:30", "comes twice in Europe/Berlin: at 2027-10-31T00:30:00Z and at 2027-10-31T01:30:00Z"),
        ("2027-03-28 02:30", "skips '2027-03-28 02:30': it is 2027-03-28T00:30:00Z or 2027-03-28T01:30:00Z"),
    ] {
        let lines = |from: &str| {
            format!(
                "schedule = {{ zone = \"Europe/Berlin\" }}\n\
                 windows = {{ blackout = [{{ from = \"{from}\", to = \"2027-12-01\", reason = \"r\" }}] }}"
            )
        };
        let found = findings(&with(&lines(from)));
        assert!(found[0].message.contains(part), "{found:?}");
        assert!(Policy::parse(&with(&lines("2027-10-31T02:30:00+01:00"))).is_ok(), "an offset says which");
    }
}

#[test]
fn windows_that_a_schedule_or_a_full_day_misses_are_warned_of() {
    let keys = |lines: &str| -> Vec<String> {
        Policy::parse(&with(lines)).unwrap().warnings().into_iter().map(|warning| warning.key).collect()
    };
    let hourly = "schedule = { cron = \"0 * * * *\" }\nwindows = { allowed = [\"20:00-06:00\"] }";
    assert_eq!(keys(hourly), ["windows.allowed"]);
    assert_eq!(keys("windows = { allowed = [\"mon-sat 00:00-24:00\"] }"), ["windows.allowed", "full.day"]);
    let weekdays = "schedule = { cron = \"0 2 * * 1-5\" }\nfull = { day = \"friday\" }\nwindows = { allowed = [\"mon-fri 01:00-05:00\"] }";
    assert_eq!(keys(weekdays), [] as [&str; 0]);
}

#[test]
fn every_example_of_the_document_on_selection_is_part_of_a_policy() {
    let document = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SELECTION.md"));
    let examples: Vec<&str> = document.split("```selection\n").skip(1).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let (keys, _) = example.split_once("\n\n").unwrap();
        assert!(Policy::parse(&with(keys)).is_ok(), "{keys}");
    }
}

#[test]
fn every_example_of_the_guide_is_part_of_a_policy() {
    let guide = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/POLICY.md"));
    let examples: Vec<&str> = guide.split("```policy\n").skip(1).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let (keys, _) = example.split_once("\n```").unwrap();
        assert_eq!(Policy::parse(&with(keys)).err(), None, "{keys}");
    }
}

#[test]
fn another_rule_is_another_selection_and_a_policy_of_before_there_were_any_has_none() {
    let plain = Policy::parse(&with("")).unwrap();
    for rule in ["exclude_caches = true", "exclude_larger_than = 1000", "exclude_if_present = [\"x\"]"] {
        assert_ne!(Policy::parse(&with(rule)).unwrap().selection(), plain.selection(), "{rule}");
    }
    let mut stored = serde_json::to_value(&plain).unwrap();
    stored.as_object_mut().unwrap().remove("rules");
    stored.as_object_mut().unwrap().remove("objectives");
    stored.as_object_mut().unwrap().remove("priority");
    stored.as_object_mut().unwrap().remove("timing");
    assert_eq!(serde_json::from_value::<Policy>(stored).unwrap(), plain);
}

#[test]
fn the_order_of_sources_is_no_other_selection_and_that_of_excludes_is() {
    let selection = |lines: &str| {
        serde_json::to_string(&Policy::parse(&format!("name = \"a\"\nhosts = \"x\"\n{lines}")).unwrap().selection())
            .unwrap()
    };
    assert_eq!(selection("sources = [\"/a\", \"/b\"]"), selection("sources = [\"/b/\", \"/a\"]"));
    assert_ne!(
        selection("sources = [\"/a\"]\nexclude = [\"*.x\", \"!b.x\"]"),
        selection("sources = [\"/a\"]\nexclude = [\"!b.x\", \"*.x\"]")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_file_is_read_or_refused_without_control_characters(text in "\\PC{0,200}", key in "[a-z_\\u{1b}]{1,12}") {
        for text in [text.clone(), with(&format!("{key:?} = {text:?}")), with(&format!("exclude = [{text:?}]"))] {
            if let Err(findings) = Policy::parse(&text) {
                prop_assert!(!findings.is_empty());
                for finding in findings {
                    prop_assert!(!finding.message.contains(char::is_control), "{:?}", finding);
                    prop_assert!(!finding.key.contains(char::is_control) && !finding.hint.contains(char::is_control), "{:?}", finding);
                }
            }
        }
    }
}
