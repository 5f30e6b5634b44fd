//! What differs between two times, in path order: two views of the same path, walked side by side. Where both times are answered by the
//! same jobs, only folders in which something differs are looked into. Memory is bounded by a page for each part and by the keys of
//! those folders.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use coord_archive::entry::cmp_paths;
use coord_shared::api;
use coord_shared::fault::Fault;

use super::files::{self, Reach, Shown, View};
use super::plan_restore::{instant, planned, points};
use super::restore_points::RestorePoints;
use super::{App, names};
use crate::catalog::VersionKind;
use crate::domain::restore_plan::{Part, Plan};

/// Changes of one batch to the operator.
const BATCH: usize = 500;

/// A comparison that has not begun.
#[derive(Debug)]
pub struct Diff {
    before: View,
    after: View,
    only_totals: bool,
}

/// Opens a comparison.
///
/// # Errors
/// Those of planning, for either time; `not_found` when the path was there at neither; `not_now` when the entries are not in the catalog
/// yet.
pub async fn open(app: &App, request: &api::DiffFilesRequest) -> Result<Diff, Fault> {
    let host = names::host(app, &request.host).await?;
    let path = &request.path;
    let (from, to) = (instant(app, request.from.as_ref()).await?, instant(app, request.to.as_ref()).await?);
    let (old, old_rows) = planned(app, &host, std::slice::from_ref(path), &request.policy, from).await?;
    let (new, new_rows) = planned(app, &host, std::slice::from_ref(path), &request.policy, to).await?;
    let (from_points, to_points) = (points(&old, &old_rows, from)?, points(&new, &new_rows, to)?);
    let within = folders(app, (&old, &old_rows), (&new, &new_rows)).await?;
    let reach = || Reach::Subtree(within.clone());
    let mut before = files::view(app, (old.parts, &old_rows), path, reach()).await?;
    let mut after = files::view(app, (new.parts, &new_rows), path, reach()).await?;
    if let (Some(fault), Some(_)) = (before.missing(), after.missing()) {
        return Err(fault.clone());
    }
    (before.points, after.points) = (from_points, to_points);
    Ok(Diff { before, after, only_totals: request.only_totals })
}

/// The folders to look into, by job. Nothing where a path may belong to one job then and to another now: everything is looked into.
async fn folders(
    app: &App,
    (old, old_rows): (&Plan, &RestorePoints),
    (new, new_rows): (&Plan, &RestorePoints),
) -> Result<HashMap<coord_shared::ids::JobId, Arc<crate::catalog::ChangedFolders>>, Fault> {
    let mut within = HashMap::new();
    if !give_the_same(&old.parts, &new.parts) {
        return Ok(within);
    }
    for part in &old.parts {
        let Some(other) = new.parts.iter().find(|other| other.job == part.job) else { continue };
        let (one, two) = (old_rows.row(part.backup)?.seq, new_rows.row(other.backup)?.seq);
        if let Some(changed) = app.catalog.changed_folders(part.job, one, two).await? {
            within.insert(part.job, Arc::new(changed));
        }
    }
    Ok(within)
}

/// Whether every path belongs to the same job in both.
fn give_the_same(old: &[Part], new: &[Part]) -> bool {
    let same = |part: &Part| {
        let fits = |other: &&Part| other.job == part.job && other.paths == part.paths && other.except == part.except;
        new.iter().any(|other| fits(&other))
    };
    old.len() == new.len() && old.iter().all(same)
}

/// Hands the changes to `see` batch by batch, in path order; the first batch names the restore points, the last has the totals. Comes
/// back when it is over or nobody looks any more (`see` says no).
///
/// # Errors
/// Those of the catalog.
pub async fn walk<S, F>(app: &App, diff: Diff, see: S) -> Result<(), Fault>
where
    S: Fn(api::DiffBatch) -> F,
    F: Future<Output = bool>,
{
    let Diff { mut before, mut after, only_totals } = diff;
    let mut batch = api::DiffBatch {
        from_points: std::mem::take(&mut before.points),
        to_points: std::mem::take(&mut after.points),
        ..api::DiffBatch::default()
    };
    let mut totals = api::DiffTotals::default();
    let (mut old, mut new) = (head(app, &mut before).await?, head(app, &mut after).await?);
    loop {
        let order = match (&old, &new) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => cmp_paths(&old.entry.path, &new.entry.path),
        };
        let gone = if order == Ordering::Greater { None } else { old.take() };
        let come = if order == Ordering::Less { None } else { new.take() };
        if let Some(change) = change(gone.as_ref(), come.as_ref()) {
            count(&mut totals, &change);
            if !only_totals {
                batch.changes.push(change);
            }
        }
        if gone.is_some() {
            old = before.next(app).await?;
        }
        if come.is_some() {
            new = after.next(app).await?;
        }
        if batch.changes.len() >= BATCH && !see(std::mem::take(&mut batch)).await {
            return Ok(());
        }
    }
    batch.totals = Some(totals);
    see(batch).await;
    Ok(())
}

