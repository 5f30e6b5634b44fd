//! Real handshakes over loopback, with certificates made on the spot.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, SerialNumber,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;

use super::*;
use crate::lifecycle::Lifecycle;

const DAY_S: i64 = 86_400;

struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = params.self_signed(&key).unwrap();
    Authority { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
}

/// A certificate and key whose validity starts and ends the given seconds from now.
fn issue(authority: &Authority, name: &str, from_s: i64, until_s: i64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.serial_number = Some(SerialNumber::from_slice(&[0x00, 0x81, 7]));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let now = jiff::Timestamp::now().as_second();
    let at = |offset: i64| {
        let zoned = jiff::Timestamp::from_second(now + offset).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        rcgen::date_time_ymd(zoned.year().into(), zoned.month().unsigned_abs(), zoned.day().unsigned_abs())
    };
    params.not_before = at(from_s);
    params.not_after = at(until_s);
    (params.signed_by(&key, &authority.issuer).unwrap().pem(), key.serialize_pem())
}

fn valid(authority: &Authority, name: &str) -> (String, String) {
    issue(authority, name, -2 * DAY_S, 2 * DAY_S)
}

async fn listen(
    life: &Lifecycle,
    authority: &Authority,
    name: &str,
    auth: ClientAuth,
) -> (String, Connections, Arc<ServerTls>) {
    let (certificate, key) = valid(authority, name);
    let tls = ServerTls::new(&authority.pem, &certificate, &key, auth).unwrap();
    let acceptor = Acceptor::bind("127.0.0.1:0".parse().unwrap(), Arc::clone(&tls)).await.unwrap();
    let address = acceptor.local_address().unwrap().to_string();
    (address, acceptor.start(life), tls)
}

fn client(authority: &Authority, (certificate, key): &(String, String)) -> ClientTls {
    ClientTls::new(&authority.pem, HeldIdentity::from_pem(certificate, key).unwrap()).unwrap()
}

/// Whether the server completed a handshake within a second, and with which certificate.
async fn arrival(connections: &mut Connections) -> Option<Option<PeerIdentity>> {
    let stream = tokio::time::timeout(Duration::from_secs(1), connections.next()).await.ok()??.unwrap();
    let (_, session) = stream.get_ref();
    Some(session.peer_certificates().map(|chain| PeerIdentity::from_der(&chain[0]).unwrap()))
}

