//! A large file of which only something changed: how much of it is read to know that.

use std::fs::{self, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicU64, Ordering};

use coord_agent::scan::same::{Compared, compare_content};
use coord_agent::scan::tree::{Clear, Tree};
use coord_agent::scan::{Against, Scan};
use coord_archive::digest::PIECE_BYTES;
use coord_archive::entry::{Entry, FileTime};
use coord_archive::progress::{Advance, Progress};

use crate::support::{Bench, Made, entry, long_after};

/// Pieces of the file.
const PIECES: u64 = 8;

/// Backs up a file of several pieces, then changes one byte of one of them in place.
fn changed_in(piece: u64) -> (Bench, Made) {
    let bench = Bench::new();
    let bytes: Vec<u8> = (0..PIECES * PIECE_BYTES).map(|at| (at / 4096 + at % 251) as u8).collect();
    bench.write("large", bytes);
    let full = bench.full();
    let file = OpenOptions::new().write(true).open(bench.at("large")).unwrap();
    file.write_all_at(b"\xff", piece * PIECE_BYTES + 5).unwrap();
    (bench, full)
}

/// What this thread has asked the kernel to read so far, bytes: what the code says of itself is not asked.
fn read_by_this_thread() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Compares the file with what the full recorded. Also says how many bytes were read for it.
fn compared(bench: &Bench, full: &Made) -> (Compared, u64) {
    let recorded = entry(full, "large").unwrap();
    assert_eq!(recorded.pieces.len() as u64, PIECES);
    let stat = fs::metadata(bench.at("large")).unwrap();
    let mut now = Entry { digest: None, pieces: Vec::new(), ..recorded.clone() };
    now.identity.ctime = FileTime { seconds: stat.ctime(), nanos: u32::try_from(stat.ctime_nsec()).unwrap() };
    let tree = Tree::open(&bench.at("")).unwrap();
    let before = read_by_this_thread();
    let verdict = compare_content(&tree, &now, &recorded, &mut |_| ControlFlow::Continue(())).unwrap();
    (verdict, read_by_this_thread() - before)
}

#[test]
fn the_first_piece_that_differs_decides_and_the_rest_is_not_read() {
    // Besides the pieces, what the kernel tells about this thread is read.
    let slack = 4096;
    for piece in [0, 3, PIECES - 1] {
        let (bench, full) = changed_in(piece);
        let (verdict, read) = compared(&bench, &full);
        assert_eq!(verdict, Compared::Different);
        let wanted = (piece + 1) * PIECE_BYTES;
        assert!((wanted..wanted + slack).contains(&read), "piece {piece} differs and {read} bytes were read");
    }
}

/// Adds up what a comparison says it has read.
#[derive(Default)]
struct Reading(AtomicU64);

impl Progress for Reading {
    fn advance(&self, step: Advance<'_>) -> ControlFlow<()> {
        self.0.fetch_add(step.bytes, Ordering::Relaxed);
        ControlFlow::Continue(())
    }
}

#[test]
fn a_whole_scan_reads_one_piece_of_a_large_file_that_changed_at_its_beginning() {
    let (bench, full) = changed_in(0);
    let scan = Scan::begin_through(&bench.request(long_after()), Box::new(Clear)).unwrap();
    let scratch = bench.scratch();
    let against = Against { base: &full.archive, newest: None, cache: None, scratch: &scratch };
    let reading = Reading::default();
    let found = scan.compare(&against, &reading).unwrap();
    assert_eq!(found.figures.changed_files, 1);
    assert_eq!(reading.0.into_inner(), PIECE_BYTES);
}
