//! The operator's contexts: which coordinator, and as whom. One TOML file; the PEM files it names lie beside it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use coord_shared::durable;
use coord_shared::fault::{ErrorCode, Fault};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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

impl ConfigFile {
    /// A context by name.
    pub fn get(&self, name: &str, path: &Path) -> Result<&ContextEntry, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            Failure::configuration(
                format!("{} has no context {name:?}", path.display()),
                format!("it has: {}", known.join(", ")),
            )
        })
    }
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

impl ContextEntry {
    /// Its certificate and key were removed by `coordctl logout`.
    #[must_use]
    pub fn is_logged_out(&self) -> bool {
        self.certificate.as_os_str().is_empty()
    }

    /// The entry with paths as this process can open them.
    #[must_use]
    pub fn beside(mut self, config: &Path) -> ContextEntry {
        let folder = folder_of(config);
        for file in [&mut self.ca, &mut self.certificate, &mut self.key] {
            *file = folder.join(&file);
        }
        self
    }
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
        let mut entry = config.get(&name, &path)?.clone();
        if entry.is_logged_out() {
            let fault = Fault::new(ErrorCode::Unauthenticated, format!("context {name} is logged out"));
            let hint = format!("coordctl login --name {name} --token-file - --endpoint HOST:PORT");
            return Err(fault.with_hint(hint).into());
        }
        if let Some(endpoint) = &self.endpoint {
            entry.endpoints = vec![endpoint.clone()];
        }
        let entry = entry.beside(&path);
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
            let fault =
                Fault::new(ErrorCode::Unauthenticated, format!("not logged in: {} does not exist", path.display()));
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

/// Reads a certificate, a key or an authority.
pub fn read_pem(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        Failure::configuration(format!("cannot read {}: {error}", path.display()), "coordctl login writes a new one")
    })
}

/// The configuration file, while this process alone changes it.
#[derive(Debug)]
pub struct Locked {
    path: PathBuf,
    // Unlocked when it is closed.
    _lock: File,
}

impl Locked {
    /// Waits for other commands that change the file. Makes its folder, open to its owner only, where it is missing; one that is
    /// there may hold other things and keeps its mode.
    pub fn wait(path: &Path) -> Result<Locked, Failure> {
        let folder = folder_of(path);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        let lock = path.with_extension("lock");
        let open =
            || OpenOptions::new().create(true).truncate(false).write(true).mode(durable::SECRET_MODE).open(&lock);
        let locked = made.and_then(|()| open()).and_then(|file| file.lock().map(|()| file));
        let lock = locked.map_err(|error| {
            Failure::configuration(format!("cannot write in {}: {error}", folder.display()), "check its owner")
        })?;
        Ok(Locked { path: path.to_owned(), _lock: lock })
    }

    /// The file as it is now; an empty one where there is none yet.
    pub fn config(&self) -> Result<ConfigFile, Failure> {
        if self.path.exists() { read_config(&self.path) } else { Ok(ConfigFile::default()) }
    }

    /// The entry of a context as it is now.
    pub fn entry(&self, name: &str) -> Result<Option<ContextEntry>, Failure> {
        Ok(self.config()?.contexts.remove(name))
    }

    /// Writes a certificate with its key and authority under names of their own, and then the file that names them: a command that
    /// is killed in between leaves the old three or the new three, never a key with another's certificate.
    pub fn save(&self, name: &str, entry: &ContextEntry, pems: &Pems<'_>) -> Result<(), Failure> {
        let folder = folder_of(&self.path);
        let generation = Uuid::new_v4().simple().to_string();
        let file = |what: &str| PathBuf::from(format!("{name}-{}-{what}", &generation[..8]));
        let entry = ContextEntry {
            ca: file("ca.pem"),
            certificate: file("operator.pem"),
            key: file("operator.key"),
            ..entry.clone()
        };
        let files = [
            (&entry.key, pems.key, durable::SECRET_MODE),
            (&entry.ca, pems.ca, durable::PUBLIC_MODE),
            (&entry.certificate, pems.certificate, durable::PUBLIC_MODE),
        ];
        for (file, text, mode) in files {
            let path = folder.join(file);
            durable::write(&path, text.as_bytes(), mode).map_err(|error| not_written(&path, &error))?;
        }
        self.change(|config| {
            let before = config.contexts.insert(name.to_owned(), entry);
            if config.current.is_empty() {
                name.clone_into(&mut config.current);
            }
            Ok(before)
        })
    }

    /// Makes a context the current one.
    pub fn select(&self, name: &str) -> Result<(), Failure> {
        self.change(|config| {
            config.get(name, &self.path)?;
            name.clone_into(&mut config.current);
            Ok(None)
        })
    }

