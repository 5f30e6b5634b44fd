//! Archives of every format version that was ever released stay readable, down to the last field.
//!
//! The files are never made again; a new format version gets a new folder beside the old ones.

use std::path::{Path, PathBuf};

use coord_archive::codec::Codec;
use coord_archive::footer::FORMAT_VERSION;
use coord_archive::overlay::overlay;
use coord_archive::reader::ArchiveReader;
use coord_archive::verify::{VerifyOptions, verify};

use crate::support::{listing, members};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

#[test]
fn every_golden_archive_reads_as_it_did_when_it_was_written() {
    for version in 1..=FORMAT_VERSION {
        let folder = golden().join(format!("v{version}"));
        for level in ["full", "diff"] {
            for codec in [Codec::Zstd, Codec::Gzip] {
                let path = folder.join(format!("{level}.{}", codec.extension()));
                let reader = ArchiveReader::open_path(&path).unwrap();
                assert_eq!(reader.footer().version, version);
                let expected = std::fs::read_to_string(path.with_added_extension("txt")).unwrap();
                assert_eq!(listing(&reader), expected, "{}", path.display());
                let checked = verify(&path, &VerifyOptions { samples: 9, ..VerifyOptions::default() }, &()).unwrap();
                assert!(checked.is_ok(), "{checked:?}");
                assert_eq!(members(&path, codec).last().unwrap().0, b"./.coord/index");
            }
        }
    }
}

#[test]
fn every_file_in_the_golden_folders_is_exercised() {
    let mut folders: Vec<_> =
        std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    let versions: Vec<_> = (1..=FORMAT_VERSION).map(|version| format!("v{version}")).collect();
    assert_eq!(folders, versions);
    for version in versions {
        let mut files: Vec<_> = std::fs::read_dir(golden().join(version))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let expected = ["diff", "full"].map(|level| {
            ["tar.gz", "tar.gz.txt", "tar.zst", "tar.zst.txt"].map(|extension| format!("{level}.{extension}"))
        });
        assert_eq!(files, expected.concat());
    }
}

#[test]
fn a_golden_differential_overlays_its_full() {
    let open = |name: &str| ArchiveReader::open_path(&golden().join("v1").join(name)).unwrap();
    let (full, differential) = (open("full.tar.zst"), open("diff.tar.zst"));
    let names: Vec<String> = overlay(full.entries(), differential.entries())
        .map(|placed| {
            let placed = placed.unwrap();
            let path = coord_archive::header::escape(&placed.entry.path);
            format!("{path} {:?} {:?}", placed.index, placed.content)
        })
        .collect();
    let expected = [
        " Full Full",
        "attributes Differential Full",
        "hello Differential Differential",
        "hole Full Full",
        "large Full Full",
        "link Full Full",
        "null Differential Differential",
        "odd%FF%1B Full Full",
        "sub Differential Differential",
        "sub/again Differential Differential",
        "sub/empty Full Full",
    ];
    assert_eq!(names, expected);
}
