//! The part of a content's digest that the catalog keeps.

use coord_archive::digest::Digest;

/// The first sixteen bytes of a content's BLAKE3 digest. Nobody can make two contents that agree in them, and they take half the place. The
/// whole digest is in the sealed index of the archive: what checks content checks against that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortDigest(pub [u8; 16]);

impl From<&Digest> for ShortDigest {
    fn from(digest: &Digest) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.0[..16]);
        ShortDigest(bytes)
    }
}

impl ShortDigest {
    /// Both halves as numbers. The first is what the index of the catalog holds.
    pub(super) const fn columns(self) -> (i64, i64) {
        let both = u128::from_be_bytes(self.0);
        (((both >> 64) as u64).cast_signed(), (both as u64).cast_signed())
    }

    /// The digest in these columns; `None`: there is no content.
    pub(super) fn from_columns((head, tail): (i64, i64)) -> Option<ShortDigest> {
        let both = u128::from(head.cast_unsigned()) << 64 | u128::from(tail.cast_unsigned());
        (both != 0).then(|| ShortDigest(both.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_same_after_its_way_through_the_columns() {
        for content in [&b""[..], b"one", b"two", b"three"] {
            let digest = Digest::of(content);
            let short = ShortDigest::from(&digest);
            assert_eq!(ShortDigest::from_columns(short.columns()), Some(short));
            assert_eq!(short.0, digest.0[..16]);
            assert_eq!(short.columns().0.to_be_bytes(), digest.0[..8]);
        }
        assert_eq!(ShortDigest::from_columns((0, 0)), None);
    }
}
