//! The layers that a policy is made of, and which of them each value comes from. From the weakest to the strongest:
//!
//! 1. what is built in,
//! 2. the fleet's defaults (a document of its own),
//! 3. the policy's file,
//! 4. overrides of the file for hosts with some labels (`hosts = "role=db"`),
//! 5. overrides of the file for one host (`host = "web-17"`).
//!
//! A stronger layer replaces key by key: tables are merged, texts, numbers and lists replaced whole. Within layers 4 and 5 nothing is
//! stronger: two overrides that one host can have never say two things of one key; a file in which they do is refused, whatever hosts
//! there are. So a label that changes later never makes two of them contradict each other.

use std::collections::BTreeMap;

use coord_shared::selector::Selector;
use coord_shared::slug::HostSlug;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::Table;

use super::reader::{Reader, escaped, kind};
use super::{read, table_of};
use crate::domain::policy::keys::{keys, text as written};
use crate::domain::policy::{Finding, FullDay, LEVELLED, Policy};

/// Most overrides of one file.
const MAX_OVERRIDES: usize = 100;
/// What a policy is for is said by its file alone.
const OF_THE_FILE_ALONE: [&str; 5] = ["name", "hosts", "sources", "override", "kind"];
/// The word of the document with the fleet's defaults.
const DEFAULTS: &str = "defaults";

/// What a policy was made of besides its file's own keys; empty when there is nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers {
    /// What the fleet's defaults say where the file says nothing.
    defaults: Map<String, Value>,
    /// What the file says.
    file: Map<String, Value>,
    /// In the order of the file.
    overrides: Vec<Override>,
}

/// Other values for some of a policy's hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Override {
    who: Who,
    keys: Map<String, Value>,
}

/// Whom an override is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Who {
    /// One host, by name.
    Host(HostSlug),
    /// Those with some labels.
    Hosts(Selector),
}

/// The fleet's defaults: values of every policy that says nothing itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Defaults(Table);

/// A key's value, and which layer says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Dotted, as in the file.
    pub key: String,
    /// As the file writes it.
    pub value: String,
    /// `built in`, `defaults`, `policy`, or the override.
    pub from: String,
}

impl Layers {
    /// Whether there is nothing but the file.
    pub fn is_empty(&self) -> bool {
        self.defaults.is_empty() && self.overrides.is_empty()
    }
}

impl Who {
    fn fits(&self, host: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Who::Host(name) => name.as_str() == host,
            Who::Hosts(selector) => selector.matches(labels),
        }
    }

    /// Whether one host can have both, and neither is the stronger.
    fn can_meet(&self, other: &Who) -> bool {
        match (self, other) {
            (Who::Host(one), Who::Host(other)) => one == other,
            (Who::Hosts(one), Who::Hosts(other)) => one.can_meet(other),
            (Who::Host(_), Who::Hosts(_)) | (Who::Hosts(_), Who::Host(_)) => false,
        }
    }

    const fn is_one_host(&self) -> bool {
        match self {
            Who::Host(_) => true,
            Who::Hosts(_) => false,
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Who::Host(name) => write!(f, "host {name}"),
            Who::Hosts(selector) => write!(f, "{selector}"),
        }
    }
}

impl Defaults {
    /// Whether a file is a document of defaults, as far as it can be read.
    pub fn is_meant(text: &str) -> bool {
        let top = text.parse::<Table>().unwrap_or_default();
        top.get("kind").and_then(toml::Value::as_str) == Some(DEFAULTS)
    }

    /// Reads the document.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Defaults, Vec<Finding>> {
        let mut top = table_of(text)?;
        top.remove("kind");
        let mut reader = Reader::default();
        for key in OF_THE_FILE_ALONE {
            if top.contains_key(key) {
                reader.find(key, format!("{key} is for a policy to say, not for defaults"), "leave it out");
            }
        }
        if !reader.findings.is_empty() {
            return Err(reader.findings);
        }
        // Any policy shows whether the values can be.
        let mut whole = top.clone();
        whole.insert("name".to_owned(), DEFAULTS.into());
        whole.insert("hosts".to_owned(), "".into());
        whole.insert("sources".to_owned(), vec![toml::Value::from("/")].into());
        read(&whole)?;
        Ok(Defaults(top))
    }

    /// Every key that it sets with its value.
    pub fn keys(&self) -> BTreeMap<String, String> {
        leaves(&json(&self.0)).into_iter().map(|(key, value)| (key, written(&value))).collect()
    }
}

