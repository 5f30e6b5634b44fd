//! Tokens, certificates, sessions: who may come in, and which of two counts.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_shared::ids::{CoordinatorId, HostId, InstanceId};
use coord_shared::run::{RunKind, RunState};
use coord_shared::tls::PeerKind;

use super::fixture::{Fleet, agent_token, beat_of, new_certificate, new_host};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{
    Catalog, CatalogError, CertificateState, HostFacts, JobState, JoinOutcome, NewAudit, OlderGenerations, OpenSession,
    OpenedSession, OperatorRole, Relabelled, Relabelling, Revoked, TokenState,
};

#[tokio::test]
async fn a_token_admits_as_many_hosts_as_it_says_and_no_name_twice() {
    with_catalog(async |catalog| {
        let token = agent_token(&catalog, 2).await;
        let join = async |name: &str| {
            let host = HostId::random();
            let certificate = new_certificate(&host.to_string(), PeerKind::Agent, 1);
            let outcome = catalog.join_host(token, &new_host(host, name), &certificate).await.unwrap();
            (outcome, host, certificate)
        };
        let (outcome, host, certificate) = join("web").await;
        assert_eq!(outcome, JoinOutcome::Joined);
        let (outcome, refused, _) = join("web").await;
        assert_eq!(outcome, JoinOutcome::NameTaken);
        assert_eq!(catalog.host(refused).await.unwrap(), None);
        assert_eq!(catalog.token(token).await.unwrap().unwrap().uses_left, 1, "a refused join spends nothing");
        assert_eq!(join("db").await.0, JoinOutcome::Joined);
        assert_eq!(join("mail").await.0, JoinOutcome::Refused(TokenState::Used));
        let redemption = catalog.redemption(token, &certificate.public_key_sha256).await.unwrap().unwrap();
        assert_eq!((redemption.subject, redemption.serial), (host.to_string(), certificate.serial));
        assert!(redemption.age < Duration::from_secs(60));
    })
    .await;
}

#[tokio::test]
async fn hosts_that_join_at_once_with_one_use_are_one() {
    with_catalog(async |catalog| {
        let token = agent_token(&catalog, 1).await;
        let tries = (0..6).map(|number| {
            let (catalog, host) = (catalog.clone(), HostId::random());
            async move {
                let certificate = new_certificate(&host.to_string(), PeerKind::Agent, 1);
                catalog.join_host(token, &new_host(host, &format!("h{number}")), &certificate).await.unwrap()
            }
        });
        let outcomes = futures_util::future::join_all(tries).await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == JoinOutcome::Joined).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn wrong_secrets_end_a_token_and_so_does_time() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let token = agent_token(&catalog, 9).await;
        let state = async |token| catalog.token(token).await.unwrap().unwrap().state;
        for _ in 0..4 {
            catalog.record_token_failure(token).await.unwrap();
        }
        assert_eq!(state(token).await, TokenState::Active);
        catalog.record_token_failure(token).await.unwrap();
        assert_eq!(state(token).await, TokenState::Revoked);
        let old = agent_token(&catalog, 1).await;
        client.batch_execute("UPDATE tokens SET expires_at = now()").await.unwrap();
        assert_eq!(state(old).await, TokenState::Expired);
    })
    .await;
}

#[tokio::test]
async fn a_generation_ends_with_the_first_use_of_the_next() {
    with_catalog(async |catalog| {
        let subject = HostId::random().to_string();
        let (old, new) = (new_certificate(&subject, PeerKind::Agent, 1), new_certificate(&subject, PeerKind::Agent, 2));
        for certificate in [&old, &new, &new] {
            catalog.insert_certificate(certificate).await.unwrap();
        }
        let state = async |serial: &str| catalog.certificate(serial).await.unwrap().unwrap().state;
        catalog.record_certificate_use(&old.serial, OlderGenerations::End).await.unwrap();
        let newest_used =
            async || catalog.newest_used_certificate(PeerKind::Agent, &subject).await.unwrap().unwrap().serial;
        assert_eq!(newest_used().await, old.serial);
        assert_eq!(state(&old.serial).await, CertificateState::Active);
        catalog.record_certificate_use(&new.serial, OlderGenerations::End).await.unwrap();
        assert_eq!(state(&old.serial).await, CertificateState::Replaced);
        assert_eq!(newest_used().await, new.serial);
        let rival = new_certificate(&subject, PeerKind::Agent, 2);
        assert!(matches!(catalog.insert_certificate(&rival).await, Err(CatalogError::Taken { .. })));
        assert_eq!(catalog.revoke_certificates(PeerKind::Agent, &subject).await.unwrap(), 2);
        assert_eq!(state(&new.serial).await, CertificateState::Revoked);
    })
    .await;
}

