//! A coordinator in this process, over real mTLS and a real database of its own, and peers made by hand.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coord_shared::api::enrolment_service_client::EnrolmentServiceClient;
use coord_shared::api::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};
use coord_shared::clock::SystemClock;
use coord_shared::fault::Fault;
use coord_shared::ids::TokenId;
use coord_shared::lifecycle::Lifecycle;
use coord_shared::tls::{ClientTls, HeldIdentity};
use coord_shared::token::Token;
use coordinator::catalog::{Catalog, CatalogConfig, NewToken, TokenKind};
use coordinator::init::{self, NewFleet};
use coordinator::postgres::Private;
use coordinator::server;
use coordinator::settings::Settings;
use fleet_tests::harness::postgres::Database;
use tonic::transport::Channel;

/// Longest wait for anything in these tests; twice the pause before a second attempt.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A running coordinator.
pub struct Fleet {
    pub folder: tempfile::TempDir,
    pub catalog: Catalog,
    /// The database's address; empty when the coordinator has its own.
    pub url: String,
    pub main: String,
    pub enrolment: String,
    /// Where it answers about its health.
    pub health: String,
    pub ca_pem: String,
    postgres: Option<Private>,
    /// Keeps a server in a container running.
    _database: Option<Database>,
    life: Lifecycle,
    server: tokio::task::JoinHandle<()>,
}

/// Another coordinator of a fleet.
pub struct Second {
    pub main: String,
    pub health: String,
    life: Lifecycle,
    server: tokio::task::JoinHandle<()>,
}

impl Second {
    pub async fn end(self) {
        self.life.end();
        self.server.await.unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(self) {
        tokio::time::timeout(DEADLINE, self.server).await.unwrap().unwrap();
    }
}

/// A member of the fleet with its certificate.
#[derive(Clone)]
pub struct Member {
    pub subject: String,
    pub certificate: String,
    pub tls: ClientTls,
}

impl Fleet {
    /// Initialises and serves a new fleet on a database of the test's: in a container where an engine answers, else on a private
    /// server.
    pub async fn start() -> Fleet {
        let database = tokio::task::spawn_blocking(Database::obtain).await.unwrap().unwrap();
        match database.url().map(str::to_owned) {
            Some(url) => Fleet { _database: Some(database), ..Fleet::serve(scratch(), None, url).await },
            None => Fleet::start_on_own_server().await,
        }
    }

    /// The same on a server of the test's own, which it may stop.
    pub async fn start_on_own_server() -> Fleet {
        let folder = scratch();
        let postgres = Private::start(&folder.path().join("postgres")).await.unwrap();
        let url = postgres.url();
        Fleet::serve(folder, Some(postgres), url).await
    }

    /// Initialises and serves a new fleet whose coordinator starts its own database.
    pub async fn start_with_private_database() -> Fleet {
        Fleet::serve(scratch(), None, String::new()).await
    }

    async fn serve(folder: tempfile::TempDir, postgres: Option<Private>, url: String) -> Fleet {
        let any = "127.0.0.1:0".parse().unwrap();
        let new = NewFleet {
            state: folder.path().join("state"),
            fleet: "test".into(),
            listen: any,
            enrol_listen: any,
            advertise: vec![],
            advertise_enrol: vec![],
            operator_config: folder.path().join("operator/config.toml"),
            user: "admin".into(),
        };
        init::init(&new, &SystemClock).unwrap();
        let Serving { life, server, main, enrolment, health } = serve(&new.state, &url).await;
        let address = if url.is_empty() { "host=localhost user=nobody" } else { &url };
        let catalog = Catalog::new(CatalogConfig::from_url(address).unwrap()).unwrap();
        let ca_pem = std::fs::read_to_string(new.state.join("ca.pem")).unwrap();
        Fleet { folder, catalog, url, main, enrolment, health, ca_pem, postgres, _database: None, life, server }
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Ends the coordinator and starts it again.
    pub async fn restart(&mut self) {
        self.life.end();
        (&mut self.server).await.unwrap();
        let Serving { life, server, main, enrolment, health } = serve(&self.state(), &self.url).await;
        (self.life, self.server, self.main, self.enrolment, self.health) = (life, server, main, enrolment, health);
    }

    /// Another coordinator of the same fleet, on the same database.
    pub async fn second(&self) -> Second {
        let state = self.folder.path().join("second");
        std::fs::create_dir(&state).unwrap();
        for name in ["ca.pem", "ca.key", "coordinator.toml"] {
            std::fs::copy(self.state().join(name), state.join(name)).unwrap();
        }
        let Serving { life, server, main, health, .. } = serve(&state, &self.url).await;
        Second { main, health, life, server }
    }

    pub async fn stop_database(&mut self) {
        self.postgres.take().unwrap().stop().await.unwrap();
    }

    pub async fn start_database(&mut self) {
        self.postgres = Some(Private::start(&self.folder.path().join("postgres")).await.unwrap());
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        self.life.end();
        self.server.await.unwrap();
        self.catalog.close();
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await.unwrap();
        }
    }

