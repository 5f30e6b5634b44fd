#![expect(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const fn run(state: RunState, attempt: u32, cancelling: bool, reaped: bool) -> Run {
    Run { state, attempt: Attempt(attempt), max_attempts: 3, cancelling, reaped }
}

/// Every shape that a run can have, with two of three attempts claimed (or none, or all).
fn shapes() -> Vec<(&'static str, Run)> {
    vec![
        ("queued, new", run(RunState::Queued, 0, false, false)),
        ("queued, 2 failed", run(RunState::Queued, 2, false, false)),
        ("queued, 2 reaped", run(RunState::Queued, 2, false, true)),
        ("leased 2", run(RunState::Leased, 2, false, false)),
        ("leased 2, cancelling", run(RunState::Leased, 2, true, false)),
        ("running 2", run(RunState::Running, 2, false, false)),
        ("running 2, cancelling", run(RunState::Running, 2, true, false)),
        ("running 3, the last", run(RunState::Running, 3, false, false)),
        ("verifying 2", run(RunState::Verifying, 2, false, false)),
        ("verifying 2, cancelling", run(RunState::Verifying, 2, true, false)),
        ("succeeded 2", run(RunState::Succeeded, 2, false, false)),
        ("failed 2", run(RunState::Failed, 2, false, false)),
        ("failed 3, reaped", run(RunState::Failed, 3, false, true)),
        ("cancelled 2", run(RunState::Cancelled, 2, false, false)),
        ("missed", run(RunState::Missed, 0, false, false)),
    ]
}

fn events(newest: u32) -> Vec<(&'static str, Event)> {
    let same = Attempt(newest.max(1));
    let mut events = vec![
        ("claim", Event::Claim),
        ("held", Event::Held(same)),
        ("started", Event::Started(same)),
        ("sealed", Event::Sealed(same)),
        ("succeeded", Event::Succeeded(same)),
        ("failed", Event::Failed { attempt: same, retryable: false }),
        ("failed, retryable", Event::Failed { attempt: same, retryable: true }),
        ("stopped", Event::Stopped(same)),
        ("lost", Event::Lost(same)),
        ("reaped", Event::Reaped(same)),
        ("cancelled", Event::Cancelled),
        ("missed", Event::Missed),
        ("out of time", Event::OutOfTime),
        ("succeeded, next attempt", Event::Succeeded(same.next())),
    ];
    if newest > 1 {
        events.push(("succeeded, older attempt", Event::Succeeded(Attempt(newest - 1))));
        events.push(("held, older attempt", Event::Held(Attempt(newest - 1))));
    }
    events
}

fn show(run: Run) -> String {
    let mut text = format!("{} {}", run.state, run.attempt);
    if run.cancelling {
        text.push_str(", cancelling");
    }
    if run.reaped {
        text.push_str(", reaped");
    }
    if run.max_attempts > 3 {
        write!(text, ", of {}", run.max_attempts).unwrap();
    }
    text
}

#[test]
fn the_table_of_every_state_and_event_is_the_one_written_down() {
    let mut table = String::new();
    for (name, before) in shapes() {
        writeln!(table, "{name}").unwrap();
        for (event_name, event) in events(before.attempt.get()) {
            let after = match before.apply(event) {
                Ok(after) if after == before => "as it is".to_owned(),
                Ok(after) => show(after),
                Err(illegal) => format!("refused: {illegal}"),
            };
            writeln!(table, "    {event_name:<26} {after}").unwrap();
        }
        for finished in [false, true] {
            let held = Attempt(before.attempt.get().max(1));
            let holding = if finished { "host holds it, finished" } else { "host holds it" };
            writeln!(table, "    {holding:<26} host is told: {:?}", before.disposition(held, finished)).unwrap();
        }
    }
    let written = include_str!("table.txt");
    assert!(table == written, "run/table.txt differs; it should be:\n{table}");
}

#[test]
fn orders_that_are_lost_cost_no_attempt_until_many_were() {
    let mut now = Run::queued(3);
    for given in 1..MOST_ATTEMPTS {
        now = now.apply(Event::Claim).unwrap().apply(Event::Lost(Attempt(given))).unwrap();
        assert_eq!(now.state, RunState::Queued, "attempt {given}");
    }
    let begun = now.apply(Event::Claim).unwrap();
    assert_eq!(begun.apply(Event::Lost(begun.attempt)).unwrap().state, RunState::Failed);
    let other = Run::queued(1).apply(Event::Claim).unwrap().apply(Event::Started(Attempt(1))).unwrap();
    assert_eq!(other.apply(Event::Lost(Attempt(1))).unwrap().state, RunState::Failed, "the host had begun");
}

#[test]
fn every_word_survives_text_and_wire() {
    for kind in RunKind::ALL {
        assert_eq!(kind.as_str().parse::<RunKind>().unwrap(), kind);
        assert_eq!(RunKind::from_api(kind.to_api()), Some(kind));
    }
    for state in RunState::ALL {
        assert_eq!(state.as_str().parse::<RunState>().unwrap(), state);
        assert_eq!(RunState::from_api(state.to_api()), Some(state));
        assert_eq!(state.is_open(), RunState::OPEN.contains(&state));
    }
    assert!("done".parse::<RunState>().unwrap_err().to_string().contains("queued, leased"));
}

