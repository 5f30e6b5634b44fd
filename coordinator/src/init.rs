//! `coordinator init` and `coordinator operator-token`: what is made on the coordinator's own machine before, or without, asking a
//! running coordinator. Everything that could be in the way is looked at before the first file is written.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coord_shared::clock::Clock;
use coord_shared::durable;
use coord_shared::tls::PeerKind;
use coord_shared::token::{Token, TokenSecret};
use ring::rand::{SecureRandom as _, SystemRandom};
use uuid::Uuid;

use crate::bootstrap::{self, Grant};
use crate::pki::{Authority, AuthorityError, CertificateOrder};
use crate::settings::{Settings, SettingsError, reachable};

/// Life of an operator token made here.
const OPERATOR_TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Why a fleet cannot be set up, or a token made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder is in use.
    #[error("{} is a coordinator's state folder already", folder.display())]
    Exists {
        /// The folder given.
        folder: PathBuf,
    },
    /// An operator's context is there.
    #[error("{} exists already: name another file with --operator-config", path.display())]
    ContextExists {
        /// coordctl's configuration file.
        path: PathBuf,
    },
    /// A file or folder cannot be made.
    #[error("cannot write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The authority cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The system gives no randomness.
    #[error("the system gives no random numbers")]
    Randomness,
}

/// A new fleet.
#[derive(Debug, Clone)]
pub struct NewFleet {
    /// State folder of the coordinator.
    pub state: PathBuf,
    /// The fleet's name.
    pub fleet: String,
    /// Main listener.
    pub listen: SocketAddr,
    /// Enrolment listener.
    pub enrol_listen: SocketAddr,
    /// `host:port` of the main listener as others reach it; empty: derived.
    pub advertise: Vec<String>,
    /// `host:port` of the enrolment listener as others reach it; empty: derived.
    pub advertise_enrol: Vec<String>,
    /// coordctl's configuration file that gets the first operator's context.
    pub operator_config: PathBuf,
    /// The first operator's name.
    pub user: String,
}

/// Makes the authority, the settings and the first operator's context.
pub fn init(new: &NewFleet, clock: &dyn Clock) -> Result<(), InitError> {
    let mut settings = Settings::new(&new.fleet, new.listen, new.enrol_listen)?;
    settings.advertise.clone_from(&new.advertise);
    settings.advertise_enrol.clone_from(&new.advertise_enrol);
    if Settings::exist(&new.state) {
        return Err(InitError::Exists { folder: new.state.clone() });
    }
    if new.operator_config.exists() {
        return Err(InitError::ContextExists { path: new.operator_config.clone() });
    }
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::File { path, source }
    };
    durable::private_folder(&new.state).map_err(file(&new.state))?;
    let authority = Authority::create(&new.state, &new.fleet, clock.now())?;
    let order = CertificateOrder { kind: PeerKind::Operator, id: &new.user, now: clock.now() };
    let (certificate, key_pem) = authority.issue_with_key(order)?;
    let certificate_pem = certificate.pem.clone();
    let grant = Grant::Operator { user: new.user.clone(), role: "admin".to_owned(), certificate_pem };
    bootstrap::leave(&new.state, &grant).map_err(file(&new.state))?;
    write_context(new, &authority, &certificate.pem, &key_pem)?;
    // Last: a folder with settings is a folder that was initialised.
    settings.store(&new.state)?;
    Ok(())
}

/// Writes the context file of coordctl with the three PEM files beside it.
fn write_context(new: &NewFleet, authority: &Authority, certificate: &str, key: &str) -> Result<(), InitError> {
    let folder = new.operator_config.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or_else(|| PathBuf::from("."), Path::to_owned);
    std::fs::create_dir_all(&folder).map_err(|source| InitError::File { path: folder.clone(), source })?;
    let endpoints = |said: &[String], address| if said.is_empty() { vec![reachable(address)] } else { said.to_vec() };
    let mut context = toml::Table::new();
    context.insert("endpoints".into(), endpoints(&new.advertise, new.listen).into());
    context.insert("enrol_endpoints".into(), endpoints(&new.advertise_enrol, new.enrol_listen).into());
    for (key, value) in [("ca", "ca.pem"), ("certificate", "operator.pem"), ("key", "operator.key")] {
        context.insert(key.into(), value.into());
    }
    context.insert("protected".into(), false.into());
    let contexts = toml::Table::from_iter([("default".to_owned(), toml::Value::Table(context))]);
    let mut config = toml::Table::new();
    config.insert("current".into(), "default".into());
    config.insert("contexts".into(), toml::Value::Table(contexts));
    let files = [
        (folder.join("operator.key"), key.to_owned(), durable::SECRET_MODE),
        (folder.join("operator.pem"), certificate.to_owned(), durable::PUBLIC_MODE),
        (folder.join("ca.pem"), authority.pem().to_owned(), durable::PUBLIC_MODE),
        (new.operator_config.clone(), config.to_string(), durable::PUBLIC_MODE),
    ];
    for (path, text, mode) in files {
        durable::write(&path, text.as_bytes(), mode).map_err(|source| InitError::File { path, source })?;
    }
    Ok(())
}

/// Makes a token with which an operator logs in, and leaves its hash for the coordinator. Returns the line to hand over.
pub fn operator_token(state: &Path, user: &str, role: &str, clock: &dyn Clock) -> Result<String, InitError> {
    let settings = Settings::load(state)?;
    let authority = Authority::load(state, &settings.fleet)?;
    let token = Token { id: Uuid::new_v4(), secret: random_secret()?, ca: authority.pin() };
    let grant = Grant::Token {
        id: token.id,
        secret_sha256: coord_shared::hex::encode(&token.secret.hash()),
        user: user.to_owned(),
        role: role.to_owned(),
        expires_at: clock.now() + OPERATOR_TOKEN_LIFE,
    };
    bootstrap::leave(state, &grant).map_err(|source| InitError::File { path: state.to_owned(), source })?;
    Ok(token.reveal())
}

/// 256 random bits.
pub fn random_secret() -> Result<TokenSecret, InitError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| InitError::Randomness)?;
    Ok(TokenSecret::new(bytes))
}
