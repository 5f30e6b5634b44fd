//! Full or differential: how much a backup stores.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::api;

/// How much a backup stores. A differential stands on the last successful, undamaged full, never on a differential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// What changed since the full it stands on.
    Differential,
    /// Everything in the sources less the excludes.
    Full,
}

/// A text or a number is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no level: full or differential")]
pub struct UnknownLevel {
    /// What was given, escaped.
    pub text: String,
}

impl Level {
    /// Every level, for CHECK lists and tables.
    pub const ALL: [Level; 2] = [Level::Full, Level::Differential];

    /// The word used in SQL, labels and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Full => "full",
            Level::Differential => "differential",
        }
    }

    /// The level on the wire.
    pub const fn to_api(self) -> api::Level {
        match self {
            Level::Full => api::Level::Full,
            Level::Differential => api::Level::Differential,
        }
    }

    /// The level that a message names; `None` when it names none (`UNSPECIFIED`).
    pub const fn from_api(level: api::Level) -> Option<Self> {
        match level {
            api::Level::Unspecified => None,
            api::Level::Full => Some(Level::Full),
            api::Level::Differential => Some(Level::Differential),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        Level::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownLevel { text: text.chars().take(40).collect::<String>().escape_debug().to_string() })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_level_survives_text_and_wire() {
        for level in Level::ALL {
            assert_eq!(level.as_str().parse::<Level>().unwrap(), level);
            assert_eq!(Level::from_api(level.to_api()), Some(level));
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{level}\""));
        }
        assert_eq!(Level::from_api(api::Level::Unspecified), None);
        assert!("incremental".parse::<Level>().is_err());
    }
}
