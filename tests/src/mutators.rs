//! Threads that keep changing a tree while it is backed up.
//!
//! The tree has two halves. `calm` is left alone: all of it has to be in every archive. `hot` is appended to, truncated,
//! rewritten in place, replaced, renamed, deleted and chmodded as fast as the disk goes; its folders stay.
//!
//! A file's content shows whether it is one state or a mixture: it is lines of one fixed length that all bear the number
//! of the writing they belong to. Every state that a program left behind has lines of one writing only, so a file with
//! two was caught in the middle.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes of a line.
pub const LINE_BYTES: usize = 64;

const FOLDERS: usize = 24;
const FILES: usize = 12;
const CALM_FOLDERS: usize = 60;
/// Lines of a file: up to 1 MiB for most, one in sixteen several pieces (of 2 MiB) long.
const MOST_LINES: usize = 16_384;
const MANY_LINES: usize = 100_000;

/// A running set of mutators. They stop when it is dropped.
#[derive(Debug)]
pub struct Mutators {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// Makes the tree under `root`: what the mutators change, and what they leave alone.
///
/// # Errors
/// As the file system.
pub fn make(root: &Path) -> io::Result<()> {
    for folder in 0..CALM_FOLDERS {
        let folder = root.join(format!("calm/{folder}/deep"));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("file"), content(0, 40))?;
    }
    for folder in 0..FOLDERS {
        fs::create_dir_all(hot(root, folder))?;
        for file in 0..FILES {
            fs::write(hot(root, folder).join(file.to_string()), content(0, 100))?;
        }
    }
    Ok(())
}

/// The folders that every archive must have, relative to the root.
#[must_use]
pub fn folders() -> Vec<String> {
    let calm = (0..CALM_FOLDERS).flat_map(|n| [format!("calm/{n}"), format!("calm/{n}/deep")]);
    calm.chain((0..FOLDERS).map(|n| format!("hot/{n}"))).chain(["calm".to_owned(), "hot".to_owned()]).collect()
}

/// The files that every archive must have.
#[must_use]
pub fn calm_files() -> Vec<String> {
    (0..CALM_FOLDERS).map(|n| format!("calm/{n}/deep/file")).collect()
}

/// Whether content is of more than one writing. Where a file ends in the middle of a line, that line still tells.
#[must_use]
pub fn is_mixed(content: &[u8]) -> bool {
    let Some(first) = content.get(..STAMP_BYTES) else { return false };
    content.chunks(LINE_BYTES).any(|line| {
        let stamp = &line[..line.len().min(STAMP_BYTES)];
        stamp != &first[..stamp.len()]
    })
}

/// Bytes at the start of a line that are the same in all lines of one writing.
const STAMP_BYTES: usize = 20;

fn content(writing: u64, lines: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(lines * LINE_BYTES);
    for line in 0..lines {
        let text = format!("{writing:020} line {line:08} ");
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize((line + 1) * LINE_BYTES - 1, b'.');
        bytes.push(b'\n');
    }
    bytes
}

fn hot(root: &Path, folder: usize) -> PathBuf {
    root.join("hot").join(folder.to_string())
}

impl Mutators {
    /// Starts `threads` threads on a tree that [`make`] made. What they do follows from `seed`.
    #[must_use]
    pub fn start(root: &Path, threads: u64, seed: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let names: Arc<Vec<Mutex<()>>> = Arc::new((0..FOLDERS * FILES).map(|_| Mutex::new(())).collect());
        let threads = (0..threads).map(|number| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            let tree = Hot { root: root.to_owned(), names: Arc::clone(&names) };
            let mut dice = Dice(seed.wrapping_mul(31).wrapping_add(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
            std::thread::spawn(move || {
                let mut writing = number + 1;
                while !stop.load(Ordering::Relaxed) {
                    // Another thread may have taken the file away: that is the point.
                    if tree.change(&mut dice, writing).is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    // Numbers of writings are unique over all threads.
                    writing += 1_000;
                }
            })
        });
        Self { threads: threads.collect(), stop, done }
    }

    /// Changes made so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Mutators {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

/// The part of the tree that is changed. Two writers at one file would leave mixtures behind that are nobody's fault, so
/// whoever changes a name holds it.
struct Hot {
    root: PathBuf,
    names: Arc<Vec<Mutex<()>>>,
}

impl Hot {
    fn path(&self, name: usize) -> PathBuf {
        hot(&self.root, name / FILES).join((name % FILES).to_string())
    }

    fn change(&self, dice: &mut Dice, writing: u64) -> io::Result<()> {
        let (one, other) = (dice.below(self.names.len()), dice.below(self.names.len()));
        let change = dice.below(8);
        let lines = if dice.below(16) == 0 { dice.below(MANY_LINES) } else { dice.below(MOST_LINES) };
        let mode = 0o600 + u32::try_from(dice.below(64)).unwrap_or(0);
        let hold = |name: usize| self.names[name].lock().unwrap_or_else(PoisonError::into_inner);
        let is_rename = change == 5 && one != other;
        let _held = hold(if is_rename { one.min(other) } else { one });
        let _also_held = is_rename.then(|| hold(one.max(other)));
        let path = self.path(one);
        match change {
            0 | 1 => rewrite_in_place(&path, writing, lines),
            2 => append(&path),
            3 => OpenOptions::new().write(true).open(&path)?.set_len(0),
            4 => replace(&path, writing, lines),
            5 => fs::rename(&path, self.path(other)),
            6 => fs::remove_file(&path),
            _ => fs::set_permissions(&path, Permissions::from_mode(mode)),
        }
    }
}

/// One write call over all of the file, as long as it was: a reader beside it sees new lines, then old ones.
fn rewrite_in_place(path: &Path, writing: u64, lines: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let lines = if length == 0 { lines } else { length.div_ceil(LINE_BYTES) };
    let mut bytes = content(writing, lines);
    if length != 0 {
        bytes.truncate(length);
    }
    // A short write would leave a mixture behind that nobody has to flag.
    if file.write_at(&bytes, 0)? == bytes.len() { Ok(()) } else { file.set_len(0) }
}

/// One more line of the writing that is there.
fn append(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let mut line = [0; LINE_BYTES];
    file.read_exact_at(&mut line, 0)?;
    file.write_all(&line)
}

/// The way careful programs write: a new file, moved over the old one.
fn replace(path: &Path, writing: u64, lines: usize) -> io::Result<()> {
    let fresh = path.with_extension(format!("{writing}"));
    fs::write(&fresh, content(writing, lines))?;
    fs::rename(fresh, path)
}

/// A small generator, so that a seed is enough to run the same again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{content, is_mixed};

    #[test]
    fn content_of_one_writing_is_not_mixed_however_it_is_cut() {
        let whole = content(7, 30);
        for end in 0..whole.len() {
            assert!(!is_mixed(&whole[..end]), "{end}");
        }
    }

    #[test]
    fn content_of_two_writings_is_mixed() {
        let (mut one, two) = (content(7, 30), content(8, 30));
        one[640..].copy_from_slice(&two[640..]);
        assert!(is_mixed(&one));
    }
}
