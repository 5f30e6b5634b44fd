//! The thin edge of the coordinator: decode, one call into `app`, encode. Who may call what is one table ([`access`]), enforced by
//! one layer ([`identity`]) around all services of the main listener. No decision is made here.

pub mod access;
pub mod agent;
pub mod enrolment;
pub mod identity;
pub mod operator;

use coord_shared::fault::Fault;
use tonic::{Request, Status};

pub use identity::Caller;

/// Who calls, as the layer found out. Its absence is a defect of the composition, not of the caller.
pub fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("no identity layer in front"))
}

/// The status for a fault of a call, with the call's trace id; logged when it is ours.
pub fn refused(caller: &Caller, fault: Fault) -> Status {
    let fault = fault.with_trace(caller.trace.clone());
    if fault.code == coord_shared::fault::ErrorCode::Internal {
        tracing::error!(trace = %fault.trace, why = %fault.message, "call failed");
    } else {
        tracing::debug!(trace = %fault.trace, code = %fault.code, why = %fault.message, "call refused");
    }
    Status::from(fault)
}
