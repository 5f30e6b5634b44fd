//! Joining a fleet: redeems a token for a certificate. The coordinator is recognised by the digest in the token, so nothing has to be
//! trusted on first use. Repeating a join that died uses the same key and gets the same certificate.

use std::path::PathBuf;

use coord_shared::api::enrolment_service_client::EnrolmentServiceClient;
use coord_shared::api::{JoinRequest, JoinResponse};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::slug::{HostSlug, SlugError};
use coord_shared::tls::{ClientTls, ConnectError, TlsError};
use coord_shared::token::{Token, TokenError};

use crate::config::{Config, ConfigError, DEFAULT_MAIN_PORT};
use crate::identity::{Identity, IdentityError, PendingKey};
use crate::state::StateFolder;

/// What to join with.
#[derive(Debug)]
pub struct JoinOptions {
    /// The token's line.
    pub token: String,
    /// The enrolment listener, `host:port`.
    pub endpoint: String,
    /// The name wanted; `None`: the token or the machine's name decides.
    pub name: Option<String>,
    /// What the agent takes for `/`.
    pub root: Option<PathBuf>,
}

/// Why a host did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has joined already.
    #[error("this state folder belongs to the host {name} of the fleet {fleet} already")]
    AlreadyJoined {
        /// The host's name.
        name: String,
        /// Its fleet.
        fleet: String,
    },
    /// The token's line is damaged.
    #[error("the token cannot be used")]
    Token(#[source] TokenError),
    /// The name is none.
    #[error("the name cannot be used")]
    Name(#[source] SlugError),
    /// The root is no path.
    #[error("the root cannot be used")]
    Root(#[source] std::io::Error),
    /// The identity cannot be made or stored.
    #[error("the identity cannot be stored")]
    Identity(#[from] IdentityError),
    /// The configuration cannot be stored.
    #[error("the configuration cannot be stored")]
    Config(#[from] ConfigError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] TlsError),
    /// No connection.
    #[error("cannot join")]
    Connect(#[source] ConnectError),
    /// The coordinator refuses.
    #[error("the coordinator refuses")]
    Refused(#[source] Fault),
    /// The coordinator's answer cannot be used.
    #[error("the coordinator's answer cannot be used")]
    Answer(#[source] IdentityError),
}

impl JoinError {
    /// The same for a person and for the exit code.
    pub fn fault(&self) -> Fault {
        match self {
            JoinError::AlreadyJoined { .. } => Fault::new(ErrorCode::AlreadyExists, self.to_string())
                .with_hint("start it with coord-agent run, or join with another --state"),
            JoinError::Token(error) => Fault::new(ErrorCode::InvalidArgument, error.to_string()),
            JoinError::Name(error) => {
                Fault::new(ErrorCode::InvalidArgument, error.to_string()).with_hint("choose one with --name")
            }
            JoinError::Root(_) => Fault::new(ErrorCode::InvalidArgument, crate::chain::chain(self)),
            JoinError::Connect(error) => Fault::from(error),
            JoinError::Refused(fault) => fault.clone(),
            JoinError::Identity(_) | JoinError::Config(_) | JoinError::Tls(_) | JoinError::Answer(_) => {
                Fault::new(ErrorCode::Io, crate::chain::chain(self))
            }
        }
    }
}

/// Joins, and stores identity and configuration in the state folder.
pub async fn join(state: &StateFolder, options: JoinOptions) -> Result<Identity, JoinError> {
    if let Some(identity) = Identity::load(state)? {
        return Err(JoinError::AlreadyJoined { name: identity.host_name, fleet: identity.fleet });
    }
    // The agent may be started from another folder than it was joined from.
    let root = options.root.map(std::path::absolute).transpose().map_err(JoinError::Root)?;
    let token: Token = options.token.parse().map_err(JoinError::Token)?;
    if let Some(name) = &options.name {
        HostSlug::new(name.as_str()).map_err(JoinError::Name)?;
    }
    let key = PendingKey::load_or_make(state, None)?;
    let facts = crate::status::HostFacts::read();
    let request = JoinRequest {
        token_id: token.id.to_string(),
        token_secret: token.secret.reveal(),
        csr_pem: key.request()?,
        wanted_name: options.name.unwrap_or_default(),
        hostname: facts.hostname,
        operating_system: facts.operating_system,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let tls = ClientTls::pinned(token.ca).map_err(JoinError::Tls)?;
    let channel = tls.connect(&options.endpoint).await.map_err(JoinError::Connect)?;
    let answer = EnrolmentServiceClient::new(channel).join(request).await;
    let answer = answer.map_err(|status| JoinError::Refused(Fault::from(status)))?.into_inner();
    let endpoints = main_endpoints(&answer, &options.endpoint);
    let identity = Identity {
        fleet: answer.fleet,
        host_id: answer.subject_id,
        host_name: answer.name,
        generation: 1,
        ca_pem: answer.ca_pem,
        certificate_pem: answer.certificate_pem,
        key_pem: key.pem(),
    };
    identity.held().map_err(JoinError::Answer)?;
    // The configuration first: with an identity the join counts as done.
    Config::joined(root, endpoints, vec![options.endpoint]).store(state)?;
    identity.store(state)?;
    Ok(identity)
}

fn main_endpoints(answer: &JoinResponse, enrolment: &str) -> Vec<String> {
    if !answer.endpoints.is_empty() {
        return answer.endpoints.clone();
    }
    let host = enrolment.rsplit_once(':').map_or(enrolment, |(host, _)| host);
    vec![format!("{host}:{DEFAULT_MAIN_PORT}")]
}
