//! Content digests: BLAKE3, 32 bytes, and the values of the 2 MiB pieces they are made of.
//!
//! A content's digest is plain BLAKE3 (what `b3sum` prints). For a content of more than one piece the *piece values* are
//! BLAKE3's own subtree chaining values at the piece's position, so that hashing a piece once serves both: pieces can be
//! hashed and checked on any thread, and the digest of the whole follows from them ([`merge_pieces`]) without reading again.

use std::fmt;

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Length of a piece of content, in bytes. The last piece of a content may be shorter.
pub const PIECE_BYTES: u64 = 2 << 20;

/// Most pieces that an entry lists (a content of 1 TiB); for longer contents the list is left empty.
pub const MAX_PIECES: u64 = 1 << 19;

/// A BLAKE3 digest of some content, or the value of a piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads a digest from its 32 bytes; `None` for any other length.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads a digest from 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::from_hex(&text).ok_or_else(|| D::Error::custom("a digest is 64 hexadecimal digits"))
    }
}

/// How many pieces a content of `size` bytes has; at least one.
#[must_use]
pub fn piece_count(size: u64) -> u64 {
    size.div_ceil(PIECE_BYTES).max(1)
}

/// The value of piece number `index` of a content that has more than one piece.
#[must_use]
pub fn piece_value(index: u64, piece: &[u8]) -> Digest {
    let mut hasher = PieceHasher::new(index);
    hasher.update(piece);
    hasher.finish()
}

/// Hashes one piece of a content that has more than one.
#[derive(Debug)]
pub(crate) struct PieceHasher(blake3::Hasher);

impl PieceHasher {
    /// For piece number `index`.
    pub(crate) fn new(index: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(index * PIECE_BYTES);
        Self(hasher)
    }

    /// Takes the next bytes; of all together there are at most [`PIECE_BYTES`].
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes `count` zero bytes.
    pub(crate) fn update_zeros(&mut self, count: u64) {
        zeros(count, |some| self.update(some));
    }

    /// The value of the piece.
    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize_non_root())
    }
}

/// Gives `count` zero bytes, some at a time.
fn zeros(mut count: u64, mut give: impl FnMut(&[u8])) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while count > 0 {
        let some = &ZEROS[..usize::try_from(count).map_or(ZEROS.len(), |count| count.min(ZEROS.len()))];
        give(some);
        count -= some.len() as u64;
    }
}

/// The digest of a content from the values of all its pieces, of which there are at least two; `None` for fewer.
#[must_use]
pub fn merge_pieces(pieces: &[Digest]) -> Option<Digest> {
    if pieces.len() < 2 {
        return None;
    }
    let (left, right) = pieces.split_at(left_subtree(pieces.len()));
    Some(Digest(*merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).as_bytes()))
}

