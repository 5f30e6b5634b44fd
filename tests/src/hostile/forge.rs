//! Writes archives as shared/FORMAT.md says, or as it forbids: a second writer that shares no code with the product, so that it can say
//! anything.
//!
//! What is forged is whole on the outside. Digests, lengths and the footer are right unless a case wants them wrong: an attacker
//! who can write an archive can write those too, and a flipped bit is what the tests of damage are for.

use std::io::Write as _;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::tar;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// zstd frames.
    Zstd,
    /// gzip members.
    Gzip,
}

/// Kinds of entries, by their numbers in the format.
pub mod kind {
    /// A regular file.
    pub const FILE: u8 = 1;
    /// A folder.
    pub const FOLDER: u8 = 2;
    /// A symbolic link.
    pub const SYMLINK: u8 = 3;
    /// A named pipe.
    pub const FIFO: u8 = 4;
    /// A character device.
    pub const CHAR_DEVICE: u8 = 5;
    /// A block device.
    pub const BLOCK_DEVICE: u8 = 6;
    /// The name of the base is gone.
    pub const TOMBSTONE: u8 = 7;
}

/// Where a record says that content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Number of the frame.
    pub frame: u64,
    /// Offset in its raw form.
    pub at: u64,
    /// Offset of the frame in the archive, if not the right one.
    pub frame_offset: Option<u64>,
    /// Its stored length, if not the right one.
    pub frame_length: Option<u64>,
}

/// A record of the index; every number is as wide as the format can carry.
#[derive(Clone, Debug)]
pub struct Record {
    /// The path.
    pub path: Vec<u8>,
    /// Its kind's number.
    pub kind: u8,
    /// Flags.
    pub flags: u64,
    /// Permissions.
    pub mode: u64,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u64),
    /// Owner and group.
    pub owner: (u64, u64),
    /// Size of a file.
    pub size: u64,
    /// Inode flags.
    pub inode_flags: u64,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Target of a link.
    pub link_target: Vec<u8>,
    /// Device numbers.
    pub device: (u64, u64),
    /// Hard-link group.
    pub link_group: u64,
    /// Data ranges as gap and length.
    pub ranges: Option<Vec<(u64, u64)>>,
    /// Digest of the content.
    pub digest: Option<[u8; 32]>,
    /// Values of the pieces.
    pub pieces: Vec<[u8; 32]>,
    /// Place of the content.
    pub content: Option<Spot>,
    /// How many bytes the path claims to share with the one before; 0 is always right.
    pub shared: u64,
    /// Bits of fields that are not there.
    pub false_fields: u64,
    /// The record's bytes, if not what follows from the above.
    pub raw: Option<Vec<u8>>,
}

/// A name in the archive: its record, its content, its member in the tar.
#[derive(Clone, Debug)]
pub struct Node {
    /// What the index says.
    pub record: Record,
    /// Bytes of the file.
    pub content: Option<Vec<u8>>,
    /// What the tar says.
    pub member: Member,
    /// Whether a frame begins here.
    pub begins_frame: bool,
    /// Whether an index block begins here.
    pub begins_block: bool,
}

/// What the tar says of a node.
#[derive(Clone, Debug)]
pub enum Member {
    /// What the index says.
    Honest,
    /// Nothing.
    Missing,
    /// Exactly these blocks; content is put behind them if the node has any.
    Raw(Vec<u8>),
}

/// A stored frame with what its line in a table says.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Compressed bytes.
    pub bytes: Vec<u8>,
    /// Stored length as listed.
    pub stored_length: u32,
    /// Raw length as listed.
    pub raw_length: u32,
    /// Digest as listed.
    pub digest: [u8; 32],
}

