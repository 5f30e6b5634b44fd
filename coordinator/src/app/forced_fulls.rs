//! The fulls that another selection forces: a differential stands on a full of the same selection only, so a line of `exclude` may make
//! every host of a policy read and store everything again. Told before, with how much that is.

use std::collections::HashMap;

use coord_shared::fault::Fault;
use coord_shared::ids::{PolicyId, PolicyVersion};

use super::App;
use super::host_policies::HostPolicies;
use super::known_policies::{self, Known};
use crate::catalog::{Host, MeasureFilter, NewestChain};
use crate::domain::decision::bytes_text;
use crate::domain::policy::{Finding, Policy};

/// The fulls that a policy forces on these hosts once it says this.
///
/// # Errors
/// Those of the catalog.
pub async fn by_policy(app: &App, id: PolicyId, policy: &Policy, chosen: &[&Host]) -> Result<Option<Finding>, Fault> {
    let hosts: HashMap<_, _> = chosen.iter().map(|host| (host.id, *host)).collect();
    let mut versions: HashMap<PolicyVersion, Option<Known>> = HashMap::new();
    let mut forced = Forced::default();
    for chain in app.catalog.newest_chains(MeasureFilter { policy: Some(id), ..MeasureFilter::default() }).await? {
        let Some((host, (_, version))) = hosts.get(&chain.host).zip(chain.full.as_ref()) else { continue };
        if !versions.contains_key(version) {
            versions.insert(*version, known_policies::read(app, id, *version).await?);
        }
        // What cannot be compared is another selection: the next backup is a full.
        let is_same = match versions.get(version) {
            Some(Some(Known::Policy(then))) => is_same((then, host), (policy, host)),
            Some(Some(Known::Unreadable(_)) | None) | None => false,
        };
        if !is_same {
            forced.add(&chain);
        }
    }
    Ok(forced.finding(policy))
}

/// The fulls that other labels force on a host, by the overrides that it has then.
///
/// # Errors
/// Those of the catalog.
pub async fn by_labels(app: &App, policies: &HostPolicies, before: &Host, after: &Host) -> Result<Vec<Finding>, Fault> {
    if !policies.all().values().any(Policy::has_overrides) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for chain in app.catalog.newest_chains(MeasureFilter { host: Some(before.id), ..MeasureFilter::default() }).await? {
        let Some(policy) = policies.all().get(&chain.policy) else { continue };
        let stays = policy.hosts.matches(&after.labels) && chain.full.is_some();
        if stays && !is_same((policy, before), (policy, after)) {
            let mut forced = Forced::default();
            forced.add(&chain);
            found.extend(forced.finding(policy));
        }
    }
    Ok(found)
}

/// Whether a policy selects on a host what it selects on it, or as another version, then.
fn is_same((one, here): (&Policy, &Host), (other, there): (&Policy, &Host)) -> bool {
    let one = one.for_host(&here.name, &here.labels);
    let other = other.for_host(&there.name, &there.labels);
    one.is_ok_and(|one| other.is_ok_and(|other| one.selection() == other.selection()))
}

/// Jobs whose next backup is a full.
#[derive(Debug, Default)]
struct Forced {
    jobs: usize,
    bytes: u64,
    largest: Option<(u64, String)>,
}

impl Forced {
    fn add(&mut self, chain: &NewestChain) {
        // What the sources had at the newest backup; the new selection may take more or less of them.
        let full = chain.full.as_ref().map_or(0, |(full, _)| full.source_bytes);
        let bytes = chain.source_bytes.unwrap_or(full);
        self.jobs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.largest.as_ref().is_none_or(|(most, _)| bytes > *most) {
            self.largest = Some((bytes, chain.host_name.clone()));
        }
    }

    fn finding(self, policy: &Policy) -> Option<Finding> {
        let (most, host) = self.largest?;
        let (who, size) = match self.jobs {
            1 => (host, format!("about {}", bytes_text(most))),
            jobs => {
                let all = format!("about {} in all, {} of them on {host}", bytes_text(self.bytes), bytes_text(most));
                (format!("{jobs} hosts"), all)
            }
        };
        Some(Finding {
            key: "full".to_owned(),
            message: format!(
                "the next backup of {who} is a full, {size} before compression: policy {} selects other files than the newest full was \
                 taken of",
                policy.name
            ),
            hint: format!("coordctl job run HOST/{} takes it when it suits best", policy.name),
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use coord_shared::ids::{HostId, JobId};

    use super::*;

    #[test]
    fn the_fulls_of_many_hosts_are_told_with_all_their_bytes_and_the_largest() {
        let policy = Policy::parse("name = \"web\"\nhosts = \"\"\nsources = [\"/srv\"]").unwrap();
        let chain = |host: &str, gib: u64| NewestChain {
            job: JobId::random(),
            host: HostId::random(),
            host_name: host.to_owned(),
            policy: PolicyId::random(),
            policy_name: "web".to_owned(),
            full: None,
            source_bytes: Some(gib << 30),
            owed: None,
        };
        let told = |chains: &[NewestChain]| {
            let mut forced = Forced::default();
            chains.iter().for_each(|chain| forced.add(chain));
            forced.finding(&policy).map(|finding| finding.message)
        };
        assert_eq!(told(&[]), None);
        let one = told(&[chain("a", 3)]).unwrap();
        assert!(one.starts_with("the next backup of a is a full, about 3.0 GiB before compression: "), "{one}");
        let two = told(&[chain("a", 3), chain("b", 8)]).unwrap();
        let said =
            "the next backup of 2 hosts is a full, about 11.0 GiB in all, 8.0 GiB of them on b before compression";
        assert!(two.starts_with(said), "{two}");
    }
}
