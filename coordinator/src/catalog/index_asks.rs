//! Indexes that hosts are asked for: which to ask for now, and for how long that has been in vain.
//!
//! Invariant: only time in which the host was there to be asked counts, and a block that arrives begins the count again. Not here:
//! how long is too long; that is for `app`.

use std::time::Duration;

use coord_shared::ids::{BackupId, HostId};
use uuid::Uuid;

use super::backups::Backup;
use super::error::Result;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::{big, count, get};

/// What asking has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexAsked {
    /// How long the host has been asked in vain.
    pub asked_for: Duration,
    /// Why it does not send the index, in its own words; empty when it has said nothing.
    pub said: String,
}

// The pause doubles from half a minute to an hour: of a longer time between two asks, the host was away for the rest.
const ASK: Sql = Sql("
    INSERT INTO index_asks AS a (backup, asked_at, asks, next_block)
    SELECT b.backup, now(), 1, $2 FROM backups b WHERE b.backup_id = $1 AND b.searchable || '' = 'pending'
    ON CONFLICT (backup) DO UPDATE SET
        asked_at = now(),
        asks = CASE WHEN EXCLUDED.next_block > a.next_block THEN 1 ELSE a.asks + 1 END,
        asked_for = CASE WHEN EXCLUDED.next_block > a.next_block THEN INTERVAL '0'
                         ELSE a.asked_for + coalesce(least(now() - a.asked_at, INTERVAL '2 hours'), INTERVAL '0') END,
        next_block = EXCLUDED.next_block
    RETURNING extract(epoch FROM a.asked_for)::bigint AS asked_for_s, a.said");

const SAY: Sql = Sql("
    INSERT INTO index_asks AS a (backup, asked_at, asks, said)
    SELECT b.backup, now(), 1, $3 FROM backups b JOIN hosts h ON h.host = b.host
    WHERE b.backup_id = $1 AND h.host_id = $2 AND b.searchable || '' = 'pending'
    ON CONFLICT (backup) DO UPDATE SET said = EXCLUDED.said");

const ASK_AT_ONCE: Sql = Sql("
    INSERT INTO index_asks (backup) SELECT b.backup FROM backups b WHERE b.job = $1 AND b.index_blocks > 0
    ON CONFLICT (backup) DO UPDATE SET asked_at = NULL, asks = 0, asked_for = INTERVAL '0', next_block = 0, said = ''");

const ANSWERED: Sql = Sql("DELETE FROM index_asks WHERE backup = $1");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] =
    &[("ASK", &ASK), ("SAY", &SAY), ("ASK_AT_ONCE", &ASK_AT_ONCE), ("ANSWERED", &ANSWERED)];

impl Catalog {
    /// Restore points of these hosts whose index is to be asked for now, each job's oldest first. A new one has half a minute to come by
    /// itself; between two asks the pause doubles, up to an hour.
    pub async fn indexes_to_ask_for(&self, hosts: &[HostId], limit: u32) -> Result<Vec<Backup>> {
        let hosts: Vec<Uuid> = hosts.iter().map(|host| host.uuid()).collect();
        let rows = self.connection().await?.query(&super::backups::ASK_FOR, &[&hosts, &i64::from(limit)]).await?;
        rows.iter().map(super::backups::read).collect()
    }

    /// The host is asked from this block on. `None`: the index is not wanted any more.
    pub async fn ask_for_index(&self, backup: BackupId, next_block: u64) -> Result<Option<IndexAsked>> {
        let next = big(next_block, "block number")?;
        let row = self.connection().await?.query_opt(&ASK, &[&backup.uuid(), &next]).await?;
        let asked = row.map(|row| {
            let asked_for = Duration::from_secs(count(&row, "asked_for_s")?);
            Ok(IndexAsked { asked_for, said: get(&row, "said")? })
        });
        asked.transpose()
    }

    /// The host says why it does not send an index of its own. False: it is not wanted, or another host's.
    pub async fn note_index_excuse(&self, backup: BackupId, host: HostId, said: &str) -> Result<bool> {
        let params: Params<'_> = &[&backup.uuid(), &host.uuid(), &said];
        Ok(self.connection().await?.execute(&SAY, params).await? == 1)
    }
}

/// Every index of a job is wanted at once, whatever was asked before.
pub(super) async fn ask_at_once(transaction: &Transaction<'_>, job: i32) -> Result<()> {
    transaction.execute(&ASK_AT_ONCE, &[&job]).await?;
    Ok(())
}

/// An index is not asked for any more.
pub(super) async fn answered(transaction: &Transaction<'_>, backup: i64) -> Result<()> {
    transaction.execute(&ANSWERED, &[&backup]).await?;
    Ok(())
}
