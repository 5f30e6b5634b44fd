//! Policies under attack (see `tests/tests/fuzz.rs`). A policy that is taken is one that can be shown, compared and planned with.

use coordinator::domain::policy::Policy;
use fleet_tests::fuzz::attack;
use fleet_tests::story::SRV_POLICY;

#[test]
fn policy() {
    let seeds =
        vec![SRV_POLICY.as_bytes().to_vec(), b"name = \"x\"\nhosts = \"a=b,c!=d\"\nsources = [\"/\"]\n".to_vec()];
    attack("policy", seeds, &|input| {
        let text = String::from_utf8_lossy(input);
        match Policy::parse(&text) {
            Ok(policy) => {
                let warnings = policy.warnings();
                format!("taken {:?}", warnings.iter().map(|warning| warning.key.as_str()).collect::<Vec<_>>())
            }
            Err(findings) => {
                assert!(!findings.is_empty(), "refused, and nothing is said to be wrong");
                findings.iter().map(|finding| finding.key.chars().take(20).collect::<String>()).collect()
            }
        }
    });
}
