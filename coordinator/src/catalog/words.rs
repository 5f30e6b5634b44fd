//! The words that SQL keeps for our enums.

/// A word of the catalog that no enum of ours has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no {what}")]
pub struct UnknownWord {
    /// What was expected.
    pub what: &'static str,
    /// What was found, escaped.
    pub text: String,
}

/// `FromStr` and `Display` of an enum with `ALL` and `as_str`.
macro_rules! impl_word {
    ($name:ty, $what:literal) => {
        impl std::str::FromStr for $name {
            type Err = $crate::catalog::words::UnknownWord;

            fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
                Self::ALL.into_iter().find(|value| value.as_str() == text).ok_or_else(|| {
                    $crate::catalog::words::UnknownWord { what: $what, text: text.escape_debug().to_string() }
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(super) use impl_word;

/// Whether `text` can be the beginning of an id: nothing else goes into a LIKE.
pub(super) fn is_id_prefix(text: &str) -> bool {
    !text.is_empty() && text.len() <= 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}
