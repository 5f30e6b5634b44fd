//! What comes before and after the content: the instructions, the recipe's files, the index.

use std::io::{self, Read as _, Seek as _};

use jiff::Timestamp;

use super::index_writer::{IndexWriter, Totals};
use super::sealer::{Frame, SealError, Written};
use super::{PackError, PackOptions, PackReport, Timings};
use crate::codec::{Codec, Compressor};
use crate::digest::PIECE_BYTES;
use crate::entry::FileTime;
use crate::file::SealedFile;
use crate::header::{Header, Level};
use crate::recipe::{self, Spooled};
use crate::tar::{BLOCK, Body, Member, own_attributes, put_header};

/// A point in time as tar and index have it.
pub(super) fn file_time(time: Timestamp) -> FileTime {
    let nanos = time.as_nanosecond();
    let billion = 1_000_000_000;
    FileTime {
        seconds: i64::try_from(nanos.div_euclid(billion)).unwrap_or(0),
        nanos: u32::try_from(nanos.rem_euclid(billion)).unwrap_or(0),
    }
}

/// The first member: how to restore with stock programs, for this very archive.
pub(super) fn restore_text_member(header: &Header, codec: Codec, archive_name: &[u8]) -> Vec<u8> {
    let text = recipe::restore_txt(header, codec, archive_name);
    let mut raw = Vec::new();
    put_own_header(&mut raw, header, "RESTORE.txt", text.len() as u64);
    raw.extend(text);
    raw.resize(raw.len().next_multiple_of(BLOCK), 0);
    raw
}

fn put_own_header(raw: &mut Vec<u8>, header: &Header, name: &str, size: u64) {
    let path = format!("{}/{name}", header.dot_coord_name());
    let mtime = FileTime { nanos: 0, ..file_time(header.scan_started_at) };
    let attributes = own_attributes(mtime);
    put_header(raw, &Member { path: path.as_bytes(), body: Body::File(size), attributes: &attributes });
}

/// Writes everything that follows the content.
pub(super) fn finish<E>(
    written: Written<'_>,
    header: &Header,
    options: &PackOptions,
    timings: Timings,
) -> Result<PackReport, PackError<E>> {
    let no_root = PackError::Contract { path: Vec::new(), what: "the steps never named the root" };
    let root = written.root.ok_or(no_root)?;
    let files = written.recipe.finish(&root, &header.dot_coord_name()).map_err(PackError::Spool)?;
    let compressor = Compressor::new(options.codec, options.level).map_err(PackError::Codec)?;
    let mut tail = Tail { raw: Vec::new(), compressor, index: written.index, out: written.sink.out, header };
    if header.level == Level::Differential {
        tail.member("deleted", files.deleted)?;
    }
    tail.member("attributes.sh", files.attributes_sh)?;
    tail.flush()?;
    let totals = Totals { files: written.tally.files, bytes: written.tally.bytes };
    let footer = tail.index.finish(header, totals, tail.out)?;
    Ok(PackReport {
        footer,
        captured_at: header.captured_at,
        files: totals.files,
        bytes: totals.bytes,
        warnings: written.warnings,
        warning_count: written.warning_count,
        changed_while_read: written.changed_while_read,
        timings,
    })
}

/// The members after the content, in frames of their own.
struct Tail<'a> {
    raw: Vec<u8>,
    compressor: Compressor,
    index: IndexWriter,
    out: &'a mut SealedFile,
    header: &'a Header,
}

impl Tail<'_> {
    fn member(&mut self, name: &str, content: Spooled) -> Result<(), SealError> {
        let Spooled { mut file, length: size } = content;
        put_own_header(&mut self.raw, self.header, name, size);
        file.rewind().map_err(SealError::Spool)?;
        let mut left = size;
        while left > 0 {
            let room = PIECE_BYTES.saturating_sub(self.raw.len() as u64);
            if room == 0 {
                self.flush()?;
                continue;
            }
            let from = self.raw.len();
            // Bounded by PIECE_BYTES.
            self.raw.resize(from + room.min(left) as usize, 0);
            file.read_exact(&mut self.raw[from..]).map_err(SealError::Spool)?;
            left -= room.min(left);
        }
        self.raw.resize(self.raw.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SealError> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let mut stored = Vec::new();
        self.compressor.compress(&self.raw, &mut stored).map_err(SealError::Codec)?;
        let frame = Frame::new(stored, self.raw.len());
        let info = frame.placed_at(self.out.written());
        io::Write::write_all(self.out, frame.stored()).map_err(SealError::Sink)?;
        self.index.frame(info)?;
        self.raw.clear();
        Ok(())
    }
}
