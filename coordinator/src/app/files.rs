//! What a host's folder held at a time. Each part of the plan lists its own restore point; the lists are merged in path order, and a
//! path is shown by the part that would restore it. Memory is bounded by a page for each part.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use coord_archive::entry::{Flags, cmp_paths, is_at_or_below};
use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::JobId;

use super::plan_restore::{instant, planned, points};
use super::restore_points::RestorePoints;
use super::{App, names};
use crate::catalog::{Backup, ChangedFolders, FileVersion, Searchable, SubtreeWalk, VersionKind};
use crate::domain::restore_plan::{Part, shown};

/// Entries of one batch to the operator.
const BATCH: usize = 500;
/// Longest wait for entries that are on their way, and how often they are looked for.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);
/// Entries that one part reads ahead.
const PAGE: u32 = 1000;

/// What a path held at a time: entries in path order, each as the part shows it that would restore it.
#[derive(Debug)]
pub struct View {
    /// Which restore points answer.
    pub points: Vec<api::RestorePoint>,
    /// The path looked at.
    path: Vec<u8>,
    /// The entry of the path itself; none when it was not there.
    own: Option<Shown>,
    /// What it holds, where it is a folder.
    lists: Vec<List>,
    /// Why the path was not there.
    missing: Option<Fault>,
}

/// An entry of a view.
#[derive(Debug)]
pub struct Shown {
    /// The entry.
    pub entry: FileVersion,
    /// By which policy.
    pub policy: String,
}

/// How far a view reaches.
#[derive(Debug)]
pub enum Reach {
    /// What is directly in the path.
    Folder,
    /// Everything below it; of a job that is named here, only what is in these folders.
    Subtree(HashMap<JobId, Arc<ChangedFolders>>),
}

/// One part's list.
#[derive(Debug)]
struct List {
    part: Part,
    cursor: Cursor,
    waiting: VecDeque<FileVersion>,
    finished: bool,
}

#[derive(Debug)]
enum Cursor {
    Folder { row: Box<Backup>, after: Option<Vec<u8>> },
    Subtree(Box<SubtreeWalk>),
}

/// Whether a part would restore `path`.
pub fn gives(part: &Part, path: &[u8]) -> bool {
    let within = |list: &[Vec<u8>]| list.iter().any(|outer| is_at_or_below(path, outer));
    within(&part.paths) && !within(&part.except)
}

/// Whether `path` lies on the way to something that a part would restore.
fn leads_to(part: &Part, path: &[u8]) -> bool {
    part.paths.iter().any(|inner| is_at_or_below(inner, path))
}

/// The state of a path at a restore point; none when its entries are not in the catalog.
///
/// # Errors
/// `not_found` when the path was not there.
pub async fn entry(app: &App, row: &Backup, path: &[u8]) -> Result<Option<FileVersion>, Fault> {
    if row.searchable != Searchable::Searchable {
        return Ok(None);
    }
    match app.catalog.find_path(row.job, row.seq, path).await? {
        Some(entry) => Ok(Some(entry)),
        None => Err(absent(path, row)),
    }
}

fn absent(path: &[u8], row: &Backup) -> Fault {
    Fault::new(
        ErrorCode::NotFound,
        format!("{} was not there at {} (policy {})", shown(path), row.captured_at, row.policy_name),
    )
    .with_hint("another --at, or coordctl ls of the folder above, shows what was")
}

fn not_searchable(row: &Backup) -> Fault {
    let why =
        if row.searchable_reason.is_empty() { "they are still on their way" } else { row.searchable_reason.as_str() };
    Fault::new(ErrorCode::NotNow, format!("the entries of backup {} are not in the catalog: {why}", row.id.short()))
        .with_hint(if row.searchable_reason.is_empty() {
            "try again in a moment; coordctl restore works without them".to_owned()
        } else {
            let job = format!("{}/{}", row.host_name, row.policy_name);
            format!("coordctl catalog rebuild {job} asks for its index again; coordctl restore works without it")
        })
}

