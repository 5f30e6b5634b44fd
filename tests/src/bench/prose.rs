//! Text that compresses about as well as what people keep in small files: words of very different frequency, numbers, lines, indents.

use std::fmt::Write as _;

use crate::random::Random;

/// Words of the vocabulary; the first ones are far more frequent than the last.
const WORDS: usize = 8192;
/// The parts of which the words are made.
const SYLLABLES: &[&str] = &[
    "an", "ber", "con", "de", "er", "fi", "gra", "hel", "in", "jo", "ka", "le", "mo", "ner", "or", "pre", "qui", "re",
    "sta", "tion", "un", "ver", "wa", "xe", "yo", "za", "ing", "ed", "ly", "ous", "per", "tri",
];

/// Writes text out of a fixed vocabulary.
#[derive(Debug)]
pub struct Prose {
    words: Vec<String>,
}

impl Default for Prose {
    fn default() -> Self {
        let mut random = Random::new(0xC0DE);
        let word = |_| (0..=random.below(3)).map(|_| SYLLABLES[random.below(SYLLABLES.len())]).collect();
        Self { words: (0..WORDS).map(word).collect() }
    }
}

impl Prose {
    /// Replaces what is in `text` with `size` bytes.
    pub fn write(&self, random: &mut Random, size: usize, text: &mut String) {
        text.clear();
        while text.len() < size {
            self.line(random, text);
        }
        // Only ASCII is written.
        text.truncate(size);
    }

    /// Appends one line: plain words, a setting, or a record with numbers.
    pub fn line(&self, random: &mut Random, text: &mut String) {
        match random.below(4) {
            0 => {
                for _ in 0..random.below(4) {
                    text.push_str("    ");
                }
                let (name, value) = (self.word(random), self.word(random));
                // Writing to a string cannot fail.
                let _ok = writeln!(text, "{name}_{value} = {}", random.below(10_000));
            }
            1 => {
                let (day, second) = (random.below(28) + 1, random.below(86_400));
                let _ok = write!(text, "2026-11-{day:02} {second:05} {:08x}", random.bits() >> 32);
                self.words(random, 4, text);
            }
            _ => {
                let count = 6 + random.below(8);
                self.words(random, count, text);
            }
        }
    }

    fn words(&self, random: &mut Random, count: usize, text: &mut String) {
        for _ in 0..count {
            text.push(' ');
            text.push_str(self.word(random));
        }
        text.push('\n');
    }

    /// A word; each doubling of the rank is equally likely, which is Zipf's law.
    fn word(&self, random: &mut Random) -> &str {
        let doubling = random.below(14);
        let first = (1_usize << doubling) >> 1;
        &self.words[(first + random.below(first.max(1))).min(WORDS - 1)]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use coord_archive::codec::{Codec, Compressor};

    use super::{Prose, Random};

    #[test]
    fn text_has_the_size_asked_for_and_is_the_same_every_time() {
        let prose = Prose::default();
        let (mut one, mut two) = (String::new(), String::new());
        for size in [0, 1, 17, 4096] {
            prose.write(&mut Random::new(7), size, &mut one);
            Prose::default().write(&mut Random::new(7), size, &mut two);
            assert_eq!(one.len(), size);
            assert_eq!(one, two);
        }
        prose.write(&mut Random::new(8), 4096, &mut two);
        assert_ne!(one, two);
    }

    #[test]
    fn text_compresses_as_text_does() {
        let mut text = String::new();
        Prose::default().write(&mut Random::new(3), 1 << 20, &mut text);
        let mut packed = Vec::new();
        Compressor::new(Codec::Zstd, 3).unwrap().compress(text.as_bytes(), &mut packed).unwrap();
        let tenths = text.len() * 10 / packed.len();
        assert!((25..=45).contains(&tenths), "{} bytes became {}", text.len(), packed.len());
    }
}
