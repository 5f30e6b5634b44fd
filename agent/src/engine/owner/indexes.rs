//! Which indexes go to the coordinator, and when: one at a time, beside the session.

use std::collections::BTreeSet;
use std::time::Duration;

use coord_shared::api;
use coord_shared::failpoint;
use tokio::time::Instant;

use super::Engine;
use crate::engine::Outgoing;
use crate::journal::{Body, Forgotten};

/// Indexes that the coordinator asked for and that wait for their turn.
const MAX_WANTED_INDEXES: usize = 1000;
/// Wait before those that could not be sent are tried again.
const INDEX_RETRY: Duration = Duration::from_secs(10);

impl Engine {
    /// Indexes to send, of backups that both ends agree on: before that the coordinator would not know what they are.
    pub(super) fn unsent_indexes(&self) -> impl Iterator<Item = &api::ArchiveLocation> {
        let memory = self.journal.memory();
        let open: BTreeSet<&str> = memory
            .attempts()
            .values()
            .filter_map(|held| held.sealed.as_ref())
            .map(|sealed| sealed.backup_id.as_str())
            .collect();
        let mut backups: Vec<_> = memory.backups().values().filter(|backup| backup.index_unsent).collect();
        backups.sort_by_key(|backup| backup.ordinal);
        let unsent = backups.into_iter().filter_map(|backup| backup.location.as_ref());
        unsent.chain(&self.wanted).filter(move |location| !open.contains(location.backup_id.as_str()))
    }

    /// An archive that is older than the journal remembers is where the coordinator says: its seal is compared before it is read.
    pub(super) fn index_wanted(&mut self, wanted: api::IndexWanted) {
        let known = self.journal.memory().backups().get(&wanted.backup_id).and_then(|backup| backup.location.clone());
        let Some(location) = known.or(wanted.location) else { return };
        let waiting = self.wanted.iter().any(|other| other.backup_id == location.backup_id);
        // What does not fit is asked for again.
        if !waiting && self.wanted.len() < MAX_WANTED_INDEXES {
            self.wanted.push_back(location);
            self.next_index = Instant::now();
        }
    }

    /// One that could not be sent keeps no other back: it waits until the others are through, and then for a while.
    pub(super) fn send_next_index(&mut self) {
        if self.sending.is_some() || self.next_index > Instant::now() {
            return;
        }
        let mut unsent = self.unsent_indexes();
        let next = unsent.find(|location| !self.failing.contains(&location.backup_id)).cloned();
        drop(unsent);
        let Some(location) = next else {
            // However the last of the others went.
            if !self.failing.is_empty() {
                self.failing.clear();
                self.next_index = Instant::now() + INDEX_RETRY;
            }
            return;
        };
        let Some(link) = &self.link else { return };
        let backup_id = location.backup_id.clone();
        if link.outgoing.try_send(Outgoing::SendIndex(location)).is_ok() {
            self.sending = Some(backup_id);
        }
    }

    pub(super) fn index_done(&mut self, backup_id: &str, archive_gone: bool) {
        self.sending = None;
        failpoint::reach("agent.index.sent");
        self.failing.remove(backup_id);
        self.wanted.retain(|location| location.backup_id != backup_id);
        if archive_gone {
            tracing::error!(backup = backup_id, "the archive of a backup is damaged: its index cannot be sent");
        }
        self.journal.note(Body::Forgotten(Forgotten { backup_id: backup_id.to_owned(), archive_gone }));
        self.send_next_index();
    }
}
