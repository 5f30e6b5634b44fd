//! Why policies are not taken: what is wrong with them, in one line, after the file or the host that it is wrong with.

use coord_shared::fault::{ErrorCode, Fault};

use super::names::shown;
use crate::domain::policy::Finding;

/// Findings named in the one line of a refusal.
const SHOWN_FINDINGS: usize = 3;

/// Findings that say in which file they are.
pub fn in_file(path: &str, findings: Vec<Finding>) -> Vec<Finding> {
    let named = |finding: Finding| {
        let key = match (path, finding.key.as_str()) {
            ("", key) => key.to_owned(),
            (path, "") => shown(path),
            (path, key) => format!("{}: {key}", shown(path)),
        };
        Finding { key, ..finding }
    };
    findings.into_iter().map(named).collect()
}

/// Why a file with these findings is not taken.
pub fn refusal(findings: &[Finding]) -> Fault {
    let said = |finding: &Finding| match finding.key.as_str() {
        "" => finding.message.clone(),
        key => format!("{key}: {}", finding.message),
    };
    let mut message = findings.iter().take(SHOWN_FINDINGS).map(said).collect::<Vec<_>>().join("; ");
    if findings.len() > SHOWN_FINDINGS {
        message.push_str(&format!("; and {} more", findings.len() - SHOWN_FINDINGS));
    }
    let hint = findings.iter().map(|finding| finding.hint.as_str()).find(|hint| !hint.is_empty()).unwrap_or("");
    Fault::new(ErrorCode::InvalidPolicy, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_first_findings_and_counts_the_rest() {
        let finding =
            |key: &str| Finding { key: key.to_owned(), message: "wrong".to_owned(), hint: format!("mend {key}") };
        let fault = refusal(&[finding("a"), finding("b"), finding(""), finding("d"), finding("e")]);
        assert_eq!(fault.message, "a: wrong; b: wrong; wrong; and 2 more");
        assert_eq!(fault.hint, "mend a");
        let named = in_file("dir/web.toml", vec![finding("full.day")]);
        assert_eq!(refusal(&named).message, "dir/web.toml: full.day: wrong");
    }
}
