//! `coord-agent archive` as a user meets it: the program itself, on a tree of everything the format promises to carry.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

// The same awkward tree, changes and comparison that the stories of the whole system use.
#[path = "../../tests/src/tree/mod.rs"]
mod tree;

use tree::compare::{Tolerance, compare_trees};

fn run(arguments: &[&str], folder: &Path) -> Output {
    command(arguments, folder).output().unwrap()
}

fn command(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coord-agent"));
    command.arg("archive").args(arguments).current_dir(folder);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must end with `code`.
fn ends(code: i32, arguments: &[&str], folder: &Path) -> Output {
    let output = run(arguments, folder);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    output
}

/// Nobody but root can make or restore everything; what is left out is said.
fn tolerance() -> Tolerance {
    if tree::awkward::is_root() {
        return Tolerance::default();
    }
    eprintln!("not root: owners, devices and capabilities are left out of this test");
    Tolerance { ignore_owners: true, ..Tolerance::default() }
}

fn assert_equal(left: &Path, right: &Path) {
    let found = compare_trees(left, right, tolerance()).unwrap();
    let lines: Vec<String> = found.iter().take(20).map(|one| one.to_string().chars().take(200).collect()).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// The commands that an archive's own first member gives, with the two places filled in.
fn recipe(archive: &Path, dot_coord: &str) -> String {
    let member = format!("./{dot_coord}/RESTORE.txt");
    let text = Command::new("tar").arg("-xOf").arg(archive).arg(&member).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let commands = lines.collect::<Vec<_>>().join("\n");
    assert!(commands.contains("attributes.sh"), "{archive:?} has no recipe in {member}");
    commands
}

fn follow_recipe(commands: &str, archives: &Path, target: &Path) {
    fs::create_dir(target).unwrap();
    let commands = commands
        .replace("/PATH/TO/an/empty/folder", target.to_str().unwrap())
        .replace("/PATH/TO/", &format!("{}/", archives.to_str().unwrap()));
    let output = Command::new("sh").arg("-c").arg(&commands).output().unwrap();
    assert!(output.status.success(), "{commands}\n{}", said(&output));
}

#[test]
fn an_awkward_tree_and_every_change_to_it_come_back_by_the_program_and_by_stock_tools() {
    awkward_round_trip("zstd");
}

#[test]
fn an_awkward_tree_and_every_change_to_it_come_back_from_gzip_too() {
    awkward_round_trip("gzip");
}

fn awkward_round_trip(codec: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("source")).unwrap();
    for line in tree::awkward::make(&at("source")).unwrap() {
        eprintln!("left out: {line}");
    }
    let full = ["create", "--source", "source", "--output", "full.tar", "--codec", codec, "--level", "1"];
    ends(0, &full, folder.path());
    ends(0, &["extract", "full.tar", "--target", "restored-full"], folder.path());
    assert_equal(&at("source"), &at("restored-full"));
    let diff = ["diff", "--base", "full.tar", "--source", "source", "--output", "diff.tar", "--codec", codec];
    let output = ends(0, &diff, folder.path());
    assert!(said(&output).contains("nothing differs"), "{}", said(&output));
    assert!(!at("diff.tar").exists());

    for change in tree::mutate::change_everything(&at("source")).unwrap() {
        eprintln!("changed: {change}");
    }
    let output = ends(0, &[&diff[..], &["--verify"]].concat(), folder.path());
    assert!(said(&output).contains("verifying"), "{}", said(&output));
    ends(0, &["verify", "diff.tar", "--threads", "1"], folder.path());
    ends(0, &["extract", "full.tar", "diff.tar", "--target", "restored", "--threads", "1"], folder.path());
    assert_equal(&at("source"), &at("restored"));
    // The tree has a `.coord` of its own.
    if tree::awkward::is_root() {
        follow_recipe(&recipe(&at("diff.tar"), ".coord.1"), folder.path(), &at("by-recipe"));
        assert_equal(&at("source"), &at("by-recipe"));
    } else {
        eprintln!("not root: the recipe, which sets owners, is left out of this test");
    }
}

#[test]
fn an_unreadable_folder_is_a_warning_and_neither_deleted_nor_silent() {
    const SOMEBODY: u32 = 54_321;
    if !tree::awkward::is_root() {
        eprintln!("not root: cannot become somebody who may not read; the same is tested through a lens in tests/scan");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["source/open", "source/closed", "archives"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("source/open/a"), "a").unwrap();
    fs::write(at("source/closed/b"), "b").unwrap();
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    for name in ["", "source", "source/open", "source/open/a", "source/closed", "source/closed/b", "archives"] {
        own(&at(name));
    }
    // The program's own place may be closed to others.
    let program = at("coord-agent");
    // By a process of its own: a program that another test starts meanwhile would inherit the open copy, and it could not be run ("text file busy").
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_coord-agent")).arg(&program).status().unwrap();
    assert!(copied.success());
    let somebody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("archive").args(arguments).current_dir(folder.path()).uid(SOMEBODY).gid(SOMEBODY);
        command.output().unwrap()
    };
    let full = somebody(&["create", "--source", "source", "--output", "archives/full"]);
    assert_eq!(full.status.code(), Some(0), "{}", said(&full));
    let closed = fs::metadata(at("source/closed")).unwrap().permissions();
    fs::set_permissions(at("source/closed"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    fs::remove_file(at("source/open/a")).unwrap();
    let diff = somebody(&["diff", "--base", "archives/full", "--source", "source", "--output", "archives/diff"]);
    assert_eq!(diff.status.code(), Some(3), "{}", said(&diff));
    assert!(said(&diff).contains("warning: closed: cannot be listed"), "{}", said(&diff));
    fs::set_permissions(at("source/closed"), closed).unwrap();
    let restored = run(&["extract", "archives/full", "archives/diff", "--target", "restored"], folder.path());
    assert_eq!(restored.status.code(), Some(3), "stale names are told: {}", said(&restored));
    assert_eq!(fs::read(at("restored/closed/b")).unwrap(), b"b");
    assert!(!at("restored/open/a").exists());
}

#[test]
fn what_goes_wrong_has_its_own_exit_code_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("source")).unwrap();
    fs::write(at("source/file"), vec![9; 3 << 20]).unwrap();
    let create = ["create", "--source", "source", "--output", "full"];
    ends(2, &["create", "--source", "source"], folder.path());
    ends(2, &["create", "--source", "source", "--output", "x", "--exclude", "a["], folder.path());
    ends(1, &["create", "--source", "nowhere", "--output", "x"], folder.path());
    assert!(!at("x").exists());
    ends(0, &create, folder.path());
    let again = ends(1, &create, folder.path());
    assert!(said(&again).contains("never overwritten"), "{}", said(&again));
    ends(5, &["cat", "full", "nowhere"], folder.path());
    ends(5, &["list", "nothing"], folder.path());
    ends(5, &["verify", "nothing"], folder.path());
    ends(5, &["extract", "full", "--target", "t", "--path", "nowhere"], folder.path());
    let cat = ends(0, &["cat", "full", "/file"], folder.path());
    assert_eq!(cat.stdout, vec![9; 3 << 20]);

    let mut bytes = fs::read(at("full")).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle] ^= 1;
    fs::write(at("flipped"), &bytes).unwrap();
    ends(10, &["verify", "flipped"], folder.path());
    bytes.truncate(middle);
    fs::write(at("cut"), &bytes).unwrap();
    ends(10, &["verify", "cut"], folder.path());
    ends(10, &["list", "cut"], folder.path());
    let output = ends(10, &["list", "cut", "-o", "json"], folder.path());
    let object: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((object["code"].as_str(), object["exit"].as_u64()), (Some("archive_damaged"), Some(10)));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
}

