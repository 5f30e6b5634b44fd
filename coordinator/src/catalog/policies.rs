//! Policies and their versions. Invariant: a version is never changed; applying the same text again makes no new one. The jobs of
//! a policy follow in the same transaction.

use std::collections::BTreeMap;

use coord_shared::ids::{HostId, PolicyId, PolicyVersion};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::error::{CatalogError, Result};
use super::policy_defaults::{self, NewDefaults};
use super::pool::{Catalog, Params, Sql, Transaction};
use super::row::{big, count, get, word};

/// A policy at one of its versions.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRecord {
    /// Its id through all versions.
    pub id: PolicyId,
    /// Its slug.
    pub name: String,
    /// The version.
    pub version: PolicyVersion,
    /// The file as applied.
    pub toml: String,
    /// The same, parsed and with defaults filled in.
    pub spec: serde_json::Value,
    /// Who applied this version.
    pub applied_by: String,
    /// When.
    pub applied_at: Timestamp,
    /// What made this version.
    pub origin: VersionOrigin,
    /// The version that a rollback went back to.
    pub equals: Option<PolicyVersion>,
}

/// What made a version of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionOrigin {
    /// A file was applied.
    Applied,
    /// An older version was gone back to.
    RolledBack,
    /// The policy was deleted: from this version on it is for no host.
    Deleted,
}

impl VersionOrigin {
    /// Every origin, for the CHECK list.
    pub const ALL: [VersionOrigin; 3] = [VersionOrigin::Applied, VersionOrigin::RolledBack, VersionOrigin::Deleted];

    /// The word in SQL and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            VersionOrigin::Applied => "applied",
            VersionOrigin::RolledBack => "rolled_back",
            VersionOrigin::Deleted => "deleted",
        }
    }
}

super::words::impl_word!(VersionOrigin, "origin of a version");

impl PolicyRecord {
    /// Whether this version is the end of the policy.
    pub fn is_deleted(&self) -> bool {
        self.origin == VersionOrigin::Deleted
    }
}

/// A policy file about to be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPolicyVersion {
    /// The slug; a new one makes a new policy.
    pub name: String,
    /// The file.
    pub toml: String,
    /// The same, parsed and with defaults filled in.
    pub spec: serde_json::Value,
    /// Who applies it.
    pub applied_by: String,
    /// The hosts it selects now.
    pub hosts: Vec<HostId>,
    /// Jobs of hosts without one are made with these ids, which must be as many as `hosts`.
    pub new_job_ids: Vec<coord_shared::ids::JobId>,
    /// What makes the version.
    pub origin: VersionOrigin,
    /// The version that a rollback goes back to.
    pub equals: Option<PolicyVersion>,
    /// A version is made though the text is that of the newest: it is understood differently.
    pub renew: bool,
    /// Only while this is its version; `None`: whatever it is.
    pub expected: Option<PolicyVersion>,
}

/// What applying did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyChange {
    /// A new policy.
    Created,
    /// A new version.
    Updated,
    /// The same text as before.
    Unchanged,
    /// The policy's last version, for no host.
    Deleted,
}

/// What whoever writes policies has seen of them. What they write goes by that, so it is written only while it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenPolicies {
    /// The newest version of each policy, by name, of those that were deleted too.
    pub versions: BTreeMap<String, PolicyVersion>,
    /// The newest version of the fleet's defaults.
    pub defaults: Option<PolicyVersion>,
}

/// What came of applying policies.
#[derive(Debug, Clone, PartialEq)]
pub enum PoliciesApplied {
    /// Done, by name.
    Applied(Vec<AppliedPolicy>),
    /// Somebody else has changed this meanwhile: nothing was written.
    Changed(String),
}

/// A policy after applying it.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedPolicy {
    /// The policy at its newest version.
    pub policy: PolicyRecord,
    /// What was done.
    pub change: PolicyChange,
    /// Names of hosts whose job began, or began again.
    pub hosts_added: Vec<String>,
    /// Names of hosts whose job ended.
    pub hosts_removed: Vec<String>,
}

macro_rules! select_policies {
    ($on:literal, $tail:literal) => {
        concat!(
            "SELECT p.policy_id, p.name, v.version, v.toml, v.spec, v.applied_by, v.applied_at, v.origin, v.equals
             FROM policies p JOIN policy_versions v ON v.policy = p.policy AND v.version = ",
            $on,
            " ",
            $tail
        )
    };
}

