//! Numbers and byte strings in the index: little-endian base-128 integers, lengths before bytes.
//!
//! Every length is checked against what is left before anything is taken or reserved, so hostile input costs nothing.

/// Input ended, or a number does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("a field is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed("a number is too large"));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.u64()?).map_err(|_| Malformed("a number is too large"))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        let zigzag = self.u64()?;
        Ok((zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed()))
    }

    /// A count of things that take at least `each` bytes, so that it cannot be larger than what is left.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, Malformed> {
        let count = self.u64()?;
        usize::try_from(count)
            .ok()
            .filter(|count| count.checked_mul(each.max(1)).is_some_and(|bytes| bytes <= self.left()))
            .ok_or(Malformed("a count is larger than its data"))
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count(1)?;
        self.take(length)
    }

    pub(crate) fn digest(&mut self) -> Result<crate::digest::Digest, Malformed> {
        let bytes = self.take(32)?;
        crate::digest::Digest::from_slice(bytes).ok_or(Malformed("a digest is cut short"))
    }
}

pub(crate) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Fills up with zeros to whole 512-byte blocks.
pub(crate) fn pad_to_block(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(512), 0);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut out = Vec::new();
        let numbers = [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX];
        let signed = [0, -1, 1, i64::MIN, i64::MAX];
        numbers.iter().for_each(|n| put_u64(&mut out, *n));
        signed.iter().for_each(|n| put_i64(&mut out, *n));
        put_bytes(&mut out, b"abc");
        let mut cursor = Cursor::new(&out);
        assert!(numbers.iter().all(|n| cursor.u64().unwrap() == *n));
        assert!(signed.iter().all(|n| cursor.i64().unwrap() == *n));
        assert_eq!(cursor.bytes().unwrap(), b"abc");
        assert_eq!(cursor.left(), 0);
    }

    #[test]
    fn hostile_numbers_are_refused() {
        assert!(Cursor::new(&[0xff; 20]).u64().is_err());
        assert!(Cursor::new(&[0xff; 3]).u64().is_err());
        let mut huge = Vec::new();
        put_u64(&mut huge, u64::MAX);
        assert!(Cursor::new(&huge).bytes().is_err());
        assert!(Cursor::new(&huge).count(40).is_err());
        assert!(Cursor::new(&huge).u32().is_err());
    }
}
