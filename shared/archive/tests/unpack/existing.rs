//! What is in the target already: equal things stay, different ones are the operator's, a killed restore goes on.

use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use coord_archive::codec::Codec;
use coord_archive::progress::{Advance, Progress};
use coord_archive::unpack::{Overwrite, Selection, UnpackError, UnpackOptions, unpack};

use crate::story::{Story, opened, unpack_to};
use crate::tree::awkward;

fn small_source() -> Story {
    let story = Story::new(Codec::Zstd);
    let source = story.source();
    std::fs::create_dir_all(source.join("folder/inner")).unwrap();
    std::fs::write(source.join("folder/file"), "backed up").unwrap();
    std::fs::write(source.join("folder/inner/leaf"), "leaf").unwrap();
    std::fs::write(source.join("linked"), "two names").unwrap();
    std::fs::hard_link(source.join("linked"), source.join("folder/linked")).unwrap();
    awkward::set_mtime(&source.join("folder"), 1_000_000, 1).unwrap();
    story
}

fn overwriting(overwrite: Overwrite) -> UnpackOptions<'static> {
    UnpackOptions { overwrite, ..UnpackOptions::default() }
}

fn different_names(report: &coord_archive::unpack::UnpackReport) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = report.different.listed.iter().map(|note| note.path.clone()).collect();
    names.sort();
    names
}

#[test]
fn what_differs_is_left_and_told_unless_overwriting_was_asked_for() {
    let story = small_source();
    let full = story.full();
    let target = story.target("target");
    unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    std::fs::write(target.join("folder/file"), "newer work").unwrap();
    let told = unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    assert_eq!(different_names(&told), [b"folder/file".to_vec()]);
    assert_eq!(std::fs::read(target.join("folder/file")).unwrap(), b"newer work");
    // The existing file is newer than the backup.
    let told = unpack_to(&full, None, &target, &overwriting(Overwrite::IfNewer)).unwrap();
    assert_eq!(different_names(&told), [b"folder/file".to_vec()]);
    let inode = |name: &str| std::fs::symlink_metadata(target.join(name)).unwrap().ino();
    let leaf = inode("folder/inner/leaf");
    let report = unpack_to(&full, None, &target, &overwriting(Overwrite::IfChanged)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.counts.files, 1);
    assert_eq!(inode("folder/inner/leaf"), leaf, "what is equal is not written again");
    assert_eq!(story.differences(&target), Vec::<String>::new());
    awkward::set_mtime(&target.join("folder/file"), 5, 5).unwrap();
    let report = unpack_to(&full, None, &target, &overwriting(Overwrite::IfNewer)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&target), Vec::<String>::new());
    unpack_to(&full, None, &target, &overwriting(Overwrite::Always)).unwrap();
    assert_ne!(inode("folder/inner/leaf"), leaf);
    assert_eq!(story.differences(&target), Vec::<String>::new());
}

#[test]
fn an_edit_that_kept_size_and_time_is_seen_as_different() {
    let story = small_source();
    let full = story.full();
    let target = story.target("target");
    unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    let file = target.join("folder/file");
    let before = std::fs::metadata(&file).unwrap();
    std::fs::write(&file, "backed uP").unwrap();
    awkward::set_mtime(&file, before.mtime(), u32::try_from(before.mtime_nsec()).unwrap()).unwrap();
    let told = unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    assert_eq!(different_names(&told), [b"folder/file".to_vec()]);
    assert_eq!(told.different.listed[0].why, "another content");
}

#[test]
fn a_missing_file_comes_back_and_its_folder_keeps_the_backups_times() {
    let story = small_source();
    let full = story.full();
    let target = story.target("target");
    unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    std::fs::remove_file(target.join("folder/file")).unwrap();
    std::fs::remove_file(target.join("linked")).unwrap();
    let report = unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&target), Vec::<String>::new());
}

#[test]
fn links_joined_and_split_in_the_target_are_different() {
    let story = small_source();
    let full = story.full();
    let target = story.target("target");
    unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    let copy = std::fs::metadata(target.join("linked")).unwrap();
    std::fs::remove_file(target.join("linked")).unwrap();
    std::fs::write(target.join("linked"), "two names").unwrap();
    awkward::set_mtime(&target.join("linked"), copy.mtime(), u32::try_from(copy.mtime_nsec()).unwrap()).unwrap();
    let told = unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    assert_eq!(different_names(&told), [b"linked".to_vec()]);
    let report = unpack_to(&full, None, &target, &overwriting(Overwrite::IfChanged)).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(story.differences(&target), Vec::<String>::new());
}

