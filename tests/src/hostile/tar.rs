//! Tar members, byte by byte: what a forged archive shows to stock tools.

use super::forge::{Record, kind};

/// A member with its content.
#[must_use]
pub fn member(name: &[u8], type_flag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = header(name, type_flag, content.len() as u64, b"");
    out.extend(content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// A header block; what does not fit is cut.
#[must_use]
pub fn header(name: &[u8], type_flag: u8, size: u64, link: &[u8]) -> Vec<u8> {
    changed_header(name, type_flag, size, link, |_| ())
}

/// A header block in which something is changed before its checksum is made.
#[must_use]
pub fn changed_header(name: &[u8], type_flag: u8, size: u64, link: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes().get(..12).unwrap_or(b"77777777777\0"));
    put(136, b"00000000001\0");
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    block[156] = type_flag;
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A pax header of these records.
#[must_use]
pub fn pax(records: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| rest + length.to_string().len() == *length).unwrap_or(rest);
        body.extend(length.to_string().as_bytes());
        body.extend([b" ", *key, b"=", value, b"\n"].concat());
    }
    member(b"./PaxHeaders/coord", b'x', &body)
}

/// GNU's member for a long name, or with `K` a long link target.
#[must_use]
pub fn long(type_flag: u8, name: &[u8]) -> Vec<u8> {
    member(b"././@LongLink", type_flag, &[name, b"\0"].concat())
}

fn octal(block: &mut [u8], at: usize, width: usize, value: u64) {
    block[at..at + width].copy_from_slice(format!("{value:0digits$o}\0", digits = width - 1).as_bytes());
}

/// The headers of the member that the index says; content follows. `leader` is the first name of its hard-link group.
#[must_use]
pub fn of_record(record: &Record, content: Option<&[u8]>, leader: Option<&[u8]>) -> Vec<u8> {
    let mut name = [b"./", record.path.as_slice()].concat();
    let type_flag = match (record.kind, leader) {
        (_, Some(_)) => b'1',
        (kind::FOLDER, None) => b'5',
        (kind::SYMLINK, None) => b'2',
        (kind::FIFO, None) => b'6',
        (kind::CHAR_DEVICE, None) => b'3',
        (kind::BLOCK_DEVICE, None) => b'4',
        (kind::TOMBSTONE, None) => return Vec::new(),
        (_, None) => b'0',
    };
    if type_flag == b'5' && !record.path.is_empty() {
        name.push(b'/');
    }
    let link = leader.map_or_else(|| record.link_target.clone(), |leader| [b"./", leader].concat());
    let size = if type_flag == b'0' { content.map_or(0, <[u8]>::len) as u64 } else { 0 };
    let mut out = Vec::new();
    if name.len() > 100 {
        out.extend(long(b'L', &name));
    }
    if link.len() > 100 {
        out.extend(long(b'K', &link));
    }
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    if type_flag != b'1' {
        let keyed = |(key, value): &(Vec<u8>, Vec<u8>)| ([b"SCHILY.xattr.", key.as_slice()].concat(), value.clone());
        records.extend(record.xattrs.iter().map(keyed));
    }
    if record.mtime.1 != 0 {
        records.push((b"mtime".to_vec(), format!("{}.{:09}", record.mtime.0, record.mtime.1).into_bytes()));
    }
    if !records.is_empty() {
        let borrowed: Vec<(&[u8], &[u8])> = records.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        out.extend(pax(&borrowed));
    }
    out.extend(changed_header(&name, type_flag, size, &link, |block| {
        octal(block, 100, 8, record.mode & 0o7777);
        octal(block, 108, 8, record.owner.0 & 0o777_7777);
        octal(block, 116, 8, record.owner.1 & 0o777_7777);
        octal(block, 136, 12, record.mtime.0.cast_unsigned() & 0o777_7777_7777);
        if matches!(type_flag, b'3' | b'4') {
            octal(block, 329, 8, record.device.0 & 0o777_7777);
            octal(block, 337, 8, record.device.1 & 0o777_7777);
        }
    }));
    out
}