/// Reads a policy's file over the fleet's defaults.
pub(super) fn parse(text: &str, defaults: &Defaults) -> Result<Policy, Vec<Finding>> {
    let mut own = table_of(text)?;
    let mut reader = Reader::default();
    match own.remove("kind") {
        None => {}
        Some(toml::Value::String(word)) if word == "policy" => {}
        Some(_) => {
            reader.find("kind", "a policy's kind is \"policy\"", "leave it out; \"defaults\" is the fleet's defaults")
        }
    }
    let overrides = read_overrides(&mut reader, own.remove("override"));
    let merged = merged(&defaults.0, &own);
    let policy = match read(&merged) {
        Ok(policy) => Some(policy),
        Err(findings) => {
            reader.findings.extend(findings);
            None
        }
    };
    if reader.findings.is_empty() {
        check(&mut reader, &merged, &overrides);
    }
    match policy {
        Some(policy) if reader.findings.is_empty() => {
            let (own, defaults) = (json(&own), without(&json(&defaults.0), &json(&own)));
            let only_the_file = defaults.is_empty() && overrides.is_empty();
            let layers = if only_the_file { Layers::default() } else { Layers { defaults, file: own, overrides } };
            Ok(Policy { layers, ..policy })
        }
        Some(_) | None => Err(reader.findings),
    }
}

fn read_overrides(reader: &mut Reader, written: Option<toml::Value>) -> Vec<Override> {
    let list = match written {
        None => return Vec::new(),
        Some(toml::Value::Array(list)) if list.iter().all(toml::Value::is_table) => list,
        Some(other) => {
            let message = format!("override is {}, not a list of tables", kind(&other));
            reader.find("override", message, "write [[override]], then hosts = \"role=db\" and the keys that differ");
            return Vec::new();
        }
    };
    if list.len() > MAX_OVERRIDES {
        let message = format!("there are {} overrides, and at most {MAX_OVERRIDES} may be", list.len());
        reader.find("override", message, "make several policies");
        return Vec::new();
    }
    let tables =
        list.into_iter().enumerate().filter_map(|(number, value)| Some((number + 1, value.as_table()?.clone())));
    tables.filter_map(|(number, table)| read_override(reader, number, table)).collect()
}

fn read_override(reader: &mut Reader, number: usize, mut table: Table) -> Option<Override> {
    let name = format!("override[{number}]");
    let who = match (table.remove("host"), table.remove("hosts")) {
        (Some(toml::Value::String(host)), None) => match HostSlug::new(host) {
            Ok(host) => Some(Who::Host(host)),
            Err(error) => {
                reader.find(&format!("{name}.host"), error.to_string(), "such as host = \"web-17\"");
                None
            }
        },
        (None, Some(toml::Value::String(text))) => match text.parse::<Selector>() {
            Ok(selector) if !selector.is_everything() => Some(Who::Hosts(selector)),
            Ok(_) => {
                let message = "an override for every host is no override";
                reader.find(&format!("{name}.hosts"), message, "write its keys into the policy itself");
                None
            }
            Err(error) => {
                let message = format!("'{}' is no selector: {error}", escaped(&text));
                reader.find(&format!("{name}.hosts"), message, "such as hosts = \"role=db\"");
                None
            }
        },
        (_, _) => {
            let hint = "hosts = \"role=db\" for those with a label, or host = \"web-17\" for one by name";
            reader.find(&name, "an override says whom it is for, in one way", hint);
            None
        }
    };
    for key in OF_THE_FILE_ALONE {
        if table.remove(key).is_some() {
            let message = format!("{key} is the same for every host of a policy");
            reader.find(&format!("{name}.{key}"), message, "make another policy for these hosts");
        }
    }
    if table.is_empty() {
        reader.find(&name, "an override with no key overrides nothing", "leave it out, or write what differs");
    }
    who.map(|who| Override { who, keys: json(&table) })
}

