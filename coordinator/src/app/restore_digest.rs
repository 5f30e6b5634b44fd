//! What a restore run is told to do, and the digest by which an operator holds it to a plan that was shown. The time asked for is no part
//! of it: what counts is which archives answer.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::hex;

use super::plan_restore::PlannedRestore;
use super::restore_task::{Bytes, OverwriteWord, PartSpec, RestoreSpec};

/// Bytes of a digest that are shown.
const SHOWN: usize = 16;

/// The digest of everything that a restore would do: hosts, archives, paths, selection, what happens to files that are there.
///
/// # Errors
/// `not_found` when a row is missing, which only a defect can cause.
pub fn digest(request: &api::RestoreRequest, planned: &PlannedRestore) -> Result<String, Fault> {
    let mut archives = Vec::new();
    for part in &planned.plan.parts {
        for id in std::iter::once(part.full).chain(part.differential) {
            archives.push(hex::encode(&planned.points.row(id)?.archive_digest.0));
        }
    }
    let all = (planned.from.id, planned.to.id, archives, spec(request, planned)?);
    let text = serde_json::to_vec(&all).map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?;
    Ok(hex::encode(&blake3::hash(&text).as_bytes()[..SHOWN]))
}

/// What the run's row keeps.
///
/// # Errors
/// As [`digest`].
pub fn spec(request: &api::RestoreRequest, planned: &PlannedRestore) -> Result<RestoreSpec, Fault> {
    let mut parts = Vec::new();
    for part in &planned.plan.parts {
        let row = planned.points.row(part.backup)?;
        let policy = planned.points.policy(row);
        parts.push(PartSpec {
            policy: part.policy.to_string(),
            backup: part.backup,
            full: part.full,
            differential: part.differential,
            paths: part.paths.iter().cloned().map(Bytes).collect(),
            except: part.except.iter().cloned().map(Bytes).collect(),
            sources: policy
                .map(|policy| policy.relative_sources())
                .unwrap_or_default()
                .into_iter()
                .map(Bytes)
                .collect(),
            exclude: policy.map(|policy| policy.exclude.clone()).unwrap_or_default(),
        });
    }
    Ok(RestoreSpec {
        parts,
        target_folder: Bytes(request.to_folder.clone()),
        overwrite: OverwriteWord::from_api(request.overwrite()),
        delete_extra: request.delete_extra,
        include: request.include.clone(),
        exclude: request.exclude.clone(),
    })
}
