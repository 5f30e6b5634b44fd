//! The first pass: folders by one thread, everything else by several.
//!
//! Names go to the threads in batches that stay within one frame, those of a full and of a differential apart, so that a
//! frame is decoded once. Further
//! names of a hard link wait for the second pass, when it is known what they are linked to, and so do its stale names.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::UnpackError;
use super::context::{Context, GroupKey};
use super::folders::Folders;
use super::place::{Hands, Job, place};
use crate::entry::{Entry, Flags, Kind};
use crate::overlay::{Origin, Placed};

/// Most names in one batch: more than the smallest files that fit into a frame of 2 MiB.
const MAX_BATCH_JOBS: usize = 2048;

/// Most bytes of content in one batch of several names.
const MAX_BATCH_BYTES: u64 = 8 << 20;

/// Writes everything but further names of hard links. Returns whether there are any.
pub(super) fn write_all(context: &Context<'_>) -> Result<bool, UnpackError> {
    let threads = match context.options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let failure = Mutex::new(None);
    let (to_workers, batches) = bounded::<Vec<Job>>(threads);
    let produced = std::thread::scope(|scope| {
        for _ in 0..threads {
            let batches = batches.clone();
            scope.spawn(|| work(context, batches, &failure));
        }
        drop(batches);
        produce(context, to_workers)
    });
    let failed = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (failed, produced) {
        (Some(error), _) => Err(error),
        (None, produced) => produced,
    }
}

/// The first error of any thread is kept; the others stop.
fn work(context: &Context<'_>, batches: Receiver<Vec<Job>>, failure: &Mutex<Option<UnpackError>>) {
    let mut hands = Hands::default();
    for batch in batches {
        for job in &batch {
            if context.is_stopped() {
                return;
            }
            if let Err(error) = place(context, &mut hands, job) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                context.stop();
                return;
            }
        }
    }
}

fn produce(context: &Context<'_>, to_workers: Sender<Vec<Job>>) -> Result<bool, UnpackError> {
    let mut folders = Folders::default();
    let mut groups: HashSet<GroupKey> = HashSet::new();
    let mut deferred = false;
    let mut of_full = Batch::new(to_workers.clone());
    let mut of_differential = Batch::new(to_workers);
    let mut stream = context.stream();
    while let Some(picked) = stream.next_picked().inspect_err(|_| context.stop())? {
        folders.enter(&picked);
        if !picked.selected {
            continue;
        }
        if !folders.make(context).inspect_err(|_| context.stop())? {
            if picked.entry().kind != Kind::Folder {
                context.report.count(|counts| counts.below_blocked += 1);
            }
            continue;
        }
        if picked.entry().kind == Kind::Folder {
            context.advance(&picked.entry().path, Some(picked.entry()), 0)?;
            continue;
        }
        if is_deferred(&mut groups, &folders, &picked.placed) {
            deferred = true;
            continue;
        }
        let folder = folders.number();
        let batch = match picked.placed.content {
            Origin::Full => &mut of_full,
            Origin::Differential => &mut of_differential,
        };
        batch.add(Job { placed: picked.placed, number: picked.number, folder });
        if context.is_stopped() {
            return Err(UnpackError::Cancelled);
        }
    }
    of_full.send();
    of_differential.send();
    Ok(deferred)
}

/// Whether a name waits for the second pass: another name of its group comes first, or what is known of it is stale, and
/// the names that were read must not get its attributes. `groups` are those of which a name was met in this pass.
pub(super) fn is_deferred(groups: &mut HashSet<GroupKey>, folders: &Folders, placed: &Placed) -> bool {
    let Some(key) = group_of(placed) else { return false };
    placed.entry.flags.contains(Flags::STALE) || folders.is_stale() || !groups.insert(key)
}

/// The hard-link group that a restore keeps together; `None` for a name of its own or without content to restore.
pub(super) fn group_of(placed: &Placed) -> Option<GroupKey> {
    let Entry { link_group, flags, .. } = &placed.entry;
    (*link_group != 0 && !flags.contains(Flags::UNREAD)).then_some(*link_group)
}

/// Names on their way to one thread, all with content in the same archive.
struct Batch {
    jobs: Vec<Job>,
    bytes: u64,
    frame: Option<u64>,
    to_workers: Sender<Vec<Job>>,
}

impl Batch {
    fn new(to_workers: Sender<Vec<Job>>) -> Self {
        Self { jobs: Vec::new(), bytes: 0, frame: None, to_workers }
    }

    /// Names without content go with whatever is at hand; a new frame begins a new batch.
    fn add(&mut self, job: Job) {
        let frame = job.placed.entry.content.map(|content| content.frame);
        if frame.is_some() && self.frame.is_some() && frame != self.frame {
            self.send();
        }
        self.frame = frame.or(self.frame);
        self.bytes = self.bytes.saturating_add(job.placed.entry.stored_bytes());
        self.jobs.push(job);
        if self.jobs.len() >= MAX_BATCH_JOBS || self.bytes >= MAX_BATCH_BYTES {
            self.send();
        }
    }

    fn send(&mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        self.bytes = 0;
        self.frame = None;
        // It fails only when all threads have ended, each of which has left its error behind.
        if !jobs.is_empty() && self.to_workers.send(jobs).is_err() {
            tracing::debug!("a batch found no thread to take it");
        }
    }
}
