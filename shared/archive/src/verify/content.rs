//! Contents that are read by themselves, and not with the frames that they lie in: sparse ones, what lies in no order, and samples.
//!
//! A long content is checked in runs of pieces, on any thread: the index has the value of each piece, and from these follows the digest
//! of the whole. A content without a list of pieces is read from its beginning to its end on one thread.

use std::ops::Range;
use std::sync::Arc;

use super::describe;
use crate::digest::{ContentHasher, Digest, PIECE_BYTES, PieceHasher, merge_pieces, piece_count};
use crate::entry::{ContentRef, DataRange, Entry};
use crate::reader::{ArchiveReader, StoredContent};

/// Pieces of a content in a run (32 MiB).
const RUN_PIECES: usize = 16;

/// Longest raw form of the frames of a content that is checked in runs, in bytes: two runs that meet in a frame both decompress it.
const MAX_RUN_FRAME_BYTES: u32 = 8 << 20;

/// Pieces that are read of a sample which is longer than these. The whole of it is checked where everything is.
const SAMPLED_PIECES: usize = 4;

/// How much of a hole is hashed between two looks at whether to stop.
const HOLE_STEP: u64 = 64 << 20;

/// Told of the stored bytes that were read; `false` ends the reading.
type GoesOn<'g> = &'g dyn Fn(u64) -> bool;

/// A part of a content.
enum Stretch<'b> {
    Data(&'b [u8]),
    /// So many zeros.
    Hole(u64),
}

/// Pieces of a content that follow each other.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) entry: Arc<Entry>,
    pieces: Range<usize>,
    /// Bytes that are stored for them.
    pub(super) stored_bytes: u64,
    /// Frame and offset where these begin.
    place: (u64, usize),
}

impl Run {
    /// Whether the content begins with these.
    pub(super) fn is_first(&self) -> bool {
        self.pieces.start == 0
    }

    /// Whether the pieces are what the index says; `None` when `goes_on` ended it. `raw` is working memory.
    pub(super) fn check(
        &self,
        reader: &ArchiveReader,
        raw: &mut Vec<u8>,
        goes_on: GoesOn<'_>,
    ) -> Result<Option<bool>, String> {
        let mut stored = StoredContent::at(reader, std::mem::take(raw), self.place, self.stored_bytes);
        let found = are_pieces_right(&self.entry, self.pieces.clone(), &mut stored, goes_on);
        *raw = stored.into_buffer();
        found
    }
}

/// The runs of a content of which the index lists pieces that make up its digest; `None` for any other, and for a short one.
pub(super) fn runs(reader: &ArchiveReader, entry: &Arc<Entry>, content: &ContentRef) -> Option<Vec<Run>> {
    let pieces = entry.pieces.len();
    if pieces <= RUN_PIECES || pieces as u64 != piece_count(entry.size) || merge_pieces(&entry.pieces) != entry.digest {
        return None;
    }
    let mut place = Place { reader, frame: content.frame, offset: u64::from(content.offset), passed: 0 };
    let mut ranges = Ranges::of(entry);
    let mut runs = Vec::with_capacity(pieces.div_ceil(RUN_PIECES));
    for first in (0..pieces).step_by(RUN_PIECES) {
        let end = (first + RUN_PIECES).min(pieces);
        let begin = ranges.stored_before(first as u64 * PIECE_BYTES);
        let stored_bytes = ranges.stored_before((end as u64 * PIECE_BYTES).min(entry.size)) - begin;
        if stored_bytes > 0 {
            place.go_to(begin)?;
        }
        let at = (place.frame, usize::try_from(place.offset).ok()?);
        runs.push(Run { entry: Arc::clone(entry), pieces: first..end, stored_bytes, place: at });
    }
    // All frames have to be there, and of a fit length, up to the last byte.
    place.go_to(entry.stored_bytes().saturating_sub(1))?;
    Some(runs)
}

/// A place in the frames that goes on along a content.
struct Place<'a> {
    reader: &'a ArchiveReader,
    frame: u64,
    offset: u64,
    /// Bytes of the content before it.
    passed: u64,
}

impl Place<'_> {
    /// Goes on to where the content's byte `target` is stored.
    fn go_to(&mut self, target: u64) -> Option<()> {
        self.offset += target.saturating_sub(self.passed);
        self.passed = self.passed.max(target);
        loop {
            let info = self.reader.frame_info(self.frame).ok().filter(|info| info.raw_length <= MAX_RUN_FRAME_BYTES)?;
            match self.offset.checked_sub(u64::from(info.raw_length)) {
                None => return Some(()),
                Some(behind) => self.offset = behind,
            }
            self.frame += 1;
        }
    }
}

