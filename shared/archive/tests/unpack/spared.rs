//! What a restore must leave alone, and what it must not be silent about.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use coord_archive::codec::Codec;
use coord_archive::entry::{Attributes, Entry, Flags, Identity, Kind};
use coord_archive::header::{Header, Level, Mount};
use coord_archive::pack::{Item, Plan, Step};
use coord_archive::rules::Rules;
use coord_archive::unpack::{Overwrite, Selection, UnpackOptions};
use jiff::Timestamp;

use crate::differential;
use crate::story::{Story, unpack_to};

/// A file system mounted for one test.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` when this user may not mount; the test says what it leaves out.
    fn new(at: &Path) -> Option<Self> {
        let output = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(at).output().unwrap();
        if !output.status.success() {
            assert!(!rustix::process::geteuid().is_root(), "{}", String::from_utf8_lossy(&output.stderr));
            eprintln!("not root: what is mounted in the target is left out");
            return None;
        }
        Some(Self(at.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn everything(_: &[u8]) -> bool {
    true
}

fn deleting_extra() -> UnpackOptions<'static> {
    UnpackOptions { delete_extra: Some(&everything), ..UnpackOptions::default() }
}

/// A name that the scan could not look at.
fn unseen(path: &str, kind: Kind) -> Step {
    let entry = Entry {
        path: path.into(),
        kind,
        flags: Flags::UNREAD,
        size: 0,
        attributes: Attributes::default(),
        identity: Identity::default(),
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        data_ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
    };
    Step::Item(Item { entry, plan: Plan::IndexOnly })
}

/// Replaces or changes the steps of some paths.
fn with(mut steps: Vec<Step>, change: impl Fn(&mut Entry)) -> Vec<Step> {
    for step in &mut steps {
        if let Step::Item(item) = step {
            change(&mut item.entry);
        }
    }
    steps
}

#[test]
fn a_disk_mounted_since_the_backup_on_one_of_its_folders_is_not_emptied() {
    let story = Story::new(Codec::Zstd);
    fs::create_dir_all(story.source().join("mnt/disk/inner")).unwrap();
    let full = story.full();
    let target = story.target("target");
    unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    let Some(mounted) = Mounted::new(&target.join("mnt/disk")) else { return };
    fs::create_dir(target.join("mnt/disk/inner")).unwrap();
    for canary in ["mnt/disk/canary", "mnt/disk/inner/canary", "mnt/extra"] {
        fs::write(target.join(canary), "alive").unwrap();
    }
    let report = unpack_to(&full, None, &target, &deleting_extra()).unwrap();
    assert!(target.join("mnt/disk/canary").exists() && target.join("mnt/disk/inner/canary").exists());
    assert!(!target.join("mnt/extra").exists(), "beside the mount it works");
    assert!(report.different.listed.iter().any(|note| note.path == b"mnt/disk" && note.why.contains("mounted")));
    drop(mounted);
}

#[test]
fn what_is_extra_on_a_mount_that_the_backup_saw_too_is_removed_when_it_is_recognised() {
    let story = Story::new(Codec::Zstd);
    fs::create_dir_all(story.source().join("data")).unwrap();
    let mut header = Header::new(Level::Full, b"/", Timestamp::now());
    let recorded = Mount {
        path: b"data".to_vec(),
        file_system: "tmpfs".to_owned(),
        identity: "the disk".to_owned(),
        mount_point: Vec::new(),
        place: Vec::new(),
    };
    header.mounts = vec![recorded];
    let full = story.pack("full", header, differential::full_of(&story.source()));
    let target = story.target("target");
    fs::create_dir(target.join("data")).unwrap();
    let Some(mounted) = Mounted::new(&target.join("data")) else { return };
    for (now, lives) in [("another disk", true), ("the disk", false)] {
        fs::write(target.join("data/extra"), "x").unwrap();
        let is_mounted = |mount: &Mount, _: std::os::fd::BorrowedFd<'_>| mount.identity == now;
        let options = UnpackOptions { is_mounted: Some(&is_mounted), ..deleting_extra() };
        unpack_to(&full, None, &target, &options).unwrap();
        assert_eq!(target.join("data/extra").exists(), lives, "{now}");
    }
    drop(mounted);
}

#[test]
fn a_folder_that_the_backup_only_passed_through_is_not_emptied() {
    let story = Story::new(Codec::Zstd);
    fs::create_dir_all(story.source().join("dev")).unwrap();
    let passed = |entry: &mut Entry| {
        if entry.path == b"dev" {
            entry.flags = entry.flags.with(Flags::ANCESTOR);
        }
    };
    let steps = with(differential::full_of(&story.source()), passed);
    let full = story.pack("full", Header::new(Level::Full, b"/", Timestamp::now()), steps);
    let target = story.target("target");
    fs::create_dir(target.join("dev")).unwrap();
    fs::write(target.join("dev/null"), "a device of the running kernel").unwrap();
    unpack_to(&full, None, &target, &deleting_extra()).unwrap();
    assert!(target.join("dev/null").exists());
}

#[test]
fn what_the_operator_excluded_is_not_removed_either() {
    let story = Story::new(Codec::Zstd);
    fs::create_dir_all(story.source().join("home/ann")).unwrap();
    let full = story.full();
    let target = story.target("target");
    for folder in ["home/bob", "home/ann", "home/eve"] {
        fs::create_dir_all(target.join(folder)).unwrap();
        fs::write(target.join(folder).join("work"), "made after the backup").unwrap();
    }
    let selection = Selection::everything().with_patterns(&[], &["/home/bob".to_owned()]).unwrap();
    let options = UnpackOptions { selection, ..deleting_extra() };
    unpack_to(&full, None, &target, &options).unwrap();
    assert!(target.join("home/bob/work").exists());
    assert!(!target.join("home/ann/work").exists() && !target.join("home/eve").exists());
}

#[test]
fn a_file_asked_for_below_a_folder_that_could_not_be_read_is_told_to_be_stale() {
    let story = Story::new(Codec::Zstd);
    fs::create_dir_all(story.source().join("folder/deep")).unwrap();
    fs::write(story.source().join("folder/deep/file"), "as in the full").unwrap();
    let full = story.full();
    let mut folder = full.find(b"folder").unwrap().unwrap();
    folder.flags = folder.flags.with(Flags::STALE).with(Flags::CONTENT_IN_BASE);
    let root = full.find(b"").unwrap().unwrap();
    let root_exit = Step::FolderExit { base: Some(Box::new(root.attributes.clone())), entry: root };
    let steps = vec![Step::Item(Item { entry: folder, plan: Plan::IndexOnly }), root_exit];
    let differential = story.pack("differential", story.differential_header(&full), steps);
    let path = Selection::of_paths([b"folder/deep/file".to_vec()]).unwrap();
    let pattern = Selection::everything().with_patterns(&["file".to_owned()], &[]).unwrap();
    for (name, selection) in [("path", path), ("pattern", pattern)] {
        let target = story.target(name);
        for round in ["new", "there already"] {
            let options = UnpackOptions { selection: selection.clone(), ..UnpackOptions::default() };
            let report = unpack_to(&full, Some(&differential), &target, &options).unwrap();
            assert_eq!(report.stale.listed.len(), 1, "{name}, {round}: {report:?}");
            assert_eq!(fs::read(target.join("folder/deep/file")).unwrap(), b"as in the full");
        }
    }
}

#[test]
fn names_that_could_not_be_looked_at_change_nothing_in_the_target() {
    let story = Story::new(Codec::Zstd);
    fs::write(story.source().join("z"), "read").unwrap();
    let mut steps = differential::full_of(&story.source());
    // In the order of paths: behind the root, before `z`.
    steps.splice(1..1, [unseen("folder", Kind::Folder), unseen("pipe", Kind::Fifo), unseen("text", Kind::File)]);
    let full = story.pack("full", Header::new(Level::Full, b"/", Timestamp::now()), steps);
    let target = story.target("target");
    fs::create_dir(target.join("folder")).unwrap();
    fs::set_permissions(target.join("folder"), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["pipe", "text"] {
        fs::write(target.join(name), "still good").unwrap();
    }
    let before = fs::metadata(target.join("folder")).unwrap();
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        let options = UnpackOptions { overwrite, ..UnpackOptions::default() };
        let report = unpack_to(&full, None, &target, &options).unwrap();
        assert_eq!(report.unread.listed.len(), 3, "{report:?}");
        let after = fs::metadata(target.join("folder")).unwrap();
        assert_eq!((after.mode(), after.uid(), after.mtime()), (before.mode(), before.uid(), before.mtime()));
        for name in ["pipe", "text"] {
            assert_eq!(fs::read(target.join(name)).unwrap(), b"still good", "{name}");
        }
    }
    let empty = story.target("empty");
    let report = unpack_to(&full, None, &empty, &UnpackOptions::default()).unwrap();
    assert_eq!(report.unread.listed.len(), 3, "{report:?}");
    assert!(!empty.join("pipe").exists() && !empty.join("text").exists());
    assert_ne!(fs::metadata(empty.join("folder")).unwrap().mode() & 0o777, 0);
}

/// Sets the flag *no dump*; false where the file system has none, which is said.
fn set_nodump(path: &Path) -> bool {
    let file = fs::File::open(path).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file);
    let set = flags.and_then(|flags| rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::NODUMP));
    if let Err(error) = &set {
        eprintln!("{}: no flag 'no dump' here ({error}): it is left out of this test", path.display());
    }
    set.is_ok()
}

