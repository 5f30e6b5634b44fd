#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::domain::policy::changes;

const DEFAULT_FILE: &str = "kind = \"defaults\"\nexclude = [\"*.bak\"]\nfull = { day = \"monday\", max_age_days = 14 }\n\
                            schedule = { zone = \"Europe/Berlin\" }\n";

fn defaults(text: &str) -> Defaults {
    Defaults::parse(text).unwrap()
}

/// A small policy with more lines.
fn file(lines: &str) -> String {
    format!("name = \"web\"\nhosts = \"env=prod\"\nsources = [\"/etc\"]\n{lines}\n")
}

fn policy(lines: &str) -> Policy {
    Policy::parse(&file(lines)).unwrap()
}

fn findings(lines: &str) -> Vec<String> {
    let found = Policy::parse(&file(lines)).unwrap_err();
    found.into_iter().map(|finding| format!("{}: {}", finding.key, finding.message)).collect()
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn threshold(policy: &Policy, host: &str, of: &str) -> u32 {
    policy.for_host(host, &labels(of)).unwrap().diff_threshold_percent
}

#[test]
fn a_stronger_layer_replaces_key_by_key_and_lists_whole() {
    let text = file("schedule = { cron = \"0 3 * * *\" }\nfull = { day = \"sunday\" }");
    let policy = Policy::parse_over(&text, &defaults(DEFAULT_FILE)).unwrap();
    assert_eq!(policy.schedule.cron.as_str(), "0 3 * * *", "the file's own");
    assert_eq!(policy.schedule.zone.as_str(), "Europe/Berlin", "beside it, from the defaults");
    assert_eq!((policy.full.day, policy.full.max_age_days), (Policy::parse(&text).unwrap().full.day, 14));
    assert_eq!(policy.exclude, ["*.bak"], "a list is not added to");
    assert_eq!(policy.diff_threshold_percent, 50, "built in");
    let own = Policy::parse_over(&file("exclude = []"), &defaults(DEFAULT_FILE)).unwrap();
    assert_eq!(own.exclude, [] as [&str; 0]);
}

#[test]
fn an_override_for_one_host_is_stronger_than_one_for_a_label() {
    let policy = policy(
        "diff_threshold_percent = 40\n[[override]]\nhost = \"db-1\"\ndiff_threshold_percent = 10\n\
         [[override]]\nhosts = \"role=db\"\ndiff_threshold_percent = 20\nfull = { day = \"monday\" }",
    );
    assert_eq!(threshold(&policy, "web-1", "role=web"), 40);
    assert_eq!(threshold(&policy, "db-2", "role=db"), 20);
    assert_eq!(threshold(&policy, "db-1", "role=db"), 10, "whatever their order in the file");
    let both = policy.for_host("db-1", &labels("role=db")).unwrap();
    assert_ne!(both.full.day, policy.full.day, "the weaker one says what the stronger does not");
    let stored = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&stored).unwrap(), policy, "it survives the catalog");
}

#[test]
fn two_overrides_that_one_host_can_have_never_say_two_things_of_one_key() {
    let two = |one: &str, other: &str| {
        format!(
            "[[override]]\n{one}\nfull = {{ day = \"monday\" }}\n[[override]]\n{other}\nfull = {{ day = \"friday\" }}"
        )
    };
    for (one, other) in [
        ("hosts = \"role=db\"", "hosts = \"tier=gold\""),
        ("hosts = \"role in (db, web)\"", "hosts = \"role notin (web)\""),
        ("host = \"db-1\"", "host = \"db-1\""),
    ] {
        let found = findings(&two(one, other));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("override[2].full.day: override[1] ("), "{found:?}");
        assert!(found[0].ends_with("sets full.day otherwise, and a host can have both"), "{found:?}");
    }
    for (one, other) in [
        ("hosts = \"role=db\"", "hosts = \"role!=db\""),
        ("hosts = \"role=db\"", "hosts = \"tier=gold,!role\""),
        ("host = \"db-1\"", "host = \"db-2\""),
        ("host = \"db-1\"", "hosts = \"role=db\""),
    ] {
        assert!(Policy::parse(&file(&two(one, other))).is_ok(), "{one} and {other}");
    }
    let same = two("hosts = \"role=db\"", "hosts = \"tier=gold\"").replace("friday", "monday");
    assert!(Policy::parse(&file(&same)).is_ok(), "they agree");
}

#[test]
fn what_no_override_can_be_is_named() {
    for (lines, named) in [
        ("[[override]]\ndiff_threshold_percent = 10", "override[1]: an override says whom it is for"),
        (
            "[[override]]\nhost = \"a\"\nhosts = \"b\"\ndiff_threshold_percent = 10",
            "override[1]: an override says whom",
        ),
        ("[[override]]\nhosts = \"\"\ndiff_threshold_percent = 10", "override[1].hosts: an override for every host"),
        ("[[override]]\nhosts = \"a in b\"\ndiff_threshold_percent = 10", "override[1].hosts: 'a in b' is no selector"),
        ("[[override]]\nhost = \"a b\"\ndiff_threshold_percent = 10", "override[1].host: "),
        ("[[override]]\nhosts = \"a\"", "override[1]: an override with no key"),
        (
            "[[override]]\nhosts = \"a\"\nsources = [\"/srv\"]\none_file_system = true",
            "override[1].sources: sources is the same",
        ),
        ("[[override]]\nhosts = \"a\"\nful = { day = \"monday\" }", "override[1].ful: ful is no key"),
        ("[[override]]\nhosts = \"a\"\ndiff_threshold_percent = 0", "override[1].diff_threshold_percent: "),
        ("override = 7", "override: override is a whole number"),
        ("kind = \"policies\"", "kind: a policy's kind is"),
    ] {
        let found = findings(lines);
        assert!(found.len() == 1 && found[0].starts_with(named), "{lines}: {found:?}");
    }
}

