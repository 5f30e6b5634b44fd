//! What the catalog has of the restore points: which can be searched, which are waited for, which were given up and why.

use std::collections::HashSet;

use coord_shared::api;
use coord_shared::fault::Fault;

use super::{App, hosts, names};
use crate::catalog::{ContentsFilter, JobContents, SCHEMA_VERSION};

/// The status of the jobs that are asked for, and the size of the whole.
///
/// # Errors
/// As [`select`].
pub async fn status(app: &App, asked: &api::CatalogJobs) -> Result<api::CatalogStatus, Fault> {
    let jobs = select(app, asked).await?;
    let size = app.catalog.contents_size().await?;
    Ok(api::CatalogStatus {
        jobs: jobs.iter().map(encode).collect(),
        versions: size.versions,
        entry_bytes: size.entry_bytes,
        database_bytes: size.database_bytes,
        schema_version: SCHEMA_VERSION,
    })
}

/// The jobs that are asked for and have restore points.
///
/// # Errors
/// `not_found` for a host or policy that does not exist, `invalid_argument` for a selector that cannot be read.
pub async fn select(app: &App, asked: &api::CatalogJobs) -> Result<Vec<JobContents>, Fault> {
    let mut filter = ContentsFilter::default();
    if !asked.host.is_empty() {
        filter.host = Some(names::host(app, &asked.host).await?.id);
    }
    if !asked.policy.is_empty() {
        filter.policy = Some(names::policy(app, &asked.policy).await?.id);
    }
    let selector = hosts::selector(&asked.selector)?;
    let mut jobs = app.catalog.contents(filter).await?;
    if !selector.is_everything() {
        let selected = app.catalog.hosts().await?.into_iter().filter(|host| selector.matches(&host.labels));
        let selected: HashSet<_> = selected.map(|host| host.id).collect();
        jobs.retain(|job| selected.contains(&job.host));
    }
    Ok(jobs)
}

/// A job's contents on the wire.
pub fn encode(job: &JobContents) -> api::CatalogOfJob {
    let why = match (&job.waiting_for, job.said.as_str()) {
        (Some(backup), "") if !job.connected => {
            format!("waits for the index of backup {} until {} is connected", backup.short(), job.host_name)
        }
        (Some(backup), "") => format!("waits for the index of backup {}", backup.short()),
        (Some(backup), said) => {
            format!("waits for the index of backup {}; {} says: {said}", backup.short(), job.host_name)
        }
        (None, _) => job.reason.clone(),
    };
    api::CatalogOfJob {
        host: job.host_name.clone(),
        policy: job.policy_name.clone(),
        connected: job.connected,
        backups: job.backups,
        searchable: job.searchable,
        pending: job.pending,
        not_searchable: job.not_searchable,
        why,
    }
}
