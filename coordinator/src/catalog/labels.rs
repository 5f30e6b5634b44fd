//! Other labels for a host. What they mean for its jobs follows in the same transaction. Invariant: labels are written only over those that
//! they were worked out from, so that of two changes at once neither is lost.

use std::collections::BTreeMap;

use coord_shared::ids::{HostId, JobId, PolicyId};

use super::error::Result;
use super::jobs::{RESCHEDULE_HOST, set_jobs};
use super::pool::{Catalog, Sql};
use super::row::to_json;

/// Labels about to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relabelling {
    /// Of this host.
    pub host: HostId,
    /// Those that it has.
    pub before: BTreeMap<String, String>,
    /// Those that it gets.
    pub after: BTreeMap<String, String>,
    /// The policies that select it then; jobs that are missing get the ids beside them.
    pub jobs: Vec<(PolicyId, JobId)>,
    /// What a policy is for the host may have changed: the due instants ahead are worked out again.
    pub reschedules: bool,
}

/// What came of other labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relabelled {
    /// The host has them.
    Done,
    /// It has others by now than those that these were worked out from, or is not there: nothing was written.
    Changed,
}

// Of two at once the second waits for the first, and then finds other labels.
const SET_LABELS: Sql = Sql("UPDATE hosts SET labels = $3 WHERE host_id = $1 AND labels = $2");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[("SET_LABELS", &SET_LABELS)];

impl Catalog {
    /// Gives a host other labels, and with them its jobs, if it still has the labels of before.
    pub async fn relabel_host(&self, new: &Relabelling) -> Result<Relabelled> {
        let (before, after) = (to_json(&new.before)?, to_json(&new.after)?);
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        if transaction.execute(&SET_LABELS, &[&new.host.uuid(), &before, &after]).await? == 0 {
            return Ok(Relabelled::Changed);
        }
        set_jobs(&transaction, new.host, &new.jobs).await?;
        if new.reschedules {
            transaction.execute(&RESCHEDULE_HOST, &[&new.host.uuid()]).await?;
        }
        transaction.commit().await?;
        Ok(Relabelled::Done)
    }
}