/// The data ranges of a content, passed over from its beginning to its end.
struct Ranges<'e> {
    ranges: Option<&'e [DataRange]>,
    next: usize,
    /// Length of the ranges before that.
    before: u64,
}

impl<'e> Ranges<'e> {
    fn of(entry: &'e Entry) -> Self {
        Self { ranges: entry.data_ranges.as_deref(), next: 0, before: 0 }
    }

    /// How many bytes are stored of what lies before `offset`, which is not before the one asked about last.
    fn stored_before(&mut self, offset: u64) -> u64 {
        let Some(ranges) = self.ranges else { return offset };
        while let Some(range) = ranges.get(self.next).filter(|range| range.offset + range.length <= offset) {
            self.before += range.length;
            self.next += 1;
        }
        self.before + ranges.get(self.next).map_or(0, |range| offset.saturating_sub(range.offset))
    }
}

/// The digest of a content, read through all its frames; `None` when `goes_on` ended it.
pub(super) fn content_digest(
    reader: &ArchiveReader,
    entry: &Entry,
    goes_on: GoesOn<'_>,
) -> Result<Option<Digest>, String> {
    let mut stored = reader.stored_content(entry).map_err(|error| describe(&error))?;
    let mut hasher = ContentHasher::new();
    let was_read = read(entry, 0..entry.size, &mut stored, goes_on, &mut |stretch| match stretch {
        Stretch::Data(bytes) => hasher.update(bytes),
        Stretch::Hole(length) => hasher.update_zeros(length),
    })?;
    Ok(was_read.then(|| hasher.finish().digest))
}

/// Whether a content reads as a restore of it alone would: all of it, or of a long one the beginning. `None` when `goes_on` ended it.
pub(super) fn reads_alone(reader: &ArchiveReader, entry: &Entry, goes_on: GoesOn<'_>) -> Result<Option<bool>, String> {
    if entry.pieces.len() <= SAMPLED_PIECES || merge_pieces(&entry.pieces) != entry.digest {
        return Ok(content_digest(reader, entry, goes_on)?.map(|digest| Some(digest) == entry.digest));
    }
    let mut stored = reader.stored_content(entry).map_err(|error| describe(&error))?;
    are_pieces_right(entry, 0..SAMPLED_PIECES, &mut stored, goes_on)
}

/// Whether so little has to be read of a content for [`reads_alone`] that it may be a sample.
pub(super) fn may_be_sample(entry: &Entry) -> bool {
    entry.size <= SAMPLED_PIECES as u64 * PIECE_BYTES || !entry.pieces.is_empty()
}

