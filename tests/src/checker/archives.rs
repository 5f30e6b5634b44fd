//! Rules over the archives on their hosts: every backup's is there, is the one that was committed and is whole; there is no other.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coord_archive::reader::ArchiveReader;

use super::question::Backup;
use super::{Checked, Ground, Rule, Violation};
use crate::tree::compare::list;

/// Where an agent keeps, for a week, what does not count.
const SET_ASIDE: &[u8] = b".set-aside";
/// The file by which agents know a folder that they share.
const STORE_ID: &[u8] = b".store-id";

pub(super) fn check(ground: &Ground<'_>, backups: &[Backup], checked: &mut Checked) -> Result<Vec<Violation>, String> {
    let mut found = Vec::new();
    let (mut wanted, mut folders) = (BTreeSet::new(), BTreeSet::new());
    for backup in backups {
        let folder = folder(ground, backup)?;
        let path = folder.join(&backup.key);
        if backup.own {
            checked.archives += 1;
            found.extend(one(ground, backup, &path)?);
        }
        wanted.insert(path);
        folders.insert(folder);
    }
    for folder in folders {
        for name in list(&folder).map_err(|error| format!("{}: {error}", folder.display()))?.into_keys() {
            let path = folder.join(OsStr::from_bytes(&name));
            if name.starts_with(SET_ASIDE) || name == STORE_ID || !path.is_file() || wanted.contains(&path) {
                continue;
            }
            let sealed = ArchiveReader::open_path(&path).is_ok();
            let rule = if sealed { Rule::ArchiveWanted } else { Rule::NothingHalfWritten };
            found.push(Violation { rule, what: path.display().to_string() });
        }
    }
    Ok(found)
}

/// The archive folder of a backup's host, as this program reaches it.
pub(super) fn folder(ground: &Ground<'_>, backup: &Backup) -> Result<PathBuf, String> {
    let host =
        ground.hosts.get(backup.host.as_str()).ok_or_else(|| format!("{} is not a host of the story", backup.host))?;
    Ok(host.file(&backup.folder))
}

fn one(ground: &Ground<'_>, backup: &Backup, path: &Path) -> Result<Option<Violation>, String> {
    let broken = |rule, what: String| Some(Violation { rule, what: format!("backup {}: {what}", backup.id) });
    let Ok(metadata) = path.metadata() else {
        return Ok(broken(Rule::ArchiveThere, format!("{} is not there", path.display())));
    };
    let verified = Command::new(&ground.agent_program)
        .args(["archive", "verify", "--quiet", "--threads", "1"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", ground.agent_program.display()))?;
    if !verified.status.success() {
        let said = String::from_utf8_lossy(&verified.stdout).into_owned() + &String::from_utf8_lossy(&verified.stderr);
        return Ok(broken(Rule::ArchiveGood, format!("{}: {said}", path.display())));
    }
    let reader = ArchiveReader::open_path(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if reader.footer().archive_digest.0.as_slice() != backup.digest || metadata.len() != backup.stored_bytes {
        return Ok(broken(Rule::ArchiveSame, format!("{} is another archive", path.display())));
    }
    Ok(None)
}
