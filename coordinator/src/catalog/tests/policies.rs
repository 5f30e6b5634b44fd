//! Policies and defaults that several operators write at once.

use coord_shared::ids::{JobId, PolicyVersion};

use super::fixture::Fleet;
use crate::catalog::testing::with_catalog;
use crate::catalog::{Catalog, NewDefaults, NewPolicyVersion, PoliciesApplied, SeenPolicies, VersionOrigin};

/// What an operator sees now.
async fn look(catalog: &Catalog) -> SeenPolicies {
    SeenPolicies {
        versions: catalog.policies_ever().await.unwrap().into_iter().map(|one| (one.name, one.version)).collect(),
        defaults: catalog.policy_defaults().await.unwrap().map(|one| one.version),
    }
}

fn policy(fleet: &Fleet, name: &str, toml: &str, renew: bool) -> NewPolicyVersion {
    NewPolicyVersion {
        name: name.to_owned(),
        toml: toml.to_owned(),
        spec: serde_json::json!({}),
        applied_by: "ada".to_owned(),
        hosts: vec![fleet.host],
        new_job_ids: vec![JobId::random()],
        origin: VersionOrigin::Applied,
        equals: None,
        expected: None,
        renew,
    }
}

fn defaults(version: u64) -> NewDefaults {
    NewDefaults { version: PolicyVersion(version), toml: format!("defaults {version}"), applied_by: "ada".to_owned() }
}

fn changed(what: &str) -> PoliciesApplied {
    PoliciesApplied::Changed(what.to_owned())
}

#[tokio::test]
async fn defaults_never_bring_back_the_older_text_of_a_policy() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        catalog.apply_policy(&policy(&fleet, "web", "old", false)).await.unwrap();
        // Ada works out what defaults make of the policy's text, and Bob applies another text meanwhile.
        let (seen, anew) = (look(&catalog).await, [policy(&fleet, "web", "old", true)]);
        catalog.apply_policy(&policy(&fleet, "web", "new", false)).await.unwrap();
        let outcome = catalog.apply_policies(&anew, &seen, Some(&defaults(1))).await.unwrap();
        assert_eq!(outcome, changed("policy web"));
        let web = catalog.policy_by_name("web").await.unwrap().unwrap();
        assert_eq!((web.version, web.toml.as_str()), (PolicyVersion(2), "new"));
        assert_eq!(catalog.policy_defaults().await.unwrap(), None, "nothing was written");
        // So it is when the policy that has changed, or is new, is none of those that she writes.
        assert_eq!(catalog.apply_policies(&[], &seen, Some(&defaults(1))).await.unwrap(), changed("policy web"));
        let seen = look(&catalog).await;
        catalog.apply_policy(&policy(&fleet, "db", "first", false)).await.unwrap();
        assert_eq!(catalog.apply_policies(&[], &seen, Some(&defaults(1))).await.unwrap(), changed("policy db"));
        // Worked out anew, it goes by what is there.
        let anew = [policy(&fleet, "web", "new", true)];
        let outcome = catalog.apply_policies(&anew, &look(&catalog).await, Some(&defaults(1))).await.unwrap();
        assert!(matches!(outcome, PoliciesApplied::Applied(_)), "{outcome:?}");
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_was_read_over_older_defaults_or_over_another_version_is_refused() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let seen = look(&catalog).await;
        catalog.apply_policies(&[], &seen, Some(&defaults(1))).await.unwrap();
        let new = [policy(&fleet, "web", "text", false)];
        assert_eq!(catalog.apply_policies(&new, &seen, None).await.unwrap(), changed("the fleet's defaults"));
        assert_eq!(catalog.policy_by_name("web").await.unwrap(), None);
        let seen = look(&catalog).await;
        assert!(matches!(catalog.apply_policies(&new, &seen, None).await.unwrap(), PoliciesApplied::Applied(_)));
        let other = [policy(&fleet, "web", "another", false)];
        assert_eq!(catalog.apply_policies(&other, &seen, None).await.unwrap(), changed("policy web"), "she saw none");
    })
    .await;
}

#[tokio::test]
async fn of_operators_who_write_at_the_same_moment_one_wins() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        for round in 0..8_u64 {
            let seen = look(&catalog).await;
            let (web, text) = ([policy(&fleet, "web", &format!("text {round}"), false)], defaults(round + 1));
            let (applying, defaulting) = tokio::join!(
                catalog.apply_policies(&web, &seen, None),
                catalog.apply_policies(&[], &seen, Some(&text)),
            );
            let won = [applying.unwrap(), defaulting.unwrap()];
            let lost = won.iter().filter(|outcome| matches!(outcome, PoliciesApplied::Changed(_))).count();
            assert_eq!(lost, 1, "{won:?}");
            if lost == 1 && matches!(won[1], PoliciesApplied::Changed(_)) {
                catalog.apply_policies(&[], &look(&catalog).await, Some(&text)).await.unwrap();
            }
        }
        assert_eq!(look(&catalog).await.defaults, Some(PolicyVersion(8)));
    })
    .await;
}
