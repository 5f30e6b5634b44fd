//! Durations as people write them: a whole number and one unit.

use jiff::SignedDuration;

/// The duration that `90s`, `20m`, `4h`, `3d` or `1w` says; the units' names are read as well. `None`: the text is no duration, or one
/// beyond 64 bits of seconds.
#[must_use]
pub fn parse(text: &str) -> Option<SignedDuration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: i64 = text.get(..digits)?.parse().ok()?;
    let seconds = match text.get(digits..)?.trim() {
        "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 7 * 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(SignedDuration::from_secs)
}

/// Whole seconds in the largest unit that says them exactly: `20m`, `4h`, `90s`.
#[must_use]
pub fn shown(seconds: u32) -> String {
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    match units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit)) {
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit_and_comes_back_as_it_was_written() {
        for (text, seconds) in [("90s", 90), ("20m", 1200), ("4h", 14_400), ("3d", 259_200)] {
            assert_eq!(parse(text), Some(SignedDuration::from_secs(seconds.into())), "{text}");
            assert_eq!(shown(seconds), text);
        }
        assert_eq!(parse(" 1 week "), Some(SignedDuration::from_hours(7 * 24)));
        for text in ["", "4", "h", "-4h", "4.5h", "4x", "1h30m", "9223372036854775807h", "4 hours ago"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