/// The table before it is encoded.
#[derive(Clone, Debug)]
pub struct Table {
    /// Level, own folder, entries, files, bytes, frames.
    pub counts: [u64; 6],
    /// Offset of the head frame.
    pub head_offset: u64,
    /// The head frame.
    pub head: Stored,
    /// Blocks: first path, entries, frame.
    pub blocks: Vec<(Vec<u8>, u64, Stored)>,
    /// Chunks: frames, offset of the first, frame.
    pub chunks: Vec<(u64, u64, Stored)>,
}

/// An index block before it is compressed: first path, entries, raw form.
pub type RawBlock = (Vec<u8>, u64, Vec<u8>);

/// Changes one stage of an archive that is being written.
pub type Lie<T> = Option<Box<dyn Fn(&mut T) + Send + Sync>>;

/// Where an archive may be made to lie besides its nodes.
#[derive(Default)]
pub struct Lies {
    /// The raw tar, frame by frame.
    pub raw_frames: Lie<Vec<Vec<u8>>>,
    /// Frames after compression.
    pub frames: Lie<Vec<Stored>>,
    /// The archive's header.
    pub header: Lie<Value>,
    /// The raw head frame.
    pub head: Lie<Vec<u8>>,
    /// Raw index blocks.
    pub blocks: Lie<Vec<RawBlock>>,
    /// The table.
    pub table: Lie<Table>,
    /// The raw table.
    pub raw_table: Lie<Vec<u8>>,
    /// The footer's payload; its checksum is made afterwards.
    pub footer: Lie<Vec<u8>>,
    /// The whole file.
    pub file: Lie<Vec<u8>>,
}

/// An archive that is being forged.
pub struct Forge {
    /// How it is compressed.
    pub codec: Codec,
    /// The full's digest, for a differential.
    pub base: Option<[u8; 32]>,
    /// Its names, in the order in which they are written.
    pub nodes: Vec<Node>,
    /// The script; names the recipe would set.
    pub script: Vec<u8>,
    /// Names in `deleted`.
    pub deleted: Vec<u8>,
    /// Other lies.
    pub lies: Lies,
    /// Files and bytes of content in the frames.
    stored: (u64, u64),
}

/// The script that every honest archive of ours ends with, as short as it can be.
pub const SCRIPT: &[u8] = b"#!/bin/sh\nexit 0\n";

fn tell<T>(lie: &Lie<T>, about: &mut T) {
    if let Some(lie) = lie {
        lie(about);
    }
}

impl Forge {
    /// An archive of these names.
    #[must_use]
    pub fn new(base: Option<[u8; 32]>, nodes: Vec<Node>) -> Self {
        Self {
            codec: Codec::Zstd,
            base,
            nodes,
            script: SCRIPT.to_vec(),
            deleted: Vec::new(),
            lies: Lies::default(),
            stored: (0, 0),
        }
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// A frame cannot be compressed.
    pub fn seal(mut self) -> anyhow::Result<Vec<u8>> {
        let mut raw = self.raw_frames();
        tell(&self.lies.raw_frames, &mut raw);
        let mut frames = raw.iter().map(|raw| self.stored(raw)).collect::<anyhow::Result<Vec<_>>>()?;
        tell(&self.lies.frames, &mut frames);
        let mut out: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.clone()).collect();
        let mut blocks = self.raw_blocks(&frames);
        tell(&self.lies.blocks, &mut blocks);
        let chunk_raw = padded(frames.iter().flat_map(line).collect());
        let head_offset = out.len() as u64;
        let table = self.table(&frames, &blocks, &chunk_raw, head_offset)?;
        out.extend(&table.head.bytes);
        table.blocks.iter().for_each(|(_, _, block)| out.extend(&block.bytes));
        table.chunks.iter().for_each(|(_, _, chunk)| out.extend(&chunk.bytes));
        let mut raw_table = padded(encode_table(&table));
        raw_table.resize(raw_table.len() + 1024, 0);
        tell(&self.lies.raw_table, &mut raw_table);
        let stored = self.stored(&raw_table)?;
        let table_offset = out.len() as u64;
        out.extend(&stored.bytes);
        let footer = self.footer(&table, table_offset, &stored, out.len() as u64);
        out.extend(footer);
        tell(&self.lies.file, &mut out);
        Ok(out)
    }

