//! Everything that reads an archive, under attack: a second for each target here, as long as one likes by `FUZZ_SECONDS`.
//!
//! The parsers are reached the way an attacker reaches them, through an archive: what is changed is put into a whole one whose digests are
//! right. Patterns of the agent and policies are attacked beside them, in `agent/tests/fuzz.rs` and `coordinator/tests/fuzz`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use coord_archive::entry::{Entry, cmp_paths, is_at_or_below, is_clean_path};
use coord_archive::file::SealedFile;
use coord_archive::header::{Level, escape, unescape};
use coord_archive::progress::{Advance, Progress};
use coord_archive::reader::ArchiveReader;
use coord_archive::rebuild::{RebuildOptions, rebuild};
use coord_archive::unpack::{Selection, UnpackOptions, unpack};
use coord_archive::verify::{Outcome, VerifyOptions, verify_reader};
use coord_shared::selector::Selector;
use coord_shared::token::Token;
use fleet_tests::fuzz::attack;
use fleet_tests::harness::build::workspace;
use fleet_tests::hostile::forge::{Codec, Forge, Lies, listed, padded};
use fleet_tests::hostile::{honest_nodes, tar};
use fleet_tests::scratch::in_memory;

/// Steps after which nobody wants to see the rest: a hole may be as large as any file.
const STEPS: u32 = 400;

/// Bytes at the end of an honest archive without which its index is lost.
const INDEX_BYTES: usize = 700;

/// Ends long work.
#[derive(Default)]
struct Impatient(AtomicU32);

impl Progress for Impatient {
    fn advance(&self, _step: Advance<'_>) -> ControlFlow<()> {
        if self.0.fetch_add(1, Ordering::Relaxed) < STEPS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let inner = error.source().map(|inner| format!(": {}", chain(inner))).unwrap_or_default();
    format!("{error}{inner}")
}

/// The goldens, which are archives of everything that the format has.
fn goldens() -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(workspace().join("tests/golden/v1")).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end != "txt"))
        .map(|path| fs::read(path).unwrap())
        .collect()
}

/// An honest archive with these lies.
fn lying(codec: Codec, lies: Lies) -> Vec<u8> {
    let mut forge = Forge::new(None, honest_nodes());
    (forge.codec, forge.lies) = (codec, lies);
    forge.seal().unwrap()
}

/// The raw parts of an honest archive, to begin with.
fn honest_part(lies: impl FnOnce(std::sync::mpsc::Sender<Vec<u8>>) -> Lies) -> Vec<Vec<u8>> {
    let (send, receive) = std::sync::mpsc::channel();
    lying(Codec::Zstd, lies(send));
    receive.iter().collect()
}

/// Reads an archive in every way there is.
fn read_all(bytes: Vec<u8>) -> String {
    let reader = match ArchiveReader::open(Box::new(bytes)) {
        Ok(reader) => reader,
        Err(error) => return chain(&error),
    };
    let mut files: Vec<Entry> = Vec::new();
    let mut said = String::new();
    for entry in reader.entries() {
        match entry {
            Ok(entry) => {
                assert!(is_clean_path(&entry.path), "{:?}", entry.path);
                if entry.attributes.inode_flags != 0 {
                    said += "flagged ";
                }
                if files.len() < 3 && entry.digest.is_some() {
                    files.push(entry);
                }
            }
            Err(error) => said += &chain(&error),
        }
    }
    for entry in &files {
        said += &reader.content(entry).map_or_else(
            |error| chain(&error),
            |content| {
                let mut buffer = Vec::new();
                content.take(1 << 20).read_to_end(&mut buffer).map_or_else(|error| chain(&error), |_| "read".to_owned())
            },
        );
    }
    let options = VerifyOptions { threads: 1, samples: 2, expected: None };
    said += &verify_reader(&reader, &options, &Impatient::default()).map_or_else(
        |cancelled| cancelled.to_string(),
        |found| {
            let failed = found.checks.iter().filter_map(|check| match &check.outcome {
                Outcome::Failed(why) => Some(why.clone()),
                Outcome::Passed | Outcome::NotDone => None,
            });
            failed.collect::<Vec<_>>().join(";")
        },
    );
    said + &restore(&reader)
}

