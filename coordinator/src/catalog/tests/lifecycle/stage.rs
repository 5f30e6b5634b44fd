//! The stage of the stories: a database with two hosts of one job each, and two coordinators that reach it through relays of their own.

use std::collections::BTreeSet;
use std::time::Duration;

use coord_shared::ids::{Attempt, InstanceId, Ordinal, PolicyVersion, RunId, SessionNumber};
use coord_shared::level::Level;
use coord_shared::run::RunKind;
use jiff::Timestamp;
use uuid::Uuid;

use super::act::{Act, Answer, Message};
use super::model::Model;
use super::relay::{Cut, Passed, Relay};
use super::run::{LEASE, RETRY};
use super::seen::{FIRST_INSTANT, Lines, Onlooker};
use super::story::Saying;
use crate::catalog::tests::fixture::{Fleet, sealed, unchanged};
use crate::catalog::{
    Asked, AskedRun, Catalog, CatalogConfig, CatalogError, Commit, Committed, DueRun, FaultRecord, FromPlanRecord,
    HostBeat, HostFacts, NoteRecord, OpenSession, OpenedSession, Planned, ReportOutcome, ReportedEvent, RunBeat,
    RunReport, ScheduleOutcome, ScheduleStep, Transition,
};
use crate::domain::timing::{Owing, Start};

const HALF_HOUR: Duration = Duration::from_secs(1800);
/// More than there ever are.
const ALL: usize = 1000;

/// What the caller of a step was told.
#[derive(Debug)]
pub(super) enum Told {
    /// This was the answer.
    Answer(Answer),
    /// It failed, and nothing was written.
    Nothing(CatalogError),
    /// It failed, and may have been written.
    Perhaps(CatalogError),
    /// It failed in a way that no step may.
    Defect(CatalogError),
}

struct Coordinator {
    catalog: Catalog,
    relay: Relay,
}

/// Where stories are told.
pub(super) struct Stage {
    config: CatalogConfig,
    onlooker: Onlooker,
    fleets: [Fleet; 2],
    coordinators: Vec<Coordinator>,
}

fn instant(number: u8) -> Timestamp {
    Timestamp::from_second(FIRST_INSTANT + 60 * i64::from(number)).unwrap()
}

fn fault() -> FaultRecord {
    FaultRecord { code: "internal".to_owned(), message: "it failed".to_owned(), hint: String::new() }
}

fn half_hours(count: i32) -> Duration {
    HALF_HOUR * count.unsigned_abs()
}

impl Stage {
    pub(super) async fn new(config: CatalogConfig) -> Stage {
        let direct = Catalog::new(config.clone()).unwrap();
        let fleets = [Fleet::new(&direct).await, Fleet::new(&direct).await];
        // How many runs a host may have at once is another story.
        direct.remove_limit("each-host").await.unwrap().unwrap();
        direct.close();
        let onlooker = Onlooker::new(config.connect().await.unwrap()).await;
        Stage { config, onlooker, fleets, coordinators: Vec::new() }
    }

    /// An empty stage for the next story, and what is on it.
    pub(super) async fn set(&mut self) -> Model {
        self.leave();
        self.onlooker.wait_for_quiet().await;
        self.onlooker.clear().await;
        for _ in 0..2 {
            let relay = Relay::start(self.config.server()).await;
            let catalog = Catalog::new(self.config.through(relay.address())).unwrap();
            self.coordinators.push(Coordinator { catalog, relay });
        }
        Model::new(self.fleets.each_ref().map(|fleet| fleet.host), self.fleets.each_ref().map(|fleet| fleet.job))
    }

    /// The coordinators of a story end.
    pub(super) fn leave(&mut self) {
        for coordinator in self.coordinators.drain(..) {
            coordinator.catalog.close();
        }
    }

    /// Does a step over one of the coordinators, which may lose its database in it. What its caller was told, and what passed.
    pub(super) async fn perform(&self, coordinator: usize, act: &Act, cut: Option<Cut>) -> (Told, Passed) {
        let Coordinator { catalog, relay } = &self.coordinators[coordinator];
        relay.begin(cut);
        let outcome = self.ask(catalog, act).await;
        let passed = relay.end();
        let told = match outcome {
            Ok(answer) => Told::Answer(answer),
            Err(CatalogError::NotFound { .. }) => Told::Answer(Answer::NotFound),
            Err(CatalogError::Taken { .. }) => Told::Answer(Answer::Occupied),
            Err(CatalogError::OutOfRange { .. }) => Told::Answer(Answer::Impossible),
            Err(error) if error.is_retryable() => Told::Nothing(error),
            Err(error @ CatalogError::Indeterminate(_)) => Told::Perhaps(error),
            Err(error) => Told::Defect(error),
        };
        (told, passed)
    }