    fn stored(&self, raw: &[u8]) -> anyhow::Result<Stored> {
        stored(self.codec, raw)
    }

    fn level(&self) -> u64 {
        if self.base.is_some() { 2 } else { 1 }
    }

    /// The tar in frames; contents find out where they are.
    fn raw_frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = vec![tar::member(b"./.coord/RESTORE.txt", b'0', b"forged\n")];
        let mut leaders: Vec<(u64, Vec<u8>, Option<Spot>)> = Vec::new();
        for node in &mut self.nodes {
            if node.begins_frame {
                frames.push(Vec::new());
            }
            let number = frames.len() as u64 - 1;
            let Some(frame) = frames.last_mut() else { continue };
            let group = node.record.link_group;
            let leader = leaders.iter().find(|(known, ..)| group != 0 && *known == group).cloned();
            if let (Some((_, path, spot)), Member::Honest) = (&leader, &node.member) {
                frame.extend(tar::of_record(&node.record, None, Some(path)));
                node.record.content = node.record.content.or(*spot);
                continue;
            }
            match &node.member {
                Member::Honest => frame.extend(tar::of_record(&node.record, node.content.as_deref(), None)),
                Member::Missing => {}
                Member::Raw(blocks) => frame.extend(blocks),
            }
            if let Some(content) = &node.content {
                self.stored = (self.stored.0 + 1, self.stored.1 + content.len() as u64);
                let at = frame.len() as u64;
                frame.extend(content);
                frame.resize(frame.len().next_multiple_of(512), 0);
                node.record.content.get_or_insert(Spot { frame: number, at, frame_offset: None, frame_length: None });
            }
            leaders.push((group, node.record.path.clone(), node.record.content));
        }
        let mut tail = Vec::new();
        if self.base.is_some() {
            tail.extend(tar::member(b"./.coord/deleted", b'0', &self.deleted));
        }
        tail.extend(tar::member(b"./.coord/attributes.sh", b'0', &self.script));
        frames.push(tail);
        frames
    }

    fn raw_blocks(&self, frames: &[Stored]) -> Vec<RawBlock> {
        let mut blocks: Vec<(Vec<u8>, Vec<&Record>)> = Vec::new();
        for node in &self.nodes {
            match blocks.last_mut() {
                Some((_, records)) if !node.begins_block => records.push(&node.record),
                _ => blocks.push((node.record.path.clone(), vec![&node.record])),
            }
        }
        let encoded = blocks.into_iter().map(|(first, records)| {
            let mut raw = Vec::new();
            number(&mut raw, records.len() as u64);
            for record in &records {
                let body = record.raw.clone().unwrap_or_else(|| encode_record(record, frames));
                bytes(&mut raw, &body);
            }
            (first, records.len() as u64, padded(raw))
        });
        encoded.collect()
    }

    fn table(
        &self,
        frames: &[Stored],
        blocks: &[RawBlock],
        chunk_raw: &[u8],
        head_offset: u64,
    ) -> anyhow::Result<Table> {
        let entries = blocks.iter().map(|(_, count, _)| *count).sum();
        let (files, size) = self.stored;
        let stored_blocks = blocks
            .iter()
            .map(|(first, count, raw)| Ok((first.clone(), *count, self.stored(raw)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let chunks = vec![(frames.len() as u64, 0, self.stored(chunk_raw)?)];
        let mut table = Table {
            counts: [self.level(), 0, entries, files, size, frames.len() as u64],
            head_offset,
            head: self.stored(&[])?,
            blocks: stored_blocks,
            chunks,
        };
        let blocks_raw: usize = blocks.iter().map(|(_, _, raw)| raw.len()).sum();
        // The table's own length does not depend on what the head holds, which is listed in 40 bytes whatever it is.
        let table_raw = padded(encode_table(&table)).len();
        let json = self.json()?;
        let head_length = (512 + 4 + json.len()).next_multiple_of(512);
        let member_length = head_length - 512 + blocks_raw + chunk_raw.len() + table_raw;
        let mut head = tar::header(b"./.coord/index", b'0', member_length as u64, b"");
        head.extend((json.len() as u32).to_le_bytes());
        head.extend(json);
        head.resize(head_length, 0);
        tell(&self.lies.head, &mut head);
        table.head = self.stored(&head)?;
        tell(&self.lies.table, &mut table);
        Ok(table)
    }

    fn json(&self) -> anyhow::Result<Vec<u8>> {
        let level = if self.base.is_some() { "differential" } else { "full" };
        let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let base =
            self.base.map(|digest| json!({"archive_digest": hex(&digest), "name": "full.tar.zst", "ordinal": 0}));
        let mut header = json!({
            "tool": "forger 1", "level": level, "root": "/", "sources": [""], "selection": hex(&[0; 32]), "base": base,
            "scan_started_at": "2026-01-01T00:00:00Z", "captured_at": "2026-01-01T00:00:01Z",
        });
        tell(&self.lies.header, &mut header);
        // A header that is no object stands for bytes as they are.
        match &header {
            Value::String(text) => Ok(text.clone().into_bytes()),
            other => serde_json::to_vec(other).context("a header of JSON"),
        }
    }

    fn footer(&self, table: &Table, table_offset: u64, stored: &Stored, length: u64) -> Vec<u8> {
        let framing = if self.codec == Codec::Zstd { 8 } else { 26 };
        let mut payload = b"coordarc".to_vec();
        payload.extend([1, 0, if self.codec == Codec::Zstd { 1 } else { 2 }, self.level() as u8]);
        payload.extend((table.counts[1] as u32).to_le_bytes());
        let [_, _, entries, files, size, frames] = table.counts;
        let numbers = [table_offset, stored.bytes.len() as u64, entries, files, size, frames, length + framing + 160];
        numbers.iter().for_each(|number| payload.extend(number.to_le_bytes()));
        payload.extend(stored.digest);
        payload.resize(156, 0);
        tell(&self.lies.footer, &mut payload);
        framed_footer(self.codec, payload)
    }
}

/// A footer of this payload, which gets its checksum here.
fn framed_footer(codec: Codec, mut payload: Vec<u8>) -> Vec<u8> {
    payload.extend(crc32fast::hash(&payload).to_le_bytes());
    match codec {
        Codec::Zstd => [&[0x5c, 0x2a, 0x4d, 0x18, 160, 0, 0, 0][..], &payload].concat(),
        Codec::Gzip => {
            let before = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 164, 0, b'C', b'O', 160, 0];
            [&before[..], &payload, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat()
        }
    }
}

/// A frame with a right line.
///
/// # Errors
/// It cannot be compressed.
pub fn stored(codec: Codec, raw: &[u8]) -> anyhow::Result<Stored> {
    let bytes = match codec {
        Codec::Zstd => {
            let mut compressor = zstd::bulk::Compressor::new(1)?;
            compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
            compressor.compress(raw)?
        }
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(raw)?;
            encoder.finish()?
        }
    };
    Ok(listed(bytes, raw.len()))
}

/// Stored bytes with the line that suits them.
#[must_use]
pub fn listed(bytes: Vec<u8>, raw_length: usize) -> Stored {
    let digest = *blake3::hash(&bytes).as_bytes();
    Stored { stored_length: bytes.len() as u32, raw_length: raw_length as u32, digest, bytes }
}

/// Bytes filled up with zeros to whole blocks.
#[must_use]
pub fn padded(mut raw: Vec<u8>) -> Vec<u8> {
    raw.resize(raw.len().next_multiple_of(512), 0);
    raw
}

fn line(frame: &Stored) -> Vec<u8> {
    [&frame.stored_length.to_le_bytes()[..], &frame.raw_length.to_le_bytes(), &frame.digest].concat()
}

fn encode_table(table: &Table) -> Vec<u8> {
    let mut out = Vec::new();
    table.counts.iter().for_each(|count| number(&mut out, *count));
    number(&mut out, table.head_offset);
    out.extend(line(&table.head));
    number(&mut out, table.blocks.len() as u64);
    for (first, count, block) in &table.blocks {
        number(&mut out, 0);
        bytes(&mut out, first);
        number(&mut out, *count);
        out.extend(line(block));
    }
    number(&mut out, table.chunks.len() as u64);
    for (count, offset, chunk) in &table.chunks {
        number(&mut out, *count);
        number(&mut out, *offset);
        out.extend(line(chunk));
    }
    out
}

/// A varint.
pub fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes behind their length.
pub fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    number(out, value.len() as u64);
    out.extend(value);
}

