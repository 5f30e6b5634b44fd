//! Text of others on its way to a terminal or a log: what could move the cursor or reorder the line is made visible.

/// `text` with control characters and bidirectional overrides as escapes; everything else, quotes too, as it is.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_shown_and_quotes_stay() {
        assert_eq!(printable("a\u{1b}[2J\n'b' é\u{202e}"), "a\\u{1b}[2J\\n'b' é\\u{202e}");
    }
}
