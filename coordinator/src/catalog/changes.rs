//! Where two backups of a job differ: the folders that hold a state which one of them has and the other has not, found by the indexes
//! over the ends of intervals, and the folders above them. What differs in them is for who walks them.

use std::collections::HashSet;

use coord_shared::ids::{JobId, Seq};

use super::error::Result;
use super::listing::point;
use super::pool::{Catalog, Params, Sql};
use super::row::{get, int};

/// Most folders kept of one comparison: 16 MiB of keys.
const MAX_FOLDERS: i64 = 1_000_000;

/// Folders in which something differs, and those above them.
#[derive(Debug)]
pub struct ChangedFolders(HashSet<i64>);

impl ChangedFolders {
    pub(super) fn has(&self, folder: i64) -> bool {
        self.0.contains(&folder)
    }
}

// `first_seq > 1` and the last condition are those of the partial indexes, which a generic plan could not see in $3 and $4.
pub(super) const CHANGED_FOLDERS: Sql = Sql("
    WITH RECURSIVE changed (folder) AS (
        SELECT folder FROM (
            SELECT v.folder FROM file_versions v
            WHERE v.host = $1 AND v.job = $2 AND v.first_seq > $3 AND v.first_seq > 1 AND v.first_seq <= $4
            UNION
            SELECT v.folder FROM file_versions v
            WHERE v.host = $1 AND v.job = $2 AND v.last_seq >= $3 AND v.last_seq < $4 AND v.last_seq < 2147483647
        ) ends
        UNION
        SELECT f.parent FROM changed c JOIN folders f ON f.host = $1 AND f.folder = c.folder WHERE f.parent <> 0
    )
    SELECT folder FROM changed LIMIT $5");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("CHANGED_FOLDERS", &CHANGED_FOLDERS)];

impl Catalog {
    /// The folders in which two backups of a job differ, in whatever order these are. `None`: there are more than can be kept, and
    /// every folder has to be looked into.
    pub async fn changed_folders(&self, job: JobId, one: Seq, other: Seq) -> Result<Option<ChangedFolders>> {
        let connection = self.connection().await?;
        let at = point(&connection, job, one.min(other)).await?;
        let later = int(one.max(other).get(), "seq")?;
        let params: Params<'_> = &[&at.host, &at.job, &at.seq, &later, &(MAX_FOLDERS + 1)];
        let rows = connection.query(&CHANGED_FOLDERS, params).await?;
        if rows.len() as i64 > MAX_FOLDERS {
            return Ok(None);
        }
        let keys = rows.iter().map(|row| get(row, "folder")).collect::<Result<HashSet<i64>>>()?;
        Ok(Some(ChangedFolders(keys)))
    }
}
