//! The footer: the fixed-size end of an archive that says that it is whole.
//!
//! Stock decompressors pass over it: it is a zstd skippable frame, or an empty gzip member with an extra field. Its
//! payload is the same for both. No valid footer, no archive.

use crate::codec::Codec;
use crate::digest::Digest;
use crate::header::Level;

/// The version this program writes, and the newest it reads.
pub const FORMAT_VERSION: u16 = 1;

/// Length of the payload in bytes.
pub const PAYLOAD_BYTES: usize = 160;

/// Longest footer of any codec.
pub const MAX_FOOTER_BYTES: usize = PAYLOAD_BYTES + GZIP_HEAD.len() + GZIP_TAIL.len();

const MAGIC: [u8; 8] = *b"coordarc";
/// zstd skippable frame number 12, and the payload's length.
const ZSTD_HEAD: [u8; 8] = [0x5c, 0x2a, 0x4d, 0x18, 160, 0, 0, 0];
/// gzip with FEXTRA, no time, unknown system; one subfield `CO` of the payload's length.
const GZIP_HEAD: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 164, 0, b'C', b'O', 160, 0];
/// An empty deflate stream, and CRC-32 and length of nothing.
const GZIP_TAIL: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The facts of a whole archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Format version of the archive.
    pub version: u16,
    /// Codec of all its frames.
    pub codec: Codec,
    /// Full or differential.
    pub level: Level,
    /// Number of our own folder in the archive, as in the header.
    pub dot_coord: u32,
    /// Where the table frame begins, in bytes from the archive's beginning.
    pub table_offset: u64,
    /// Stored length of the table frame.
    pub table_length: u32,
    /// Entries in the index, tombstones included.
    pub entries: u64,
    /// Regular files whose content is stored here.
    pub files: u64,
    /// Bytes of content stored here, before compression.
    pub bytes: u64,
    /// Frames before the index.
    pub frames: u64,
    /// Length of the whole archive file, footer included.
    pub stored_bytes: u64,
    /// BLAKE3 of the stored table frame, which holds the digests of everything before it: the identity of the archive.
    pub archive_digest: Digest,
}

/// The end of a file is not a footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// No footer: cut short, not finished, or not an archive of ours.
    #[error("there is no footer: the archive is cut short, unfinished, or not one of ours")]
    Missing,
    /// A footer whose checksum or fields are wrong.
    #[error("the footer is damaged")]
    Damaged,
    /// A version that this program does not know.
    #[error("the archive has format version {0}; this program reads up to {FORMAT_VERSION}, use a newer one")]
    Unsupported(u16),
}

impl Footer {
    /// Length of a footer for `codec`, framing included.
    #[must_use]
    pub fn stored_length(codec: Codec) -> usize {
        match codec {
            Codec::Zstd => ZSTD_HEAD.len() + PAYLOAD_BYTES,
            Codec::Gzip => GZIP_HEAD.len() + PAYLOAD_BYTES + GZIP_TAIL.len(),
        }
    }