/// Each override makes a policy that can be, and no two of one strength that can meet on a host say two things of one key.
fn check(reader: &mut Reader, merged_file: &Table, overrides: &[Override]) {
    for (number, one) in overrides.iter().enumerate() {
        let name = format!("override[{}]", number + 1);
        if let Err(findings) = read(&merged(merged_file, &table(&one.keys))) {
            for Finding { key, message, hint } in findings {
                reader.find(&format!("{name}.{key}"), message, hint);
            }
        }
        for (earlier, other) in
            overrides.iter().enumerate().take(number).filter(|(_, other)| other.who.can_meet(&one.who))
        {
            let theirs = leaves(&other.keys);
            let contradicting = leaves(&one.keys).into_iter().find(|(key, value)| {
                theirs.iter().any(|(their, said)| {
                    (key == their && value != said) || is_within(key, their) || is_within(their, key)
                })
            });
            if let Some((key, _)) = contradicting {
                let message = format!(
                    "override[{}] ({}) sets {} otherwise, and a host can have both",
                    earlier + 1,
                    other.who,
                    escaped(&key)
                );
                let hint = "let them say the same, or select hosts so that none has both, such as env=prod,role!=db";
                reader.find(&escaped(&format!("{name}.{key}")), message, hint);
            }
        }
    }
}

/// Whether one key lies in a table that the other is said not to be.
fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

impl Policy {
    /// The policy as it is for one of its hosts.
    ///
    /// # Errors
    /// The overrides that the host has make no policy together that can be.
    pub fn for_host(&self, host: &str, labels: &BTreeMap<String, String>) -> Result<Policy, Vec<Finding>> {
        let mut fits: Vec<&Override> = self.layers.overrides.iter().filter(|one| one.who.fits(host, labels)).collect();
        if fits.is_empty() {
            return Ok(self.clone());
        }
        fits.sort_by_key(|one| one.who.is_one_host());
        let mut whole = merged(&table(&self.layers.defaults), &table(&self.layers.file));
        for one in fits {
            whole = merged(&whole, &table(&one.keys));
        }
        Ok(Policy { layers: self.layers.clone(), ..read(&whole)? })
    }

    /// Whether hosts differ in what this policy is for them.
    pub fn has_overrides(&self) -> bool {
        !self.layers.overrides.is_empty()
    }

    /// Whether it leaves the fulls of any host to the plan.
    pub fn may_level_fulls(&self) -> bool {
        let levelled = |one: &Override| one.keys.get("full").and_then(|full| full.get("day")) == Some(&LEVELLED.into());
        self.full.day == FullDay::Levelled || self.layers.overrides.iter().any(levelled)
    }

    /// Every key that an override sets, named after whom it is for, with its value.
    pub(in crate::domain::policy) fn override_keys(&self) -> Vec<(String, String)> {
        let keys = |one: &Override| {
            let who = one.who.to_string();
            leaves(&one.keys).into_iter().map(move |(key, value)| (format!("override ({who}).{key}"), written(&value)))
        };
        self.layers.overrides.iter().flat_map(keys).collect()
    }