#[test]
fn a_folder_in_the_way_is_removed_only_when_all_of_it_is_extra() {
    let story = small_source();
    let full = story.full();
    let target = story.target("target");
    std::fs::create_dir_all(target.join("linked/precious")).unwrap();
    std::fs::write(target.join("linked/precious/work"), "work").unwrap();
    std::fs::write(target.join("folder"), "a file").unwrap();
    let told = unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    assert_eq!(different_names(&told), [b"folder".to_vec(), b"linked".to_vec()]);
    assert_eq!(told.counts.below_blocked, 3);
    let told = unpack_to(&full, None, &target, &overwriting(Overwrite::Always)).unwrap();
    assert_eq!(different_names(&told), [b"linked".to_vec()]);
    assert_eq!(std::fs::read(target.join("linked/precious/work")).unwrap(), b"work");
    let covers = |_: &[u8]| true;
    let options = UnpackOptions { delete_extra: Some(&covers), ..overwriting(Overwrite::IfChanged) };
    let report = unpack_to(&full, None, &target, &options).unwrap();
    assert!(report.is_clean(), "{report:?}");
    // The target was not empty, so its own attributes were never in question until they were compared.
    assert_eq!(story.differences(&target), Vec::<String>::new());
}

#[test]
fn deleting_what_is_extra_spares_what_the_backup_does_not_cover() {
    let story = small_source();
    let full = story.full();
    let target = story.target("target");
    unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    for extra in ["folder/extra", "folder/inner/extra", "extra.log", "top"] {
        std::fs::write(target.join(extra), "x").unwrap();
    }
    std::fs::create_dir_all(target.join("new/deep/er")).unwrap();
    std::fs::write(target.join("new/deep/kept.log"), "x").unwrap();
    std::fs::write(target.join("new/gone"), "x").unwrap();
    let outside = story.target("outside");
    std::fs::write(outside.join("canary"), "alive").unwrap();
    symlink(&outside, target.join("folder/to-outside")).unwrap();
    let covers = |path: &[u8]| !path.ends_with(b".log");
    let selection = Selection::of_paths([b"folder".to_vec()]).unwrap();
    let options = UnpackOptions { selection, delete_extra: Some(&covers), ..UnpackOptions::default() };
    let report = unpack_to(&full, None, &target, &options).unwrap();
    assert_eq!(report.counts.removed, 3, "{report:?}");
    assert!(target.join("top").exists(), "not below the selected folder");
    let options = UnpackOptions { delete_extra: Some(&covers), ..UnpackOptions::default() };
    let report = unpack_to(&full, None, &target, &options).unwrap();
    assert_eq!(report.counts.removed, 3, "{report:?}");
    assert!(target.join("new/deep/kept.log").exists() && target.join("extra.log").exists());
    assert!(!target.join("new/gone").exists() && !target.join("new/deep/er").exists());
    assert_eq!(std::fs::read(outside.join("canary")).unwrap(), b"alive");
}

#[test]
fn deleted_files_stay_deleted_and_renamed_ones_are_not_doubled() {
    let story = small_source();
    let full = story.full();
    std::fs::remove_file(story.source().join("folder/file")).unwrap();
    std::fs::rename(story.source().join("folder/inner"), story.source().join("moved")).unwrap();
    let differential = story.differential(&full);
    let target = story.target("target");
    unpack_to(&full, Some(&differential), &target, &UnpackOptions::default()).unwrap();
    assert_eq!(story.differences(&target), Vec::<String>::new());
}

#[test]
fn patterns_choose_within_the_selected_paths() {
    let story = small_source();
    let full = story.full();
    let target = story.target("target");
    let selection = Selection::everything().with_patterns(&["leaf".to_owned()], &[]).unwrap();
    let options = UnpackOptions { selection, ..UnpackOptions::default() };
    unpack_to(&full, None, &target, &options).unwrap();
    let names: Vec<Vec<u8>> = crate::tree::compare::list(&target).unwrap().into_keys().collect();
    let expected = ["", "folder", "folder/inner", "folder/inner/leaf"];
    assert_eq!(names, expected.map(|name| name.as_bytes().to_vec()));
}

