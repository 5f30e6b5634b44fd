//! A restore run: every archive is opened before the target is touched, then each job's part is unpacked in turn. What could not be
//! restored exactly is counted, listed, and never hidden behind a success.
//!
//! Not here: how a tree is written safely (the archive package), and which restore point serves which path (the coordinator's plan).

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use coord_archive::entry::is_at_or_below;
use coord_archive::header::Mount;
use coord_archive::reader::ArchiveReader;
use coord_archive::unpack::{self, Listing, Overwrite, UnpackError, UnpackOptions, UnpackReport};
use coord_shared::api::{self, RestorePart, RestoreTask, finished};
use coord_shared::fault::{ErrorCode, Fault};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, statx};
use rustix::io::Errno;

use super::archive::{of_read, open_archive};
use super::backup::{invalid, milliseconds};
use super::notes::note;
use super::work::report_notes;
use super::{Done, Failure, HostWork, RunContext};
use crate::chain::chain;
use crate::printable::printable;
use crate::scan::Selection;
use crate::scan::mounts::Mounts;

/// Folders made on the way to the target.
const FOLDER_MODE: u32 = 0o755;

/// One job's part with its archives open.
struct Part<'a> {
    part: &'a RestorePart,
    full: ArchiveReader,
    differential: Option<ArchiveReader>,
    selection: unpack::Selection,
    /// What the backup looked at: absence elsewhere means nothing.
    covered: Selection,
}

/// Restores.
pub(super) fn run(work: &HostWork, context: &RunContext, task: &RestoreTask) -> Result<Done, Failure> {
    let began = Instant::now();
    context.control.enter(api::Phase::Restoring, 0, 0);
    let overwrite = match task.overwrite() {
        api::Overwrite::Never => Overwrite::Never,
        api::Overwrite::IfChanged => Overwrite::IfChanged,
        api::Overwrite::IfNewer => Overwrite::IfNewer,
        api::Overwrite::Always => Overwrite::Always,
        api::Overwrite::Unspecified => return Err(invalid("the order does not say what to do with files that differ")),
    };
    let own = own_below_target(work, task);
    let open = |part| open(work, task, part, &own);
    let parts: Vec<Part<'_>> = task.parts.iter().map(open).collect::<Result<_, _>>()?;
    if parts.is_empty() {
        return Err(Failure::lasting(Fault::new(ErrorCode::NothingToRestore, "the order names nothing to restore")));
    }
    let mut total = Total::default();
    let mounts = Mounts::read();
    let is_mounted = |recorded: &Mount, folder: BorrowedFd<'_>| {
        let found = statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
        let now = found.map(|found| mounts.of(found.stx_mnt_id, folder));
        now.is_ok_and(|now| now.kind == recorded.file_system && now.identity == recorded.identity)
    };
    for part in &parts {
        context.check_stop()?;
        let target = open_target(&work.root, &task.target_folder)?;
        let covers = |path: &[u8]| {
            let elsewhere = part.part.except_paths.iter().any(|other| is_at_or_below(path, &relative(other)));
            let ours = own.iter().any(|own| is_at_or_below(path, own));
            !elsewhere && !ours && part.covered.covers(path, false) && part.covered.covers(path, true)
        };
        let options = UnpackOptions {
            selection: part.selection.clone(),
            overwrite,
            delete_extra: if task.delete_extra { Some(&covers) } else { None },
            is_mounted: Some(&is_mounted),
            threads: work.threads,
        };
        let unpacked =
            unpack::unpack(&part.full, part.differential.as_ref(), target, &options, context.control.as_ref());
        match unpacked {
            Ok(report) => total.add(context, &report)?,
            Err(UnpackError::NothingThere { path }) if parts.len() > 1 => total.nothing_there(context, &path)?,
            Err(error) => return Err(of_unpack(part, &error).with_result(total.result(began))),
        }
    }
    total.finish(parts.len(), began)
}

