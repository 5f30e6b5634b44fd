#![expect(clippy::unwrap_used, reason = "tests")]

use coord_shared::api::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use coord_shared::api::{JoinRequest, JoinResponse, RenewResponse};
use coord_shared::clock::SystemClock;
use coord_shared::lifecycle::Lifecycle;
use coord_shared::tls::{Acceptor, ClientAuth, PeerIdentity, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tonic::transport::Channel;
use tonic::{Request, Response};

use super::*;

const HOUR_S: i64 = 3600;
const PATIENCE: Duration = Duration::from_secs(20);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Authority { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for this key whose life begins and ends the given seconds from now.
    fn issue(&self, name: &str, key: &KeyPair, (from_s, until_s): (i64, i64)) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let at = |offset: i64| {
            let second = u64::try_from(Timestamp::now().as_second() + offset).unwrap();
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(second)
        };
        (params.not_before, params.not_after) = (at(from_s), at(until_s));
        params.signed_by(key, &self.issuer).unwrap().pem()
    }
}

/// A coordinator that renews for the key that the agent holds back; whoever joins is only told who they are.
struct Enrolment {
    authority: Arc<Authority>,
    pending_key: std::path::PathBuf,
}

fn serial<T>(request: &Request<T>) -> String {
    PeerIdentity::from_der(&request.peer_certs().unwrap()[0]).unwrap().serial
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        Ok(Response::new(JoinResponse { subject_id: serial(&request), ..Default::default() }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        assert!(request.get_ref().csr_pem.contains("CERTIFICATE REQUEST"));
        let key = KeyPair::from_pem(&std::fs::read_to_string(&self.pending_key).unwrap()).unwrap();
        let certificate_pem = self.authority.issue("spiffe://demo/agent/h1", &key, (-HOUR_S, 23 * HOUR_S));
        Ok(Response::new(RenewResponse { certificate_pem, ca_pem: self.authority.pem.clone(), ..Default::default() }))
    }
}

/// Who the coordinator takes the caller for, by the serial of the certificate.
async fn known_as(channel: Channel) -> String {
    let answer = EnrolmentServiceClient::new(channel).join(JoinRequest::default()).await.unwrap();
    answer.into_inner().subject_id
}

/// An agent whose certificate has this life, and its enrolment listener.
async fn agent(scratch: &std::path::Path, life: &Lifecycle, lives: (i64, i64)) -> (Renewal, watch::Receiver<u32>) {
    let authority = Arc::new(Authority::new());
    let key = KeyPair::generate().unwrap();
    let certificate = authority.issue("spiffe://demo/coordinator/c1", &key, (-HOUR_S, HOUR_S));
    let lenient = ClientAuth::OptionalExpired { grace: Duration::from_secs(30 * 86_400) };
    let tls = ServerTls::new(&authority.pem, &certificate, &key.serialize_pem(), lenient).unwrap();
    let acceptor = Acceptor::bind("127.0.0.1:0".parse().unwrap(), tls).await.unwrap();
    let endpoint = acceptor.local_address().unwrap().to_string();
    let state = StateFolder::open(scratch).unwrap();
    let enrolment = Enrolment { authority: Arc::clone(&authority), pending_key: state.pending_key_file() };
    let serving = tonic::transport::Server::builder().add_service(EnrolmentServiceServer::new(enrolment));
    let connections = acceptor.start(life);
    life.spawn("serve", async move { serving.serve_with_incoming(connections).await.unwrap() });

    let key = KeyPair::generate().unwrap();
    let identity = Identity {
        fleet: "demo".into(),
        host_id: "h1".into(),
        host_name: "web-1".into(),
        generation: 1,
        ca_pem: authority.pem.clone(),
        certificate_pem: authority.issue("spiffe://demo/agent/h1", &key, lives),
        key_pem: key.serialize_pem(),
    };
    identity.store(&state).unwrap();
    let held = identity.held().unwrap();
    let (generation, renewed) = watch::channel(1);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let contact = Contact::open(state.contact_file(), vec![], vec![nobody.to_string(), endpoint]);
    let contact = Arc::new(contact);
    let renewal = Renewal {
        contact,
        state,
        identity: Arc::new(ArcSwap::from_pointee(identity)),
        held,
        generation,
        clock: Arc::new(SystemClock),
    };
    (renewal, renewed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_in_its_last_third_or_later_and_open_connections_go_on() {
    for lives in [(-20 * HOUR_S, 4 * HOUR_S), (-30 * HOUR_S, -6 * HOUR_S)] {
        let (scratch, life) = (tempfile::tempdir().unwrap(), Lifecycle::new());
        let (renewal, mut renewed) = agent(scratch.path(), &life, lives).await;
        let (before, held) = (renewal.identity.load_full(), Arc::clone(&renewal.held));
        let tls = ClientTls::new(&before.ca_pem, Arc::clone(&held)).unwrap();
        let endpoint = renewal.contact.enrolment()[1].clone();
        let (old, open) = (held.identity().unwrap().serial, tls.connect(&endpoint).await.unwrap());
        assert_eq!(known_as(open.clone()).await, old);

        life.spawn("renewal", renewal.run(life.ending().clone()));
        tokio::time::timeout(PATIENCE, renewed.wait_for(|generation| *generation == 2)).await.unwrap().unwrap();
        let state = StateFolder::open(scratch.path()).unwrap();
        let stored = Identity::load(&state).unwrap().unwrap();
        assert_eq!((stored.generation, stored.host_id.as_str()), (2, "h1"));
        assert_ne!(stored.key_pem, before.key_pem, "a new key, not only a new date");
        assert!(!state.pending_key_file().exists());
        let new = held.identity().unwrap().serial;
        assert_ne!(new, old);
        assert_eq!(known_as(open).await, old, "what was open is what it was");
        assert_eq!(known_as(tls.connect(&endpoint).await.unwrap()).await, new, "the same process, no restart");
        assert!(life.finish(PATIENCE).await, "a task did not end");
    }
}

#[tokio::test]
async fn renewals_are_due_shortly_before_two_thirds_of_the_life_are_over() {
    let (scratch, life) = (tempfile::tempdir().unwrap(), Lifecycle::new());
    let (renewal, _renewed) = agent(scratch.path(), &life, (0, 24 * HOUR_S)).await;
    let from_now = renewal.due().unwrap().as_second() - Timestamp::now().as_second();
    assert!((14 * HOUR_S..=16 * HOUR_S).contains(&from_now), "{from_now} s");
    assert_eq!(renewal.due(), renewal.due(), "the same at each look");
    assert!(life.finish(PATIENCE).await);
}
