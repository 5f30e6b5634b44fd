//! POSIX ACLs: from the bytes of the extended attribute to the text that tar programs restore, with numeric ids, and back.

use std::fmt::Write as _;

const VERSION: u32 = 2;

/// `user::rwx,user:1000:r-x,...`; `None` for bytes that are not an ACL of the known version.
pub(crate) fn to_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || !entries.len().is_multiple_of(8) || entries.is_empty() {
        return None;
    }
    let mut text = String::new();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let bits = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        if bits > 7 {
            return None;
        }
        if !text.is_empty() {
            text.push(',');
        }
        match tag {
            0x01 => text.push_str("user::"),
            0x02 => write!(text, "user:{id}:").ok()?,
            0x04 => text.push_str("group::"),
            0x08 => write!(text, "group:{id}:").ok()?,
            0x10 => text.push_str("mask::"),
            0x20 => text.push_str("other::"),
            _ => return None,
        }
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if bits & bit != 0 { letter } else { '-' });
        }
    }
    Some(text)
}

/// The inverse of [`to_text`]; `None` for anything it does not write.
pub(crate) fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let mut value = VERSION.to_le_bytes().to_vec();
    for entry in std::str::from_utf8(text).ok()?.split(',') {
        let fields: Vec<&str> = entry.split(':').collect();
        let [tag, id, letters] = fields.try_into().ok()?;
        let tag = match (tag, id.is_empty()) {
            ("user", true) => 0x01_u16,
            ("user", false) => 0x02,
            ("group", true) => 0x04,
            ("group", false) => 0x08,
            ("mask", true) => 0x10,
            ("other", true) => 0x20,
            _ => return None,
        };
        let id = if id.is_empty() { u32::MAX } else { id.parse().ok()? };
        let bits = [(4, b'r'), (2, b'w'), (1, b'x')].into_iter().zip(letters.bytes());
        let bits = bits.filter(|((_, letter), found)| letter == found).map(|((bit, _), _)| bit).sum::<u16>();
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    // Only the exact text stands for these bytes.
    (to_text(&value)?.as_bytes() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_reads_as_text() {
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, bits, id) in
            [(1_u16, 7_u16, u32::MAX), (2, 5, 1000), (4, 4, u32::MAX), (16, 5, u32::MAX), (32, 0, u32::MAX)]
        {
            value.extend(tag.to_le_bytes());
            value.extend(bits.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let text = to_text(&value);
        assert_eq!(text.as_deref(), Some("user::rwx,user:1000:r-x,group::r--,mask::r-x,other::---"));
        assert_eq!(text.and_then(|text| from_text(text.as_bytes())), Some(value.clone()));
        assert_eq!(from_text(b"user::rwx,staff::r--"), None);
        assert_eq!(to_text(&value[..value.len() - 1]), None);
        assert_eq!(to_text(b"\x01\0\0\0"), None);
    }
}
