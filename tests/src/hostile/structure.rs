//! Footer, table, chunks, blocks and frames that do not agree with each other.

use super::forge::{Codec, Forge, RawBlock, Stored, Table, listed};
use super::{Case, Change, Expect};

/// All cases of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = footers();
    cases.extend(tables());
    cases.extend(blocks());
    cases.extend(frames());
    cases.extend(files());
    cases
}

fn patched(name: String, expect: Expect, at: usize, bytes: Vec<u8>) -> Case {
    Case::lie(name, expect, move |forge| {
        let bytes = bytes.clone();
        forge.lies.footer = Some(Box::new(move |payload| payload[at..at + bytes.len()].copy_from_slice(&bytes)));
    })
}

/// Numbers that are never right.
const WRONG: [u64; 5] = [0, 1, 1 << 32, (1 << 63) - 1, u64::MAX];

fn footers() -> Vec<Case> {
    let mut cases = Vec::new();
    let fields = [
        (16, "offset of the table"),
        (24, "length of the table"),
        (32, "entries"),
        (40, "files"),
        (48, "bytes"),
        (56, "frames"),
        (64, "length of the file"),
    ];
    for (at, field) in fields {
        for wrong in WRONG {
            let name = format!("a footer whose {field} is {wrong}");
            cases.push(patched(name, Expect::Refused, at, wrong.to_le_bytes().to_vec()));
        }
    }
    for version in [0_u16, 2, u16::MAX] {
        cases.push(patched(format!("format version {version}"), Expect::Refused, 8, version.to_le_bytes().to_vec()));
    }
    for codec in [0, 2, 3, 255] {
        cases.push(patched(format!("codec {codec} in the footer of a zstd archive"), Expect::Refused, 10, vec![codec]));
    }
    for level in [0, 3, 255] {
        cases.push(patched(format!("level {level}"), Expect::Refused, 11, vec![level]));
    }
    cases.push(patched("another folder of ours in the footer".to_owned(), Expect::Refused, 12, vec![9, 9, 9, 9]));
    cases.push(patched("another digest in the footer".to_owned(), Expect::Refused, 72, vec![9; 32]));
    cases.push(patched("a footer with another magic".to_owned(), Expect::Refused, 0, b"coordarx".to_vec()));
    cases
}

fn table(name: &str, expect: Expect, change: impl Fn(&mut Table) + Send + Sync + Clone + 'static) -> Case {
    Case::lie(name, expect, move |forge| forge.lies.table = Some(Box::new(change.clone())))
}

fn tables() -> Vec<Case> {
    let mut cases = vec![
        table("a table that lists a block twice", Expect::Refused, |table| {
            let block = table.blocks[0].clone();
            table.blocks.push(block);
        }),
        table("a table without blocks", Expect::Refused, |table| table.blocks.clear()),
        table("a table without blocks or entries", Expect::Found, |table| {
            table.blocks.clear();
            table.counts[2] = 0;
        }),
        table("a table without chunks", Expect::Refused, |table| table.chunks.clear()),
        table("a block of 2^63 entries", Expect::Refused, |table| table.blocks[0].1 = 1 << 63),
        table("blocks whose entries add up beyond 2^64", Expect::Refused, |table| {
            let block = table.blocks[0].clone();
            table.blocks[0].1 = u64::MAX;
            table.blocks.push((b"z".to_vec(), 4, block.2));
        }),
        table("a chunk of 2^63 frames", Expect::Refused, |table| table.chunks[0].0 = 1 << 63),
        table("a first frame at 2^63", Expect::Contained, |table| table.chunks[0].1 = 1 << 63),
        table("a first frame at byte 1", Expect::Contained, |table| table.chunks[0].1 = 1),
        table("a head at the beginning", Expect::Refused, |table| table.head_offset = 0),
        table("a head at 2^64", Expect::Refused, |table| table.head_offset = u64::MAX),
        table("a block with another first path", Expect::Refused, |table| table.blocks[0].0 = b"zz".to_vec()),
        table("a block that begins outside", Expect::Refused, |table| table.blocks[0].0 = b"../outside".to_vec()),
        table("a block whose frame has another digest", Expect::Refused, |table| table.blocks[0].2.digest = [9; 32]),
        table("a block whose frame is raw 0 bytes long", Expect::Refused, |table| table.blocks[0].2.raw_length = 0),
        table("a block whose frame is raw 4 GiB long", Expect::Refused, |table| table.blocks[0].2.raw_length = !511),
        table("a head with another digest", Expect::Refused, |table| table.head.digest = [9; 32]),
        table("a head whose stored length is 2^32", Expect::Refused, |table| table.head.stored_length = u32::MAX),
        table("a chunk with another digest", Expect::Contained, |table| table.chunks[0].2.digest = [9; 32]),
    ];
    for (number, count) in ["level", "own folder", "entries", "files", "bytes", "frames"].into_iter().enumerate() {
        let name = format!("a table whose {count} is 2^64 less one");
        let expect = if matches!(count, "files" | "bytes") { Expect::Found } else { Expect::Refused };
        cases.push(table(&name, expect, move |table| table.counts[number] = u64::MAX));
    }
    let raw: [(&str, Change<Vec<u8>>); 6] = [
        ("a table whose paths unfold to more than any memory", |raw| *raw = super::content::unfolding_table()),
        ("a table of zeros", |raw| raw.fill(0)),
        ("a table of ones", |raw| raw.fill(0xff)),
        ("a table without the end of the tar", |raw| raw.truncate(512)),
        ("a table of 64 MiB", |raw| raw.resize(64 << 20, 0)),
        ("a table of more than 64 MiB", |raw| raw.resize((64 << 20) + 512, 0)),
    ];
    for (name, change) in raw {
        let expect = if matches!(name, "a table of 64 MiB" | "a table without the end of the tar") {
            Expect::Found
        } else {
            Expect::Refused
        };
        cases.push(Case::lie(name, expect, move |forge| forge.lies.raw_table = Some(Box::new(change))));
    }
    cases
}

