//! Takes complete indexes into `file_versions`, one job's backups in the order of their seq.
//!
//! Invariants: for every searchable backup *s* on full *f*, the versions alive at *s* are index(*f*) overlaid by index(*s*), and the
//! archive that [`super::FileVersion::content_in_full`] computes for each is the one that has the content. A version goes on only
//! while its state and that archive are right. At most one version of a path is current. An unchanged full writes nothing.
//!
//! A differential speaks of the full it stands on, not of the backup before: whatever the catalog has changed since that full and
//! the differential does not mention *returns* to its state at the full. The same step serves a restore point without an archive:
//! everything returns to the backup that it names.

use coord_shared::failpoint;
use coord_shared::ids::{BackupId, JobId, Seq};
use coord_shared::level::Level;
use tokio_postgres::Row;

use super::entries::CURRENT;
use super::error::{CatalogError, Result};
use super::index_asks;
use super::placing;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::{count, get, word};

/// Staged entries from which on a differential is joined as a whole instead of path by path.
const MANY_ENTRIES: u64 = 100_000;

/// Versions opened at once from which on the planner's statistics are gathered again, which decide between a look by path and a
/// scan of the whole job, a thousandfold difference; and from which on filters of digests are made.
const MANY_OPENED: u64 = 1_000;

/// What came of trying to take in a job's next backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeOutcome {
    /// Its entries are in the catalog now.
    Merged {
        /// Which.
        backup: BackupId,
        /// Its place.
        seq: Seq,
        /// Versions that ended.
        closed: u64,
        /// Versions that began.
        opened: u64,
    },
    /// It will never be searchable: its full is not.
    NotSearchable(BackupId),
    /// Blocks of its index are missing, or another coordinator is taking it in.
    Waiting(BackupId),
    /// Nothing is left to take in.
    Nothing,
}

const JOB_KEYS: Sql = Sql("SELECT job, host FROM jobs WHERE job_id = $1");

// One merge a job. The job's row stays free: commits and schedules do not wait for a merge.
pub(super) const TRY_LOCK: Sql = Sql("SELECT pg_try_advisory_xact_lock(1668246372, $1) AS locked");
const LOCK: Sql = Sql("SELECT pg_advisory_xact_lock(1668246372, $1)");

// Within the merge's transaction only.
const NO_DEADLINE: Sql = Sql("SELECT set_config('statement_timeout', '0', true)");
const JOIN_AS_WHOLE: Sql =
    Sql("SELECT set_config('enable_nestloop', 'off', true), set_config('work_mem', '128MB', true)");
const JOIN_BY_PATH: Sql =
    Sql("SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)");