    /// What the database has once every transaction has ended, and which rules it breaks.
    pub(super) async fn look(&self) -> (Lines, Lines) {
        self.onlooker.wait_for_quiet().await;
        (self.onlooker.look().await, self.onlooker.broken().await)
    }

    async fn ask(&self, catalog: &Catalog, act: &Act) -> Result<Answer, CatalogError> {
        match act {
            Act::Ask { run, job, kind } => {
                let asked = self.asked(*run, *job, *kind, None);
                Ok(Answer::New(catalog.ask_run(&asked).await?.id))
            }
            Act::AskOnce { run, job, key, level } => {
                let asked = self.asked(*run, *job, RunKind::Backup, *level);
                let key = key.map(|key| format!("key-{key}"));
                Ok(match catalog.ask_backup(&asked, key.as_deref()).await? {
                    Asked::New(run) => Answer::New(run.id),
                    Asked::Known(run) => Answer::Known(run.id),
                    Asked::Open(run) => Answer::Open(run.id),
                    Asked::Other(run) => Answer::Other(run.id),
                })
            }
            Act::Promise { run, job, instant: number } => {
                let wanted = Planned {
                    id: *run,
                    job: self.fleets[*job].job,
                    due_at: instant(*number),
                    level: Level::Full,
                    policy_version: PolicyVersion(1),
                };
                Ok(Answer::Promised(catalog.plan_runs(&[wanted]).await?.first().map(|run| run.id)))
            }
            Act::Due { .. } => self.schedule(catalog, act).await,
            Act::Claim { sessions } => self.claim(catalog, sessions).await,
            Act::Hold { message, finished } => {
                let beat = self.run_beat(message, *finished);
                let (host, session) = self.sender(message);
                let outcomes = catalog.beat_runs(host.host, session, half_hours(LEASE), &[beat]).await?;
                Ok(Answer::Disposed(outcomes[0].disposition))
            }
            Act::Beat { message } => {
                let (host, session) = self.sender(message);
                let runs = vec![self.run_beat(message, false)];
                let beat = HostBeat { host: host.host, session, sent_at_us: 0, runs };
                let beaten = catalog.beat_hosts(&[beat], half_hours(LEASE)).await?;
                Ok(Answer::Beaten(beaten.hosts.contains(&host.host), beaten.runs.get(&message.run).copied()))
            }
            Act::Keep { run, attempt } => {
                catalog.keep_leases(&[(*run, Attempt(*attempt))], half_hours(LEASE)).await?;
                Ok(Answer::Passed)
            }
            Act::Report { message, saying } => self.report(catalog, message, *saying).await,
            Act::Commit { .. } => self.commit(catalog, act).await,
            Act::Cancel { run } => Ok(match catalog.cancel_run(*run).await? {
                Transition::Updated(run) => Answer::Updated(run),
                Transition::AlreadyThere(run) => Answer::Unchanged(run),
                Transition::Refused(_) => Answer::Refused,
            }),
            Act::Retry { run } => Ok(Answer::Hurried(catalog.hurry_run(*run).await?)),
            Act::Reap => {
                let reaped = catalog.reap_lapsed_runs(Duration::ZERO, Duration::ZERO, Duration::ZERO).await?;
                let lost = reaped.iter().map(|lost| (lost.run, lost.attempt.get(), lost.state));
                Ok(Answer::Reaped(lost.collect()))
            }
            Act::Connect { host, seen } => self.connect(catalog, *host, *seen).await,
            Act::Pass { half_hours } => {
                self.onlooker.pass(*half_hours).await;
                Ok(Answer::Passed)
            }
        }
    }

    fn asked(&self, id: RunId, job: usize, kind: RunKind, level: Option<Level>) -> AskedRun {
        let fleet = &self.fleets[job];
        AskedRun {
            id,
            kind,
            host: fleet.host,
            job: Some(fleet.job),
            asked_by: "ada".to_owned(),
            level,
            spec: serde_json::json!({}),
            priority: 0,
        }
    }

    fn sender(&self, message: &Message) -> (&Fleet, SessionNumber) {
        (&self.fleets[message.host], SessionNumber(message.session))
    }

    fn run_beat(&self, message: &Message, finished: bool) -> RunBeat {
        RunBeat { run: message.run, attempt: Attempt(message.attempt), finished, progress: None }
    }