const BY_ID: Sql = Sql(select_policies!("p.version", "WHERE p.policy_id = $1"));

const AT_VERSION: Sql = Sql(select_policies!("$2", "WHERE p.policy_id = $1"));

const BY_NAME: Sql = Sql(select_policies!("p.version", "WHERE p.name = $1"));

const LIVE: Sql = Sql(select_policies!("p.version", "WHERE v.origin <> 'deleted' ORDER BY p.name LIMIT 10000"));

const ALL: Sql = Sql(select_policies!("p.version", "ORDER BY p.name LIMIT 10000"));

const VERSIONS: Sql = Sql(select_policies!("v.version", "WHERE p.policy_id = $1 ORDER BY v.version DESC LIMIT $2"));

const LOCK: Sql = Sql("SELECT policy, version FROM policies WHERE name = $1 FOR UPDATE");

const NEWEST: Sql = Sql("SELECT name, version FROM policies");

const INSERT: Sql = Sql("
    INSERT INTO policies (policy_id, name, version) VALUES ($1, $2, 1)
    ON CONFLICT (name) DO NOTHING
    RETURNING policy");

const TEXT: Sql = Sql("SELECT toml, origin FROM policy_versions WHERE policy = $1 AND version = $2");

const INSERT_VERSION: Sql = Sql("
    INSERT INTO policy_versions (policy, version, toml, spec, applied_by, origin, equals)
    VALUES ($1, $2, $3, $4, $5, $6, $7)");

const RAISE: Sql = Sql("UPDATE policies SET version = $2 WHERE policy = $1");

const BEGIN_JOBS: Sql = Sql("
    INSERT INTO jobs AS j (job_id, host, policy)
    SELECT w.job_id, h.host, $1 FROM unnest($2::uuid[], $3::uuid[]) AS w (host_id, job_id)
    JOIN hosts h ON h.host_id = w.host_id
    ORDER BY h.host
    ON CONFLICT (host, policy) DO UPDATE SET state = 'active', backup_due_at = NULL, verify_due_at = NULL, owed_runs = 0,
            owed_from = NULL
        WHERE j.state = 'ended'
    RETURNING (SELECT h.name FROM hosts h WHERE h.host = j.host) AS name");

const END_JOBS: Sql = Sql("
    UPDATE jobs j SET state = 'ended', backup_due_at = NULL, verify_due_at = NULL
    FROM hosts h
    WHERE j.policy = $1 AND j.state = 'active' AND h.host = j.host AND h.host_id <> ALL ($2::uuid[])
    RETURNING h.name");

// Due instants are worked out again for the new version. What has come and was not seen yet is still due. What held back the runs
// that are owed may not do so any more: that is looked at at once.
const RESCHEDULE: Sql = Sql("
    UPDATE jobs SET backup_due_at = CASE WHEN backup_due_at <= now() THEN backup_due_at END,
        verify_due_at = CASE WHEN verify_due_at <= now() THEN verify_due_at END,
        owed_from = CASE WHEN owed_from IS NOT NULL THEN now() END
    WHERE policy = $1");

#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &Sql)] = &[
    ("BY_ID", &BY_ID),
    ("AT_VERSION", &AT_VERSION),
    ("BY_NAME", &BY_NAME),
    ("LIVE", &LIVE),
    ("ALL", &ALL),
    ("VERSIONS", &VERSIONS),
    ("LOCK", &LOCK),
    ("NEWEST", &NEWEST),
    ("INSERT", &INSERT),
    ("TEXT", &TEXT),
    ("INSERT_VERSION", &INSERT_VERSION),
    ("RAISE", &RAISE),
    ("BEGIN_JOBS", &BEGIN_JOBS),
    ("END_JOBS", &END_JOBS),
    ("RESCHEDULE", &RESCHEDULE),
];

fn read(row: &Row) -> Result<PolicyRecord> {
    Ok(PolicyRecord {
        id: PolicyId::from_uuid(get(row, "policy_id")?),
        name: get(row, "name")?,
        version: PolicyVersion(count(row, "version")?),
        toml: get(row, "toml")?,
        spec: get(row, "spec")?,
        applied_by: get(row, "applied_by")?,
        applied_at: get(row, "applied_at")?,
        origin: word(row, "origin")?,
        equals: version_of(get(row, "equals")?),
    })
}

fn version_of(number: Option<i64>) -> Option<PolicyVersion> {
    number.and_then(|number| u64::try_from(number).ok()).map(PolicyVersion)
}

fn names(rows: &[Row]) -> Result<Vec<String>> {
    let mut names = rows.iter().map(|row| get(row, "name")).collect::<Result<Vec<String>>>()?;
    names.sort();
    Ok(names)
}

impl Catalog {
    /// A policy at its newest version, by id.
    pub async fn policy(&self, id: PolicyId) -> Result<Option<PolicyRecord>> {
        self.connection().await?.query_opt(&BY_ID, &[&id.uuid()]).await?.as_ref().map(read).transpose()
    }

    /// A policy at one of its versions.
    pub async fn policy_at(&self, id: PolicyId, version: PolicyVersion) -> Result<Option<PolicyRecord>> {
        let version = big(version.get(), "policy version")?;
        let row = self.connection().await?.query_opt(&AT_VERSION, &[&id.uuid(), &version]).await?;
        row.as_ref().map(read).transpose()
    }

    /// A policy at its newest version, by name.
    pub async fn policy_by_name(&self, name: &str) -> Result<Option<PolicyRecord>> {
        self.connection().await?.query_opt(&BY_NAME, &[&name]).await?.as_ref().map(read).transpose()
    }

    /// All policies that were not deleted, at their newest versions, by name.
    pub async fn policies(&self) -> Result<Vec<PolicyRecord>> {
        self.connection().await?.query(&LIVE, &[]).await?.iter().map(read).collect()
    }

    /// The same with those that were deleted.
    pub async fn policies_ever(&self) -> Result<Vec<PolicyRecord>> {
        self.connection().await?.query(&ALL, &[]).await?.iter().map(read).collect()
    }

    /// The newest versions of a policy, at most `limit`, newest first.
    pub async fn policy_versions(&self, id: PolicyId, limit: u32) -> Result<Vec<PolicyRecord>> {
        let limit = i64::from(limit);
        self.connection().await?.query(&VERSIONS, &[&id.uuid(), &limit]).await?.iter().map(read).collect()
    }

    /// Applies one policy file to what is there, as [`Catalog::apply_policies`] does.
    #[cfg(test)]
    pub(crate) async fn apply_policy(&self, new: &NewPolicyVersion) -> Result<AppliedPolicy> {
        let seen = SeenPolicies {
            versions: self.policies_ever().await?.into_iter().map(|record| (record.name, record.version)).collect(),
            defaults: self.policy_defaults().await?.map(|record| record.version),
        };
        match self.apply_policies(std::slice::from_ref(new), &seen, None).await? {
            PoliciesApplied::Applied(mut applied) => Ok(applied.remove(0)),
            PoliciesApplied::Changed(what) => Err(CatalogError::not_found("unchanged", what)),
        }
    }

    /// Applies policy files in one transaction: makes each policy or its next version, begins and ends jobs. The same text changes no
    /// version, and jobs follow the hosts given all the same. A deleted policy comes back by a rollback only. Answers by name. New defaults, if any, are written in the same transaction.
    ///
    /// Nothing is written unless each of these policies and the defaults are as they were `seen`; with new defaults, which say what every
    /// policy becomes, unless all policies are.
    pub async fn apply_policies(
        &self,
        new: &[NewPolicyVersion],
        seen: &SeenPolicies,
        defaults: Option<&NewDefaults>,
    ) -> Result<PoliciesApplied> {
        // Rows are locked in one order, so that two of these wait for each other instead of failing.
        let mut new: Vec<&NewPolicyVersion> = new.iter().collect();
        new.sort_by(|one, other| one.name.cmp(&other.name));
        let mut connection = self.connection().await?;
        let transaction = connection.begin().await?;
        if policy_defaults::lock(&transaction, defaults.is_some()).await? != seen.defaults {
            return Ok(PoliciesApplied::Changed("the fleet's defaults".to_owned()));
        }
        if let Some(defaults) = defaults {
            if let Some(name) = changed_since(&transaction, seen).await? {
                return Ok(PoliciesApplied::Changed(format!("policy {name}")));
            }
            policy_defaults::insert(&transaction, defaults).await?;
        }
        let mut applied = Vec::with_capacity(new.len());
        for new in new {
            match apply(&transaction, new, seen.versions.get(&new.name).copied()).await? {
                Some(done) => applied.push(done),
                None => return Ok(PoliciesApplied::Changed(format!("policy {}", new.name))),
            }
        }
        transaction.commit().await?;
        Ok(PoliciesApplied::Applied(applied))
    }
}

/// A policy whose newest version is not the one that was seen, if there is one.
async fn changed_since(transaction: &Transaction<'_>, seen: &SeenPolicies) -> Result<Option<String>> {
    for row in transaction.query(&NEWEST, &[]).await? {
        let (name, version): (String, _) = (get(&row, "name")?, PolicyVersion(count(&row, "version")?));
        if seen.versions.get(&name) != Some(&version) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// `None`: its newest version is not the one that was seen.
async fn apply(
    transaction: &Transaction<'_>,
    new: &NewPolicyVersion,
    seen: Option<PolicyVersion>,
) -> Result<Option<AppliedPolicy>> {
    let hosts: Vec<Uuid> = new.hosts.iter().map(|id| id.uuid()).collect();
    let jobs: Vec<Uuid> = new.new_job_ids.iter().map(|id| id.uuid()).collect();
    if hosts.len() != jobs.len() {
        return Err(CatalogError::OutOfRange { what: "the number of new job ids" });
    }
    let Some((policy, version, change)) = next_version(transaction, new, seen).await? else { return Ok(None) };
    if change != PolicyChange::Unchanged {
        let equals = new.equals.map(|version| big(version.get(), "policy version")).transpose()?;
        let origin = new.origin.as_str();
        let params: Params<'_> = &[&policy, &version, &new.toml, &new.spec, &new.applied_by, &origin, &equals];
        transaction.execute(&INSERT_VERSION, params).await?;
        transaction.execute(&RAISE, &[&policy, &version]).await?;
        transaction.execute(&RESCHEDULE, &[&policy]).await?;
    }
    let removed = transaction.query(&END_JOBS, &[&policy, &hosts]).await?;
    let added = transaction.query(&BEGIN_JOBS, &[&policy, &hosts, &jobs]).await?;
    let row = transaction.query_opt(&BY_NAME, &[&new.name]).await?;
    let policy = read(&row.ok_or_else(|| CatalogError::not_found("policy", &new.name))?)?;
    Ok(Some(AppliedPolicy { policy, change, hosts_added: names(&added)?, hosts_removed: names(&removed)? }))
}

/// The policy's key, the version that it has afterwards, and what that is. `None`: its newest version is not the one that was seen.
async fn next_version(
    transaction: &Transaction<'_>,
    new: &NewPolicyVersion,
    seen: Option<PolicyVersion>,
) -> Result<Option<(i32, i64, PolicyChange)>> {
    if new.origin == VersionOrigin::Applied
        && new.expected.is_none()
        && let Some(row) = transaction.query_opt(&INSERT, &[&Uuid::new_v4(), &new.name]).await?
    {
        return Ok(Some((get(&row, "policy")?, 1, PolicyChange::Created)));
    }
    let gone = || CatalogError::not_found("policy", &new.name);
    let row = transaction.query_opt(&LOCK, &[&new.name]).await?.ok_or_else(gone)?;
    let (policy, version): (i32, i64) = (get(&row, "policy")?, get(&row, "version")?);
    if let Some(expected) = new.expected
        && big(expected.get(), "policy version")? != version
    {
        let (name, expected) = (new.name.clone(), expected.get());
        return Err(CatalogError::Changed { what: "policy", name, version: version.cast_unsigned(), expected });
    }
    if seen.map(|seen| big(seen.get(), "policy version")).transpose()? != Some(version) {
        return Ok(None);
    }
    let row = transaction.query_opt(&TEXT, &[&policy, &version]).await?.ok_or_else(gone)?;
    let was_deleted = word::<VersionOrigin>(&row, "origin")? == VersionOrigin::Deleted;
    let same = get::<&str>(&row, "toml")? == new.toml && !new.renew;
    match (new.origin, was_deleted) {
        (VersionOrigin::Applied, true) => Err(gone()),
        (VersionOrigin::Deleted, true) => Ok(Some((policy, version, PolicyChange::Unchanged))),
        (VersionOrigin::Deleted, false) => Ok(Some((policy, version + 1, PolicyChange::Deleted))),
        (VersionOrigin::Applied | VersionOrigin::RolledBack, false) if same => {
            Ok(Some((policy, version, PolicyChange::Unchanged)))
        }
        (VersionOrigin::Applied | VersionOrigin::RolledBack, _) => {
            Ok(Some((policy, version + 1, PolicyChange::Updated)))
        }
    }
}