    fn pinned(&self, token: &Token) -> ClientTls {
        ClientTls::pinned(token.ca).unwrap()
    }

    /// The first operator, as init made it.
    pub async fn admin(&self) -> Channel {
        self.admin_at(&self.main).await
    }

    /// The same at another coordinator.
    pub async fn admin_at(&self, main: &str) -> Channel {
        self.admin_at_any(&[main]).await
    }

    /// The same at whichever of these coordinators answers.
    pub async fn admin_at_any(&self, main: &[&str]) -> Channel {
        let main: Vec<String> = main.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        let folder = self.folder.path().join("operator");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let held = HeldIdentity::from_pem(&read("operator.pem"), &read("operator.key")).unwrap();
        ClientTls::new(&self.ca_pem, held).unwrap().connect_any(&main).await.unwrap()
    }

    /// A token for agents, straight from the catalog.
    pub async fn agent_token(&self, uses: u32, lives: Duration) -> Token {
        let line = init::operator_token(&self.state(), "nobody", "viewer", &SystemClock).unwrap();
        let made: Token = line.parse().unwrap();
        let token = Token { id: uuid::Uuid::new_v4(), ..made };
        let labels = BTreeMap::from([("env".to_owned(), "test".to_owned())]);
        let new = NewToken {
            id: TokenId::from_uuid(token.id),
            secret_sha256: token.secret.hash(),
            kind: TokenKind::Agent,
            labels,
            host_name: None,
            operator: None,
            uses,
            created_by: "test".into(),
            lives,
        };
        self.catalog.create_token(&new).await.unwrap();
        token
    }

    /// Redeems a token with the key given.
    pub async fn join(&self, token: &Token, name: &str, key: &rcgen::KeyPair) -> Result<JoinResponse, Fault> {
        let channel = self.pinned(token).connect(&self.enrolment).await.unwrap();
        let request = JoinRequest {
            token_id: token.id.to_string(),
            token_secret: token.secret.reveal(),
            csr_pem: csr(key),
            wanted_name: name.into(),
            hostname: "machine".into(),
            ..Default::default()
        };
        let answer = EnrolmentServiceClient::new(channel).join(request).await;
        answer.map(tonic::Response::into_inner).map_err(Fault::from)
    }

    /// A new host with its certificate.
    pub async fn agent(&self, name: &str) -> Member {
        let token = self.agent_token(1, Duration::from_secs(60)).await;
        let key = rcgen::KeyPair::generate().unwrap();
        let joined = self.join(&token, name, &key).await.unwrap();
        self.member(&joined.subject_id, &joined.certificate_pem, &key)
    }

    /// A member out of a certificate and its key.
    pub fn member(&self, subject: &str, certificate: &str, key: &rcgen::KeyPair) -> Member {
        let held = HeldIdentity::from_pem(certificate, &key.serialize_pem()).unwrap();
        let tls = ClientTls::new(&self.ca_pem, Arc::clone(&held)).unwrap();
        Member { subject: subject.into(), certificate: certificate.into(), tls }
    }

    /// Renews a member's certificate for a key.
    pub async fn renew(&self, member: &Member, key: &rcgen::KeyPair) -> Result<RenewResponse, Fault> {
        let channel = member.tls.connect(&self.enrolment).await.unwrap();
        let answer = EnrolmentServiceClient::new(channel).renew(RenewRequest { csr_pem: csr(key) }).await;
        answer.map(tonic::Response::into_inner).map_err(Fault::from)
    }
}

/// A folder that the database's own user can pass through, since Postgres does not run as root.
fn scratch() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// A coordinator in this process.
struct Serving {
    life: Lifecycle,
    server: tokio::task::JoinHandle<()>,
    main: String,
    enrolment: String,
    health: String,
}

async fn serve(state: &std::path::Path, url: &str) -> Serving {
    let ready = state.join("endpoints.json");
    drop(std::fs::remove_file(&ready));
    let settings = Settings { health_listen: Some("127.0.0.1:0".parse().unwrap()), ..Settings::load(state).unwrap() };
    let life = Lifecycle::new();
    let config = server::Config {
        state: state.to_owned(),
        settings,
        database: Some(url.to_owned()).filter(|url| !url.is_empty()),
    };
    let running = tokio::spawn({
        let life = life.clone();
        async move { server::run(config, life).await.unwrap() }
    });
    wait_for("the coordinator to serve", || async { ready.exists().then_some(()) }).await;
    let said: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    let endpoint = |name: &str| said[name][0].as_str().unwrap().to_owned();
    let health = said["health"].as_str().unwrap().to_owned();
    Serving { life, server: running, main: endpoint("main"), enrolment: endpoint("enrolment"), health }
}

/// A request for a certificate.
pub fn csr(key: &rcgen::KeyPair) -> String {
    rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

/// Asks again and again until there is an answer, with a deadline.
pub async fn wait_for<T, F, R>(what: &str, mut ask: F) -> T
where
    F: FnMut() -> R,
    R: Future<Output = Option<T>>,
{
    let started = std::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
