//! The allow-list: a certificate without an active row here does not count, whoever signed it.

use std::collections::HashSet;

use coord_shared::ids::{Generation, HostId};
use coord_shared::tls::PeerKind;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::pool::{Catalog, Sql};
use super::row::{digest, get, int, small, word};

/// Whether a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateState {
    /// It does.
    Active,
    /// One of a later generation was used.
    Replaced,
    /// Somebody ended it.
    Revoked,
}

/// A row of the allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Hexadecimal.
    pub serial: String,
    /// What the holder is.
    pub kind: PeerKind,
    /// Host id, user name or coordinator id.
    pub subject: String,
    /// From 1, one more at each renewal.
    pub generation: Generation,
    /// SHA-256 of the public key.
    pub public_key_sha256: [u8; 32],
    /// Whether it counts.
    pub state: CertificateState,
    /// The certificate.
    pub pem: String,
    /// End of validity.
    pub not_after: Timestamp,
    /// First call made with it.
    pub first_used_at: Option<Timestamp>,
}

/// A certificate about to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// Hexadecimal.
    pub serial: String,
    /// What the holder is.
    pub kind: PeerKind,
    /// Host id, user name or coordinator id.
    pub subject: String,
    /// Unique for the subject.
    pub generation: Generation,
    /// SHA-256 of the public key; unique for the subject.
    pub public_key_sha256: [u8; 32],
    /// The certificate.
    pub pem: String,
    /// End of validity.
    pub not_after: Timestamp,
}

/// What the first use of a certificate does to older generations of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OlderGenerations {
    /// They end: agents and coordinators have one certificate at a time.
    End,
    /// They stay: an operator may have several machines.
    Keep,
}

impl CertificateState {
    /// Every state, for the CHECK list.
    pub const ALL: [CertificateState; 3] =
        [CertificateState::Active, CertificateState::Replaced, CertificateState::Revoked];

    /// The word in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            CertificateState::Active => "active",
            CertificateState::Replaced => "replaced",
            CertificateState::Revoked => "revoked",
        }
    }
}

super::words::impl_word!(CertificateState, "state of a certificate");

macro_rules! select_certificates {
    ($tail:literal) => {
        concat!(
            "SELECT serial, subject_kind, subject_id, generation, public_key_sha256, state, pem, not_after, first_used_at
             FROM certificates ",
            $tail
        )
    };
}

pub(super) const BY_SERIAL: Sql = Sql(select_certificates!("WHERE serial = $1"));

const BY_KEY: Sql = Sql(select_certificates!("WHERE subject_kind = $1 AND subject_id = $2 AND public_key_sha256 = $3"));

const NEWEST: Sql =
    Sql(select_certificates!("WHERE subject_kind = $1 AND subject_id = $2 ORDER BY generation DESC LIMIT 1"));

const NEWEST_USED: Sql = Sql(select_certificates!(
    "WHERE subject_kind = $1 AND subject_id = $2 AND first_used_at IS NOT NULL ORDER BY generation DESC LIMIT 1"
));

