#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn host(number: usize) -> HostId {
    HostId::from_uuid(uuid::Uuid::from_u128(number as u128 + 1))
}

fn member(number: usize, labels: &BTreeMap<String, String>) -> Member<'_> {
    Member { host: host(number), store: None, labels }
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
    assert!(slots.admit(&member(0, &labels("prod"))));
    assert!(!slots.admit(&member(1, &labels("prod"))), "the group is full");
    assert!(slots.admit(&member(2, &labels("test"))) && slots.admit(&member(2, &labels("test"))));
    assert!(!slots.admit(&member(2, &labels("test"))), "the host is full");
    assert!(!slots.is_full(), "another host may begin");
}

#[test]
fn what_runs_already_counts_even_where_it_is_more_than_the_limit_says() {
    let mut slots = Slots::new(vec![Bound { scope: Scope::Fleet, runs: 3 }]);
    slots.occupy(&member(0, &labels("prod")), 4);
    assert!(slots.is_full());
    assert!(!slots.admit(&member(1, &labels("prod"))));
}

#[test]
fn a_point_of_priority_is_worth_five_minutes_of_waiting() {
    let due = |minutes: i64, priority| Place { since_ms: minutes * 60_000, priority }.rank();
    assert!(due(60, 70) < due(0, 50), "an hour later, twenty points more");
    assert!(due(101, 70) > due(0, 50), "too late for twenty points");
    assert!(due(0, 50) < due(1, 50));
}

fn in_groups(groups: &[&str]) -> BTreeMap<String, String> {
    groups.iter().map(|group| ((*group).to_owned(), "yes".to_owned())).collect()
}

#[test]
fn who_waits_for_one_group_keeps_its_place_in_the_other() {
    let bounds =
        || vec![group("a=yes", 1), group("b=yes", 1), group("c=yes", 1), Bound { scope: Scope::EachHost, runs: 1 }];
    let mut slots = Slots::new(bounds());
    slots.occupy(&member(0, &in_groups(&["a"])), 1);
    assert!(!slots.admit(&member(1, &in_groups(&["a", "b"]))));
    assert!(!slots.admit(&member(2, &in_groups(&["b"]))), "the place in b is kept");
    assert!(!slots.admit(&member(3, &in_groups(&["a", "c"]))), "a is full");
    assert!(slots.admit(&member(4, &in_groups(&["c"]))), "one waits for a so, not every one");
    let mut slots = Slots::new(bounds());
    slots.occupy(&member(0, &in_groups(&["a"])), 1);
    slots.occupy(&member(1, &in_groups(&["a", "b"])), 1);
    assert!(!slots.admit(&member(1, &in_groups(&["a", "b"]))), "the host is full");
    assert!(!slots.admit(&member(5, &in_groups(&["b", "c"]))), "b is full");
    assert!(
        !slots.admit(&member(4, &in_groups(&["c"]))),
        "whom its own host holds back keeps nothing, so b and c were there to be kept"
    );
}

#[test]
fn a_target_counts_the_hosts_that_share_it_and_one_that_is_not_known_is_the_hosts_own() {
    let store = |number: u128| Some(ArchiveStoreId::from_uuid(uuid::Uuid::from_u128(number)));
    let (nowhere, prod) = (BTreeMap::new(), labels("prod"));
    let at = |number, store| Member { store, ..member(number, &nowhere) };
    let mut slots = Slots::new(vec![Bound { scope: Scope::EachTarget, runs: 2 }, group("env=prod", 1)]);
    slots.occupy(&at(0, store(7)), 1);
    assert!(slots.admit(&at(1, store(7))));
    assert!(!slots.admit(&at(0, store(7))) && !slots.admit(&at(2, store(7))), "the target is full");
    assert!(slots.admit(&at(3, store(8))), "another is not");
    assert!(slots.admit(&at(4, None)) && slots.admit(&at(4, None)) && !slots.admit(&at(4, None)), "the host itself");
    assert!(slots.admit(&at(5, None)), "whose target is not known shares it with nobody");
    assert!(!slots.is_full());
    let of_prod = |number, store| Member { store, ..member(number, &prod) };
    slots.occupy(&at(6, store(9)), 2);
    assert!(!slots.admit(&of_prod(7, store(9))), "its target is full");
    assert!(slots.admit(&member(8, &prod)), "who waits for a target keeps no place in a group from others");

    slots.occupy(&at(9, store(10)), 1);
    assert!(!slots.admit(&of_prod(10, store(10))), "its group is full");
    assert!(!slots.admit(&at(11, store(10))), "who waits for a group keeps its place at the target");
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
    (0i64..600, 0i32..=100, 1i64..60, 0usize..4).prop_map(|(due, priority, takes, host)| Wanted {
        due,
        priority,
        takes,
        host,
    })
}