/// The agent's own folders, relative to the target: no backup of this host has them, so nothing is written or removed there.
fn own_below_target(work: &HostWork, task: &RestoreTask) -> Vec<Vec<u8>> {
    let target = work.root.join(OsStr::from_bytes(&relative(&task.target_folder)));
    // A target that does not exist yet has nothing of ours below it.
    let Ok(target) = target.canonicalize() else { return Vec::new() };
    let below = work
        .own_folders
        .iter()
        .filter_map(|own| own.canonicalize().ok()?.strip_prefix(&target).ok().map(PathBuf::from));
    below.map(|own| own.into_os_string().into_encoded_bytes()).filter(|own| !own.is_empty()).collect()
}

fn open<'a>(work: &HostWork, task: &RestoreTask, part: &'a RestorePart, own: &[Vec<u8>]) -> Result<Part<'a>, Failure> {
    let location = part.full.as_ref().ok_or_else(|| invalid("a part of the order names no full"))?;
    let full = open_archive(&work.store, location)?;
    let differential = part.differential.as_ref().map(|location| open_archive(&work.store, location)).transpose()?;
    let paths = part.paths.iter().map(|path| relative(path));
    let wrong = |error: unpack::PatternError| invalid(&chain(&error));
    let ours = own.iter().filter_map(|own| std::str::from_utf8(own).ok()).map(pattern).collect();
    let exclude = [task.exclude.clone(), elsewhere(part)?, ours].concat();
    let selection = unpack::Selection::of_paths(paths)
        .and_then(|selection| selection.with_patterns(&task.include, &exclude))
        .map_err(wrong)?;
    let covered = Selection::new(&part.sources, &part.exclude);
    let covered = covered.map_err(|error| Failure::lasting(Fault::new(ErrorCode::InvalidPolicy, chain(&error))))?;
    Ok(Part { part, full, differential, selection, covered })
}

/// Patterns for the subtrees that another part brings back. They are sources of a policy, so they are text.
fn elsewhere(part: &RestorePart) -> Result<Vec<String>, Failure> {
    let text = |path: &Vec<u8>| {
        let path = String::from_utf8(relative(path)).map_err(|_| invalid("a source of the order is no text"))?;
        Ok(pattern(&path))
    };
    part.except_paths.iter().map(text).collect()
}

/// A pattern for this very path and what is below it.
fn pattern(path: &str) -> String {
    format!("/{}", globset::escape(path))
}

fn relative(path: &[u8]) -> Vec<u8> {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    path[start..].to_vec()
}

/// Opens the target below the host's root, as the host itself would follow its links, and makes what is missing of it.
fn open_target(root: &Path, folder: &[u8]) -> Result<OwnedFd, Failure> {
    let folder = relative(folder);
    let unusable = |path: &Path, errno: Errno| {
        let message = format!("cannot use the target /{}: {errno}", printable(&path.display().to_string()));
        let fault = Fault::new(ErrorCode::TargetUnusable, message);
        Failure::lasting(fault.with_hint("name a folder on the target host that can be made or written"))
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(|errno| unusable(Path::new(""), errno))?;
    let open = |path: &Path| match rustix::fs::openat2(&top, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        // An older kernel: the links of the path are then followed as this process sees them.
        Err(Errno::NOSYS) => rustix::fs::openat(&top, path, flags, Mode::empty()),
        other => other,
    };
    let mut walked = PathBuf::new();
    let mut current = open(Path::new(".")).map_err(|errno| unusable(Path::new(""), errno))?;
    for component in Path::new(OsStr::from_bytes(&folder)).components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(unusable(Path::new(OsStr::from_bytes(&folder)), Errno::INVAL));
            }
        };
        walked.push(name);
        current = match open(&walked) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(FOLDER_MODE)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(unusable(&walked, errno)),
                }
                open(&walked).map_err(|errno| unusable(&walked, errno))?
            }
            Ok(folder) => folder,
            Err(errno) => return Err(unusable(&walked, errno)),
        };
    }
    Ok(current)
}

