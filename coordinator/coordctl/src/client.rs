//! The connection to a coordinator, and the renewal of the operator's certificate in its last third.

use coord_shared::api::enrolment_service_client::EnrolmentServiceClient;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::{JoinRequest, JoinResponse, RenewRequest};
use coord_shared::clock::Clock;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::{ClientTls, HeldIdentity};
use coord_shared::token::Token;
use coord_shared::wire;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::context::{Context, Locked, Pems};
use crate::failure::Failure;

/// What commands call.
pub type Client = OperatorServiceClient<Channel>;

/// The message of an answer, or the fault it carries.
pub fn answer<T>(result: Result<Response<T>, Status>) -> Result<T, Failure> {
    result.map(Response::into_inner).map_err(|status| Fault::from(&status).into())
}

/// A request as tonic wants it.
pub fn request<T>(message: T) -> Request<T> {
    Request::new(message)
}

/// Connects to the first endpoint of the context that answers; when that one goes away, the next call goes to another.
pub async fn connect(context: &Context) -> Result<Client, Failure> {
    let identity = HeldIdentity::from_pem(&context.certificate_pem, &context.key_pem).map_err(broken)?;
    let tls = ClientTls::new(&context.ca_pem, identity).map_err(broken)?;
    let (unusable, endpoints): (Vec<String>, Vec<String>) =
        context.entry.endpoints.iter().cloned().partition(|endpoint| endpoint.ends_with(":0"));
    if endpoints.is_empty() {
        let fault = if unusable.is_empty() {
            Fault::new(ErrorCode::InvalidConfiguration, format!("context {} names no endpoint", context.name))
        } else {
            let message =
                format!("context {} names no port: the coordinator was set up to take any free one", context.name);
            Fault::new(ErrorCode::InvalidConfiguration, message).with_hint(
                "name its address with --endpoint; it is in endpoints.json of the coordinator's state folder",
            )
        };
        return Err(fault.into());
    }
    let channel = tls.connect_any(&endpoints).await.map_err(|error| Fault::from(&error))?;
    Ok(OperatorServiceClient::new(channel)
        .max_decoding_message_size(wire::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(wire::MAX_MESSAGE_BYTES))
}

fn broken(error: coord_shared::tls::TlsError) -> Failure {
    Failure::configuration(
        format!("the context's certificates cannot be used: {error}"),
        "coordctl login writes new ones",
    )
}

/// A new key and a signing request for it; the coordinator takes only its public key.
pub fn new_key() -> Result<(String, String), Failure> {
    let failed =
        |error: rcgen::Error| Failure::Fault(Fault::new(ErrorCode::Internal, format!("cannot make a key: {error}")));
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let request = rcgen::CertificateParams::default().serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), request.pem().map_err(failed)?))
}

/// Redeems an operator's token at the enrolment listener.
pub async fn redeem(endpoint: &str, token: &Token, csr_pem: String) -> Result<JoinResponse, Failure> {
    let tls = ClientTls::pinned(token.ca).map_err(broken)?;
    let channel = tls.connect(endpoint).await.map_err(|error| Fault::from(&error))?;
    let request = JoinRequest {
        token_id: token.id.to_string(),
        token_secret: token.secret.reveal(),
        csr_pem,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..JoinRequest::default()
    };
    Ok(EnrolmentServiceClient::new(channel).join(request).await.map_err(Fault::from)?.into_inner())
}

/// Renews the certificate when it is in its last third. A renewal that does not work now is tried by the next command; only the
/// warning is answered, because the certificate still serves.
///
/// # Errors
/// `certificate_expired`: only a login helps.
pub async fn renew_if_due(
    context: &Context,
    path: &std::path::Path,
    clock: &dyn Clock,
) -> Result<Option<String>, Failure> {
    let identity = HeldIdentity::from_pem(&context.certificate_pem, &context.key_pem).map_err(broken)?;
    let Some(facts) = identity.identity() else { return Ok(None) };
    let now = clock.now();
    if facts.not_after < now {
        let message = format!("the certificate of {} in context {} ended {}", facts.id, context.name, facts.not_after);
        return Err(Fault::new(ErrorCode::CertificateExpired, message)
            .with_hint("coordctl login, with a token of an admin or of coordinator operator-token")
            .into());
    }
    if now < facts.life_at(2, 3) {
        return Ok(None);
    }
    Ok(match renew(context, identity, path).await {
        Ok(()) | Err(Failure::Output(_) | Failure::Ended(_)) => None,
        Err(Failure::Fault(fault)) => {
            Some(format!("the certificate ends {} and was not renewed: {fault}", facts.not_after))
        }
    })
}

async fn renew(
    context: &Context,
    identity: std::sync::Arc<HeldIdentity>,
    path: &std::path::Path,
) -> Result<(), Failure> {
    let tls = ClientTls::new(&context.ca_pem, identity).map_err(broken)?;
    let endpoint = context.entry.enrol_endpoints.first();
    let endpoint = endpoint
        .ok_or_else(|| Failure::configuration("the context names no enrolment endpoint", "coordctl login again"))?;
    let locked = Locked::wait(path)?;
    let Some(entry) = locked.entry(&context.name)? else { return Ok(()) };
    if context.entry.certificate.file_name() != entry.certificate.file_name() {
        // Another command renewed it while this one waited.
        return Ok(());
    }
    let channel = tls.connect(endpoint).await.map_err(|error| Fault::from(&error))?;
    let (key, csr_pem) = new_key()?;
    let answer =
        EnrolmentServiceClient::new(channel).renew(RenewRequest { csr_pem }).await.map_err(Fault::from)?.into_inner();
    let pems = Pems { ca: &answer.ca_pem, certificate: &answer.certificate_pem, key: &key };
    locked.save(&context.name, &entry, &pems)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{Context, renew_if_due};
    use crate::context::ContextEntry;
    use coord_shared::clock::SystemClock;

    #[tokio::test]
    async fn an_expired_certificate_ends_the_command_with_what_to_do() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://f/operator/ada".try_into().unwrap())];
        params.serial_number = Some(7.into());
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
        let context = Context {
            name: "default".into(),
            entry: ContextEntry::default(),
            ca_pem: String::new(),
            certificate_pem: params.self_signed(&key).unwrap().pem(),
            key_pem: key.serialize_pem(),
        };
        let failure = renew_if_due(&context, "/nowhere".as_ref(), &SystemClock).await.unwrap_err();
        assert_eq!(failure.exit().code(), 4, "{failure:?}");
    }
}
