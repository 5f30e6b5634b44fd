//! Restores from archives that were rebuilt without some of their frames.

use std::os::unix::fs::PermissionsExt as _;

use coord_archive::codec::Codec;
use coord_archive::file::SealedFile;
use coord_archive::reader::ArchiveReader;
use coord_archive::rebuild::{RebuildOptions, rebuild};
use coord_archive::unpack::UnpackOptions;

use crate::story::{Story, unpack_to};
use crate::support::noise;

#[test]
fn a_differential_finds_the_content_of_its_full_in_one_that_lost_frames() {
    let story = Story::new(Codec::Zstd);
    let source = story.source();
    for (name, size) in [("a", 5 << 20), ("b", 1000), ("c", 3 << 20), ("folder/d", 2000)] {
        std::fs::create_dir_all(source.join(name).parent().unwrap()).unwrap();
        std::fs::write(source.join(name), noise(size as u64, size)).unwrap();
    }
    let full = story.full();
    let mut bytes = std::fs::read(story.archive("full")).unwrap();
    let place = |number: u64| {
        let frame = full.frame_info(number).unwrap();
        let offset = usize::try_from(frame.offset).unwrap();
        offset..offset + frame.stored_length as usize
    };
    bytes.truncate(place(full.frame_count() - 1).end);
    let torn = full.find(b"a").unwrap().unwrap().content.unwrap().frame + 1;
    bytes.drain(place(torn).start + 100..place(torn).end);
    let path = story.archive("rebuilt");
    let mut out = SealedFile::create(&path).unwrap();
    let report = rebuild(&bytes, &RebuildOptions::default(), &mut out, &()).unwrap();
    out.seal().unwrap();
    assert_eq!(report.lost.listed.iter().map(|(path, _)| path.as_slice()).collect::<Vec<_>>(), [b"a"]);
    let rebuilt = ArchiveReader::open_path(&path).unwrap();

    // Only attributes change, so the differential refers to content by its place in the full as it was.
    for name in ["c", "folder/d"] {
        std::fs::set_permissions(source.join(name), std::fs::Permissions::from_mode(0o640)).unwrap();
    }
    let differential = story.differential(&full);
    assert_eq!(differential.footer().files, 0);
    let target = story.target("restored");
    let report = unpack_to(&rebuilt, Some(&differential), &target, &UnpackOptions::default()).unwrap();
    assert_eq!(report.unread.listed.iter().map(|note| note.path.as_slice()).collect::<Vec<_>>(), [b"a"]);
    assert!(report.damaged.is_empty(), "{report:?}");
    std::fs::remove_file(source.join("a")).unwrap();
    let differences = story.differences(&target);
    assert!(differences.iter().all(|line| line.starts_with(": mtime")), "{differences:?}");
}
