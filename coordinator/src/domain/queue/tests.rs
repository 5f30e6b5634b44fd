#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn host(number: usize) -> HostId {
    HostId::from_uuid(uuid::Uuid::from_u128(number as u128 + 1))
}

fn labels(env: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("env".to_owned(), env.to_owned())])
}

fn group(selector: &str, runs: u32) -> Bound {
    Bound { scope: Scope::Group(selector.parse().unwrap()), runs }
}

#[test]
fn a_limit_counts_the_hosts_that_it_means_and_no_others() {
    let mut slots = Slots::new(vec![group("env=prod", 1), Bound { scope: Scope::EachHost, runs: 2 }]);
    assert!(slots.admit(host(0), &labels("prod")));
    assert!(!slots.admit(host(1), &labels("prod")), "the group is full");
    assert!(slots.admit(host(2), &labels("test")) && slots.admit(host(2), &labels("test")));
    assert!(!slots.admit(host(2), &labels("test")), "the host is full");
    assert!(!slots.is_full(), "another host may begin");
}

#[test]
fn what_runs_already_counts_even_where_it_is_more_than_the_limit_says() {
    let mut slots = Slots::new(vec![Bound { scope: Scope::Fleet, runs: 3 }]);
    slots.occupy(host(0), &labels("prod"), 4);
    assert!(slots.is_full());
    assert!(!slots.admit(host(1), &labels("prod")));
}

#[test]
fn a_point_of_priority_is_worth_five_minutes_of_waiting() {
    let due = |minutes: i64, priority| Place { since_ms: minutes * 60_000, priority }.rank();
    assert!(due(60, 70) < due(0, 50), "an hour later, twenty points more");
    assert!(due(101, 70) > due(0, 50), "too late for twenty points");
    assert!(due(0, 50) < due(1, 50));
}

/// A run of the simulation: when it becomes due, its priority and how long it takes, in minutes.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    due: i64,
    priority: i32,
    takes: i64,
    host: usize,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (0i64..600, 0i32..=100, 1i64..60, 0usize..3).prop_map(|(due, priority, takes, host)| Wanted {
        due,
        priority,
        takes,
        host,
    })
}

/// When each begins, where `most` runs may go on at once in the fleet and as many on each host.
fn begin(runs: &[Wanted], most: u32) -> Vec<i64> {
    let rank = |run: &Wanted| Place { since_ms: run.due * 60_000, priority: run.priority }.rank();
    let mut begun: Vec<Option<i64>> = vec![None; runs.len()];
    let mut minute = 0;
    while begun.iter().any(Option::is_none) {
        let bounds = vec![Bound { scope: Scope::Fleet, runs: most }, Bound { scope: Scope::EachHost, runs: most }];
        let mut slots = Slots::new(bounds);
        for (run, at) in runs.iter().zip(&begun) {
            if at.is_some_and(|at| at <= minute && minute < at + run.takes) {
                slots.occupy(host(run.host), &BTreeMap::new(), 1);
            }
        }
        let mut waiting: Vec<usize> =
            (0..runs.len()).filter(|n| begun[*n].is_none() && runs[*n].due <= minute).collect();
        waiting.sort_by_key(|number| (rank(&runs[*number]), *number));
        for number in waiting {
            if slots.admit(host(runs[number].host), &BTreeMap::new()) {
                begun[number] = Some(minute);
            }
        }
        minute += 1;
    }
    begun.into_iter().map(Option::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_run_begins_within_a_bound_whatever_the_others_are(runs in prop::collection::vec(wanted(), 1..60), most in 1u32..4) {
        let begun = begin(&runs, most);
        for (run, at) in runs.iter().zip(&begun) {
            // Nobody who becomes due later than the head start of all points can get in front.
            let head_start = i64::from(100 - run.priority) * point_ms() / 60_000;
            let others = runs.iter().filter(|other| other.due <= run.due + head_start);
            let work: i64 = others.map(|other| other.takes).sum();
            // Those that went on when it became due may have begun out of any order; the rest is a queue.
            let longest = runs.iter().map(|other| other.takes).max().unwrap_or(0);
            let bound = run.due + work / i64::from(most) + longest;
            prop_assert!(*at <= bound, "due at {}, begun at {at}, bound {bound}: {runs:?}", run.due);
        }
    }
}
