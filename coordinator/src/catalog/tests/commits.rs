//! The commit of a backup: once, by the newest attempt, also late.

use std::time::Duration;

use coord_shared::ids::{Attempt, BackupId, Ordinal, RunId, Seq};
use coord_shared::left_out::LeftOutBy;
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};

use super::fixture::{Fleet, LEASE, sealed, unchanged};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{
    BackupStatus, Catalog, CatalogError, CheckRecord, CheckedArchive, Committed, LeftOutRecord, ReportOutcome,
    ReportedEvent, RunReport,
};

#[tokio::test]
async fn a_repeated_commit_answers_what_is_stored() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        fleet.ask(RunKind::Backup).await;
        let (run, attempt) = fleet.claim().await.unwrap();
        let commit = fleet.commit_of(run, attempt, 5, sealed(Level::Full, None, 1));
        assert_eq!(catalog.commit_backup(&commit).await.unwrap(), Committed::Committed(Seq(5)));
        assert_eq!(catalog.commit_backup(&commit).await.unwrap(), Committed::AlreadyThere(Seq(5)));
        let other = fleet.commit_of(run, attempt, 6, sealed(Level::Full, None, 1));
        assert_eq!(catalog.commit_backup(&other).await.unwrap(), Committed::OtherBackup(commit.backup));
        let record = catalog.run(run).await.unwrap().unwrap();
        assert_eq!((record.machine.state, record.backup), (RunState::Succeeded, Some(commit.backup)));
        let backup = catalog.backup_of_run(run).await.unwrap().unwrap();
        assert_eq!((backup.id, backup.seq, backup.status), (commit.backup, Seq(5), BackupStatus::Protected));
        assert_eq!(catalog.job(fleet.job).await.unwrap().unwrap().last_ordinal, Ordinal(5));
    })
    .await;
}

#[tokio::test]
async fn what_a_run_left_out_is_kept_with_its_commit_and_only_once() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        fleet.ask(RunKind::Backup).await;
        let (run, attempt) = fleet.claim().await.unwrap();
        let mut commit = fleet.commit_of(run, attempt, 1, sealed(Level::Full, None, 1));
        let count = |by, detail: &str, files| LeftOutRecord {
            by,
            detail: detail.to_owned(),
            files,
            folders: 2,
            bytes: u64::from(u32::MAX) + 1,
        };
        commit.left_out = vec![
            count(LeftOutBy::Pattern, "*.tmp", 3),
            count(LeftOutBy::Pattern, "a'; --", 0),
            count(LeftOutBy::Own, "", 1),
        ];
        catalog.commit_backup(&commit).await.unwrap();
        assert!(matches!(catalog.commit_backup(&commit).await.unwrap(), Committed::AlreadyThere(_)));
        assert_eq!(catalog.run_left_out(run).await.unwrap(), commit.left_out, "in the order of the report");
        assert_eq!(catalog.run_left_out(RunId::random()).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_late_commit_counts_until_the_next_attempt_is_claimed() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let fleet = Fleet::new(&catalog).await;
        let none = Duration::ZERO;
        let lapse = async || {
            let lapse = "UPDATE runs SET lease_until = now() - INTERVAL '1 s' WHERE lease_until IS NOT NULL";
            client.batch_execute(lapse).await.unwrap();
            catalog.reap_lapsed_runs(none, none, none).await.unwrap();
        };
        fleet.ask(RunKind::Backup).await;
        let (run, first) = fleet.claim().await.unwrap();
        lapse().await;
        let late = fleet.commit_of(run, first, 1, sealed(Level::Full, None, 1));
        assert_eq!(catalog.commit_backup(&late).await.unwrap(), Committed::Committed(Seq(1)));

        fleet.ask(RunKind::Backup).await;
        let (run, first) = fleet.claim().await.unwrap();
        lapse().await;
        fleet.beats().await;
        let (_, second) = fleet.claim().await.unwrap();
        let stale = fleet.commit_of(run, first, 2, sealed(Level::Full, None, 1));
        assert!(matches!(catalog.commit_backup(&stale).await.unwrap(), Committed::Refused(_)));
        let newest = fleet.commit_of(run, second, 3, sealed(Level::Full, None, 1));
        assert_eq!(catalog.commit_backup(&newest).await.unwrap(), Committed::Committed(Seq(3)));
        assert_eq!(catalog.backups_of_job(fleet.job, 10).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_run_never_commits() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let run = fleet.ask(RunKind::Backup).await;
        catalog.cancel_run(run).await.unwrap();
        let commit = fleet.commit_of(run, Attempt(1), 1, sealed(Level::Full, None, 1));
        assert!(matches!(catalog.commit_backup(&commit).await.unwrap(), Committed::Refused(_)));
        assert_eq!(catalog.newest_backup(fleet.job).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_cannot_be_stored_leaves_the_run_as_it_was() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let full = fleet.back_up(1, sealed(Level::Full, None, 1)).await;
        fleet.ask(RunKind::Backup).await;
        let (run, attempt) = fleet.claim().await.unwrap();
        let baseless = fleet.commit_of(run, attempt, 2, sealed(Level::Differential, Some(BackupId::random()), 1));
        assert!(matches!(catalog.commit_backup(&baseless).await, Err(CatalogError::NotFound { .. })));
        let reused = fleet.commit_of(run, attempt, 1, sealed(Level::Differential, Some(full), 1));
        assert!(matches!(catalog.commit_backup(&reused).await, Err(CatalogError::Taken { .. })));
        assert_eq!(catalog.run(run).await.unwrap().unwrap().machine.state, RunState::Leased);
        let good = fleet.commit_of(run, attempt, 2, sealed(Level::Differential, Some(full), 1));
        assert_eq!(catalog.commit_backup(&good).await.unwrap(), Committed::Committed(Seq(2)));
    })
    .await;
}