#[tokio::test]
async fn both_ends_know_each_other_after_the_handshake() {
    let (life, fleet) = (Lifecycle::new(), authority());
    let (address, mut connections, _) = listen(&life, &fleet, "spiffe://f/coordinator/c1", ClientAuth::Required).await;
    let tls = client(&fleet, &valid(&fleet, "spiffe://f/agent/a1"));
    let _channel = tls.connect(&address).await.unwrap();
    let peer = arrival(&mut connections).await.unwrap().unwrap();
    assert_eq!((peer.kind, peer.id.as_str(), peer.serial.as_str()), (PeerKind::Agent, "a1", "8107"));
    assert!(life.finish(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_server_that_is_no_coordinator_is_refused() {
    let (life, fleet) = (Lifecycle::new(), authority());
    let (address, _connections, _) = listen(&life, &fleet, "spiffe://f/agent/a1", ClientAuth::Required).await;
    let tls = client(&fleet, &valid(&fleet, "spiffe://f/agent/a2"));
    assert!(matches!(tls.connect(&address).await, Err(ConnectError::WrongAuthority { .. })));
}

#[tokio::test]
async fn a_coordinator_of_another_authority_is_refused_and_named_so() {
    let (life, fleet, other) = (Lifecycle::new(), authority(), authority());
    let (address, _connections, _) = listen(&life, &other, "spiffe://f/coordinator/c", ClientAuth::Required).await;
    let tls = client(&fleet, &valid(&fleet, "spiffe://f/agent/a"));
    assert!(matches!(tls.connect(&address).await, Err(ConnectError::WrongAuthority { .. })));
    let pinned = ClientTls::pinned(ca_pin(&fleet.der).unwrap()).unwrap();
    assert!(matches!(pinned.connect(&address).await, Err(ConnectError::WrongAuthority { .. })));
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let fleet = authority();
    let tls = client(&fleet, &valid(&fleet, "spiffe://f/agent/a"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(matches!(tls.connect(&free.to_string()).await, Err(ConnectError::Unreachable { .. })));
    assert!(matches!(tls.connect("nonsense").await, Err(ConnectError::Endpoint { .. })));
}

#[tokio::test]
async fn the_first_endpoint_that_answers_is_taken() {
    let (life, fleet) = (Lifecycle::new(), authority());
    let (address, mut connections, _) = listen(&life, &fleet, "spiffe://f/coordinator/c1", ClientAuth::Required).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let tls = client(&fleet, &valid(&fleet, "spiffe://f/operator/ada"));
    let _channel = tls.connect_any(&[free.clone(), address]).await.unwrap();
    assert_eq!(arrival(&mut connections).await.unwrap().unwrap().id, "ada");
    let nobody = tls.connect_any(&[free.clone(), free.clone()]).await.unwrap_err();
    assert!(nobody.to_string().contains(&format!("{free}, {free}")), "{nobody}");
    assert!(matches!(tls.connect_any(&[]).await, Err(ConnectError::Endpoint { .. })));
    assert!(life.finish(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_joining_client_needs_no_certificate_where_it_is_optional() {
    let (life, fleet) = (Lifecycle::new(), authority());
    let lenient = ClientAuth::OptionalExpired { grace: Duration::from_secs(86_400) };
    let (address, mut connections, _) = listen(&life, &fleet, "spiffe://f/coordinator/c", lenient).await;
    let pinned = ClientTls::pinned(ca_pin(&fleet.der).unwrap()).unwrap();
    let _channel = pinned.connect(&address).await.unwrap();
    assert_eq!(arrival(&mut connections).await, Some(None));
}

#[tokio::test]
async fn a_client_without_certificate_gets_nowhere_where_it_is_required() {
    let (life, fleet) = (Lifecycle::new(), authority());
    let (address, mut connections, _) = listen(&life, &fleet, "spiffe://f/coordinator/c", ClientAuth::Required).await;
    let anonymous = ClientTls::new(&fleet.pem, HeldIdentity::anonymous()).unwrap();
    // In TLS 1.3 the client's side may look finished before the server has refused it.
    drop(anonymous.connect(&address).await);
    assert_eq!(arrival(&mut connections).await, None);
}

#[tokio::test]
async fn an_expired_certificate_renews_within_its_grace_and_only_there() {
    let (life, fleet, other) = (Lifecycle::new(), authority(), authority());
    let lenient = ClientAuth::OptionalExpired { grace: Duration::from_secs(30 * 86_400) };
    let (renewal, mut renewing, _) = listen(&life, &fleet, "spiffe://f/coordinator/c", lenient).await;
    let (main, mut calling, _) = listen(&life, &fleet, "spiffe://f/coordinator/c", ClientAuth::Required).await;
    let expired = issue(&fleet, "spiffe://f/agent/a", -20 * DAY_S, -10 * DAY_S);
    let tls = client(&fleet, &expired);
    let _one = tls.connect(&renewal).await;
    assert_eq!(arrival(&mut renewing).await.unwrap().unwrap().id, "a");
    drop(tls.connect(&main).await);
    assert_eq!(arrival(&mut calling).await, None);
    let long_gone = issue(&fleet, "spiffe://f/agent/a", -60 * DAY_S, -40 * DAY_S);
    drop(client(&fleet, &long_gone).connect(&renewal).await);
    assert_eq!(arrival(&mut renewing).await, None);
    let foreign = issue(&other, "spiffe://f/agent/a", -20 * DAY_S, -10 * DAY_S);
    drop(client(&fleet, &foreign).connect(&renewal).await);
    assert_eq!(arrival(&mut renewing).await, None);
}

#[tokio::test]
async fn a_replaced_certificate_is_used_from_the_next_connection_on() {
    let (life, fleet) = (Lifecycle::new(), authority());
    let (address, mut connections, server) =
        listen(&life, &fleet, "spiffe://f/coordinator/c", ClientAuth::Required).await;
    let (certificate, key) = valid(&fleet, "spiffe://f/agent/before");
    let held = HeldIdentity::from_pem(&certificate, &key).unwrap();
    let tls = ClientTls::new(&fleet.pem, Arc::clone(&held)).unwrap();
    let _before = tls.connect(&address).await.unwrap();
    assert_eq!(arrival(&mut connections).await.unwrap().unwrap().id, "before");
    let (certificate, key) = valid(&fleet, "spiffe://f/agent/after");
    held.replace(&certificate, &key).unwrap();
    assert_eq!(held.identity().unwrap().id, "after");
    let _after = tls.connect(&address).await.unwrap();
    assert_eq!(arrival(&mut connections).await.unwrap().unwrap().id, "after");
    // The server's side: once it shows an agent's certificate, clients turn away.
    let (certificate, key) = valid(&fleet, "spiffe://f/agent/not-a-coordinator");
    server.replace(&certificate, &key).unwrap();
    assert!(tls.connect(&address).await.is_err());
}

#[tokio::test]
async fn every_reconnect_is_a_full_handshake_that_verifies_the_client_again() {
    // HTTP/2: an empty frame of settings, and its acknowledgement.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const ACKNOWLEDGED: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let (life, fleet) = (Lifecycle::new(), authority());
    let (address, mut connections, _) = listen(&life, &fleet, "spiffe://f/coordinator/c", ClientAuth::Required).await;
    let tls = client(&fleet, &valid(&fleet, "spiffe://f/agent/a"));
    for turn in 0..3 {
        let _channel = tls.connect(&address).await.unwrap();
        let mut stream = connections.next().await.unwrap().unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full), "turn {turn}");
        assert!(session.peer_certificates().is_some_and(|chain| !chain.is_empty()), "turn {turn}");
        // A client that answers has read everything before, and with it any ticket for a resumption.
        stream.write_all(&SETTINGS).await.unwrap();
        let mut heard = Vec::new();
        while !heard.windows(ACKNOWLEDGED.len()).any(|frame| frame == ACKNOWLEDGED) {
            assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0, "the client is gone");
        }
    }
    assert!(life.finish(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_cut_and_stops_nobody() {
    let (life, fleet) = (Lifecycle::new(), authority());
    let (address, mut connections, _) = listen(&life, &fleet, "spiffe://f/coordinator/c", ClientAuth::Required).await;
    let mut silent = tokio::net::TcpStream::connect(&address).await.unwrap();
    let tls = client(&fleet, &valid(&fleet, "spiffe://f/agent/a"));
    let _channel = tls.connect(&address).await.unwrap();
    assert!(arrival(&mut connections).await.is_some());
    let read = tokio::time::timeout(crate::wire::HANDSHAKE_TIMEOUT * 2, silent.read(&mut [0; 16])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "the silent connection is still open");
}
