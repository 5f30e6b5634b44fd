//! What a restore run has to do, as its row keeps it and as its host is told. The row names backups by id; where their archives are
//! is looked up when the run is given out, so that a restore that waited uses what is there then.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::hex;
use coord_shared::ids::BackupId;
use serde::{Deserialize, Serialize};

use super::App;
use super::backups::{is_damaged, location};
use crate::catalog::{Backup, RunRecord};

/// A restore as the run's row keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSpec {
    /// One for each job, newest first.
    pub parts: Vec<PartSpec>,
    /// Absolute folder on the target host; empty: its own root.
    pub target_folder: Bytes,
    /// never, if_changed, if_newer, always.
    pub overwrite: OverwriteWord,
    /// Remove what the backup does not have.
    pub delete_extra: bool,
    /// Globs of what is wanted; none: everything.
    pub include: Vec<String>,
    /// Globs of what is not.
    pub exclude: Vec<String>,
}

/// One job's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSpec {
    /// The policy's name.
    pub policy: String,
    /// The restore point.
    pub backup: BackupId,
    /// The backup whose archive is the full.
    pub full: BackupId,
    /// The backup whose archive is the differential.
    pub differential: Option<BackupId>,
    /// What is wanted from it.
    pub paths: Vec<Bytes>,
    /// Subtrees of `paths` that belong to another part.
    pub except: Vec<Bytes>,
    /// Sources of the backup's selection, relative to the root.
    pub sources: Vec<Bytes>,
    /// Excludes of the backup's selection.
    pub exclude: Vec<String>,
}

/// What happens to files that are there and differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverwriteWord {
    /// Left and reported.
    Never,
    /// Replaced.
    IfChanged,
    /// Replaced when the backup's is newer.
    IfNewer,
    /// Written again in any case.
    Always,
}

impl OverwriteWord {
    /// The word that a message means; nothing said is `never`.
    pub const fn from_api(overwrite: api::Overwrite) -> Self {
        match overwrite {
            api::Overwrite::Unspecified | api::Overwrite::Never => OverwriteWord::Never,
            api::Overwrite::IfChanged => OverwriteWord::IfChanged,
            api::Overwrite::IfNewer => OverwriteWord::IfNewer,
            api::Overwrite::Always => OverwriteWord::Always,
        }
    }

    const fn to_api(self) -> api::Overwrite {
        match self {
            OverwriteWord::Never => api::Overwrite::Never,
            OverwriteWord::IfChanged => api::Overwrite::IfChanged,
            OverwriteWord::IfNewer => api::Overwrite::IfNewer,
            OverwriteWord::Always => api::Overwrite::Always,
        }
    }
}

/// Bytes that JSON keeps as hexadecimal digits: paths are not text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub Vec<u8>);

/// A text is not hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an even number of hexadecimal digits")]
pub struct NotHex;

impl TryFrom<String> for Bytes {
    type Error = NotHex;

    fn try_from(text: String) -> Result<Self, NotHex> {
        hex::decode(&text).map(Bytes).ok_or(NotHex)
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> String {
        hex::encode(&bytes.0)
    }
}

fn bytes(list: Vec<Bytes>) -> Vec<Vec<u8>> {
    list.into_iter().map(|bytes| bytes.0).collect()
}

/// What a restore run restores.
///
/// # Errors
/// `internal` when its row does not say.
pub fn spec(run: &RunRecord) -> Result<RestoreSpec, Fault> {
    serde_json::from_value(run.spec.clone()).map_err(|error| {
        tracing::error!(run = %run.id, %error, "the task of a restore run does not read");
        Fault::new(ErrorCode::Internal, format!("run {} does not say what to restore", run.id.short()))
    })
}

/// The task that the host of a restore run is given.
///
/// # Errors
/// `archive_damaged` when an archive was found damaged since the run was made, `not_found` when its backup is gone.
pub async fn build(app: &App, run: &RunRecord) -> Result<api::RestoreTask, Fault> {
    let spec = spec(run)?;
    let mut parts = Vec::new();
    for part in spec.parts {
        let full = archive(app, part.full).await?;
        let differential = match part.differential {
            Some(id) => Some(archive(app, id).await?),
            None => None,
        };
        parts.push(api::RestorePart {
            policy_name: part.policy,
            backup_id: part.backup.to_string(),
            full: Some(location(&full)),
            differential: differential.as_ref().map(location),
            paths: bytes(part.paths),
            sources: part.sources.into_iter().map(|source| absolute(&source.0)).collect(),
            exclude: part.exclude,
            except_paths: bytes(part.except),
        });
    }
    Ok(api::RestoreTask {
        parts,
        target_folder: spec.target_folder.0,
        overwrite: spec.overwrite.to_api().into(),
        delete_extra: spec.delete_extra,
        include: spec.include,
        exclude: spec.exclude,
    })
}

/// A backup whose archive can be read as far as the catalog knows.
async fn archive(app: &App, id: BackupId) -> Result<Backup, Fault> {
    let backup = app.catalog.backup(id).await?;
    let backup = backup.ok_or_else(|| Fault::new(ErrorCode::NotFound, format!("backup {id} is gone")))?;
    if is_damaged(&backup) {
        return Err(Fault::new(
            ErrorCode::ArchiveDamaged,
            format!("the archive of backup {} was found damaged meanwhile", id.short()),
        )
        .with_hint("start the restore again: it takes another restore point"));
    }
    Ok(backup)
}

/// A path relative to the root, from the root.
pub fn absolute(path: &[u8]) -> Vec<u8> {
    let mut absolute = Vec::with_capacity(path.len() + 1);
    absolute.push(b'/');
    absolute.extend_from_slice(path);
    absolute
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_restore_keeps_paths_of_any_byte() {
        let spec = RestoreSpec {
            parts: vec![PartSpec {
                policy: "web".to_owned(),
                backup: BackupId::random(),
                full: BackupId::random(),
                differential: None,
                paths: vec![Bytes(b"etc/\xff\n".to_vec()), Bytes(Vec::new())],
                except: Vec::new(),
                sources: vec![Bytes(b"etc".to_vec())],
                exclude: vec!["*.tmp".to_owned()],
            }],
            target_folder: Bytes(b"/tmp/x".to_vec()),
            overwrite: OverwriteWord::IfChanged,
            delete_extra: true,
            include: Vec::new(),
            exclude: Vec::new(),
        };
        let stored = serde_json::to_value(&spec).unwrap();
        assert_eq!(serde_json::from_value::<RestoreSpec>(stored).unwrap(), spec);
        assert!(serde_json::from_str::<Bytes>("\"0g\"").is_err());
    }
}