#[tokio::test]
async fn of_two_sessions_that_open_at_once_one_wins() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let open = || OpenSession {
            host: fleet.host,
            seen: fleet.session,
            instance: InstanceId::random(),
            coordinator: fleet.coordinator,
            facts: HostFacts { hostname: "web".to_owned(), ..HostFacts::default() },
            archive_folder: Vec::new(),
            archive_store: None,
            clock_offset_us: -5,
        };
        let (one, two) = (open(), open());
        let (first, second) = tokio::join!(catalog.open_session(&one), catalog.open_session(&two));
        let opened: Vec<_> = [first.unwrap(), second.unwrap()]
            .into_iter()
            .filter_map(|outcome| match outcome {
                OpenedSession::Opened(number) => Some(number),
                OpenedSession::Changed(_) => None,
            })
            .collect();
        assert_eq!(opened, [fleet.session.next()]);
        assert!(!catalog.touch_session(fleet.host, fleet.session, 0).await.unwrap(), "the old one is fenced");
        assert!(catalog.touch_session(fleet.host, opened[0], 3).await.unwrap());
        let host = catalog.host(fleet.host).await.unwrap().unwrap();
        assert!(host.connected);
        assert_eq!((host.hostname.as_str(), host.clock_offset_us), ("web", 3));
        assert!(!catalog.close_session(fleet.host, fleet.session).await.unwrap());
        assert!(catalog.close_session(fleet.host, opened[0]).await.unwrap());
        assert!(!catalog.host(fleet.host).await.unwrap().unwrap().connected);
    })
    .await;
}

#[tokio::test]
async fn a_host_whose_coordinator_is_gone_is_not_connected() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        assert!(catalog.host_session(fleet.host).await.unwrap().coordinator_alive);
        catalog.forget_coordinator(fleet.coordinator).await.unwrap();
        let session = catalog.host_session(fleet.host).await.unwrap();
        assert!(session.open && !session.coordinator_alive);
        assert!(!catalog.host(fleet.host).await.unwrap().unwrap().connected);
        assert!(catalog.coordinators().await.unwrap().iter().all(|other| other.id != fleet.coordinator));
        let (id, time) = (CoordinatorId::random(), Duration::from_secs(1));
        catalog.beat_coordinator(beat_of(id), time, time).await.unwrap();
        assert_eq!(catalog.coordinators().await.unwrap().last().map(|other| other.id), Some(id));
    })
    .await;
}

#[tokio::test]
async fn a_grant_never_lowers_a_role() {
    with_catalog(async |catalog| {
        for (number, (had, granted)) in
            OperatorRole::ALL.into_iter().flat_map(|had| OperatorRole::ALL.map(|granted| (had, granted))).enumerate()
        {
            let name = format!("ada-{number}");
            catalog.grant_operator(&name, had).await.unwrap();
            catalog.grant_operator(&name, granted).await.unwrap();
            let has = catalog.operator(&name).await.unwrap().unwrap().role;
            assert_eq!(has, had.max(granted), "{had}, granted {granted}");
        }
    })
    .await;
}

fn deed(subject: &str) -> NewAudit<'_> {
    let (actor, action, details) = ("root", "user_disabled", serde_json::json!({}));
    NewAudit { actor_kind: PeerKind::Operator, actor, action, subject, details }
}

