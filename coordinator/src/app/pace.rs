//! How fast runs may go now: what the present versions of their policies say of this time of day. Told with every order and every
//! heartbeat, so that a change of the policy, or of the time of day, acts on runs that go on.

use std::collections::BTreeMap;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::RunId;
use jiff::Timestamp;

use super::App;
use super::host_policies::on_host;
use super::jobs::leave_out;
use crate::catalog::Catalog;
use crate::domain::pace::Rate;
use crate::domain::policy::Policy;

/// The pace of each of these runs that has one, as this catalog knows them; the others go as fast as they can.
///
/// # Errors
/// Those of the catalog.
pub async fn of_runs(
    app: &App,
    catalog: &Catalog,
    runs: &[RunId],
    now: Timestamp,
) -> Result<BTreeMap<RunId, api::Pace>, Fault> {
    let mut paces = BTreeMap::new();
    for limited in catalog.limited_runs(runs).await? {
        let (run, host) = (limited.run, limited.host);
        let policy = match serde_json::from_value::<Policy>(limited.spec) {
            Ok(policy) => on_host(app, policy, host).await,
            Err(error) => Err(Fault::new(ErrorCode::InvalidPolicy, error.to_string())),
        };
        let policy = match policy {
            Ok(policy) => policy,
            Err(fault) => {
                leave_out(app, &format!("the limits of run {run}"), fault)?;
                continue;
            }
        };
        paces.extend(of_policy(&policy, now).map(|pace| (run, pace)));
    }
    Ok(paces)
}

/// The pace that a policy asks for at an instant; none: as fast as it goes.
pub(super) fn of_policy(policy: &Policy, at: Timestamp) -> Option<api::Pace> {
    let time = at.to_zoned(policy.schedule.zone.rules().clone()).time();
    let Rate { read, write } = policy.limits.at(time);
    (read.is_some() || write.is_some())
        .then(|| api::Pace { read_bytes_per_s: read.unwrap_or(0), write_bytes_per_s: write.unwrap_or(0) })
}
