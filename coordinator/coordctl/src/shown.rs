//! How things are shown to people: escaped names, sizes, times, words of enums. Pure.

use coord_shared::api;
use coord_shared::left_out::LeftOutBy;
use coord_shared::wire;
use jiff::tz::TimeZone;

/// A path for a terminal: printable characters as they are, everything else escaped.
#[must_use]
pub fn path(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() || is_disguise(c) { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Text from elsewhere with terminal controls made harmless; line breaks stay.
#[must_use]
pub fn safe(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = (c.is_control() && c != '\n') || is_disguise(c);
            let plain = (!escaped).then_some(c);
            let shown = escaped.then(|| c.escape_default()).into_iter().flatten();
            plain.into_iter().chain(shown)
        })
        .collect()
}

/// Characters that reorder or hide what is around them.
fn is_disguise(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A size in binary units.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// An instant of the wire in the local zone, `-` when not set.
#[must_use]
pub fn instant(us: i64) -> String {
    instant_in(us, &TimeZone::system())
}

/// The same in a given zone.
#[must_use]
pub fn instant_in(us: i64, zone: &TimeZone) -> String {
    match wire::from_us(us) {
        Some(instant) => instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        None => "-".to_owned(),
    }
}

/// A number of seconds for people.
#[must_use]
pub fn seconds(seconds: i64) -> String {
    let s = seconds.unsigned_abs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        86_400.. => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A short time, in the unit that shows it.
#[must_use]
pub fn milliseconds(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000.. => seconds(i64::try_from(ms / 1000).unwrap_or(i64::MAX)),
    }
}

/// The first eight characters of an id, enough for people.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

fn word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name).to_lowercase();
    if word == "unspecified" { String::new() } else { word }
}

/// `full`, `differential`.
#[must_use]
pub fn level(value: i32) -> String {
    word(api::Level::try_from(value).unwrap_or_default().as_str_name(), "LEVEL_")
}

/// `queued`, `running`, ...
#[must_use]
pub fn state(value: i32) -> String {
    word(api::RunState::try_from(value).unwrap_or_default().as_str_name(), "RUN_STATE_")
}

/// `backup`, `verify`, `restore`.
#[must_use]
pub fn kind(value: i32) -> String {
    word(api::RunKind::try_from(value).unwrap_or_default().as_str_name(), "RUN_KIND_")
}

/// `scanning`, `packing`, ...
#[must_use]
pub fn phase(value: i32) -> String {
    word(api::Phase::try_from(value).unwrap_or_default().as_str_name(), "PHASE_")
}

/// `zstd`, `gzip`.
#[must_use]
pub fn codec(value: i32) -> String {
    word(api::Codec::try_from(value).unwrap_or_default().as_str_name(), "CODEC_")
}

/// The rule that left something out, in words.
#[must_use]
pub fn rule(x: &api::LeftOut) -> String {
    match LeftOutBy::from_api(x.by()) {
        // A rule of a later version.
        None => safe(&x.text),
        Some(LeftOutBy::Pattern) => path(x.text.as_bytes()),
        Some(LeftOutBy::IfPresent) => format!("folders with {}", path(x.text.as_bytes())),
        Some(LeftOutBy::LargerThan) => {
            format!("files larger than {}", x.text.parse().map_or_else(|_| safe(&x.text), size))
        }
        Some(
            by @ (LeftOutBy::Cache
            | LeftOutBy::Nodump
            | LeftOutBy::OtherFileSystem
            | LeftOutBy::KernelFileSystem
            | LeftOutBy::Own
            | LeftOutBy::Socket),
        ) => by.as_phrase().to_owned(),
    }
}

/// What a rule left out, in a line.
#[must_use]
pub fn left_out(x: &api::LeftOut) -> String {
    format!("{} files ({}) and {} folders left out by {}", x.files, size(x.bytes), x.folders, rule(x))
}

#[cfg(test)]
mod tests {
    use super::{instant_in, level, path, safe, seconds, size};
    use jiff::tz::TimeZone;

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        assert_eq!(path("etc/ä.conf".as_bytes()), "etc/ä.conf");
        assert_eq!(path(b"a\nb\x1b[31m\xff\\"), "a\\nb\\u{1b}[31m\\xff\\\\");
        assert_eq!(path("x\u{202e}gpj.exe".as_bytes()), "x\\u{202e}gpj.exe");
        assert_eq!(safe("line\nnext\x07"), "line\nnext\\u{7}");
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1_572_864), "1.5 MiB");
        assert_eq!(seconds(59), "59 s");
        assert_eq!(seconds(7_260), "2 h 1 min");
        assert_eq!(instant_in(1_000_000, &TimeZone::UTC), "1970-01-01 00:00:01 UTC");
        assert_eq!(instant_in(0, &TimeZone::UTC), "-");
        assert_eq!(level(1), "full");
        assert_eq!(level(0), "");
    }
}