fn time(out: &mut Vec<u8>, (seconds, nanos): (i64, u64)) {
    number(out, (seconds.cast_unsigned() << 1) ^ (seconds >> 63).cast_unsigned());
    number(out, nanos);
}

fn encode_record(record: &Record, frames: &[Stored]) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, record.shared);
    bytes(&mut out, &record.path);
    out.push(record.kind);
    number(&mut out, record.flags);
    let present = [
        (record.size != 0, 1),
        (true, 1 << 1),
        (record.inode_flags != 0, 1 << 2),
        (!record.xattrs.is_empty(), 1 << 3),
        (!record.link_target.is_empty(), 1 << 4),
        (record.device != (0, 0), 1 << 5),
        (record.link_group != 0, 1 << 6),
        (record.ranges.is_some(), 1 << 7),
        (record.digest.is_some(), 1 << 8),
        (!record.pieces.is_empty(), 1 << 9),
        (record.content.is_some(), 1 << 10),
    ];
    let fields: u64 = present.iter().filter(|(there, _)| *there).map(|(_, bit)| bit).sum();
    number(&mut out, fields | record.false_fields);
    number(&mut out, record.mode);
    time(&mut out, record.mtime);
    number(&mut out, 1);
    time(&mut out, record.mtime);
    encode_fields(record, frames, &mut out);
    out
}

