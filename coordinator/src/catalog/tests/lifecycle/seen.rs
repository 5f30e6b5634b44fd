//! What is to be seen of the fleet, line by line: as the model says, and as the database has it. And what must hold whatever the model says.

use std::collections::BTreeSet;

use tokio_postgres::{Client, Statement};

use super::model::Model;
use super::run::{Fate, Place};

/// Lines, in an order that both have.
pub(super) type Lines = BTreeSet<String>;

/// Instants are minutes after this, in seconds since 1970.
pub(super) const FIRST_INSTANT: i64 = 1_800_000_000;

const SEEN: &str = "
    SELECT format('run %s %s of %s at %s: %s %s%s%s, level %s, backup %s, lease %s of %s, waits %s', r.run_id, r.kind, j.job_id,
        CASE WHEN r.asked_by = 'schedule' THEN ((extract(epoch FROM r.due_at) - 1800000000) / 60)::int::text ELSE '-' END,
        r.state, r.attempt, CASE WHEN r.cancelling THEN ' cancelling' END, CASE WHEN r.reaped THEN ' reaped' END,
        coalesce(r.level, '-'), coalesce(r.backup_id::text, '-'),
        coalesce(round(extract(epoch FROM r.lease_until - now()) / 1800)::int::text, '-'), coalesce(r.lease_session::text, '-'),
        CASE WHEN r.state = 'queued' THEN greatest(round(extract(epoch FROM r.run_after - now()) / 1800)::int, 0)::text ELSE '-' END)
    FROM runs r JOIN jobs j ON j.job = r.job
    UNION ALL
    SELECT format('attempt %s %s over %s: %s%s', run_id, attempt, session, coalesce(outcome, 'goes on'),
        CASE WHEN started_at IS NOT NULL THEN ', begun' END)
    FROM attempts
    UNION ALL SELECT format('report %s %s %s', run_id, attempt, sequence) FROM run_reports
    UNION ALL SELECT format('note %s %s %s', run_id, attempt, sequence) FROM run_warnings
    UNION ALL
    SELECT format('backup %s of %s %s, ordinal %s of %s, level %s', b.backup_id, b.run_id, b.attempt, b.ordinal, j.job_id, b.level)
    FROM backups b JOIN jobs j ON j.job = b.job
    UNION ALL
    SELECT format('job %s due at %s, ordinal %s', job_id,
        coalesce(((extract(epoch FROM backup_due_at) - 1800000000) / 60)::int::text, '-'), last_ordinal)
    FROM jobs
    UNION ALL SELECT format('host %s in session %s', host_id, session_number) FROM hosts
    UNION ALL SELECT format('key %s of %s: %s', k.key, j.job_id, k.run_id) FROM run_keys k JOIN jobs j ON j.job = k.job
    UNION ALL
    SELECT format('promise %s of %s: %s', ((extract(epoch FROM p.due_at) - 1800000000) / 60)::int, j.job_id, p.run_id)
    FROM planned_runs p JOIN jobs j ON j.job = p.job";

/// Where each run was after the step before.
const MEMORY: &str = "CREATE TEMP TABLE was AS SELECT run_id, state, attempt, backup_id FROM runs WITH NO DATA";

const FORGET: &str = "DELETE FROM was";

const REMEMBER: &str =
    "INSERT INTO was (run_id, state, attempt, backup_id) SELECT run_id, state, attempt, backup_id FROM runs";

