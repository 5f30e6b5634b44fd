//! Names that people choose for hosts and policies. They are in paths of archives, in labels of metrics and on command
//! lines, so they are plain: a slug is never reused for something else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest policy name.
pub const MAX_POLICY_NAME: usize = 63;
/// Longest host name; host names may be qualified.
pub const MAX_HOST_NAME: usize = 253;
/// Longest part of a host name between two dots.
const MAX_HOST_PART: usize = 63;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlugError {
    /// Nothing was given.
    #[error("the name of a {what} must not be empty")]
    Empty {
        /// host or policy.
        what: &'static str,
    },
    /// Longer than allowed.
    #[error("the name of a {what} has at most {most} characters{between}")]
    TooLong {
        /// host or policy.
        what: &'static str,
        /// The bound.
        most: usize,
        /// Says what the bound counts, when it is a part of the name.
        between: &'static str,
    },
    /// A character that no name has.
    #[error("'{name}' cannot be the name of a {what}: {rule}, and character {position} is '{found}'")]
    Character {
        /// host or policy.
        what: &'static str,
        /// The name, escaped.
        name: String,
        /// What may stand there.
        rule: &'static str,
        /// From 1.
        position: usize,
        /// The character, escaped.
        found: String,
    },
}

fn check(text: &str, what: &'static str, most: usize, dots: bool) -> Result<(), SlugError> {
    if text.is_empty() {
        return Err(SlugError::Empty { what });
    }
    if text.chars().count() > most {
        return Err(SlugError::TooLong { what, most, between: "" });
    }
    let mut previous = None;
    for (position, character) in text.chars().enumerate() {
        let starts = matches!(previous, None | Some('.'));
        let fits = match character {
            'a'..='z' | '0'..='9' => true,
            '-' => !starts,
            '.' => dots && !starts && position + 1 != text.len(),
            _ => false,
        };
        if !fits {
            let rule = if dots {
                "it is made of a-z, 0-9, '-' and '.', and each part begins with a letter or a digit"
            } else {
                "it is made of a-z, 0-9 and '-', and begins with a letter or a digit"
            };
            return Err(SlugError::Character {
                what,
                name: text.escape_debug().to_string(),
                rule,
                position: position + 1,
                found: character.escape_debug().to_string(),
            });
        }
        previous = Some(character);
    }
    if dots && text.split('.').any(|part| part.len() > MAX_HOST_PART) {
        return Err(SlugError::TooLong { what, most: MAX_HOST_PART, between: " between two dots" });
    }
    Ok(())
}

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident, $what:literal, $most:expr, $dots:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name that `text` is.
            ///
            /// # Errors
            /// [`SlugError`] says which character or bound is in the way.
            pub fn new(text: impl Into<String>) -> Result<Self, SlugError> {
                let text = text.into();
                check(&text, $what, $most, $dots)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = SlugError;

            fn try_from(text: String) -> Result<Self, SlugError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(slug: $name) -> String {
                slug.0
            }
        }

        impl FromStr for $name {
            type Err = SlugError;

            fn from_str(text: &str) -> Result<Self, SlugError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

slug!(
    /// Name of a host: parts of `[a-z0-9][a-z0-9-]{0,62}` between dots.
    HostSlug, "host", MAX_HOST_NAME, true);
slug!(
    /// Name of a policy: `[a-z0-9][a-z0-9-]{0,62}`.
    PolicySlug, "policy", MAX_POLICY_NAME, false);

/// The nearest of `known` to `text`, for "did you mean": at most two edits away (one for short words), else none.
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = if text.chars().count() <= 4 { 1 } else { 2 };
    known
        .into_iter()
        .map(|candidate| (edits(text, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance. Texts longer than 256 characters are taken for far apart.
fn edits(left: &str, right: &str) -> usize {
    const LONGEST: usize = 256;
    let left: Vec<char> = left.chars().take(LONGEST + 1).collect();
    let right: Vec<char> = right.chars().take(LONGEST + 1).collect();
    if left.len() > LONGEST || right.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let cost = (diagonal + usize::from(a != b)).min(before + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = cost;
            before = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_taken() {
        for name in ["web", "web-1", "0", "db-1.example.org", &"a".repeat(63)] {
            assert_eq!(HostSlug::new(name).unwrap().as_str(), name);
        }
        assert!(PolicySlug::new("web-nightly").is_ok());
    }

    #[test]
    fn other_names_are_refused_with_what_is_in_the_way() {
        for name in [
            "",
            "-a",
            ".a",
            "a.",
            "a..b",
            "a.-b",
            "Web",
            "a b",
            "a/b",
            "../x",
            "ä",
            "a\n",
            "a\u{1b}",
            &"a".repeat(64),
            &"a.".repeat(200),
        ] {
            assert!(HostSlug::new(name).is_err(), "{name:?}");
        }
        assert!(PolicySlug::new("a.b").is_err(), "a policy's name has no dots");
        let error = PolicySlug::new("we\u{1b}b").unwrap_err().to_string();
        assert!(error.contains("character 3") && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn serde_checks_as_well() {
        assert!(serde_json::from_str::<PolicySlug>("\"Web\"").is_err());
        assert_eq!(serde_json::to_string(&PolicySlug::new("web").unwrap()).unwrap(), "\"web\"");
    }

    #[test]
    fn a_typo_finds_its_neighbour_and_nothing_else_does() {
        let known = ["sources", "schedule", "exclude", "hosts", "name"];
        assert_eq!(nearest("source", known), Some("sources"));
        assert_eq!(nearest("shedule", known), Some("schedule"));
        assert_eq!(nearest("nam", known), Some("name"));
        assert_eq!(nearest("retention", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