/// The path itself, else the first entry below it.
async fn head(app: &App, view: &mut View) -> Result<Option<Shown>, Fault> {
    match view.take_own() {
        Some(own) => Ok(Some(own)),
        None => view.next(app).await,
    }
}

fn count(totals: &mut api::DiffTotals, change: &api::FileChange) {
    let size = |file: &Option<api::File>| file.as_ref().map_or(0, |file| file.size_bytes);
    match (&change.before, &change.after) {
        (None, _) => {
            totals.added += 1;
            totals.added_bytes += size(&change.after);
        }
        (Some(_), None) => {
            totals.removed += 1;
            totals.removed_bytes += size(&change.before);
        }
        (Some(_), Some(_)) => {
            totals.changed += 1;
            if change.what.iter().any(|what| what == "content") {
                totals.changed_bytes += size(&change.after);
            }
        }
    }
}

/// What became of a path; nothing when it is the same.
fn change(old: Option<&Shown>, new: Option<&Shown>) -> Option<api::FileChange> {
    let (word, what) = match (old, new) {
        (None, None) => return None,
        (None, Some(_)) => ("added", Vec::new()),
        (Some(_), None) => ("removed", Vec::new()),
        (Some(old), Some(new)) => ("changed", differences(old, new)),
    };
    if word == "changed" && what.is_empty() {
        return None;
    }
    let what = what.into_iter().map(str::to_owned).collect();
    Some(api::FileChange {
        change: word.to_owned(),
        before: old.map(files::encode),
        after: new.map(files::encode),
        what,
    })
}

/// In what two states differ. Times of folders change with what is in them, and are no difference of their own.
fn differences(old: &Shown, new: &Shown) -> Vec<&'static str> {
    let (a, b) = (&old.entry, &new.entry);
    if a.state == b.state {
        return Vec::new();
    }
    let all = [
        ("kind", a.kind != b.kind),
        ("content", a.size != b.size || a.digest != b.digest),
        ("mode", a.mode != b.mode),
        ("owner", (a.uid, a.gid) != (b.uid, b.gid)),
        ("mtime", a.mtime != b.mtime),
        ("link_target", a.link_target != b.link_target),
        ("flags", files::flags(a.flags) != files::flags(b.flags)),
    ];
    let found: Vec<&str> = all.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect();
    match found.as_slice() {
        [] => vec!["attributes"],
        ["mtime"] if a.kind == VersionKind::Folder => Vec::new(),
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use coord_archive::digest::Digest;
    use coord_archive::entry::{FileTime, Flags};
    use coord_shared::ids::Seq;

    use super::*;
    use crate::catalog::{FileVersion, ShortDigest};

    fn shown(kind: VersionKind, state: i64) -> Shown {
        let entry = FileVersion {
            path: b"srv/a".to_vec(),
            kind,
            size: 3,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: FileTime::default(),
            digest: Some(ShortDigest::from(&Digest::of(b"one"))),
            link_target: Vec::new(),
            state,
            flags: Flags(0),
            first_seq: Seq(1),
            last_seq: None,
        };
        Shown { entry, policy: "srv".to_owned() }
    }

    #[test]
    fn a_change_says_what_is_different() {
        let old = shown(VersionKind::File, 1);
        let mut new = shown(VersionKind::File, 2);
        assert_eq!(differences(&old, &new), ["attributes"], "what a listing does not show");
        new.entry.digest = Some(ShortDigest::from(&Digest::of(b"two")));
        new.entry.mode = 0o600;
        assert_eq!(differences(&old, &new), ["content", "mode"]);
        assert_eq!(differences(&old, &shown(VersionKind::File, 1)), Vec::<&str>::new(), "changed and back");
    }

    #[test]
    fn a_folder_that_differs_in_times_alone_is_not_different() {
        let old = shown(VersionKind::Folder, 1);
        let mut new = shown(VersionKind::Folder, 2);
        new.entry.mtime.seconds = 7;
        assert!(change(Some(&old), Some(&new)).is_none());
        new.entry.mode = 0o700;
        assert_eq!(differences(&old, &new), ["mode", "mtime"]);
        let file = shown(VersionKind::File, 3);
        assert_eq!(differences(&old, &file), ["kind"]);
    }
}
