//! Who may join, renew and call: over real mTLS, against a coordinator in this process with a database of its own.

use std::time::Duration;

use crate::runs::{POLICY, apply, dial, hello};
use crate::support::{Fleet, wait_for};
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::{
    CreateTokenRequest, DisableUserRequest, GetVersionRequest, ListUsersRequest, RevokeHostRequest,
};
use coord_shared::clock::SystemClock;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{Generation, InstanceId};
use coord_shared::tls::{ClientTls, HeldIdentity, PeerIdentity, PeerKind};
use coord_shared::token::{Token, TokenSecret};
use coordinator::app::authorize::Role;
use coordinator::catalog::{JobFilter, JobState, NewCertificate};
use coordinator::grpc::access::{self, Access};
use coordinator::init;
use coordinator::pki::{Authority, CertificateOrder};
use http::uri::PathAndQuery;
use rcgen::KeyPair;
use tonic::Status;
use tonic::transport::Channel;

/// Calls an RPC with an empty message, as unary: what counts is whether the caller gets past the identity layer.
async fn call(channel: Channel, path: &'static str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let request = tonic::Request::new(tokio_stream::once(()));
    let answer = client.streaming(request, PathAndQuery::from_static(path), codec).await?;
    answer.into_inner().message().await.map(|_| ())
}

