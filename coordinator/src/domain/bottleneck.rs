//! What a backup's time went into, and what limited it.
//!
//! Phases are wall time. Packing is several kinds of work on several threads at once: its wall time is divided among them as
//! the threads' time was. Waiting for another thread's frame is nobody's work and is left out of that division.

use serde::{Deserialize, Serialize};

/// Microseconds of all packing threads together, by what they were doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    /// How many threads packed.
    pub threads: u32,
    /// Waiting for the scan to name the next file.
    pub scan_us: u64,
    /// Opening and reading files.
    pub read_us: u64,
    /// Hashing what was read.
    pub hash_us: u64,
    /// Compressing it.
    pub compress_us: u64,
    /// Writing frames, index and recipe.
    pub write_us: u64,
    /// Waiting for another thread's frame, which has to be written before.
    pub wait_us: u64,
}

/// The phases of one backup, in milliseconds of wall time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Looking at the sources before anything is packed.
    pub scan_ms: u64,
    /// Packing.
    pub pack_ms: u64,
    /// Making the archive durable.
    pub seal_ms: u64,
    /// Reading it back.
    pub verify_ms: u64,
    /// Making its entries searchable, after the run.
    pub catalog_ms: u64,
    /// How the threads of the packing spent their time; `None` when the agent did not say.
    pub effort: Option<Effort>,
}

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Names and attributes of the sources.
    Scan,
    /// Content out of the sources.
    Read,
    /// Digests.
    Hash,
    /// zstd or gzip.
    Compress,
    /// The archive onto its disk.
    Write,
    /// The archive back from its disk.
    Verify,
    /// Entries into Postgres.
    Catalog,
}

impl Stage {
    /// The word on wire and screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Scan => "scan",
            Stage::Read => "read",
            Stage::Hash => "hash",
            Stage::Compress => "compress",
            Stage::Write => "write",
            Stage::Verify => "verify",
            Stage::Catalog => "catalog",
        }
    }
}

/// Wall time of one kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Which.
    pub stage: Stage,
    /// Milliseconds.
    pub ms: u64,
}

/// Where the time went, in the order of the work; kinds of work that took no time are left out. Empty when the agent did not
/// say how packing spent its time.
pub fn spent(phases: &Phases) -> Vec<Spent> {
    let effort = match phases.effort {
        Some(effort) => effort,
        None if phases.pack_ms == 0 => Effort::default(),
        None => return Vec::new(),
    };
    let Effort { scan_us, read_us, hash_us, compress_us, write_us, .. } = effort;
    // Wider than its parts: agents send any figures they like, and a sum that stops at the largest number would make the
    // shares of it more than the whole.
    let worked: u128 = [scan_us, read_us, hash_us, compress_us, write_us].into_iter().map(u128::from).sum();
    let part = |us: u64| -> u64 {
        let share = u128::from(phases.pack_ms) * u128::from(us) / worked.max(1);
        // At most pack_ms.
        u64::try_from(share).unwrap_or(phases.pack_ms)
    };
    let all = [
        (Stage::Scan, phases.scan_ms + part(scan_us)),
        (Stage::Read, part(read_us)),
        (Stage::Hash, part(hash_us)),
        (Stage::Compress, part(compress_us)),
        (Stage::Write, part(write_us) + phases.seal_ms),
        (Stage::Verify, phases.verify_ms),
        (Stage::Catalog, phases.catalog_ms),
    ];
    all.into_iter().filter(|(_, ms)| *ms > 0).map(|(stage, ms)| Spent { stage, ms }).collect()
}

/// What took longest; of equals the earlier.
pub fn limited_by(spent: &[Spent]) -> Option<Stage> {
    let longest = spent.iter().map(|spent| spent.ms).max()?;
    spent.iter().find(|spent| spent.ms == longest).map(|spent| spent.stage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn phases() -> Phases {
        let effort = Effort {
            threads: 2,
            scan_us: 100_000,
            read_us: 200_000,
            hash_us: 100_000,
            compress_us: 500_000,
            write_us: 100_000,
            wait_us: 9_000_000,
        };
        Phases { scan_ms: 10, pack_ms: 1000, seal_ms: 30, verify_ms: 200, catalog_ms: 0, effort: Some(effort) }
    }

    fn at(spent: &[Spent], stage: Stage) -> u64 {
        spent.iter().find(|spent| spent.stage == stage).map_or(0, |spent| spent.ms)
    }

    #[test]
    fn packing_is_divided_as_its_threads_worked_and_waiting_for_each_other_is_no_work() {
        let spent = spent(&phases());
        assert_eq!(at(&spent, Stage::Compress), 500);
        assert_eq!(at(&spent, Stage::Scan), 110, "the scan goes on while it is packed");
        assert_eq!(at(&spent, Stage::Write), 130, "a seal is writing too");
        assert_eq!(limited_by(&spent), Some(Stage::Compress));
        assert!(spent.iter().all(|spent| spent.stage != Stage::Catalog), "it took no time yet");
    }

    #[test]
    fn a_slow_catalog_and_a_slow_disk_are_named() {
        let late = Phases { catalog_ms: 5000, ..phases() };
        assert_eq!(limited_by(&spent(&late)), Some(Stage::Catalog));
        let slow = Phases { seal_ms: 4000, ..phases() };
        assert_eq!(limited_by(&spent(&slow)), Some(Stage::Write));
    }

    #[test]
    fn a_run_that_found_no_change_was_limited_by_its_scan_and_an_older_agent_says_nothing() {
        let unchanged = Phases { scan_ms: 40, ..Phases::default() };
        assert_eq!(limited_by(&spent(&unchanged)), Some(Stage::Scan));
        assert!(spent(&Phases { effort: None, ..phases() }).is_empty());
        assert_eq!(limited_by(&[]), None);
    }

    proptest! {
        #[test]
        fn no_time_is_made_up(us in prop::array::uniform5(any::<u64>()), ms in prop::array::uniform3(0..u64::from(u32::MAX))) {
            let [scan_us, read_us, hash_us, compress_us, write_us] = us;
            let effort = Effort { threads: 1, scan_us, read_us, hash_us, compress_us, write_us, wait_us: 0 };
            let phases =
                Phases { scan_ms: ms[0], pack_ms: ms[1], seal_ms: ms[2], effort: Some(effort), ..Phases::default() };
            let total: u128 = spent(&phases).iter().map(|spent| u128::from(spent.ms)).sum();
            prop_assert!(total <= ms.iter().map(|ms| u128::from(*ms)).sum::<u128>());
        }
    }
}
