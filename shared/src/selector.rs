//! Label selectors in the grammar of Kubernetes: `env=prod,role in (web, db),!canary`.
//!
//! A selector is a conjunction of requirements. As there: `key != value` and `key notin (..)` also hold for a host that does
//! not have the label at all. The empty selector holds for every host; whoever must not mean that refuses it
//! ([`Selector::is_everything`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest selector, in bytes.
pub const MAX_SELECTOR: usize = 4096;
/// Longest key's name part and longest value, in characters; as in Kubernetes.
pub const MAX_LABEL: usize = 63;
/// Longest prefix of a key (`prefix/name`), in characters.
const MAX_PREFIX: usize = 253;

/// Which hosts are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One part of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Requirement {
    Exists { key: String },
    Absent { key: String },
    Equal { key: String, value: String },
    Different { key: String, value: String },
    In { key: String, values: BTreeSet<String> },
    NotIn { key: String, values: BTreeSet<String> },
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {message}")]
pub struct SelectorError {
    /// Where, from 1.
    pub position: usize,
    /// What was found and what was expected.
    pub message: String,
}

/// Why a label cannot be given to a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The key has another shape.
    #[error(
        "'{0}' cannot be the key of a label: up to 63 of a-z, A-Z, 0-9, '-', '_' and '.', beginning and ending with a letter or a \
         digit, after an optional 'prefix/'"
    )]
    Key(String),
    /// The value has another shape.
    #[error(
        "'{value}' cannot be the value of label {key}: up to 63 of a-z, A-Z, 0-9, '-', '_' and '.', beginning and ending with a \
         letter or a digit, or nothing"
    )]
    Value {
        /// The label's key.
        key: String,
        /// The value, escaped.
        value: String,
    },
}

/// Checks that `key` and `value` can be a host's label, so that a selector can name it.
///
/// # Errors
/// [`LabelError`] says which of the two has another shape.
pub fn check_label(key: &str, value: &str) -> Result<(), LabelError> {
    if !is_key(key) {
        return Err(LabelError::Key(key.escape_debug().to_string()));
    }
    if !is_value(value) {
        return Err(LabelError::Value { key: key.to_owned(), value: value.escape_debug().to_string() });
    }
    Ok(())
}

fn is_name(text: &str, most: usize) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= most
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| is_word(char::from(*byte)))
}

fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_name(prefix, MAX_PREFIX) && is_name(name, MAX_LABEL),
        None => is_name(text, MAX_LABEL),
    }
}

fn is_value(text: &str) -> bool {
    text.is_empty() || is_name(text, MAX_LABEL)
}

const fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

impl Selector {
    /// Whether a host with `labels` is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::Exists { key } => labels.contains_key(key),
            Requirement::Absent { key } => !labels.contains_key(key),
            Requirement::Equal { key, value } => labels.get(key) == Some(value),
            Requirement::Different { key, value } => labels.get(key) != Some(value),
            Requirement::In { key, values } => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn { key, values } => labels.get(key).is_none_or(|value| !values.contains(value)),
        })
    }

    /// Whether there can be a host that both mean, whatever hosts there are now.
    pub fn can_meet(&self, other: &Self) -> bool {
        let mut wanted: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
        for requirement in self.requirements.iter().chain(&other.requirements) {
            let (key, part) = requirement.parts();
            wanted.entry(key).or_default().add(part);
        }
        wanted.values().all(Wanted::is_possible)
    }

    /// The selector of no host: what was deleted is for nobody.
    pub fn nothing() -> Self {
        let key = String::from("deleted");
        Self { requirements: vec![Requirement::Exists { key: key.clone() }, Requirement::Absent { key }] }
    }

    /// Whether it has no requirement, and so means every host.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
}

/// What a requirement says of its label.
enum Part<'a> {
    /// It is there, with one of these values if any are named.
    There(Option<BTreeSet<&'a str>>),
    /// It is not there.
    Absent,
    /// It has none of these values, or is not there.
    Without(BTreeSet<&'a str>),
}

impl Requirement {
    fn parts(&self) -> (&str, Part<'_>) {
        match self {
            Requirement::Exists { key } => (key, Part::There(None)),
            Requirement::Absent { key } => (key, Part::Absent),
            Requirement::Equal { key, value } => (key, Part::There(Some(BTreeSet::from([value.as_str()])))),
            Requirement::Different { key, value } => (key, Part::Without(BTreeSet::from([value.as_str()]))),
            Requirement::In { key, values } => (key, Part::There(Some(values.iter().map(String::as_str).collect()))),
            Requirement::NotIn { key, values } => (key, Part::Without(values.iter().map(String::as_str).collect())),
        }
    }
}

/// What several requirements together want of one label.
#[derive(Default)]
struct Wanted<'a> {
    there: bool,
    absent: bool,
    one_of: Option<BTreeSet<&'a str>>,
    none_of: BTreeSet<&'a str>,
}

impl<'a> Wanted<'a> {
    fn add(&mut self, part: Part<'a>) {
        match part {
            Part::There(None) => self.there = true,
            Part::There(Some(values)) => {
                self.there = true;
                self.one_of = Some(match self.one_of.take() {
                    Some(known) => known.intersection(&values).copied().collect(),
                    None => values,
                });
            }
            Part::Absent => self.absent = true,
            Part::Without(values) => self.none_of.extend(values),
        }
    }

