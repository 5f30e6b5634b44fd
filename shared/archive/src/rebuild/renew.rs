//! Another index for what is left: part of the old one is gone.

use std::io::Write as _;

use super::assemble::Assembler;
use super::frames::Finder;
use super::index::Index;
use super::layout::Layout;
use super::members::{MemberReader, Members};
use super::merge::Merge;
use super::names::{Deleted, EntryRuns, Kept};
use super::reunite::zeros;
use super::survey::Survey;
use super::{RebuildError, RebuildOptions, RebuildReport, origin, say, script};
use crate::entry::Kind;
use crate::header::{Header, Level, Rebuilt};
use crate::pack::Sink;
use crate::pack::index_writer::IndexWriter;
use crate::progress::{Advance, Progress};

const HEADER_LOST: &str =
    "the archive's header is lost: host, policy and times are those its instructions name, or none";
const DELETED_LOST: &str =
    "the list of deleted names is lost or cut: names that were deleted since the full may come back with it";
const ATTRIBUTES_LOST: &str =
    "where only attributes had changed since the full, they are lost: those of the full come back";
const FLAGS_LOST: &str = "inode flags (lsattr) are lost";

/// Writes what is left of the members with an index made anew.
pub(super) fn renew(
    survey: &Survey,
    index: &Index,
    finder: &mut Finder<'_>,
    options: &RebuildOptions<'_>,
    sink: Sink<'_>,
) -> Result<RebuildReport, RebuildError> {
    let Sink { out, progress } = sink;
    let layout = Layout::of(survey, index);
    if layout.slots.iter().all(|slot| slot.found.is_none()) {
        return Err(RebuildError::Nothing);
    }
    let folder = out.folder().to_owned();
    let codec = finder.codec();
    let mut writer = IndexWriter::new(&folder, codec, codec.default_level())?;
    let dot_coord = index.header.as_ref().map(|header| header.dot_coord);
    let mut reader = MemberReader::new(&layout, &folder, dot_coord)?;
    for (number, slot) in layout.slots.iter().enumerate() {
        if let Some(found) = &slot.found {
            finder.read_frame(found)?;
            reader.frame(number as u64, finder.raw())?;
            out.write_all(finder.stored()).map_err(RebuildError::Sink)?;
        } else {
            reader.tear()?;
            zeros(u64::from(slot.placed.stored_length), out)?;
        }
        writer.frame(slot.placed)?;
        let bytes = u64::from(slot.placed.raw_length);
        say(progress, Advance { bytes, stored_bytes: u64::from(slot.placed.stored_length), ..Advance::default() })?;
    }
    let mut members = reader.finish()?;
    let (mut header, notes) = header(&mut members, index, options)?;
    let base = options.base.filter(|_| header.level == Level::Differential);
    let mut assembler = Assembler::new(&layout, header.level, base, targets(&members.entries)?, writer);
    // The script is the last member before the index.
    let reaches_end = members.attributes_sh.as_ref().is_some_and(|kept| kept.is_whole);
    let is_gapless = layout.slots.iter().all(|slot| slot.follows && slot.found.is_some());
    let is_every_name_known = index.is_all_blocks() || (reaches_end && is_gapless);
    let script = members.attributes_sh.as_mut().map(|kept| script::read(kept, &folder)).transpose()?;
    let deleted = members.deleted.as_ref().map(Deleted::new);
    let merge = Merge::new(index, &members.entries, deleted, script.as_ref(), finder)?;
    assemble(&mut assembler, merge, finder, progress)?;
    let Assembler { index: writer, totals, lost, from_members, .. } = assembler;
    let older = header.rebuilt.take().unwrap_or_default();
    header.rebuilt = Some(Rebuilt {
        archive_digest: older.archive_digest.or(index.archive_digest),
        renumbered: older.renumbered || (!layout.is_original && layout.slots.iter().any(|slot| !slot.follows)),
        lost: lost.count,
        from_members,
    });
    let footer = writer.finish(&header, totals, out)?;
    let gone = layout.slots.iter().filter(|slot| slot.found.is_none()).count() as u64;
    Ok(RebuildReport {
        footer,
        is_same: false,
        unusable: survey.gaps(),
        lost_frames: layout.is_original.then_some(gone),
        lost,
        from_members,
        names_unknown: !is_every_name_known,
        notes,
    })
}

/// The header, and what has to be said of the archive as a whole.
fn header(
    members: &mut Members,
    index: &Index,
    options: &RebuildOptions<'_>,
) -> Result<(Header, Vec<&'static str>), RebuildError> {
    let text = members.restore_txt.take();
    let has_deleted = members.deleted.is_some();
    let (mut header, is_lost) = origin::header(index.header.as_ref(), text, has_deleted, members.dot_coord, options)?;
    let mut notes = Vec::new();
    if is_lost {
        notes.push(HEADER_LOST);
    }
    let is_indexed = index.is_all_blocks();
    let is_whole = |kept: &Option<Kept>| is_indexed || kept.as_ref().is_some_and(|kept| kept.is_whole);
    match header.level {
        Level::Full if !is_whole(&members.attributes_sh) => notes.push(FLAGS_LOST),
        Level::Full => {}
        Level::Differential => {
            header.base = Some(origin::base(&header, options.base)?);
            if !is_whole(&members.attributes_sh) {
                notes.push(ATTRIBUTES_LOST);
            }
            if !is_whole(&members.deleted) {
                notes.push(DELETED_LOST);
            }
        }
    }
    Ok((header, notes))
}

/// The names that members link to.
fn targets(entries: &EntryRuns) -> Result<Vec<Vec<u8>>, RebuildError> {
    let mut targets = Vec::new();
    for mut run in entries.runs() {
        while let Some(entry) = run.next()? {
            if entry.kind == Kind::File && !entry.link_target.is_empty() {
                targets.push(entry.link_target);
            }
        }
    }
    Ok(targets)
}

fn assemble(
    assembler: &mut Assembler<'_>,
    mut merge: Merge<'_>,
    finder: &mut Finder<'_>,
    progress: &dyn Progress,
) -> Result<(), RebuildError> {
    while let Some(known) = merge.next(finder)? {
        let path = known.path.clone();
        assembler.add(known)?;
        say(progress, Advance { entries: 1, path: &path, ..Advance::default() })?;
    }
    Ok(())
}
