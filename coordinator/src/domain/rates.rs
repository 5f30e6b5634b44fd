//! How fast a job's backups and restores have been, and how long the next ones may be expected to take.
//!
//! Every prediction is a measured pace times a known size: nothing measured, no prediction. Sums are divided, not paces averaged,
//! so that a small run with much overhead counts as little as it did.

use coord_shared::level::Level;
use serde::{Deserialize, Serialize};

/// Something done with bytes, and the time it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Bytes of content, before compression.
    pub bytes: u64,
    /// Milliseconds of wall time.
    pub ms: u64,
}

impl Work {
    /// Both together.
    pub const fn and(self, other: Work) -> Work {
        Work { bytes: self.bytes.saturating_add(other.bytes), ms: self.ms.saturating_add(other.ms) }
    }

    /// Milliseconds for `bytes` at this pace, rounded up; `None` when nothing was measured.
    pub fn time_for(self, bytes: u64) -> Option<u64> {
        if bytes == 0 {
            return Some(0);
        }
        if self.bytes == 0 {
            return None;
        }
        // What took less than the clock shows took something.
        let ms = u128::from(bytes) * u128::from(self.ms.max(1));
        Some(u64::try_from(ms.div_ceil(u128::from(self.bytes))).unwrap_or(u64::MAX))
    }
}

/// What a job's past runs have measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Looking at the sources, in milliseconds: the mean of the runs.
    pub scan_ms: Option<u64>,
    /// Packing, sealing and reading back fulls.
    pub full: Work,
    /// The same of differentials, which may be compressed in another way.
    pub differential: Work,
    /// Reading back archives of either level.
    pub verify: Work,
    /// Restores onto the host that wrote anything.
    pub restore: Work,
}

/// What a prediction of a restore's time rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Restores onto this host.
    Restores,
    /// There were none yet. A restore is taken to be half as fast as reading back the job's archives: it reads and checks as
    /// much, and writes besides.
    Verifications,
}

impl Basis {
    /// Every basis.
    pub const ALL: [Basis; 2] = [Basis::Restores, Basis::Verifications];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Basis::Restores => "restores",
            Basis::Verifications => "verifications",
        }
    }
}

/// The time that a restore is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTime {
    /// Milliseconds.
    pub ms: u64,
    /// What this rests on.
    pub basis: Basis,
}

impl Rates {
    /// Milliseconds that a backup of `level` is expected to take which stores `bytes` of content. A level that was never taken
    /// goes by the pace of the other.
    pub fn backup_ms(&self, level: Level, bytes: u64) -> Option<u64> {
        let (own, other) = match level {
            Level::Full => (self.full, self.differential),
            Level::Differential => (self.differential, self.full),
        };
        let storing = own.time_for(bytes).or_else(|| other.time_for(bytes))?;
        Some(self.scan_ms?.saturating_add(storing))
    }

    /// The time that a restore is expected to take which reads `bytes` of content: those of the full and of its differential.
    /// Content of the full that the differential replaces counts too, so this is rather too long than too short.
    pub fn restore(&self, bytes: u64) -> Option<RestoreTime> {
        let by_restores = self.restore.time_for(bytes).map(|ms| RestoreTime { ms, basis: Basis::Restores });
        let half = |ms: u64| RestoreTime { ms: ms.saturating_mul(2), basis: Basis::Verifications };
        by_restores.or_else(|| self.verify.time_for(bytes).map(half))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(bytes: u64, ms: u64) -> Work {
        Work { bytes, ms }
    }

    #[test]
    fn a_time_is_a_size_at_a_measured_pace_and_nothing_without_one() {
        assert_eq!(work(1000, 10).time_for(5000), Some(50));
        assert_eq!(work(1000, 10).time_for(101), Some(2), "rounded up");
        assert_eq!(work(1000, 0).time_for(1000), Some(1), "never in no time at all");
        assert_eq!(Work::default().time_for(1), None);
        assert_eq!(Work::default().time_for(0), Some(0));
        assert_eq!(work(1, u64::MAX).time_for(u64::MAX), Some(u64::MAX));
    }

    #[test]
    fn a_backup_takes_its_scan_and_the_pace_of_its_level_or_else_of_the_other() {
        let rates = Rates { scan_ms: Some(7), full: work(100, 10), ..Rates::default() };
        assert_eq!(rates.backup_ms(Level::Full, 1000), Some(107));
        assert_eq!(rates.backup_ms(Level::Differential, 10), Some(8), "no differential was taken yet");
        let rates = Rates { differential: work(100, 1), ..rates };
        assert_eq!(rates.backup_ms(Level::Differential, 1000), Some(17));
        assert_eq!(Rates::default().backup_ms(Level::Full, 1000), None);
    }

    #[test]
    fn a_restore_goes_by_restores_and_before_the_first_by_half_the_pace_of_reading_back() {
        let rates = Rates { verify: work(100, 1), ..Rates::default() };
        assert_eq!(rates.restore(1000), Some(RestoreTime { ms: 20, basis: Basis::Verifications }));
        let rates = Rates { restore: work(100, 5), ..rates };
        assert_eq!(rates.restore(1000), Some(RestoreTime { ms: 50, basis: Basis::Restores }));
        assert_eq!(Rates::default().restore(1000), None);
    }
}
