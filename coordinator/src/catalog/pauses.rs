//! Pauses, as operators set and end them. Invariants: of one thing there is at most one that is not ended; one that is over by the
//! database's clock holds nothing back any more, whether its row says so or not; and whoever changes a pause has what is owed by its
//! jobs looked at again, in the same transaction.

use coord_shared::ids::{HostId, PolicyId};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::Result;
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::get;

/// What is paused: the fleet, a host, a policy, or a policy on a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PauseScope {
    /// On this host only.
    pub host: Option<HostId>,
    /// Of this policy only.
    pub policy: Option<PolicyId>,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseRecord {
    /// What is paused.
    pub scope: PauseScope,
    /// The host's name, if it is of one.
    pub host_name: Option<String>,
    /// The policy's name, if it is of one.
    pub policy_name: Option<String>,
    /// From when on.
    pub since: Timestamp,
    /// Until when it holds or held; `None`: until somebody ends it.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who set or changed it.
    pub paused_by: String,
}

/// What came of a wish to pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PauseSet {
    /// It is so.
    Paused(PauseRecord),
    /// It would have ended already: nothing was written.
    Over,
}

/// Pauses read at once.
const MAX_PAUSES: i64 = 10_000;

const LIST: Sql = Sql("
    SELECT h.host_id, h.name AS host_name, p.policy_id, p.name AS policy_name, x.since, least(x.ended_at, x.until) AS until,
           x.reason, x.paused_by
    FROM pauses x LEFT JOIN hosts h ON h.host = x.host LEFT JOIN policies p ON p.policy = x.policy
    WHERE coalesce(least(x.ended_at, x.until), 'infinity') > $1
    ORDER BY x.since DESC, x.pause DESC LIMIT $2");

const OF_JOB: Sql = Sql("
    SELECT h.host_id, h.name AS host_name, p.policy_id, p.name AS policy_name, x.since, least(x.ended_at, x.until) AS until,
           x.reason, x.paused_by
    FROM pauses x LEFT JOIN hosts h ON h.host = x.host LEFT JOIN policies p ON p.policy = x.policy
    WHERE coalesce(least(x.ended_at, x.until), 'infinity') > $1
      AND (x.host IS NULL OR h.host_id = $2) AND (x.policy IS NULL OR p.policy_id = $3)
    ORDER BY x.since DESC, x.pause DESC LIMIT $4");

const IN_FORCE: Sql = Sql("
    SELECT h.host_id, h.name AS host_name, p.policy_id, p.name AS policy_name, x.since, x.until, x.reason, x.paused_by
    FROM pauses x LEFT JOIN hosts h ON h.host = x.host LEFT JOIN policies p ON p.policy = x.policy
    WHERE x.ended_at IS NULL AND (x.until IS NULL OR x.until > now())
      AND h.host_id IS NOT DISTINCT FROM $1 AND p.policy_id IS NOT DISTINCT FROM $2");

const END_LAPSED: Sql = Sql("UPDATE pauses SET ended_at = until WHERE ended_at IS NULL AND until <= now()");

const SET: Sql = Sql("
    INSERT INTO pauses (host, policy, until, reason, paused_by)
    SELECT (SELECT host FROM hosts WHERE host_id = $1), (SELECT policy FROM policies WHERE policy_id = $2), $3, $4, $5
    WHERE $3::timestamptz IS NULL OR $3 > now()
    ON CONFLICT (coalesce(host, 0), coalesce(policy, 0)) WHERE ended_at IS NULL
    DO UPDATE SET until = EXCLUDED.until, reason = EXCLUDED.reason, paused_by = EXCLUDED.paused_by");

const END: Sql = Sql("
    UPDATE pauses SET ended_at = now(), ended_by = $3
    WHERE ended_at IS NULL AND (until IS NULL OR until > now())
      AND host IS NOT DISTINCT FROM (SELECT host FROM hosts WHERE host_id = $1)
      AND policy IS NOT DISTINCT FROM (SELECT policy FROM policies WHERE policy_id = $2)");

// Also what may begin already: whoever puts it off by an older pause finds it changed.
const LOOK_AGAIN: Sql = Sql("
    UPDATE jobs SET owed_from = now()
    WHERE owed_from IS NOT NULL
      AND ($1::uuid IS NULL OR host = (SELECT host FROM hosts WHERE host_id = $1))
      AND ($2::uuid IS NULL OR policy = (SELECT policy FROM policies WHERE policy_id = $2))");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("LIST", &LIST),
    ("OF_JOB", &OF_JOB),
    ("IN_FORCE", &IN_FORCE),
    ("END_LAPSED", &END_LAPSED),
    ("SET", &SET),
    ("END", &END),
    ("LOOK_AGAIN", &LOOK_AGAIN),
];

impl PauseScope {
    /// Whether it holds back a policy on a host.
    pub fn holds(&self, host: HostId, policy: PolicyId) -> bool {
        self.host.is_none_or(|paused| paused == host) && self.policy.is_none_or(|paused| paused == policy)
    }

    fn uuids(&self) -> (Option<Uuid>, Option<Uuid>) {
        (self.host.map(|host| host.uuid()), self.policy.map(|policy| policy.uuid()))
    }
}

fn read(row: &Row) -> Result<PauseRecord> {
    let (host, policy): (Option<Uuid>, Option<Uuid>) = (get(row, "host_id")?, get(row, "policy_id")?);
    Ok(PauseRecord {
        scope: PauseScope { host: host.map(HostId::from_uuid), policy: policy.map(PolicyId::from_uuid) },
        host_name: get(row, "host_name")?,
        policy_name: get(row, "policy_name")?,
        since: get(row, "since")?,
        until: get(row, "until")?,
        reason: get(row, "reason")?,
        paused_by: get(row, "paused_by")?,
    })
}

impl Catalog {
    /// Pauses that hold something back after `since`, the newest first. With the present time: those in force.
    pub async fn pauses(&self, since: Timestamp) -> Result<Vec<PauseRecord>> {
        self.connection().await?.query(&LIST, &[&since, &MAX_PAUSES]).await?.iter().map(read).collect()
    }

    /// Those of them that hold back a policy on a host.
    pub async fn pauses_of(&self, host: HostId, policy: PolicyId, since: Timestamp) -> Result<Vec<PauseRecord>> {
        let params: Params<'_> = &[&since, &host.uuid(), &policy.uuid(), &MAX_PAUSES];
        self.connection().await?.query(&OF_JOB, params).await?.iter().map(read).collect()
    }

    /// Pauses, or changes the end and the reason of the pause that is in force.
    pub async fn set_pause(
        &self,
        scope: PauseScope,
        until: Option<Timestamp>,
        reason: &str,
        user: &str,
    ) -> Result<PauseSet> {
        let (host, policy) = scope.uuids();
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        transaction.execute(&END_LAPSED, &[]).await?;
        let written = transaction.execute(&SET, &[&host, &policy, &until, &reason, &user]).await?;
        if written == 0 {
            return Ok(PauseSet::Over);
        }
        let pause = in_force(&transaction, scope).await?;
        transaction.execute(&LOOK_AGAIN, &[&host, &policy]).await?;
        transaction.commit().await?;
        Ok(pause.map_or(PauseSet::Over, PauseSet::Paused))
    }

    /// Ends a pause now, and answers it as it was. `None`: there is none in force.
    pub async fn end_pause(&self, scope: PauseScope, user: &str) -> Result<Option<PauseRecord>> {
        let (host, policy) = scope.uuids();
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let pause = in_force(&transaction, scope).await?;
        if transaction.execute(&END, &[&host, &policy, &user]).await? == 0 {
            return Ok(None);
        }
        transaction.execute(&LOOK_AGAIN, &[&host, &policy]).await?;
        transaction.commit().await?;
        Ok(pause)
    }
}

async fn in_force(transaction: &Transaction<'_>, scope: PauseScope) -> Result<Option<PauseRecord>> {
    let (host, policy) = scope.uuids();
    transaction.query_opt(&IN_FORCE, &[&host, &policy]).await?.as_ref().map(read).transpose()
}