#[test]
fn an_archive_cut_short_is_listed_and_restored_after_reindex() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("source")).unwrap();
    for name in ["a", "b", "deleted"] {
        fs::write(at("source").join(name), name.repeat(4000)).unwrap();
    }
    ends(0, &["create", "--source", "source", "--output", "full.tar.zst", "--quiet"], folder.path());
    fs::remove_file(at("source/deleted")).unwrap();
    fs::write(at("source/b"), "changed").unwrap();
    let diff = ["diff", "--base", "full.tar.zst", "--source", "source", "--output", "diff.tar.zst", "--quiet"];
    ends(0, &diff, folder.path());
    let cut = |name: &str, bytes: usize| {
        let whole = fs::read(at(name)).unwrap();
        fs::write(at(&format!("cut-{name}")), &whole[..whole.len() - bytes]).unwrap();
    };

    // Nothing is wrong: there is nothing to be made.
    let output = ends(0, &["reindex", "full.tar.zst"], folder.path());
    assert_eq!(output.stdout, b"full.tar.zst\n");
    assert!(!at("full.rebuilt.tar.zst").exists());

    // The footer alone: the same archive, and the differential still stands on it.
    cut("full.tar.zst", 10);
    for damaged in [&["list", "cut-full.tar.zst"][..], &["verify", "cut-full.tar.zst"]] {
        let output = ends(10, damaged, folder.path());
        assert!(said(&output).contains("hint: coord-agent archive reindex cut-full.tar.zst"), "{}", said(&output));
    }
    let output = ends(10, &["extract", "cut-full.tar.zst", "--target", "nowhere"], folder.path());
    assert!(said(&output).contains("archive reindex"), "{}", said(&output));
    let output = ends(0, &["reindex", "cut-full.tar.zst"], folder.path());
    assert_eq!(output.stdout, b"cut-full.rebuilt.tar.zst\n");
    assert!(fs::read(at("cut-full.rebuilt.tar.zst")).unwrap() == fs::read(at("full.tar.zst")).unwrap());
    ends(1, &["reindex", "cut-full.tar.zst"], folder.path());

    // Index and header: a differential needs its full for what it says of it.
    cut("diff.tar.zst", 900);
    let before = fs::read(at("cut-diff.tar.zst")).unwrap();
    let output = ends(2, &["reindex", "cut-diff.tar.zst"], folder.path());
    assert!(said(&output).contains("--base FULL"), "{}", said(&output));
    let reindex = ["reindex", "cut-diff.tar.zst", "--base", "full.tar.zst", "--output", "again"];
    let output = ends(3, &reindex, folder.path());
    assert!(said(&output).contains("known from the tar alone"), "{}", said(&output));
    assert!(fs::read(at("cut-diff.tar.zst")).unwrap() == before);
    ends(0, &["verify", "again"], folder.path());
    let listed = ends(0, &["list", "again"], folder.path());
    assert!(String::from_utf8_lossy(&listed.stdout).contains(" b\n"));
    let output = ends(0, &["extract", "full.tar.zst", "again", "--target", "restored"], folder.path());
    assert!(said(&output).contains("again was rebuilt out of a damaged archive"), "{}", said(&output));
    assert_equal(&at("source"), &at("restored"));

    fs::write(at("junk"), vec![5; 100_000]).unwrap();
    ends(10, &["reindex", "junk"], folder.path());
    ends(5, &["reindex", "nothing"], folder.path());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("partial")), "{left:?}");
}

