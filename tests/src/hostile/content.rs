//! Sizes that no file has, references that lead nowhere, holes that overlap, and frames that grow when they are read.

use super::forge::{Codec, Forge, Node, Record, Spot, bytes, listed, number, padded, stored};
use super::{Case, Expect, file, with};

const GIB: u64 = 1 << 30;
/// Length of a path that is nearly as long as any.
const LONG: usize = 200 << 10;

/// All cases of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [0, 1, 6, 513, 1 << 20, GIB, 1 << 40, (1 << 44) + 1, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX] {
        let name = format!("a file that says it has {size} bytes");
        cases.push(sized(name, Expect::Found, move |record| record.size = size));
    }
    for (what, spot) in spots() {
        let expect = if what == "right" { Expect::Clean } else { Expect::Found };
        cases.push(sized(format!("content {what}"), expect, move |record| record.content = Some(spot)));
    }
    for (what, size, ranges) in holes() {
        let name = format!("holes: {what}");
        cases.push(sized(name, Expect::Contained, move |record| {
            (record.size, record.ranges) = (size, Some(ranges.clone()))
        }));
    }
    cases.push(sized("a digest of something else".to_owned(), Expect::Found, |record| record.digest = Some([7; 32])));
    cases.push(sized("no digest".to_owned(), Expect::Contained, |record| record.digest = None));
    cases
        .push(sized("pieces of a small file".to_owned(), Expect::Contained, |record| record.pieces = vec![[7; 32]; 3]));
    cases.push(sized("half a million pieces".to_owned(), Expect::Contained, |record| {
        record.pieces = vec![[7; 32]; 1 << 19]
    }));
    for bit in [2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 40, 63] {
        let name = format!("a field number {bit} that is not there");
        let expect = if bit > 11 { Expect::Clean } else { Expect::Contained };
        cases.push(sized(name, expect, move |record| record.false_fields = 1 << bit));
    }
    cases.extend(bombs());
    cases
}

/// A file whose record is changed, between two that are right.
fn sized(name: String, expect: Expect, change: impl Fn(&mut Record) + Send + Sync + 'static) -> Case {
    let hostile = move |_: &super::Place| {
        vec![file(b"a", b"before"), with(file(b"b", b"hostile"), &change), file(b"z", b"behind")]
    };
    Case::of_nodes(name, expect, hostile)
}

fn spots() -> Vec<(&'static str, Spot)> {
    // RESTORE.txt, the root, then `a`: the file's content is behind its own header.
    let right = Spot { frame: 0, at: 512 * 6, frame_offset: None, frame_length: None };
    vec![
        ("right", right),
        ("in a frame that is not there", Spot { frame: 9, ..right }),
        ("in frame 2^63", Spot { frame: 1 << 63, ..right }),
        ("in the last frame there can be", Spot { frame: u64::MAX, ..right }),
        ("at the end of its frame", Spot { at: 512 * 9, ..right }),
        ("far behind its frame", Spot { at: u64::from(u32::MAX), ..right }),
        ("in another place of its frame", Spot { at: 512, ..right }),
        ("right, in a frame that would stand elsewhere", Spot { frame_offset: Some(1), ..right }),
        ("right, in a frame at 2^64", Spot { frame_offset: Some(u64::MAX), ..right }),
        ("right, in a frame of no length", Spot { frame_length: Some(0), ..right }),
        ("right, in a frame of 4 GiB", Spot { frame_length: Some(u64::from(u32::MAX)), ..right }),
    ]
}

