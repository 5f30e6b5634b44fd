//! The header of an archive: what was protected, by whom, when and on which base.
//!
//! It is stored as one JSON object, because it only ever grows: a reader ignores fields it does not know and gives
//! defaults to those that are missing. Paths are bytes; in JSON they are percent-escaped text (see [`escape`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::digest::Digest;
use crate::rules::Rules;

/// Largest header that is written or accepted, in bytes of JSON.
pub const MAX_HEADER_BYTES: usize = 4 << 20;

/// Whether an archive stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Level {
    /// Everything of the selection.
    Full = 1,
    /// What differs from one full.
    Differential = 2,
}

/// Something that has a stable id and a name for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Never reused.
    pub id: Uuid,
    /// Name at the time of the backup.
    pub name: String,
}

/// The full that a differential stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The full's `archive_digest`; a restore refuses any other archive.
    pub archive_digest: Digest,
    /// The full's file name, without folders.
    pub name: String,
    /// The run that made the full, if a fleet did.
    #[serde(default)]
    pub run: Option<Uuid>,
    /// The full's ordinal.
    #[serde(default)]
    pub ordinal: u64,
}

/// A file system that was mounted at or below a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, relative to the root.
    #[serde(with = "escaped")]
    pub path: Vec<u8>,
    /// Kind of file system, such as `ext4`.
    pub file_system: String,
    /// UUID of the file system, or its mount source where it has none. Never a device number.
    pub identity: String,
    /// Of a source: the absolute path of the mount that it lies on. Empty where that is not known.
    #[serde(default, with = "escaped")]
    pub mount_point: Vec<u8>,
    /// Of a source: its path within that file system, which tells one subvolume or bind mount from another. Empty where that is
    /// not known.
    #[serde(default, with = "escaped")]
    pub place: Vec<u8>,
}

/// That an archive was made out of one whose index was damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// The damaged archive's `archive_digest`, if anything still said it.
    #[serde(default)]
    pub archive_digest: Option<Digest>,
    /// Whether frames have other numbers than in the damaged archive, so that references into it do not hold.
    #[serde(default)]
    pub renumbered: bool,
    /// Names of which something is lost.
    #[serde(default)]
    pub lost: u64,
    /// Entries that were made from members' headers.
    #[serde(default)]
    pub from_members: u64,
}

/// Everything an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Program and version that wrote the archive.
    pub tool: String,
    /// Full or differential.
    pub level: Level,
    /// The fleet, if one is involved.
    #[serde(default)]
    pub fleet: Option<Named>,
    /// The host.
    #[serde(default)]
    pub host: Option<Named>,
    /// The policy.
    #[serde(default)]
    pub policy: Option<Named>,
    /// Version of the policy that was applied; 0 without a fleet.
    #[serde(default)]
    pub policy_version: u64,
    /// The run.
    #[serde(default)]
    pub run: Option<Uuid>,
    /// Attempt of the run, from 1; 0 without a fleet.
    #[serde(default)]
    pub attempt: u32,
    /// The agent's own number of this backup within its job; 0 without a fleet.
    #[serde(default)]
    pub ordinal: u64,
    /// Absolute path that all names are relative to.
    #[serde(with = "escaped")]
    pub root: Vec<u8>,
    /// Protected paths, relative to the root; the empty path is the root itself.
    #[serde(with = "escaped_list")]
    pub sources: Vec<Vec<u8>>,
    /// Exclude patterns, in order.
    #[serde(default)]
    pub excludes: Vec<String>,
    /// What else was left out.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
    /// Digest of sources, patterns and rules in their canonical form: a differential and its base have the same one.
    pub selection: Digest,
    /// The base of a differential.
    #[serde(default)]
    pub base: Option<Base>,
    /// File systems seen at and below the sources.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Number of our own folder in the archive: 0 is `.coord`, n is `.coord.n`, because the source had the others.
    #[serde(default)]
    pub dot_coord: u32,
    /// When the scan began, by the host's clock.
    pub scan_started_at: Timestamp,
    /// When the last byte of content had been read, by the host's clock. The packer fills this in.
    pub captured_at: Timestamp,
    /// What has to be added to the host's clock to get the coordinator's, in milliseconds; 0 if never measured.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// Only in an archive that was rebuilt with an index of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<Rebuilt>,
}