    /// Removes a context with its certificate and key.
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        self.change(|config| {
            config.get(name, &self.path)?;
            if config.current == name {
                config.current.clear();
            }
            Ok(config.contexts.remove(name))
        })
    }

    /// Removes a context's certificate and key; its endpoints and its authority stay for the next login.
    pub fn forget_credentials(&self, name: &str) -> Result<(), Failure> {
        self.change(|config| {
            let before = config.get(name, &self.path)?.clone();
            let after = ContextEntry { certificate: PathBuf::new(), key: PathBuf::new(), ..before.clone() };
            config.contexts.insert(name.to_owned(), after);
            Ok(Some(before))
        })
    }

    /// Changes the file, and removes the files of the entry that it names no longer.
    fn change(
        &self,
        change: impl FnOnce(&mut ConfigFile) -> Result<Option<ContextEntry>, Failure>,
    ) -> Result<(), Failure> {
        let mut config = self.config()?;
        let before = change(&mut config)?;
        let text = toml::to_string(&config)
            .map_err(|error| Failure::configuration(format!("cannot write {}: {error}", self.path.display()), ""))?;
        durable::write(&self.path, text.as_bytes(), durable::SECRET_MODE)
            .map_err(|error| not_written(&self.path, &error))?;
        if let Some(before) = before {
            remove_unnamed(&folder_of(&self.path), &before, &config);
        }
        Ok(())
    }
}

fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::configuration(format!("cannot write {}: {error}", path.display()), "check its owner")
}

/// Removes the files of an entry that was replaced, if they lie beside the configuration and no context names them.
fn remove_unnamed(folder: &Path, before: &ContextEntry, config: &ConfigFile) {
    let named = |file: &PathBuf| {
        config.contexts.values().any(|entry| [&entry.ca, &entry.certificate, &entry.key].contains(&file))
    };
    for file in [&before.ca, &before.certificate, &before.key] {
        if file.components().count() == 1 && !named(file) {
            // A file that stays is of no use to anybody and does no harm.
            drop(fs::remove_file(folder.join(file)));
        }
    }
}

fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// What [`Locked::save`] writes.
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
    use super::{Choice, ContextEntry, Locked, Pems};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    const FIRST: Pems<'_> = Pems { ca: "CA", certificate: "CERT", key: "KEY" };

    fn entry() -> ContextEntry {
        ContextEntry { endpoints: vec!["127.0.0.1:7443".into()], ..ContextEntry::default() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_login_saves_is_what_the_next_command_opens() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("coordctl/config.toml");
        Locked::wait(&path).unwrap().save("default", &entry(), &FIRST).unwrap();
        let choice = Choice { config: Some(path.clone()), ..Choice::default() };
        let context = choice.open().unwrap();
        assert_eq!((context.name.as_str(), context.key_pem.as_str()), ("default", "KEY"));
        assert_eq!((mode(&context.entry.key), mode(path.parent().unwrap())), (0o600, 0o700));

        let other = Choice { context: Some("other".into()), ..choice };
        assert_eq!(other.open().unwrap_err().exit().code(), 2);
        let absent = Choice { config: Some(scratch.path().join("none.toml")), ..Choice::default() };
        assert_eq!(absent.open().unwrap_err().exit().code(), 4);
    }

    #[test]
    fn a_context_that_is_logged_out_or_removed_leaves_no_key_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("config.toml");
        let locked = Locked::wait(&path).unwrap();
        locked.save("a", &entry(), &FIRST).unwrap();
        locked.save("b", &entry(), &FIRST).unwrap();
        let files = || {
            let names = fs::read_dir(scratch.path()).unwrap().map(|file| file.unwrap().file_name());
            names.filter_map(|name| name.into_string().ok()).collect::<Vec<_>>()
        };
        let count = |prefix: &str| files().iter().filter(|name| name.starts_with(prefix)).count();

        locked.forget_credentials("a").unwrap();
        assert_eq!(count("a-"), 1, "the authority stays: {:?}", files());
        let choice = Choice { config: Some(path.clone()), ..Choice::default() };
        let failure = choice.open().unwrap_err();
        assert_eq!(failure.exit().code(), 4, "{failure:?}");

        locked.select("b").unwrap();
        assert_eq!(choice.open().unwrap().name, "b");
        assert_eq!(locked.select("c").unwrap_err().exit().code(), 2);
        locked.remove("b").unwrap();
        assert_eq!((count("b-"), count("a-")), (0, 1), "{:?}", files());
        assert_eq!(locked.config().unwrap().current, "", "no context is taken that nobody chose");
    }

    #[test]
    fn a_renewal_replaces_all_three_files_and_leaves_the_folder_as_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(scratch.path().join("notes"), "mine").unwrap();
        let path = scratch.path().join("config.toml");
        Locked::wait(&path).unwrap().save("a", &entry(), &FIRST).unwrap();
        let locked = Locked::wait(&path).unwrap();
        let before = locked.entry("a").unwrap().unwrap();
        locked.save("a", &before, &Pems { ca: "CA2", certificate: "CERT2", key: "KEY2" }).unwrap();

        let context = Choice { config: Some(path), ..Choice::default() }.open().unwrap();
        assert_eq!((context.key_pem.as_str(), context.certificate_pem.as_str()), ("KEY2", "CERT2"));
        assert_eq!(mode(scratch.path()), 0o755, "other people's files are in it");
        // The configuration, its lock, three new files and what was there.
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 6);
    }
}