type Holes = (&'static str, u64, Vec<(u64, u64)>);

fn holes() -> Vec<Holes> {
    vec![
        ("all of 1 GiB", GIB, Vec::new()),
        ("8 EiB", 1 << 63, Vec::new()),
        ("just more than any file", (1 << 44) + 1, Vec::new()),
        ("data behind the end", 10, vec![(9, 7)]),
        ("data that ends at 2^64", u64::MAX, vec![(u64::MAX - 7, 7)]),
        ("a gap that overflows", GIB, vec![(1, 3), (u64::MAX, 4)]),
        ("a length that overflows", GIB, vec![(1, u64::MAX)]),
        ("a range without length", GIB, vec![(1, 0), (1, 7)]),
        ("ranges that touch", GIB, vec![(0, 3), (0, 4)]),
        ("more data than there is", GIB, vec![(0, GIB)]),
        ("a hundred thousand ranges", 400_000, (0..100_000).map(|_| (3, 1)).collect()),
    ]
}

/// Small archives that ask for much.
fn bombs() -> Vec<Case> {
    let frame_of = |raw_length: usize| move |forge: &mut Forge| grow(forge, raw_length);
    vec![
        Case::lie("a frame of 64 MiB of zeros", Expect::Found, frame_of(64 << 20)),
        Case::lie("a frame of more than 64 MiB", Expect::Contained, frame_of((64 << 20) + 512)),
        Case::lie("a frame of 1 GiB", Expect::Contained, frame_of(1 << 30)),
        Case::lie("a frame that says it is small, and is not", Expect::Contained, |forge| {
            forge.lies.frames = Some(Box::new(|frames| {
                if let Ok(bomb) = stored(Codec::Zstd, &vec![0; 32 << 20]) {
                    frames[1] = listed(bomb.bytes, 512);
                }
            }));
        }),
        Case::lie("a frame whose own header says 2^60 bytes", Expect::Contained, |forge| {
            // A zstd frame header: single segment, content size of eight bytes, then an empty last block.
            let declared: Vec<u8> =
                [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(1_u64 << 60).to_le_bytes(), &[1, 0, 0]].concat();
            forge.lies.frames = Some(Box::new(move |frames| frames[1] = listed(declared.clone(), 512)));
        }),
        Case::lie("a frame that asks for a window of 2 GiB", Expect::Contained, |forge| {
            let wide: Vec<u8> =
                [&[0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0xa8][..], &512_u64.to_le_bytes(), &[3, 0x10, 0, 0]].concat();
            forge.lies.frames = Some(Box::new(move |frames| frames[1] = listed(wide.clone(), 512)));
        }),
        Case::of_nodes("a thousand files that share 1 MiB", Expect::Contained, |_| {
            let mut nodes = vec![file(b"a", &vec![0; 1 << 20])];
            let spot = Some(Spot { frame: 0, at: 512 * 4, frame_offset: None, frame_length: None });
            nodes.extend((0..1000).map(|number| {
                let mut greedy = file(format!("b{number:04}").as_bytes(), &vec![0; 1 << 20]);
                (greedy.record.content, greedy.content) = (spot, None);
                Node { member: super::forge::Member::Missing, ..greedy }
            }));
            nodes
        }),
        Case::lie("an index block of 64 MiB of one letter", Expect::Contained, |forge| {
            forge.lies.blocks = Some(Box::new(|blocks| blocks[0].2 = vec![b'a'; 64 << 20]));
        }),
        block("an index block that unfolds to more than any memory", unfolding),
        block("an index block of five million entries", || {
            let mut raw = Vec::new();
            number(&mut raw, 5_000_000);
            raw.resize(64 << 20, 0);
            (5_000_000, raw)
        }),
        block("an entry with thirty million attributes", || one_entry(1 << 1 | 1 << 3, 30_000_000)),
        block("an entry with thirty million data ranges", || one_entry(1 << 1 | 1 << 7, 30_000_000)),
    ]
}

fn grow(forge: &mut Forge, raw_length: usize) {
    forge.lies.raw_frames = Some(Box::new(move |frames| frames[1].resize(raw_length, 0)));
}

/// An archive whose only block is another.
fn block(name: &str, make: fn() -> (u64, Vec<u8>)) -> Case {
    Case::lie(name, Expect::Refused, move |forge| {
        forge.lies.blocks = Some(Box::new(move |blocks| (blocks[0].1, blocks[0].2) = make()));
    })
}

/// A record up to its fields: what it shares with the one before, the rest of its path, a folder without any facts.
fn beginning(shared: u64, rest: &[u8], fields: u64) -> Vec<u8> {
    let mut body = Vec::new();
    number(&mut body, shared);
    bytes(&mut body, rest);
    body.extend([super::forge::kind::FOLDER, 0]);
    number(&mut body, fields);
    body.extend([0; 6]);
    body
}

/// Entries that share nearly all of a long path with the one before: few bytes in the block, a long path each in memory.
fn unfolding() -> (u64, Vec<u8>) {
    const ENTRIES: u64 = 50_000;
    let owner = [0; 4];
    let mut raw = Vec::new();
    number(&mut raw, ENTRIES);
    bytes(&mut raw, &[beginning(0, b"", 1 << 1), owner.to_vec()].concat());
    bytes(&mut raw, &beginning(0, &vec![b'a'; LONG], 0));
    for entry in 2..ENTRIES {
        bytes(&mut raw, &beginning(LONG as u64, format!("{entry:08}").as_bytes(), 0));
    }
    (ENTRIES, padded(raw))
}

/// One entry, the root, with this many parts of two bytes each.
fn one_entry(fields: u64, parts: u64) -> (u64, Vec<u8>) {
    let mut body = [beginning(0, b"", fields), vec![0; 4]].concat();
    number(&mut body, parts);
    body.resize(body.len() + 2 * parts as usize, 0);
    let mut raw = Vec::new();
    number(&mut raw, 1);
    bytes(&mut raw, &body);
    (1, padded(raw))
}

/// The raw form of a table of a million blocks with long first paths.
pub(super) fn unfolding_table() -> Vec<u8> {
    const BLOCKS: u64 = 1_000_000;
    let line = [[1_u8, 0, 0, 0].as_slice(), &512_u32.to_le_bytes(), &[0; 32]].concat();
    let mut raw = vec![1, 0, 0, 0, 0, 0, 0];
    raw.extend(&line);
    number(&mut raw, BLOCKS);
    for block in 0..BLOCKS {
        number(&mut raw, if block == 0 { 0 } else { LONG as u64 });
        let rest = if block == 0 { vec![b'a'; LONG] } else { format!("{block:08}").into_bytes() };
        bytes(&mut raw, &rest);
        number(&mut raw, 0);
        raw.extend(&line);
    }
    padded(raw)
}
