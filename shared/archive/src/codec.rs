//! The two codecs: independent zstd frames and independent gzip members, whole buffers in and out.
//!
//! Nothing here streams: a frame is bounded by [`MAX_FRAME_BYTES`], so it fits a buffer that its owner uses again.

use std::io::{self, Read as _};

use zstd::zstd_safe::{CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use crate::gzip::GzipCompressor;

/// Largest decompressed frame that is written or accepted.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// zstd frames with content size and checksum.
    Zstd = 1,
    /// gzip members.
    Gzip = 2,
}

impl Codec {
    /// The codec of that number in a footer.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Zstd),
            2 => Some(Self::Gzip),
            _ => None,
        }
    }

    /// The end of an archive's file name, without a leading dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd => "tar.zst",
            Self::Gzip => "tar.gz",
        }
    }

    /// The level used when nobody asks for one: 3 for zstd, 6 for gzip.
    #[must_use]
    pub fn default_level(self) -> i32 {
        match self {
            Self::Zstd => 3,
            Self::Gzip => 6,
        }
    }
}

/// A frame could not be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The level does not exist for the codec.
    #[error("compression level {level} is out of range for {codec:?}")]
    Level {
        /// The codec.
        codec: Codec,
        /// The level asked for.
        level: i32,
    },
    /// The library refused to compress.
    #[error("compressing a frame failed")]
    Compress(#[source] io::Error),
    /// The bytes are not a frame of this codec, or are damaged.
    #[error("a frame does not decompress: {0}")]
    Damaged(&'static str),
    /// The frame says that it is larger than what may be.
    #[error("a frame of {found} bytes where at most {limit} are allowed")]
    TooLarge {
        /// What the frame declares.
        found: u64,
        /// What is allowed.
        limit: usize,
    },
}

/// Compresses frames one after another, reusing its working memory.
pub struct Compressor(Inner);

enum Inner {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(GzipCompressor),
}

impl Compressor {
    /// A compressor; fails when `level` does not exist.
    pub fn new(codec: Codec, level: i32) -> Result<Self, CodecError> {
        let bad_level = || CodecError::Level { codec, level };
        match codec {
            Codec::Zstd => {
                if !(1..=19).contains(&level) {
                    return Err(bad_level());
                }
                let mut inner = zstd::bulk::Compressor::new(level).map_err(CodecError::Compress)?;
                inner.set_parameter(CParameter::ChecksumFlag(true)).map_err(CodecError::Compress)?;
                Ok(Self(Inner::Zstd(inner)))
            }
            Codec::Gzip => Ok(Self(Inner::Gzip(GzipCompressor::new(level).map_err(|_| bad_level())?))),
        }
    }

    /// Replaces the content of `out` by the frame that holds `raw`.
    pub fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        if raw.len() > MAX_FRAME_BYTES {
            return Err(CodecError::TooLarge { found: raw.len() as u64, limit: MAX_FRAME_BYTES });
        }
        match &mut self.0 {
            Inner::Zstd(inner) => {
                out.clear();
                out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
                inner.compress_to_buffer(raw, out).map_err(CodecError::Compress)?;
            }
            Inner::Gzip(inner) => {
                inner.compress(raw, out).map_err(CodecError::Compress)?;
            }
        }
        Ok(())
    }
}

/// Decompresses frames one after another, reusing its working memory.
pub struct Decompressor(Outer);

enum Outer {
    Zstd(DCtx<'static>),
    Gzip(libdeflater::Decompressor),
}

impl Decompressor {
    /// A decompressor.
    pub fn new(codec: Codec) -> Result<Self, CodecError> {
        match codec {
            Codec::Zstd => {
                let mut inner = DCtx::try_create().ok_or(CodecError::Damaged("no zstd context"))?;
                inner
                    .set_parameter(DParameter::WindowLogMax(27))
                    .map_err(|_| CodecError::Damaged("no zstd window limit"))?;
                Ok(Self(Outer::Zstd(inner)))
            }
            Codec::Gzip => Ok(Self(Outer::Gzip(libdeflater::Decompressor::new()))),
        }
    }