const NEXT: Sql = Sql("
    SELECT b.backup, b.backup_id, b.seq, b.level, b.index_blocks, b.archive_of = b.backup AS own,
           coalesce(f.seq, b.seq) AS full_seq, coalesce(f.searchable, 'searchable') AS full_searchable,
           same.seq AS same_seq, same.searchable AS same_searchable,
           (SELECT count(*) FROM arrived_blocks a WHERE a.backup = b.backup) AS arrived,
           j.placing_seq IS NOT DISTINCT FROM b.seq AS placing
    FROM backups b
    JOIN jobs j ON j.job = b.job
    JOIN backups same ON same.backup = b.archive_of
    LEFT JOIN backups f ON f.backup = b.base
    WHERE b.job = $1 AND b.searchable = 'pending'
    ORDER BY b.seq LIMIT 1");

const ANALYZE: Sql = Sql("ANALYZE file_versions");

// Pages without a filter are read by everyone who looks for a digest. What is left here is left to autovacuum.
const MAKE_FILTERS: Sql = Sql("SELECT brin_summarize_new_values('file_versions_digest')");

const COUNT_STAGED: Sql = Sql("SELECT count(*) AS number FROM staged_entries WHERE backup = $1");

const CLOSE_FULL: Sql = Sql("
    UPDATE file_versions v SET last_seq = $4 - 1
    WHERE v.host = $1 AND v.job = $2 AND v.last_seq = 2147483647
      AND NOT EXISTS (
          SELECT FROM staged_entries s
          WHERE s.backup = $3 AND s.folder = v.folder AND s.name = v.name AND s.state = v.state AND s.kind <> 't')");

// Paths that differ from the reference and are not mentioned: with them, the staged entries say all that changes. OFFSET 0 keeps
// the look at what is mentioned a look by path.
pub(super) const STAGE_RETURNS: Sql = Sql("
    INSERT INTO staged_entries (backup, folder, size, mtime_s, digest_head, digest_tail, state, mtime_ns, uid, gid, mode, flags,
        kind, name, link_target)
    SELECT $3, p.folder, coalesce(r.size, 0), coalesce(r.mtime_s, 0), coalesce(r.digest_head, 0), coalesce(r.digest_tail, 0),
        coalesce(r.state, 0), coalesce(r.mtime_ns, 0), coalesce(r.uid, 0), coalesce(r.gid, 0), coalesce(r.mode, 0::smallint),
        CASE WHEN r.first_seq <= $5 THEN r.flags | 8::smallint ELSE coalesce(r.flags, 0::smallint) END,
        coalesce(r.kind, 't'::\"char\"), p.name, coalesce(r.link_target, '')
    FROM (
        SELECT v.folder, v.name FROM file_versions v
        WHERE v.host = $1 AND v.job = $2 AND v.first_seq > $4 AND v.first_seq > 1 AND v.last_seq = 2147483647
        UNION
        SELECT v.folder, v.name FROM file_versions v
        WHERE v.host = $1 AND v.job = $2 AND v.last_seq >= $4 AND v.last_seq < 2147483647 AND v.first_seq <= $4
    ) p
    LEFT JOIN file_versions r ON r.host = $1 AND r.job = $2 AND r.folder = p.folder AND r.name = p.name
        AND r.first_seq <= $4 AND r.last_seq >= $4
    WHERE NOT EXISTS (
        SELECT FROM staged_entries s WHERE s.backup = $3 AND s.folder = p.folder AND s.name = p.name OFFSET 0)");

pub(super) const CLOSE_DIFFERENTIAL: Sql = Sql("
    UPDATE file_versions v SET last_seq = $4 - 1
    FROM staged_entries s
    WHERE s.backup = $3 AND v.host = $1 AND v.job = $2 AND v.folder = s.folder AND v.name = s.name
      AND v.last_seq = 2147483647
      AND (s.kind = 't' OR s.state <> v.state
           OR (s.size > 0 AND (s.digest_head <> 0 OR s.digest_tail <> 0)
               AND (v.first_seq <= $5 OR v.flags & 8 <> 0) <> (s.flags & 8 <> 0)))");

// In the order of folders, so that a folder's listing lies together. $6 takes the flag of content in base out for a full.
const OPEN: Sql = Sql("
    INSERT INTO file_versions (host, job, folder, size, mtime_s, digest_head, digest_tail, state, first_seq, last_seq, mtime_ns, uid,
        gid, mode, flags, kind, name, link_target)
    SELECT $1, $2, s.folder, s.size, s.mtime_s, s.digest_head, s.digest_tail, s.state, $4, 2147483647, s.mtime_ns, s.uid,
        s.gid, s.mode, s.flags & $5, s.kind, s.name, s.link_target
    FROM staged_entries s
    WHERE s.backup = $3 AND s.kind <> 't'
      AND NOT EXISTS (
          SELECT FROM file_versions v
          WHERE v.host = $1 AND v.job = $2 AND v.folder = s.folder AND v.name = s.name AND v.last_seq = 2147483647)
    ORDER BY s.folder, s.name");

const FORGET_ENTRIES: Sql = Sql("DELETE FROM staged_entries WHERE backup = $1");
const FORGET_BLOCKS: Sql = Sql("DELETE FROM staged_blocks WHERE backup = $1");

const SET_SEARCHABLE: Sql = Sql(
    "UPDATE backups SET searchable = $2, searchable_reason = $3,
        catalog_ms = extract(epoch FROM clock_timestamp() - now()) * 1000 WHERE backup = $1 AND searchable || '' = 'pending'",
);

const SET_INGESTED: Sql =
    Sql("UPDATE jobs SET ingested_seq = greatest(ingested_seq, $2), placing_seq = NULL WHERE job = $1");

const OVERTAKEN: Sql = Sql("
    UPDATE backups SET searchable = 'not_searchable', searchable_reason = $3
    WHERE job = $1 AND seq < $2 AND searchable = 'pending'");

pub(super) const READY_JOBS: Sql = Sql("
    SELECT j.job_id
    FROM (
        SELECT DISTINCT ON (b.job) b.job, b.backup, b.index_blocks FROM backups b
        WHERE b.searchable = 'pending' ORDER BY b.job, b.seq
    ) n
    JOIN jobs j ON j.job = n.job
    WHERE n.index_blocks = (SELECT count(*) FROM arrived_blocks a WHERE a.backup = n.backup)
    ORDER BY j.job LIMIT $1");

const GIVE_UP: Sql = Sql("
    UPDATE backups SET searchable = 'not_searchable', searchable_reason = $2
    WHERE backup_id = $1 AND searchable || '' = 'pending' RETURNING backup");

// Before its backup: see `placing`.
const LOCK_JOB_OF: Sql = Sql("
    SELECT j.job, j.host, j.placing_seq IS NOT DISTINCT FROM b.seq AS placing
    FROM backups b JOIN jobs j ON j.job = b.job WHERE b.backup_id = $1 FOR UPDATE OF j");

const DROP_VERSIONS: Sql = Sql("DELETE FROM file_versions WHERE host = $1 AND job = $2");
const DROP_STAGED: Sql = Sql("
    DELETE FROM staged_entries WHERE backup IN (SELECT b.backup FROM backups b WHERE b.job = $1)");
const DROP_BLOCKS: Sql = Sql("
    DELETE FROM staged_blocks WHERE backup IN (SELECT b.backup FROM backups b WHERE b.job = $1)");
const DROP_PLACED: Sql = Sql("
    DELETE FROM placed_blocks WHERE backup IN (SELECT b.backup FROM backups b WHERE b.job = $1)");
const WANT_AGAIN: Sql = Sql("
    UPDATE backups SET searchable = 'pending', searchable_reason = '' WHERE job = $1");
const RESET_INGESTED: Sql = Sql("UPDATE jobs SET ingested_seq = 0 WHERE job = $1");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("JOB_KEYS", &JOB_KEYS),
    ("TRY_LOCK", &TRY_LOCK),
    ("LOCK", &LOCK),
    ("NO_DEADLINE", &NO_DEADLINE),
    ("JOIN_AS_WHOLE", &JOIN_AS_WHOLE),
    ("JOIN_BY_PATH", &JOIN_BY_PATH),
    ("NEXT", &NEXT),
    ("ANALYZE", &ANALYZE),
    ("MAKE_FILTERS", &MAKE_FILTERS),
    ("COUNT_STAGED", &COUNT_STAGED),
    ("CLOSE_FULL", &CLOSE_FULL),
    ("STAGE_RETURNS", &STAGE_RETURNS),
    ("CLOSE_DIFFERENTIAL", &CLOSE_DIFFERENTIAL),
    ("OPEN", &OPEN),
    ("FORGET_ENTRIES", &FORGET_ENTRIES),
    ("FORGET_BLOCKS", &FORGET_BLOCKS),
    ("SET_SEARCHABLE", &SET_SEARCHABLE),
    ("SET_INGESTED", &SET_INGESTED),
    ("OVERTAKEN", &OVERTAKEN),
    ("READY_JOBS", &READY_JOBS),
    ("GIVE_UP", &GIVE_UP),
    ("LOCK_JOB_OF", &LOCK_JOB_OF),
    ("DROP_VERSIONS", &DROP_VERSIONS),
    ("DROP_STAGED", &DROP_STAGED),
    ("DROP_BLOCKS", &DROP_BLOCKS),
    ("DROP_PLACED", &DROP_PLACED),
    ("WANT_AGAIN", &WANT_AGAIN),
    ("RESET_INGESTED", &RESET_INGESTED),
];

struct Keys {
    host: i32,
    job: i32,
}

/// A backup whose turn it is.
struct Turn {
    key: i64,
    id: BackupId,
    seq: i32,
    level: Level,
    own: bool,
    full_seq: i32,
    same_seq: i32,
    blocks: u64,
    arrived: u64,
    /// It is the job's first, and its entries are there already.
    placing: bool,
    /// Everything that it stands on is searchable.
    grounded: bool,
}

fn read_turn(row: &Row) -> Result<Turn> {
    let searchable = |column| -> Result<bool> { Ok(get::<&str>(row, column)? == "searchable") };
    let own = get(row, "own")?;
    Ok(Turn {
        key: get(row, "backup")?,
        id: BackupId::from_uuid(get(row, "backup_id")?),
        seq: get(row, "seq")?,
        level: word(row, "level")?,
        own,
        full_seq: get(row, "full_seq")?,
        same_seq: get(row, "same_seq")?,
        blocks: count(row, "index_blocks")?,
        arrived: count(row, "arrived")?,
        placing: get(row, "placing")?,
        grounded: searchable("full_searchable")? && (own || searchable("same_searchable")?),
    })
}

impl Catalog {
    /// Jobs whose next backup can be taken in.
    pub async fn jobs_to_merge(&self, limit: u32) -> Result<Vec<JobId>> {
        let rows = self.connection().await?.query(&READY_JOBS, &[&i64::from(limit)]).await?;
        rows.iter().map(|row| Ok(JobId::from_uuid(get(row, "job_id")?))).collect()
    }

    /// Takes in the job's next backup if all of its index is here. Any number of coordinators may try.
    pub async fn merge_next(&self, job: JobId) -> Result<MergeOutcome> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let keys = keys(&transaction, job).await?;
        let row = transaction.query_opt(&TRY_LOCK, &[&keys.job]).await?;
        let locked = row.map_or(Ok(false), |row| get(&row, "locked"))?;
        let Some(row) = transaction.query_opt(&NEXT, &[&keys.job]).await? else {
            return Ok(MergeOutcome::Nothing);
        };
        if !locked {
            return Ok(MergeOutcome::Waiting(BackupId::from_uuid(get(&row, "backup_id")?)));
        }
        let turn = read_turn(&row)?;
        if !turn.grounded {
            let reason = "what it stands on is not searchable";
            forget(&transaction, turn.key).await?;
            finish(&transaction, &keys, &turn, ("not_searchable", reason)).await?;
            transaction.commit().await?;
            return Ok(MergeOutcome::NotSearchable(turn.id));
        }
        if turn.arrived < turn.blocks {
            return Ok(MergeOutcome::Waiting(turn.id));
        }
        let Merged { staged, closed, opened } = merge(&transaction, &keys, &turn).await?;
        if staged <= MANY_ENTRIES {
            forget(&transaction, turn.key).await?;
        }
        finish(&transaction, &keys, &turn, ("searchable", "")).await?;
        failpoint::reach("coordinator.merge.uncommitted");
        transaction.commit().await?;
        failpoint::reach("coordinator.merge.committed");
        if opened >= MANY_OPENED {
            for statement in [&ANALYZE, &MAKE_FILTERS] {
                if let Err(error) = connection.execute(statement, &[]).await {
                    tracing::debug!(%error, "statistics and filters of file versions are made later");
                }
            }
        }
        drop(connection);
        if staged > MANY_ENTRIES {
            self.forget_staged(&keys, &turn).await;
        }
        Ok(MergeOutcome::Merged { backup: turn.id, seq: Seq(i64::from(turn.seq)), closed, opened })
    }

    /// What was staged of a large index that has been taken in. What is left here is dropped within the hour.
    async fn forget_staged(&self, keys: &Keys, turn: &Turn) {
        if let Err(error) = self.drop_staged(keys.job, turn.key).await {
            tracing::debug!(%error, backup = %turn.id, "what was staged is dropped later");
        }
    }

    /// The index of a backup will not come: later backups need not wait for it. False: it was not waited for.
    pub async fn give_up_index(&self, backup: BackupId, reason: &str) -> Result<bool> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let Some(job) = transaction.query_opt(&LOCK_JOB_OF, &[&backup.uuid()]).await? else { return Ok(false) };
        let Some(row) = transaction.query_opt(&GIVE_UP, &[&backup.uuid(), &reason]).await? else {
            return Ok(false);
        };
        let key = get(&row, "backup")?;
        forget(&transaction, key).await?;
        if get(&job, "placing")? {
            transaction.query(&NO_DEADLINE, &[]).await?;
            let keys = Keys { host: get(&job, "host")?, job: get(&job, "job")? };
            placing::end(&transaction, keys.job).await?;
            // The job has no other entries.
            transaction.execute(&DROP_VERSIONS, &[&keys.host, &keys.job]).await?;
            placing::forget_blocks(&transaction, key).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Forgets all entries of a job and wants every index again: fills gaps, repairs, rebuilds.
    pub async fn forget_entries(&self, job: JobId) -> Result<()> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let keys = keys(&transaction, job).await?;
        transaction.query(&LOCK, &[&keys.job]).await?;
        transaction.query(&NO_DEADLINE, &[]).await?;
        placing::end(&transaction, keys.job).await?;
        transaction.execute(&DROP_VERSIONS, &[&keys.host, &keys.job]).await?;
        transaction.execute(&DROP_STAGED, &[&keys.job]).await?;
        transaction.execute(&DROP_BLOCKS, &[&keys.job]).await?;
        transaction.execute(&DROP_PLACED, &[&keys.job]).await?;
        transaction.execute(&RESET_INGESTED, &[&keys.job]).await?;
        transaction.execute(&WANT_AGAIN, &[&keys.job]).await?;
        index_asks::ask_at_once(&transaction, keys.job).await?;
        transaction.commit().await
    }
}

async fn keys(transaction: &Transaction<'_>, job: JobId) -> Result<Keys> {
    let row = transaction.query_opt(&JOB_KEYS, &[&job.uuid()]).await?;
    let row = row.ok_or_else(|| CatalogError::not_found("job", job))?;
    Ok(Keys { host: get(&row, "host")?, job: get(&row, "job")? })
}

/// How many entries there were, and versions that ended and began.
struct Merged {
    staged: u64,
    closed: u64,
    opened: u64,
}

async fn forget(transaction: &Transaction<'_>, backup: i64) -> Result<()> {
    transaction.execute(&FORGET_ENTRIES, &[&backup]).await?;
    transaction.execute(&FORGET_BLOCKS, &[&backup]).await?;
    Ok(())
}

async fn merge(transaction: &Transaction<'_>, keys: &Keys, turn: &Turn) -> Result<Merged> {
    transaction.query(&NO_DEADLINE, &[]).await?;
    let row = transaction.query_opt(&COUNT_STAGED, &[&turn.key]).await?;
    let staged = row.map_or(Ok(0), |row| count(&row, "number"))?;
    // The planner knows nothing of rows that were just copied, so it is told.
    let whole = turn.level == Level::Full || staged > MANY_ENTRIES;
    transaction.query(if whole { &JOIN_AS_WHOLE } else { &JOIN_BY_PATH }, &[]).await?;
    let (host, job, key, seq) = (&keys.host, &keys.job, &turn.key, &turn.seq);
    let closed = match turn.level {
        // There is nothing before it.
        Level::Full if turn.placing => 0,
        Level::Full => transaction.execute(&CLOSE_FULL, &[host, job, key, seq]).await?,
        Level::Differential => {
            let reference = if turn.own { &turn.full_seq } else { &turn.same_seq };
            let params: Params<'_> = &[host, job, key, reference, &turn.full_seq];
            transaction.execute(&STAGE_RETURNS, params).await?;
            transaction.execute(&CLOSE_DIFFERENTIAL, &[host, job, key, seq, &turn.full_seq]).await?
        }
    };
    let flags: i16 = match turn.level {
        Level::Full => !8,
        Level::Differential => !0,
    };
    let placed = if turn.placing { placing::placed(transaction, turn.key).await? } else { 0 };
    // Blocks that arrived before the placing began were staged.
    let opened = match (placed, staged) {
        (1.., 0) => 0,
        _ => transaction.execute(&OPEN, &[host, job, key, seq, &flags]).await?,
    };
    Ok(Merged { staged, closed, opened: placed + opened })
}

async fn finish(
    transaction: &Transaction<'_>,
    keys: &Keys,
    turn: &Turn,
    (searchable, reason): (&str, &str),
) -> Result<()> {
    index_asks::answered(transaction, turn.key).await?;
    placing::forget_blocks(transaction, turn.key).await?;
    // The order matters: a commit of a lower seq either came before this and is seen below, or comes after and sees this. So does
    // whoever is about to begin to place.
    transaction.execute(&SET_INGESTED, &[&keys.job, &turn.seq]).await?;
    transaction.execute(&SET_SEARCHABLE, &[&turn.key, &searchable, &reason]).await?;
    transaction.execute(&OVERTAKEN, &[&keys.job, &turn.seq, &super::commit::OVERTAKEN_REASON]).await?;
    Ok(())
}

const _: () = assert!(CURRENT == 2_147_483_647, "the statements above write it out");
