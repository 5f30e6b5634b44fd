//! The last rule: a restore point has, to the last attribute, the tree that was there at its time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::archives::folder;
use super::question::Backup;
use super::{Checked, Ground, Recorded, Rule, Violation, differences};

/// `extract` says that it is done, or done with a list to read: the comparison says what that list means.
const DONE: [i32; 2] = [0, 3];

pub(super) fn check(ground: &Ground<'_>, backups: &[Backup], checked: &mut Checked) -> Result<Vec<Violation>, String> {
    let mut found = Vec::new();
    for backup in backups {
        let Some(state) = state_at(ground.states, backup) else { continue };
        let target = ground.scratch.join(format!("point-{}", backup.id));
        unpack(ground, backup, &target)?;
        let differs = differences(&state.tree, &target.join("srv"))?;
        checked.trees += 1;
        if let Some(first) = differs.first() {
            let what =
                format!("backup {} of {}: {} differences, such as {first}", backup.id, backup.host, differs.len());
            found.push(Violation { rule: Rule::PointExact, what });
        }
        fs::remove_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    }
    Ok(found)
}

/// What was recorded last before the backup was done with reading.
fn state_at<'a>(states: &'a [Recorded], backup: &Backup) -> Option<&'a Recorded> {
    states.iter().rev().find(|state| state.host == backup.host && state.since <= backup.captured_at)
}

fn unpack(ground: &Ground<'_>, backup: &Backup, target: &Path) -> Result<(), String> {
    let host =
        ground.hosts.get(backup.host.as_str()).ok_or_else(|| format!("{} is not a host of the story", backup.host))?;
    let own = folder(ground, backup)?.join(&backup.key);
    let mut command = Command::new(&ground.agent_program);
    command.args(["archive", "extract", "--quiet", "--threads", "1", "--target"]).arg(target);
    if let Some((full_folder, key)) = &backup.base {
        command.arg(host.file(full_folder).join(key));
    }
    let done = command.arg(&own).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if done.status.code().is_some_and(|code| DONE.contains(&code)) {
        return Ok(());
    }
    Err(format!("backup {} cannot be unpacked: {}", backup.id, String::from_utf8_lossy(&done.stderr)))
}
