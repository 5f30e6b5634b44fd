//! Somebody who owns the target swaps its folders for symbolic links while root restores into it.

use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coord_archive::codec::Codec;
use coord_archive::progress::{Advance, Progress};
use coord_archive::unpack::{Overwrite, UnpackOptions, unpack};

use crate::story::{Story, unpack_to};
use crate::tree::awkward;

/// How long the racers run.
const RACE: Duration = Duration::from_secs(4);

fn swap_for_ever(target: &Path, outside: &Path, stop: &AtomicBool, swaps: &AtomicU64) {
    let aside = target.join("aside");
    while !stop.load(Ordering::Relaxed) {
        for name in ["one", "one/two"] {
            let victim = target.join(name);
            // Each step fails whenever the restore was quicker; that is the race.
            if std::fs::rename(&victim, &aside).is_ok() {
                let swapped = symlink(outside, &victim).is_ok();
                std::hint::spin_loop();
                if swapped && std::fs::remove_file(&victim).is_ok() {
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
                if std::fs::rename(&aside, &victim).is_err() && std::fs::remove_dir_all(&aside).is_err() {
                    continue;
                }
            }
        }
    }
}

#[test]
fn folders_swapped_for_links_lead_no_restore_outside() {
    let story = Story::new(Codec::Zstd);
    let deep = story.source().join("one/two/three");
    std::fs::create_dir_all(&deep).unwrap();
    for number in 0..40 {
        for folder in ["one", "one/two", "one/two/three"] {
            std::fs::write(story.source().join(folder).join(format!("file-{number}")), "escaped?").unwrap();
        }
        symlink("file-0", deep.join(format!("link-{number}"))).unwrap();
        std::fs::create_dir(story.source().join(format!("one/two/folder-{number}"))).unwrap();
    }
    let full = story.full();
    let target = story.target("target");
    let outside = story.target("outside");
    std::fs::create_dir_all(outside.join("two/three")).unwrap();
    std::fs::create_dir_all(outside.join("three")).unwrap();
    std::fs::write(outside.join("canary"), "alive").unwrap();
    let before = crate::tree::compare::list(&outside).unwrap().len();
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let covers = |_: &[u8]| true;
    let mut restores = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| swap_for_ever(&target, &outside, &stop, &swaps));
        let begun = Instant::now();
        while begun.elapsed() < RACE {
            let overwrite = if restores % 2 == 0 { Overwrite::Always } else { Overwrite::IfChanged };
            let options = UnpackOptions { overwrite, delete_extra: Some(&covers), ..UnpackOptions::default() };
            // It may fail in any way but one.
            let ended = unpack_to(&full, None, &target, &options);
            restores += u64::from(ended.is_ok());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let swaps = swaps.load(Ordering::Relaxed);
    eprintln!("{swaps} swaps during {restores} restores");
    assert!(swaps > 100 && restores > 3);
    assert_eq!(crate::tree::compare::list(&outside).unwrap().len(), before);
    assert_eq!(std::fs::read(outside.join("canary")).unwrap(), b"alive");
}

/// Puts a file of its own into a folder as soon as the restore has made it.
struct Intruder {
    target: PathBuf,
}

impl Progress for Intruder {
    fn advance(&self, step: Advance<'_>) -> ControlFlow<()> {
        if step.path == b"folder" {
            std::fs::write(self.target.join("folder/name"), "somebody else's").unwrap();
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn a_name_that_appears_in_a_folder_the_restore_made_is_treated_like_any_other() {
    let story = Story::new(Codec::Zstd);
    let folder = story.source().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("name"), "ours").unwrap();
    std::fs::write(folder.join("other"), "ours").unwrap();
    let full = story.full();
    for (overwrite, expected) in [(Overwrite::Never, "somebody else's"), (Overwrite::IfChanged, "ours")] {
        let target = story.target(&format!("{overwrite:?}"));
        let opened = std::fs::File::open(&target).unwrap().into();
        let options = UnpackOptions { overwrite, ..UnpackOptions::default() };
        let report = unpack(&full, None, opened, &options, &Intruder { target: target.clone() }).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("folder/name")).unwrap(), expected);
        assert_eq!(std::fs::read_to_string(target.join("folder/other")).unwrap(), "ours");
        assert_eq!(report.different.total, u64::from(overwrite == Overwrite::Never));
        assert_eq!(std::fs::read_dir(target.join("folder")).unwrap().count(), 2, "nothing temporary is left");
    }
}

/// Puts another name of a file outside in the place of one that was just restored.
struct Swapper<'a> {
    target: &'a Path,
    victim: &'a Path,
}

