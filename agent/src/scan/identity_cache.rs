//! The identity cache: names whose inode or change time differ from the base's though nothing restorable does.
//!
//! A tree that was copied or restored has new inodes and change times everywhere. Without a memory each differential would
//! read all of it again. The cache says: at this inode and this change time the name's content (and perhaps its extended
//! attributes) were found to be those of the base. It is valid for one base archive only, is written only by a scan that
//! was not racy for the name, and is trusted only if the digest at its end is right; otherwise it is as if it were empty.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use coord_archive::digest::Digest;
use coord_archive::entry::{FileTime, Identity, MAX_PATH_BYTES, cmp_paths};

const MAGIC: &[u8; 16] = b"coord identity 1";
const HEAD_BYTES: usize = MAGIC.len() + 32;

/// What is remembered of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The name.
    pub path: Vec<u8>,
    /// Its inode and change time when it was compared.
    pub identity: Identity,
    /// Whether extended attributes, inode flags and link target were the base's too.
    pub are_extras_same: bool,
}

/// Reads a cache in path order.
#[derive(Debug)]
pub struct CacheReader {
    from: Option<BufReader<io::Take<File>>>,
    next: Option<Remembered>,
}

impl CacheReader {
    /// A reader of the cache at `path`. Absent, damaged or made for another base: an empty one.
    #[must_use]
    pub fn open(path: &Path, base: Digest) -> Self {
        let mut this = Self { from: open_checked(path, base), next: None };
        this.advance();
        this
    }

    /// Remembers nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { from: None, next: None }
    }

    fn advance(&mut self) {
        self.next = self.from.as_mut().and_then(|from| read_record(from).ok().flatten());
    }

    /// What is remembered of `path`. Paths must be asked for in path order.
    pub fn find(&mut self, path: &[u8]) -> Option<Remembered> {
        while let Some(next) = &self.next {
            match cmp_paths(&next.path, path) {
                Ordering::Less => self.advance(),
                Ordering::Equal => return self.next.clone(),
                Ordering::Greater => return None,
            }
        }
        None
    }
}

fn open_checked(path: &Path, base: Digest) -> Option<BufReader<io::Take<File>>> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len().checked_sub(32)?;
    let mut hasher = blake3::Hasher::new();
    let mut body = file.take(length);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match body.read(&mut buffer).ok()? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        };
    }
    let mut file = body.into_inner();
    let mut trailer = [0; 32];
    file.read_exact(&mut trailer).ok()?;
    if *hasher.finalize().as_bytes() != trailer {
        return None;
    }
    io::Seek::rewind(&mut file).ok()?;
    let mut from = BufReader::with_capacity(256 << 10, file.take(length));
    let mut head = [0; HEAD_BYTES];
    from.read_exact(&mut head).ok()?;
    (head[..MAGIC.len()] == *MAGIC && head[MAGIC.len()..] == base.0).then_some(from)
}

fn read_record(from: &mut impl Read) -> io::Result<Option<Remembered>> {
    let mut length = [0; 4];
    if let Err(error) = from.read_exact(&mut length) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_PATH_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut path = vec![0; length];
    from.read_exact(&mut path)?;
    let mut fixed = [0; 21];
    from.read_exact(&mut fixed)?;
    let (mut inode, mut seconds, mut nanos) = ([0; 8], [0; 8], [0; 4]);
    inode.copy_from_slice(&fixed[..8]);
    seconds.copy_from_slice(&fixed[8..16]);
    nanos.copy_from_slice(&fixed[16..20]);
    let ctime = FileTime { seconds: i64::from_le_bytes(seconds), nanos: u32::from_le_bytes(nanos) };
    let identity = Identity { inode: u64::from_le_bytes(inode), ctime };
    Ok(Some(Remembered { path, identity, are_extras_same: fixed[20] == 1 }))
}

/// Writes a cache in path order; it takes the old one's place only when it is complete.
#[derive(Debug)]
pub struct CacheWriter {
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    path: PathBuf,
    temporary: PathBuf,
}

impl CacheWriter {
    /// Begins a cache at `path` for `base`.
    ///
    /// # Errors
    /// As open(2).
    pub fn create(path: &Path, base: Digest) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".new");
        let temporary = path.with_file_name(name);
        let out = BufWriter::with_capacity(256 << 10, File::create(&temporary)?);
        let mut this = Self { out, hasher: blake3::Hasher::new(), path: path.to_path_buf(), temporary };
        this.put(MAGIC)?;
        this.put(&base.0)?;
        Ok(this)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    /// Remembers a name; paths come in path order.
    ///
    /// # Errors
    /// As write(2).
    pub fn push(&mut self, path: &[u8], identity: Identity, are_extras_same: bool) -> io::Result<()> {
        let length = u32::try_from(path.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.put(&length.to_le_bytes())?;
        self.put(path)?;
        self.put(&identity.inode.to_le_bytes())?;
        self.put(&identity.ctime.seconds.to_le_bytes())?;
        self.put(&identity.ctime.nanos.to_le_bytes())?;
        self.put(&[u8::from(are_extras_same)])
    }

    /// Puts the cache in place. Its loss would cost time only, so it is not forced to disk.
    ///
    /// # Errors
    /// As write(2) and rename(2).
    pub fn finish(mut self) -> io::Result<()> {
        let digest = self.hasher.finalize();
        self.out.write_all(digest.as_bytes())?;
        self.out.flush()?;
        std::fs::rename(&self.temporary, &self.path)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn identity(inode: u64) -> Identity {
        Identity { inode, ctime: FileTime { seconds: -5, nanos: 7 } }
    }

    #[test]
    fn a_cache_is_found_again_for_its_own_base_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let base = Digest::of(b"base");
        let mut writer = CacheWriter::create(&path, base).unwrap();
        for (number, name) in [&b"a"[..], b"a/b", b"a-b"].iter().enumerate() {
            writer.push(name, identity(number as u64), number == 1).unwrap();
        }
        writer.finish().unwrap();
        let mut reader = CacheReader::open(&path, base);
        assert_eq!(reader.find(b""), None);
        assert_eq!(reader.find(b"a/b").unwrap().identity, identity(1));
        assert_eq!(reader.find(b"a/c"), None);
        assert!(!reader.find(b"a-b").unwrap().are_extras_same);
        assert_eq!(reader.find(b"b"), None);
        assert_eq!(CacheReader::open(&path, Digest::of(b"another")).find(b"a"), None);
    }

    #[test]
    fn a_damaged_cache_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let base = Digest::of(b"base");
        let mut writer = CacheWriter::create(&path, base).unwrap();
        writer.push(b"a", identity(1), true).unwrap();
        writer.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(CacheReader::open(&path, base).find(b"a"), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(CacheReader::open(&path, base).find(b"a"), None, "cut at {at}");
        }
    }
}
