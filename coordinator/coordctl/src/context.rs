//! The operator's contexts: which coordinator, and as whom. One TOML file; the PEM files it names lie beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use coord_shared::durable;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The file, as `coordinator init` and `coordctl login` write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Name of the context used unless another is asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub current: String,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, ContextEntry>,
}

/// One context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextEntry {
    /// Main listeners, `host:port`, tried in order.
    pub endpoints: Vec<String>,
    /// Enrolment listeners, for renewal.
    #[serde(default)]
    pub enrol_endpoints: Vec<String>,
    /// The fleet's authority.
    pub ca: PathBuf,
    /// The operator's certificate.
    pub certificate: PathBuf,
    /// Its key, mode 0600.
    pub key: PathBuf,
    /// Asks before every change.
    #[serde(default)]
    pub protected: bool,
}

/// A context that was chosen and read.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its name.
    pub name: String,
    /// The entry, with absolute paths and the endpoint of the command line.
    pub entry: ContextEntry,
    /// PEM of the authority.
    pub ca_pem: String,
    /// PEM of the certificate.
    pub certificate_pem: String,
    /// PEM of the key.
    pub key_pem: String,
}

/// What the command line and the environment say.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The file, if not the default one.
    pub config: Option<PathBuf>,
    /// The context's name, if not the current one.
    pub context: Option<String>,
    /// An endpoint, if not the context's.
    pub endpoint: Option<String>,
}

impl Choice {
    /// The configuration file.
    pub fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.config {
            return Ok(path.clone());
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        base.map(|base| base.join("coordctl").join("config.toml")).ok_or_else(|| {
            Failure::configuration("neither HOME nor XDG_CONFIG_HOME is set", "name the file with --config")
        })
    }

    /// Reads the file and the context in it.
    pub fn open(&self) -> Result<Context, Failure> {
        let path = self.path()?;
        let config = read_config(&path)?;
        let name = self.context.clone().unwrap_or_else(|| config.current.clone());
        let Some(entry) = config.contexts.get(&name) else {
            let known: Vec<&str> = config.contexts.keys().map(String::as_str).collect();
            return Err(Failure::configuration(
                format!("{} has no context {name:?}", path.display()),
                format!("it has: {}", known.join(", ")),
            ));
        };
        let mut entry = entry.clone();
        if let Some(endpoint) = &self.endpoint {
            entry.endpoints = vec![endpoint.clone()];
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        for file in [&mut entry.ca, &mut entry.certificate, &mut entry.key] {
            *file = folder.join(&file);
        }
        Ok(Context {
            name,
            ca_pem: read_pem(&entry.ca)?,
            certificate_pem: read_pem(&entry.certificate)?,
            key_pem: read_pem(&entry.key)?,
            entry,
        })
    }
}

/// Reads the file; one that is not there says how to get one.
pub fn read_config(path: &Path) -> Result<ConfigFile, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fault = coord_shared::fault::Fault::new(
                coord_shared::fault::ErrorCode::Unauthenticated,
                format!("not logged in: {} does not exist", path.display()),
            );
            let hint = "coordinator operator-token on the coordinator's machine, then coordctl login --token-file - --endpoint HOST:PORT";
            return Err(fault.with_hint(hint).into());
        }
        Err(error) => {
            return Err(Failure::configuration(
                format!("cannot read {}: {error}", path.display()),
                "check its owner and mode",
            ));
        }
    };
    toml::from_str(&text).map_err(|error| {
        Failure::configuration(
            format!("{} is not a configuration: {}", path.display(), error.message()),
            "see coordctl help environment",
        )
    })
}

fn read_pem(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        Failure::configuration(format!("cannot read {}: {error}", path.display()), "coordctl login writes a new one")
    })
}

/// Writes a renewed or first certificate with its key and authority, then the file that names them.
pub fn save(path: &Path, name: &str, entry: &ContextEntry, pems: &Pems<'_>) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = durable::private_folder(folder)
        .and_then(|()| durable::write(&folder.join(&entry.key), pems.key.as_bytes(), durable::SECRET_MODE))
        .and_then(|()| durable::write(&folder.join(&entry.ca), pems.ca.as_bytes(), durable::PUBLIC_MODE))
        .and_then(|()| {
            durable::write(&folder.join(&entry.certificate), pems.certificate.as_bytes(), durable::PUBLIC_MODE)
        });
    written.map_err(|error| {
        Failure::configuration(format!("cannot write in {}: {error}", folder.display()), "check its owner")
    })?;
    let mut config = if path.exists() { read_config(path)? } else { ConfigFile::default() };
    config.contexts.insert(name.to_owned(), entry.clone());
    if config.current.is_empty() {
        name.clone_into(&mut config.current);
    }
    let text = toml::to_string(&config)
        .map_err(|error| Failure::configuration(format!("cannot write {}: {error}", path.display()), ""))?;
    durable::write(path, text.as_bytes(), durable::SECRET_MODE)
        .map_err(|error| Failure::configuration(format!("cannot write {}: {error}", path.display()), "check its owner"))
}

/// What [`save`] writes.
#[derive(Debug, Clone, Copy)]
pub struct Pems<'a> {
    /// The authority.
    pub ca: &'a str,
    /// The certificate.
    pub certificate: &'a str,
    /// The key.
    pub key: &'a str,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{Choice, ContextEntry, Pems, save};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_login_saves_is_what_the_next_command_opens() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("coordctl/config.toml");
        let entry = ContextEntry {
            endpoints: vec!["127.0.0.1:7443".into()],
            ca: "ca.pem".into(),
            certificate: "operator.pem".into(),
            key: "operator.key".into(),
            ..ContextEntry::default()
        };
        save(&path, "default", &entry, &Pems { ca: "CA", certificate: "CERT", key: "KEY" }).unwrap();
        let choice = Choice { config: Some(path.clone()), ..Choice::default() };
        let context = choice.open().unwrap();
        assert_eq!((context.name.as_str(), context.key_pem.as_str()), ("default", "KEY"));
        let mode = std::fs::metadata(path.with_file_name("operator.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let other = Choice { context: Some("other".into()), ..choice };
        assert_eq!(other.open().unwrap_err().exit().code(), 2);
        let absent = Choice { config: Some(scratch.path().join("none.toml")), ..Choice::default() };
        assert_eq!(absent.open().unwrap_err().exit().code(), 4);
    }
}