    /// The overrides that none of these hosts has, each in words.
    pub fn idle_overrides<'a>(
        &self,
        hosts: impl Iterator<Item = (&'a str, &'a BTreeMap<String, String>)> + Clone,
    ) -> Vec<String> {
        let idle = |one: &Override| !hosts.clone().any(|(host, labels)| one.who.fits(host, labels));
        let numbered = self.layers.overrides.iter().enumerate().filter(|(_, one)| idle(one));
        numbered.map(|(number, one)| format!("override[{}] ({})", number + 1, one.who)).collect()
    }

    /// Every value of the policy for one of its hosts, and where it comes from. `text` is its file.
    ///
    /// # Errors
    /// As for [`Policy::for_host`].
    pub fn origins(
        &self,
        text: &str,
        host: Option<(&str, &BTreeMap<String, String>)>,
    ) -> Result<Vec<Origin>, Vec<Finding>> {
        let file = if self.layers.is_empty() {
            json(&text.parse::<Table>().unwrap_or_default())
        } else {
            self.layers.file.clone()
        };
        let whole = match host {
            Some((host, labels)) => self.for_host(host, labels)?,
            None => self.clone(),
        };
        let from = |key: &str| {
            let fits =
                |one: &Override| host.is_some_and(|(host, labels)| one.who.fits(host, labels)) && says(&one.keys, key);
            let mut overrides: Vec<(usize, &Override)> =
                self.layers.overrides.iter().enumerate().filter(|(_, one)| fits(one)).collect();
            overrides.sort_by_key(|(_, one)| one.who.is_one_host());
            match overrides.last() {
                Some((number, one)) => format!("override[{}] ({})", number + 1, one.who),
                None if says(&file, key) => "policy".to_owned(),
                None if says(&self.layers.defaults, key) => "defaults".to_owned(),
                None => "built in".to_owned(),
            }
        };
        let values = keys(&whole).into_iter();
        Ok(values.map(|(key, value)| Origin { from: from(&key), key, value }).collect())
    }
}

/// Whether a layer says something of a key.
fn says(layer: &Map<String, Value>, key: &str) -> bool {
    let mut layer = layer;
    for part in key.split('.') {
        match layer.get(part) {
            None => return false,
            Some(Value::Object(inner)) => layer = inner,
            Some(_) => return true,
        }
    }
    true
}

/// The stronger layer over the weaker one.
fn merged(weaker: &Table, stronger: &Table) -> Table {
    let mut merged = weaker.clone();
    for (key, value) in stronger {
        let value = match (merged.get(key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => self::merged(below, above).into(),
            (_, value) => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

/// What of the weaker layer the stronger one leaves.
fn without(weaker: &Map<String, Value>, stronger: &Map<String, Value>) -> Map<String, Value> {
    let mut left = Map::new();
    for (key, value) in weaker {
        match (value, stronger.get(key)) {
            (value, None) => drop(left.insert(key.clone(), value.clone())),
            (Value::Object(below), Some(Value::Object(above))) => {
                let inner = without(below, above);
                if !inner.is_empty() {
                    left.insert(key.clone(), inner.into());
                }
            }
            (_, Some(_)) => {}
        }
    }
    left
}

/// Every value with its dotted key.
fn leaves(layer: &Map<String, Value>) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (key, value) in layer {
        match value {
            Value::Object(inner) => {
                leaves.extend(self::leaves(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            value => leaves.push((key.clone(), value.clone())),
        }
    }
    leaves
}

/// A table as it is stored. Dates, which no key of a policy has, become texts.
fn json(table: &Table) -> Map<String, Value> {
    table.iter().map(|(key, value)| (key.clone(), json_value(value))).collect()
}

fn json_value(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(yes) => (*yes).into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(list) => list.iter().map(json_value).collect(),
        toml::Value::Table(inner) => json(inner).into(),
    }
}

/// The same back.
fn table(layer: &Map<String, Value>) -> Table {
    layer.iter().filter_map(|(key, value)| Some((key.clone(), toml_value(value)?))).collect()
}

fn toml_value(value: &Value) -> Option<toml::Value> {
    match value {
        // No layer has one.
        Value::Null => None,
        Value::Bool(yes) => Some((*yes).into()),
        Value::Number(number) => number.as_i64().map(Into::into).or_else(|| number.as_f64().map(Into::into)),
        Value::String(text) => Some(text.clone().into()),
        Value::Array(list) => Some(toml::Value::Array(list.iter().filter_map(toml_value).collect())),
        Value::Object(inner) => Some(table(inner).into()),
    }
}

#[cfg(test)]
mod tests;