#[test]
fn defaults_are_values_of_policies_and_nothing_that_only_a_policy_says() {
    assert!(Defaults::is_meant(DEFAULT_FILE) && !Defaults::is_meant(&file("")) && !Defaults::is_meant("kind = ["));
    let told = |text: &str| Defaults::parse(text).unwrap_err().remove(0);
    assert_eq!(told("kind = \"defaults\"\nhosts = \"a\"").key, "hosts");
    assert_eq!(told("kind = \"defaults\"\nfull = { day = \"someday\" }").key, "full.day");
    assert_eq!(told("kind = \"defaults\"\nfull = { dy = 1 }").key, "full.dy");
    let keys = defaults(DEFAULT_FILE).keys();
    assert_eq!(keys.get("full.day").map(String::as_str), Some("\"monday\""), "{keys:?}");
    assert_eq!(defaults("kind = \"defaults\"\n"), Defaults::default());
}

#[test]
fn every_value_says_which_layer_it_comes_from() {
    let text = file("full = { day = \"sunday\" }\n[[override]]\nhosts = \"role=db\"\nfull = { max_age_days = 3 }");
    let policy = Policy::parse_over(&text, &defaults(DEFAULT_FILE)).unwrap();
    let from = |host: Option<(&str, &BTreeMap<String, String>)>, key: &str| {
        let origin = policy.origins(&text, host).unwrap().into_iter().find(|origin| origin.key == key).unwrap();
        format!("{} from {}", origin.value, origin.from)
    };
    let (db, web) = (labels("role=db"), labels("role=web"));
    assert_eq!(from(Some(("db-1", &db)), "full.max_age_days"), "3 from override[1] (role=db)");
    assert_eq!(from(Some(("web-1", &web)), "full.max_age_days"), "14 from defaults");
    assert_eq!(from(Some(("db-1", &db)), "full.day"), "\"sunday\" from policy");
    assert_eq!(from(None, "full.max_age_days"), "14 from defaults", "of the policy, not of a host");
    assert_eq!(from(None, "diff_threshold_percent"), "50 from built in");
    let plain = file("exclude_caches = true");
    let origins = Policy::parse(&plain).unwrap().origins(&plain, None).unwrap();
    let caches = origins.iter().find(|origin| origin.key == "exclude_caches").unwrap();
    assert_eq!(caches.from, "policy", "also where there are no other layers");
}

#[test]
fn another_override_is_a_change_and_one_that_no_host_has_is_told() {
    let with = policy("[[override]]\nhosts = \"role=db\"\nfull = { day = \"monday\" }");
    let told = changes(Some(&policy("")), Some(&with));
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].key.as_str(), told[0].becomes.as_str()), ("override (role=db).full.day", "\"monday\""));
    let web = labels("role=web");
    assert_eq!(with.idle_overrides([("a", &web)].into_iter()), ["override[1] (role=db)"]);
    let db = labels("role=db");
    assert_eq!(with.idle_overrides([("a", &db)].into_iter()), [] as [&str; 0]);
}

#[test]
fn a_file_with_nothing_else_is_stored_as_before_there_were_layers() {
    let stored = serde_json::to_value(policy("")).unwrap();
    assert!(stored.get("layers").is_none(), "{stored}");
    let untouched = Policy::parse_over(&file("full = { day = \"friday\" }"), &defaults("full = { day = \"monday\" }"));
    assert!(untouched.unwrap().layers.is_empty(), "the defaults say nothing that the file does not");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_a_host_gets_is_what_the_strongest_layer_that_it_has_says(
        built in prop::option::of(1_u32..100),
        own in prop::option::of(1_u32..100),
        role in prop::option::of(1_u32..100),
        name in prop::option::of(1_u32..100),
        has_role: bool,
        is_named: bool,
    ) {
        let line = |value: Option<u32>| value.map_or_else(String::new, |value| format!("diff_threshold_percent = {value}\n"));
        let over = |who: &str, value: Option<u32>| {
            value.map_or_else(String::new, |value| format!("[[override]]\n{who}\ndiff_threshold_percent = {value}\n"))
        };
        let text = file(&format!("{}{}{}", line(own), over("host = \"db-1\"", name), over("hosts = \"role=db\"", role)));
        let policy = Policy::parse_over(&text, &defaults(&line(built))).unwrap();
        let host = if is_named { "db-1" } else { "db-2" };
        let got = threshold(&policy, host, if has_role { "role=db" } else { "role=web" });
        let wanted = name.filter(|_| is_named).or(role.filter(|_| has_role)).or(own).or(built).unwrap_or(50);
        prop_assert_eq!(got, wanted);
    }
}
