//! Where the data of a sparse file lies.
//!
//! Owns the rule that a map of holes is believed whole or not at all: what lies outside its ranges is never read, so a map
//! that breaks off, or contradicts itself, would restore data as zeros. A file without a map is stored with its holes.

use std::fs::File;

use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

use crate::entry::DataRange;
use crate::tar::BLOCK;

/// Most data ranges that are kept apart; the last one then runs to the end, holes as zeros.
const MAX_DATA_RANGES: usize = 32 << 10;

/// The ranges of an open file that hold data, as an index has them; `stat` is its status.
#[must_use]
pub fn data_ranges_of(file: &File, stat: &Stat) -> Option<Vec<DataRange>> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if allocated < size { data_ranges(size, |to| rustix::fs::seek(file, to)) } else { None }
}

/// The ranges of a file of `size` bytes that hold data, cut outwards to whole blocks of the tar; `None` when there is no
/// hole, or when the file system cannot tell. `seek` is lseek(2) in that file.
fn data_ranges(size: u64, mut seek: impl FnMut(SeekFrom) -> Result<u64, Errno>) -> Option<Vec<DataRange>> {
    let block = BLOCK as u64;
    let mut ranges: Vec<DataRange> = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(SeekFrom::Data(at)) {
            // Beyond the size there is what was written since it was asked for.
            Ok(data) if data >= size => break,
            Ok(data) if data >= at => data,
            Err(Errno::NXIO) => break,
            Ok(_) | Err(_) => return None,
        };
        // Asked from where the data begins: its block may begin with a hole.
        let hole = if ranges.len() + 1 >= MAX_DATA_RANGES { size } else { seek(SeekFrom::Hole(data)).ok()? };
        if hole <= data {
            return None;
        }
        let (start, end) = (data - data % block, hole.min(size).next_multiple_of(block).min(size));
        match ranges.last_mut() {
            Some(last) if last.offset + last.length >= start => last.length = end - last.offset,
            Some(_) | None => ranges.push(DataRange { offset: start, length: end - start }),
        }
        at = end;
    }
    let whole = [DataRange { offset: 0, length: size }];
    if ranges == whole { None } else { Some(ranges) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::ops::Range;
    use std::slice;

    use proptest::prelude::*;

    use super::*;

    /// A file system that keeps exactly these bytes.
    fn file_of(data: &[Range<u64>], size: u64) -> impl FnMut(SeekFrom) -> Result<u64, Errno> {
        move |to| match to {
            SeekFrom::Data(at) => {
                let next = data.iter().find(|range| range.end > at).map(|range| range.start.max(at));
                next.filter(|_| at < size).ok_or(Errno::NXIO)
            }
            SeekFrom::Hole(at) if at < size => {
                Ok(data.iter().find(|range| range.contains(&at)).map_or(at, |range| range.end))
            }
            _ => Err(Errno::NXIO),
        }
    }

    fn ranges(pairs: &[(u64, u64)]) -> Vec<DataRange> {
        pairs.iter().map(|&(offset, length)| DataRange { offset, length }).collect()
    }

    #[test]
    fn data_that_begins_within_a_block_is_found_and_what_follows_it_too() {
        let found = data_ranges(20_000, file_of(&[1000..5000, 9000..9001], 20_000));
        assert_eq!(found, Some(ranges(&[(512, 4608), (8704, 512)])));
    }

    #[test]
    fn the_end_of_the_file_bounds_what_is_kept() {
        assert_eq!(data_ranges(7000, file_of(slice::from_ref(&(0..7000)), 7000)), None, "no hole, no map");
        assert_eq!(data_ranges(7000, file_of(&[], 7000)), Some(Vec::new()));
        assert_eq!(data_ranges(7000, file_of(slice::from_ref(&(6900..7000)), 7000)), Some(ranges(&[(6656, 344)])));
        let grown = file_of(&[0..100, 9000..9100], 9100);
        assert_eq!(data_ranges(7000, grown), Some(ranges(&[(0, 512)])));
    }

    #[test]
    fn a_map_that_breaks_off_or_contradicts_itself_is_no_map() {
        let size = 1 << 20;
        let data = [0..4096, 8192..12_288, 400_000..500_000];
        for broken_at in 0..6 {
            for answer in [Err(Errno::IO), Err(Errno::INVAL), Ok(0)] {
                let (mut asked, mut honest) = (0, file_of(&data, size));
                let found = data_ranges(size, |to| {
                    asked += 1;
                    if asked == broken_at + 1 { answer } else { honest(to) }
                });
                // That data begins at 0 is true of this file.
                let is_true = broken_at == 0 && answer == Ok(0);
                assert_eq!(found.is_some(), is_true, "question {broken_at}, answer {answer:?}");
            }
        }
    }

    #[test]
    fn a_file_of_very_many_ranges_keeps_the_last_ones_as_one() {
        let count = 40_000;
        let data: Vec<_> = (0..count).map(|number| number * 1024..number * 1024 + 512).collect();
        let mut next = 0;
        let found = data_ranges(count * 1024, |to| match to {
            SeekFrom::Data(at) => {
                next = at.div_ceil(1024);
                Ok(next * 1024)
            }
            _ => Ok(data[usize::try_from(next).unwrap()].end),
        });
        let found = found.unwrap();
        assert_eq!(found.len(), MAX_DATA_RANGES);
        let last = found.last().unwrap();
        assert_eq!(last.offset + last.length, count * 1024);
    }

    proptest! {
        #[test]
        fn no_byte_of_data_is_taken_for_a_hole(
            cuts in prop::collection::btree_set(0_u64..20_000, 0..40),
            size in 1_u64..20_000,
        ) {
            let cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut < size).collect();
            let data: Vec<Range<u64>> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            if let Some(found) = data_ranges(size, file_of(&data, size)) {
                let is_kept = |at: u64| found.iter().any(|range| (range.offset..range.offset + range.length).contains(&at));
                prop_assert!(data.iter().all(|range| range.clone().all(is_kept)));
                prop_assert!(found.iter().all(|range| range.length > 0 && range.offset % 512 == 0));
                prop_assert!(found.windows(2).all(|pair| pair[0].offset + pair[0].length < pair[1].offset));
            }
        }
    }
}
