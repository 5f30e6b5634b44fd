//! The states that one path has had, in every job that held it.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::Seq;
use coord_shared::wire::optional_us;

use super::files::{self, Shown};
use super::{App, names, plan_restore};
use crate::catalog::{JobFilter, MAX_HISTORY, PathVersion};
use crate::domain::restore_plan::shown;

/// States answered when no number is asked for.
const DEFAULT_LIMIT: u32 = 100;

/// States of a path, newest first.
///
/// # Errors
/// `not_found` for a host or policy that does not exist, and for a path that no restore point has.
pub async fn list(app: &App, request: &api::ListPathVersionsRequest) -> Result<api::PathVersionList, Fault> {
    let host = names::host(app, &request.host).await?;
    let path = plan_restore::clean(&request.path)?;
    let mut filter = JobFilter { host: Some(host.id), ..JobFilter::default() };
    if !request.policy.is_empty() {
        filter.policy = Some(names::policy(app, &request.policy).await?.id);
    }
    let mut all = Vec::new();
    for job in app.catalog.jobs(filter).await? {
        let states = app.catalog.path_history(job.id, &path, MAX_HISTORY).await?;
        for (number, state) in states.iter().enumerate() {
            // A state that no restore point shows any more cannot be had.
            if state.first_backup.is_some() {
                let next = states.get(number + 1).map(|next| next.version.first_seq);
                all.push(encode(state, end(state.version.last_seq, next), &job.policy_name));
            }
        }
    }
    if all.is_empty() {
        let message = format!("no restore point of {} has {}", host.name, shown(&path));
        return Err(
            Fault::new(ErrorCode::NotFound, message).with_hint("coordctl ls of the folder above shows what there is")
        );
    }
    all.sort_by(|a, b| {
        b.last_captured_at_us
            .cmp(&a.last_captured_at_us)
            .then_with(|| b.first_captured_at_us.cmp(&a.first_captured_at_us))
    });
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit.min(MAX_HISTORY) } as usize;
    let more = all.len() > limit;
    all.truncate(limit);
    Ok(api::PathVersionList { versions: all, more })
}

/// What came after a state that ended with `last`, when the path's next state began with `next`.
fn end(last: Option<Seq>, next: Option<Seq>) -> &'static str {
    match (last, next) {
        (None, _) => "current",
        (Some(last), Some(next)) if next.get() == last.get() + 1 => "changed",
        (Some(_), _) => "gone",
    }
}

fn encode(state: &PathVersion, end: &str, policy: &str) -> api::PathVersion {
    let id = |id: Option<coord_shared::ids::BackupId>| id.map(|id| id.to_string()).unwrap_or_default();
    let file = Shown { entry: state.version.clone(), policy: policy.to_owned() };
    api::PathVersion {
        file: Some(files::encode(&file)),
        first_backup_id: id(state.first_backup),
        first_captured_at_us: optional_us(state.first_captured_at),
        last_backup_id: id(state.last_backup),
        last_captured_at_us: optional_us(state.last_captured_at),
        end: end.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_ends_by_a_change_or_with_the_path() {
        assert_eq!(end(None, None), "current");
        assert_eq!(end(Some(Seq(3)), Some(Seq(4))), "changed");
        assert_eq!(end(Some(Seq(3)), Some(Seq(6))), "gone", "it came back later");
        assert_eq!(end(Some(Seq(3)), None), "gone");
    }
}
