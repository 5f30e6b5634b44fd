//! Indexes on their way into the catalog, apart from the runs that made them: blocks arrive by number and are acknowledged by the
//! first number that is missing; a backup is merged when all of its blocks are there and it is its turn. What never came is
//! asked for again, and given up after a stated time, so that later backups of the job become searchable.

use std::collections::VecDeque;
use std::time::Duration;

use coord_archive::block::{Limits, decode_stored};
use coord_shared::api::coordinator_message::Message;
use coord_shared::api::{Codec, IndexBlock, IndexProgress, IndexProgressRequest, IndexWanted};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::{BackupId, HostId, JobId};
use tokio::task::JoinHandle;

use super::jobs::leave_out;
use super::report::bounded;
use super::{App, backups};
use crate::catalog::{Backup, Block, BlockOutcome, CatalogError, IndexIntake, MAX_BLOCK_ENTRIES, MergeOutcome};

/// Jobs looked at in one pass.
const MAX_JOBS: u32 = 100;
/// Backups of one job merged in one pass.
const MAX_MERGES: usize = 20;
/// Indexes asked for in one pass.
const MAX_ASKED: u32 = 200;
/// Blocks of one index that are stored at once, each over a connection of its own.
const MAX_STORING: usize = 2;
/// Largest stored block, in bytes; honest ones have some hundred KiB.
const MAX_BLOCK_BYTES: usize = 4 << 20;
/// What a block may grow to. Honest ones have some thousand entries of some hundred bytes.
const BLOCK_LIMITS: Limits = Limits { entries: MAX_BLOCK_ENTRIES, text_bytes: 64 << 20 };
/// A host that was there to be asked for this long and sent no block has lost the index. One that is away is waited for.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The blocks of one stream: all of one backup, as a rule. While some are stored, the next is made ready.
#[derive(Debug, Default)]
pub struct Upload {
    current: Option<(BackupId, Option<IndexIntake>)>,
    storing: VecDeque<JoinHandle<Result<BlockOutcome, CatalogError>>>,
}

impl Upload {
    /// A stream that has brought nothing yet.
    pub fn new() -> Upload {
        Upload::default()
    }

    /// Takes a block. Complete: nothing more is wanted, or nothing at all.
    pub async fn accept(&mut self, app: &App, host: HostId, block: IndexBlock) -> Result<IndexProgress, Fault> {
        let backup: BackupId = block.backup_id.parse().map_err(|_| invalid("the backup's id is no UUID"))?;
        let known = self.current.as_ref().is_some_and(|(current, _)| *current == backup);
        if !known {
            self.stored(0).await?;
            self.current = Some((backup, app.catalog.index_intake(backup, host).await?));
        }
        let Some((_, Some(intake))) = &mut self.current else { return Ok(complete(backup)) };
        let (number, blocks) = (block.number, intake.blocks());
        let ready = match decode(block).await? {
            Ok(block) => intake.ready(number, block).await,
            Err(why) => return self.give_up(app, backup, &why).await,
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error @ CatalogError::BadEntry { .. }) => return self.give_up(app, backup, &error.to_string()).await,
            Err(error) => return Err(error.into()),
        };
        self.stored(MAX_STORING - 1).await?;
        self.storing.push_back(tokio::spawn(ready.store()));
        // What is missing is asked for once, at the end: for each of thousands of blocks it would be a look at all before it.
        if number + 1 < blocks {
            return Ok(IndexProgress { backup_id: backup.to_string(), next_block: number + 1, complete: false });
        }
        self.progress(app).await
    }

    /// Which block is wanted next, when the stream has ended. Complete: none.
    pub async fn progress(&mut self, app: &App) -> Result<IndexProgress, Fault> {
        self.stored(0).await?;
        let Some((backup, intake)) = &self.current else { return Ok(IndexProgress::default()) };
        let Some(intake) = intake else { return Ok(complete(*backup)) };
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

    /// Waits until no more than `left` blocks are being stored.
    async fn stored(&mut self, left: usize) -> Result<(), Fault> {
        while self.storing.len() > left {
            let Some(storing) = self.storing.pop_front() else { break };
            let stored = storing.await.map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?;
            if stored? == BlockOutcome::Withdrawn {
                let why = "the index is not taken in any more, or from its first block again";
                return Err(Fault::new(ErrorCode::Unavailable, why));
            }
        }
        Ok(())
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

/// Decompresses and checks a block away from the tasks that serve others. Inside: why it will never be a good one.
async fn decode(block: IndexBlock) -> Result<Result<Block, String>, Fault> {
    if block.stored.len() > MAX_BLOCK_BYTES {
        return Err(invalid("it is too large"));
    }
    let codec = match block.codec() {
        Codec::Zstd => coord_archive::codec::Codec::Zstd,
        Codec::Gzip => coord_archive::codec::Codec::Gzip,
        Codec::Unspecified => return Err(invalid("no codec")),
    };
    let decoded = tokio::task::spawn_blocking(move || {
        let entries = decode_stored(codec, &block.stored, BLOCK_LIMITS).map_err(|error| super::chain(&error))?;
        Block::new(entries).map_err(|error| error.to_string())
    })
    .await;
    decoded.map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))
}

/// Which block of a backup's index is wanted next. A host that cannot send it says why: a damaged archive is given up at once, one
/// that is not there may come back.
pub async fn progress(app: &App, host: HostId, request: &IndexProgressRequest) -> Result<IndexProgress, Fault> {
    let backup: BackupId = request.backup_id.parse().map_err(|_| invalid("the backup's id is no UUID"))?;
    if !request.unavailable.is_empty() {
        let said = bounded(&request.unavailable);
        if app.catalog.note_index_excuse(backup, host, &said).await? && request.for_good {
            tracing::warn!(%backup, said, "its index cannot be sent: given up");
            app.catalog.give_up_index(backup, &format!("the host cannot send its index: {said}")).await?;
            app.nudges.ingester.notify_one();
        }
    }
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
    let hosts: Vec<HostId> = app.sessions.hosts();
    if hosts.is_empty() {
        return Ok(());
    }
    for backup in app.catalog.indexes_to_ask_for(&hosts, MAX_ASKED).await? {
        if let Err(fault) = ask(app, &backup).await {
            leave_out(app, &format!("the index of backup {}", backup.id), fault)?;
        }
    }
    Ok(())
}

async fn ask(app: &App, backup: &Backup) -> Result<(), Fault> {
    let progress = app.catalog.index_progress(backup.id, backup.host).await?;
    if progress.complete {
        return Ok(());
    }
    let Some(session) = app.sessions.get(backup.host) else { return Ok(()) };
    let Some(asked) = app.catalog.ask_for_index(backup.id, progress.next_block).await? else { return Ok(()) };
    if asked.asked_for > GIVEN_UP_AFTER {
        tracing::warn!(backup = %backup.id, host = %backup.host_name, "its index never came: given up");
        let said = if asked.said.is_empty() { String::new() } else { format!("; it says: {}", asked.said) };
        let why = format!("{} was asked for its index for a day and did not send it{said}", backup.host_name);
        app.catalog.give_up_index(backup.id, &why).await?;
        app.nudges.ingester.notify_one();
        return Ok(());
    }
    // A session that does not take it has ended: the host is asked again when it is back.
    let _ended = session.send(Message::IndexWanted(IndexWanted {
        backup_id: backup.id.to_string(),
        next_block: progress.next_block,
        location: Some(backups::location(backup)),
    }));
    Ok(())
}