    async fn schedule(&self, catalog: &Catalog, act: &Act) -> Result<Answer, CatalogError> {
        let Act::Due { run, job, seen, instant: number, next, missed, together } = act else { unreachable!("due") };
        let due = DueRun {
            id: *run,
            due_at: instant(*number),
            missed: missed.then(|| "nobody was there".to_owned()),
            priority: 0,
            start: Start::default(),
            spec: serde_json::json!({}),
        };
        let step = ScheduleStep {
            job: self.fleets[*job].job,
            policy_version: PolicyVersion(1),
            kind: RunKind::Backup,
            seen_due_at: seen.map(instant),
            runs: vec![due],
            next_due_at: Some(instant(*next)),
            owing: Owing::Unchanged,
        };
        let outcome =
            if *together { catalog.schedule_many(&[step]).await?.remove(0) } else { catalog.schedule(&step).await? };
        Ok(match outcome {
            ScheduleOutcome::Scheduled(runs) => Answer::Scheduled(runs),
            ScheduleOutcome::Changed => Answer::Changed,
        })
    }

    async fn claim(&self, catalog: &Catalog, sessions: &[(usize, u64)]) -> Result<Answer, CatalogError> {
        let session = |(host, number): &(usize, u64)| (self.fleets[*host].host, SessionNumber(*number));
        let sessions: Vec<_> = sessions.iter().map(session).collect();
        let claimed = catalog.claim_runs(&sessions, half_hours(LEASE), ALL).await?;
        let claimed: BTreeSet<_> =
            claimed.iter().map(|claimed| (claimed.run, claimed.attempt.get(), claimed.host)).collect();
        Ok(Answer::Claimed(claimed))
    }

    async fn report(&self, catalog: &Catalog, message: &Message, saying: Saying) -> Result<Answer, CatalogError> {
        let (host, session) = self.sender(message);
        let mut retry_after = Duration::ZERO;
        let event = match saying {
            Saying::Started => ReportedEvent::Started,
            Saying::StartedByPlan => ReportedEvent::StartedFromPlan(FromPlanRecord {
                started_at_us: 40,
                cut_off_since_us: 30,
                plan_made_at_us: 20,
                clock_offset_us: 0,
                max_duration_s: None,
            }),
            Saying::Scanned => ReportedEvent::Scanned,
            Saying::Sealed => ReportedEvent::Sealed,
            Saying::Warned => {
                let note = NoteRecord { path: b"a".to_vec(), kind: "unread".to_owned(), detail: String::new() };
                ReportedEvent::Warnings(vec![note])
            }
            Saying::Succeeded => ReportedEvent::Succeeded { result: serde_json::json!({}), warnings_total: 0 },
            Saying::Failed { retryable, waits } => {
                retry_after = if waits { half_hours(RETRY) } else { Duration::ZERO };
                ReportedEvent::Failed { fault: fault(), retryable, result: None, warnings_total: 0 }
            }
            Saying::Stopped => ReportedEvent::Stopped { fault: fault() },
        };
        let report = RunReport {
            host: host.host,
            session,
            run: message.run,
            attempt: Attempt(message.attempt),
            sequence: message.sequence,
            event,
            checked: Vec::new(),
            lease: half_hours(LEASE),
            retry_after,
        };
        Ok(match catalog.accept_report(&report).await? {
            ReportOutcome::Taken(run) => Answer::Taken(run),
            ReportOutcome::Repeated(run) => Answer::Repeated(run),
            ReportOutcome::Refused(_) => Answer::Refused,
        })
    }

    async fn commit(&self, catalog: &Catalog, act: &Act) -> Result<Answer, CatalogError> {
        let Act::Commit { message, backup, ordinal, same_as } = act else { unreachable!("commit") };
        let (host, session) = self.sender(message);
        let left = same_as.map_or_else(|| sealed(Level::Full, None, 1), unchanged);
        let commit = Commit {
            session,
            sequence: message.sequence,
            backup: *backup,
            ordinal: Ordinal(*ordinal),
            ..host.commit_of(message.run, Attempt(message.attempt), *ordinal, left)
        };
        Ok(match catalog.commit_backup(&commit).await? {
            Committed::Committed(seq) => Answer::Committed(seq.get()),
            Committed::AlreadyThere(seq) => Answer::AlreadyThere(seq.get()),
            Committed::Refused(_) => Answer::Refused,
            Committed::OtherBackup(backup) => Answer::OtherBackup(backup),
        })
    }

    async fn connect(&self, catalog: &Catalog, host: usize, seen: u64) -> Result<Answer, CatalogError> {
        let fleet = &self.fleets[host];
        let session = OpenSession {
            host: fleet.host,
            seen: SessionNumber(seen),
            instance: InstanceId::from_uuid(Uuid::nil()),
            coordinator: fleet.coordinator,
            facts: HostFacts::default(),
            archive_folder: b"/archives".to_vec(),
            archive_store: None,
            clock_offset_us: 0,
        };
        Ok(match catalog.open_session(&session).await? {
            OpenedSession::Opened(number) => Answer::Opened(number.get()),
            OpenedSession::Changed(_) => Answer::Changed,
        })
    }
}