const BROKEN: &str = "
    SELECT format('job %s has %s open backup runs', job, count(*)) FROM runs
    WHERE kind = 'backup' AND state IN ('queued', 'leased', 'running', 'verifying') GROUP BY job HAVING count(*) > 1
    UNION ALL
    SELECT format('job %s has %s runs of one instant', job, count(*)) FROM runs
    WHERE asked_by = 'schedule' GROUP BY job, kind, due_at HAVING count(*) > 1
    UNION ALL
    SELECT format('run %s has attempts %s, the newest is %s', r.run_id, array_agg(a.attempt ORDER BY a.attempt), r.attempt)
    FROM runs r LEFT JOIN attempts a ON a.run_id = r.run_id GROUP BY r.run_id, r.attempt
    HAVING count(a.attempt) <> r.attempt OR coalesce(max(a.attempt), 0) <> r.attempt
    UNION ALL
    SELECT format('run %s went from attempt %s to %s', r.run_id, w.attempt, r.attempt)
    FROM runs r LEFT JOIN was w ON w.run_id = r.run_id WHERE r.attempt - coalesce(w.attempt, 0) NOT IN (0, 1)
    UNION ALL
    SELECT format('run %s is gone', w.run_id) FROM was w WHERE NOT EXISTS (SELECT FROM runs r WHERE r.run_id = w.run_id)
    UNION ALL
    SELECT format('run %s was %s and is %s', r.run_id, w.state, r.state) FROM runs r JOIN was w ON w.run_id = r.run_id
    WHERE w.state IN ('succeeded', 'cancelled', 'failed', 'missed') AND r.state <> w.state
      AND NOT (w.state IN ('failed', 'missed') AND r.state = 'succeeded')
    UNION ALL
    SELECT format('run %s has another backup', r.run_id) FROM runs r JOIN was w ON w.run_id = r.run_id
    WHERE w.backup_id IS NOT NULL AND r.backup_id IS DISTINCT FROM w.backup_id
    UNION ALL
    SELECT format('run %s has %s backups', run_id, count(*)) FROM backups GROUP BY run_id HAVING count(*) > 1
    UNION ALL
    SELECT format('backup %s is of attempt %s of a run that is %s by attempt %s', b.backup_id, b.attempt, r.state, r.attempt)
    FROM backups b JOIN runs r ON r.run_id = b.run_id
    WHERE r.state <> 'succeeded' OR r.attempt <> b.attempt OR r.backup_id IS DISTINCT FROM b.backup_id
    UNION ALL
    SELECT format('run %s has succeeded without a backup', r.run_id) FROM runs r
    WHERE r.kind = 'backup' AND r.state = 'succeeded' AND NOT EXISTS (SELECT FROM backups b WHERE b.run_id = r.run_id)
    UNION ALL
    SELECT format('attempt %s of run %s: %s, and of a run that is %s the newest is %s',
        a.attempt, a.run_id, coalesce(a.outcome, 'goes on'), r.state, r.attempt)
    FROM attempts a JOIN runs r ON r.run_id = a.run_id
    WHERE (coalesce(a.outcome, '') = 'succeeded') <> (r.state = 'succeeded' AND a.attempt = r.attempt)
       OR (a.outcome IS NULL) <> (r.state IN ('leased', 'running', 'verifying') AND a.attempt = r.attempt)";

const BUSY: &str = "
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
      AND state IS DISTINCT FROM 'idle'";

const PASS: &str = "
    UPDATE runs SET lease_until = lease_until - $1 * INTERVAL '30 min', run_after = run_after - $1 * INTERVAL '30 min'";

/// Everything that a story leaves. To truncate so many tables takes a second.
const CLEAR: &str = "
    DELETE FROM was; DELETE FROM run_events; DELETE FROM run_reports; DELETE FROM run_warnings; DELETE FROM run_keys;
    DELETE FROM planned_runs; DELETE FROM attempts; DELETE FROM backups; DELETE FROM runs;
    UPDATE jobs SET backup_due_at = NULL, last_ordinal = 0;
    UPDATE hosts SET session_number = 1";

/// A connection past every coordinator.
pub(super) struct Onlooker {
    client: Client,
    seen: Statement,
    broken: Statement,
    forget: Statement,
    remember: Statement,
    busy: Statement,
}

impl Onlooker {
    pub(super) async fn new(client: Client) -> Onlooker {
        client.batch_execute(MEMORY).await.unwrap();
        let prepare = async |sql| client.prepare(sql).await.unwrap();
        let (seen, broken, busy) = (prepare(SEEN).await, prepare(BROKEN).await, prepare(BUSY).await);
        let (forget, remember) = (prepare(FORGET).await, prepare(REMEMBER).await);
        Onlooker { client, seen, broken, forget, remember, busy }
    }

