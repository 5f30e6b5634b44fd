//! A heartbeat extends the leases of the attempts that the agent holds, and answers which of them must stop. While the database is
//! away it is not answered; the session stays, because the lease outlives a short outage and nothing is reaped after one.
//!
//! Heartbeats of different hosts that come while others are being stored wait for each other and are stored together: a fleet of ten
//! thousand costs some transactions a second and not some thousand. One that carries attempts waits for nobody else; one of a host that
//! does nothing extends no lease, and waits for others for [`GATHERING`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coord_shared::api::{Heartbeat, HeartbeatAck, Phase, RunHeartbeat};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{Attempt, RunId};
use coord_shared::run::Disposition;
use coord_shared::wire::to_us;
use tokio::sync::{Notify, oneshot};

use super::hello::{clock_offset_us, held_answer, held_answers};
use super::{App, pace};
use crate::catalog::{Beaten, HeartbeatOutcome, HostBeat, PhaseWord, ProgressRecord, RunBeat};
use crate::sessions::Session;

/// Attempts that one heartbeat may carry.
const MAX_RUNS: usize = 10_000;
/// How long heartbeats that carry no attempts wait for others.
const GATHERING: Duration = Duration::from_millis(30);
/// Heartbeats stored together.
const MAX_TOGETHER: usize = 500;

/// Heartbeats that wait to be stored.
#[derive(Debug, Default)]
pub struct Beats {
    waiting: Mutex<Vec<Waiting>>,
    /// Wakes whoever stores them.
    pub arrived: Arc<Notify>,
}

#[derive(Debug)]
struct Waiting {
    beat: HostBeat,
    taken: oneshot::Sender<Result<Option<HeartbeatAck>, Fault>>,
}

