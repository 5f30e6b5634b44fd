//! Reads values out of a policy file's tables, and keeps what is wrong with them.

use coord_shared::slug::nearest;
use toml::{Table, Value};

use super::NOT_BUILT;
use crate::domain::policy::Finding;

/// Most entries of a list.
const MAX_LIST: usize = 1000;
/// Longest entry of a list, in bytes.
const MAX_PATTERN: usize = 4096;

/// What was found so far.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) findings: Vec<Finding>,
}

impl Reader {
    pub(super) fn find(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(Finding { key: key.to_owned(), message: message.into(), hint: hint.into() });
    }

    pub(super) fn unknown_keys(&mut self, section: &str, table: &Table, known: &[&'static str]) {
        for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
            let dotted = escaped(&dotted(section, key));
            if section.is_empty() && NOT_BUILT.contains(&key.as_str()) {
                let message =
                    format!("the effect of {dotted} is not built yet: it would be a promise that nothing keeps");
                self.find(&dotted, message, "leave it out");
                continue;
            }
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.find(&dotted, format!("{dotted} is no key of a policy"), hint);
        }
    }

    /// The section's table; an absent one is empty.
    pub(super) fn section(&mut self, table: &Table, section: &str, key: &str, known: &[&'static str]) -> Table {
        let dotted = dotted(section, key);
        match table.get(key) {
            None => Table::new(),
            Some(Value::Table(inner)) => {
                self.unknown_keys(&dotted, inner, known);
                inner.clone()
            }
            Some(other) => {
                self.find(
                    &dotted,
                    format!("{dotted} is {}, not a table", kind(other)),
                    format!("such as {dotted} = {{ {} = ... }}", known.join(" = ..., ")),
                );
                Table::new()
            }
        }
    }

    /// A text; `None` when absent or of another kind (which is found).
    pub(super) fn text(&mut self, table: &Table, section: &str, key: &str) -> Option<String> {
        let dotted = dotted(section, key);
        match table.get(key) {
            None => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => {
                self.find(
                    &dotted,
                    format!("{dotted} is {}, not a text", kind(other)),
                    format!("write it in quotes: {key} = \"...\""),
                );
                None
            }
        }
    }

    pub(super) fn number(
        &mut self,
        table: &Table,
        section: &str,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
        default: u32,
    ) -> u32 {
        let dotted = dotted(section, key);
        let found = match table.get(key) {
            None => return default,
            Some(Value::Integer(number)) => match u32::try_from(*number) {
                Ok(number) if range.contains(&number) => return number,
                Ok(_) | Err(_) => number.to_string(),
            },
            Some(other) => kind(other).to_owned(),
        };
        self.find(
            &dotted,
            format!("{dotted} is {found}, not a whole number from {} to {}", range.start(), range.end()),
            format!("the default is {default}"),
        );
        default
    }

    /// A list of texts, in order; `None` when absent.
    pub(super) fn texts(&mut self, table: &Table, key: &str) -> Option<Vec<String>> {
        let list = match table.get(key)? {
            Value::Array(list) => list,
            other => {
                self.find(key, format!("{key} is {}, not a list", kind(other)), format!("write {key} = [\"...\"]"));
                return Some(Vec::new());
            }
        };
        if list.len() > MAX_LIST {
            self.find(
                key,
                format!("{key} has {} entries, and at most {MAX_LIST} may be", list.len()),
                "make several policies",
            );
            return Some(Vec::new());
        }
        let mut texts = Vec::with_capacity(list.len());
        for (number, value) in list.iter().enumerate() {
            match value {
                Value::String(text) if text.len() <= MAX_PATTERN && !text.contains('\0') => texts.push(text.clone()),
                Value::String(_) => self.find(
                    key,
                    format!("entry {} of {key} is longer than {MAX_PATTERN} bytes or has a NUL in it", number + 1),
                    "",
                ),
                other => self.find(
                    key,
                    format!("entry {} of {key} is {}, not a text", number + 1, kind(other)),
                    "write it in quotes",
                ),
            }
        }
        Some(texts)
    }

    /// Whether a key says yes; an absent one says no.
    pub(super) fn yes(&mut self, table: &Table, key: &str) -> bool {
        match table.get(key) {
            None => false,
            Some(Value::Boolean(yes)) => *yes,
            Some(other) => {
                self.find(key, format!("{key} is {}, not true or false", kind(other)), format!("write {key} = true"));
                false
            }
        }
    }

    /// A number of bytes, or a text with a unit.
    pub(super) fn size(&mut self, table: &Table, key: &str) -> Option<u64> {
        let hint = "such as \"4GiB\", or a whole number of bytes";
        match table.get(key)? {
            Value::Integer(bytes) if *bytes >= 0 => return Some(bytes.unsigned_abs()),
            Value::Integer(bytes) => self.find(key, format!("{key} is {bytes}, not a size"), hint),
            Value::String(text) => match coord_shared::size::parse(text) {
                Ok(bytes) => return Some(bytes),
                Err(error) => self.find(key, format!("'{}' is {error}", escaped(text)), hint),
            },
            other => self.find(key, format!("{key} is {}, not a size", kind(other)), hint),
        }
        None
    }
}

/// A text from the file, as it may be shown.
pub(super) fn escaped(text: &str) -> String {
    text.chars().take(200).collect::<String>().escape_debug().to_string()
}

/// The key as findings name it.
pub(super) fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// What a value is, in words.
pub(super) const fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
