//! Which backup read last what a restore point could not: the state that an operator may want instead.

use coord_archive::entry::Flags;
use coord_shared::fault::Fault;
use coord_shared::ids::{JobId, Seq};
use coord_shared::run::RunKind;

use super::App;
use super::restore_task::{self, RestoreSpec};
use crate::catalog::{Backup, MAX_HISTORY, NoteRecord, PathVersion, RunRecord};

/// Notes looked up for one answer; each takes a query for every policy of the restore.
const MAX_LOOKED_UP: usize = 100;

/// Kinds of notes that mean "not of this backup".
const KINDS: [&str; 2] = ["stale", "unread"];

/// Flags of a state that nobody read.
const NOT_READ: [Flags; 2] = [Flags::STALE, Flags::UNREAD];

/// Completes the notes of a restore: each stale or unread path with the last backup that read it.
///
/// # Errors
/// The catalog's.
pub async fn complete(app: &App, run: &RunRecord, notes: &mut [NoteRecord]) -> Result<(), Fault> {
    let asks = |note: &NoteRecord| KINDS.contains(&note.kind.as_str());
    if run.kind != RunKind::Restore || !notes.iter().any(asks) {
        return Ok(());
    }
    let points = points(app, &restore_task::spec(run)?).await?;
    for note in notes.iter_mut().filter(|note| asks(note)).take(MAX_LOOKED_UP) {
        let mut newest: Option<PathVersion> = None;
        for point in &points {
            let found = last_read(app, point.job, point.seq, &note.path).await?;
            newest = newest.into_iter().chain(found).max_by_key(|version| version.last_captured_at);
        }
        let said = match newest.as_ref().and_then(|version| Some((version.last_backup?, version.last_captured_at?))) {
            Some((backup, at)) => format!("last read by backup {} of {at}", backup.short()),
            None => "no backup that is kept has read it".to_owned(),
        };
        let separator = if note.detail.is_empty() { "" } else { "; " };
        note.detail = format!("{}{separator}{said}", note.detail);
    }
    Ok(())
}

/// The restore points that a restore was made of, as far as they are kept.
async fn points(app: &App, spec: &RestoreSpec) -> Result<Vec<Backup>, Fault> {
    let mut points = Vec::new();
    for part in &spec.parts {
        points.extend(app.catalog.backup(part.backup).await?);
    }
    Ok(points)
}

/// The newest state of `path` before `seq` that was read.
async fn last_read(app: &App, job: JobId, seq: Seq, path: &[u8]) -> Result<Option<PathVersion>, Fault> {
    let mut versions = app.catalog.path_history(job, path, MAX_HISTORY).await?;
    versions.retain(|version| {
        let was_read = NOT_READ.iter().all(|flag| !version.version.flags.contains(*flag));
        was_read && version.version.first_seq < seq && version.last_backup.is_some()
    });
    Ok(versions.pop())
}