impl Beats {
    fn locked<R>(&self, act: impl FnOnce(&mut Vec<Waiting>) -> R) -> R {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One waits that extends a lease, or as many as are stored together.
    fn are_urgent(&self) -> bool {
        self.locked(|waiting| {
            waiting.len() >= MAX_TOGETHER || waiting.iter().any(|waiting| !waiting.beat.runs.is_empty())
        })
    }

    /// Returns when what waits is to be stored: at once, or when there was time for others to come.
    async fn gathered(&self, most: Duration) {
        let late = tokio::time::sleep(most);
        tokio::pin!(late);
        while !self.are_urgent() {
            tokio::select! {
                () = &mut late => return,
                () = self.arrived.notified() => {}
            }
        }
    }
}

/// Takes a heartbeat. `None`: the database is away, there is no answer now.
pub async fn heartbeat(app: &App, session: &Session, beat: Heartbeat) -> Result<Option<HeartbeatAck>, Fault> {
    if beat.runs.len() > MAX_RUNS {
        return Err(Fault::new(ErrorCode::LimitExceeded, format!("a heartbeat carries at most {MAX_RUNS} runs")));
    }
    match take(app, session, &beat).await {
        Ok(ack) => Ok(Some(ack)),
        Err(fault) if fault.is_transient() => Ok(None),
        Err(fault) => Err(fault),
    }
}

async fn take(app: &App, session: &Session, beat: &Heartbeat) -> Result<HeartbeatAck, Fault> {
    let runs: Vec<RunBeat> = beat.runs.iter().filter_map(run_beat).collect();
    let (taken, answer) = oneshot::channel();
    let together =
        HostBeat { host: session.host, session: session.number, sent_at_us: beat.sent_at_us, runs: runs.clone() };
    let is_first = app.beats.locked(|waiting| {
        waiting.push(Waiting { beat: together, taken });
        waiting.len() == 1
    });
    if is_first || !runs.is_empty() {
        app.beats.arrived.notify_one();
    }
    let ending = || Fault::new(ErrorCode::Unavailable, "the coordinator is ending");
    match answer.await.map_err(|_| ending())?? {
        Some(ack) => Ok(ack),
        None => take_alone(app, session, beat.sent_at_us, &runs).await,
    }
}

/// Something of it is not as usual: the session or an attempt is not the newest, or somebody works on it just now.
async fn take_alone(app: &App, session: &Session, sent_at_us: i64, runs: &[RunBeat]) -> Result<HeartbeatAck, Fault> {
    let now = app.catalog.now().await?;
    let offset = clock_offset_us(sent_at_us, now);
    if !app.catalog.touch_session(session.host, session.number, offset).await? {
        return Err(Fault::new(ErrorCode::Changed, "a newer session of this host took the place of this one"));
    }
    let outcomes = app.catalog.beat_runs(session.host, session.number, app.settings.lease(), runs).await?;
    Ok(HeartbeatAck { now_us: to_us(now), runs: held_answers(app, &outcomes, now).await? })
}

/// Stores the heartbeats that wait, and answers them. Answers whether more are waiting.
///
/// # Errors
/// Those of the catalog; whoever waited has heard of it.
pub async fn store_waiting(app: &App) -> Result<bool, Fault> {
    if app.beats.locked(|waiting| waiting.is_empty()) {
        return Ok(false);
    }
    app.beats.gathered(GATHERING).await;
    let (waiting, more) = app.beats.locked(|waiting| {
        let together: Vec<Waiting> = waiting.drain(..waiting.len().min(MAX_TOGETHER)).collect();
        (together, !waiting.is_empty())
    });
    let (beats, answers): (Vec<HostBeat>, Vec<_>) =
        waiting.into_iter().map(|waiting| (waiting.beat, waiting.taken)).unzip();
    let acks = match store(app, &beats).await {
        Ok(acks) => acks,
        Err(fault) => {
            answers.into_iter().for_each(|taken| drop(taken.send(Err(fault.clone()))));
            return Err(fault);
        }
    };
    // A session that is over does not wait for its answer.
    answers.into_iter().zip(acks).for_each(|(taken, ack)| drop(taken.send(Ok(ack))));
    Ok(more)
}

async fn store(app: &App, beats: &[HostBeat]) -> Result<Vec<Option<HeartbeatAck>>, Fault> {
    let beaten = app.duties.beat_hosts(beats, app.settings.lease()).await?;
    let going_on: Vec<RunId> =
        beaten.runs.iter().filter(|(_, cancelling)| !**cancelling).map(|(run, _)| *run).collect();
    let paces = pace::of_runs(app, &app.duties, &going_on, beaten.now).await?;
    let answer = |beat: &HostBeat| {
        let outcomes = as_usual(beat, &beaten)?;
        let runs = outcomes.iter().map(|outcome| held_answer(outcome, paces.get(&outcome.run).copied())).collect();
        Some(HeartbeatAck { now_us: to_us(beaten.now), runs })
    };
    Ok(beats.iter().map(answer).collect())
}

/// What the host is told of each of its attempts, if nothing is unusual about any of them.
fn as_usual(beat: &HostBeat, beaten: &Beaten) -> Option<Vec<HeartbeatOutcome>> {
    if !beaten.hosts.contains(&beat.host) {
        return None;
    }
    let outcome = |run: &RunBeat| {
        let cancelling = *beaten.runs.get(&run.run)?;
        let disposition = if cancelling { Disposition::Abort } else { Disposition::Continue };
        Some(HeartbeatOutcome { run: run.run, attempt: run.attempt, disposition })
    };
    beat.runs.iter().map(outcome).collect()
}

fn run_beat(beat: &RunHeartbeat) -> Option<RunBeat> {
    let progress = beat.progress.as_ref().map(|progress| ProgressRecord {
        phase: phase(progress.phase()),
        files_done: progress.files_done,
        files_total: progress.files_total,
        bytes_done: progress.bytes_done,
        bytes_total: progress.bytes_total,
    });
    Some(RunBeat { run: beat.run_id.parse().ok()?, attempt: Attempt(beat.attempt), finished: false, progress })
}

const fn phase(phase: Phase) -> PhaseWord {
    match phase {
        Phase::Unspecified => PhaseWord::Unspecified,
        Phase::Scanning => PhaseWord::Scanning,
        Phase::Deciding => PhaseWord::Deciding,
        Phase::Packing => PhaseWord::Packing,
        Phase::Sealing => PhaseWord::Sealing,
        Phase::Verifying => PhaseWord::Verifying,
        Phase::Restoring => PhaseWord::Restoring,
        Phase::Reporting => PhaseWord::Reporting,
    }
}

#[cfg(test)]
mod tests {
    use coord_shared::ids::{HostId, SessionNumber};
    use futures_util::FutureExt;

    use super::*;

    fn arrives(beats: &Beats, runs: Vec<RunBeat>) {
        let (taken, _answer) = oneshot::channel();
        let beat = HostBeat { host: HostId::random(), session: SessionNumber(1), sent_at_us: 1, runs };
        beats.locked(|waiting| waiting.push(Waiting { beat, taken }));
        beats.arrived.notify_one();
    }

    fn held() -> RunBeat {
        RunBeat { run: RunId::random(), attempt: Attempt(1), finished: false, progress: None }
    }

    #[tokio::test]
    async fn heartbeats_of_idle_hosts_wait_for_others_until_one_comes_that_extends_a_lease() {
        let (beats, long) = (Beats::default(), Duration::from_secs(3600));
        arrives(&beats, Vec::new());
        let mut gathered = Box::pin(beats.gathered(long));
        assert!(gathered.as_mut().now_or_never().is_none(), "one of an idle host waits");
        arrives(&beats, Vec::new());
        assert!(gathered.as_mut().now_or_never().is_none(), "and so do two");
        arrives(&beats, vec![held()]);
        gathered.await;
        assert!(beats.gathered(long).now_or_never().is_some(), "a lease waits for nobody");
    }

    #[tokio::test]
    async fn heartbeats_of_idle_hosts_do_not_wait_for_ever() {
        let beats = Beats::default();
        arrives(&beats, Vec::new());
        beats.gathered(Duration::from_millis(1)).await;
        assert!(!beats.are_urgent());
    }
}
