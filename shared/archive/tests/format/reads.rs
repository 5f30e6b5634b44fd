//! What reading one file costs: an archive may be at the other end of a network, where every read is a round trip.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coord_archive::codec::Codec;
use coord_archive::pack::PackOptions;
use coord_archive::reader::{ArchiveReader, ReadAt};

use crate::support::{Below, full_steps, noise, pack_steps};

/// Bytes in memory that count how often and how much of them is read.
struct Counted {
    bytes: Vec<u8>,
    reads: Arc<AtomicU64>,
    read_bytes: Arc<AtomicU64>,
}

impl ReadAt for Counted {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.bytes.read_exact_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }
}

#[test]
fn one_small_file_costs_four_small_reads() {
    for codec in [Codec::Zstd, Codec::Gzip] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        std::fs::create_dir(&root).unwrap();
        for number in 0..6000 {
            std::fs::write(root.join(format!("file-{number:05}")), noise(number, 700)).unwrap();
        }
        let archive = folder.path().join("archive");
        let options = PackOptions { frame_bytes: 256 << 10, ..PackOptions::new(codec) };
        pack_steps(full_steps(&root), &Below(root), coord_archive::header::Level::Full, &options, &archive).unwrap();
        let bytes = std::fs::read(&archive).unwrap();
        assert!(bytes.len() > 3 << 20, "several frames and blocks");
        for number in [0, 1, 2999, 4321, 5999] {
            let (reads, read_bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let counted =
                Counted { bytes: bytes.clone(), reads: Arc::clone(&reads), read_bytes: Arc::clone(&read_bytes) };
            let reader = ArchiveReader::open(Box::new(counted)).unwrap();
            let entry = reader.find(format!("file-{number:05}").as_bytes()).unwrap().unwrap();
            let mut content = Vec::new();
            reader.content(&entry).unwrap().read_to_end(&mut content).unwrap();
            assert_eq!(content, noise(number, 700));
            let (reads, read_bytes) = (reads.load(Ordering::Relaxed), read_bytes.load(Ordering::Relaxed));
            assert!(reads <= 4, "{codec:?}: {reads} reads for file {number}");
            assert!(read_bytes < 600 << 10, "{codec:?}: {read_bytes} bytes for file {number}");
        }
    }
}
