//! What a change of policies does to the fleet: which keys differ, whom each policy is for then, and what becomes of the backups of
//! hosts that it is for no longer. Told in the same words before a change is made and after it. Applying files, going back to an
//! older version and deleting are such changes; each makes one list of them, and all of a list happen together.
//!
//! Invariant: nothing here deletes a backup. A job whose policy does not select its host any more ends; it keeps its backups, which are
//! listed and restored from as before.

use std::collections::{BTreeMap, BTreeSet};

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{HostId, JobId, PolicyVersion};
use coord_shared::selector::Selector;
use coord_shared::tls::PeerKind;
use coord_shared::wire::to_us;
use jiff::Timestamp;

use super::jobs::readable;
use super::policy_refusal::in_file;
use super::policy_warnings::warnings;
use super::{App, forced_fulls, policies, policy_digest};
use crate::catalog::{
    AppliedPolicy, DefaultsRecord, Host, HostState, Job, JobFilter, JobState, NewAudit, NewDefaults, NewPolicyVersion,
    PoliciesApplied, PolicyChange, PolicyRecord, SeenPolicies, VersionOrigin,
};
use crate::domain::policy::{Defaults, Finding, KeyChange, Policy, changes};
use crate::domain::timing::Due;

/// One policy that becomes another, begins or ends.
#[derive(Debug, Clone)]
pub struct Change {
    /// The policy's name.
    pub name: String,
    /// What it says from now on; `None`: it ends.
    pub policy: Option<Policy>,
    /// The file.
    pub toml: String,
    /// What is stored of it.
    pub spec: serde_json::Value,
    /// What makes the version.
    pub origin: VersionOrigin,
    /// The version that a rollback goes back to.
    pub equals: Option<PolicyVersion>,
    /// The version that it changes; `None`: whatever it is.
    pub expected: Option<PolicyVersion>,
}

impl Change {
    /// A file that is applied.
    ///
    /// # Errors
    /// The policy cannot be written as JSON: a defect.
    pub fn applying(policy: Policy, toml: String) -> Result<Change, Fault> {
        Ok(Change {
            name: policy.name.to_string(),
            spec: stored(&policy)?,
            policy: Some(policy),
            toml,
            origin: VersionOrigin::Applied,
            equals: None,
            expected: None,
        })
    }

    /// The end of a policy. What its last version said is kept, for no host.
    pub fn deleting(record: &PolicyRecord) -> Change {
        let mut spec = record.spec.clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("hosts".to_owned(), Selector::nothing().to_string().into());
        }
        Change {
            name: record.name.clone(),
            policy: None,
            toml: record.toml.clone(),
            spec,
            origin: VersionOrigin::Deleted,
            equals: None,
            expected: None,
        }
    }

    /// The hosts that the policy is for afterwards.
    fn hosts<'a>(&self, hosts: &'a [Host]) -> Vec<&'a Host> {
        self.policy.as_ref().map(|policy| selected(policy, hosts)).unwrap_or_default()
    }
}

/// A policy as it is stored.
pub(super) fn stored(policy: &Policy) -> Result<serde_json::Value, Fault> {
    serde_json::to_value(policy).map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))
}

/// The hosts that a policy is for.
pub(super) fn selected<'a>(policy: &Policy, hosts: &'a [Host]) -> Vec<&'a Host> {
    hosts.iter().filter(|host| host.state == HostState::Active && policy.hosts.matches(&host.labels)).collect()
}

/// The fleet as a change meets it.
#[derive(Debug)]
pub struct Before {
    /// Every host.
    pub hosts: Vec<Host>,
    /// Every policy, with those that were deleted.
    pub records: Vec<PolicyRecord>,
    /// The fleet's defaults, if there are any.
    pub defaults: Option<DefaultsRecord>,
    jobs: Vec<Job>,
    now: Timestamp,
}

