//! Join tokens and what they were redeemed for. Invariant: a token's use, the host or operator it makes and the certificate it
//! grants are written together or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_shared::ids::TokenId;
use coord_shared::tls::PeerKind;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::certificates::{INSERT_CERTIFICATE, NewCertificate};
use super::error::{CatalogError, Result};
use super::hosts::{INSERT_HOST, NewHost};
use super::operators::{GRANT, OperatorRole};
use super::pool::{Catalog, Sql};
use super::row::{digest, get, int, json, optional_word, seconds, small, to_json, word};

/// Wrong secrets that a token survives; one more and it is revoked.
pub const MAX_TOKEN_FAILURES: i32 = 5;

/// Maker of the tokens that come from the coordinator's own machine. No operator has this name, because it is no slug.
pub const MADE_LOCALLY: &str = "coordinator (local)";

/// What joins with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A host's agent.
    Agent,
    /// An operator.
    Operator,
}

/// Where a token is in its life, by the database's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// It can be used.
    Active,
    /// It was used as often as it may be.
    Used,
    /// Its time is over.
    Expired,
    /// Somebody ended it, or too many wrong secrets did.
    Revoked,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its public half.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
    /// What joins with it.
    pub kind: TokenKind,
    /// Labels for hosts that join with it.
    pub labels: BTreeMap<String, String>,
    /// The name that the host must get.
    pub host_name: Option<String>,
    /// The operator's name and role.
    pub operator: Option<(String, OperatorRole)>,
    /// How often it can still be used.
    pub uses_left: u32,
    /// Where it is in its life.
    pub state: TokenState,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A token about to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Its public half.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
    /// What joins with it.
    pub kind: TokenKind,
    /// Labels for hosts that join with it.
    pub labels: BTreeMap<String, String>,
    /// The name that the host must get.
    pub host_name: Option<String>,
    /// The operator's name and role: exactly for tokens of that kind.
    pub operator: Option<(String, OperatorRole)>,
    /// How often it can be used.
    pub uses: u32,
    /// Who makes it.
    pub created_by: String,
    /// How long it lives.
    pub lives: Duration,
}

/// What a key got for a token before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// The subject: host id or user name.
    pub subject: String,
    /// What it is.
    pub kind: PeerKind,
    /// Its certificate.
    pub serial: String,
    /// How long ago, by the database's clock.
    pub age: Duration,
}

/// What came of redeeming a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinOutcome {
    /// The subject and its certificate are in the catalog.
    Joined,
    /// The token could not be used any more: its state now.
    Refused(TokenState),
    /// The host's name is taken; or the operator's is, by somebody whom the token's maker cannot speak for.
    NameTaken,
}

impl TokenKind {
    /// Every kind, for the CHECK list.
    pub const ALL: [TokenKind; 2] = [TokenKind::Agent, TokenKind::Operator];

    /// The word in SQL and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            TokenKind::Agent => "agent",
            TokenKind::Operator => "operator",
        }
    }
}

impl TokenState {
    /// Every state.
    pub const ALL: [TokenState; 4] = [TokenState::Active, TokenState::Used, TokenState::Expired, TokenState::Revoked];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            TokenState::Active => "active",
            TokenState::Used => "used",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        }
    }
}

super::words::impl_word!(TokenKind, "kind of token");
super::words::impl_word!(TokenState, "state of a token");

macro_rules! select_tokens {
    ($tail:literal) => {
        concat!(
            "SELECT token_id, secret_sha256, kind, labels, host_name, operator_name, operator_role, uses_left, created_by,
                    created_at, expires_at,
                    CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
                         WHEN uses_left = 0 THEN 'used'
                         WHEN expires_at <= now() THEN 'expired'
                         ELSE 'active' END AS state
             FROM tokens ",
            $tail
        )
    };
}

