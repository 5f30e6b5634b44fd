//! F9: what an agent says comes twice, in another order, and again after its attempt was replaced. A run commits once, by its newest attempt.
//!
//! `FAULT_SEED` replays one conversation, `FAULT_SEEDS` says how many there are (docs/FAULTS.md has the long form).

use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_report::Event;
use coord_shared::api::{self, Disposition, StartBackupRequest};
use coord_shared::ids::{InstanceId, RunId};
use coord_shared::run::RunState;
use coordinator::catalog::BackupFilter;
use fleet_tests::checker::{self, Rule};
use fleet_tests::faults::seed;
use fleet_tests::random::Random;
use tonic::transport::Channel;

use crate::runs::{POLICY, Script, apply, backup_of, dial, finished, hello};
use crate::support::{Fleet, Member};

/// Conversations of the short form.
const SEEDS: u64 = 200;
/// Hosts that converse side by side: most of a conversation is waiting for the second attempt.
const HOSTS: u64 = 24;
/// A report is said up to this many times.
const MOST_TIMES: usize = 3;
/// One report in so many is followed by another session.
const REDIAL: usize = 8;

/// One report of one attempt.
#[derive(Clone)]
struct Said {
    order: api::RunOrder,
    sequence: u64,
    event: Event,
}

/// Everything an attempt says, each report once to three times.
fn said(order: &api::RunOrder, random: &mut Random) -> Vec<Said> {
    let note = api::PathNote { path: b"/etc/a".to_vec(), kind: "unreadable".into(), detail: "said again".into() };
    let events = [
        Event::Started(api::Started { started_at_us: 1, from_plan: None }),
        Event::Warnings(api::Warnings { notes: vec![note] }),
        Event::Sealed(api::Sealed::default()),
        finished(&backup_of(order)),
    ];
    let mut all = Vec::new();
    for (event, sequence) in events.into_iter().zip(1..) {
        for _ in 0..=random.below(MOST_TIMES) {
            all.push(Said { order: order.clone(), sequence, event: event.clone() });
        }
    }
    all
}

fn shuffle(all: &mut [Said], random: &mut Random) {
    for end in (1..all.len()).rev() {
        all.swap(end, random.below(end + 1));
    }
}

struct Conversation<'a> {
    fleet: &'a Fleet,
    admin: &'a Channel,
    host: String,
    member: Member,
    instance: InstanceId,
    agent: Script,
}

impl<'a> Conversation<'a> {
    /// A host that nobody knows yet, and its first session.
    async fn of(fleet: &'a Fleet, admin: &'a Channel, host: String) -> Self {
        let (member, instance) = (fleet.agent(&host).await, InstanceId::random());
        let agent = dial(fleet, &member, hello(instance)).await.unwrap();
        Self { fleet, admin, host, member, instance, agent }
    }

    async fn start_backup(&self) {
        let request = StartBackupRequest {
            host: self.host.clone(),
            policy: "web".into(),
            level: api::Level::Full.into(),
            ..Default::default()
        };
        OperatorServiceClient::new(self.admin.clone()).start_backup(request).await.unwrap();
    }

    /// Another session of the same process, which holds this attempt.
    async fn redial(&mut self, holds: Option<&api::RunOrder>) {
        let held = |order: &api::RunOrder| api::HeldRun {
            run_id: order.run_id.clone(),
            attempt: order.attempt,
            ..Default::default()
        };
        let again = api::Hello { held: holds.map(held).into_iter().collect(), ..hello(self.instance) };
        self.agent = dial(self.fleet, &self.member, again).await.unwrap();
    }

    /// A run whose newest attempt is the first or the second; all that any of them says, in any order.
    async fn disturb(&mut self, random: &mut Random) -> api::RunOrder {
        self.start_backup().await;
        let first = self.agent.order().await;
        let mut all = said(&first, random);
        let mut newest = first;
        if random.below(2) == 0 {
            self.redial(None).await;
            newest = self.agent.order().await;
            assert_eq!(newest.attempt, 2);
            all.extend(said(&newest, random));
        }
        shuffle(&mut all, random);
        let (mut committed, last) = (false, newest.attempt);
        for Said { order, sequence, event } in all {
            let commits = order.attempt == last && matches!(event, Event::Finished(_));
            let answer = self.agent.report(&order, sequence, event).await;
            if order.attempt < last {
                assert_eq!(answer, Disposition::Abort, "attempt {} was replaced", order.attempt);
            } else if commits {
                committed = true;
                assert_eq!(answer, Disposition::Forget);
            } else {
                // What was taken before is answered as it was; what comes after the end is forgotten.
                let late = committed && answer == Disposition::Forget;
                assert!(late || answer == Disposition::Continue, "report {sequence}: {answer:?}");
            }
            if random.below(REDIAL) == 0 {
                self.redial(Some(&newest)).await;
            }
        }
        newest
    }
}

/// Every [`HOSTS`]th of these conversations, with one host.
async fn converse(fleet: &Fleet, admin: &Channel, number: u64, seeds: std::ops::Range<u64>) {
    let mut conversation = Conversation::of(fleet, admin, format!("host-{number}")).await;
    for seed in seeds.skip(number as usize).step_by(HOSTS as usize) {
        println!("FAULT_SEED={seed}");
        let newest = conversation.disturb(&mut Random::new(seed)).await;
        let run: RunId = newest.run_id.parse().unwrap();
        let stored = fleet.catalog.run(run).await.unwrap().unwrap();
        assert_eq!((stored.machine.state, stored.machine.attempt.get()), (RunState::Succeeded, newest.attempt));
        assert_eq!(stored.backup.map(|id| id.to_string()), Some(backup_of(&newest).backup_id));
        let notes = fleet.catalog.run_warnings(run, 100).await.unwrap();
        assert!(notes.len() <= 1, "a note was taken twice: {notes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_are_repeated_reordered_and_replayed_commit_each_run_once() {
    let seeds = match seed::number(seed::VARIABLE) {
        Some(seed) => seed..seed + 1,
        None => 0..seed::number("FAULT_SEEDS").unwrap_or(SEEDS),
    };
    let fleet = Fleet::start_on_own_server().await;
    let admin = fleet.admin().await;
    apply(&admin, POLICY).await;
    let count = seeds.end - seeds.start;
    let hosts = (0..HOSTS.min(count)).map(|number| converse(&fleet, &admin, number, seeds.clone()));
    futures_util::future::join_all(hosts).await;
    let backups = fleet.catalog.backups(BackupFilter::default()).await.unwrap();
    assert_eq!(backups.len() as u64, count);
    check(&fleet).await;
    fleet.stop().await;
}

/// The rules of the checker; nobody sends indexes here, and there are no archives.
async fn check(fleet: &Fleet) {
    let url = fleet.url.clone();
    let looked =
        tokio::task::spawn_blocking(move || checker::catalog(&checker::Catalog::connect(&url).unwrap()).unwrap());
    let found: Vec<_> =
        looked.await.unwrap().into_iter().filter(|found| found.rule != Rule::SearchableOrReason).collect();
    assert_eq!(found, []);
}