#[test]
fn a_host_that_was_cut_off_commits_the_planned_run_that_was_recorded_as_missed() {
    let missed = Run::queued(3).apply(Event::Missed).unwrap();
    assert_eq!(missed.disposition(Attempt(1), true), Disposition::Report);
    assert_eq!(missed.apply(Event::Succeeded(Attempt(1))).unwrap().state, RunState::Succeeded);
    assert!(missed.apply(Event::Succeeded(Attempt(2))).is_err());
}

#[test]
fn a_planned_run_that_was_missed_here_and_failed_at_its_host_does_not_succeed_by_a_report_said_again() {
    let missed = Run::queued(3).apply(Event::Missed).unwrap();
    let over = missed.apply(Event::Failed { attempt: Attempt(1), retryable: false }).unwrap();
    assert_eq!(over.state, RunState::Missed);
    assert_eq!(over.apply(Event::Succeeded(Attempt(1))), Err(Illegal::AttemptEnded(Attempt(1))));
    assert_eq!(over.disposition(Attempt(1), true), Disposition::Abort, "an archive of it never counts");
}

fn any_event() -> impl Strategy<Value = Event> {
    let attempt = (0u32..5).prop_map(Attempt);
    prop_oneof![
        3 => Just(Event::Claim),
        1 => attempt.clone().prop_map(Event::Held),
        1 => attempt.clone().prop_map(Event::Started),
        1 => attempt.clone().prop_map(Event::Sealed),
        1 => attempt.clone().prop_map(Event::Succeeded),
        1 => (attempt.clone(), any::<bool>()).prop_map(|(attempt, retryable)| Event::Failed { attempt, retryable }),
        1 => attempt.clone().prop_map(Event::Stopped),
        1 => attempt.clone().prop_map(Event::Lost),
        3 => attempt.prop_map(Event::Reaped),
        1 => Just(Event::Cancelled),
        1 => Just(Event::Missed),
        1 => Just(Event::OutOfTime),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn only_one_attempt_commits_and_only_the_newest(events in prop::collection::vec(any_event(), 0..40)) {
        let mut now = Run::queued(3);
        let mut committed = None;
        let mut cancelled = false;
        for event in events {
            let before = now;
            let Ok(after) = now.apply(event) else { continue };
            prop_assert!(after.attempt >= before.attempt, "attempts only grow");
            prop_assert!(after.attempt.get() <= after.max_attempts);
            let more = u32::from(before.state == RunState::Leased && !before.cancelling && matches!(event, Event::Lost(_)));
            prop_assert_eq!(after.max_attempts, (before.max_attempts + more).min(MOST_ATTEMPTS), "only a lost order adds one");
            if !before.state.is_open() && after != before {
                prop_assert!(
                    after.state == RunState::Succeeded || after.state == before.state,
                    "an ended run changes only by a late commit"
                );
            }
            if after.state == RunState::Succeeded && before.state != RunState::Succeeded {
                let Event::Succeeded(attempt) = event else { return Err(TestCaseError::fail("only a success commits")) };
                prop_assert!(committed.is_none(), "it committed twice");
                prop_assert!(!cancelled, "it committed after it was cancelled");
                prop_assert!(attempt == before.attempt || (before.attempt == Attempt(0) && attempt == Attempt(1)));
                committed = Some(attempt);
            }
            if committed.is_some() {
                prop_assert_eq!(after.state, RunState::Succeeded, "what has succeeded stays so");
            }
            cancelled |= after.state == RunState::Cancelled;
            if after.reaped {
                prop_assert!(matches!(after.state, RunState::Queued | RunState::Failed));
            }
            if after.cancelling {
                prop_assert!(RunState::HELD.contains(&after.state));
            }
            now = after;
        }
    }

    #[test]
    fn a_report_said_twice_changes_nothing_more(events in prop::collection::vec(any_event(), 0..20), last in any_event()) {
        let mut now = Run::queued(3);
        for event in events {
            now = now.apply(event).unwrap_or(now);
        }
        prop_assume!(!matches!(last, Event::Claim));
        if let Ok(once) = now.apply(last) {
            match once.apply(last) {
                Ok(twice) => prop_assert_eq!(twice, once),
                Err(_) => prop_assert!(matches!(last, Event::Reaped(_) | Event::Lost(_) | Event::Stopped(_) | Event::Failed { .. }), "{:?}", last),
            }
        }
    }

    #[test]
    fn an_open_run_can_always_end(events in prop::collection::vec(any_event(), 0..40)) {
        let mut now = Run::queued(3);
        for event in events {
            now = now.apply(event).unwrap_or(now);
        }
        for _ in 0..8 {
            if !now.state.is_open() { break; }
            now = now.apply(Event::Claim).or_else(|_| now.apply(Event::Reaped(now.attempt))).unwrap();
        }
        prop_assert!(!now.state.is_open(), "{now:?}");
    }
}