fn encode_fields(record: &Record, frames: &[Stored], out: &mut Vec<u8>) {
    if record.size != 0 {
        number(out, record.size);
    }
    number(out, record.owner.0);
    number(out, record.owner.1);
    bytes(out, b"");
    bytes(out, b"");
    if record.inode_flags != 0 {
        number(out, record.inode_flags);
    }
    if !record.xattrs.is_empty() {
        number(out, record.xattrs.len() as u64);
        for (name, value) in &record.xattrs {
            bytes(out, name);
            bytes(out, value);
        }
    }
    if !record.link_target.is_empty() {
        bytes(out, &record.link_target);
    }
    if record.device != (0, 0) {
        number(out, record.device.0);
        number(out, record.device.1);
    }
    if record.link_group != 0 {
        number(out, record.link_group);
    }
    if let Some(ranges) = &record.ranges {
        number(out, ranges.len() as u64);
        for (gap, length) in ranges {
            number(out, *gap);
            number(out, *length);
        }
    }
    out.extend(record.digest.iter().flatten());
    if !record.pieces.is_empty() {
        number(out, record.pieces.len() as u64);
        record.pieces.iter().for_each(|piece| out.extend(piece));
    }
    if let Some(spot) = record.content {
        let before = |frame: u64| frames.iter().take(frame as usize).map(|frame| frame.bytes.len() as u64).sum();
        let length = frames.get(spot.frame as usize).map_or(1, |frame| u64::from(frame.stored_length));
        number(out, spot.frame);
        number(out, spot.frame_offset.unwrap_or_else(|| before(spot.frame)));
        number(out, spot.frame_length.unwrap_or(length));
        number(out, spot.at);
    }
}
