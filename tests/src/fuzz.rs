//! Attacks on whatever reads what others wrote: random changes of kept inputs, as many as there is time for.
//!
//! A fuzzer that sees which branches an input takes needs a compiler that we do not build with. This one sees what came of an input
//! instead: the target tells it in words, and an input with an outcome that is new joins those that are changed further. Every input in
//! `tests/fuzz/corpus/TARGET` is tried first, so whatever once broke a target is tried for ever.
//!
//! `FUZZ_SECONDS=600 cargo test --workspace --test fuzz TARGET -- --nocapture` attacks one target for that long. What it finds is put into the
//! corpus: `crash-*` made it panic, `slow-*` took too long, `found-*` had a new outcome. The first two are to be committed with what mends them;
//! of the last a corpus holds [`MAX_FOUND`].

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::build::workspace;
use crate::random::Random;

/// How long a target is attacked when nobody says how long.
const SHORT: Duration = Duration::from_secs(1);
/// Longest time that one input may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most inputs that are changed further.
const MAX_KEPT: usize = 4096;
/// Largest input with a new outcome that is put into the corpus, in bytes: a corpus is to be read, and stays small.
const MAX_KEPT_BYTES: usize = 8 << 10;
/// Most inputs with a new outcome that the corpus of one target holds, those found before included: all of a corpus is tried on every run
/// of the tests. Room is made by deleting what others stand for as well.
const MAX_FOUND: usize = 64;
/// Largest input that is tried.
const MAX_BYTES: usize = 1 << 20;

/// Says in words what came of an input. It must not panic.
pub type Run<'a> = &'a dyn Fn(&[u8]) -> String;

/// What an attack came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attack {
    /// Inputs tried.
    pub inputs: u64,
    /// Different outcomes.
    pub outcomes: usize,
}

/// Tries all inputs in the corpus of the target, then changes of them and of `seeds`, and says how many there were.
///
/// # Panics
/// The target panics, or an input takes too long. The input is in the corpus then, and the message says where.
pub fn attack(name: &str, seeds: Vec<Vec<u8>>, run: Run<'_>) -> Attack {
    let asked = std::env::var_os("FUZZ_SECONDS").and_then(|text| text.to_str()?.parse().ok()).map(Duration::from_secs);
    let corpus = workspace().join("tests/fuzz/corpus").join(name);
    let seed = u64::from(std::process::id());
    let room = if asked.is_some() { MAX_FOUND.saturating_sub(found_in(&corpus)) } else { 0 };
    let mut fuzzer = Fuzzer { run, corpus: &corpus, seen: HashSet::new(), inputs: 0, room, turned_away: 0 };
    let mut kept: Vec<Vec<u8>> = read_all(&corpus).into_iter().chain(seeds).collect();
    for input in &kept {
        fuzzer.try_one(name, input);
    }
    let (mut random, begun) = (Random::new(seed), Instant::now());
    while begun.elapsed() < asked.unwrap_or(SHORT) {
        let mut input = kept[random.below(kept.len())].clone();
        for _ in 0..=random.below(4) {
            change(&mut input, &kept, &mut random);
        }
        input.truncate(MAX_BYTES);
        if fuzzer.try_one(name, &input) && kept.len() < MAX_KEPT {
            kept.push(input);
        }
    }
    let attack = Attack { inputs: fuzzer.inputs, outcomes: fuzzer.seen.len() };
    println!("{name}: seed {seed}, {} inputs, {} outcomes", attack.inputs, attack.outcomes);
    if asked.is_some() && fuzzer.turned_away > 0 {
        println!("{name}: {} inputs with a new outcome were not kept: {MAX_FOUND} are there", fuzzer.turned_away);
    }
    attack
}

struct Fuzzer<'a> {
    run: Run<'a>,
    corpus: &'a Path,
    seen: HashSet<String>,
    inputs: u64,
    /// How many more inputs with a new outcome the corpus takes.
    room: usize,
    /// Inputs with a new outcome for which there was no room.
    turned_away: u64,
}