impl Before {
    /// Reads it.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn read(app: &App) -> Result<Before, Fault> {
        let jobs = app.catalog.jobs(JobFilter { state: Some(JobState::Active), ..JobFilter::default() }).await?;
        let (hosts, records) = (app.catalog.hosts().await?, app.catalog.policies_ever().await?);
        let defaults = app.catalog.policy_defaults().await?;
        Ok(Before { hosts, records, defaults, jobs, now: app.catalog.now().await? })
    }

    /// The versions that it has.
    fn seen(&self) -> SeenPolicies {
        SeenPolicies {
            versions: self.records.iter().map(|record| (record.name.clone(), record.version)).collect(),
            defaults: self.defaults.as_ref().map(|record| record.version),
        }
    }

    /// The fleet's defaults as policies are read over them.
    ///
    /// # Errors
    /// `internal` where this version cannot read what another one stored.
    pub fn defaults(&self) -> Result<Defaults, Fault> {
        defaults_of(self.defaults.as_ref())
    }

    /// A policy of this name, also one that was deleted.
    pub fn record(&self, name: &str) -> Option<&PolicyRecord> {
        self.records.iter().find(|record| record.name == name)
    }

    /// What a policy says now; nothing when it is not there any more, or does not read.
    fn present(&self, app: &App, name: &str) -> Option<Policy> {
        self.record(name).filter(|record| !record.is_deleted()).and_then(|record| readable(app, record))
    }

    /// The policies that there will be, by name.
    pub fn afterwards(&self, app: &App, changes: &[Change]) -> BTreeMap<String, Policy> {
        let live = self.records.iter().filter(|record| !record.is_deleted());
        let mut policies: BTreeMap<String, Policy> =
            live.filter_map(|record| Some((record.name.clone(), readable(app, record)?))).collect();
        for change in changes {
            match &change.policy {
                Some(policy) => drop(policies.insert(change.name.clone(), policy.clone())),
                None => drop(policies.remove(&change.name)),
            }
        }
        policies
    }

    /// Whether the change makes a version though the text stays: it is understood differently, or what is stored does not read.
    pub fn renews(&self, app: &App, change: &Change) -> bool {
        change.policy.is_some() && self.present(app, &change.name) != change.policy
    }
}

/// The fleet's defaults as policies are read over them; without any, nothing is said.
///
/// # Errors
/// `internal` where this version cannot read what another one stored.
pub fn defaults_of(record: Option<&DefaultsRecord>) -> Result<Defaults, Fault> {
    let Some(record) = record else { return Ok(Defaults::default()) };
    Defaults::parse(&record.toml).map_err(|findings| {
        let why = findings.into_iter().next().map(|finding| finding.message).unwrap_or_default();
        let message = format!("version {} of the fleet's defaults cannot be read: {why}", record.version);
        Fault::new(ErrorCode::Internal, message).with_hint("coordctl policy apply -f FILE writes them anew")
    })
}

/// Hosts on which the overrides of a policy make none together. No change is made that has any: nothing would be backed up there.
pub fn impossible_hosts(before: &Before, changes: &[Change]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in changes.iter().filter_map(|change| change.policy.as_ref()).filter(|policy| policy.has_overrides()) {
        for host in selected(policy, &before.hosts) {
            if let Err(found) = policy.for_host(&host.name, &host.labels) {
                findings.extend(in_file(&format!("the overrides of policy {} on {}", policy.name, host.name), found));
            }
        }
    }
    findings
}

/// Changes that happen together, and the fleet as they meet it.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The fleet.
    pub before: &'a Before,
    /// What becomes of policies.
    pub changes: &'a [Change],
    /// What the fleet's defaults become, if they change.
    pub defaults: Option<&'a NewDefaults>,
}

/// What a plan would do, by name, and the digest that holds a request to it. Nothing is changed.
///
/// # Errors
/// Those of the catalog.
pub async fn preview(app: &App, plan: &Plan<'_>) -> Result<(Vec<api::AppliedPolicy>, String), Fault> {
    let afterwards = plan.before.afterwards(app, plan.changes);
    let mut told = Vec::with_capacity(plan.changes.len());
    for change in plan.changes {
        told.push(effect(app, plan.before, &afterwards, change).await?);
    }
    told.sort_by_key(|one| one.policy.as_ref().map(|policy| policy.name.clone()));
    let digest = policy_digest::digest(plan, &told)?;
    Ok((told, digest))
}