fn blocks() -> Vec<Case> {
    let raw: [(&str, Change<Vec<RawBlock>>); 9] = [
        ("a block of zeros", |blocks| blocks[0].2.fill(0)),
        ("a block of ones", |blocks| blocks[0].2.fill(0xff)),
        ("a block cut short", |blocks| blocks[0].2.truncate(8)),
        ("a block that says it has 2^63 entries", |blocks| {
            blocks[0].2 = super::forge::padded(vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]);
        }),
        ("a number that never ends", |blocks| blocks[0].2[..20].fill(0x80)),
        ("an entry as long as 2^63", |blocks| {
            blocks[0].2[1..11].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        }),
        ("the same block twice", |blocks| {
            let block = blocks[0].clone();
            blocks.push(block);
        }),
        ("blocks that overlap", |blocks| {
            let block = blocks[0].2.clone();
            blocks.push((b"a".to_vec(), 3, block));
        }),
        ("a block without entries", |blocks| blocks.push((b"zz".to_vec(), 0, vec![0; 512]))),
    ];
    let case = |(name, change): (&'static str, Change<Vec<RawBlock>>)| {
        Case::lie(name, Expect::Refused, move |forge| forge.lies.blocks = Some(Box::new(change)))
    };
    raw.into_iter().map(case).collect()
}

fn frames() -> Vec<Case> {
    let raw: [(&str, Change<Vec<Stored>>); 12] = [
        ("frames in another order", |frames| frames.swap(0, 1)),
        ("a frame twice", |frames| frames[1] = frames[0].clone()),
        ("a frame more", |frames| {
            let frame = frames[1].clone();
            frames.push(frame);
        }),
        ("a frame less", |frames| {
            frames.remove(1);
        }),
        ("a frame that is longer than it is", |frames| frames[1].stored_length += 7),
        ("a frame that is shorter than it is", |frames| frames[1].stored_length -= 7),
        ("a frame of no stored bytes", |frames| frames[1] = listed(Vec::new(), 512)),
        ("a frame whose raw length is no whole block", |frames| frames[1].raw_length += 1),
        ("a frame whose raw length is another", |frames| frames[1].raw_length += 512),
        ("a frame of another codec", |frames| {
            if let Ok(other) = super::forge::stored(Codec::Gzip, &[0; 512]) {
                frames[1] = other;
            }
        }),
        ("a skippable frame among the frames", |frames| {
            frames[1] = listed([&[0x50, 0x2a, 0x4d, 0x18, 8, 0, 0, 0][..], &[0; 8]].concat(), 512);
        }),
        ("a frame that is cut short", |frames| {
            let cut = frames[1].bytes.len() - 9;
            frames[1].bytes.truncate(cut);
            frames[1] = listed(frames[1].bytes.clone(), frames[1].raw_length as usize);
        }),
    ];
    let case = |(name, change): (&'static str, Change<Vec<Stored>>)| {
        Case::lie(name, Expect::Found, move |forge| forge.lies.frames = Some(Box::new(change)))
    };
    let mut cases: Vec<Case> = raw.into_iter().map(case).collect();
    for (name, codec) in [("zstd", Codec::Zstd), ("gzip", Codec::Gzip)] {
        cases.push(Case::lie(format!("a second {name} frame within a frame"), Expect::Found, move |forge| {
            forge.codec = codec;
            hide_a_member(forge);
        }));
    }
    cases
}

/// Stock tools see another member behind the frame's own; the length at its end is the one that the table says.
fn hide_a_member(forge: &mut Forge) {
    let codec = forge.codec;
    forge.lies.frames = Some(Box::new(move |frames| {
        let hidden = super::tar::member(b"./hidden", b'0', &vec![b'h'; frames[0].raw_length as usize - 512]);
        if let Ok(second) = super::forge::stored(codec, &hidden) {
            let both = [frames[0].bytes.as_slice(), &second.bytes].concat();
            frames[0] = listed(both, frames[0].raw_length as usize);
        }
    }));
}

fn files() -> Vec<Case> {
    let raw: [(&str, Change<Vec<u8>>); 9] = [
        ("an empty file", |file| file.clear()),
        ("one byte", |file| file.truncate(1)),
        ("a footer alone", |file| {
            file.drain(..file.len() - 168);
        }),
        ("two archives one behind the other", |file| file.extend_from_within(..)),
        ("something before the archive", |file| {
            file.splice(..0, [7; 512]);
        }),
        ("something behind the archive", |file| file.extend([7; 512])),
        ("a megabyte of zeros", |file| *file = vec![0; 1 << 20]),
        ("a megabyte of frame beginnings", |file| *file = [0x28, 0xb5, 0x2f, 0xfd].repeat(1 << 18)),
        ("a megabyte of footers", |file| {
            let footer = file[file.len() - 168..].to_vec();
            *file = footer.repeat(6000);
        }),
    ];
    let case = |(name, change): (&'static str, Change<Vec<u8>>)| {
        Case::lie(name, Expect::Refused, move |forge| forge.lies.file = Some(Box::new(change)))
    };
    let mut cases: Vec<Case> = raw.into_iter().map(case).collect();
    for (name, codec) in [("zstd", Codec::Zstd), ("gzip", Codec::Gzip)] {
        cases.push(Case::lie(format!("no lie at all, in {name}"), Expect::Clean, move |forge| forge.codec = codec));
    }
    cases
}
