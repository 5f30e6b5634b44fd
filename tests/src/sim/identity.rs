//! One host of the simulated fleet: it joins as a real one does, with a token, a key of its own and a certificate for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use coord_shared::api::JoinRequest;
use coord_shared::api::enrolment_service_client::EnrolmentServiceClient;
use coord_shared::tls::{ClientTls, HeldIdentity};
use coord_shared::token::Token;
use rcgen::{CertificateParams, KeyPair};

/// How often a join is tried, and the pause between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// A joined host.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name in the fleet.
    pub name: String,
    /// Its id in the fleet.
    pub host_id: String,
    /// How it connects: with its certificate.
    pub tls: ClientTls,
    /// Told in every Hello: this process.
    pub instance_id: String,
}

impl Member {
    /// Joins the fleet as `name`.
    ///
    /// # Errors
    /// The coordinator refuses, or cannot be reached for some seconds.
    pub async fn join(endpoint: &str, token: &Token, name: String) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let csr_pem = CertificateParams::default().serialize_request(&key)?.pem()?;
        let request = JoinRequest {
            token_id: token.id.to_string(),
            token_secret: token.secret.reveal(),
            csr_pem,
            wanted_name: name.clone(),
            hostname: name.clone(),
            operating_system: "simulated".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            let joined = async {
                let channel = ClientTls::pinned(token.ca)?.connect(endpoint).await?;
                anyhow::Ok(EnrolmentServiceClient::new(channel).join(request.clone()).await?.into_inner())
            };
            match joined.await {
                Ok(answer) => break answer,
                // The same key gets the same certificate.
                Err(_) if tries < TRIES => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error).with_context(|| format!("{name} cannot join")),
            }
        };
        let held = HeldIdentity::from_pem(&answer.certificate_pem, &key.serialize_pem())?;
        let tls = ClientTls::new(&answer.ca_pem, Arc::clone(&held))?;
        Ok(Self { name, host_id: answer.subject_id, tls, instance_id: uuid::Uuid::new_v4().to_string() })
    }
}