/// The restore point once its entries are in the catalog. Right after a backup they are on their way: they are waited for.
async fn searchable(app: &App, row: &Backup) -> Result<Backup, Fault> {
    let mut row = row.clone();
    let mut waited = Duration::ZERO;
    while row.searchable == Searchable::Pending && waited < PATIENCE {
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
        row = app.catalog.backup(row.id).await?.unwrap_or(row);
    }
    if row.searchable == Searchable::Searchable { Ok(row) } else { Err(not_searchable(&row)) }
}

/// Opens a listing.
///
/// # Errors
/// Those of planning; `not_found` when the path was not there; `not_now` when the entries are not in the catalog yet.
pub async fn open(app: &App, request: &api::ListFilesRequest) -> Result<View, Fault> {
    let host = names::host(app, &request.host).await?;
    let at = instant(app, request.at.as_ref()).await?;
    let (plan, rows) = planned(app, &host, std::slice::from_ref(&request.path), &request.policy, at).await?;
    let points = points(&plan, &rows, at)?;
    let reach = if request.recursive { Reach::Subtree(HashMap::new()) } else { Reach::Folder };
    let view = view(app, (plan.parts, &rows), &request.path, reach).await?;
    match view.missing {
        Some(fault) => Err(fault),
        None => Ok(View { points, ..view }),
    }
}

/// Opens a view of planned parts. A path that was not there is an empty view; [`View::missing`] says why.
///
/// # Errors
/// `not_now` when the entries are not in the catalog yet.
pub async fn view(
    app: &App,
    (parts, rows): (Vec<Part>, &RestorePoints),
    path: &[u8],
    reach: Reach,
) -> Result<View, Fault> {
    let mut view = View { points: Vec::new(), path: path.to_vec(), own: None, lists: Vec::new(), missing: None };
    let mut missing = None;
    for part in parts {
        let row = &searchable(app, rows.row(part.backup)?).await?;
        let Some(entry) = app.catalog.find_path(row.job, row.seq, path).await? else {
            missing = missing.or_else(|| Some(absent(path, row)));
            continue;
        };
        let is_folder = entry.kind == VersionKind::Folder;
        let policy = part.policy.to_string();
        // What is no folder is shown by the part that would restore it; a folder on the way by the newest.
        if (is_folder && view.own.is_none()) || (!is_folder && gives(&part, path)) {
            view.own = Some(Shown { entry, policy });
        }
        if is_folder {
            let cursor = match &reach {
                Reach::Subtree(changed) => {
                    let within = changed.get(&row.job).map(Arc::clone);
                    Cursor::Subtree(Box::new(app.catalog.walk_subtree(row.job, row.seq, path, within).await?))
                }
                Reach::Folder => Cursor::Folder { row: Box::new(row.clone()), after: None },
            };
            view.lists.push(List { part, cursor, waiting: VecDeque::new(), finished: false });
        }
    }
    if view.own.is_none() {
        view.missing = missing;
    }
    Ok(view)
}

impl View {
    /// Why the path was not there.
    pub fn missing(&self) -> Option<&Fault> {
        self.missing.as_ref()
    }

    /// The entry of the path itself, once.
    pub fn take_own(&mut self) -> Option<Shown> {
        self.own.take()
    }

    /// The next entry below the path, in path order.
    ///
    /// # Errors
    /// Those of the catalog.
    pub async fn next(&mut self, app: &App) -> Result<Option<Shown>, Fault> {
        for list in &mut self.lists {
            fill(app, list, &self.path).await?;
        }
        let heads = self
            .lists
            .iter()
            .enumerate()
            .filter_map(|(number, list)| list.waiting.front().map(|head| (number, &list.part, head)));
        // Of equal paths the one is shown that would be restored; a folder on the way is shown by the newest.
        let order = |a: &(usize, &Part, &FileVersion), b: &(usize, &Part, &FileVersion)| -> Ordering {
            cmp_paths(&a.2.path, &b.2.path)
                .then_with(|| gives(b.1, &b.2.path).cmp(&gives(a.1, &a.2.path)))
                .then_with(|| a.0.cmp(&b.0))
        };
        let Some((_, part, head)) = heads.min_by(order) else { return Ok(None) };
        let shown = Shown { entry: head.clone(), policy: part.policy.to_string() };
        for list in &mut self.lists {
            if list.waiting.front().is_some_and(|head| head.path == shown.entry.path) {
                list.waiting.pop_front();
            }
        }
        Ok(Some(shown))
    }
}