impl Progress for Swapper<'_> {
    fn advance(&self, step: Advance<'_>) -> ControlFlow<()> {
        if step.path == b"frozen" && step.entries == 1 {
            std::fs::remove_file(self.target.join("frozen")).unwrap();
            std::fs::hard_link(self.victim, self.target.join("frozen")).unwrap();
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn a_file_outside_that_takes_a_restored_name_keeps_its_own_flags() {
    if !awkward::is_root() {
        return eprintln!("left out: inode flags, which only root may set");
    }
    let story = Story::new(Codec::Zstd);
    std::fs::write(story.source().join("frozen"), "ours").unwrap();
    chattr("+i", &story.source().join("frozen"));
    let full = story.full();
    let (target, victim) = (story.target("target"), story.beside("victim"));
    std::fs::write(&victim, "somebody else's").unwrap();
    let swapper = Swapper { target: &target, victim: &victim };
    let opened = std::fs::File::open(&target).unwrap().into();
    let report = unpack(&full, None, opened, &UnpackOptions::default(), &swapper).unwrap();
    assert_eq!(report.not_settable.total, 1, "{report:?}");
    std::fs::write(&victim, "not frozen").unwrap();
}

#[test]
fn a_frozen_file_that_loses_a_name_stays_frozen_under_its_others() {
    if !awkward::is_root() {
        return eprintln!("left out: inode flags, which only root may set");
    }
    let story = Story::new(Codec::Zstd);
    std::fs::write(story.source().join("file"), "ours").unwrap();
    let full = story.full();
    let (target, victim) = (story.target("target"), story.beside("victim"));
    std::fs::write(&victim, "somebody else's").unwrap();
    for name in ["file", "extra"] {
        std::fs::hard_link(&victim, target.join(name)).unwrap();
    }
    chattr("+i", &victim);
    let covers = |_: &[u8]| true;
    let options =
        UnpackOptions { overwrite: Overwrite::IfChanged, delete_extra: Some(&covers), ..UnpackOptions::default() };
    let report = unpack_to(&full, None, &target, &options).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&target), Vec::<String>::new());
    assert!(std::fs::write(&victim, "thawed").is_err(), "the other name lost its flag");
}

fn chattr(flags: &str, path: &Path) {
    let ran = std::process::Command::new("chattr").arg(flags).arg(path).status().expect("install e2fsprogs");
    assert!(ran.success(), "{flags} {}", path.display());
}

/// Two operators, or one who repeated the command: whoever comes second finds what is equal and adds what is missing.
#[test]
fn two_restores_into_one_target_at_once_end_in_the_tree() {
    let story = Story::new(Codec::Zstd);
    for number in 0..60 {
        let folder = story.source().join(format!("folder-{}", number % 7));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("file-{number}")), vec![b'x'; number * 997]).unwrap();
    }
    let full = story.full();
    for round in 0..8 {
        let target = story.target(&format!("target-{round}"));
        let options = UnpackOptions { overwrite: Overwrite::IfChanged, ..UnpackOptions::default() };
        std::thread::scope(|scope| {
            let restore = || unpack_to(&full, None, &target, &options).map(drop);
            let restores = [scope.spawn(restore), scope.spawn(restore)];
            for restore in restores {
                restore.join().unwrap().unwrap();
            }
        });
        // A third one mends what the second took for different while the first was at it.
        let report = unpack_to(&full, None, &target, &options).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(story.differences(&target), Vec::<String>::new(), "round {round}");
        for name in crate::tree::compare::list(&target).unwrap().into_keys() {
            assert!(!name.windows(15).any(|part| part == b".coord-restore-"), "{}", name.escape_ascii());
        }
    }
}