#[tokio::test]
async fn a_restore_point_without_an_archive_shares_the_fate_of_the_one_it_names() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let full = fleet.back_up(1, sealed(Level::Full, None, 1)).await;
        let same = fleet.back_up(2, unchanged(full)).await;
        let again = fleet.back_up(3, unchanged(same)).await;
        let point = catalog.backup(again).await.unwrap().unwrap();
        assert_eq!((point.level, point.base, point.same_as), (Level::Differential, Some(full), Some(full)));
        assert_eq!(catalog.job(fleet.job).await.unwrap().unwrap().stored_bytes, 1000, "one archive");
        assert_eq!(catalog.chain_of(full).await.unwrap().len(), 2);
        let statuses = async || {
            let points = catalog.backups_of_job(fleet.job, 10).await.unwrap();
            points.iter().map(|point| point.status).collect::<Vec<_>>()
        };
        verify(&fleet, again, false).await;
        assert_eq!(statuses().await, [BackupStatus::Damaged; 3]);
        assert_eq!(catalog.newest_full(fleet.job).await.unwrap(), None);
        verify(&fleet, full, true).await;
        assert_eq!(statuses().await, [BackupStatus::Protected; 3]);
        assert_eq!(catalog.newest_full(fleet.job).await.unwrap().unwrap().id, full);
    })
    .await;
}

#[tokio::test]
async fn only_the_attempt_that_counts_says_what_a_verification_found() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let (fleet, other) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        let full = fleet.back_up(1, sealed(Level::Full, None, 1)).await;
        let status = async || catalog.backup(full).await.unwrap().unwrap().status;
        fleet.ask(RunKind::Verify).await;
        let (run, first) = fleet.claim().await.unwrap();
        let lapse = "UPDATE runs SET lease_until = now() - INTERVAL '1 s' WHERE lease_until IS NOT NULL";
        client.batch_execute(lapse).await.unwrap();
        catalog.reap_lapsed_runs(Duration::ZERO, Duration::ZERO, Duration::ZERO).await.unwrap();
        fleet.beats().await;
        let (_, second) = fleet.claim().await.unwrap();

        let stale = verified(&fleet, (run, first), full, false);
        assert!(matches!(catalog.accept_report(&stale).await.unwrap(), ReportOutcome::Refused(_)));
        assert_eq!(status().await, BackupStatus::Protected, "an attempt that was replaced");
        let newest = verified(&fleet, (run, second), full, true);
        assert!(matches!(catalog.accept_report(&newest).await.unwrap(), ReportOutcome::Taken(_)));
        let again = RunReport { sequence: 10, ..verified(&fleet, (run, second), full, false) };
        catalog.accept_report(&again).await.unwrap();
        assert_eq!(status().await, BackupStatus::Protected, "an attempt that has ended");
        verify(&other, full, false).await;
        assert_eq!(status().await, BackupStatus::Protected, "a run of another job");
    })
    .await;
}

/// The end of an attempt that read the archive of `backup`.
fn verified(fleet: &Fleet, (run, attempt): (RunId, Attempt), backup: BackupId, passed: bool) -> RunReport {
    let check = CheckRecord { name: "digest".to_owned(), passed, detail: String::new() };
    RunReport {
        host: fleet.host,
        session: fleet.session,
        run,
        attempt,
        sequence: 1,
        event: ReportedEvent::Succeeded { result: serde_json::json!({}), warnings_total: 0 },
        checked: vec![CheckedArchive { backup, checks: vec![check] }],
        lease: LEASE,
        retry_after: Duration::ZERO,
    }
}

async fn verify(fleet: &Fleet, backup: BackupId, passed: bool) {
    fleet.ask(RunKind::Verify).await;
    let claimed = fleet.claim().await.unwrap();
    let outcome = fleet.catalog.accept_report(&verified(fleet, claimed, backup, passed)).await.unwrap();
    assert!(matches!(outcome, ReportOutcome::Taken(_)));
}
