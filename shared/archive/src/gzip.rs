//! Making gzip members, and not burning time on what does not compress.
//!
//! Deflate at the usual levels works through random bytes at a fraction of a disk's speed to gain nothing. A frame is
//! therefore probed first: small samples spread over it are compressed quickly, until they have saved enough to show that
//! the frame is worth it. One that is not goes into stored blocks, which every gunzip reads. zstd gives up early by itself.

use std::io;

use libdeflater::{CompressionLvl, CompressionLvlError};

/// Frames below this length are always compressed: probing them would cost as much.
const MIN_PROBED_BYTES: usize = 256 << 10;
/// How many samples are taken at most.
const SAMPLES: usize = 32;
/// Length of a sample, in bytes.
const SAMPLE_BYTES: usize = 4 << 10;
/// A frame is compressed when its samples together save at least one byte in so many.
const WORTHWHILE: usize = 64;
/// The lowest level that compresses at all.
const PROBE_LEVEL: i32 = 1;
/// Longest stored block of deflate, in bytes.
const STORED_BLOCK_BYTES: usize = 0xffff;

/// Compresses members one after another.
pub(crate) struct GzipCompressor {
    compressor: libdeflater::Compressor,
    probe: libdeflater::Compressor,
    sample: Vec<u8>,
}

impl GzipCompressor {
    /// A compressor; fails when `level` does not exist.
    pub(crate) fn new(level: i32) -> Result<Self, CompressionLvlError> {
        let compressor = libdeflater::Compressor::new(CompressionLvl::new(level)?);
        let probe = libdeflater::Compressor::new(CompressionLvl::new(PROBE_LEVEL)?);
        Ok(Self { compressor, probe, sample: Vec::new() })
    }

    /// Replaces the content of `out` by the member that holds `raw`.
    pub(crate) fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if !self.is_worthwhile(raw) {
            store(raw, out);
            return Ok(());
        }
        out.resize(self.compressor.gzip_compress_bound(raw.len()), 0);
        let length = self.compressor.gzip_compress(raw, out).map_err(|_| io::Error::other("gzip ran out of room"))?;
        out.truncate(length);
        Ok(())
    }

    fn is_worthwhile(&mut self, raw: &[u8]) -> bool {
        if raw.len() < MIN_PROBED_BYTES {
            return true;
        }
        self.sample.resize(self.probe.deflate_compress_bound(SAMPLE_BYTES), 0);
        let mut saved = 0;
        for sample in raw.chunks(raw.len() / SAMPLES).map(|part| &part[..part.len().min(SAMPLE_BYTES)]) {
            // A sample that does not even fit the bound saves nothing.
            let length = self.probe.deflate_compress(sample, &mut self.sample).unwrap_or(sample.len());
            saved += sample.len().saturating_sub(length);
            if saved >= SAMPLES * SAMPLE_BYTES / WORTHWHILE {
                return true;
            }
        }
        false
    }
}

/// A member of stored blocks.
fn store(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(raw.len() + raw.len() / STORED_BLOCK_BYTES * 5 + 32);
    // Deflate, no flags, no time, no hint of the effort, unknown system.
    out.extend([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    let mut blocks = raw.chunks(STORED_BLOCK_BYTES).peekable();
    while let Some(block) = blocks.next() {
        // Bounded by STORED_BLOCK_BYTES.
        let length = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend(crc32fast::hash(raw).to_le_bytes());
    // The format keeps the length modulo 2^32; frames are far shorter.
    out.extend((raw.len() as u32).to_le_bytes());
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Bytes that do not compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn compressed(raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        GzipCompressor::new(6).unwrap().compress(raw, &mut out).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut back).unwrap();
        assert!(back == raw, "{} bytes do not come back", raw.len());
        out
    }

    #[test]
    fn noise_is_stored_and_every_gunzip_reads_it() {
        for length in [MIN_PROBED_BYTES, 4 * STORED_BLOCK_BYTES, 5 * STORED_BLOCK_BYTES + 1, 2 << 20] {
            let raw = noise(length);
            let out = compressed(&raw);
            // The first block's header: stored, and not the last one or the only one.
            assert_eq!((out[10] >> 1 & 3, &out[15..31]), (0, &raw[..16]), "{length} bytes are not stored");
            assert!(out.len() < raw.len() + raw.len() / 1000 + 64);
        }
    }

    #[test]
    fn a_frame_of_which_a_part_compresses_is_compressed() {
        let text: Vec<u8> =
            (0..20_000_u32).flat_map(|number| format!("line {number} of a log\n").into_bytes()).collect();
        let mixed = [noise(1 << 20), text.clone(), noise(1 << 20)].concat();
        let (mixed_length, text_length) = (compressed(&mixed).len(), compressed(&text).len());
        assert!(text_length < text.len() / 2, "{text_length} of {}", text.len());
        assert!(mixed_length < mixed.len() - text.len() / 2, "{mixed_length} of {}", mixed.len());
        assert!(compressed(&noise(1000)).len() < 1100);
        assert!(compressed(&[]).len() < 64);
    }
}
