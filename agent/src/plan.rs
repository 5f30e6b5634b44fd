//! The plan that the coordinator gave for the time this host may be cut off, in a file of its own.
//!
//! Owns the invariant that the file holds one plan whole, the newest that was taken, or none. A file that cannot be read, or is damaged, is no
//! plan: this host then begins nothing by itself, and says so. Not here: what of it begins, and when (the engine).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use coord_shared::api;
use coord_shared::durable;
use prost::Message as _;

const HEAD: &[u8; 8] = b"coordpl1";
/// Largest file that is read, in bytes. Coordinators send plans of at most 1 MiB of jobs and runs.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is not what was written, or of a version that this program does not know.
    #[error("{} is damaged, or no plan that this version reads: it is replaced at the next session", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
    },
}

/// A plan and what was known when it came.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Kept {
    /// As it was sent.
    #[prost(message, optional, tag = "1")]
    pub plan: Option<api::Plan>,
    /// Microseconds to add to this host's clock, as last measured before it was stored.
    #[prost(int64, tag = "2")]
    pub clock_offset_us: i64,
}

/// The file, and what is in it.
#[derive(Debug)]
pub struct PlanFile {
    path: PathBuf,
    kept: Option<Kept>,
}

impl PlanFile {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// It is there and does not give a plan.
    pub fn read(path: &Path) -> Result<Option<Kept>, PlanError> {
        let failed = |source| PlanError::Io { what: "read", path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        decode(&bytes).map(Some).ok_or_else(|| PlanError::Unreadable { path: path.to_owned() })
    }

    /// The file at `path` with what is in it. One that gives no plan is said, and is as good as none.
    pub fn open(path: PathBuf) -> PlanFile {
        let kept = PlanFile::read(&path).unwrap_or_else(|error| {
            tracing::warn!(error = %crate::chain::chain(&error), "there is no plan: while this host is cut off it begins nothing by itself");
            None
        });
        PlanFile { path, kept }
    }

    /// The plan, if there is one.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// Puts a plan in the place of the one before, durably.
    ///
    /// # Errors
    /// The file cannot be written; the plan counts all the same until this process ends.
    pub fn put(&mut self, plan: api::Plan, clock_offset_us: i64) -> Result<(), PlanError> {
        let kept = Kept { plan: Some(plan), clock_offset_us };
        let body = kept.encode_to_vec();
        let bytes = [HEAD.as_slice(), &crc32fast::hash(&body).to_le_bytes(), &body].concat();
        self.kept = Some(kept);
        durable::write(&self.path, &bytes, durable::SECRET_MODE).map_err(|source| PlanError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (crc, body) = bytes.strip_prefix(HEAD)?.split_first_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    Kept::decode(body).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_plan_survives_a_restart_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        assert_eq!(PlanFile::read(&path).unwrap(), None);
        let mut file = PlanFile::open(path.clone());
        for valid_until_us in [7, 8] {
            file.put(api::Plan { valid_until_us, ..Default::default() }, -3).unwrap();
        }
        let kept = PlanFile::open(path.clone()).kept().cloned().unwrap();
        assert_eq!((kept.plan.unwrap().valid_until_us, kept.clock_offset_us), (8, -3));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert!(matches!(PlanFile::read(&path), Err(PlanError::Unreadable { .. })), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(PlanFile::read(&path), Err(PlanError::Unreadable { .. })), "cut at {at}");
        }
        assert_eq!(PlanFile::open(path).kept(), None);
    }
}