/// Hands the listing to `see` batch by batch, in path order; the first batch names the restore points. Comes back when it is over
/// or nobody looks any more (`see` says no).
///
/// # Errors
/// Those of the catalog.
pub async fn walk<S, F>(app: &App, mut view: View, see: S) -> Result<(), Fault>
where
    S: Fn(api::FileBatch) -> F,
    F: Future<Output = bool>,
{
    let points = std::mem::take(&mut view.points);
    // A folder is listed by what it holds, anything else by itself.
    let own = view.take_own().filter(|own| own.entry.kind != VersionKind::Folder);
    let mut batch = api::FileBatch { points, files: own.iter().map(encode).collect() };
    while let Some(shown) = view.next(app).await? {
        batch.files.push(encode(&shown));
        if batch.files.len() >= BATCH && !see(std::mem::take(&mut batch)).await {
            return Ok(());
        }
    }
    if !batch.files.is_empty() || !batch.points.is_empty() {
        see(batch).await;
    }
    Ok(())
}

/// Reads ahead until something is waiting that belongs into the listing, or the list is over.
async fn fill(app: &App, list: &mut List, folder: &[u8]) -> Result<(), Fault> {
    while list.waiting.is_empty() && !list.finished {
        let entries = match &mut list.cursor {
            Cursor::Folder { row, after } => {
                let page = app.catalog.list_folder(row.job, row.seq, folder, after.as_deref(), PAGE).await?;
                list.finished = !page.more;
                *after = page.entries.last().map(|entry| name(&entry.path).to_vec());
                page.entries
            }
            Cursor::Subtree(walk) => {
                let entries = walk.next_batch(BATCH).await?;
                list.finished = entries.is_empty();
                entries
            }
        };
        let part = &list.part;
        let belongs =
            |entry: &FileVersion| entry.path != folder && (gives(part, &entry.path) || leads_to(part, &entry.path));
        list.waiting.extend(entries.into_iter().filter(belongs));
    }
    Ok(())
}

fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// An entry on the wire.
pub fn encode(shown: &Shown) -> api::File {
    let Shown { entry, policy } = shown;
    api::File {
        path: entry.path.clone(),
        kind: entry.kind.as_str().to_owned(),
        size_bytes: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime_s: entry.mtime.seconds,
        mtime_ns: entry.mtime.nanos,
        digest: entry.digest.map(|digest| digest.0.to_vec()).unwrap_or_default(),
        link_target: entry.link_target.clone(),
        flags: flags(entry.flags),
        policy: policy.clone(),
    }
}

/// What is the matter with an entry, in words.
pub fn flags(flags: Flags) -> Vec<String> {
    let words = [(Flags::CHANGED_WHILE_READ, "changed_while_read"), (Flags::STALE, "stale"), (Flags::UNREAD, "unread")];
    words.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, word)| word.to_owned()).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use coord_shared::ids::BackupId;
    use coord_shared::slug::PolicySlug;

    use super::*;

    #[test]
    fn a_path_is_given_by_the_part_that_would_restore_it() {
        let part = Part {
            backup: BackupId::random(),
            job: JobId::random(),
            policy: PolicySlug::new("web").unwrap(),
            captured_at: jiff::Timestamp::UNIX_EPOCH,
            full: BackupId::random(),
            differential: None,
            paths: vec![b"srv".to_vec(), b"var/lib".to_vec()],
            except: vec![b"srv/www".to_vec()],
        };
        assert!(gives(&part, b"srv") && gives(&part, b"srv/a") && gives(&part, b"var/lib/x"));
        assert!(
            !gives(&part, b"srv/www") && !gives(&part, b"srv/www/x") && !gives(&part, b"var") && !gives(&part, b"")
        );
        assert!(leads_to(&part, b"var") && leads_to(&part, b"") && !leads_to(&part, b"etc"));
        assert_eq!(name(b"srv/a"), b"a");
        assert_eq!(name(b"srv"), b"srv");
    }
}
