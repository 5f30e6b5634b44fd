//! What a selection would take of this host, for an operator who is writing a policy: a scan that reads no content and stores nothing.
//!
//! Memory is that of a walk and of one part of the answer; everything is counted, and as many names listed as were asked for.

use std::time::{Duration, Instant};

use coord_archive::entry::Kind;
use coord_shared::api::{PreviewName, PreviewNames, PreviewOrder, PreviewTotals, preview_part::Part};
use coord_shared::wire::{MAX_PREVIEW_NAMES, MAX_PREVIEW_NAMES_PER_PART, PREVIEW_PART_BYTES};
use jiff::Timestamp;

use super::backup::{of_scan, rules};
use super::{Failure, HostWork, notes};
use crate::scan::look::Seen;
use crate::scan::selection::Standing;
use crate::scan::{Scan, ScanError, ScanRequest};

/// Longest silence on the way, well below what the coordinator waits.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Warnings that are listed.
const MAX_WARNINGS: usize = 20;

/// Scans as `order` says and gives the answer's parts to `emit`, which says `false` when nobody wants more.
///
/// # Errors
/// The selection makes no sense, or a source is missing or cannot be read.
pub fn preview(
    work: &HostWork,
    order: &PreviewOrder,
    now: Timestamp,
    emit: &mut dyn FnMut(Part) -> bool,
) -> Result<(), Failure> {
    let request = ScanRequest {
        excludes: order.exclude.clone(),
        rules: rules(order.rules.as_ref()),
        own: work.own_folders.clone(),
        ..ScanRequest::new(&work.root, order.sources.clone(), now)
    };
    let scan = Scan::begin(&request).map_err(|error| of_scan(&error))?;
    let mut answer = Answer {
        emit,
        left: order.limit.min(MAX_PREVIEW_NAMES),
        names: Vec::new(),
        bytes: 0,
        said_at: Instant::now(),
        totals: PreviewTotals::default(),
    };
    for seen in scan.look() {
        let seen = seen.map_err(|error| unusable(&error))?;
        // The way to a source is recorded, and not what anybody asked for.
        if scan.selection().standing(&seen.entry.path) == Standing::Ancestor {
            continue;
        }
        if !answer.take(seen) {
            return Err(Failure::cancelled());
        }
    }
    if !answer.say() {
        return Err(Failure::cancelled());
    }
    let found = scan.notes();
    let mut totals = answer.totals;
    totals.left_out = notes::left_out(&found);
    totals.warnings = found.warnings.iter().take(MAX_WARNINGS).map(notes::of_warning).collect();
    totals.warnings_total = found.warning_count;
    (answer.emit)(Part::End(totals));
    Ok(())
}

/// A source that this host has not, or cannot read: a backup would fail as the preview does.
fn unusable(error: &ScanError) -> Failure {
    let mut failure = of_scan(error);
    if failure.fault.hint.is_empty() {
        failure.fault =
            failure.fault.with_hint("a backup would fail so too: mend `sources`, or `hosts`, of the policy");
    }
    failure
}

struct Answer<'a> {
    emit: &'a mut dyn FnMut(Part) -> bool,
    /// Names that may still be listed.
    left: u32,
    names: Vec<PreviewName>,
    /// Bytes of their paths.
    bytes: usize,
    said_at: Instant,
    totals: PreviewTotals,
}

impl Answer<'_> {
    /// Counts a name, and lists it as far as that is wanted. False when nobody wants more.
    fn take(&mut self, seen: Seen) -> bool {
        let entry = seen.entry;
        match entry.kind {
            Kind::File => {
                self.totals.files += 1;
                self.totals.bytes += entry.size;
            }
            Kind::Folder => self.totals.folders += 1,
            Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice | Kind::Tombstone => {
                self.totals.others += 1;
            }
        }
        if self.left > 0 {
            self.left -= 1;
            self.bytes += entry.path.len();
            let kind = word(entry.kind).to_owned();
            self.names.push(PreviewName { path: entry.path, kind, size_bytes: entry.size });
        }
        let is_due = self.names.len() >= MAX_PREVIEW_NAMES_PER_PART
            || self.bytes >= PREVIEW_PART_BYTES
            || self.said_at.elapsed() >= SIGN_OF_LIFE;
        !is_due || self.say()
    }

    fn say(&mut self) -> bool {
        self.bytes = 0;
        self.said_at = Instant::now();
        (self.emit)(Part::Names(PreviewNames { names: std::mem::take(&mut self.names) }))
    }
}

/// The word for a kind on the wire.
const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Folder => "folder",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::CharDevice => "char_device",
        Kind::BlockDevice => "block_device",
        Kind::Tombstone => "tombstone",
    }
}
