//! Keeps the certificate young: a new key and certificate at two thirds of its life, at the enrolment listener, which also takes one
//! that has expired meanwhile. The new identity is stored before it is shown.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use coord_shared::api::RenewRequest;
use coord_shared::api::enrolment_service_client::EnrolmentServiceClient;
use coord_shared::backoff::Backoff;
use coord_shared::clock::Clock;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::{ClientTls, HeldIdentity};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::contact::Contact;
use crate::identity::{Identity, PendingKey};
use crate::state::StateFolder;

/// Longest wait for the answer of one endpoint.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Waits between tries that failed.
const RETRY: Backoff = Backoff { first: Duration::from_secs(10), most: Duration::from_secs(600) };
/// The longest sleep: clocks are set, and machines wake up.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Renewals are spread over this part of a certificate's life, before the two thirds are over.
const SPREAD: (i64, i64) = (1, 20);

/// Renews one agent's certificate for as long as it runs.
pub struct Renewal {
    /// Where the identity is stored.
    pub state: StateFolder,
    /// The identity as everybody sees it.
    pub identity: Arc<ArcSwap<Identity>>,
    /// The identity as TLS shows it.
    pub held: Arc<HeldIdentity>,
    /// Where the enrolment listeners are.
    pub contact: Arc<Contact>,
    /// Tells the session that there is a new certificate.
    pub generation: watch::Sender<u32>,
    /// The wall clock: certificates go by it.
    pub clock: Arc<dyn Clock>,
}

impl Renewal {
    /// Runs until `ending`.
    pub async fn run(self, ending: CancellationToken) {
        let mut failures = 0;
        loop {
            let wait = match self.due() {
                Some(due) if due > self.clock.now() => remaining(self.clock.now(), due),
                Some(_) | None => match self.renew().await {
                    Ok(generation) => {
                        failures = 0;
                        tracing::info!(generation, "certificate renewed");
                        self.generation.send_replace(generation);
                        // Not at once, whatever the dates of the new one say.
                        LONGEST_SLEEP
                    }
                    Err(fault) => {
                        failures += 1;
                        tracing::warn!(code = %fault.code, message = %fault.message, hint = %fault.hint, "certificate not renewed");
                        RETRY.wait(failures, crate::session::random())
                    }
                },
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ending.cancelled() => return,
            }
        }
    }

    /// When the current certificate is to be renewed; `None`: it cannot be read, now.
    fn due(&self) -> Option<Timestamp> {
        let identity = self.held.identity()?;
        let life = identity.not_after.as_second() - identity.not_before.as_second();
        let spread = (life * SPREAD.0 / SPREAD.1).max(1);
        // The serial is random, and the same at each look.
        let drawn = identity.serial.bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % spread);
        Timestamp::from_second(identity.life_at(2, 3).as_second() - drawn).ok()
    }

    async fn renew(&self) -> Result<u32, Fault> {
        let stored = |error: &dyn std::error::Error| Fault::new(ErrorCode::Io, crate::chain::chain(error));
        let old = self.identity.load_full();
        let key = PendingKey::load_or_make(&self.state, Some(&old)).map_err(|error| stored(&error))?;
        let csr_pem = key.request().map_err(|error| stored(&error))?;
        let tls = ClientTls::new(&old.ca_pem, Arc::clone(&self.held)).map_err(|error| stored(&error))?;
        let mut last = Fault::new(ErrorCode::InvalidConfiguration, "no enrolment endpoint is configured")
            .with_hint("set enrol_endpoints in agent.toml");
        for endpoint in self.contact.enrolment() {
            let answer = match tls.connect(&endpoint).await {
                Ok(channel) => {
                    let mut client = EnrolmentServiceClient::new(channel);
                    let asked = client.renew(RenewRequest { csr_pem: csr_pem.clone() });
                    // One that hangs must not keep us from the next try until the certificate has ended.
                    let answered = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
                    answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("the renewal was not answered")))
                }
                Err(error) => {
                    last = Fault::from(&error);
                    continue;
                }
            };
            let answer = match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) => {
                    last = Fault::from(status);
                    continue;
                }
            };
            let new = Identity {
                generation: old.generation + 1,
                ca_pem: answer.ca_pem,
                certificate_pem: answer.certificate_pem,
                key_pem: key.pem(),
                ..old.as_ref().clone()
            };
            new.held().map_err(|error| stored(&error))?;
            new.store(&self.state).map_err(|error| stored(&error))?;
            self.held.replace(&new.certificate_pem, &new.key_pem).map_err(|error| stored(&error))?;
            let generation = new.generation;
            self.identity.store(Arc::new(new));
            return Ok(generation);
        }
        Err(last)
    }
}

fn remaining(now: Timestamp, due: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO).min(LONGEST_SLEEP)
}

#[cfg(test)]
mod tests;
