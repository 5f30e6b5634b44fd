//! Questions across time: all states of one path, and where in the fleet a content is or was.

use coord_shared::ids::{BackupId, HostId, JobId, PolicyId, Seq};
use jiff::Timestamp;
use uuid::Uuid;

use super::entries::{FileVersion, read, version_columns};
use super::error::Result;
use super::listing::{locate, point};
use super::pool::{Catalog, Params, Sql};
use super::row::get;
use super::short_digest::ShortDigest;

/// Rows answered at most.
pub const MAX_HISTORY: u32 = 10_000;

/// A state of a path, and the restore points that show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathVersion {
    /// The state.
    pub version: FileVersion,
    /// The first restore point with it, if that still exists.
    pub first_backup: Option<BackupId>,
    /// Its time.
    pub first_captured_at: Option<Timestamp>,
    /// The last restore point with it.
    pub last_backup: Option<BackupId>,
    /// Its time.
    pub last_captured_at: Option<Timestamp>,
}

/// A content found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestHit {
    /// On this host.
    pub host: HostId,
    /// Its name.
    pub host_name: String,
    /// Under this policy.
    pub policy: PolicyId,
    /// Its name.
    pub policy_name: String,
    /// The job of both.
    pub job: JobId,
    /// The state that has the content.
    pub version: FileVersion,
}

pub(super) const HISTORY: Sql = Sql(concat!(
    "SELECT ",
    version_columns!("v"),
    ", f.backup_id AS first_id, f.captured_at AS first_at, l.backup_id AS last_id, l.captured_at AS last_at
      FROM file_versions v
      LEFT JOIN LATERAL (
          SELECT b.backup_id, b.captured_at FROM backups b
          WHERE b.job = v.job AND b.seq BETWEEN v.first_seq AND v.last_seq AND b.searchable = 'searchable'
          ORDER BY b.seq LIMIT 1
      ) f ON true
      LEFT JOIN LATERAL (
          SELECT b.backup_id, b.captured_at FROM backups b
          WHERE b.job = v.job AND b.seq BETWEEN v.first_seq AND v.last_seq AND b.searchable = 'searchable'
          ORDER BY b.seq DESC LIMIT 1
      ) l ON true
      WHERE v.host = $1 AND v.job = $2 AND v.folder = $3 AND v.name = $4
        AND NOT EXISTS (SELECT FROM jobs j WHERE j.job = $2 AND j.placing_seq IS NOT NULL)
      ORDER BY v.first_seq LIMIT $5"
));

// Postgres' estimates know nothing of filters: it thinks that every page of the table has to be read either way.
const BY_FILTER: Sql = Sql("SELECT set_config('enable_seqscan', 'off', true)");

pub(super) const BY_DIGEST: Sql = Sql(concat!(
    "SELECT ",
    version_columns!("v"),
    ", h.host_id, h.name AS host_name, p.policy_id, p.name AS policy_name, j.job_id,
       ARRAY(
           WITH RECURSIVE up (depth, parent, name) AS (
               SELECT 0, f.parent, f.name FROM folders f WHERE f.host = v.host AND f.folder = v.folder
               UNION ALL
               SELECT u.depth + 1, f.parent, f.name
               FROM up u JOIN folders f ON f.host = v.host AND f.folder = u.parent
           )
           SELECT name FROM up WHERE parent <> 0 ORDER BY depth DESC
       ) AS above
      FROM file_versions v
      JOIN jobs j ON j.job = v.job
      JOIN hosts h ON h.host = v.host
      JOIN policies p ON p.policy = j.policy
      WHERE v.digest_head = $1 AND v.digest_head <> 0 AND v.digest_tail = $2 AND j.placing_seq IS NULL
      ORDER BY h.name, p.name, v.first_seq LIMIT $3"
));

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("HISTORY", &HISTORY), ("BY_FILTER", &BY_FILTER), ("BY_DIGEST", &BY_DIGEST)];

impl Catalog {
    /// All states of a path in a job, oldest first.
    pub async fn path_history(&self, job: JobId, path: &[u8], limit: u32) -> Result<Vec<PathVersion>> {
        let connection = self.connection().await?;
        let at = point(&connection, job, Seq(0)).await?;
        let Some((folder, name)) = locate(&connection, at.host, path).await? else { return Ok(Vec::new()) };
        let limit = i64::from(limit.min(MAX_HISTORY));
        let params: Params<'_> = &[&at.host, &at.job, &folder, &name, &limit];
        let rows = connection.query(&HISTORY, params).await?;
        let parent = coord_archive::entry::parent(path);
        rows.iter()
            .map(|row| {
                Ok(PathVersion {
                    version: read(row, parent)?,
                    first_backup: get::<Option<Uuid>>(row, "first_id")?.map(BackupId::from_uuid),
                    first_captured_at: get(row, "first_at")?,
                    last_backup: get::<Option<Uuid>>(row, "last_id")?.map(BackupId::from_uuid),
                    last_captured_at: get(row, "last_at")?,
                })
            })
            .collect()
    }

    /// Where a content is or was, in the whole fleet.
    pub async fn find_digest(&self, digest: ShortDigest, limit: u32) -> Result<Vec<DigestHit>> {
        let (head, tail) = digest.columns();
        let limit = i64::from(limit.min(MAX_HISTORY));
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        transaction.query(&BY_FILTER, &[]).await?;
        let rows = transaction.query(&BY_DIGEST, &[&head, &tail, &limit]).await?;
        transaction.commit().await?;
        rows.iter()
            .map(|row| {
                let above: Vec<&[u8]> = get(row, "above")?;
                Ok(DigestHit {
                    host: HostId::from_uuid(get(row, "host_id")?),
                    host_name: get(row, "host_name")?,
                    policy: PolicyId::from_uuid(get(row, "policy_id")?),
                    policy_name: get(row, "policy_name")?,
                    job: JobId::from_uuid(get(row, "job_id")?),
                    version: read(row, Some(&above.join(&b'/')))?,
                })
            })
            .collect()
    }
}