/// Makes the change of one policy, or with `dry_run` says what it would do.
///
/// # Errors
/// As for [`make`].
pub async fn make_one(
    app: &App,
    user: &str,
    plan: &Plan<'_>,
    (dry_run, as_told): (bool, &str),
) -> Result<api::AppliedPolicy, Fault> {
    let (mut told, plan_digest) =
        if dry_run { preview(app, plan).await? } else { (make(app, user, plan, as_told).await?, String::new()) };
    let one = told.pop().ok_or_else(|| Fault::new(ErrorCode::Internal, "a change of a policy left nothing to tell"))?;
    Ok(api::AppliedPolicy { plan_digest, ..one })
}

async fn effect(
    app: &App,
    before: &Before,
    afterwards: &BTreeMap<String, Policy>,
    change: &Change,
) -> Result<api::AppliedPolicy, Fault> {
    let record = before.record(&change.name);
    let word = match (record, &change.policy) {
        (None, _) => PolicyChange::Created,
        (Some(_), None) => PolicyChange::Deleted,
        (Some(record), Some(_)) if record.toml == change.toml && !before.renews(app, change) => PolicyChange::Unchanged,
        (Some(_), Some(_)) => PolicyChange::Updated,
    };
    let wanted: BTreeSet<String> = change.hosts(&before.hosts).iter().map(|host| host.name.clone()).collect();
    let jobs: Vec<&Job> =
        before.jobs.iter().filter(|job| record.is_some_and(|record| record.id == job.policy)).collect();
    let had: BTreeSet<String> = jobs.iter().map(|job| job.host_name.clone()).collect();
    let version = match (record, word) {
        (None, _) => PolicyVersion(1),
        (Some(record), PolicyChange::Unchanged) => record.version,
        (Some(record), PolicyChange::Created | PolicyChange::Updated | PolicyChange::Deleted) => record.version.next(),
    };
    let mut warnings = match &change.policy {
        Some(policy) => warnings(app, policy, &before.hosts, afterwards).await?,
        None => Vec::new(),
    };
    if let (Some(record), Some(policy), PolicyChange::Updated) = (record, &change.policy, word) {
        warnings.extend(forced_fulls::by_policy(app, record.id, policy, &change.hosts(&before.hosts)).await?);
    }
    let next_due_at = change.policy.as_ref().and_then(|policy| Due::of_policy(policy).next_run_after(before.now));
    Ok(api::AppliedPolicy {
        policy: Some(api::Policy {
            id: record.map(|record| record.id.to_string()).unwrap_or_default(),
            name: change.name.clone(),
            version: version.get(),
            toml: change.toml.clone(),
            hosts: wanted.iter().cloned().collect(),
            next_due_at_us: next_due_at.map_or(0, to_us),
            state: policies::state(change.policy.is_none()).to_owned(),
            ..api::Policy::default()
        }),
        change: as_word(word).to_owned(),
        hosts_added: wanted.difference(&had).cloned().collect(),
        hosts_removed: had.difference(&wanted).cloned().collect(),
        warnings: warnings.iter().map(encode).collect(),
        from_version: record.map_or(0, |record| record.version.get()),
        keys: changes(before.present(app, &change.name).as_ref(), change.policy.as_ref())
            .into_iter()
            .map(encode_key)
            .collect(),
        leaving: jobs
            .into_iter()
            .filter(|job| !wanted.contains(&job.host_name))
            .map(|job| leaving(before, afterwards, job))
            .collect(),
        weeks: Vec::new(),
        weeks_left_out: 0,
        plan_digest: String::new(),
    })
}

/// What becomes of a job that ends: its backups stay.
fn leaving(before: &Before, afterwards: &BTreeMap<String, Policy>, job: &Job) -> api::LeavingHost {
    let host = before.hosts.iter().find(|host| host.id == job.host && host.state == HostState::Active);
    let goes_on = |policy: &&Policy| {
        policy.name.as_str() != job.policy_name && host.is_some_and(|host| policy.hosts.matches(&host.labels))
    };
    api::LeavingHost {
        host: job.host_name.clone(),
        backups: job.backups,
        stored_bytes: job.stored_bytes,
        other_policies: afterwards.values().filter(goes_on).map(|policy| policy.name.to_string()).collect(),
    }
}

