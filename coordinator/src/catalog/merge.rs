//! Takes complete indexes into `file_versions`, one job's backups in the order of their seq.
//!
//! Invariants: for every searchable backup *s* on full *f*, the versions alive at *s* are index(*f*) overlaid by index(*s*), and the
//! archive that [`super::FileVersion::content_in_full`] computes for each is the one that has the content. A version goes on only
//! while its state and that archive are right. At most one version of a path is current. An unchanged full writes nothing.
//!
//! A differential speaks of the full it stands on, not of the backup before: whatever the catalog has changed since that full and
//! the differential does not mention *returns* to its state at the full. The same step serves a restore point without an archive:
//! everything returns to the backup that it names.

use coord_shared::ids::{BackupId, JobId, Seq};
use coord_shared::level::Level;
use tokio_postgres::Row;

use super::entries::CURRENT;
use super::error::{CatalogError, Result};
use super::index_asks;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::{count, get, word};

/// Staged entries from which on a differential is joined as a whole instead of path by path.
const MANY_ENTRIES: u64 = 100_000;

/// Versions opened at once from which on the planner's statistics are gathered again: they decide between a look by path and a
/// scan of the whole job, a thousandfold difference.
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
const TRY_LOCK: Sql = Sql("SELECT pg_try_advisory_xact_lock(1668246372, $1) AS locked");
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
           (SELECT count(*) FROM staged_blocks s WHERE s.backup = b.backup) AS staged
    FROM backups b
    JOIN backups same ON same.backup = b.archive_of
    LEFT JOIN backups f ON f.backup = b.base
    WHERE b.job = $1 AND b.searchable = 'pending'
    ORDER BY b.seq LIMIT 1");

const ANALYZE: Sql = Sql("ANALYZE file_versions");

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
    INSERT INTO staged_entries (backup, folder, size, mtime_s, digest_head, state, mtime_ns, uid, gid, mode, flags, kind, name,
        digest_tail, link_target)
    SELECT $3, p.folder, coalesce(r.size, 0), coalesce(r.mtime_s, 0), coalesce(r.digest_head, 0), coalesce(r.state, 0),
        coalesce(r.mtime_ns, 0), coalesce(r.uid, 0), coalesce(r.gid, 0), coalesce(r.mode, 0::smallint),
        CASE WHEN r.first_seq <= $5 THEN r.flags | 8::smallint ELSE coalesce(r.flags, 0::smallint) END,
        coalesce(r.kind, 't'::\"char\"), p.name, coalesce(r.digest_tail, ''), coalesce(r.link_target, '')
    FROM (
        SELECT v.folder, v.name FROM file_versions v
        WHERE v.host = $1 AND v.job = $2 AND v.first_seq > $4 AND v.last_seq = 2147483647
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
           OR (s.size > 0 AND s.digest_tail <> ''
               AND (v.first_seq <= $5 OR v.flags & 8 <> 0) <> (s.flags & 8 <> 0)))");

// In the order of folders, so that a folder's listing lies together. $6 takes the flag of content in base out for a full.
const OPEN: Sql = Sql("
    INSERT INTO file_versions (host, job, folder, size, mtime_s, digest_head, state, first_seq, last_seq, mtime_ns, uid, gid,
        mode, flags, kind, name, digest_tail, link_target)
    SELECT $1, $2, s.folder, s.size, s.mtime_s, s.digest_head, s.state, $4, 2147483647, s.mtime_ns, s.uid, s.gid,
        s.mode, s.flags & $5, s.kind, s.name, s.digest_tail, s.link_target
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
        catalog_ms = extract(epoch FROM clock_timestamp() - now()) * 1000 WHERE backup = $1 AND searchable = 'pending'",
);

const SET_INGESTED: Sql = Sql("UPDATE jobs SET ingested_seq = greatest(ingested_seq, $2) WHERE job = $1");

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
    WHERE n.index_blocks = (SELECT count(*) FROM staged_blocks s WHERE s.backup = n.backup)
    ORDER BY j.job LIMIT $1");

const GIVE_UP: Sql = Sql("
    UPDATE backups SET searchable = 'not_searchable', searchable_reason = $2
    WHERE backup_id = $1 AND searchable = 'pending' RETURNING backup");

const DROP_VERSIONS: Sql = Sql("DELETE FROM file_versions WHERE host = $1 AND job = $2");
const DROP_STAGED: Sql = Sql("
    DELETE FROM staged_entries WHERE backup IN (SELECT b.backup FROM backups b WHERE b.job = $1)");
const DROP_BLOCKS: Sql = Sql("
    DELETE FROM staged_blocks WHERE backup IN (SELECT b.backup FROM backups b WHERE b.job = $1)");
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
    ("DROP_VERSIONS", &DROP_VERSIONS),
    ("DROP_STAGED", &DROP_STAGED),
    ("DROP_BLOCKS", &DROP_BLOCKS),
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
    staged: u64,
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
        staged: count(row, "staged")?,
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
            finish(&transaction, &keys, &turn, ("not_searchable", reason)).await?;
            transaction.commit().await?;
            return Ok(MergeOutcome::NotSearchable(turn.id));
        }
        if turn.staged < turn.blocks {
            return Ok(MergeOutcome::Waiting(turn.id));
        }
        let (closed, opened) = merge(&transaction, &keys, &turn).await?;
        finish(&transaction, &keys, &turn, ("searchable", "")).await?;
        transaction.commit().await?;
        if opened >= MANY_OPENED
            && let Err(error) = connection.execute(&ANALYZE, &[]).await
        {
            tracing::debug!(%error, "statistics of file versions are gathered later");
        }
        Ok(MergeOutcome::Merged { backup: turn.id, seq: Seq(i64::from(turn.seq)), closed, opened })
    }

    /// The index of a backup will not come: later backups need not wait for it. False: it was not waited for.
    pub async fn give_up_index(&self, backup: BackupId, reason: &str) -> Result<bool> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let Some(row) = transaction.query_opt(&GIVE_UP, &[&backup.uuid(), &reason]).await? else {
            return Ok(false);
        };
        let key: i64 = get(&row, "backup")?;
        transaction.execute(&FORGET_ENTRIES, &[&key]).await?;
        transaction.execute(&FORGET_BLOCKS, &[&key]).await?;
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
        transaction.execute(&DROP_VERSIONS, &[&keys.host, &keys.job]).await?;
        transaction.execute(&DROP_STAGED, &[&keys.job]).await?;
        transaction.execute(&DROP_BLOCKS, &[&keys.job]).await?;
        transaction.execute(&WANT_AGAIN, &[&keys.job]).await?;
        transaction.execute(&RESET_INGESTED, &[&keys.job]).await?;
        index_asks::ask_at_once(&transaction, keys.job).await?;
        transaction.commit().await
    }
}

