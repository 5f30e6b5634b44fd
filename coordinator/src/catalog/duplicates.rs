//! Content that the current states of hosts have more than once, by digest.
//!
//! Not here: archives. What is counted is the content of files as they are in the newest backups, before compression.

use std::time::Duration;

use coord_shared::ids::HostId;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql};
use super::row::{count, get};

/// Longest time that the count may take: it reads the states of all files.
pub const MAX_COUNTING: Duration = Duration::from_secs(600);

/// How much of it there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Duplication {
    /// Files with content.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Different contents among them.
    pub contents: u64,
    /// Bytes of these, each counted once.
    pub unique_bytes: u64,
}

/// The duplication within one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDuplication {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// The figures.
    pub figures: Duplication,
}

const DEADLINE: Sql = Sql("SELECT set_config('statement_timeout', $1, true)");

// The last row, without a host, is all of them together: there a content that two hosts have counts once.
const DUPLICATION: Sql = Sql("
    WITH contents AS (
        SELECT v.host, v.digest_head, v.digest_tail, v.size, count(*) AS copies
        FROM file_versions v JOIN jobs j ON j.job = v.job AND j.placing_seq IS NULL
        WHERE v.last_seq = 2147483647 AND v.kind = 'f' AND v.digest_head <> 0 AND v.size > 0
          AND ($1::uuid IS NULL OR v.host = (SELECT host FROM hosts WHERE host_id = $1))
        GROUP BY v.host, v.digest_head, v.digest_tail, v.size
    ),
    overall AS (
        SELECT size, sum(copies) AS copies FROM contents GROUP BY digest_head, digest_tail, size
    )
    SELECT h.host_id, h.name, sum(c.copies)::bigint AS files, sum(c.copies * c.size)::bigint AS bytes,
           count(*) AS contents, sum(c.size)::bigint AS unique_bytes
    FROM contents c JOIN hosts h ON h.host = c.host
    GROUP BY h.host_id, h.name
    UNION ALL
    SELECT NULL, '', coalesce(sum(copies), 0)::bigint, coalesce(sum(copies * size), 0)::bigint,
           count(*), coalesce(sum(size), 0)::bigint
    FROM overall
    ORDER BY host_id NULLS LAST");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("DEADLINE", &DEADLINE), ("DUPLICATION", &DUPLICATION)];

fn read(row: &Row) -> Result<Duplication> {
    Ok(Duplication {
        files: count(row, "files")?,
        bytes: count(row, "bytes")?,
        contents: count(row, "contents")?,
        unique_bytes: count(row, "unique_bytes")?,
    })
}

impl Catalog {
    /// The duplication within each host, by name, and over all of them; or of one host alone.
    pub async fn duplication(&self, host: Option<HostId>) -> Result<(Vec<HostDuplication>, Duplication)> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        transaction.query_opt(&DEADLINE, &[&format!("{}s", MAX_COUNTING.as_secs())]).await?;
        let rows = transaction.query(&DUPLICATION, &[&host.map(HostId::uuid)]).await?;
        transaction.commit().await?;
        let (last, hosts) = rows.split_last().ok_or_else(|| CatalogError::not_found("row of", "duplication"))?;
        let mut hosts = hosts
            .iter()
            .map(|row| {
                let host = HostId::from_uuid(get::<Uuid>(row, "host_id")?);
                Ok(HostDuplication { host, name: get(row, "name")?, figures: read(row)? })
            })
            .collect::<Result<Vec<_>>>()?;
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((hosts, read(last)?))
    }
}
