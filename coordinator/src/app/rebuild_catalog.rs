//! Makes the catalog's entries anew from the sealed indexes. Entries are a cache: they are dropped, and every index is wanted again
//! of the host that holds it, whatever was given up before. Backups, decisions and runs stay as they are, and so does the entry of a
//! restore point that cannot be asked for: the jobs of a host that is not connected are left out.

use std::collections::HashSet;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::JobId;
use coord_shared::tls::PeerKind;

use super::App;
use super::catalog_status::{encode, select};
use crate::catalog::{JobContents, NewAudit};

/// Begins a rebuild; the ingester goes on with it, and [`super::catalog_status::status`] tells how far it is. Repeated, it begins again.
///
/// # Errors
/// Those of [`select`]; `not_found` when the jobs have no backups.
pub async fn rebuild(
    app: &App,
    user: &str,
    request: &api::RebuildCatalogRequest,
) -> Result<api::CatalogRebuild, Fault> {
    let asked = request.jobs.clone().unwrap_or_default();
    let found = select(app, &asked).await?;
    if found.is_empty() {
        let fault =
            Fault::new(ErrorCode::NotFound, "no job that was asked for has a backup: there is nothing to rebuild");
        return Err(fault.with_hint("coordctl catalog status"));
    }
    let (mut jobs, left_out): (Vec<JobContents>, Vec<JobContents>) = found.into_iter().partition(|job| job.connected);
    if !request.dry_run && !jobs.is_empty() {
        let names: Vec<String> = jobs.iter().map(|job| format!("{}/{}", job.host_name, job.policy_name)).collect();
        let details = serde_json::json!({ "jobs": names });
        let deed = NewAudit {
            actor_kind: PeerKind::Operator,
            actor: user,
            action: "catalog_rebuilt",
            subject: "catalog",
            details,
        };
        app.catalog.record_audit(&deed).await?;
        for job in &jobs {
            app.catalog.forget_entries(job.job).await?;
        }
        tracing::info!(user, jobs = ?names, "entries are made anew from the sealed indexes");
        app.nudges.ingester.notify_one();
        let begun: HashSet<JobId> = jobs.iter().map(|job| job.job).collect();
        jobs = select(app, &asked).await?.into_iter().filter(|job| begun.contains(&job.job)).collect();
    }
    Ok(api::CatalogRebuild { jobs: jobs.iter().map(encode).collect(), left_out: left_out.iter().map(encode).collect() })
}
