//! Indexes on their way into the catalog, apart from the runs that made them: blocks arrive by number and are acknowledged by the
//! first number that is missing; a backup is merged when all of its blocks are there and it is its turn. What never came is
//! asked for again, and given up after a stated time, so that later backups of the job become searchable.

use std::time::Duration;

use coord_archive::block::{BlockError, Limits, decode_stored};
use coord_archive::entry::Entry;
use coord_shared::api::coordinator_message::Message;
use coord_shared::api::{Codec, IndexBlock, IndexProgress, IndexWanted};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{BackupId, HostId, JobId};

use super::App;
use super::jobs::leave_out;
use crate::catalog::{BlockOutcome, CatalogError, IndexIntake, MAX_BLOCK_ENTRIES, MergeOutcome};
use crate::sessions::Session;

/// Jobs looked at in one pass.
const MAX_JOBS: u32 = 100;
/// Backups of one job merged in one pass.
const MAX_MERGES: usize = 20;
/// Indexes asked for again of one host in one pass.
const MAX_ASKED: u32 = 20;
/// Largest stored block, in bytes; honest ones have some hundred KiB.
const MAX_BLOCK_BYTES: usize = 4 << 20;
/// What a block may grow to. Honest ones have some thousand entries of some hundred bytes.
const BLOCK_LIMITS: Limits = Limits { entries: MAX_BLOCK_ENTRIES, text_bytes: 64 << 20 };
/// A host that is connected and has not sent an index for this long has lost it.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The blocks of one stream: all of one backup, as a rule.
#[derive(Debug, Default)]
pub struct Upload {
    current: Option<(BackupId, Option<IndexIntake>)>,
}

impl Upload {
    /// A stream that has brought nothing yet.
    pub fn new() -> Upload {
        Upload::default()
    }

    /// Takes a block. The answer says which is wanted next; complete: stop sending.
    pub async fn accept(&mut self, app: &App, host: HostId, block: IndexBlock) -> Result<IndexProgress, Fault> {
        let backup: BackupId = block.backup_id.parse().map_err(|_| invalid("the backup's id is no UUID"))?;
        let known = self.current.as_ref().is_some_and(|(current, _)| *current == backup);
        if !known {
            self.current = Some((backup, app.catalog.index_intake(backup, host).await?));
        }
        let Some((_, Some(intake))) = &mut self.current else { return Ok(complete(backup)) };
        let number = block.number;
        let stored = match decode(block).await? {
            Ok(entries) => intake.store_block(number, &entries).await,
            Err(error) => return self.give_up(app, backup, &super::chain(&error)).await,
        };
        match stored {
            Ok(BlockOutcome::Stored | BlockOutcome::AlreadyThere) => {}
            Err(error @ CatalogError::BadEntry { .. }) => return self.give_up(app, backup, &error.to_string()).await,
            Err(error) => return Err(error.into()),
        }
        let progress = intake.progress().await?;
        if progress.complete {
            app.nudges.ingester.notify_one();
        }
        Ok(IndexProgress {
            backup_id: backup.to_string(),
            next_block: progress.next_block,
            complete: progress.complete,
        })
    }
}

impl Upload {
    /// The index will not be another one when it is sent again: the backup stays restorable, its entries are not searchable.
    async fn give_up(&mut self, app: &App, backup: BackupId, why: &str) -> Result<IndexProgress, Fault> {
        tracing::warn!(%backup, why, "its index cannot be taken in: given up");
        app.catalog.give_up_index(backup, why).await?;
        self.current = Some((backup, None));
        app.nudges.ingester.notify_one();
        Ok(complete(backup))
    }
}

fn invalid(what: &str) -> Fault {
    Fault::new(ErrorCode::InvalidArgument, format!("the index block cannot be used: {what}"))
}

fn complete(backup: BackupId) -> IndexProgress {
    IndexProgress { backup_id: backup.to_string(), next_block: 0, complete: true }
}

/// Decompresses and checks a block away from the tasks that serve others.
async fn decode(block: IndexBlock) -> Result<Result<Vec<Entry>, BlockError>, Fault> {
    if block.stored.len() > MAX_BLOCK_BYTES {
        return Err(invalid("it is too large"));
    }
    let codec = match block.codec() {
        Codec::Zstd => coord_archive::codec::Codec::Zstd,
        Codec::Gzip => coord_archive::codec::Codec::Gzip,
        Codec::Unspecified => return Err(invalid("no codec")),
    };
    let decoded = tokio::task::spawn_blocking(move || decode_stored(codec, &block.stored, BLOCK_LIMITS)).await;
    decoded.map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))
}

/// Which block of a backup's index is wanted next.
pub async fn progress(app: &App, host: HostId, backup: &str) -> Result<IndexProgress, Fault> {
    let backup: BackupId = backup.parse().map_err(|_| invalid("the backup's id is no UUID"))?;
    let progress = app.catalog.index_progress(backup, host).await?;
    Ok(IndexProgress { backup_id: backup.to_string(), next_block: progress.next_block, complete: progress.complete })
}

/// Merges what is complete and has its turn. Answers whether more is waiting.
pub async fn merge_waiting(app: &App) -> Result<bool, Fault> {
    let jobs = app.catalog.jobs_to_merge(MAX_JOBS).await?;
    let mut more = jobs.len() >= MAX_JOBS as usize;
    for job in jobs {
        match merge_job(app, job).await {
            Ok(rest) => more |= rest,
            Err(fault) => leave_out(app, &format!("the indexes of job {job}"), fault)?,
        }
    }
    Ok(more)
}

async fn merge_job(app: &App, job: JobId) -> Result<bool, Fault> {
    for _ in 0..MAX_MERGES {
        match app.catalog.merge_next(job).await? {
            MergeOutcome::Merged { backup, closed, opened, .. } => {
                tracing::info!(%backup, closed, opened, "searchable");
            }
            MergeOutcome::NotSearchable(backup) => {
                tracing::warn!(%backup, "not searchable: what it stands on is not");
            }
            MergeOutcome::Waiting(_) | MergeOutcome::Nothing => return Ok(false),
        }
    }
    Ok(true)
}

/// Asks the hosts that are connected here for indexes that have not arrived, and gives up what they have lost.
pub async fn ask_for_missing(app: &App) -> Result<(), Fault> {
    for session in app.sessions.all() {
        if let Err(fault) = ask_host(app, &session).await {
            leave_out(app, &format!("the indexes of host {}", session.host), fault)?;
        }
    }
    Ok(())
}

async fn ask_host(app: &App, session: &Session) -> Result<(), Fault> {
    let now = app.catalog.now().await?;
    for backup in app.catalog.wanted_indexes(session.host, MAX_ASKED).await? {
        let progress = app.catalog.index_progress(backup.id, session.host).await?;
        if progress.complete {
            continue;
        }
        if now.duration_since(backup.committed_at).unsigned_abs() > GIVEN_UP_AFTER {
            tracing::warn!(backup = %backup.id, host = %backup.host_name, "its index never came: given up");
            app.catalog.give_up_index(backup.id, "its index was not sent within a day").await?;
            continue;
        }
        let wanted = IndexWanted { backup_id: backup.id.to_string(), next_block: progress.next_block };
        if session.send(Message::IndexWanted(wanted)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
