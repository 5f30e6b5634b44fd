//! Where backups differ, and what is told of runs.

use std::sync::Arc;
use std::time::Duration;

use coord_archive::entry::{Entry, Kind};
use coord_shared::ids::{RunId, Seq};
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};

use super::fixture::{Fleet, LEASE, entry, file, sealed};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{
    Catalog, FaultRecord, MergeOutcome, NoteRecord, PhaseWord, ProgressRecord, ReportedEvent, RunBeat, RunEventKind,
    RunReport,
};

fn tree(changed: &[u8]) -> Vec<Entry> {
    let folders = [&b""[..], b"etc", b"srv", b"srv/a", b"srv/b"].map(|path| entry(path, Kind::Folder));
    let mut all: Vec<Entry> = folders.into();
    all.extend([file(b"etc/hosts", b"same"), file(b"srv/a/x", b"same"), file(b"srv/b/y", changed)]);
    all.sort_by(|one, other| coord_archive::entry::cmp_paths(&one.path, &other.path));
    all
}

#[tokio::test]
async fn only_folders_in_which_something_differs_are_looked_into() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let mut last = tree(b"two");
        last.retain(|entry| entry.path != b"srv/a/x");
        for (ordinal, entries) in [(1, tree(b"one")), (2, tree(b"two")), (3, last)] {
            let backup = fleet.back_up(ordinal, sealed(Level::Full, None, 1)).await;
            fleet.ingest(backup, &entries, 1000).await;
        }
        while catalog.merge_next(fleet.job).await.unwrap() != MergeOutcome::Nothing {}
        let seen = async |one: i64, other: i64, at: i64| -> Vec<String> {
            let within = catalog.changed_folders(fleet.job, Seq(one), Seq(other)).await.unwrap().unwrap();
            let mut walk = catalog.walk_subtree(fleet.job, Seq(at), b"", Some(Arc::new(within))).await.unwrap();
            let batch = walk.next_batch(1000).await.unwrap();
            batch.into_iter().map(|version| String::from_utf8(version.path).unwrap()).collect()
        };
        let named = ["", "etc", "srv", "srv/a", "srv/b"];
        assert_eq!(
            seen(1, 2, 2).await,
            [&named[..], &["srv/b/y"]].concat(),
            "etc and srv/a are named, not looked into"
        );
        assert_eq!(seen(2, 1, 1).await, [&named[..], &["srv/b/y"]].concat(), "in either order");
        assert_eq!(seen(2, 3, 2).await, [&named[..4], &["srv/a/x", "srv/b"]].concat());
        assert_eq!(seen(1, 1, 1).await, [""; 1].iter().chain(&["etc", "srv"]).copied().collect::<Vec<_>>());
    })
    .await;
}

async fn told(catalog: &Catalog, run: RunId) -> Vec<(String, u32, String)> {
    let events = catalog.run_events(run).await.unwrap();
    assert!(events.is_sorted_by(|one, next| one.number < next.number && one.at <= next.at), "{events:?}");
    events.into_iter().map(|event| (event.kind.as_str().to_owned(), event.attempt.get(), event.detail)).collect()
}

#[tokio::test]
async fn every_step_of_a_run_is_told_once_and_in_order() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let run = fleet.ask(RunKind::Backup).await;
        let report = |attempt, sequence, event| RunReport {
            host: fleet.host,
            session: fleet.session,
            run,
            attempt,
            sequence,
            event,
            checked: Vec::new(),
            lease: LEASE,
            retry_after: Duration::ZERO,
        };
        let (_, first) = fleet.claim().await.unwrap();
        let started = report(first, 1, ReportedEvent::Started);
        catalog.accept_report(&started).await.unwrap();
        catalog.accept_report(&started).await.unwrap();
        let (phase, files_total, bytes_total) = (PhaseWord::Packing, 2, 8);
        let progress = Some(ProgressRecord { phase, files_done: 1, files_total, bytes_done: 4, bytes_total });
        for _ in 0..2 {
            let beat = RunBeat { run, attempt: first, finished: false, progress };
            catalog.beat_runs(fleet.host, fleet.session, LEASE, &[beat]).await.unwrap();
        }
        let note = NoteRecord { path: b"x".to_vec(), kind: "unreadable".to_owned(), detail: String::new() };
        catalog.accept_report(&report(first, 2, ReportedEvent::Warnings(vec![note.clone(), note]))).await.unwrap();
        let fault = FaultRecord { code: "io".to_owned(), message: "it broke".to_owned(), hint: String::new() };
        let failed = ReportedEvent::Failed { fault, retryable: true, result: None, warnings_total: 2 };
        catalog.accept_report(&report(first, 3, failed)).await.unwrap();
        let (_, second) = fleet.claim().await.unwrap();
        let commit = fleet.commit_of(run, second, 1, sealed(Level::Full, None, 1));
        catalog.commit_backup(&commit).await.unwrap();
        fleet.ingest(commit.backup, &tree(b"one"), 1000).await;
        while catalog.merge_next(fleet.job).await.unwrap() != MergeOutcome::Nothing {}

        let all = told(&catalog, run).await;
        let all: Vec<(&str, u32, &str)> = all.iter().map(|(kind, n, detail)| (&kind[..], *n, &detail[..])).collect();
        let expected = [
            ("queued", 0, "asked for by ada"),
            ("leased", 1, ""),
            ("running", 1, ""),
            ("phase", 1, "packing"),
            ("warnings", 1, "2"),
            ("queued", 1, "it broke"),
            ("leased", 2, ""),
            ("succeeded", 2, ""),
            ("searchable", 2, ""),
        ];
        assert_eq!(all, expected);
    })
    .await;
}

#[tokio::test]
async fn of_a_run_without_end_the_first_events_are_kept() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let run = Fleet::new(&catalog).await.ask(RunKind::Verify).await;
        let many = "SELECT tell_run($1, 1, 'phase', repeat('x', 2000)) FROM generate_series(1, 700)";
        client.execute(many, &[&run.uuid()]).await.unwrap();
        let events = catalog.run_events(run).await.unwrap();
        assert_eq!((events.len(), events[0].kind), (500, RunEventKind::State(RunState::Queued)));
        assert_eq!(events[499].detail.len(), 500);
        let kept = client.query_one("SELECT count(*) FROM run_events WHERE run_id = $1", &[&run.uuid()]).await.unwrap();
        assert_eq!(kept.get::<_, i64>(0), 500);
    })
    .await;
}