/// Whether these pieces, of more than one, have the values that the index says. `stored` is where the first of them begins.
fn are_pieces_right(
    entry: &Entry,
    pieces: Range<usize>,
    stored: &mut StoredContent<'_>,
    goes_on: GoesOn<'_>,
) -> Result<Option<bool>, String> {
    for index in pieces {
        let begin = index as u64 * PIECE_BYTES;
        let mut hasher = PieceHasher::new(index as u64);
        let bytes = begin..(begin + PIECE_BYTES).min(entry.size);
        let was_read = read(entry, bytes, stored, goes_on, &mut |stretch| match stretch {
            Stretch::Data(bytes) => hasher.update(bytes),
            Stretch::Hole(length) => hasher.update_zeros(length),
        })?;
        if !was_read {
            return Ok(None);
        }
        if Some(&hasher.finish()) != entry.pieces.get(index) {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}

/// Reads the content between two offsets; `stored` is where the first byte of data behind the first is. False when `goes_on` ended it.
fn read(
    entry: &Entry,
    bytes: Range<u64>,
    stored: &mut StoredContent<'_>,
    goes_on: GoesOn<'_>,
    take: &mut dyn FnMut(Stretch<'_>),
) -> Result<bool, String> {
    let whole = [DataRange { offset: 0, length: entry.size }];
    let ranges = entry.data_ranges.as_deref().unwrap_or(&whole);
    let first = ranges.partition_point(|range| range.offset + range.length <= bytes.start);
    let end = DataRange { offset: bytes.end, length: 0 };
    let mut at = bytes.start;
    for range in ranges[first..].iter().take_while(|range| range.offset < bytes.end).chain([&end]) {
        while at < range.offset {
            // A hole takes no reading, but its zeros are hashed: a look now and then at whether to stop.
            let step = (range.offset - at).min(HOLE_STEP);
            take(Stretch::Hole(step));
            at += step;
            if !goes_on(0) {
                return Ok(false);
            }
        }
        let range_end = (range.offset + range.length).min(bytes.end);
        while at < range_end {
            let left = usize::try_from(range_end - at).unwrap_or(usize::MAX);
            let data = stored.next_bytes(left).map_err(|error| describe(&error))?;
            if data.is_empty() {
                return Err("its content ends early".to_owned());
            }
            take(Stretch::Data(data));
            let read = data.len() as u64;
            at += read;
            if !goes_on(read) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::convert::Infallible;
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt as _;
    use std::path::PathBuf;

    use super::*;
    use crate::codec::Codec;
    use crate::entry::Kind;
    use crate::file::SealedFile;
    use crate::header::{Header, Level};
    use crate::pack::{Item, PackOptions, Plan, Sink, Source, Step, pack};

    struct One(PathBuf);

    impl Source for One {
        fn open(&self, _path: &[u8]) -> io::Result<File> {
            File::open(&self.0)
        }
    }

    /// An archive of one file with holes of odd lengths, of so many pieces.
    fn archive_of_a_file_with_holes(pieces: u64) -> (ArchiveReader, Arc<Entry>) {
        let folder = tempfile::tempdir().unwrap();
        let source = One(folder.path().join("file"));
        let file = File::create(&source.0).unwrap();
        let size = pieces * PIECE_BYTES - 4321;
        for number in (0..size / 1_280_000).filter(|number| number % 3 != 1) {
            let data: Vec<u8> = (0..1_000_000_u32).map(|at| ((u64::from(at) * (number + 7)) >> 5) as u8).collect();
            file.write_all_at(&data, number * 1_280_000).unwrap();
        }
        file.set_len(size).unwrap();
        let entries = [(&b""[..], Kind::Folder), (b"file", Kind::File)]
            .map(|(path, kind)| Entry { kind, ..Entry::tombstone(path.to_vec()) });
        let steps = entries.map(|entry| Ok::<_, Infallible>(Step::Item(Item { entry, plan: Plan::Store })));
        let path = folder.path().join("x");
        let mut out = SealedFile::create(&path).unwrap();
        let header = Header::new(Level::Full, b"/", jiff::Timestamp::UNIX_EPOCH);
        let sink = Sink { out: &mut out, progress: &() };
        pack(steps.into_iter(), &source, header, &PackOptions::new(Codec::Zstd), sink).unwrap();
        out.seal().unwrap();
        let reader = ArchiveReader::open_path(&path).unwrap();
        let entry = reader.find(b"file").unwrap().unwrap();
        assert!(entry.data_ranges.is_some());
        (reader, Arc::new(entry))
    }

    #[test]
    fn every_piece_of_a_long_content_is_in_one_run_and_has_to_be_right() {
        let (reader, entry) = archive_of_a_file_with_holes(2 * RUN_PIECES as u64 + 3);
        let content = entry.content.unwrap();
        let mut runs = runs(&reader, &entry, &content).unwrap();
        let pieces: Vec<usize> = runs.iter().flat_map(|run| run.pieces.clone()).collect();
        assert_eq!(pieces, (0..entry.pieces.len()).collect::<Vec<_>>());
        assert_eq!(runs.iter().map(|run| run.stored_bytes).sum::<u64>(), entry.stored_bytes());
        let mut raw = Vec::new();
        // From the last to the first: none needs what another has read.
        for run in runs.iter_mut().rev() {
            assert_eq!(run.check(&reader, &mut raw, &|_| true), Ok(Some(true)), "{:?}", run.pieces);
            let wrong = run.pieces.end - 1;
            Arc::make_mut(&mut run.entry).pieces[wrong].0[0] ^= 1;
            assert_eq!(run.check(&reader, &mut raw, &|_| true), Ok(Some(false)), "{:?}", run.pieces);
            assert_eq!(run.check(&reader, &mut raw, &|_| false), Ok(None));
        }
    }

    #[test]
    fn pieces_that_do_not_make_up_the_digest_prove_nothing() {
        let (reader, entry) = archive_of_a_file_with_holes(RUN_PIECES as u64 + 1);
        let content = entry.content.unwrap();
        assert!(runs(&reader, &entry, &content).is_some());
        let mut other = (*entry).clone();
        other.pieces.swap(0, 1);
        assert!(runs(&reader, &Arc::new(other.clone()), &content).is_none());
        // It is read whole, and it is right.
        assert_eq!(reads_alone(&reader, &other, &|_| true), Ok(Some(true)));
        other.digest = Some(entry.pieces[0]);
        assert_eq!(reads_alone(&reader, &other, &|_| true), Ok(Some(false)));
        assert!(runs(&reader, &entry, &ContentRef { frame: reader.frame_count(), ..content }).is_none());
    }
}