    /// Replaces the content of `out` by what the frame in `stored` holds, which is at most `limit` bytes.
    /// `stored` is exactly one frame.
    pub fn decompress(&mut self, stored: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let length = self.bounded_length(stored, limit)?;
        match &mut self.0 {
            Outer::Zstd(inner) => {
                if zstd::zstd_safe::find_frame_compressed_size(stored).ok() != Some(stored.len()) {
                    return Err(CodecError::Damaged("not exactly one zstd frame"));
                }
                out.clear();
                out.reserve(length);
                let found =
                    inner.decompress(out, stored).map_err(|_| CodecError::Damaged("zstd data or checksum is wrong"))?;
                if found != length {
                    return Err(CodecError::Damaged("the zstd frame has another length than it says"));
                }
            }
            Outer::Gzip(inner) => {
                out.resize(length, 0);
                let found = inner
                    .gzip_decompress(stored, out)
                    .map_err(|_| CodecError::Damaged("gzip data or checksum is wrong"))?;
                if found != length {
                    return Err(CodecError::Damaged("the gzip member has another length than it says"));
                }
            }
        }
        Ok(())
    }

    /// As [`Self::decompress`]; and whether the frame is all that stock tools see there. zstd frames always are; behind a gzip
    /// member may stand another one.
    pub(crate) fn decompress_alone(
        &mut self,
        stored: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, CodecError> {
        if matches!(self.0, Outer::Zstd(_)) {
            return self.decompress(stored, limit, out).map(|()| true);
        }
        let damaged = |_| CodecError::Damaged("gzip data or checksum is wrong");
        out.resize(self.bounded_length(stored, limit)?, 0);
        // Of our two programs for gzip this one says where a member ends.
        let mut member = flate2::bufread::GzDecoder::new(stored);
        member.read_exact(out).map_err(damaged)?;
        // The checksum is looked at when the end is met.
        if member.read(&mut [0]).map_err(damaged)? > 0 {
            return Err(CodecError::Damaged("the gzip member has another length than it says"));
        }
        Ok(member.into_inner().is_empty())
    }

    /// Replaces the content of `out` by the first `wanted` bytes of what the frame in `stored` holds, or by all of a
    /// shorter one. What comes behind them is not decompressed, so the frame's own checksum proves nothing here.
    pub(crate) fn decompress_prefix(
        &mut self,
        stored: &[u8],
        wanted: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let length = self.bounded_length(stored, MAX_FRAME_BYTES)?;
        if length <= wanted {
            return self.decompress(stored, length, out);
        }
        out.clear();
        out.reserve(wanted);
        match &mut self.0 {
            Outer::Zstd(inner) => {
                let damaged = |_| CodecError::Damaged("zstd data is wrong");
                inner.reset(ResetDirective::SessionOnly).map_err(damaged)?;
                out.resize(wanted, 0);
                let mut target = OutBuffer::around(out.as_mut_slice());
                let mut source = InBuffer::around(stored);
                while target.pos() < wanted {
                    let before = (target.pos(), source.pos);
                    inner.decompress_stream(&mut target, &mut source).map_err(damaged)?;
                    if (target.pos(), source.pos) == before {
                        return Err(CodecError::Damaged("the zstd frame ends early"));
                    }
                }
            }
            Outer::Gzip(_) => {
                let read = flate2::bufread::GzDecoder::new(stored).take(wanted as u64).read_to_end(out);
                if read.ok() != Some(wanted) {
                    return Err(CodecError::Damaged("gzip data is wrong"));
                }
            }
        }
        Ok(())
    }

    /// Whether the frame in `stored`, which decompresses, is all that stock tools see there. zstd frames always are; behind a
    /// gzip member may stand another one, which [`Self::decompress`] does not look at.
    pub(crate) fn is_alone(&self, stored: &[u8]) -> bool {
        match self.0 {
            Outer::Zstd(_) => true,
            Outer::Gzip(_) => {
                let mut member = flate2::bufread::GzDecoder::new(stored);
                io::copy(&mut member, &mut io::sink()).is_ok() && member.into_inner().is_empty()
            }
        }
    }

    /// The declared length, when it is at most `limit`.
    fn bounded_length(&self, stored: &[u8], limit: usize) -> Result<usize, CodecError> {
        let limit = limit.min(MAX_FRAME_BYTES);
        let declared = self.declared_length(stored)?;
        let length = usize::try_from(declared).ok().filter(|length| *length <= limit);
        length.ok_or(CodecError::TooLarge { found: declared, limit })
    }

    fn declared_length(&self, stored: &[u8]) -> Result<u64, CodecError> {
        match self.0 {
            Outer::Zstd(_) => zstd::zstd_safe::get_frame_content_size(stored)
                .ok()
                .flatten()
                .ok_or(CodecError::Damaged("no zstd frame with a content size")),
            Outer::Gzip(_) => stored
                .last_chunk::<4>()
                .filter(|_| stored.starts_with(&[0x1f, 0x8b]))
                .map(|size| u64::from(u32::from_le_bytes(*size)))
                .ok_or(CodecError::Damaged("no gzip member")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_nothing_else_is_taken_for_it() {
        for codec in [Codec::Zstd, Codec::Gzip] {
            let raw: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
            let (mut stored, mut back) = (Vec::new(), Vec::new());
            Compressor::new(codec, codec.default_level()).unwrap().compress(&raw, &mut stored).unwrap();
            let mut decompressor = Decompressor::new(codec).unwrap();
            decompressor.decompress(&stored, raw.len(), &mut back).unwrap();
            assert_eq!(raw, back);
            assert!(decompressor.decompress(&stored, raw.len() - 1, &mut back).is_err());
            for cut in [0, 1, 10, stored.len() / 2, stored.len() - 1] {
                assert!(decompressor.decompress(&stored[..cut], raw.len(), &mut back).is_err(), "{codec:?} {cut}");
            }
            let twice = [stored.clone(), stored.clone()].concat();
            let is_refused = decompressor.decompress(&twice, MAX_FRAME_BYTES, &mut back).is_err();
            assert!(is_refused || !decompressor.is_alone(&twice));
            assert!(decompressor.is_alone(&stored));
            assert!(decompressor.decompress_alone(&stored, raw.len(), &mut back).unwrap());
            assert_eq!(raw, back);
            assert!(!decompressor.decompress_alone(&twice, MAX_FRAME_BYTES, &mut back).unwrap_or(false));
            let flipped: Vec<u8> =
                stored.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == stored.len() / 2)).collect();
            assert!(decompressor.decompress_alone(&flipped, raw.len(), &mut back).is_err());
            assert!(decompressor.decompress_alone(&stored, raw.len() - 1, &mut back).is_err());
        }
    }

    #[test]
    fn the_beginning_of_a_frame_comes_without_the_rest() {
        for codec in [Codec::Zstd, Codec::Gzip] {
            let raw: Vec<u8> = (0..400_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
            let (mut stored, mut back) = (Vec::new(), Vec::new());
            Compressor::new(codec, codec.default_level()).unwrap().compress(&raw, &mut stored).unwrap();
            let mut decompressor = Decompressor::new(codec).unwrap();
            for wanted in [1, 513, 300_000, raw.len() - 1, raw.len(), raw.len() + 1] {
                decompressor.decompress_prefix(&stored, wanted, &mut back).unwrap();
                assert_eq!(raw[..wanted.min(raw.len())], back, "{codec:?} {wanted}");
            }
            // Damage behind what is wanted is never reached.
            let at = stored.len() - 30_000;
            stored[at..at + 1000].fill(0xff);
            decompressor.decompress_prefix(&stored, 100_000, &mut back).unwrap();
            assert_eq!(raw[..100_000], back, "{codec:?}");
            assert!(decompressor.decompress(&stored, raw.len(), &mut back).is_err());
            // A frame that was left in the middle leaves nothing behind in the context.
            stored.clear();
            Compressor::new(codec, codec.default_level()).unwrap().compress(&raw, &mut stored).unwrap();
            decompressor.decompress(&stored, raw.len(), &mut back).unwrap();
            assert_eq!(raw, back);
        }
    }

    #[test]
    fn levels_that_do_not_exist_are_refused() {
        assert!(Compressor::new(Codec::Zstd, 0).is_err());
        assert!(Compressor::new(Codec::Zstd, 22).is_err());
        assert!(Compressor::new(Codec::Gzip, 13).is_err());
    }
}
