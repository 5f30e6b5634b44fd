//! A restore run. The package that unpacks is not in place yet: the order is refused, the target is not touched.
use coord_shared::api::RestoreTask;
use coord_shared::fault::{ErrorCode, Fault};

use super::{Done, Failure, HostWork, RunContext};

/// Refuses.
pub(super) fn run(_work: &HostWork, _context: &RunContext, _task: &RestoreTask) -> Result<Done, Failure> {
    Err(Failure::lasting(Fault::new(ErrorCode::Unsupported, "this agent does not restore yet")))
}