fn code(answer: Result<(), Status>) -> Option<ErrorCode> {
    answer.err().map(|status| Fault::from(&status).code)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_refuses_no_wrong_unknown_and_revoked_certificates() {
    let fleet = Fleet::start().await;
    let agent = fleet.agent("one").await;
    let authority = Authority::load(&fleet.state(), "test").unwrap();
    // Signed by the fleet's authority, but in no allow-list: a stolen authority key is not enough.
    let issue = |kind, id: &str| {
        let order = CertificateOrder { kind, id, now: jiff::Timestamp::now() };
        let (certificate, key) = authority.issue_with_key(order).unwrap();
        ClientTls::new(&fleet.ca_pem, HeldIdentity::from_pem(&certificate.pem, &key).unwrap()).unwrap()
    };
    let unlisted_agent = issue(PeerKind::Agent, &agent.subject).connect(&fleet.main).await.unwrap();
    let unlisted_operator = issue(PeerKind::Operator, "admin").connect(&fleet.main).await.unwrap();
    let agent_channel = agent.tls.connect(&fleet.main).await.unwrap();
    let admin = fleet.admin().await;
    let anonymous = ClientTls::new(&fleet.ca_pem, HeldIdentity::anonymous()).unwrap();
    for (path, access) in access::MAIN {
        let (unlisted, wrong_kind) = match access {
            Access::Agent => (&unlisted_agent, &admin),
            Access::Operator(_) => (&unlisted_operator, &agent_channel),
            Access::Anyone => unreachable!("no RPC of the main listener is for anyone"),
        };
        assert_eq!(
            code(call(unlisted.clone(), path).await),
            Some(ErrorCode::Unauthenticated),
            "{path}: not in the list"
        );
        assert_eq!(code(call(wrong_kind.clone(), path).await), Some(ErrorCode::PermissionDenied), "{path}: wrong kind");
        if let Ok(channel) = anonymous.connect(&fleet.main).await {
            // The handshake is refused, which in TLS 1.3 the client learns with its first read.
            let cut = [ErrorCode::Unavailable, ErrorCode::Cancelled, ErrorCode::Internal];
            let found = code(call(channel, path).await);
            assert!(found.is_some_and(|code| cut.contains(&code)), "{path}: no certificate: {found:?}");
        }
    }
    fleet.catalog.revoke_certificates(PeerKind::Agent, &agent.subject).await.unwrap();
    for (path, access) in access::MAIN.iter().filter(|(_, access)| *access == Access::Agent) {
        let refused = || async {
            let found = code(call(agent_channel.clone(), path).await);
            (found == Some(ErrorCode::Revoked)).then_some(())
        };
        wait_for("a revocation to act", refused).await;
        assert_eq!(*access, Access::Agent);
    }
    fleet.stop().await;
}

/// A token for an operator, made by whoever the channel belongs to.
async fn operator_token(maker: &Channel, user: &str, role: &str) -> Result<Token, Fault> {
    let request =
        CreateTokenRequest { kind: "operator".into(), user: user.into(), role: role.into(), ..Default::default() };
    let made = OperatorServiceClient::new(maker.clone()).create_token(request).await.map_err(Fault::from)?;
    Ok(made.into_inner().secret_line.parse().unwrap())
}

/// Logs an operator in with a token that `maker` makes.
async fn log_in(fleet: &Fleet, maker: &Channel, user: &str, role: &str) -> Channel {
    let (token, key) = (operator_token(maker, user, role).await.unwrap(), KeyPair::generate().unwrap());
    let joined = fleet.join(&token, "", &key).await.unwrap();
    fleet.member(user, &joined.certificate_pem, &key).tls.connect(&fleet.main).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_logs_in_as_an_operator_of_a_higher_role_than_their_own() {
    let fleet = Fleet::start().await;
    let admin = fleet.admin().await;
    let ada = log_in(&fleet, &admin, "ada", "operator").await;
    let role = async |name: &str| fleet.catalog.operator(name).await.unwrap().unwrap().role;
    for asked in ["viewer", "operator"] {
        let refused = operator_token(&ada, "admin", asked).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::PermissionDenied, "{asked}: {refused}");
        assert!(refused.message.contains("admin is admin"), "{refused}");
    }
    // The name is free when the token is made, and an admin's when it is used.
    let early = operator_token(&ada, "bob", "viewer").await.unwrap();
    let bob = log_in(&fleet, &admin, "bob", "admin").await;
    let late = fleet.join(&early, "", &KeyPair::generate().unwrap()).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::NameTaken, "{late}");
    // A second machine of one's own, a viewer's, and an admin for an admin: nobody's role goes down with it.
    drop(log_in(&fleet, &ada, "ada", "viewer").await);
    drop(log_in(&fleet, &ada, "eve", "viewer").await);
    drop(log_in(&fleet, &ada, "eve", "viewer").await);
    drop(log_in(&fleet, &bob, "admin", "viewer").await);
    for (name, wanted) in [("ada", Role::Operator), ("eve", Role::Viewer), ("admin", Role::Admin), ("bob", Role::Admin)]
    {
        assert_eq!(role(name).await, wanted, "{name}");
    }
    // Nor does one come in as somebody who was put out; and the machine's own administrator is asked nothing.
    let disable = DisableUserRequest { user: "eve".into() };
    OperatorServiceClient::new(admin.clone()).disable_user(disable).await.unwrap();
    assert_eq!(operator_token(&admin, "eve", "viewer").await.unwrap_err().code, ErrorCode::NameTaken);
    let line = init::operator_token(&fleet.state(), "admin", "viewer", &SystemClock).unwrap();
    let token: Token = line.parse().unwrap();
    wait_for("the token to be taken in", || async { fleet.join(&token, "", &KeyPair::generate().unwrap()).await.ok() })
        .await;
    assert_eq!(role("admin").await, Role::Admin);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_repeated_with_the_same_key_gives_the_same_certificate_and_another_key_gives_none() {
    let fleet = Fleet::start().await;
    let token = fleet.agent_token(1, Duration::from_secs(60)).await;
    let key = KeyPair::generate().unwrap();
    let first = fleet.join(&token, "web-1", &key).await.unwrap();
    let again = fleet.join(&token, "web-1", &key).await.unwrap();
    assert_eq!(first.certificate_pem, again.certificate_pem);
    assert_eq!((again.name.as_str(), again.fleet.as_str()), ("web-1", "test"));
    assert_eq!(again.endpoints, std::slice::from_ref(&fleet.main));
    let other = fleet.join(&token, "web-2", &KeyPair::generate().unwrap()).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::TokenUsed);
    assert!(!other.hint.is_empty());
    let host = fleet.catalog.host_by_name("web-1").await.unwrap().unwrap();
    assert_eq!(host.labels.get("env").map(String::as_str), Some("test"));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_wrong_expired_or_burned_let_nobody_in() {
    let fleet = Fleet::start().await;
    let key = KeyPair::generate().unwrap();
    let expired = fleet.agent_token(1, Duration::ZERO).await;
    assert_eq!(fleet.join(&expired, "a", &key).await.unwrap_err().code, ErrorCode::TokenExpired);
    let unknown = Token { id: uuid::Uuid::new_v4(), ..expired };
    assert_eq!(fleet.join(&unknown, "a", &key).await.unwrap_err().code, ErrorCode::TokenInvalid);
    let good = fleet.agent_token(1, Duration::from_secs(60)).await;
    let guessed = Token { secret: TokenSecret::new([7; 32]), ..good.clone() };
    for _ in 0..5 {
        assert_eq!(fleet.join(&guessed, "a", &key).await.unwrap_err().code, ErrorCode::TokenInvalid);
    }
    assert_eq!(fleet.join(&good, "a", &key).await.unwrap_err().code, ErrorCode::TokenRevoked);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_is_given_once_and_the_token_survives_the_refusal() {
    let fleet = Fleet::start().await;
    drop(fleet.agent("db").await);
    let token = fleet.agent_token(1, Duration::from_secs(60)).await;
    let key = KeyPair::generate().unwrap();
    let taken = fleet.join(&token, "db", &key).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::NameTaken);
    assert!(taken.hint.contains("--name"));
    assert_eq!(fleet.join(&token, "Not A Name", &key).await.unwrap_err().code, ErrorCode::InvalidArgument);
    fleet.join(&token, "db-2", &key).await.unwrap();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_generation_ends_with_the_first_call_of_the_new_one() {
    let fleet = Fleet::start().await;
    let old = fleet.agent("one").await;
    let path = "/coord.v1.AgentService/GetIndexProgress";
    // The first call with generation 1 makes it the newest used one.
    let before = old.tls.connect(&fleet.main).await.unwrap();
    assert_ne!(code(call(before.clone(), path).await), Some(ErrorCode::CertificateReplaced));
    let key = KeyPair::generate().unwrap();
    let renewed = fleet.renew(&old, &key).await.unwrap();
    let again = fleet.renew(&old, &key).await.unwrap();
    assert_eq!(renewed.certificate_pem, again.certificate_pem, "the same key gets the same certificate");
    let new = fleet.member(&old.subject, &renewed.certificate_pem, &key);
    let serial = |pem: &str| PeerIdentity::from_pem(pem).unwrap().serial;
    assert_ne!(serial(&old.certificate), serial(&new.certificate));
    // Not used yet: the old one still renews and calls.
    assert_ne!(code(call(before.clone(), path).await), Some(ErrorCode::CertificateReplaced));
    drop(call(new.tls.connect(&fleet.main).await.unwrap(), path).await);
    wait_for("the old generation to end", || async {
        (code(call(before.clone(), path).await) == Some(ErrorCode::CertificateReplaced)).then_some(())
    })
    .await;
    let late = fleet.renew(&old, &KeyPair::generate().unwrap()).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::CertificateReplaced);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_of_an_agent_renews_and_one_of_an_operator_does_not() {
    let fleet = Fleet::start().await;
    let agent = fleet.agent("one").await;
    let authority = Authority::load(&fleet.state(), "test").unwrap();
    // Ten days after their end.
    let expired = async |kind, id: &str, days: i64| {
        let now = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * (days + 10));
        let (issued, key) = authority.issue_with_key(CertificateOrder { kind, id, now }).unwrap();
        let row = NewCertificate {
            serial: issued.identity.serial.clone(),
            kind,
            subject: id.to_owned(),
            generation: Generation(7),
            public_key_sha256: issued.identity.public_key_sha256,
            pem: issued.pem.clone(),
            not_after: issued.identity.not_after,
        };
        fleet.catalog.insert_certificate(&row).await.unwrap();
        fleet.member(id, &issued.pem, &KeyPair::from_pem(&key).unwrap())
    };
    let key = KeyPair::generate().unwrap();
    fleet.renew(&expired(PeerKind::Agent, &agent.subject, 1).await, &key).await.unwrap();
    let refused = fleet.renew(&expired(PeerKind::Operator, "admin", 30).await, &key).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CertificateExpired, "{refused}");
    assert!(refused.hint.contains("coordctl login"), "{refused}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_an_operator_revokes_is_refused_from_the_next_call_on() {
    let fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    let mut operator = OperatorServiceClient::new(admin.clone());
    apply(&admin, POLICY).await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    let channel = member.tls.connect(&fleet.main).await.unwrap();
    let path = "/coord.v1.AgentService/GetIndexProgress";
    assert_ne!(code(call(channel.clone(), path).await), Some(ErrorCode::Revoked));

    let revoked = operator.revoke_host(RevokeHostRequest { host: "one".into() }).await.unwrap().into_inner();
    assert_eq!((revoked.state.as_str(), revoked.connected, revoked.policies.len()), ("revoked", false, 0));
    assert_eq!(code(call(channel, path).await), Some(ErrorCode::Revoked), "the very next call");
    let ended = tokio::time::timeout(Duration::from_secs(5), agent.wait_for_end()).await.unwrap();
    assert_eq!(ended.code, ErrorCode::Revoked);
    assert_eq!(fleet.renew(&member, &KeyPair::generate().unwrap()).await.unwrap_err().code, ErrorCode::Revoked);

    // It is selected by nothing any more, and said once.
    operator.revoke_host(RevokeHostRequest { host: "one".into() }).await.unwrap();
    apply(&admin, &POLICY.replace("\"web\"", "\"later\"")).await;
    let filter = JobFilter { state: Some(JobState::Active), ..JobFilter::default() };
    assert!(fleet.catalog.jobs(filter).await.unwrap().is_empty());
    let deeds = fleet.catalog.audit_log(100).await.unwrap();
    let deeds: Vec<_> = deeds.iter().filter(|deed| deed.action == "host_revoked").collect();
    assert_eq!((deeds.len(), deeds[0].actor.as_str(), deeds[0].subject.as_str()), (1, "admin", &member.subject[..]));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_is_disabled_is_out_with_every_token_of_theirs() {
    let fleet = Fleet::start().await;
    let admin = fleet.admin().await;
    let ada = log_in(&fleet, &admin, "ada", "operator").await;
    let (mut root, mut user) = (OperatorServiceClient::new(admin.clone()), OperatorServiceClient::new(ada.clone()));
    let made = operator_token(&ada, "eve", "viewer").await.unwrap();
    let spare = operator_token(&admin, "ada", "operator").await.unwrap();
    let disable = |user: &str| DisableUserRequest { user: user.into() };
    let small = user.disable_user(disable("admin")).await.unwrap_err();
    assert_eq!(Fault::from(&small).code, ErrorCode::PermissionDenied, "it takes an admin");
    let last = root.disable_user(disable("admin")).await.unwrap_err();
    assert_eq!(Fault::from(&last).code, ErrorCode::NotNow, "nobody would be left");

    let gone = root.disable_user(disable("ada")).await.unwrap().into_inner();
    assert_eq!((gone.name.as_str(), gone.state.as_str(), gone.certificate_not_after_us), ("ada", "revoked", 0));
    let refused = user.get_version(GetVersionRequest {}).await.unwrap_err();
    assert_eq!(Fault::from(&refused).code, ErrorCode::Revoked, "the very next call");
    for token in [made, spare] {
        let late = fleet.join(&token, "", &KeyPair::generate().unwrap()).await.unwrap_err();
        assert_eq!(late.code, ErrorCode::TokenRevoked, "{late}");
    }
    let users = root.list_users(ListUsersRequest {}).await.unwrap().into_inner().users;
    let shown: Vec<_> = users.iter().map(|user| (&user.name[..], &user.role[..], &user.state[..])).collect();
    assert_eq!(shown, [("ada", "operator", "revoked"), ("admin", "admin", "active")]);
    let unknown = Fault::from(&root.disable_user(disable("adam")).await.unwrap_err());
    assert!(unknown.code == ErrorCode::NotFound && unknown.hint.contains("did you mean"), "{unknown}");
    let deeds = fleet.catalog.audit_log(100).await.unwrap();
    assert_eq!(deeds.iter().filter(|deed| deed.action == "user_disabled" && deed.subject == "ada").count(), 1);
    fleet.stop().await;
}
