//! What the format's tests share: a plain walker that turns a folder into steps, and a source that opens files below it.
//! The real scan lives in the agent; this one only has to be right for small trees.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use coord_archive::codec::Codec;
use coord_archive::entry::{Attributes, Entry, FileTime, Flags, Identity, Kind, Xattr, cmp_paths};
use coord_archive::file::SealedFile;
use coord_archive::header::{Header, Level};
use coord_archive::pack::{Item, PackError, PackOptions, PackReport, Plan, Sink, Source, Step, pack};
use jiff::Timestamp;

/// Opens files below a folder.
pub struct Below(pub PathBuf);

impl Source for Below {
    fn open(&self, path: &[u8]) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.0.join(OsStr::from_bytes(path)))
    }
}

/// The steps of a full of everything below `root`.
pub fn full_steps(root: &Path) -> Vec<Step> {
    let mut entries = Vec::new();
    collect(root, &mut Vec::new(), &mut entries);
    entries.sort_by(|a, b| cmp_paths(&a.path, &b.path));
    let mut groups: HashMap<u64, (u64, Vec<u8>)> = HashMap::new();
    let mut steps = Vec::new();
    for mut entry in entries {
        let linked = entry.link_group != 0;
        let mut plan = Plan::Store;
        if linked {
            let next = groups.len() as u64 + 1;
            if let Some((group, target)) = groups.get(&entry.identity.inode) {
                entry.link_group = *group;
                plan = Plan::Link { target: target.clone(), in_base: false };
            } else {
                entry.link_group = next;
                groups.insert(entry.identity.inode, (next, entry.path.clone()));
            }
        }
        steps.push(Step::Item(Item { entry, plan }));
    }
    steps
}

fn collect(root: &Path, path: &mut Vec<u8>, entries: &mut Vec<Entry>) {
    let full = root.join(OsStr::from_bytes(path));
    let Some(entry) = entry_of(&full, path) else { return };
    let is_folder = entry.kind == Kind::Folder;
    entries.push(entry);
    if !is_folder {
        return;
    }
    for child in std::fs::read_dir(&full).unwrap() {
        let length = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(child.unwrap().file_name().as_bytes());
        collect(root, path, entries);
        path.truncate(length);
    }
}

/// The entry of the name at `full`; `None` for sockets.
pub fn entry_of(full: &Path, path: &[u8]) -> Option<Entry> {
    let stat = std::fs::symlink_metadata(full).unwrap();
    let kind = match stat.file_type() {
        kind if kind.is_file() => Kind::File,
        kind if kind.is_dir() => Kind::Folder,
        kind if kind.is_symlink() => Kind::Symlink,
        kind if kind.is_fifo() => Kind::Fifo,
        kind if kind.is_char_device() => Kind::CharDevice,
        kind if kind.is_block_device() => Kind::BlockDevice,
        _ => return None,
    };
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let device = if is_device { (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev())) } else { (0, 0) };
    Some(Entry {
        path: path.to_vec(),
        kind,
        flags: Flags::default(),
        size: if kind == Kind::File { stat.size() } else { 0 },
        attributes: Attributes {
            mode: stat.mode() & 0o7777,
            uid: stat.uid(),
            gid: stat.gid(),
            user: Vec::new(),
            group: Vec::new(),
            mtime: time(stat.mtime(), stat.mtime_nsec()),
            inode_flags: 0,
            xattrs: xattrs(full, kind),
        },
        identity: Identity { inode: stat.ino(), ctime: time(stat.ctime(), stat.ctime_nsec()) },
        link_target: if kind == Kind::Symlink {
            std::fs::read_link(full).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        },
        device,
        link_group: u64::from(kind != Kind::Folder && stat.nlink() > 1),
        data_ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
    })
}

fn time(seconds: i64, nanos: i64) -> FileTime {
    FileTime { seconds, nanos: u32::try_from(nanos).unwrap() }
}