impl Header {
    /// A header with the least an archive needs; everything else is empty and can be set afterwards.
    #[must_use]
    pub fn new(level: Level, root: &[u8], scan_started_at: Timestamp) -> Self {
        Self {
            tool: concat!("coord ", env!("CARGO_PKG_VERSION")).to_owned(),
            level,
            fleet: None,
            host: None,
            policy: None,
            policy_version: 0,
            run: None,
            attempt: 0,
            ordinal: 0,
            root: root.to_vec(),
            sources: vec![Vec::new()],
            excludes: Vec::new(),
            rules: Rules::default(),
            selection: Digest([0; 32]),
            base: None,
            mounts: Vec::new(),
            dot_coord: 0,
            scan_started_at,
            captured_at: scan_started_at,
            clock_offset_ms: 0,
            rebuilt: None,
        }
    }

    /// Whether this archive, a full with that digest, is the one that `base` names, or was rebuilt out of it. Where the
    /// digest of the damaged archive is lost, run and number have to be the same; contents have digests of their own.
    #[must_use]
    pub fn is_base(&self, archive_digest: Digest, base: &Base) -> bool {
        match &self.rebuilt {
            Some(Rebuilt { archive_digest: Some(original), .. }) if *original == base.archive_digest => true,
            Some(Rebuilt { archive_digest: None, .. }) if (self.run, self.ordinal) == (base.run, base.ordinal) => true,
            Some(_) | None => archive_digest == base.archive_digest,
        }
    }

    /// Name of our own folder in the archive, without a slash.
    #[must_use]
    pub fn dot_coord_name(&self) -> String {
        dot_coord_name(self.dot_coord)
    }
}

/// Name of our own folder number `number`.
#[must_use]
pub fn dot_coord_name(number: u32) -> String {
    if number == 0 { ".coord".to_owned() } else { format!(".coord.{number}") }
}

/// Bytes as text: printable ASCII stays, `%` and every other byte become `%XX`.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte != b'%' && (byte == b' ' || byte.is_ascii_graphic()) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// The inverse of [`escape`]; `None` for a `%` without two hexadecimal digits.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digits = bytes.get(at + 1..at + 3).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
            out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    Some(out)
}

mod escaped {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::escape(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        super::unescape(&text).ok_or_else(|| D::Error::custom("a path holds a stray '%'"))
    }
}

mod escaped_list {
    use serde::{Deserialize, Deserializer, Serializer, de::Error, ser::SerializeSeq};

    pub(super) fn serialize<S: Serializer>(list: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(Some(list.len()))?;
        for bytes in list {
            seq.serialize_element(&super::escape(bytes))?;
        }
        seq.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        Vec::<String>::deserialize(from)?
            .iter()
            .map(|text| super::unescape(text).ok_or_else(|| D::Error::custom("a path holds a stray '%'")))
            .collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_json_with_any_bytes_in_its_paths() {
        let mut header = Header::new(Level::Differential, b"/srv/\xff%\n", Timestamp::UNIX_EPOCH);
        header.sources = vec![b"a%41".to_vec(), vec![]];
        header.mounts = vec![Mount {
            path: b"\x00\x7f".to_vec(),
            file_system: "ext4".into(),
            identity: "uuid".into(),
            mount_point: b"/a\n".to_vec(),
            place: b"/@".to_vec(),
        }];
        header.rules =
            Rules { caches: true, if_present: vec![".nobackup".into()], larger_than: Some(7), ..Rules::default() };
        let json = serde_json::to_string(&header).unwrap();
        assert_eq!(serde_json::from_str::<Header>(&json).unwrap(), header);
    }

    #[test]
    fn unknown_fields_are_ignored_and_optional_ones_may_be_missing() {
        let header = Header::new(Level::Full, b"/", Timestamp::UNIX_EPOCH);
        let mut value = serde_json::to_value(&header).unwrap();
        let object = value.as_object_mut().unwrap();
        object.insert("colour".into(), "green".into());
        for optional in ["fleet", "host", "mounts", "ordinal", "base", "dot_coord"] {
            object.remove(optional);
        }
        assert!(!object.contains_key("rules"), "a header without them is written as it always was");
        assert_eq!(serde_json::from_value::<Header>(value).unwrap(), header);
    }

    #[test]
    fn a_stray_percent_is_refused() {
        assert_eq!(unescape("%4"), None);
        assert_eq!(unescape("%+1"), None);
        assert_eq!(unescape("%0a").unwrap(), b"\n");
    }
}
