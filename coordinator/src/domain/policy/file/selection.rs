//! Reads what a policy is for and what it takes: name, hosts, sources, patterns and rules.

use std::collections::BTreeSet;

use coord_archive::rules::{Rules, RulesError};
use coord_shared::selector::Selector;
use coord_shared::slug::PolicySlug;
use toml::Table;

use super::reader::{Reader, escaped};
use crate::domain::policy::DEFAULT_EXCLUDE;

impl Reader {
    pub(super) fn name(&mut self, top: &Table) -> Option<PolicySlug> {
        match self.text(top, "", "name") {
            Some(text) => match PolicySlug::new(text) {
                Ok(name) => Some(name),
                Err(error) => {
                    self.find("name", error.to_string(), "such as name = \"web\"");
                    None
                }
            },
            None if top.contains_key("name") => None,
            None => {
                self.find("name", "a policy has a name", "such as name = \"web\"");
                None
            }
        }
    }

    pub(super) fn hosts(&mut self, top: &Table) -> Option<Selector> {
        match self.text(top, "", "hosts") {
            Some(text) => match text.parse() {
                Ok(selector) => Some(selector),
                Err(error) => {
                    self.find(
                        "hosts",
                        format!("'{}' is no selector: {error}", escaped(&text)),
                        "such as hosts = \"role in (web, api), env=prod, !canary\"",
                    );
                    None
                }
            },
            None if top.contains_key("hosts") => None,
            None => {
                self.find(
                    "hosts",
                    "a policy says which hosts it is for",
                    "such as hosts = \"role=web\"; the empty selector means every host",
                );
                None
            }
        }
    }

    pub(super) fn sources(&mut self, top: &Table) -> Vec<String> {
        let findings = self.findings.len();
        let written = self.texts(top, "sources").unwrap_or_default();
        let mut sources = BTreeSet::new();
        for source in &written {
            if let Some(source) = self.source(source)
                && !sources.insert(source.clone())
            {
                self.find("sources", format!("'{}' is there twice", escaped(&source)), "leave one out");
            }
        }
        if written.is_empty() && findings == self.findings.len() {
            self.find("sources", "a policy has at least one source", "such as sources = [\"/etc\", \"/srv\"]");
        }
        for source in &sources {
            if let Some(outer) = sources.iter().find(|outer| is_below(source, outer)) {
                let message =
                    format!("'{}' lies below '{}', which protects it already", escaped(source), escaped(outer));
                self.find("sources", message, "leave out the inner one");
            }
        }
        sources.into_iter().collect()
    }

    /// One source, without trailing slashes.
    pub(super) fn source(&mut self, source: &str) -> Option<String> {
        if !source.starts_with('/') {
            let hint = if source.is_empty() {
                "such as \"/etc\"".to_owned()
            } else {
                format!("write the whole path, such as \"/{}\"", escaped(source))
            };
            self.find("sources", format!("'{}' is not an absolute path", escaped(source)), hint);
            return None;
        }
        let parts: Vec<&str> = source.split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| *part == "." || *part == "..") {
            self.find(
                "sources",
                format!("'{}' has '.' or '..' in it", escaped(source)),
                "write the path that is meant",
            );
            return None;
        }
        Some(format!("/{}", parts.join("/")))
    }

    pub(super) fn exclude(&mut self, top: &Table) -> Vec<String> {
        let Some(patterns) = self.texts(top, "exclude") else {
            return DEFAULT_EXCLUDE.map(str::to_owned).to_vec();
        };
        for pattern in &patterns {
            let glob = pattern.strip_prefix('!').unwrap_or(pattern);
            let glob = glob.strip_suffix('/').unwrap_or(glob);
            let glob = glob.strip_prefix('/').unwrap_or(glob);
            if glob.is_empty() {
                self.find(
                    "exclude",
                    format!("'{}' leaves out nothing", escaped(pattern)),
                    "such as \"*.tmp\" or \"/srv/cache/**\"",
                );
            } else if let Err(error) = globset::GlobBuilder::new(glob).literal_separator(true).build() {
                self.find(
                    "exclude",
                    format!("'{}' is no glob: {}", escaped(pattern), escaped(&error.kind().to_string())),
                    "quote a bracket by [[] and []]",
                );
            }
        }
        patterns
    }

    /// The rules beside the patterns; nothing is left out by one that the file does not name.
    pub(super) fn rules(&mut self, top: &Table) -> Rules {
        let rules = Rules {
            caches: self.yes(top, "exclude_caches"),
            if_present: self.texts(top, "exclude_if_present").unwrap_or_default(),
            nodump: self.yes(top, "exclude_nodump"),
            one_file_system: self.yes(top, "one_file_system"),
            larger_than: self.size(top, "exclude_larger_than"),
        };
        if let Err(error) = rules.check() {
            let (key, hint) = match &error {
                RulesError::Marker { .. } | RulesError::TooMany { .. } => {
                    ("exclude_if_present", "such as exclude_if_present = [\".nobackup\"]")
                }
                RulesError::NoSize => ("exclude_larger_than", "leave it out for no limit"),
            };
            self.find(key, error.to_string(), hint);
        }
        rules
    }
}

fn is_below(inner: &str, outer: &str) -> bool {
    let outer = outer.trim_end_matches('/');
    inner != "/" && inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}