impl Fuzzer<'_> {
    /// Whether the outcome is new.
    fn try_one(&mut self, name: &str, input: &[u8]) -> bool {
        self.inputs += 1;
        let begun = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| (self.run)(input)));
        let took = begun.elapsed();
        match ended {
            Err(_) => panic!("{name} panics; the input is {}", self.keep("crash", input).display()),
            Ok(_) if took > PATIENCE => {
                panic!("{name} took {took:?}; the input is {}", self.keep("slow", input).display())
            }
            Ok(outcome) => {
                // Numbers make no outcome new.
                let outcome =
                    outcome.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
                let is_new = self.seen.insert(outcome);
                if is_new && input.len() <= MAX_KEPT_BYTES {
                    self.keep_found(input);
                }
                is_new
            }
        }
    }

    fn keep_found(&mut self, input: &[u8]) {
        if self.path_of("found", input).exists() {
            return;
        }
        match self.room.checked_sub(1) {
            Some(left) => {
                self.room = left;
                self.keep("found", input);
            }
            None => self.turned_away += 1,
        }
    }

    fn path_of(&self, what: &str, input: &[u8]) -> PathBuf {
        let digest = blake3::hash(input).to_hex();
        self.corpus.join(format!("{what}-{}", &digest[..16]))
    }

    fn keep(&self, what: &str, input: &[u8]) -> PathBuf {
        let path = self.path_of(what, input);
        let written = fs::create_dir_all(self.corpus).and_then(|()| fs::write(&path, input));
        if let Err(error) = written {
            println!("{} cannot be written: {error}", path.display());
        }
        path
    }
}

/// How many inputs of a corpus are there because their outcome was new.
fn found_in(corpus: &Path) -> usize {
    let Ok(entries) = fs::read_dir(corpus) else { return 0 };
    entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"found-")).count()
}

/// All inputs of a corpus, in the order of their names.
fn read_all(corpus: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(corpus) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

/// Numbers at which programs go wrong.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 44, i64::MAX as u64, u64::MAX];

/// Changes an input in one way.
fn change(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let length = input.len();
    let at = random.below(length + 1);
    let end = (at + 1 + random.below(16)).min(length);
    match random.below(10) {
        0 if at < length => input[at] ^= 1 << random.below(8),
        1 if at < length => input[at] = random.bits() as u8,
        2 if at < length => {
            input.drain(at..end);
        }
        3 => {
            let more: Vec<u8> = (0..=random.below(8)).map(|_| random.bits() as u8).collect();
            input.splice(at..at, more);
        }
        4 if at < length => {
            let again = input[at..end].repeat(1 + random.below(8));
            input.splice(at..at, again);
        }
        5 if at < length => {
            let bytes = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(length - at);
            input[at..at + width].copy_from_slice(&bytes[..width]);
        }
        6 => {
            let mut varint = Vec::new();
            crate::hostile::forge::number(&mut varint, NUMBERS[random.below(NUMBERS.len())]);
            input.splice(at..at, varint);
        }
        7 if at < length => {
            let text = NUMBERS[random.below(NUMBERS.len())].to_string();
            input.splice(at..end, text.into_bytes());
        }
        8 => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend(&other[from..]);
        }
        _ => input.truncate(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_behind_two_checks_is_found_step_by_step() {
        let attack = attack("self", vec![b"the beginning".to_vec()], &|input| {
            match input {
                [b't', b'h', b'e', 0xff, ..] => "two",
                [b't', b'h', b'e', ..] => "one",
                _ => "none",
            }
            .to_owned()
        });
        assert_eq!(attack.outcomes, 3, "{attack:?}");
    }

    #[test]
    fn an_input_that_makes_a_target_panic_is_kept() {
        let corpus = workspace().join("tests/fuzz/corpus/panics");
        let panicked = catch_unwind(|| {
            attack("panics", vec![b"calm".to_vec()], &|input| {
                assert!(input.starts_with(b"calm"), "as it should");
                String::new()
            })
        });
        assert!(panicked.is_err());
        let kept = read_all(&corpus);
        fs::remove_dir_all(&corpus).unwrap_or_default();
        assert!(kept.len() == 1 && !kept[0].starts_with(b"calm"), "{kept:?}");
    }

    #[test]
    fn a_corpus_takes_so_many_new_outcomes_and_no_more() {
        let corpus = workspace().join("tests/fuzz/corpus/full");
        let run = |input: &[u8]| "x".repeat(input.len());
        let mut fuzzer =
            Fuzzer { run: &run, corpus: &corpus, seen: HashSet::new(), inputs: 0, room: MAX_FOUND, turned_away: 0 };
        // The same ones are found once more, as in a later run.
        for _ in 0..2 {
            fuzzer.seen.clear();
            for length in 0..MAX_FOUND + 3 {
                fuzzer.try_one("full", &vec![0; length]);
            }
        }
        let found = found_in(&corpus);
        fs::remove_dir_all(&corpus).unwrap_or_default();
        assert_eq!((found, fuzzer.room, fuzzer.turned_away), (MAX_FOUND, 0, 6));
    }
}