#[test]
fn a_differential_of_a_differential_and_one_of_another_full_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("source")).unwrap();
    for name in ["full", "other"] {
        ends(0, &["create", "--source", "source", "--output", name], folder.path());
        fs::write(at("source").join(name), name).unwrap();
    }
    ends(0, &["diff", "--base", "full", "--source", "source", "--output", "diff"], folder.path());
    ends(2, &["diff", "--base", "diff", "--source", "source", "--output", "x"], folder.path());
    ends(2, &["extract", "other", "diff", "--target", "t"], folder.path());
    ends(2, &["extract", "diff", "--target", "t"], folder.path());
    ends(0, &["extract", "full", "diff", "--target", "t"], folder.path());
    assert_equal(&at("source"), &at("t"));
}

#[test]
fn what_a_full_leaves_out_by_rule_its_differential_leaves_out_too() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join("source").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    write("a", b"a");
    write("cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");
    write("cache/x", b"x");
    write("scratch/.nobackup", b"");
    write("scratch/x", b"x");
    write("large", &[0; 2000]);
    let rules = ["--exclude-caches", "--exclude-if-present", ".nobackup", "--exclude-larger-than", "1KB", "-x"];
    let create = ["create", "--source", "source", "--output", "full"];
    let output = ends(0, &[&create[..], &rules, &["--exclude-nodump"]].concat(), folder.path());
    for told in [
        "caches (CACHEDIR.TAG): 0 files (0 B) and 1 folders left out",
        "folders with .nobackup: 0 files (0 B) and 1 folders left out",
        "files larger than 1000 B: 1 files (1.95 KiB) and 0 folders left out",
    ] {
        assert!(said(&output).contains(told), "{told}: {}", said(&output));
    }
    for name in ["cache/y", "scratch/y", "large2"] {
        write(name, &[1; 2000]);
    }
    write("b", b"b");
    ends(0, &["diff", "--base", "full", "--source", "source", "--output", "diff"], folder.path());
    ends(0, &["extract", "full", "diff", "--target", "t"], folder.path());
    let mut found = Vec::new();
    for place in ["", "cache", "scratch"] {
        let names = fs::read_dir(folder.path().join("t").join(place)).unwrap();
        found.extend(names.map(|entry| format!("{place}/{}", entry.unwrap().file_name().to_string_lossy())));
    }
    found.sort();
    assert_eq!(found, ["/a", "/b", "/cache", "/scratch", "cache/CACHEDIR.TAG", "scratch/.nobackup"]);
    for bad in [["--exclude-larger-than", "4G"], ["--exclude-if-present", "a/b"]] {
        ends(2, &["create", "--source", "source", "--output", "bad", bad[0], bad[1]], folder.path());
        assert!(!folder.path().join("bad").exists());
    }
}

