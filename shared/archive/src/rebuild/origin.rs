//! The header of an archive whose own is lost: from `RESTORE.txt`, from the full a differential stands on, and from whoever
//! asks.

use std::io::Read as _;

use jiff::Timestamp;

use super::names::Kept;
use super::{RebuildError, RebuildOptions};
use crate::digest::Digest;
use crate::header::{Base, Header, Level, Named, unescape};
use crate::reader::ArchiveReader;

/// Everything but what the index was to say; the second is whether the archive's own header was lost.
pub(super) fn header(
    own: Option<&Header>,
    restore_txt: Option<Kept>,
    has_deleted: bool,
    dot_coord: u32,
    options: &RebuildOptions<'_>,
) -> Result<(Header, bool), RebuildError> {
    if let Some(own) = own {
        return Ok((own.clone(), false));
    }
    let mut text = String::new();
    if let Some(mut kept) = restore_txt.filter(|kept| kept.is_whole) {
        // Names in it are escaped, so it is ASCII; anything else says nothing.
        kept.reader()?.read_to_string(&mut text).map_err(RebuildError::Spool)?;
    }
    let said = level(&text).or_else(|| has_deleted.then_some(Level::Differential)).or(options.level);
    let level = said.or_else(|| options.base.map(|_| Level::Differential)).ok_or(RebuildError::NoLevel)?;
    let begun = between(&text, "Backup begun at: ", " (").and_then(|time| time.parse().ok());
    let root = between(&text, "Names are relative to: ", "\n").and_then(unescape).unwrap_or_else(|| b"/".to_vec());
    let mut header = Header::new(level, &root, begun.unwrap_or(Timestamp::UNIX_EPOCH));
    if let Some(tool) = between(&text, "Written by: ", ".\n") {
        tool.clone_into(&mut header.tool);
    }
    header.host = named(between(&text, "Host: ", ". Policy: "));
    header.policy = named(between(&text, ". Policy: ", ". Names are"));
    header.dot_coord = dot_coord;
    Ok((header, true))
}

fn level(text: &str) -> Option<Level> {
    let first = text.lines().next()?;
    if first.ends_with(" a full backup.") {
        Some(Level::Full)
    } else if first.ends_with(" a differential backup.") {
        Some(Level::Differential)
    } else {
        None
    }
}

fn between<'t>(text: &'t str, before: &str, behind: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(behind)?.0)
}

/// A name whose id is lost.
fn named(name: Option<&str>) -> Option<Named> {
    let name = name.filter(|name| *name != "-")?.to_owned();
    Some(Named { id: uuid::Uuid::nil(), name })
}

/// What a differential's header says of the full it stands on.
pub(super) fn base(header: &Header, base: Option<&ArchiveReader>) -> Result<Base, RebuildError> {
    let given = base.ok_or(RebuildError::NeedsBase)?;
    let archive_digest: Digest = given.footer().archive_digest;
    if given.header().level != Level::Full {
        return Err(RebuildError::WrongBase);
    }
    match &header.base {
        Some(named) if !given.header().is_base(archive_digest, named) => Err(RebuildError::WrongBase),
        Some(named) => Ok(named.clone()),
        None => {
            let (run, ordinal) = (given.header().run, given.header().ordinal);
            Ok(Base { archive_digest, name: String::new(), run, ordinal })
        }
    }
}
