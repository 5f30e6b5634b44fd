//! The loop: every event changes the state in turn, and only here.

mod indexes;
mod planned;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use coord_shared::api::agent_message::Message as ToCoordinator;
use coord_shared::api::coordinator_message::Message as FromCoordinator;
use coord_shared::api::{self, Disposition, run_report};
use coord_shared::clock::Clock;
use coord_shared::failpoint;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::level::Level;
use coord_shared::lifecycle::Lifecycle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::attempt::{Control, NotTaken, RunContext};
use super::beats::Beats;
use super::host_clock::HostClock;
use super::work::{Work, backup_task, sealed_of};
use planned::{Alone, Limit};

use super::{Event, Failure, Greeting, MAX_EVENTS, Outgoing, Unsent};
use crate::journal::{Acknowledged, AttemptKey, Body, Closed, Forgotten, HeldAttempt, Journal, RememberedBackup};
use crate::plan::PlanFile;
use crate::printable::printable;
use crate::store::LocalStore;

/// Runs that work at once; further ones wait, holding their lease.
const MAX_RUNS_AT_ONCE: usize = 4;
/// Attempts that are held at once; further orders are not taken.
const MAX_HELD_ATTEMPTS: usize = 1024;
/// Archives of the same job that a run is told of: the first that can be read says what was mounted.
const MAX_NEWEST_HERE: usize = 8;
/// How often the engine looks after what nobody reminds it of.
const TICK: Duration = Duration::from_millis(500);
/// Heartbeats before the coordinator said how often it wants them.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(5);
/// How often archives that were set aside are looked through.
const CLEARING: Duration = Duration::from_secs(3600);

/// What the engine stands on.
pub struct Deps {
    /// The host's name, as in the names of its archives.
    pub host_name: String,
    /// What survives a crash.
    pub journal: Journal,
    /// Where archives are.
    pub store: LocalStore,
    /// Does the runs.
    pub work: Arc<dyn Work>,
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
    /// Tracks the runs' threads.
    pub life: Lifecycle,
    /// What this host does while it is cut off.
    pub plan: PlanFile,
    /// How long there is no session before this host is cut off.
    pub cut_off_after: Duration,
}

struct Running {
    control: Arc<Control>,
    /// Reported and not answered yet; sent again after a reconnect.
    scanned: Option<api::RunReport>,
    succeeded: bool,
    /// When it is stopped, if this host began it by itself.
    limit: Option<Limit>,
}

struct Link {
    outgoing: mpsc::Sender<Outgoing>,
    /// The link was full once: everything is sent again when it is not.
    behind: bool,
}

/// See the module.
pub struct Engine {
    host_name: String,
    journal: Journal,
    store: LocalStore,
    work: Arc<dyn Work>,
    clock: HostClock,
    life: Lifecycle,
    events: mpsc::Sender<Event>,
    received: mpsc::Receiver<Event>,
    running: BTreeMap<AttemptKey, Running>,
    slots: Arc<Semaphore>,
    link: Option<Link>,
    floors: BTreeMap<String, u64>,
    beats: Beats,
    /// Index that the session is sending now.
    sending: Option<String>,
    next_index: Instant,
    /// Indexes that failed since the last pause: the others come first.
    failing: BTreeSet<String>,
    next_clearing: Instant,
    /// Archives whose index the coordinator asked for, in that order.
    wanted: VecDeque<api::ArchiveLocation>,
    alone: Alone,
    /// One backup of a job at a time, by policy.
    turns: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
}

