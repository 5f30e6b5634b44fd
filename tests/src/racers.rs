//! Somebody who owns a tree swaps its folders for symbolic links while root works in it.
//!
//! A swap moves a folder aside and puts a link to a place outside under its name; a moment later the folder comes back. Whoever looks at
//! a name and uses it afterwards, as two calls, is led outside by it sooner or later.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::random::Random;

/// Longest time that a link stays, in turns of an empty loop.
const LONGEST_STAY: usize = 2000;

/// A running racer. It stops, with every folder back under its name, when it is dropped.
#[derive(Debug)]
pub struct Racer {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Racer {
    /// Swaps the folders `victims` below `root` for links to `outside`, one at a time. Which and for how long follows from `seed`.
    #[must_use]
    pub fn start(root: &Path, victims: &[&str], outside: &Path, seed: u64) -> Self {
        let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let victims: Vec<PathBuf> = victims.iter().map(|victim| root.join(victim)).collect();
        let (aside, outside) = (root.with_extension("aside"), outside.to_owned());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&swaps));
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(seed);
            while !stopped.load(Ordering::Relaxed) {
                let victim = &victims[random.below(victims.len())];
                let stay = random.below(LONGEST_STAY);
                counted.fetch_add(u64::from(swap(victim, &aside, &outside, stay)), Ordering::Relaxed);
            }
        });
        Self { stop, swaps, thread: Some(thread) }
    }

    /// Links that have stood in the place of a folder so far.
    #[must_use]
    pub fn swaps(&self) -> u64 {
        self.swaps.load(Ordering::Relaxed)
    }
}

/// Whether a link was put in the folder's place. Each step fails whenever somebody else was quicker: that is the race.
fn swap(victim: &Path, aside: &Path, outside: &Path, stay: usize) -> bool {
    let is_folder = fs::symlink_metadata(victim).is_ok_and(|found| found.is_dir());
    if !is_folder || fs::rename(victim, aside).is_err() {
        return false;
    }
    let is_swapped = symlink(outside, victim).is_ok();
    for _ in 0..stay {
        std::hint::spin_loop();
    }
    if is_swapped {
        let _replaced_meanwhile = fs::remove_file(victim);
    }
    // A restore may have made the folder anew.
    if fs::rename(aside, victim).is_err() {
        let _half_gone = fs::remove_dir_all(aside);
    }
    is_swapped
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