const INSERT: Sql = Sql("
    INSERT INTO tokens (token_id, secret_sha256, kind, labels, host_name, operator_name, operator_role, uses_left,
        created_by, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + make_interval(secs => $10))
    ON CONFLICT (token_id) DO NOTHING");

const BY_ID: Sql = Sql(select_tokens!("WHERE token_id = $1"));

const BY_PREFIX: Sql = Sql(select_tokens!("WHERE token_id::text LIKE $1 || '%' LIMIT 10"));

const LIST: Sql = Sql(select_tokens!("ORDER BY created_at DESC, token_id LIMIT 1000"));

const LOCK: Sql = Sql(select_tokens!("WHERE token_id = $1 FOR UPDATE"));

const REVOKE: Sql = Sql("UPDATE tokens SET revoked_at = now() WHERE token_id = $1 AND revoked_at IS NULL");

const FAIL: Sql = Sql("
    UPDATE tokens SET failures = failures + 1,
        revoked_at = CASE WHEN failures + 1 >= $2 THEN coalesce(revoked_at, now()) ELSE revoked_at END
    WHERE token_id = $1");

const SPEND: Sql = Sql("UPDATE tokens SET uses_left = uses_left - 1 WHERE token_id = $1 AND uses_left > 0");

const REDEMPTION: Sql = Sql("
    SELECT subject_kind, subject_id, serial, extract(epoch FROM now() - redeemed_at)::double precision AS age_s
    FROM token_redemptions WHERE token_id = $1 AND public_key_sha256 = $2");

const REDEEM: Sql = Sql("
    INSERT INTO token_redemptions (token_id, public_key_sha256, subject_kind, subject_id, serial)
    VALUES ($1, $2, $3, $4, $5)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("INSERT", &INSERT),
    ("BY_ID", &BY_ID),
    ("BY_PREFIX", &BY_PREFIX),
    ("LIST", &LIST),
    ("LOCK", &LOCK),
    ("REVOKE", &REVOKE),
    ("FAIL", &FAIL),
    ("SPEND", &SPEND),
    ("REDEMPTION", &REDEMPTION),
    ("REDEEM", &REDEEM),
];

fn read(row: &Row) -> Result<TokenRecord> {
    let name: Option<String> = get(row, "operator_name")?;
    let role: Option<OperatorRole> = optional_word(row, "operator_role")?;
    Ok(TokenRecord {
        id: TokenId::from_uuid(get(row, "token_id")?),
        secret_sha256: digest(row, "secret_sha256")?,
        kind: word(row, "kind")?,
        labels: json(row, "labels")?,
        host_name: get(row, "host_name")?,
        operator: name.zip(role),
        uses_left: small(row, "uses_left")?,
        state: word(row, "state")?,
        created_by: get(row, "created_by")?,
        created_at: get(row, "created_at")?,
        expires_at: get(row, "expires_at")?,
    })
}

impl Catalog {
    /// Makes a token; repeated with the same id it changes nothing. Answers it as stored.
    pub async fn create_token(&self, token: &NewToken) -> Result<TokenRecord> {
        let (name, role) = match &token.operator {
            Some((name, role)) => (Some(name.as_str()), Some(role.as_str())),
            None => (None, None),
        };
        let (labels, uses, lives) = (to_json(&token.labels)?, int(token.uses, "uses")?, seconds(token.lives));
        let (id, secret) = (token.id.uuid(), token.secret_sha256.as_slice());
        let params: super::pool::Params<'_> = &[
            &id,
            &secret,
            &token.kind.as_str(),
            &labels,
            &token.host_name,
            &name,
            &role,
            &uses,
            &token.created_by,
            &lives,
        ];
        self.connection().await?.execute(&INSERT, params).await?;
        self.token(token.id).await?.ok_or_else(|| CatalogError::not_found("token", token.id))
    }

    /// A token by its id.
    pub async fn token(&self, id: TokenId) -> Result<Option<TokenRecord>> {
        self.connection().await?.query_opt(&BY_ID, &[&id.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// Tokens whose id begins with `prefix`, at most ten.
    pub async fn tokens_by_id_prefix(&self, prefix: &str) -> Result<Vec<TokenRecord>> {
        if !super::words::is_id_prefix(prefix) {
            return Ok(Vec::new());
        }
        self.connection().await?.query(&BY_PREFIX, &[&prefix]).await?.iter().map(read).collect()
    }

    /// The newest thousand tokens.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        self.connection().await?.query(&LIST, &[]).await?.iter().map(read).collect()
    }

    /// Ends a token.
    pub async fn revoke_token(&self, id: TokenId) -> Result<TokenRecord> {
        self.connection().await?.execute(&REVOKE, &[&id.uuid()]).await?;
        self.token(id).await?.ok_or_else(|| CatalogError::not_found("token", id))
    }

    /// Somebody came with a wrong secret: the [`MAX_TOKEN_FAILURES`]th ends the token.
    pub async fn record_token_failure(&self, id: TokenId) -> Result<()> {
        self.connection().await?.execute(&FAIL, &[&id.uuid(), &MAX_TOKEN_FAILURES]).await?;
        Ok(())
    }

    /// What this key got for this token before.
    pub async fn redemption(&self, id: TokenId, public_key_sha256: &[u8; 32]) -> Result<Option<Redemption>> {
        let key = public_key_sha256.as_slice();
        let Some(row) = self.connection().await?.query_opt(&REDEMPTION, &[&id.uuid(), &key]).await? else {
            return Ok(None);
        };
        let age_s: f64 = get(&row, "age_s")?;
        let kind: &str = get(&row, "subject_kind")?;
        Ok(Some(Redemption {
            subject: get(&row, "subject_id")?,
            kind: PeerKind::parse(kind).ok_or(CatalogError::not_found("kind of peer", kind))?,
            serial: get(&row, "serial")?,
            age: Duration::try_from_secs_f64(age_s).unwrap_or_default(),
        }))
    }

    /// Redeems a token for a new host and its first certificate, in one transaction.
    pub async fn join_host(&self, id: TokenId, host: &NewHost, certificate: &NewCertificate) -> Result<JoinOutcome> {
        let labels = to_json(&host.labels)?;
        let (facts, uuid) = (&host.facts, host.id.uuid());
        let params: super::pool::Params<'_> =
            &[&uuid, &host.name, &labels, &facts.hostname, &facts.operating_system, &facts.version];
        self.join(id, (&INSERT_HOST, params), certificate).await
    }

    /// Redeems a token for an operator and a certificate, in one transaction.
    pub async fn join_operator(
        &self,
        token: &TokenRecord,
        operator: (&str, OperatorRole),
        certificate: &NewCertificate,
    ) -> Result<JoinOutcome> {
        let (name, role) = (operator.0, operator.1.as_str());
        let maker = Some(token.created_by.as_str()).filter(|maker| *maker != MADE_LOCALLY);
        self.join(token.id, (&GRANT, &[&name, &role, &maker]), certificate).await
    }

    async fn join(
        &self,
        id: TokenId,
        subject: (&Sql, super::pool::Params<'_>),
        certificate: &NewCertificate,
    ) -> Result<JoinOutcome> {
        let generation = int(certificate.generation.get(), "generation")?;
        let key = certificate.public_key_sha256.as_slice();
        let kind = certificate.kind.as_str();
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        let token = transaction.query_opt(&LOCK, &[&id.uuid()]).await?;
        let token = read(&token.ok_or_else(|| CatalogError::not_found("token", id))?)?;
        if token.state != TokenState::Active {
            return Ok(JoinOutcome::Refused(token.state));
        }
        transaction.execute(&SPEND, &[&id.uuid()]).await?;
        match transaction.execute(subject.0, subject.1).await {
            Ok(0) | Err(CatalogError::Taken { .. }) => return Ok(JoinOutcome::NameTaken),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let params: super::pool::Params<'_> = &[
            &certificate.serial,
            &kind,
            &certificate.subject,
            &generation,
            &key,
            &certificate.pem,
            &certificate.not_after,
        ];
        transaction.execute(&INSERT_CERTIFICATE, params).await?;
        transaction.execute(&REDEEM, &[&id.uuid(), &key, &kind, &certificate.subject, &certificate.serial]).await?;
        transaction.commit().await?;
        Ok(JoinOutcome::Joined)
    }
}