impl Engine {
    /// An engine that has not started, and where to send its events.
    pub fn new(deps: Deps) -> (Engine, mpsc::Sender<Event>) {
        let (events, received) = mpsc::channel(MAX_EVENTS);
        let clock = HostClock::new(deps.clock);
        let alone = Alone::new(deps.plan, deps.cut_off_after, &clock);
        let engine = Engine {
            host_name: deps.host_name,
            journal: deps.journal,
            store: deps.store,
            work: deps.work,
            clock,
            life: deps.life,
            events: events.clone(),
            received,
            running: BTreeMap::new(),
            slots: Arc::new(Semaphore::new(MAX_RUNS_AT_ONCE)),
            link: None,
            floors: BTreeMap::new(),
            beats: Beats::every(FIRST_HEARTBEAT),
            sending: None,
            next_index: Instant::now(),
            failing: BTreeSet::new(),
            next_clearing: Instant::now(),
            wanted: VecDeque::new(),
            alone,
            turns: BTreeMap::new(),
        };
        (engine, events)
    }

    /// Takes events until the process is to end, then stops all runs. What was running is reported by the next process.
    pub async fn run(mut self) {
        self.recover();
        let ending = self.life.ending().clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = ending.cancelled() => break,
                Some(event) = self.received.recv() => self.take(event),
                _ = tick.tick() => self.look_after(),
            }
        }
        for running in self.running.values() {
            running.control.stop();
        }
    }

    /// What the last process of this agent left open: an archive that was sealed is verified now; anything else has failed.
    fn recover(&mut self) {
        match self.store.remove_partial_files(&self.host_name) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed half-written archives of an earlier process"),
            Err(error) => {
                tracing::warn!(error = %crate::chain::chain(&error), "half-written archives could not be removed")
            }
        }
        let open: Vec<(AttemptKey, HeldAttempt)> = self.journal.memory().attempts().clone().into_iter().collect();
        for (key, held) in open.into_iter().filter(|(_, held)| held.finished.is_none()) {
            if held.sealed.is_some() {
                tracing::info!(run = %key, "going on with an archive that was sealed before the restart");
                self.start(key, held.order, held.sealed);
            } else {
                // A seal is journalled before it is reported, but the journal may have lost its last records.
                self.set_aside(&key);
                let fault =
                    Fault::new(ErrorCode::AgentRestarted, "the agent was restarted in the middle of the attempt");
                self.fail(&key, Failure::retryable(fault));
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Greeting(reply) => {
                self.clock.begin();
                drop(reply.send(self.greeting()));
            }
            Event::Connected { answer, link } => self.connected(*answer, link),
            Event::Disconnected => {
                self.link = None;
                self.sending = None;
                self.alone.cut_off(&self.clock);
            }
            Event::Received(message) => self.receive(*message),
            Event::IndexSent { backup_id } | Event::IndexFailed { backup_id, why: Unsent::NotThere } => {
                self.index_done(&backup_id, false);
            }
            Event::IndexFailed { backup_id, why: Unsent::Damaged } => self.index_done(&backup_id, true),
            Event::IndexFailed { backup_id, why: Unsent::Again } => {
                self.sending = None;
                self.failing.insert(backup_id);
                self.send_next_index();
            }
            Event::Report { key, event, taken } => {
                // A thread that stopped waiting is ending anyway.
                drop(taken.send(self.report(&key, *event)));
            }
            Event::NextOrdinal { policy_id, floor, number } => self.next_ordinal(policy_id, floor, number),
            Event::Ended { key, panicked } => self.ended(&key, panicked),
        }
    }

    fn greeting(&self) -> Greeting {
        let memory = self.journal.memory();
        let held = memory.in_order().map(|(key, held)| api::HeldRun {
            run_id: key.run_id.clone(),
            attempt: key.attempt,
            phase: match self.running.get(key) {
                Some(running) => running.control.phase(),
                None => api::Phase::Reporting.into(),
            },
            sequence: held.sequence,
            finished: held.finished.is_some(),
        });
        let job =
            |(policy_id, ordinal): (&String, &u64)| api::JobOrdinal { policy_id: policy_id.clone(), ordinal: *ordinal };
        Greeting {
            held: held.collect(),
            unsent_indexes: self.unsent_indexes().map(|location| location.backup_id.clone()).collect(),
            ordinals: memory.ordinals().iter().map(job).collect(),
        }
    }

    fn connected(&mut self, answer: api::HelloAnswer, link: mpsc::Sender<Outgoing>) {
        self.link = Some(Link { outgoing: link, behind: false });
        self.sending = None;
        self.next_index = Instant::now();
        self.alone.connected();
        self.clock.answered(answer.now_us);
        self.beats.greeted(&answer);
        for floor in answer.ordinal_floors {
            self.floors.insert(floor.policy_id, floor.ordinal);
        }
        // A full has to arrive before the differentials that stand on it: whatever may be reported is, in order, below.
        let is_reported = |held: &&api::HeldAnswer| held.disposition() == Disposition::Report;
        for held in answer.held.iter().filter(|held| !is_reported(held)) {
            self.set_pace(held);
            self.dispose(&AttemptKey::new(&held.run_id, held.attempt), held.disposition());
        }
        self.send_everything_again();
    }

    fn receive(&mut self, message: FromCoordinator) {
        match message {
            FromCoordinator::Run(order) => self.order(order),
            FromCoordinator::Level(answer) => {
                let key = AttemptKey::new(&answer.run_id, answer.attempt);
                if let (Some(running), Some(level)) = (self.running.get_mut(&key), Level::from_api(answer.level())) {
                    running.scanned = None;
                    running.control.answer_level(level);
                }
            }
            FromCoordinator::Ack(ack) => self.acknowledged(&ack),
            FromCoordinator::Cancel(cancel) => {
                if let Some(running) = self.running.get(&AttemptKey::new(&cancel.run_id, cancel.attempt)) {
                    tracing::info!(run = %cancel.run_id, reason = %printable(&cancel.reason), "cancelling");
                    running.control.stop();
                }
            }
            FromCoordinator::HeartbeatAck(ack) => {
                self.clock.answered(ack.now_us);
                for held in &ack.runs {
                    self.set_pace(held);
                    self.hear(&AttemptKey::new(&held.run_id, held.attempt), held.disposition(), false);
                }
            }
            FromCoordinator::IndexWanted(wanted) => self.index_wanted(wanted),
            FromCoordinator::Plan(plan) => self.alone.take(plan, &self.clock),
            // The session itself answers these.
            FromCoordinator::HelloAnswer(_)
            | FromCoordinator::ReadFile(_)
            | FromCoordinator::Preview(_)
            | FromCoordinator::Ping(_) => {}
        }
    }

    fn order(&mut self, order: api::RunOrder) {
        let key = AttemptKey::new(&order.run_id, order.attempt);
        if self.journal.memory().attempt(&key).is_some() {
            // Sent twice: what we have to say about it is sent twice as well.
            self.send_reports(&key);
            return;
        }
        if self.journal.memory().attempts().len() >= MAX_HELD_ATTEMPTS {
            tracing::error!(run = %key, "too many runs are held: the order is not taken");
            return;
        }
        let older: Vec<AttemptKey> = self
            .running
            .keys()
            .filter(|held| held.run_id == key.run_id && held.attempt < key.attempt)
            .cloned()
            .collect();
        for old in older {
            self.dispose(&old, Disposition::Abort);
        }
        tracing::info!(run = %key, "run taken on");
        failpoint::reach("agent.order.received");
        self.journal.note(Body::Accepted(order.clone()));
        failpoint::reach("agent.order.accepted");
        self.start(key, order, None);
    }

    fn start(&mut self, key: AttemptKey, order: api::RunOrder, resumed: Option<api::Sealed>) {
        let control = Arc::new(Control::default());
        control.set_pace(order.pace);
        let from_plan = self.journal.memory().attempt(&key).and_then(|held| held.from_plan.clone());
        let turn = backup_task(&order).map(|task| Arc::clone(self.turns.entry(task.policy_id.clone()).or_default()));
        let context = RunContext {
            from_plan,
            newest_here: backup_task(&order).map_or_else(Vec::new, |task| self.newest_here(&task.policy_id)),
            key: key.clone(),
            order,
            resumed,
            control: Arc::clone(&control),
            clock: self.clock.clone(),
            events: self.events.clone(),
        };
        let limit = self.limit(&key);
        self.running
            .insert(key.clone(), Running { control: Arc::clone(&control), scanned: None, succeeded: false, limit });
        let (work, slots, events) = (Arc::clone(&self.work), Arc::clone(&self.slots), self.events.clone());
        self.life.spawn("run", async move {
            let admitted = async {
                let turn = match turn {
                    Some(turn) => Some(turn.lock_owned().await),
                    None => None,
                };
                (turn, slots.acquire_owned().await.ok())
            };
            let held = tokio::select! {
                held = admitted => Some(held),
                () = control.stopping().cancelled() => None,
            };
            let ended = tokio::task::spawn_blocking(move || super::work::perform(work.as_ref(), &context)).await;
            drop(held);
            // Nobody listens when the agent is ending.
            drop(events.send(Event::Ended { key, panicked: ended.is_err() }).await);
        });
    }

    fn newest_here(&self, policy_id: &str) -> Vec<api::ArchiveLocation> {
        let backups = self.journal.memory().backups().values();
        let mut newest: Vec<_> = backups.filter(|backup| backup.policy_id == policy_id).collect();
        newest.sort_by_key(|backup| std::cmp::Reverse(backup.ordinal));
        newest.into_iter().filter_map(|backup| backup.location.clone()).take(MAX_NEWEST_HERE).collect()
    }

    fn report(&mut self, key: &AttemptKey, event: run_report::Event) -> Result<(), NotTaken> {
        let held = self.journal.memory().attempt(key).ok_or(NotTaken::Closed)?;
        if held.finished.is_some() {
            return Err(NotTaken::Closed);
        }
        let sequence = held.sequence + 1;
        let policy = backup_task(&held.order).map(|task| (task.policy_id.clone(), task.policy_name.clone()));
        let report = api::RunReport { run_id: key.run_id.clone(), attempt: key.attempt, sequence, event: Some(event) };
        let durable = |error| NotTaken::journal(&error);
        match &report.event {
            Some(run_report::Event::Sealed(_)) => {
                self.journal.append(Body::Reported(report.clone())).map_err(durable)?;
                failpoint::reach("agent.sealed.stored");
            }
            Some(run_report::Event::Finished(finished)) if finished.outcome() == api::Outcome::Succeeded => {
                if let (Some(sealed), Some((policy_id, policy_name))) = (sealed_of(finished), policy) {
                    let backup = RememberedBackup {
                        policy_id,
                        policy_name,
                        location: sealed.location.clone(),
                        ordinal: sealed.ordinal,
                        captured_at_us: sealed.captured_at_us,
                        index_unsent: true,
                    };
                    self.journal.append(Body::Backup(backup)).map_err(durable)?;
                    failpoint::reach("agent.backup.remembered");
                }
                self.journal.append(Body::Reported(report.clone())).map_err(durable)?;
                failpoint::reach("agent.finished.stored");
                if let Some(running) = self.running.get_mut(key) {
                    running.succeeded = true;
                }
            }
            Some(run_report::Event::Scanned(_)) => {
                if let Some(running) = self.running.get_mut(key) {
                    running.scanned = Some(report.clone());
                }
                self.journal.note(Body::Reported(report.clone()));
            }
            Some(run_report::Event::Started(_)) => {
                self.journal.note(Body::Reported(report.clone()));
                let limit = self.limit(key);
                if let Some(running) = self.running.get_mut(key) {
                    running.limit = limit;
                }
            }
            Some(run_report::Event::Finished(_) | run_report::Event::Warnings(_)) | None => {
                if policy.is_some() && matches!(report.event, Some(run_report::Event::Finished(_))) {
                    // Whoever hears of the end finds no archive of it.
                    self.set_aside(key);
                }
                self.journal.note(Body::Reported(report.clone()));
            }
        }
        let last = matches!(report.event, Some(run_report::Event::Finished(_)));
        self.send(ToCoordinator::Report(report));
        if last {
            failpoint::reach("agent.finished.sent");
        }
        Ok(())
    }

    fn fail(&mut self, key: &AttemptKey, failure: Failure) {
        let finished = super::work::failed(&failure, self.clock.now());
        if let Err(error) = self.report(key, run_report::Event::Finished(finished)) {
            tracing::debug!(run = %key, %error, "the end of a run is of no interest any more");
        }
    }

    fn next_ordinal(&mut self, policy_id: String, floor: u64, number: oneshot::Sender<Result<u64, NotTaken>>) {
        let used = self.journal.memory().ordinals().get(&policy_id).copied().unwrap_or(0);
        let floor = floor.max(self.floors.get(&policy_id).copied().unwrap_or(0));
        let ordinal = (used + 1).max(floor);
        let kept = self.journal.append(Body::Ordinal(api::JobOrdinal { policy_id, ordinal }));
        drop(number.send(kept.map(|()| ordinal).map_err(|error| NotTaken::journal(&error))));
    }

    fn ended(&mut self, key: &AttemptKey, panicked: bool) {
        let Some(running) = self.running.remove(key) else { return };
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        if panicked {
            tracing::error!(run = %key, "a run ended by a defect of this program");
            let fault = Fault::new(ErrorCode::Internal, "the run ended by a defect of the agent; its log has more");
            self.fail(key, Failure::retryable(fault));
        }
        if !running.succeeded {
            self.set_aside(key);
        }
    }

    fn acknowledged(&mut self, ack: &api::ReportAck) {
        let key = AttemptKey::new(&ack.run_id, ack.attempt);
        let Some(held) = self.journal.memory().attempt(&key) else { return };
        let of_the_end = held.finished.is_some() && ack.sequence >= held.sequence;
        failpoint::reach("agent.acknowledged");
        let record = Acknowledged { run_id: key.run_id.clone(), attempt: key.attempt, sequence: ack.sequence };
        self.journal.note(Body::Acknowledged(record));
        self.hear(&key, ack.disposition(), of_the_end);
        let done = |held: &HeldAttempt| held.finished.is_some() && held.unacknowledged.is_empty();
        if self.journal.memory().attempt(&key).is_some_and(done) {
            self.close(&key);
        }
    }

    /// Takes the pace of an attempt that goes on.
    fn set_pace(&self, held: &api::HeldAnswer) {
        if let Some(running) = self.running.get(&AttemptKey::new(&held.run_id, held.attempt)) {
            running.control.set_pace(held.pace);
        }
    }

    /// Does what the coordinator says about an attempt in answer to what was sent. If the attempt has ended meanwhile, its success may be counted
    /// before a cancellation is: only the answer to its end says what becomes of its archive.
    fn hear(&mut self, key: &AttemptKey, disposition: Disposition, of_the_end: bool) {
        let has_ended = self.journal.memory().attempt(key).is_some_and(|held| held.finished.is_some());
        if of_the_end || !has_ended || disposition == Disposition::Report {
            self.dispose(key, disposition);
        }
    }

    /// Does what the coordinator says about an attempt of ours.
    fn dispose(&mut self, key: &AttemptKey, disposition: Disposition) {
        let Some(held) = self.journal.memory().attempt(key) else { return };
        let finished = held.finished.is_some();
        let backup_id = held.sealed.as_ref().map(|sealed| sealed.backup_id.clone());
        match disposition {
            Disposition::Continue | Disposition::Unspecified => {}
            Disposition::Report => self.send_reports(key),
            Disposition::Forget if finished => self.close(key),
            Disposition::Forget | Disposition::Abort if !finished && self.running.contains_key(key) => {
                // Its thread says that it was stopped; then both ends close it, and its archive goes.
                tracing::info!(run = %key, "stopping an attempt that does not count any more");
                if let Some(running) = self.running.get(key) {
                    running.control.stop();
                }
            }
            Disposition::Forget | Disposition::Abort => {
                self.set_aside(key);
                self.close(key);
                if let Some(backup_id) = backup_id {
                    self.journal.note(Body::Forgotten(Forgotten { backup_id, archive_gone: true }));
                }
            }
        }
    }

    fn close(&mut self, key: &AttemptKey) {
        self.journal.note(Body::Closed(Closed { run_id: key.run_id.clone(), attempt: key.attempt }));
        failpoint::reach("agent.closed");
        self.next_index = Instant::now();
    }

    /// Takes the archives of an attempt that does not count out of the way. Never one of a backup that both ends closed: only its
    /// name ties an archive to an attempt, and the names of attempts come from the wire.
    fn set_aside(&self, key: &AttemptKey) {
        let memory = self.journal.memory();
        let own = memory.attempt(key).and_then(|held| held.sealed.as_ref()).map(|sealed| sealed.backup_id.as_str());
        let committed: BTreeSet<&str> = memory
            .backups()
            .iter()
            .filter(|(id, _)| Some(id.as_str()) != own)
            .filter_map(|(_, backup)| backup.location.as_ref().map(|location| location.key.as_str()))
            .collect();
        let moved = self.store.archives_of(&key.run_id, key.attempt).and_then(|archives| {
            archives.iter().filter(|archive| !committed.contains(archive.as_str())).try_for_each(|archive| {
                tracing::info!(%archive, "setting aside the archive of an attempt that does not count");
                self.store.set_aside(archive, self.clock.now())
            })
        });
        if let Err(error) = moved {
            tracing::warn!(run = %key, error = %crate::chain::chain(&error), "an archive that does not count is still there");
        }
    }

    fn remove_set_aside(&mut self) {
        self.next_clearing = Instant::now() + CLEARING;
        match self.store.remove_set_aside(self.clock.now()) {
            Ok(0) => {}
            Ok(archives) => tracing::info!(archives, "removed archives that were set aside a week ago"),
            Err(error) => {
                tracing::warn!(error = %crate::chain::chain(&error), "archives that were set aside could not be removed")
            }
        }
    }

    fn send(&mut self, message: ToCoordinator) {
        let Some(link) = &mut self.link else { return };
        // What comes after something that was left out waits for it: reports of a job arrive in order.
        if link.behind || link.outgoing.try_send(Outgoing::Message(Box::new(message))).is_err() {
            link.behind = true;
        }
    }

    fn send_reports(&mut self, key: &AttemptKey) {
        let Some(held) = self.journal.memory().attempt(key) else { return };
        let mut reports: Vec<api::RunReport> = held.unacknowledged.values().cloned().collect();
        let awaited = self.running.get(key).and_then(|running| running.scanned.clone());
        reports.extend(awaited.filter(|scanned| !held.unacknowledged.contains_key(&scanned.sequence)));
        for report in reports {
            self.send(ToCoordinator::Report(report));
        }
    }

    fn send_everything_again(&mut self) {
        let keys: Vec<AttemptKey> = self.journal.memory().in_order().map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.send_reports(&key);
        }
    }

    fn look_after(&mut self) {
        self.journal.retry();
        if self.next_clearing <= Instant::now() {
            self.remove_set_aside();
        }
        self.begin_planned();
        self.stop_overdue();
        let Some(link) = &mut self.link else { return };
        let behind = std::mem::take(&mut link.behind);
        if self.beats.take_due(!self.running.is_empty(), Instant::now()) {
            self.send(ToCoordinator::Heartbeat(self.heartbeat()));
        }
        if behind {
            self.send_everything_again();
        }
        self.send_next_index();
    }

    fn heartbeat(&self) -> api::Heartbeat {
        let held = self.journal.memory().attempts();
        let runs = self.running.iter().filter(|(key, _)| held.contains_key(key));
        let beat = |(key, running): (&AttemptKey, &Running)| api::RunHeartbeat {
            run_id: key.run_id.clone(),
            attempt: key.attempt,
            progress: Some(running.control.progress()),
        };
        api::Heartbeat { sent_at_us: self.clock.ask(), runs: runs.map(beat).collect() }
    }
}