async fn keys(transaction: &Transaction<'_>, job: JobId) -> Result<Keys> {
    let row = transaction.query_opt(&JOB_KEYS, &[&job.uuid()]).await?;
    let row = row.ok_or_else(|| CatalogError::not_found("job", job))?;
    Ok(Keys { host: get(&row, "host")?, job: get(&row, "job")? })
}

async fn merge(transaction: &Transaction<'_>, keys: &Keys, turn: &Turn) -> Result<(u64, u64)> {
    transaction.query(&NO_DEADLINE, &[]).await?;
    let row = transaction.query_opt(&COUNT_STAGED, &[&turn.key]).await?;
    let staged = row.map_or(Ok(0), |row| count(&row, "number"))?;
    // The planner knows nothing of rows that were just copied, so it is told.
    let whole = turn.level == Level::Full || staged > MANY_ENTRIES;
    transaction.query(if whole { &JOIN_AS_WHOLE } else { &JOIN_BY_PATH }, &[]).await?;
    let (host, job, key, seq) = (&keys.host, &keys.job, &turn.key, &turn.seq);
    let closed = match turn.level {
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
    let opened = transaction.execute(&OPEN, &[host, job, key, seq, &flags]).await?;
    Ok((closed, opened))
}

async fn finish(
    transaction: &Transaction<'_>,
    keys: &Keys,
    turn: &Turn,
    (searchable, reason): (&str, &str),
) -> Result<()> {
    transaction.execute(&FORGET_ENTRIES, &[&turn.key]).await?;
    transaction.execute(&FORGET_BLOCKS, &[&turn.key]).await?;
    index_asks::answered(transaction, turn.key).await?;
    transaction.execute(&SET_SEARCHABLE, &[&turn.key, &searchable, &reason]).await?;
    // The order matters: a commit of a lower seq either came before this and is seen below, or comes after and sees this.
    transaction.execute(&SET_INGESTED, &[&keys.job, &turn.seq]).await?;
    transaction.execute(&OVERTAKEN, &[&keys.job, &turn.seq, &super::commit::OVERTAKEN_REASON]).await?;
    Ok(())
}

const _: () = assert!(CURRENT == 2_147_483_647, "the statements above write it out");
