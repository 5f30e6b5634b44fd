//! Fulls and differentials with other programs than GNU tar: the recipe with bsdtar, and reading with Python. Attributes are what those
//! programs make of them.

use std::path::Path;
use std::process::{Command, Stdio};

use coord_archive::codec::Codec;

use super::exact::{change_source, make_source};
use super::story::Story;
use super::tree::compare::{Tolerance, compare_trees};

/// Compares every file of an archive with the one in the source; prints how many there are.
const READ: &str = "import os, sys, tarfile
count = 0
with tarfile.open(fileobj=sys.stdin.buffer, mode=sys.argv[1]) as tar:
    ours = os.path.dirname(tar.next().name) + '/'
    for member in iter(tar.next, None):
        if member.isreg() and not member.name.startswith(ours):
            with open(os.path.join(sys.argv[2], member.name), 'rb') as file:
                assert tar.extractfile(member).read() == file.read(), member.name
            count += 1
print(count)
";

/// Runs a shell command in `folder`; what it prints.
fn shell(folder: &Path, command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said} (packages libarchive-tools, python3, zstd)");
    String::from_utf8(output.stdout).unwrap()
}

/// The awkward tree as a full, changed, and as a differential.
fn archived(codec: Codec) -> Story {
    let story = Story::new(codec);
    make_source(&story);
    let full = story.full();
    change_source(&story);
    drop(story.differential(&full));
    story
}

#[test]
fn bsdtar_restores_a_full_and_its_differential_by_the_recipe() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let story = archived(codec);
        let target = story.target("target");
        for name in ["full", "differential"] {
            let archive = story.archive(name).display().to_string();
            // The first member lies in our folder, which has a number when the source has one of its name.
            let listed = shell(&target, &format!("bsdtar -tf {archive}"));
            let ours = listed.lines().next().unwrap().strip_suffix("/RESTORE.txt").unwrap();
            if name == "differential" {
                shell(&target, &format!("bsdtar -xOf {archive} {ours}/deleted | xargs -0 -r rm -rf --"));
            }
            shell(&target, &format!("bsdtar -xpUf {archive}"));
            std::fs::remove_dir_all(target.join(ours)).unwrap();
        }
        let differences = compare_trees(&story.source(), &target, Tolerance::default()).unwrap();
        let of_content = ["only_left", "only_right", "kind", "content", "size", "link_target"];
        let told: Vec<String> =
            differences.iter().filter(|one| of_content.contains(&one.what)).map(ToString::to_string).collect();
        assert_eq!(told, Vec::<String>::new(), "{codec:?}");
    }
}

#[test]
fn python_reads_every_file_of_a_differential() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let story = archived(codec);
        std::fs::write(story.beside("read.py"), READ).unwrap();
        let archive = story.archive("differential").display().to_string();
        let command = match codec {
            Codec::Zstd => format!("zstd -qdc {archive} | python3 read.py 'r|' source"),
            Codec::Gzip => format!("python3 read.py r:gz source <{archive}"),
        };
        let count: u32 = shell(story.folder.path(), &command).trim().parse().unwrap();
        assert!(count > 10, "{codec:?}: only {count} files were compared");
    }
}