    /// Makes room for the next story.
    pub(super) async fn clear(&self) {
        self.client.batch_execute(CLEAR).await.unwrap();
    }

    /// So many half hours pass.
    pub(super) async fn pass(&self, half_hours: u8) {
        self.client.execute(PASS, &[&f64::from(half_hours)]).await.unwrap();
    }

    /// Waits until no transaction is open: those of connections that were cut are undone, and those that were dropped.
    pub(super) async fn wait_for_quiet(&self) {
        while self.client.query_one(&self.busy, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// What the database has.
    pub(super) async fn look(&self) -> Lines {
        self.lines(&self.seen).await
    }

    /// What no story may lead to.
    pub(super) async fn broken(&self) -> Lines {
        let broken = self.lines(&self.broken).await;
        self.client.execute(&self.forget, &[]).await.unwrap();
        self.client.execute(&self.remember, &[]).await.unwrap();
        broken
    }

    async fn lines(&self, statement: &Statement) -> Lines {
        let rows = self.client.query(statement, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// What the database should have.
pub(super) fn expected(model: &Model) -> Lines {
    let mut lines = Lines::new();
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for (id, run) in &model.runs {
        let (shown, job) = (run.shown(), model.jobs[run.job]);
        let (cancelling, reaped) =
            (if shown.cancelling { " cancelling" } else { "" }, if shown.reaped { " reaped" } else { "" });
        let (lease, session, waits) = match run.place {
            Place::Waits(left) => (None, None, Some(left.to_string())),
            Place::Held(_, left, session) => (Some(left.to_string()), Some(session.to_string()), None),
            Place::Over(_) => (None, None, None),
        };
        lines.insert(format!(
            "run {id} {} of {job} at {}: {} {}{cancelling}{reaped}, level {}, backup {}, lease {} of {}, waits {}",
            run.kind,
            text(run.instant.map(|instant| instant.to_string())),
            shown.state,
            shown.attempt,
            text(run.level.map(|level| level.as_str().to_owned())),
            text(run.backup.map(|backup| backup.to_string())),
            text(lease),
            text(session),
            text(waits),
        ));
        for (number, attempt) in (1..).zip(&run.tries) {
            let fate = match attempt.fate {
                Fate::GoesOn => "goes on",
                Fate::Lapsed => "lapsed",
                Fate::Succeeded => "succeeded",
                Fate::Failed => "failed",
                Fate::Stopped => "cancelled",
            };
            let begun = if attempt.begun { ", begun" } else { "" };
            lines.insert(format!("attempt {id} {number} over {}: {fate}{begun}", attempt.session));
        }
        lines.extend(run.reports.iter().map(|(attempt, sequence)| format!("report {id} {attempt} {sequence}")));
        lines.extend(run.notes.iter().map(|(attempt, sequence)| format!("note {id} {attempt} {sequence}")));
    }
    for backup in &model.backups {
        let (id, run, job, level) = (backup.id, backup.run, model.jobs[backup.job], backup.level.as_str());
        let (attempt, ordinal) = (backup.attempt, backup.ordinal);
        lines.insert(format!("backup {id} of {run} {attempt}, ordinal {ordinal} of {job}, level {level}"));
    }
    for (index, job) in model.jobs.iter().enumerate() {
        let due = text(model.due[index].map(|instant| instant.to_string()));
        lines.insert(format!("job {job} due at {due}, ordinal {}", model.ordinals[index]));
        lines.insert(format!("host {} in session {}", model.hosts[index], model.sessions[index]));
    }
    lines.extend(model.keys.iter().map(|((job, key), run)| format!("key key-{key} of {}: {run}", model.jobs[*job])));
    let promise =
        |((job, instant), run): (&(usize, u8), &_)| format!("promise {instant} of {}: {run}", model.jobs[*job]);
    lines.extend(model.promised.iter().map(promise));
    lines
}
