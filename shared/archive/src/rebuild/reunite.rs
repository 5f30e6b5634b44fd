//! The same archive again: all of its index is there, so every frame's place and digest are known.

use std::collections::HashMap;
use std::io::Write as _;

use super::frames::Finder;
use super::index::Index;
use super::survey::Survey;
use super::{Lost, RebuildError, RebuildReport, frames_of, say};
use crate::block;
use crate::digest::Digest;
use crate::entry::{Flags, Kind};
use crate::file::SealedFile;
use crate::footer::{FORMAT_VERSION, Footer};
use crate::header::Level;
use crate::progress::{Advance, Progress};
use crate::table::{FrameInfo, Table};

/// Writes the archive that `index` describes out of the frames that are left.
pub(super) fn reunite(
    survey: &Survey,
    index: &Index,
    finder: &mut Finder<'_>,
    out: &mut SealedFile,
    progress: &dyn Progress,
) -> Result<RebuildReport, RebuildError> {
    let (Some((table, table_frame)), Some(frames)) = (&index.table, &index.frame_table) else {
        return Err(RebuildError::Nothing);
    };
    let by_digest: HashMap<Digest, &FrameInfo> = survey.frames.iter().map(|frame| (frame.digest, frame)).collect();
    let mut is_lost = vec![false; frames.len()];
    for (frame, is_lost) in frames.iter().zip(&mut is_lost) {
        match by_digest.get(&frame.digest) {
            Some(found) => copy(found, finder, out)?,
            None => {
                *is_lost = true;
                zeros(u64::from(frame.stored_length), out)?;
            }
        }
        say(progress, Advance { stored_bytes: u64::from(frame.stored_length), ..Advance::default() })?;
    }
    let parts = [&table.head].into_iter().chain(table.blocks.iter().map(|block| &block.frame));
    let parts = parts.chain(table.chunks.iter().map(|chunk| &chunk.frame)).chain([table_frame]);
    for part in parts {
        let found = by_digest.get(&part.digest).ok_or(RebuildError::Nothing)?;
        copy(found, finder, out)?;
    }
    let footer = footer(survey, finder, table, table_frame)?;
    out.write_all(&footer.encode()).map_err(RebuildError::Sink)?;
    let lost_frames = is_lost.iter().filter(|lost| **lost).count() as u64;
    let lost = if lost_frames == 0 { Lost::default() } else { affected(index, frames, &is_lost, finder)? };
    Ok(RebuildReport {
        footer,
        is_same: true,
        unusable: survey.gaps(),
        lost_frames: Some(lost_frames),
        lost,
        from_members: 0,
        names_unknown: false,
        notes: Vec::new(),
    })
}

/// Copies a frame as it is stored.
pub(super) fn copy(frame: &FrameInfo, finder: &mut Finder<'_>, out: &mut SealedFile) -> Result<(), RebuildError> {
    finder.read_frame(frame)?;
    out.write_all(finder.stored()).map_err(RebuildError::Sink)
}

/// Keeps the place of a frame that is gone.
pub(super) fn zeros(mut count: u64, out: &mut SealedFile) -> Result<(), RebuildError> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while count > 0 {
        let take = count.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..take as usize]).map_err(RebuildError::Sink)?;
        count -= take;
    }
    Ok(())
}

/// The footer says nothing that table and length do not, but the version; where it is lost, that is this program's.
fn footer(
    survey: &Survey,
    finder: &Finder<'_>,
    table: &Table,
    table_frame: &FrameInfo,
) -> Result<Footer, RebuildError> {
    let old = survey.footers.iter().find(|(_, footer)| footer.archive_digest == table_frame.digest);
    let level = if table.counts.level == Level::Full as u64 { Level::Full } else { Level::Differential };
    let codec = finder.codec();
    let table_offset = table.end();
    Ok(Footer {
        version: old.map_or(FORMAT_VERSION, |(_, footer)| footer.version),
        codec,
        level,
        dot_coord: u32::try_from(table.counts.dot_coord).map_err(|_| RebuildError::Nothing)?,
        table_offset,
        table_length: table_frame.stored_length,
        entries: table.counts.entries,
        files: table.counts.files,
        bytes: table.counts.bytes,
        frames: table.counts.frames,
        stored_bytes: table_offset + u64::from(table_frame.stored_length) + Footer::stored_length(codec) as u64,
        archive_digest: table_frame.digest,
    })
}

/// The files that lie in lost frames.
fn affected(
    index: &Index,
    frames: &[FrameInfo],
    is_lost: &[bool],
    finder: &mut Finder<'_>,
) -> Result<Lost, RebuildError> {
    let mut lost = Lost::default();
    let raw_length = |number: u64| Some(frames.get(usize::try_from(number).ok()?)?.raw_length);
    for block in &index.blocks {
        finder.read_frame(&block.frame)?;
        for entry in block::decode(finder.raw()).unwrap_or_default() {
            if entry.kind != Kind::File || entry.flags.contains(Flags::CONTENT_IN_BASE) {
                continue;
            }
            let Some(spanned) = frames_of(&entry, raw_length) else { continue };
            // Within the frames: every number had a raw length.
            if is_lost[spanned.start as usize..spanned.end as usize].contains(&true) {
                lost.add(&entry.path, "its content is lost");
            }
        }
    }
    Ok(lost)
}
