//! Rules over the rows of the catalog: each is one question whose rows are the violations.

use super::question::Catalog;
use super::{Rule, Violation};

const RULES: &[(Rule, &str)] = &[
    (
        Rule::DueOnce,
        "SELECT format('job %s has %s %s runs due at %s', job, count(*), kind, due_at) FROM runs
         WHERE asked_by = 'schedule' GROUP BY job, kind, due_at HAVING count(*) > 1",
    ),
    (
        // Stories use crons whose instants are equally far apart: the shortest distance of a job's is its period. The last of them is
        // the instant that the job waits for.
        Rule::DueInstantKept,
        "WITH instants AS (
             SELECT job, due_at FROM runs WHERE asked_by = 'schedule' AND kind = 'backup'
             UNION SELECT job, backup_due_at FROM jobs WHERE backup_due_at < '2999-01-01'
         ), distances AS (
             SELECT job, due_at, due_at - lag(due_at) OVER (PARTITION BY job ORDER BY due_at) AS distance FROM instants
         ), periods AS (SELECT job, min(distance) AS period FROM distances GROUP BY job)
         SELECT format('job %s has no run between %s and %s', d.job, d.due_at - d.distance, d.due_at)
         FROM distances d JOIN periods p USING (job) WHERE d.distance > p.period",
    ),
    (
        Rule::RunEnded,
        "SELECT format('run %s is still %s at attempt %s', run_id, state, attempt) FROM runs
         WHERE state IN ('queued', 'leased', 'running', 'verifying')",
    ),
    (
        Rule::ReasonGiven,
        "SELECT format('run %s is %s and does not say why', run_id, state) FROM runs
         WHERE (state = 'failed' AND fault IS NULL) OR (state = 'missed' AND reason = '')",
    ),
    (
        Rule::OneBackup,
        "SELECT format('run %s left %s backups', run_id, count(*)) FROM backups GROUP BY run_id HAVING count(*) > 1",
    ),
    (
        Rule::SuccessHasBackup,
        "SELECT format('run %s succeeded without a backup', run_id) FROM runs r WHERE kind = 'backup' AND state = 'succeeded'
           AND NOT EXISTS (SELECT FROM backups b WHERE b.run_id = r.run_id AND b.backup_id = r.backup_id)",
    ),
    (
        Rule::BackupHasSuccess,
        "SELECT format('backup %s is of run %s, which is %s', b.backup_id, r.run_id, r.state)
         FROM backups b JOIN runs r USING (run_id) WHERE r.state <> 'succeeded'",
    ),
    (
        Rule::AttemptsInOrder,
        "SELECT format('run %s is at attempt %s and has attempts %s', r.run_id, r.attempt, a.numbers)
         FROM runs r LEFT JOIN LATERAL (
             SELECT array_agg(attempt ORDER BY leased_at, attempt) AS numbers FROM attempts a WHERE a.run_id = r.run_id
         ) a ON true
         WHERE coalesce(a.numbers, '{}') <> coalesce((SELECT array_agg(n) FROM generate_series(1, r.attempt) n), '{}')",
    ),
    (
        Rule::NewestAttemptCommits,
        "SELECT format('attempt %s of run %s succeeded, and the run is at %s', a.attempt, a.run_id, r.attempt)
         FROM attempts a JOIN runs r USING (run_id)
         WHERE a.outcome = 'succeeded' AND (a.attempt <> r.attempt OR r.state <> 'succeeded')
         UNION ALL
         SELECT format('backup %s is of attempt %s of run %s, which is at %s', b.backup_id, b.attempt, r.run_id, r.attempt)
         FROM backups b JOIN runs r USING (run_id) WHERE b.attempt <> r.attempt",
    ),
    (
        Rule::EventsInOrder,
        "SELECT format('run %s: %s of attempt %s came after an event of attempt %s', run_id, kind, attempt, before) FROM (
             SELECT run_id, kind, attempt, max(attempt) OVER (PARTITION BY run_id ORDER BY event ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
             FROM run_events) e WHERE attempt < before
         UNION ALL
         SELECT format('run %s succeeded %s times', run_id, count(*)) FROM run_events WHERE kind = 'succeeded'
         GROUP BY run_id HAVING count(*) > 1",
    ),
    (
        Rule::SearchableOrReason,
        "SELECT format('backup %s is %s', backup_id, searchable) FROM backups
         WHERE searchable = 'pending' OR (searchable = 'not_searchable' AND searchable_reason = '')",
    ),
];

/// The instant to which a story puts what a job waits for, when it wants no further runs of a schedule.
pub const NEVER: &str = "2999-01-01";

/// Every violation that the rows show.
///
/// # Errors
/// The database does not answer.
pub fn catalog(asked: &Catalog) -> Result<Vec<Violation>, String> {
    let mut found = Vec::new();
    for (rule, question) in RULES {
        let broken = asked.texts(question).map_err(|error| format!("{rule:?}: {error}"))?;
        found.extend(broken.into_iter().map(|what| Violation { rule: *rule, what }));
    }
    Ok(found)
}