fn xattrs(full: &Path, kind: Kind) -> Vec<Xattr> {
    if !matches!(kind, Kind::File | Kind::Folder) {
        return Vec::new();
    }
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(full, &mut names[..]).unwrap();
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(full, name, &mut value[..]).unwrap();
        found.push(Xattr { name: name.to_vec(), value: value[..length].to_vec() });
    }
    found.sort();
    found
}

/// A header for tests.
pub fn header(level: Level) -> Header {
    Header::new(level, b"/tmp/source", Timestamp::now())
}

/// Packs `steps` to `path` and seals it.
pub fn pack_steps(
    steps: Vec<Step>,
    source: &dyn Source,
    level: Level,
    options: &PackOptions,
    path: &Path,
) -> Result<PackReport, PackError<Infallible>> {
    let mut out = SealedFile::create(path).unwrap();
    let sink = Sink { out: &mut out, progress: &() };
    let report = pack(steps.into_iter().map(Ok::<_, Infallible>), source, header(level), options, sink)?;
    out.seal().unwrap();
    Ok(report)
}

/// Packs everything below `root`.
pub fn pack_full(root: &Path, codec: Codec, path: &Path) -> PackReport {
    let options = PackOptions::new(codec);
    pack_steps(full_steps(root), &Below(root.to_owned()), Level::Full, &options, path).unwrap()
}

/// Bytes that neither repeat nor compress well, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The tar stream of an archive, as stock decompressors give it.
pub fn tar_stream(archive: &Path, codec: Codec) -> Vec<u8> {
    use std::io::Read as _;
    let file = File::open(archive).unwrap();
    let mut bytes = Vec::new();
    match codec {
        Codec::Zstd => zstd::stream::read::Decoder::new(file).unwrap().read_to_end(&mut bytes).unwrap(),
        Codec::Gzip => flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes).unwrap(),
    };
    bytes
}

/// Names and contents of all members in their order, as another tar reader sees them.
pub fn members(archive: &Path, codec: Codec) -> Vec<(Vec<u8>, Vec<u8>)> {
    use std::io::Read as _;
    let stream = tar_stream(archive, codec);
    let mut tar = tar::Archive::new(stream.as_slice());
    let members = tar.entries().unwrap().map(|member| {
        let mut member = member.unwrap();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        (member.path_bytes().into_owned(), content)
    });
    members.collect()
}

/// The index as text, a line for each entry: what golden archives are compared with.
pub fn listing(reader: &coord_archive::reader::ArchiveReader) -> String {
    use std::fmt::Write as _;

    use coord_archive::header::escape;
    let mut text = String::new();
    for entry in reader.entries().map(Result::unwrap) {
        let a = &entry.attributes;
        write!(
            text,
            "{} {:?} flags={} size={} mode={:o}",
            escape(&entry.path),
            entry.kind,
            entry.flags.0,
            entry.size,
            a.mode
        )
        .unwrap();
        write!(text, " owner={}:{} {}:{}", a.uid, a.gid, escape(&a.user), escape(&a.group)).unwrap();
        write!(text, " mtime={}.{:09} iflags={:x}", a.mtime.seconds, a.mtime.nanos, a.inode_flags).unwrap();
        write!(
            text,
            " inode={} ctime={}.{:09}",
            entry.identity.inode, entry.identity.ctime.seconds, entry.identity.ctime.nanos
        )
        .unwrap();
        for xattr in &a.xattrs {
            write!(text, " {}={}", escape(&xattr.name), escape(&xattr.value)).unwrap();
        }
        write!(text, " target={} device={:?} group={}", escape(&entry.link_target), entry.device, entry.link_group)
            .unwrap();
        let ranges = entry.data_ranges.as_ref().map(|all| all.iter().map(|r| (r.offset, r.length)).collect::<Vec<_>>());
        write!(text, " ranges={ranges:?} digest={:?} pieces={:?}", entry.digest, entry.pieces).unwrap();
        writeln!(text, " content={:?}", entry.content.map(|c| (c.frame, c.frame_offset, c.frame_length, c.offset)))
            .unwrap();
    }
    text
}
