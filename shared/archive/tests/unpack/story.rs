//! A source, its archives, and places to restore to.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use coord_archive::codec::Codec;
use coord_archive::file::SealedFile;
use coord_archive::header::{Base, Header, Level};
use coord_archive::pack::{PackOptions, Sink, Source, Step, pack};
use coord_archive::reader::ArchiveReader;
use coord_archive::recipe::PLACE;
use coord_archive::unpack::{UnpackError, UnpackOptions, UnpackReport, unpack};
use jiff::Timestamp;

use crate::differential;
use crate::support::Below;
use crate::tree::awkward;
use crate::tree::compare::{Tolerance, compare_trees};

/// Everything one test works on; removed when it ends.
pub struct Story {
    pub folder: tempfile::TempDir,
    pub codec: Codec,
}

impl Story {
    pub fn new(codec: Codec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("source")).unwrap();
        Self { folder, codec }
    }

    pub fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    /// A path beside the source.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new empty folder beside the source.
    pub fn target(&self, name: &str) -> PathBuf {
        let path = self.beside(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    pub fn archive(&self, name: &str) -> PathBuf {
        self.beside(&format!("{name}.{}", self.codec.extension()))
    }

    /// Packs the source as it is now.
    pub fn full(&self) -> ArchiveReader {
        self.pack("full", Header::new(Level::Full, b"/", Timestamp::now()), differential::full_of(&self.source()))
    }

    /// Packs what differs from `base` now.
    pub fn differential(&self, base: &ArchiveReader) -> ArchiveReader {
        let steps = differential::steps(base, &self.source());
        self.pack("differential", self.differential_header(base), steps)
    }

    pub fn differential_header(&self, base: &ArchiveReader) -> Header {
        let mut header = Header::new(Level::Differential, b"/", Timestamp::now());
        header.base = Some(Base {
            archive_digest: base.footer().archive_digest,
            name: format!("full.{}", self.codec.extension()),
            run: None,
            ordinal: 0,
        });
        header
    }

    /// Packs these steps.
    pub fn pack(&self, name: &str, header: Header, steps: Vec<Step>) -> ArchiveReader {
        self.pack_from(&Below(self.source()), name, header, steps)
    }

    /// Packs these steps with content from `source`.
    pub fn pack_from(&self, source: &dyn Source, name: &str, mut header: Header, steps: Vec<Step>) -> ArchiveReader {
        header.dot_coord = u32::from(self.source().join(".coord").exists());
        let path = self.archive(name);
        let mut out = SealedFile::create(&path).unwrap();
        let options = PackOptions::new(self.codec);
        let sink = Sink { out: &mut out, progress: &() };
        let steps = steps.into_iter().map(Ok::<_, std::convert::Infallible>);
        pack(steps, source, header, &options, sink).unwrap();
        out.seal().unwrap();
        ArchiveReader::open_path(&path).unwrap()
    }

    /// Makes the awkward tree in `folder`, as far as whoever runs the tests can make and read it.
    pub fn make_awkward(&self, folder: &Path) {
        for left_out in awkward::make(folder).unwrap() {
            eprintln!("left out: {left_out}");
        }
        if !awkward::is_root() {
            eprintln!("left out: files and folders that only root can read");
            for name in ["folders/closed", "files/unreadable"] {
                std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
    }

    /// Restores into the new folder `name` by the recipe and gives every way in which the result is not as the source.
    pub fn recipe_differences(&self, archive: &str, name: &str) -> Vec<String> {
        if !awkward::is_root() {
            eprintln!("left out: the recipe, which sets owners and so needs root");
            return Vec::new();
        }
        self.differences(&self.restore_by_the_recipe(archive, name))
    }

    /// Restores into the new folder `name` by the recipe.
    pub fn restore_by_the_recipe(&self, archive: &str, name: &str) -> PathBuf {
        let target = self.target(name);
        self.follow_the_recipe(&self.archive(archive), &target);
        target
    }

    /// Runs the commands of the archive's own RESTORE.txt, and nothing else, with stock programs.
    fn follow_the_recipe(&self, archive: &Path, target: &Path) {
        let tar = |arguments: &[&std::ffi::OsStr]| {
            let ran = Command::new("tar").args(arguments).output().expect("install tar and zstd");
            assert!(ran.status.success(), "{ran:?}");
            String::from_utf8(ran.stdout).unwrap()
        };
        let listing = tar(&["-tf".as_ref(), archive.as_ref(), "--quoting-style=escape".as_ref()]);
        let first = listing.lines().next().unwrap();
        assert!(first.ends_with("/RESTORE.txt"), "{first}");
        let text = tar(&["-xOf".as_ref(), archive.as_ref(), first.as_ref()]);
        let script: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .map(|line| line.replace(&format!("{PLACE}an/empty/folder"), target.to_str().unwrap()))
            .map(|line| line.replace(PLACE, &format!("{}/", self.folder.path().display())) + "\n")
            .collect();
        let ran = Command::new("dash").arg("-c").arg(&script).output().expect("install dash");
        assert!(ran.status.success(), "{script}\n{ran:?}");
    }

    /// Every way in which `target` is not as the source.
    pub fn differences(&self, target: &Path) -> Vec<String> {
        differences(&self.source(), target)
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        // Immutable files would stay behind.
        if rustix::process::geteuid().is_root() {
            let ran = Command::new("chattr").args(["-R", "-f", "-i", "-a"]).arg(self.folder.path()).output();
            assert!(ran.is_ok(), "install e2fsprogs");
        }
    }
}

/// Every way in which two trees differ, inode flags included.
pub fn differences(left: &Path, right: &Path) -> Vec<String> {
    let tolerance = Tolerance { ignore_owners: !rustix::process::geteuid().is_root(), ..Tolerance::default() };
    let mut found: Vec<String> =
        compare_trees(left, right, tolerance).unwrap().iter().map(ToString::to_string).collect();
    let (left, right) = (flags_of(left), flags_of(right));
    if left != right {
        found.push(format!("inode flags: {left:?} / {right:?}"));
    }
    found
}

/// Paths with inode flags that are restored, and these.
fn flags_of(root: &Path) -> Vec<(Vec<u8>, u32)> {
    differential::full_of(root)
        .into_iter()
        .filter_map(|step| match step {
            Step::Item(item) => Some((item.entry.path, item.entry.attributes.inode_flags)),
            Step::Removed { .. } | Step::FolderExit { .. } => None,
        })
        .filter(|(_, flags)| *flags != 0)
        .collect()
}

/// An open folder.
pub fn opened(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

/// Unpacks with `options` and nobody watching.
pub fn unpack_to(
    full: &ArchiveReader,
    differential: Option<&ArchiveReader>,
    target: &Path,
    options: &UnpackOptions<'_>,
) -> Result<UnpackReport, UnpackError> {
    unpack(full, differential, opened(target), options, &())
}