fn merge(pieces: &[Digest]) -> ChainingValue {
    match pieces {
        [one] => one.0,
        more => {
            let (left, right) = more.split_at(left_subtree(more.len()));
            merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
    }
}

/// BLAKE3's left subtree holds the largest power of two that leaves something on the right.
fn left_subtree(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

/// Digest and piece values of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentDigest {
    /// BLAKE3 of the whole.
    pub digest: Digest,
    /// Values of its pieces; empty when there is one piece only, or more than [`MAX_PIECES`].
    pub pieces: Vec<Digest>,
    /// Length of the content in bytes.
    pub size: u64,
}

/// Hashes a content from its beginning to its end, in one pass over each byte.
#[derive(Debug)]
pub struct ContentHasher {
    piece: blake3::Hasher,
    in_piece: u64,
    size: u64,
    /// Subtree values of complete runs of pieces, as (pieces in the run, value): BLAKE3's own stack.
    stack: Vec<(u64, ChainingValue)>,
    pieces: Vec<Digest>,
}

impl Default for ContentHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl ContentHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { piece: blake3::Hasher::new(), in_piece: 0, size: 0, stack: Vec::new(), pieces: Vec::new() }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.in_piece == PIECE_BYTES {
                self.close_piece();
            }
            let room = PIECE_BYTES - self.in_piece;
            let take = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            self.piece.update(&bytes[..take]);
            self.in_piece += take as u64;
            self.size += take as u64;
            bytes = &bytes[take..];
        }
    }

    /// Takes `count` zero bytes.
    pub fn update_zeros(&mut self, count: u64) {
        zeros(count, |some| self.update(some));
    }

    fn close_piece(&mut self) {
        let value = self.piece.finalize_non_root();
        self.push(value);
        self.piece = blake3::Hasher::new();
        self.piece.set_input_offset(self.size);
        self.in_piece = 0;
    }

    /// Subtrees are merged only when another piece follows, as the last merge of all is the root's.
    fn push(&mut self, value: ChainingValue) {
        while let [.., (left, left_value), (right, right_value)] = self.stack.as_slice() {
            if left != right {
                break;
            }
            let merged = (left + right, merge_subtrees_non_root(left_value, right_value, Mode::Hash));
            self.stack.truncate(self.stack.len() - 2);
            self.stack.push(merged);
        }
        self.stack.push((1, value));
        if self.pieces.len() as u64 <= MAX_PIECES {
            self.pieces.push(Digest(value));
        }
    }

    /// The digest of everything taken.
    #[must_use]
    pub fn finish(mut self) -> ContentDigest {
        if self.stack.is_empty() {
            let digest = Digest(*self.piece.finalize().as_bytes());
            return ContentDigest { digest, pieces: Vec::new(), size: self.size };
        }
        let last = self.piece.finalize_non_root();
        if self.pieces.len() as u64 <= MAX_PIECES {
            self.pieces.push(Digest(last));
        }
        let digest = self.fold(last);
        if self.pieces.len() as u64 > MAX_PIECES {
            self.pieces = Vec::new();
        }
        ContentDigest { digest, pieces: self.pieces, size: self.size }
    }

    /// Merges the stack with the last piece, from right to left; equal neighbours first, as BLAKE3 shapes its tree.
    fn fold(&self, last: ChainingValue) -> Digest {
        let mut stack = self.stack.clone();
        while let [.., (left, left_value), (right, right_value)] = stack.as_slice() {
            if left != right {
                break;
            }
            let merged = (left + right, merge_subtrees_non_root(left_value, right_value, Mode::Hash));
            stack.truncate(stack.len() - 2);
            stack.push(merged);
        }
        let mut right = last;
        while stack.len() > 1 {
            if let Some((_, left)) = stack.pop() {
                right = merge_subtrees_non_root(&left, &right, Mode::Hash);
            }
        }
        stack
            .pop()
            .map_or(Digest(right), |(_, left)| Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn pieces_merge_to_the_plain_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..15 * PIECE_BYTES + 7).map(|i| (i % 251) as u8).collect();
        for pieces in 1..=15_u64 {
            for extra in [-1_i64, 0, 1, 7] {
                let len = usize::try_from((pieces * PIECE_BYTES).checked_add_signed(extra).unwrap()).unwrap();
                let whole = &bytes[..len.min(bytes.len())];
                let mut hasher = ContentHasher::new();
                for part in whole.chunks(777_777) {
                    hasher.update(part);
                }
                let found = hasher.finish();
                assert_eq!(found.digest, Digest::of(whole), "{pieces} {extra}");
                assert_eq!(found.size, whole.len() as u64);
                if found.pieces.is_empty() {
                    assert!(whole.len() as u64 <= PIECE_BYTES);
                } else {
                    assert_eq!(merge_pieces(&found.pieces).unwrap(), found.digest);
                    let chunks = whole.chunks(usize::try_from(PIECE_BYTES).unwrap());
                    let values: Vec<Digest> = chunks.zip(0..).map(|(piece, i)| piece_value(i, piece)).collect();
                    assert_eq!(found.pieces, values);
                }
            }
        }
    }

    #[test]
    fn zeros_are_hashed_like_any_bytes() {
        let mut hasher = ContentHasher::new();
        hasher.update_zeros(3 * PIECE_BYTES + 1);
        let zeros = vec![0; usize::try_from(3 * PIECE_BYTES + 1).unwrap()];
        assert_eq!(hasher.finish().digest, Digest::of(&zeros));
    }

    #[test]
    fn a_digest_reads_back_from_its_own_text() {
        let digest = Digest::of(b"x");
        assert_eq!(Digest::from_hex(&digest.to_string()), Some(digest));
        assert_eq!(Digest::from_hex("12"), None);
    }
}