fn restore(reader: &ArchiveReader) -> String {
    let folder = in_memory().unwrap();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    let opened = fs::File::open(&target).unwrap().into();
    let options = UnpackOptions { threads: 1, ..UnpackOptions::default() };
    let ended = unpack(reader, None, opened, &options, &Impatient::default());
    let beside = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(beside, 1, "something was made beside the target");
    ended.map_or_else(|error| chain(&error), |report| format!("{:?}", report.counts))
}

/// Makes the best of what is left of an archive.
fn make_anew(bytes: &[u8], folder: &Path) -> String {
    let output = folder.join("anew");
    let mut out = SealedFile::create(&output).unwrap();
    let options = RebuildOptions { base: None, level: Some(Level::Full) };
    match rebuild(&bytes.to_vec(), &options, &mut out, &Impatient::default()) {
        Ok(report) => {
            let path = out.seal().unwrap();
            let said = format!("{} {:?} {:?}", report.is_same, report.lost.listed, report.notes);
            let again = read_all(fs::read(&path).unwrap());
            fs::remove_file(path).unwrap();
            said + &again
        }
        Err(error) => chain(&error),
    }
}

#[test]
fn footer() {
    let seeds = honest_part(|send| Lies {
        footer: Some(Box::new(move |raw| send.send(raw.clone()).unwrap())),
        ..Lies::default()
    });
    attack("footer", seeds, &|input| {
        let mut payload = input.to_vec();
        payload.resize(156, 0);
        read_all(lying(
            Codec::Zstd,
            Lies { footer: Some(Box::new(move |raw| raw.clone_from(&payload))), ..Lies::default() },
        ))
    });
}

#[test]
fn table() {
    let seeds = honest_part(|send| Lies {
        raw_table: Some(Box::new(move |raw| send.send(raw.clone()).unwrap())),
        ..Lies::default()
    });
    attack("table", seeds, &|input| {
        let table = padded(input.to_vec());
        read_all(lying(
            Codec::Zstd,
            Lies { raw_table: Some(Box::new(move |raw| raw.clone_from(&table))), ..Lies::default() },
        ))
    });
}

#[test]
fn index() {
    let seeds = honest_part(|send| Lies {
        blocks: Some(Box::new(move |all| send.send(all[0].2.clone()).unwrap())),
        ..Lies::default()
    });
    attack("index", seeds, &|input| {
        let block = padded(input.to_vec());
        // So that the table does not contradict the block before it is looked at.
        let count = input.first().map_or(0, |count| u64::from(count & 0x7f));
        let replaced = move |all: &mut Vec<_>| all[0] = (Vec::new(), count, block.clone());
        read_all(lying(Codec::Zstd, Lies { blocks: Some(Box::new(replaced)), ..Lies::default() }))
    });
}