#[test]
fn what_the_rules_of_the_backup_would_leave_out_now_is_never_extra() {
    let story = Story::new(Codec::Zstd);
    let tag = "Signature: 8a477f597d28d172789f06886806bc55";
    for name in ["cache", "plain", "scratch"] {
        fs::create_dir(story.source().join(name)).unwrap();
    }
    for (name, text) in [("cache/CACHEDIR.TAG", tag), ("scratch/.nobackup", ""), (".nobackup", ""), ("plain/a", "a")] {
        fs::write(story.source().join(name), text).unwrap();
    }
    let mut header = Header::new(Level::Full, b"/", Timestamp::now());
    let rules = Rules { caches: true, nodump: true, larger_than: Some(100), ..Rules::default() };
    header.rules = Rules { if_present: vec![".nobackup".to_owned()], ..rules };
    let full = story.pack("full", header, differential::full_of(&story.source()));
    let target = story.target("target");
    unpack_to(&full, None, &target, &UnpackOptions::default()).unwrap();
    for name in ["plain/new", "plain/marked/deep"] {
        fs::create_dir_all(target.join(name)).unwrap();
    }
    let mut spared = vec!["cache/x", "scratch/x", "plain/large", "plain/new/CACHEDIR.TAG", "plain/new/x"];
    spared.extend(["plain/marked/.nobackup", "plain/marked/deep/x"]);
    let extra = ["plain/x", "top"];
    for name in spared.iter().chain(&extra) {
        let text = if name.ends_with("TAG") { tag } else { "x" };
        fs::write(target.join(name), if *name == "plain/large" { "x".repeat(101) } else { text.to_owned() }).unwrap();
    }
    fs::write(target.join("plain/dump-me-not"), "x").unwrap();
    if set_nodump(&target.join("plain/dump-me-not")) {
        spared.push("plain/dump-me-not");
    }
    unpack_to(&full, None, &target, &deleting_extra()).unwrap();
    for name in spared {
        assert!(target.join(name).exists(), "{name} is of a kind that no backup has");
    }
    for name in extra {
        assert!(!target.join(name).exists(), "{name} is extra, and the mark of a source means nothing");
    }
}