#[tokio::test]
async fn of_two_admins_that_put_each_other_out_one_stays() {
    with_catalog(async |catalog| {
        for name in ["ada", "bob"] {
            catalog.grant_operator(name, OperatorRole::Admin).await.unwrap();
        }
        let (ada, bob) = (deed("ada"), deed("bob"));
        let (one, two) = tokio::join!(catalog.revoke_operator("ada", &ada), catalog.revoke_operator("bob", &bob));
        let mut outcomes = [one.unwrap(), two.unwrap()];
        outcomes.sort_by_key(|outcome| *outcome != Revoked::Now);
        assert_eq!(outcomes, [Revoked::Now, Revoked::LastAdmin]);
        assert_eq!(catalog.audit_log(10).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_put_out_holds_nothing_any_more() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let held = fleet.ask(RunKind::Backup).await;
        fleet.claim().await.unwrap();
        let queued = fleet.ask(RunKind::Verify).await;
        let subject = fleet.host.to_string();
        assert_eq!(catalog.revoke_host(fleet.host, &deed(&subject)).await.unwrap(), Revoked::Now);
        assert_eq!(catalog.revoke_host(fleet.host, &deed(&subject)).await.unwrap(), Revoked::Before);
        assert!(catalog.revoke_host(HostId::random(), &deed(&subject)).await.is_err());
        let machine = async |run| catalog.run(run).await.unwrap().unwrap().machine;
        assert_eq!(machine(queued).await.state, RunState::Cancelled);
        assert!(machine(held).await.cancelling, "its lease ends it");
        assert_eq!(catalog.job(fleet.job).await.unwrap().unwrap().state, JobState::Ended);
        let certificate = catalog.newest_certificate(PeerKind::Agent, &subject).await.unwrap().unwrap();
        assert_eq!(certificate.state, CertificateState::Revoked);
        assert_eq!(catalog.audit_log(10).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_grant_does_not_bring_back_who_was_put_out() {
    with_catalog(async |catalog| {
        catalog.grant_operator("ada", OperatorRole::Viewer).await.unwrap();
        catalog.grant_operator("ada", OperatorRole::Admin).await.unwrap();
        assert_eq!(catalog.operator("ada").await.unwrap().unwrap().role, OperatorRole::Admin);
        assert_eq!(catalog.revoke_operator("ada", &deed("ada")).await.unwrap(), Revoked::LastAdmin);
        catalog.grant_operator("bob", OperatorRole::Admin).await.unwrap();
        assert_eq!(catalog.revoke_operator("ada", &deed("ada")).await.unwrap(), Revoked::Now);
        assert_eq!(catalog.revoke_operator("ada", &deed("ada")).await.unwrap(), Revoked::Before);
        catalog.grant_operator("ada", OperatorRole::Viewer).await.unwrap();
        let ada = catalog.operator("ada").await.unwrap().unwrap();
        assert_eq!((ada.active, ada.role), (false, OperatorRole::Admin));
        assert_eq!(catalog.claim_fleet("demo").await.unwrap().name, "demo");
        assert_eq!(catalog.claim_fleet("other").await.unwrap().name, "demo");
    })
    .await;
}

#[tokio::test]
async fn labels_are_written_only_over_those_that_they_were_worked_out_from() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let labels = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        let before = catalog.host(fleet.host).await.unwrap().unwrap().labels;
        assert_eq!(fleet.relabel(labels("one")).await, Relabelled::Done);
        let jobs = Vec::new();
        let stale = Relabelling { host: fleet.host, before, after: labels("two"), jobs, reschedules: false };
        assert_eq!(catalog.relabel_host(&stale).await.unwrap(), Relabelled::Changed);
        assert_eq!(catalog.host(fleet.host).await.unwrap().unwrap().labels, labels("one"));
        assert_eq!(catalog.job(fleet.job).await.unwrap().unwrap().state, JobState::Active, "its jobs stay too");
        let nobody = Relabelling { host: HostId::random(), ..stale };
        assert_eq!(catalog.relabel_host(&nobody).await.unwrap(), Relabelled::Changed);
    })
    .await;
}