    /// The bytes that end the archive.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let payload = self.payload();
        match self.codec {
            Codec::Zstd => [&ZSTD_HEAD[..], &payload].concat(),
            Codec::Gzip => [&GZIP_HEAD[..], &payload, &GZIP_TAIL].concat(),
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PAYLOAD_BYTES);
        out.extend(MAGIC);
        out.extend(self.version.to_le_bytes());
        out.push(self.codec as u8);
        out.push(self.level as u8);
        out.extend(self.dot_coord.to_le_bytes());
        for number in [self.table_offset, u64::from(self.table_length), self.entries, self.files] {
            out.extend(number.to_le_bytes());
        }
        for number in [self.bytes, self.frames, self.stored_bytes] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.archive_digest.0);
        out.resize(PAYLOAD_BYTES - 4, 0);
        let crc = crc32fast::hash(&out);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Reads the footer at the end of `tail`, the last [`MAX_FOOTER_BYTES`] bytes of a file (or all of a shorter one).
    pub fn decode(tail: &[u8]) -> Result<Self, FooterError> {
        let zstd = tail
            .len()
            .checked_sub(Self::stored_length(Codec::Zstd))
            .and_then(|from| tail[from..].strip_prefix(&ZSTD_HEAD))
            .map(|payload| (Codec::Zstd, payload));
        let gzip = tail
            .len()
            .checked_sub(Self::stored_length(Codec::Gzip))
            .and_then(|from| tail[from..].strip_prefix(&GZIP_HEAD))
            .and_then(|rest| rest.strip_suffix(&GZIP_TAIL))
            .map(|payload| (Codec::Gzip, payload));
        let (codec, payload) = zstd.or(gzip).ok_or(FooterError::Missing)?;
        Self::decode_payload(codec, payload)
    }

    fn decode_payload(codec: Codec, payload: &[u8]) -> Result<Self, FooterError> {
        let (body, crc) = payload.split_last_chunk::<4>().ok_or(FooterError::Missing)?;
        if body.len() + 4 != PAYLOAD_BYTES || body[..8] != MAGIC {
            return Err(FooterError::Missing);
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(FooterError::Damaged);
        }
        let version = u16::from_le_bytes([body[8], body[9]]);
        if version == 0 || version > FORMAT_VERSION {
            return Err(FooterError::Unsupported(version));
        }
        let level = match body[11] {
            1 => Level::Full,
            2 => Level::Differential,
            _ => return Err(FooterError::Damaged),
        };
        if Codec::from_number(body[10]) != Some(codec) {
            return Err(FooterError::Damaged);
        }
        let number = |index: usize| {
            let at = 16 + 8 * index;
            body[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| FooterError::Damaged)
        };
        Ok(Self {
            version,
            codec,
            level,
            dot_coord: u32::from_le_bytes([body[12], body[13], body[14], body[15]]),
            table_offset: number(0)?,
            table_length: u32::try_from(number(1)?).map_err(|_| FooterError::Damaged)?,
            entries: number(2)?,
            files: number(3)?,
            bytes: number(4)?,
            frames: number(5)?,
            stored_bytes: number(6)?,
            archive_digest: Digest::from_slice(&body[72..104]).ok_or(FooterError::Damaged)?,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn footer(codec: Codec) -> Footer {
        Footer {
            version: 1,
            codec,
            level: Level::Differential,
            dot_coord: 3,
            table_offset: 1 << 40,
            table_length: 77,
            entries: 1,
            files: 2,
            bytes: 3,
            frames: 4,
            stored_bytes: 5,
            archive_digest: Digest::of(b"x"),
        }
    }

    #[test]
    fn a_footer_comes_back_and_every_flipped_bit_is_noticed() {
        for codec in [Codec::Zstd, Codec::Gzip] {
            let mut bytes = footer(codec).encode();
            assert_eq!(bytes.len(), Footer::stored_length(codec));
            assert_eq!(Footer::decode(&bytes).unwrap(), footer(codec));
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Footer::decode(&bytes).is_err(), "{codec:?} bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            for cut in 0..bytes.len() {
                assert!(Footer::decode(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn stock_decoders_pass_over_a_footer() {
        let mut text = Vec::new();
        let gzip = footer(Codec::Gzip).encode();
        flate2::read::MultiGzDecoder::new(gzip.as_slice()).read_to_end(&mut text).unwrap();
        let zstd = footer(Codec::Zstd).encode();
        zstd::stream::read::Decoder::new(zstd.as_slice()).unwrap().read_to_end(&mut text).unwrap();
        assert!(text.is_empty());
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut newer = footer(Codec::Zstd);
        newer.version = 2;
        assert_eq!(Footer::decode(&newer.encode()), Err(FooterError::Unsupported(2)));
    }
}
