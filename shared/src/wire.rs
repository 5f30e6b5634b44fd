//! Bounds and units of the wire contract, the same at both ends: message sizes, HTTP/2 windows, instants in microseconds.

use std::time::Duration;

use jiff::Timestamp;

/// Largest message either end decodes, in bytes. Index blocks are the largest: about 1 MiB stored.
pub const MAX_MESSAGE_BYTES: usize = 8 << 20;
/// Largest piece of a relayed file, in bytes.
pub const MAX_FILE_CHUNK_BYTES: usize = 256 << 10;
/// HTTP/2 flow control of one stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// HTTP/2 flow control of one connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A quiet connection is asked whether it lives after this long.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// It is dead when it has not answered after this long.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a TCP connection and for a TLS handshake, each.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Path notes in one Warnings report.
pub const MAX_NOTES_PER_REPORT: usize = 200;

/// Rules in one report of what was left out: all that a policy can have.
pub const MAX_LEFT_OUT_RULES: usize = 2000;
/// Longest text of a rule in such a report, in bytes; what is longer is cut.
pub const MAX_RULE_TEXT_BYTES: usize = 500;

/// Names that one preview of a policy lists.
pub const MAX_PREVIEW_NAMES: u32 = 10_000;
/// Names in one part of a preview.
pub const MAX_PREVIEW_NAMES_PER_PART: usize = 200;
/// Bytes of paths after which a part of a preview is sent.
pub const PREVIEW_PART_BYTES: usize = 256 << 10;

/// Microseconds since the epoch, as `*_at_us` fields carry it.
pub fn to_us(instant: Timestamp) -> i64 {
    instant.as_microsecond()
}

/// The instant behind an `*_at_us` field; `None` for 0 ("not set") and for what no calendar holds.
pub fn from_us(us: i64) -> Option<Timestamp> {
    if us == 0 {
        return None;
    }
    Timestamp::from_microsecond(us).ok()
}

/// Microseconds of an instant that may be missing; 0 means "not set".
pub fn optional_us(instant: Option<Timestamp>) -> i64 {
    instant.map_or(0, to_us)
}
