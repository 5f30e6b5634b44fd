//! Pauses: what they hold back, and how they end.

use coord_shared::ids::PolicyVersion;
use coord_shared::run::RunKind;
use jiff::{SignedDuration, Timestamp};

use super::fixture::{Fleet, LEASE};
use crate::catalog::testing::with_config;
use crate::catalog::{Catalog, PauseScope, PauseSet, ScheduleStep};
use crate::domain::timing::Owing;

async fn pause(catalog: &Catalog, scope: PauseScope, until: Option<Timestamp>) {
    let set = catalog.set_pause(scope, until, "new disks", "ada").await.unwrap();
    assert!(matches!(set, PauseSet::Paused(_)), "{set:?}");
}

#[tokio::test]
async fn what_waits_is_given_out_when_no_pause_holds_it_any_more_and_restores_are_at_once() {
    with_config(async |config| {
        let catalog = Catalog::new(config.clone()).unwrap();
        let (ours, theirs) = (Fleet::new(&catalog).await, Fleet::new(&catalog).await);
        ours.ask(RunKind::Backup).await;
        let scopes = |fleet: &Fleet| {
            [
                PauseScope { host: Some(fleet.host), policy: None },
                PauseScope { host: None, policy: Some(fleet.policy) },
                PauseScope { host: Some(fleet.host), policy: Some(fleet.policy) },
            ]
        };
        let sessions = [(ours.host, ours.session)];
        let claim = || catalog.claim_runs(&sessions, LEASE, 9);
        for scope in scopes(&theirs) {
            pause(&catalog, scope, None).await;
        }
        for scope in [PauseScope::default()].into_iter().chain(scopes(&ours)) {
            pause(&catalog, scope, None).await;
            assert!(claim().await.unwrap().is_empty(), "{scope:?}");
            let ended = catalog.end_pause(scope, "bob").await.unwrap().unwrap();
            assert_eq!((ended.scope, ended.paused_by.as_str()), (scope, "ada"));
            assert_eq!(catalog.end_pause(scope, "bob").await.unwrap(), None);
        }
        pause(&catalog, PauseScope::default(), None).await;
        let restore = ours.ask(RunKind::Restore).await;
        let claimed: Vec<_> = claim().await.unwrap().iter().map(|claimed| claimed.run).collect();
        assert_eq!(claimed, [restore], "somebody waits for it");
        assert!(catalog.end_pause(PauseScope::default(), "bob").await.unwrap().is_some());
        assert_eq!(claim().await.unwrap().len(), 1, "what is paused elsewhere holds nothing here");
    })
    .await;
}

#[tokio::test]
async fn a_pause_ends_by_itself_by_the_clock_of_the_database() {
    with_config(async |config| {
        let catalog = Catalog::new(config.clone()).unwrap();
        let (fleet, client) = (Fleet::new(&catalog).await, config.connect().await.unwrap());
        let (scope, now) = (PauseScope { host: Some(fleet.host), policy: None }, catalog.now().await.unwrap());
        pause(&catalog, scope, Some(now + SignedDuration::from_hours(1))).await;
        fleet.ask(RunKind::Backup).await;
        assert_eq!(fleet.claim().await, None);
        client.execute("UPDATE pauses SET since = now() - INTERVAL '2 hours', until = now()", &[]).await.unwrap();
        assert!(fleet.claim().await.is_some());
        let past = catalog.pauses_of(fleet.host, fleet.policy, now - SignedDuration::from_hours(1)).await.unwrap();
        assert_eq!(past.len(), 1, "what was due in it was paused");
        assert!(catalog.pauses(catalog.now().await.unwrap()).await.unwrap().is_empty());
        assert_eq!(catalog.end_pause(scope, "bob").await.unwrap(), None, "it is over already");
        pause(&catalog, scope, None).await;
        let two = catalog.pauses_of(fleet.host, fleet.policy, now - SignedDuration::from_hours(1)).await.unwrap();
        assert_eq!(two.iter().map(|pause| pause.until.is_none()).collect::<Vec<_>>(), [true, false]);
    })
    .await;
}

#[tokio::test]
async fn what_is_paused_is_paused_anew_and_what_is_owed_is_looked_at_again() {
    with_config(async |config| {
        let catalog = Catalog::new(config).unwrap();
        let fleet = Fleet::new(&catalog).await;
        let (scope, now) = (PauseScope { host: None, policy: Some(fleet.policy) }, catalog.now().await.unwrap());
        let over = catalog.set_pause(scope, Some(now), "new disks", "ada").await.unwrap();
        assert_eq!(over, PauseSet::Over, "a pause that would have ended");
        pause(&catalog, scope, None).await;
        let tomorrow = now + SignedDuration::from_hours(24);
        let owing = Owing::More { runs: 1, due_at: now, why: "paused".to_owned(), most: 1, from: tomorrow };
        let step = ScheduleStep {
            job: fleet.job,
            policy_version: PolicyVersion(1),
            kind: RunKind::Backup,
            seen_due_at: None,
            runs: Vec::new(),
            next_due_at: Some(tomorrow),
            owing,
        };
        catalog.schedule(&step).await.unwrap();
        let put_off = catalog.owed(fleet.job).await.unwrap().unwrap();
        assert!(catalog.owing_jobs(9, &[]).await.unwrap().is_empty());
        let PauseSet::Paused(again) = catalog.set_pause(scope, Some(tomorrow), "a move", "bob").await.unwrap() else {
            panic!("it is in force")
        };
        assert_eq!((again.until, again.reason.as_str(), again.paused_by.as_str()), (Some(tomorrow), "a move", "bob"));
        assert_eq!(catalog.pauses(now).await.unwrap().len(), 1, "there is one of each thing");
        assert_eq!(catalog.owing_jobs(9, &[]).await.unwrap(), [fleet.job]);
        assert!(!catalog.put_off(&put_off, tomorrow).await.unwrap(), "by what was known before");
        let owed = catalog.owed(fleet.job).await.unwrap().unwrap();
        assert!(catalog.put_off(&owed, tomorrow).await.unwrap());
        assert!(catalog.end_pause(scope, "bob").await.unwrap().is_some());
        assert_eq!(catalog.owing_jobs(9, &[]).await.unwrap(), [fleet.job]);
    })
    .await;
}
