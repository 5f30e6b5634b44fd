//! The restore points of a host as the rules of restoring look at them, together with their rows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{BackupId, HostId, PolicyId, PolicyVersion};
use coord_shared::slug::PolicySlug;

use super::App;
use super::backups::is_damaged;
use super::jobs::policy_of;
use crate::catalog::{Backup, BackupFilter};
use crate::domain::chain::{Point, Points};
use crate::domain::policy::Policy;

/// Every restore point of a host.
#[derive(Debug)]
pub struct RestorePoints {
    /// For the rules.
    pub points: Points,
    rows: HashMap<BackupId, Backup>,
    policies: HashMap<(PolicyId, PolicyVersion), Policy>,
}

impl RestorePoints {
    /// Reads those of a host.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn of_host(app: &App, host: HostId) -> Result<RestorePoints, Fault> {
        let backups = app.catalog.backups(BackupFilter { host: Some(host), ..BackupFilter::default() }).await?;
        let mut policies: HashMap<(PolicyId, PolicyVersion), Policy> = HashMap::new();
        let mut points = Vec::with_capacity(backups.len());
        for backup in &backups {
            let key = (backup.policy, backup.policy_version);
            let policy = match policies.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(version(app, backup).await?),
            };
            points.push(point(backup, policy.relative_sources())?);
        }
        let rows = backups.into_iter().map(|backup| (backup.id, backup)).collect();
        Ok(RestorePoints { points: Points::new(points), rows, policies })
    }

    /// The row of a restore point.
    ///
    /// # Errors
    /// `not_found` for an id that no restore point of this host has.
    pub fn row(&self, id: BackupId) -> Result<&Backup, Fault> {
        self.rows.get(&id).ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("there is no backup {id}")))
    }

    /// The policy by which a backup was made, as it was then.
    pub fn policy(&self, backup: &Backup) -> Option<&Policy> {
        self.policies.get(&(backup.policy, backup.policy_version))
    }
}

async fn version(app: &App, backup: &Backup) -> Result<Policy, Fault> {
    let record = app.catalog.policy_at(backup.policy, backup.policy_version).await?;
    let missing = || {
        let message =
            format!("version {} of policy {} is not in the catalog", backup.policy_version, backup.policy_name);
        Fault::new(ErrorCode::Internal, message)
    };
    policy_of(&record.ok_or_else(missing)?)
}

fn point(backup: &Backup, sources: Vec<Vec<u8>>) -> Result<Point, Fault> {
    let policy = PolicySlug::new(backup.policy_name.clone())
        .map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?;
    Ok(Point {
        id: backup.id,
        job: backup.job,
        policy,
        level: backup.level,
        base: backup.base,
        same_as: backup.same_as,
        seq: backup.seq,
        captured_at: backup.captured_at,
        damaged: is_damaged(backup),
        sources,
        source_bytes: backup.source_bytes,
        content_bytes: backup.content_bytes,
        stored_bytes: backup.stored_bytes,
    })
}