    /// There are more values than any selector names: one that only must not be some is always possible.
    fn is_possible(&self) -> bool {
        match (self.there, self.absent) {
            (true, true) => false,
            (false, _) => true,
            (true, false) => self.one_of.as_ref().is_none_or(|values| !values.is_subset(&self.none_of)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, requirement) in self.requirements.iter().enumerate() {
            if number > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::Exists { key } => f.write_str(key)?,
                Requirement::Absent { key } => write!(f, "!{key}")?,
                Requirement::Equal { key, value } => write!(f, "{key}={value}")?,
                Requirement::Different { key, value } => write!(f, "{key}!={value}")?,
                Requirement::In { key, values } => write!(f, "{key} in ({})", join(values))?,
                Requirement::NotIn { key, values } => write!(f, "{key} notin ({})", join(values))?,
            }
        }
        Ok(())
    }
}

fn join(values: &BTreeSet<String>) -> String {
    values.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR {
            return Err(SelectorError { position: 1, message: format!("a selector has at most {MAX_SELECTOR} bytes") });
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0 };
        let mut requirements = Vec::new();
        if parser.peek().0 == Token::End {
            return Ok(Self::default());
        }
        loop {
            requirements.push(parser.requirement()?);
            match parser.take() {
                (Token::End, _) => return Ok(Self { requirements }),
                (Token::Comma, _) => {}
                (found, position) => return Err(unexpected(&found, position, "',' or the end")),
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    Different,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "'{word}'"),
            Token::Comma => f.write_str("','"),
            Token::Open => f.write_str("'('"),
            Token::Close => f.write_str("')'"),
            Token::Not => f.write_str("'!'"),
            Token::Equal => f.write_str("'='"),
            Token::Different => f.write_str("'!='"),
            Token::End => f.write_str("the end"),
        }
    }
}

fn unexpected(found: &Token, position: usize, expected: &str) -> SelectorError {
    SelectorError { position, message: format!("found {found}, expected {expected}") }
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, SelectorError> {
    let mut tokens = Vec::new();
    let mut characters = text.chars().enumerate().peekable();
    while let Some((at, character)) = characters.next() {
        let position = at + 1;
        let token = match character {
            ' ' | '\t' | '\n' | '\r' => continue,
            ',' => Token::Comma,
            '(' => Token::Open,
            ')' => Token::Close,
            '=' => {
                let _ = characters.next_if(|(_, next)| *next == '=');
                Token::Equal
            }
            '!' if characters.next_if(|(_, next)| *next == '=').is_some() => Token::Different,
            '!' => Token::Not,
            word if is_word(word) => {
                let mut text = String::from(word);
                while let Some((_, next)) = characters.next_if(|(_, next)| is_word(*next) || *next == '/') {
                    text.push(next);
                }
                Token::Word(text)
            }
            other => {
                return Err(SelectorError {
                    position,
                    message: format!("'{}' has no meaning in a selector", other.escape_debug()),
                });
            }
        };
        tokens.push((token, position));
    }
    tokens.push((Token::End, text.chars().count() + 1));
    Ok(tokens)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
}

impl Parser {
    fn peek(&self) -> (Token, usize) {
        self.tokens.get(self.next).or(self.tokens.last()).cloned().unwrap_or((Token::End, 1))
    }

    fn take(&mut self) -> (Token, usize) {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        match self.take() {
            (Token::Word(word), _) if is_key(&word) => Ok(word),
            (Token::Word(word), position) => {
                Err(SelectorError { position, message: LabelError::Key(word).to_string() })
            }
            (found, position) => Err(unexpected(&found, position, "the key of a label")),
        }
    }

    /// A value; nothing at all is the empty value, as in `key=`.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            (Token::Word(word), position) => {
                self.next += 1;
                if is_value(&word) {
                    Ok(word)
                } else {
                    let message =
                        format!("'{word}' cannot be the value of a label: up to 63 letters, digits, '-', '_' and '.'");
                    Err(SelectorError { position, message })
                }
            }
            (Token::Comma | Token::Close | Token::End, _) => Ok(String::new()),
            (found @ (Token::Open | Token::Not | Token::Equal | Token::Different), position) => {
                Err(unexpected(&found, position, "a value"))
            }
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.take() {
            (Token::Open, _) => {}
            (found, position) => return Err(unexpected(&found, position, "'(' and a list of values")),
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value()?);
            match self.take() {
                (Token::Close, _) => return Ok(values),
                (Token::Comma, _) => {}
                (found, position) => return Err(unexpected(&found, position, "',' or ')'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek().0 == Token::Not {
            self.next += 1;
            return Ok(Requirement::Absent { key: self.key()? });
        }
        let key = self.key()?;
        match self.peek() {
            (Token::Comma | Token::End, _) => Ok(Requirement::Exists { key }),
            (Token::Equal, _) => {
                self.next += 1;
                Ok(Requirement::Equal { key, value: self.value()? })
            }
            (Token::Different, _) => {
                self.next += 1;
                Ok(Requirement::Different { key, value: self.value()? })
            }
            (Token::Word(word), _) if word == "in" => {
                self.next += 1;
                Ok(Requirement::In { key, values: self.values()? })
            }
            (Token::Word(word), _) if word == "notin" => {
                self.next += 1;
                Ok(Requirement::NotIn { key, values: self.values()? })
            }
            (found @ (Token::Word(_) | Token::Open | Token::Close | Token::Not), position) => {
                Err(unexpected(&found, position, "'=', '!=', 'in', 'notin', ',' or the end"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
