//! What whoever watches is told: as the work goes on and not at the end of a long file, so that it can be slowed down and stopped.

use std::convert::Infallible;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::ops::ControlFlow;
use std::sync::Mutex;

use coord_archive::codec::Codec;
use coord_archive::digest::PIECE_BYTES;
use coord_archive::file::SealedFile;
use coord_archive::header::Level;
use coord_archive::pack::{PackOptions, Sink, pack};
use coord_archive::progress::{Advance, Progress};
use coord_archive::verify::{VerifyOptions, verify};

use crate::support::{Below, full_steps, header, noise};

/// The bytes of every step.
#[derive(Default)]
struct Watch(Mutex<Vec<(u64, u64)>>);

impl Progress for Watch {
    fn advance(&self, step: Advance<'_>) -> ControlFlow<()> {
        self.0.lock().unwrap().push((step.bytes, step.stored_bytes));
        ControlFlow::Continue(())
    }
}

impl Watch {
    /// Bytes in all, stored bytes in all, and the largest step.
    fn seen(&self) -> (u64, u64, u64) {
        let steps = self.0.lock().unwrap();
        let (bytes, stored) = (steps.iter().map(|step| step.0), steps.iter().map(|step| step.1));
        (bytes.clone().sum(), stored.sum(), bytes.max().unwrap())
    }
}

#[test]
fn a_long_file_is_told_of_piece_by_piece_with_and_without_holes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    for number in 0..50 {
        std::fs::write(root.join(format!("small-{number}")), noise(number, 1000)).unwrap();
    }
    std::fs::write(root.join("long"), noise(1, 9 << 20)).unwrap();
    let mut holes = std::fs::File::create(root.join("with-holes")).unwrap();
    for part in 0..3 {
        holes.seek(SeekFrom::Start(part * (16 << 20))).unwrap();
        holes.write_all(&noise(part, 5 << 20)).unwrap();
    }
    drop(holes);
    for threads in [1, 4] {
        let archive = folder.path().join(format!("{threads}.tar.zst"));
        let mut out = SealedFile::create(&archive).unwrap();
        let watch = Watch::default();
        let sink = Sink { out: &mut out, progress: &watch };
        let steps = full_steps(&root).into_iter().map(Ok::<_, Infallible>);
        let options = PackOptions { threads, ..PackOptions::new(Codec::Zstd) };
        let report = pack(steps, &Below(root.clone()), header(Level::Full), &options, sink).unwrap();
        out.seal().unwrap();
        let (bytes, stored, largest) = watch.seen();
        assert_eq!(bytes, report.bytes, "each byte once");
        assert!(stored > bytes && stored < report.footer.stored_bytes, "noise, and the frames of the content alone");
        assert!(largest <= 2 * PIECE_BYTES, "{largest} bytes at once");

        let watch = Watch::default();
        let options = VerifyOptions { threads, ..VerifyOptions::default() };
        assert!(verify(&archive, &options, &watch).unwrap().is_ok());
        let (bytes, _, largest) = watch.seen();
        assert_eq!(bytes, report.bytes, "each byte once");
        assert!(largest <= 2 * PIECE_BYTES, "{largest} bytes at once");
    }
}
