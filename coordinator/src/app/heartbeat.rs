//! A heartbeat extends the leases of the attempts that the agent holds, and answers which of them must stop. While the database is
//! away it is not answered; the session stays, because the lease outlives a short outage and nothing is reaped after one.

use coord_shared::api::{Heartbeat, HeartbeatAck, Phase, RunHeartbeat};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::Attempt;
use coord_shared::wire::to_us;

use super::App;
use super::hello::{clock_offset_us, held_answers};
use crate::catalog::{PhaseWord, ProgressRecord, RunBeat};
use crate::sessions::Session;

/// Attempts that one heartbeat may carry.
const MAX_RUNS: usize = 10_000;

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
    let now = app.catalog.now().await?;
    let offset = clock_offset_us(beat.sent_at_us, now);
    if !app.catalog.touch_session(session.host, session.number, offset).await? {
        return Err(Fault::new(ErrorCode::Changed, "a newer session of this host took the place of this one"));
    }
    let beats: Vec<RunBeat> = beat.runs.iter().filter_map(run_beat).collect();
    let outcomes = app.catalog.beat_runs(session.host, session.number, app.settings.lease(), &beats).await?;
    Ok(HeartbeatAck { now_us: to_us(now), runs: held_answers(app, &outcomes, now).await? })
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