/// What all parts did.
#[derive(Default)]
struct Total {
    result: api::RestoreResult,
    warnings: u64,
    empty_parts: usize,
}

impl Total {
    fn add(&mut self, context: &RunContext, report: &UnpackReport) -> Result<(), Failure> {
        let counts = &report.counts;
        let result = &mut self.result;
        result.restored += counts.files + counts.folders + counts.symlinks + counts.specials + counts.links;
        result.equal += counts.equal;
        result.left_different += report.different.total;
        result.removed += counts.removed;
        result.bytes += counts.bytes;
        result.verified += counts.digests_verified;
        result.damaged += report.damaged.total;
        result.not_settable += report.not_settable.total;
        result.stale += report.stale.total;
        result.unread += report.unread.total;
        let kinds: [(&Listing, &str); 8] = [
            (&report.damaged, "damaged"),
            (&report.failed, "not_restored"),
            (&report.not_found, "not_found"),
            (&report.different, "different"),
            (&report.not_settable, "attribute_not_set"),
            (&report.stale, "stale"),
            (&report.unread, "unread"),
            (&report.changed_while_read, "changed_while_read"),
        ];
        self.warnings += counts.below_blocked;
        for (listing, kind) in kinds {
            self.warnings += listing.total;
            let notes: Vec<_> = listing.listed.iter().map(|found| note(&found.path, kind, &found.why)).collect();
            report_notes(context, &notes)?;
        }
        Ok(())
    }

    fn nothing_there(&mut self, context: &RunContext, path: &[u8]) -> Result<(), Failure> {
        self.empty_parts += 1;
        self.warnings += 1;
        report_notes(context, &[note(path, "not_found", "not in this policy's backup")])
    }

    fn result(&self, began: Instant) -> finished::Result {
        finished::Result::Restore(api::RestoreResult { restore_ms: milliseconds(began.elapsed()), ..self.result })
    }

    fn finish(self, parts: usize, began: Instant) -> Result<Done, Failure> {
        let result = self.result(began);
        if self.empty_parts == parts {
            return Err(Failure::lasting(Fault::new(ErrorCode::NothingToRestore, "none of the paths is in a backup")));
        }
        if self.result.damaged > 0 {
            let message = format!("{} files are damaged in the archive and were not restored", self.result.damaged);
            let hint = "coordctl run warnings RUN lists them; restore them from an earlier time with --at";
            let fault = Fault::new(ErrorCode::ArchiveDamaged, message).with_hint(hint);
            return Err(Failure::lasting(fault).with_result(result));
        }
        Ok(Done { result, warnings_total: self.warnings })
    }
}

fn of_unpack(part: &Part<'_>, error: &UnpackError) -> Failure {
    let key = part.part.full.as_ref().map_or("", |location| &location.key);
    let message = chain(error);
    match error {
        UnpackError::Cancelled => Failure::cancelled(),
        UnpackError::NothingThere { .. } => Failure::lasting(Fault::new(ErrorCode::NothingToRestore, message)),
        UnpackError::Archive { source, .. } => of_read(key, source),
        UnpackError::Index { .. } | UnpackError::WrongBase { .. } | UnpackError::WrongLevel(_) => {
            Failure::lasting(Fault::new(ErrorCode::ArchiveDamaged, message))
        }
        UnpackError::Target { .. } if super::failure::is_disk_full(error) => {
            let fault = Fault::new(ErrorCode::DiskFull, message);
            Failure::lasting(fault.with_hint("make room on the target and restore again: what is in place is kept"))
        }
        UnpackError::Target { .. } => Failure::retryable(Fault::new(ErrorCode::TargetUnusable, message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_part_brings_back_is_left_out_by_its_very_name() {
        let part = |path: &[u8]| RestorePart { except_paths: vec![path.to_vec()], ..RestorePart::default() };
        assert_eq!(elsewhere(&part(b"/srv/w[w]*")).ok(), Some(vec!["/srv/w[[]w[]][*]".to_owned()]));
        assert!(elsewhere(&part(b"srv/\xff")).is_err());
    }
}
