//! Joining and renewing, on their own listener: callers prove themselves by a token, or by a certificate that may have expired.

use std::sync::Arc;

use coord_shared::api::enrolment_service_server::EnrolmentService;
use coord_shared::api::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::telemetry::new_trace_id;
use coord_shared::tls::PeerIdentity;
use tonic::{Request, Response, Status};

use crate::app::{App, join, renew};

/// The service of the enrolment listener.
#[derive(Debug, Clone)]
pub struct Enrolment {
    app: Arc<App>,
}

impl Enrolment {
    /// Enrols into the fleet of `app`.
    pub fn new(app: Arc<App>) -> Enrolment {
        Enrolment { app }
    }
}

fn refused(fault: Fault) -> Status {
    let fault = fault.with_trace(new_trace_id());
    tracing::info!(trace = %fault.trace, code = %fault.code, why = %fault.message, "enrolment refused");
    fault.into()
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        join::join(&self.app, request.into_inner()).await.map(Response::new).map_err(refused)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let chain = request.peer_certs().unwrap_or_default();
        let certificate = chain.first().ok_or_else(|| {
            let fault = Fault::new(ErrorCode::Unauthenticated, "renewing needs the certificate that is to be renewed");
            refused(fault.with_hint("one that expired more than 30 days ago is not accepted: join again with a token"))
        })?;
        let identity = PeerIdentity::from_der(certificate)
            .map_err(|error| refused(Fault::new(ErrorCode::Unauthenticated, error.to_string())))?;
        renew::renew(&self.app, &identity, &request.get_ref().csr_pem).await.map(Response::new).map_err(refused)
    }
}