#[test]
fn a_restore_of_nothing_and_of_a_foreign_differential_leaves_the_target_untouched() {
    let story = small_source();
    let full = story.full();
    let other = small_source();
    let other_full = other.full();
    let differential = other.differential(&other_full);
    let target = story.target("target");
    let selection = Selection::of_paths([b"no/such".to_vec()]).unwrap();
    let options = UnpackOptions { selection, ..UnpackOptions::default() };
    let refused = unpack_to(&full, None, &target, &options);
    assert!(matches!(refused, Err(UnpackError::NothingThere { .. })), "{refused:?}");
    let refused = unpack_to(&full, Some(&differential), &target, &UnpackOptions::default());
    assert!(matches!(refused, Err(UnpackError::WrongBase { .. })), "{refused:?}");
    let refused = unpack_to(&differential, None, &target, &UnpackOptions::default());
    assert!(matches!(refused, Err(UnpackError::WrongLevel(_))), "{refused:?}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
}

/// Asks to stop after so many calls.
struct StopAfter(AtomicU64);

impl Progress for StopAfter {
    fn advance(&self, _step: Advance<'_>) -> ControlFlow<()> {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        if before == 0 || before > u64::MAX / 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn own_names_in(target: &Path) -> Vec<Vec<u8>> {
    let names = crate::tree::compare::list(target).unwrap().into_keys();
    names.filter(|path| path.windows(15).any(|part| part == b".coord-restore-")).collect()
}

#[test]
fn a_restore_cut_off_anywhere_goes_on_to_the_same_tree() {
    let story = small_source();
    story.make_awkward(&story.source().join("folder/inner"));
    let full = story.full();
    let mut stop_after = 0;
    let mut cut_off = 0;
    loop {
        let target = story.target(&format!("target-{stop_after}"));
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o700)).unwrap();
        let progress = StopAfter(AtomicU64::new(stop_after));
        let ended = unpack(&full, None, opened(&target), &UnpackOptions::default(), &progress);
        let done = ended.is_ok();
        if !done {
            cut_off += 1;
            assert!(matches!(ended, Err(UnpackError::Cancelled)), "{ended:?}");
        }
        // What a kill leaves besides: a temporary name of the same restore.
        if let Some(journal) = own_names_in(&target).first() {
            let journal = String::from_utf8(journal.clone()).unwrap();
            let leftover = journal.replace("journal-", "") + "-ff";
            std::fs::write(target.join(leftover), "half").unwrap();
        }
        let report = unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
        assert!(report.is_clean(), "stopped after {stop_after}: {report:?}");
        assert_eq!(story.differences(&target), Vec::<String>::new(), "stopped after {stop_after}");
        assert_eq!(own_names_in(&target), Vec::<Vec<u8>>::new());
        if done {
            break;
        }
        stop_after = stop_after * 3 / 2 + 1;
    }
    assert!(cut_off > 3);
}

#[test]
fn restores_cut_off_over_a_whole_tree_leave_all_times_as_they_were() {
    let story = small_source();
    let full = story.full();
    let target = story.target("target");
    unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    for stop_after in 0..12 {
        // Missing in every second round, so that folders that stand are written in before the end comes.
        if stop_after % 2 == 1 {
            for name in ["folder/file", "folder/inner/leaf"] {
                std::fs::remove_file(target.join(name)).unwrap();
            }
        }
        for _each_dies in 0..2 {
            let progress = StopAfter(AtomicU64::new(stop_after));
            drop(unpack(&full, None, opened(&target), &UnpackOptions::default(), &progress));
        }
        let report = unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(story.differences(&target), Vec::<String>::new(), "stopped after {stop_after}");
    }
}

#[test]
fn damage_is_named_and_everything_else_comes_back() {
    let story = small_source();
    std::fs::write(story.source().join("large"), crate::support::noise(7, 5 << 20)).unwrap();
    let full = story.full();
    let entry = full.find(b"large").unwrap().unwrap();
    let mut bytes = std::fs::read(story.archive("full")).unwrap();
    // Behind the first frame of the file, so that a later one is hit.
    let hit = full.frame_info(entry.content.unwrap().frame + 1).unwrap();
    bytes[usize::try_from(hit.offset).unwrap() + 1000] ^= 1;
    let damaged = coord_archive::reader::ArchiveReader::open(Box::new(bytes)).unwrap();
    let target = story.target("target");
    let report = unpack_to(&damaged, None, &target, &UnpackOptions::default()).unwrap();
    let named: Vec<_> = report.damaged.listed.iter().map(|note| note.path.clone()).collect();
    assert_eq!(named, [b"large".to_vec()]);
    assert!(!target.join("large").exists());
    assert_eq!(own_names_in(&target), Vec::<Vec<u8>>::new());
    assert_eq!(std::fs::read(target.join("folder/inner/leaf")).unwrap(), b"leaf");
}
