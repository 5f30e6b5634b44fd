//! Sizes as people write them: a number of bytes, or one with a unit.

/// Units, longest first where one ends like another.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// A text that is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a whole number with a unit.
    #[error(
        "not a size: write a whole number with B, KB, MB, GB, TB (thousands) or KiB, MiB, GiB, TiB (1024s), such as 4GiB"
    )]
    NotASize,
    /// More than 64 bits count.
    #[error("larger than any file can be")]
    TooLarge,
}

/// The bytes that a text such as `4GiB`, `700 MB` or `1048576` says. A lone `K`, `M` or `G` is refused: half of those who write
/// it mean thousands.
///
/// # Errors
/// The text is no size, or one beyond 64 bits.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let unit = UNITS.into_iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let (number, bytes) = unit.unwrap_or((text, 1));
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SizeError::NotASize);
    }
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    number.checked_mul(bytes).ok_or(SizeError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_unit_that_means_one_thing() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("17B", 17),
            ("3KB", 3_000),
            ("3KiB", 3 << 10),
            (" 700 MB ", 700_000_000),
            ("4GiB", 4 << 30),
            ("2TB", 2_000_000_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "4G", "4 gib", "1.5GiB", "-1", "+1", "4GiBB", "0x10", "4 G iB"] {
            assert_eq!(parse(text), Err(SizeError::NotASize), "{text}");
        }
        for text in ["99999999999999999999", "17000000TiB"] {
            assert_eq!(parse(text), Err(SizeError::TooLarge), "{text}");
        }
    }
}