/// Somebody else was faster: what was worked out does not hold any more.
fn changed_meanwhile(what: &str) -> Fault {
    let message = format!("{what} was changed by somebody else at the same moment: nothing was applied");
    Fault::new(ErrorCode::Changed, message)
        .with_hint("coordctl policy diff -f FILE says what it would change now; then apply it again")
}

/// Carries out a plan, all of it or nothing, and tells what was done, by name. With a digest, only what was told with it.
///
/// # Errors
/// `changed` where somebody else has changed what this goes by, or it is not what was told any more, and those of the catalog; nothing was
/// changed then.
pub async fn make(app: &App, user: &str, plan: &Plan<'_>, as_told: &str) -> Result<Vec<api::AppliedPolicy>, Fault> {
    let (told, digest) = preview(app, plan).await?;
    if !as_told.is_empty() && as_told != digest {
        return Err(policy_digest::not_as_told(plan));
    }
    let Plan { before, changes, defaults } = plan;
    let new: Vec<NewPolicyVersion> = changes.iter().map(|change| version(app, user, before, change)).collect();
    // The digest holds for what was read; that this is still so is looked at where it is written.
    let applied = match app.catalog.apply_policies(&new, &before.seen(), *defaults).await? {
        PoliciesApplied::Applied(applied) => applied,
        PoliciesApplied::Changed(what) => return Err(changed_meanwhile(&what)),
    };
    app.nudges.scheduler.notify_one();
    app.nudges.full_planner.notify_one();
    app.nudges.plan_sender.notify_one();
    let mut answers = Vec::with_capacity(applied.len());
    for (done, told) in applied.into_iter().zip(told) {
        record_deed(app, user, &done).await?;
        answers.push(api::AppliedPolicy {
            policy: Some(policies::with_hosts(app, &done.policy).await?),
            change: as_word(done.change).to_owned(),
            hosts_added: done.hosts_added,
            hosts_removed: done.hosts_removed,
            ..told
        });
    }
    Ok(answers)
}

fn version(app: &App, user: &str, before: &Before, change: &Change) -> NewPolicyVersion {
    let hosts: Vec<HostId> = change.hosts(&before.hosts).iter().map(|host| host.id).collect();
    NewPolicyVersion {
        name: change.name.clone(),
        toml: change.toml.clone(),
        spec: change.spec.clone(),
        applied_by: user.to_owned(),
        new_job_ids: hosts.iter().map(|_| JobId::random()).collect(),
        hosts,
        origin: change.origin,
        equals: change.equals,
        renew: before.renews(app, change),
        expected: change.expected,
    }
}

async fn record_deed(app: &App, user: &str, done: &AppliedPolicy) -> Result<(), Fault> {
    let action = match done.policy.origin {
        VersionOrigin::Applied => "policy_applied",
        VersionOrigin::RolledBack => "policy_rolled_back",
        VersionOrigin::Deleted => "policy_deleted",
    };
    let subject = done.policy.id.to_string();
    let details = serde_json::json!({
        "name": done.policy.name,
        "version": done.policy.version,
        "hosts_added": done.hosts_added,
        "hosts_removed": done.hosts_removed,
    });
    let deed = NewAudit { actor_kind: PeerKind::Operator, actor: user, action, subject: &subject, details };
    Ok(app.catalog.record_audit(&deed).await?)
}

const fn as_word(change: PolicyChange) -> &'static str {
    match change {
        PolicyChange::Created => "created",
        PolicyChange::Updated => "updated",
        PolicyChange::Unchanged => "unchanged",
        PolicyChange::Deleted => "deleted",
    }
}

/// A finding on the wire.
pub(super) fn encode(finding: &Finding) -> api::PolicyFinding {
    api::PolicyFinding { key: finding.key.clone(), message: finding.message.clone(), hint: finding.hint.clone() }
}

/// A key that differs, on the wire.
pub(super) fn encode_key(change: KeyChange) -> api::KeyChange {
    api::KeyChange { key: change.key, was: change.was, becomes: change.becomes }
}