// Through the keys of both tables: most of them count, and each of them is looked at.
pub(super) const FALLEN: Sql = Sql("
    SELECT s.serial FROM unnest($1::text[], $2::uuid[]) AS s (serial, host_id)
    LEFT JOIN certificates c ON c.serial = s.serial
    LEFT JOIN hosts h ON h.host_id = s.host_id
    WHERE (c.state = 'active' AND h.state = 'active') IS NOT TRUE");

pub(super) const INSERT_CERTIFICATE: Sql = Sql("
    INSERT INTO certificates (serial, subject_kind, subject_id, generation, public_key_sha256, pem, not_after)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (serial) DO NOTHING");

const USE: Sql = Sql("
    UPDATE certificates SET first_used_at = now() WHERE serial = $1 AND state = 'active' AND first_used_at IS NULL");

const END_OLDER: Sql = Sql("
    UPDATE certificates old SET state = 'replaced'
    FROM certificates used
    WHERE used.serial = $1 AND used.state = 'active' AND old.subject_kind = used.subject_kind
      AND old.subject_id = used.subject_id AND old.generation < used.generation AND old.state = 'active'");

pub(super) const REVOKE: Sql = Sql("
    UPDATE certificates SET state = 'revoked' WHERE subject_kind = $1 AND subject_id = $2 AND state <> 'revoked'");

const FORGET_OLD: Sql = Sql("
    DELETE FROM certificates c WHERE c.not_after < now() - INTERVAL '90 days'
      AND NOT EXISTS (SELECT FROM token_redemptions r WHERE r.serial = c.serial)
      AND EXISTS (SELECT FROM certificates n WHERE n.subject_kind = c.subject_kind AND n.subject_id = c.subject_id
                  AND n.generation > c.generation)");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BY_SERIAL", &BY_SERIAL),
    ("BY_KEY", &BY_KEY),
    ("NEWEST", &NEWEST),
    ("NEWEST_USED", &NEWEST_USED),
    ("FALLEN", &FALLEN),
    ("INSERT_CERTIFICATE", &INSERT_CERTIFICATE),
    ("USE", &USE),
    ("END_OLDER", &END_OLDER),
    ("REVOKE", &REVOKE),
    ("FORGET_OLD", &FORGET_OLD),
];

fn read(row: &Row) -> Result<CertificateRecord> {
    let kind: &str = get(row, "subject_kind")?;
    let kind = PeerKind::parse(kind).ok_or_else(|| CatalogError::Unreadable {
        column: "subject_kind",
        source: Box::new(super::words::UnknownWord { what: "kind of peer", text: kind.escape_debug().to_string() }),
    })?;
    Ok(CertificateRecord {
        serial: get(row, "serial")?,
        kind,
        subject: get(row, "subject_id")?,
        generation: Generation(small(row, "generation")?),
        public_key_sha256: digest(row, "public_key_sha256")?,
        state: word(row, "state")?,
        pem: get(row, "pem")?,
        not_after: get(row, "not_after")?,
        first_used_at: get(row, "first_used_at")?,
    })
}

impl Catalog {
    /// Of these certificates, each shown by an open session of its host, those that do not count any more, or whose host does not; by serial.
    pub async fn fallen_certificates(&self, shown: &[(&str, HostId)]) -> Result<HashSet<String>> {
        let serials: Vec<&str> = shown.iter().map(|(serial, _)| *serial).collect();
        let hosts: Vec<Uuid> = shown.iter().map(|(_, host)| host.uuid()).collect();
        let rows = self.connection().await?.query(&FALLEN, &[&serials, &hosts]).await?;
        rows.iter().map(|row| get(row, "serial")).collect()
    }

    /// The allow-list's row of a certificate.
    pub async fn certificate(&self, serial: &str) -> Result<Option<CertificateRecord>> {
        self.connection().await?.query_opt(&BY_SERIAL, &[&serial]).await?.as_ref().map(read).transpose()
    }

    /// The certificate that a subject already has for this key.
    pub async fn certificate_for_key(
        &self,
        kind: PeerKind,
        subject: &str,
        public_key_sha256: &[u8; 32],
    ) -> Result<Option<CertificateRecord>> {
        let key = public_key_sha256.as_slice();
        let row = self.connection().await?.query_opt(&BY_KEY, &[&kind.as_str(), &subject, &key]).await?;
        row.as_ref().map(read).transpose()
    }

    /// The subject's certificate of the newest generation, used or not.
    pub async fn newest_certificate(&self, kind: PeerKind, subject: &str) -> Result<Option<CertificateRecord>> {
        let row = self.connection().await?.query_opt(&NEWEST, &[&kind.as_str(), &subject]).await?;
        row.as_ref().map(read).transpose()
    }

    /// The subject's certificate of the newest generation with which a call was ever made.
    pub async fn newest_used_certificate(&self, kind: PeerKind, subject: &str) -> Result<Option<CertificateRecord>> {
        let row = self.connection().await?.query_opt(&NEWEST_USED, &[&kind.as_str(), &subject]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Allows a certificate. Repeated with the same serial it changes nothing; another with the same generation or key of the
    /// subject is [`CatalogError::Taken`]: somebody renewed meanwhile, read again.
    pub async fn insert_certificate(&self, new: &NewCertificate) -> Result<()> {
        let generation = int(new.generation.get(), "generation")?;
        let key = new.public_key_sha256.as_slice();
        self.connection()
            .await?
            .execute(
                &INSERT_CERTIFICATE,
                &[&new.serial, &new.kind.as_str(), &new.subject, &generation, &key, &new.pem, &new.not_after],
            )
            .await?;
        Ok(())
    }

    /// A call was made with this certificate. Ends the older generations if asked; repeated, it changes nothing.
    pub async fn record_certificate_use(&self, serial: &str, older: OlderGenerations) -> Result<()> {
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        transaction.execute(&USE, &[&serial]).await?;
        match older {
            OlderGenerations::End => {
                transaction.execute(&END_OLDER, &[&serial]).await?;
            }
            OlderGenerations::Keep => {}
        }
        transaction.commit().await
    }

    /// Ends every certificate of a subject; answers how many.
    pub async fn revoke_certificates(&self, kind: PeerKind, subject: &str) -> Result<u64> {
        self.connection().await?.execute(&REVOKE, &[&kind.as_str(), &subject]).await
    }

    /// Forgets certificates that ended 90 days ago and have a successor; answers how many.
    pub async fn forget_old_certificates(&self) -> Result<u64> {
        self.connection().await?.execute(&FORGET_OLD, &[]).await
    }
}