#[test]
fn header() {
    let mut seeds =
        vec![br#"{"tool":"x","level":"full","root":"/","sources":["a%00"],"selection":"00","base":null}"#.to_vec()];
    seeds.push(serde_json::to_vec(&serde_json::json!({
        "tool": "x", "level": "full", "root": "/", "sources": [""], "selection": "0".repeat(64), "excludes": ["*.o"],
        "rules": {"caches": true, "if_present": [".nobackup"], "larger_than": 7}, "dot_coord": 0, "clock_offset_ms": -5,
        "mounts": [{"path": "a", "file_system": "ext4", "identity": "x"}], "rebuilt": {"lost": 1},
        "scan_started_at": "2026-01-01T00:00:00Z", "captured_at": "2026-01-01T00:00:01Z",
    })).unwrap());
    attack("header", seeds, &|input| {
        // A header is text to the one who forges it; what is no text is attacked by the target `files`.
        let text = serde_json::Value::String(String::from_utf8_lossy(input).into_owned());
        read_all(lying(
            Codec::Zstd,
            Lies { header: Some(Box::new(move |header| *header = text.clone())), ..Lies::default() },
        ))
    });
}

#[test]
fn frames() {
    let seeds = honest_part(|send| Lies {
        frames: Some(Box::new(move |all| send.send(all[0].bytes.clone()).unwrap())),
        ..Lies::default()
    });
    let folder = in_memory().unwrap();
    attack("frames", seeds, &|input| {
        let codec = if input.starts_with(&[0x1f, 0x8b]) { Codec::Gzip } else { Codec::Zstd };
        let stored = input.to_vec();
        let replaced = move |all: &mut Vec<_>| all[0] = listed(stored.clone(), 512 * 17);
        let archive = lying(codec, Lies { frames: Some(Box::new(replaced)), ..Lies::default() });
        read_all(archive.clone()) + &make_anew(&archive, folder.path())
    });
}

/// Gives the header blocks of a tar the checksums that suit them, or nearly no change would be read.
fn heal(raw: &mut [u8]) {
    for block in raw.chunks_exact_mut(512).filter(|block| block[257..263] == *b"ustar\0") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[test]
fn members() {
    let seeds = honest_part(|send| Lies {
        raw_frames: Some(Box::new(move |all| send.send(all[0].clone()).unwrap())),
        ..Lies::default()
    });
    let folder = in_memory().unwrap();
    attack("members", seeds, &|input| {
        let mut raw = padded(input.to_vec());
        heal(&mut raw);
        read_tar(raw, folder.path())
    });
}

/// An archive whose tar this is: held against its index, and read without it.
fn read_tar(raw: Vec<u8>, folder: &Path) -> String {
    let replaced = move |all: &mut Vec<Vec<u8>>| all[0].clone_from(&raw);
    let archive = lying(Codec::Zstd, Lies { raw_frames: Some(Box::new(replaced)), ..Lies::default() });
    read_all(archive.clone()) + &make_anew(without_index(&archive), folder)
}

/// The archive less its footer and the end of its index.
fn without_index(archive: &[u8]) -> &[u8] {
    &archive[..archive.len().saturating_sub(INDEX_BYTES)]
}

#[test]
fn pax() {
    let seeds: Vec<Vec<u8>> = vec![
        b"30 mtime=1350244992.023960108\n17 path=./a/long\n12 uid=1234\n".to_vec(),
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.realsize=512\n25 GNU.sparse.name=./a/b\n"
            .to_vec(),
        b"28 SCHILY.xattr.user.a%3Db=v\n58 SCHILY.acl.access=user::rwx,group::r-x,mask::r-x,other::---\n".to_vec(),
    ];
    let folder = in_memory().unwrap();
    attack("pax", seeds, &|input| {
        let restore_txt = tar::member(b"./.coord/RESTORE.txt", b'0', b"x");
        let pax = tar::member(b"./PaxHeaders/coord", b'x', input);
        let file = [tar::header(b"./a", b'0', 512 * 2, b""), padded(b"1\n0\n512\n".to_vec()), vec![7; 512]].concat();
        read_tar([restore_txt, pax, file].concat(), folder.path())
    });
}

#[test]
fn scripts() {
    let script =
        b"chown -h 1:2 './a' || s=1\nsetfattr -h -n 'user.k' -v 0sdmFsdWU= './a' || s=1\nchmod 00644 './a' || s=1\n\
        touch -chm -d @1.000000000 './a' || s=1\nflags ia './it'\\''s'\n";
    let folder = in_memory().unwrap();
    attack("scripts", vec![script.to_vec(), b"flags i '.'\nchmod 00755 '.' || s=1\n".to_vec()], &|input| {
        let mut forge = Forge::new(None, honest_nodes());
        forge.script = input.to_vec();
        let archive = forge.seal().unwrap();
        make_anew(without_index(&archive), folder.path())
    });
}

#[test]
fn files() {
    let folder = in_memory().unwrap();
    attack("files", goldens(), &|input| read_all(input.to_vec()) + &make_anew(input, folder.path()));
}

#[test]
fn paths() {
    let seeds = vec![b"a/b|a-b|a".to_vec(), b"..|../a|".to_vec(), b"\xff/\n|\xff|\xff/\n/a%".to_vec()];
    attack("paths", seeds, &|input| {
        let mut parts = input.splitn(3, |byte| *byte == b'|');
        let [a, b, c] = std::array::from_fn(|_| parts.next().unwrap_or_default());
        assert_eq!(cmp_paths(a, b), cmp_paths(b, a).reverse());
        assert_eq!(cmp_paths(a, b).is_eq(), a == b);
        if cmp_paths(a, b).is_le() && cmp_paths(b, c).is_le() {
            assert!(cmp_paths(a, c).is_le());
        }
        if is_at_or_below(a, b) && is_at_or_below(b, c) {
            assert!(is_at_or_below(a, c));
        }
        if is_clean_path(a) && is_clean_path(b) && is_at_or_below(a, b) {
            assert!(cmp_paths(b, a).is_le());
        }
        let is_unclean = a.split(|byte| *byte == b'/').any(|name| matches!(name, b"." | b".."));
        assert!(!(is_clean_path(a) && is_unclean));
        let text = escape(a);
        assert!(text.chars().all(|letter| !letter.is_control()), "{text:?}");
        assert_eq!(unescape(&text).as_deref(), Some(a));
        format!("{} {:?} {}", is_clean_path(a), cmp_paths(a, b), is_at_or_below(a, b))
    });
}

#[test]
fn patterns() {
    let seeds =
        vec![b"*.o\n!keep.o\n/etc/**\n".to_vec(), b"a/[b-d]?/{x,y}*\n".to_vec(), b"\\*\n**\n***\n[]\n".to_vec()];
    attack("patterns", seeds, &|input| {
        let lines: Vec<String> = String::from_utf8_lossy(input).lines().take(20).map(str::to_owned).collect();
        let (include, exclude) = lines.split_at(lines.len() / 2);
        let paths = lines.first().map(|line| line.as_bytes().to_vec());
        let selection = Selection::of_paths(paths).and_then(|selection| selection.with_patterns(include, exclude));
        let selection = match selection {
            Ok(selection) => selection,
            Err(error) => return chain(&error),
        };
        let reader = ArchiveReader::open(Box::new(lying(Codec::Zstd, Lies::default()))).unwrap();
        let folder = in_memory().unwrap();
        let target = fs::File::open(folder.path()).unwrap().into();
        let options = UnpackOptions { selection, threads: 1, ..UnpackOptions::default() };
        unpack(&reader, None, target, &options, &())
            .map_or_else(|error| chain(&error), |report| format!("{:?}", report.counts.files))
    });
}

#[test]
fn words() {
    let seeds = vec![
        b"role=web,env!=test".to_vec(),
        b"coord1.a.b.c".to_vec(),
        b"4GiB".to_vec(),
        b"1d12h".to_vec(),
        b"web-17".to_vec(),
    ];
    attack("words", seeds, &|input| {
        let text = String::from_utf8_lossy(input);
        let selector = text.parse::<Selector>();
        if let Ok(selector) = &selector {
            assert_eq!(selector.to_string().parse::<Selector>().unwrap().to_string(), selector.to_string());
        }
        let size = coord_shared::size::parse(&text);
        let duration = coord_shared::duration::parse(&text);
        let (token, slug) = (text.parse::<Token>().is_ok(), text.parse::<coord_shared::slug::HostSlug>().is_ok());
        format!("{} {} {} {token} {slug}", selector.is_ok(), size.is_ok(), duration.is_some())
    });
}