#[test]
fn a_differential_excludes_what_its_full_did_and_never_its_own_archives() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("keep"), "keep").unwrap();
    fs::write(at("a.tmp"), "no").unwrap();
    let output = ends(0, &["create", "--source", ".", "--output", "full", "--exclude", "*.tmp"], folder.path());
    assert!(said(&output).contains("*.tmp: 1 files (2 B) and 0 folders left out"), "{}", said(&output));
    fs::write(at("b.tmp"), "no").unwrap();
    fs::write(at("new"), "new").unwrap();
    ends(0, &["diff", "--base", "full", "--source", ".", "--output", "diff"], folder.path());
    let listed = ends(0, &["list", "diff", "-o", "json"], folder.path());
    let paths: Vec<String> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(paths, [".", "new"], "the root's times changed");
}

#[test]
fn an_interrupt_ends_in_order_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    // Holes are read as zeros: far more than can be packed before the interrupt comes.
    for number in 0..2000 {
        fs::File::create(source.join(format!("{number:04}"))).unwrap().set_len(256 << 20).unwrap();
    }
    let mut command = command(&["create", "--source", "source", "--output", "full"], folder.path());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut begun = [0; 1];
    // When the first word is said, signals are listened to.
    std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut begun).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["source"]);
}

#[test]
fn an_archive_that_does_not_fit_leaves_nothing_behind() {
    if !tree::awkward::is_root() {
        eprintln!(
            "not root: cannot mount a small file system; the same is tested with a full sink in the archive package"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&small).output().unwrap();
    assert!(mounted.status.success(), "mounting needs CAP_SYS_ADMIN: {}", said(&mounted));
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    // Bytes that do not compress.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(4 << 20)
    .collect();
    fs::write(source.join("noise"), noise).unwrap();
    let output = run(&["create", "--source", "source", "--output", "small/full"], folder.path());
    let left = fs::read_dir(&small).unwrap().count();
    let unmounted = Command::new("umount").arg(&small).output().unwrap();
    assert!(unmounted.status.success(), "{}", said(&unmounted));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("hint: free space"), "{}", said(&output));
    assert_eq!(left, 0, "no half archive");
}
