//! The index of a made-up tree, as an agent sends it: blocks of entries in path order, encoded by the engine's own code.
//!
//! The tree is a function of a seed and of a size, so that the same host has the same files in every scan, and a change of one in so many
//! is as easy to make as to check.

use coord_archive::block::encode_stored;
use coord_archive::codec::Codec;
use coord_archive::digest::Digest;
use coord_archive::entry::{Attributes, ContentRef, Entry, FileTime, Flags, Identity, Kind};

/// Files of one folder.
pub const FILES_PER_FOLDER: u64 = 15;
/// Folders of one folder of folders: the tree has three levels of names.
const FOLDERS_PER_BRANCH: u64 = 300;
/// Entries of a block: about what a packer closes one at.
const ENTRIES_PER_BLOCK: usize = 1500;
/// Effort of the compression of blocks, as a packer has it.
const LEVEL: i32 = 1;
/// Owner and mode of every file.
const OWNER: u32 = 1000;
/// 2025-01-01T00:00:00Z, from which on the files were changed.
const EPOCH_S: i64 = 1_735_689_600;

/// A made-up tree.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Which one.
    pub seed: u64,
    /// Its regular files.
    pub files: u64,
    /// How many times the files that change have changed.
    pub turn: u64,
    /// One in so many files changes with every turn; 0: none.
    pub one_in: u64,
}

/// An index in blocks, ready to be sent.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// As stored.
    pub blocks: Vec<Vec<u8>>,
    /// All of them.
    pub entries: u64,
    /// Their encoded length, in bytes.
    pub bytes: u64,
}

impl Tree {
    /// Its folders of files.
    #[must_use]
    pub fn folders(&self) -> u64 {
        self.files.div_ceil(FILES_PER_FOLDER)
    }

    /// Path of a folder of files.
    #[must_use]
    pub fn folder(&self, number: u64) -> Vec<u8> {
        format!(
            "srv/{:05}/{:03}-{:04x}",
            number / FOLDERS_PER_BRANCH,
            number % FOLDERS_PER_BRANCH,
            mixed(self.seed, number) & 0xffff
        )
        .into_bytes()
    }

    /// The index of a full.
    #[must_use]
    pub fn full(&self) -> Index {
        let mut writer = Writer::default();
        writer.push(folder(Vec::new()));
        writer.push(folder(b"srv".to_vec()));
        for number in 0..self.folders() {
            if number % FOLDERS_PER_BRANCH == 0 {
                writer.push(folder(format!("srv/{:05}", number / FOLDERS_PER_BRANCH).into_bytes()));
            }
            let path = self.folder(number);
            writer.push(folder(path.clone()));
            let files = FILES_PER_FOLDER.min(self.files - number * FILES_PER_FOLDER);
            for file in 0..files {
                writer.push(self.file(&path, number * FILES_PER_FOLDER + file, Flags::default()));
            }
        }
        writer.finish()
    }

    /// The index of a differential: the files that have changed since turn 0, and nothing else.
    #[must_use]
    pub fn differential(&self) -> Index {
        let mut writer = Writer::default();
        for number in 0..self.folders() {
            let path = self.folder(number);
            let files = FILES_PER_FOLDER.min(self.files - number * FILES_PER_FOLDER);
            for file in (0..files).map(|file| number * FILES_PER_FOLDER + file).filter(|file| self.changes(*file)) {
                writer.push(self.file(&path, file, Flags::default()));
            }
        }
        writer.finish()
    }

    /// How many files have changed since turn 0.
    #[must_use]
    pub fn changed(&self) -> u64 {
        (0..self.files).filter(|file| self.changes(*file)).count() as u64
    }

    fn changes(&self, file: u64) -> bool {
        self.turn > 0 && self.one_in > 0 && mixed(self.seed, file).is_multiple_of(self.one_in)
    }

    fn file(&self, folder: &[u8], number: u64, flags: Flags) -> Entry {
        let turn = if self.changes(number) { self.turn } else { 0 };
        let random = mixed(self.seed ^ turn.rotate_left(32), number);
        let mut path = folder.to_vec();
        path.push(b'/');
        // In path order, and as long as names are.
        path.extend_from_slice(
            format!("{:02}-{:06x}.dat", number % FILES_PER_FOLDER, mixed(self.seed, number) & 0xff_ffff).as_bytes(),
        );
        let mut digest = [0; 32];
        for (place, part) in digest.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&mixed(random, place as u64).to_le_bytes());
        }
        let mtime =
            FileTime { seconds: EPOCH_S + (random % 40_000_000) as i64, nanos: (random >> 32) as u32 % 1_000_000_000 };
        Entry {
            kind: Kind::File,
            flags,
            size: 1 + random % 60_000,
            attributes: Attributes { mode: 0o644, uid: OWNER, gid: OWNER, mtime, ..Attributes::default() },
            identity: Identity { inode: number + 100, ctime: mtime },
            digest: Some(Digest(digest)),
            content: Some(ContentRef {
                frame: number / 100,
                frame_offset: number / 100 * 500_000,
                frame_length: 500_000,
                offset: (number % 100) as u32 * 20_000,
            }),
            ..Entry::tombstone(path)
        }
    }
}

fn folder(path: Vec<u8>) -> Entry {
    let mtime = FileTime { seconds: EPOCH_S, nanos: 0 };
    Entry {
        kind: Kind::Folder,
        attributes: Attributes { mode: 0o755, uid: OWNER, gid: OWNER, mtime, ..Attributes::default() },
        identity: Identity { inode: 1, ctime: mtime },
        ..Entry::tombstone(path)
    }
}

/// A number that looks random and is not (the finaliser of SplitMix64).
pub(super) fn mixed(seed: u64, number: u64) -> u64 {
    let mut value = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Collects entries into blocks.
#[derive(Default)]
struct Writer {
    index: Index,
    pending: Vec<Entry>,
}

impl Writer {
    fn push(&mut self, entry: Entry) {
        self.index.entries += 1;
        self.pending.push(entry);
        if self.pending.len() >= ENTRIES_PER_BLOCK {
            self.close();
        }
    }

    fn close(&mut self) {
        // An encoder that fails leaves a block that the coordinator refuses: the scene ends with that.
        let block = encode_stored(Codec::Zstd, LEVEL, &self.pending).unwrap_or_default();
        self.index.bytes += block.len() as u64;
        self.index.blocks.push(block);
        self.pending.clear();
    }

    fn finish(mut self) -> Index {
        if !self.pending.is_empty() {
            self.close();
        }
        self.index
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use coord_archive::block::{Limits, decode_stored};
    use coord_archive::entry::cmp_paths;

    use super::*;

    fn entries(index: &Index) -> Vec<Entry> {
        let limits = Limits { entries: 1 << 16, text_bytes: 64 << 20 };
        let decode = |block: &Vec<u8>| decode_stored(Codec::Zstd, block, limits).unwrap();
        index.blocks.iter().flat_map(decode).collect()
    }

    #[test]
    fn an_index_is_what_a_packer_could_have_written() {
        let tree = Tree { seed: 7, files: 10_000, turn: 0, one_in: 100 };
        let index = tree.full();
        let found = entries(&index);
        assert_eq!(found.len() as u64, index.entries);
        assert_eq!(found.iter().filter(|entry| entry.kind == Kind::File).count() as u64, tree.files);
        assert!(found.windows(2).all(|pair| cmp_paths(&pair[0].path, &pair[1].path).is_lt()));
        let changed = Tree { turn: 1, ..tree };
        assert_eq!(entries(&changed.differential()).len() as u64, changed.changed());
        assert!(changed.changed() > 0);
    }
}