/// Hosts by number: in no group, in one, in the other, in both.
fn labels_of(host: usize) -> BTreeMap<String, String> {
    in_groups([&[][..], &["a"], &["b"], &["a", "b"]][host % 4])
}

/// When each begins within these bounds.
fn begin(runs: &[Wanted], bounds: &[Bound]) -> Vec<i64> {
    let mut begun: Vec<Option<i64>> = vec![None; runs.len()];
    let mut minute = 0;
    while begun.iter().any(Option::is_none) {
        let mut slots = Slots::new(bounds.to_vec());
        for (run, at) in runs.iter().zip(&begun) {
            if at.is_some_and(|at| at <= minute && minute < at + run.takes) {
                slots.occupy(&member(run.host, &labels_of(run.host)), 1);
            }
        }
        let mut waiting: Vec<usize> =
            (0..runs.len()).filter(|n| begun[*n].is_none() && runs[*n].due <= minute).collect();
        waiting.sort_by_key(|number| place(runs, *number));
        for number in waiting {
            if slots.admit(&member(runs[number].host, &labels_of(runs[number].host))) {
                begun[number] = Some(minute);
            }
        }
        minute += 1;
    }
    begun.into_iter().map(Option::unwrap).collect()
}

fn place(runs: &[Wanted], number: usize) -> (i64, usize) {
    let run = &runs[number];
    (Place { since_ms: run.due * 60_000, priority: run.priority }.rank(), number)
}

#[test]
fn two_groups_that_are_busy_out_of_phase_keep_nobody_out() {
    let bounds = [group("a=yes", 1), group("b=yes", 1)];
    let steady =
        |host: usize, first: i64| (0..20).map(move |n| Wanted { due: first + n * 50, priority: 0, takes: 60, host });
    let mut runs: Vec<Wanted> = steady(1, 0).chain(steady(2, 30)).collect();
    runs.push(Wanted { due: 40, priority: 100, takes: 10, host: 3 });
    assert_eq!(begin(&runs, &bounds)[40], 90, "when those that went on have ended");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_run_begins_within_a_bound_whatever_the_others_are(runs in prop::collection::vec(wanted(), 1..60), most in 1u32..4) {
        let begun = begin(&runs, &[Bound { scope: Scope::Fleet, runs: most }, Bound { scope: Scope::EachHost, runs: most }]);
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

    #[test]
    fn every_run_begins_within_a_bound_where_groups_cross(
        runs in prop::collection::vec(wanted(), 40..120),
        most in (1u32..3, 1u32..3, 1u32..4, 1u32..5),
    ) {
        let (a, b, each_host, fleet) = most;
        let bounds = [
            group("a=yes", a),
            group("b=yes", b),
            Bound { scope: Scope::EachHost, runs: each_host },
            Bound { scope: Scope::Fleet, runs: fleet },
        ];
        let begun = begin(&runs, &bounds);
        let longest = runs.iter().map(|run| run.takes).max().unwrap_or(0);
        for (number, at) in begun.iter().enumerate() {
            // Whoever is the first of all that wait, waits until its host has room, and then until those that went on by then in its
            // groups have ended: nobody else gets in there. The fleet has room as soon as one of them has ended.
            let ahead: Vec<i64> =
                (0..runs.len()).filter(|n| place(&runs, *n) <= place(&runs, number)).map(|n| runs[n].due).collect();
            let last_due = ahead.iter().max().copied().unwrap_or(0);
            let bound = last_due + 2 * longest * i64::try_from(ahead.len()).unwrap();
            prop_assert!(*at <= bound, "{:?} begun at {at}, bound {bound}: {runs:?}", runs[number]);
        }
    }
}
