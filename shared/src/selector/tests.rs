#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn matches(selector: &str, host: &str) -> bool {
    selector.parse::<Selector>().unwrap().matches(&labels(host))
}

#[test]
fn the_grammar_is_that_of_kubernetes() {
    let host = "env=prod role=web zone=";
    for holds in [
        "",
        "env=prod",
        "env==prod",
        "env = prod , role=web",
        "role in (web, db)",
        "role in(web)",
        "role notin (db)",
        "zone=",
        "zone",
        "!canary",
        "! canary",
        "tier!=gold",
        "tier notin (gold, silver)",
        "env!=dev",
        "role in (web, api), env = prod, !canary",
        "zone in (,a)",
    ] {
        assert!(matches(holds, host), "{holds}");
    }
    for fails in [
        "env=dev",
        "env!=prod",
        "role in (db)",
        "role notin (web)",
        "canary",
        "!env",
        "tier=gold",
        "tier in (gold)",
        "env=prod,role=db",
    ] {
        assert!(!matches(fails, host), "{fails}");
    }
    assert!(matches("in=in,notin notin (notin)", "in=in"), "the operators are words like others");
    assert!(matches("example.org/role=web", "example.org/role=web"));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_position() {
    for (text, position) in [
        ("env=prod,", 10),
        (",env", 1),
        ("env prod", 5),
        ("env=pr$d", 7),
        ("env in", 7),
        ("env in (a", 10),
        ("env in a", 8),
        ("!", 2),
        ("=a", 1),
        ("env=a=b", 6),
        ("(a)", 1),
        ("env=ä", 5),
        ("-a=b", 1),
        ("a/b/c=d", 1),
        ("env=-x", 5),
        ("!a=b", 3),
        ("a in (b))", 9),
    ] {
        let error = text.parse::<Selector>().unwrap_err();
        assert_eq!(error.position, position, "{text}: {error}");
    }
    assert!("a,".repeat(10_000).parse::<Selector>().is_err());
    assert!(!"a\u{1b}[2J".parse::<Selector>().unwrap_err().to_string().contains('\u{1b}'));
}

#[test]
fn the_selector_of_nothing_fits_no_host_and_can_be_stored() {
    for host in ["", "deleted=", "deleted=yes", "role=web"] {
        assert!(!Selector::nothing().matches(&labels(host)), "{host}");
    }
    assert_eq!(Selector::nothing().to_string().parse::<Selector>().unwrap(), Selector::nothing());
}

#[test]
fn labels_that_no_selector_could_name_are_refused() {
    assert!(check_label("env", "prod").is_ok() && check_label("a.b/c", "").is_ok());
    for (key, value) in
        [("", "a"), ("a b", "c"), ("a", "b c"), ("a", "-"), ("/a", "b"), ("a/", "b"), ("a", &"x".repeat(64))]
    {
        assert!(check_label(key, value).is_err(), "{key}={value}");
    }
}

/// A requirement as text, and what it means, said without the parser.
#[derive(Debug, Clone)]
struct Said {
    key: &'static str,
    operator: &'static str,
    values: Vec<&'static str>,
}

impl Said {
    fn text(&self) -> String {
        let (key, list) = (self.key, self.values.join(" , "));
        match self.operator {
            "exists" => key.to_owned(),
            "absent" => format!("! {key}"),
            "in" | "notin" => format!("{key} {} ({list})", self.operator),
            operator => format!("{key} {operator} {}", self.values[0]),
        }
    }

    fn holds(&self, host: &BTreeMap<String, String>) -> bool {
        let value = host.get(self.key).map(String::as_str);
        match self.operator {
            "exists" => value.is_some(),
            "absent" => value.is_none(),
            "=" | "==" => value == Some(self.values[0]),
            "!=" => value != Some(self.values[0]),
            "in" => value.is_some_and(|value| self.values.contains(&value)),
            _ => value.is_none_or(|value| !self.values.contains(&value)),
        }
    }
}

fn said() -> impl Strategy<Value = Vec<Said>> {
    let operators = prop::sample::select(vec!["exists", "absent", "=", "==", "!=", "in", "notin"]);
    let values = prop::collection::vec(prop::sample::select(vec!["x", "y", ""]), 1..3);
    let one = (prop::sample::select(vec!["a", "b", "in"]), operators, values);
    prop::collection::vec(one.prop_map(|(key, operator, values)| Said { key, operator, values }), 0..4)
}

fn read(said: &[Said]) -> Selector {
    said.iter().map(Said::text).collect::<Vec<_>>().join(",").parse().unwrap()
}

/// Hosts with every combination of what the labels can be; `other` stands for every value that no selector names.
fn hosts() -> Vec<BTreeMap<String, String>> {
    let values = [None, Some("x"), Some("y"), Some(""), Some("other")];
    let mut hosts = vec![BTreeMap::new()];
    for key in ["a", "b", "in"] {
        let with = |host: &BTreeMap<String, String>, value: Option<&str>| {
            let mut host = host.clone();
            host.extend(value.map(|value| (key.to_owned(), value.to_owned())));
            host
        };
        hosts = hosts.iter().flat_map(|host| values.map(|value| with(host, value))).collect();
    }
    hosts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_selector_fits_the_hosts_of_which_all_its_parts_hold(said in said()) {
        let selector = read(&said);
        for host in hosts() {
            prop_assert_eq!(selector.matches(&host), said.iter().all(|part| part.holds(&host)), "{} {:?}", selector, host);
        }
    }

    #[test]
    fn two_selectors_can_meet_when_some_host_could_fulfil_both(one in said(), other in said()) {
        let (one, other) = (read(&one), read(&other));
        let meet = hosts().iter().any(|host| one.matches(host) && other.matches(host));
        prop_assert_eq!(one.can_meet(&other), meet, "{} / {}", one, other);
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same(text in "[a-z!=,() ]{0,24}") {
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = text.parse::<Selector>();
    }
}
