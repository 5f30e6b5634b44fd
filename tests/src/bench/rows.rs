//! The rows of the table: what is done, against whom, and what is required of us.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::goal::{Goal, Measure};

/// Ours as it is: hashing, index and fsync, what was written not read back.
pub const OURS: &str = "coord";
/// Ours with everything that was written read back, decompressed and checked before it says done.
pub const VERIFIED: &str = "coord, verified";
/// Ours for both corpora at once, where only bytes matter.
pub const STORED_A: &str = "coord, (a)";
/// See [`STORED_A`].
pub const STORED_B: &str = "coord, (b)";
/// Peers.
pub const TAR: &str = "tar, zstd -T0 -3";
/// See [`TAR`].
pub const TAR_1: &str = "tar | zstd -T2 -1";
/// See [`TAR`].
pub const PIGZ: &str = "tar | pigz -6";
/// See [`TAR`].
pub const ZSTD: &str = "zstd -T2 -3";
/// See [`TAR`].
pub const ZSTD_TEST: &str = "zstd -t";
/// See [`TAR`].
pub const FIND: &str = "find -printf";
/// See [`TAR`].
pub const RESTIC: &str = "restic";
/// See [`TAR`].
pub const RUSTIC: &str = "rustic";
/// See [`TAR`].
pub const TAR_A: &str = "tar, (a)";
/// See [`TAR`].
pub const TAR_B: &str = "tar, (b)";
/// Ours, by what it does, where memory is looked at.
pub const FULL: &str = "coord, full";
/// See [`FULL`].
pub const SCAN: &str = "coord, scan";
/// See [`FULL`].
pub const RESTORE: &str = "coord, restore";

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// Full of (a), zstd 3, against tar with zstd.
    FullZstd3,
    /// Full of (a), zstd 1, against tar with zstd.
    FullZstd1,
    /// Full of (a), default settings, against restic and rustic.
    FullDefault,
    /// Full of (a), gzip 6, against tar with pigz.
    FullGzip6,
    /// Full of (b), zstd 3, against tar with zstd.
    SmallZstd3,
    /// Full of (c), zstd 3, against zstd.
    LargeZstd3,
    /// A run over (a) that finds no change, against find and restic.
    NoChangeA,
    /// A run over (b) that finds no change, against find and restic.
    NoChangeB,
    /// Differential of (a), 1 % changed, against tar and restic.
    Differential,
    /// Restore of full and differential of (a) to the scratch folder, against tar, restic and rustic.
    Restore,
    /// The same to a journaled ext4 in a loop file.
    RestoreExt4,
    /// One small file out of (a), against restic.
    OneFile,
    /// Every frame and digest of (a), against zstd -t.
    Verify,
    /// Stored bytes of (a) and (b), against tar.
    Stored,
    /// Peak memory of full, scan and restore of (a).
    Memory,
}

impl Row {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What is done, for the table.
    #[must_use]
    pub fn work(self) -> &'static str {
        match self {
            Self::FullZstd3 => "full of (a), zstd 3",
            Self::FullZstd1 => "full of (a), zstd 1",
            Self::FullDefault => "full of (a), default settings",
            Self::FullGzip6 => "full of (a), gzip 6",
            Self::SmallZstd3 => "full of (b), zstd 3",
            Self::LargeZstd3 => "full of (c), zstd 3",
            Self::NoChangeA => "run over (a) that finds no change",
            Self::NoChangeB => "run over (b) that finds no change",
            Self::Differential => "differential of (a), 1 % changed",
            Self::Restore => "restore of (a), full and differential",
            Self::RestoreExt4 => "the same restore to journaled ext4",
            Self::OneFile => "one small file out of (a)",
            Self::Verify => "verify (a)",
            Self::Stored => "stored bytes, zstd 3",
            Self::Memory => "peak memory, (a)",
        }
    }

    /// What is required.
    #[must_use]
    pub fn goals(self) -> Vec<Goal> {
        match self {
            Self::FullZstd3 => vec![faster(OURS, TAR, 1.3, 1.6), floor(VERIFIED, TAR, 1.1)],
            Self::FullZstd1 => vec![faster(OURS, TAR_1, 1.6, 2.1), floor(VERIFIED, TAR_1, 1.3)],
            Self::FullDefault => vec![faster(VERIFIED, RESTIC, 2.8, 3.5), faster(VERIFIED, RUSTIC, 4.0, 5.0)],
            Self::FullGzip6 => vec![
                faster(VERIFIED, PIGZ, 2.3, 3.0),
                faster(OURS, PIGZ, 2.3, 3.0),
                Goal { measure: Measure::Larger, ours: OURS, peer: Some(PIGZ), required: 1.0, stretch: None },
            ],
            Self::SmallZstd3 => vec![faster(VERIFIED, TAR, 1.0, 1.3), faster(OURS, TAR, 1.0, 1.3)],
            Self::LargeZstd3 => vec![faster(VERIFIED, ZSTD, 1.1, 1.2), faster(OURS, ZSTD, 1.1, 1.2)],
            Self::NoChangeA | Self::NoChangeB => vec![faster(OURS, FIND, 1.8, 2.7), faster(OURS, RESTIC, 20.0, 40.0)],
            Self::Differential => vec![faster(VERIFIED, TAR, 1.3, 2.0), faster(VERIFIED, RESTIC, 8.0, 12.0)],
            Self::Restore | Self::RestoreExt4 => {
                vec![faster(OURS, TAR, 1.8, 2.5), faster(OURS, RESTIC, 2.0, 4.0), faster(OURS, RUSTIC, 2.0, 4.0)]
            }
            Self::OneFile => vec![
                Goal { measure: Measure::Milliseconds, ours: OURS, peer: None, required: 10.0, stretch: Some(3.0) },
                floor(OURS, RESTIC, 50.0),
            ],
            Self::Verify => vec![faster(OURS, ZSTD_TEST, 1.5, 1.75)],
            Self::Stored => vec![larger(STORED_A, TAR_A, 1.03, 1.01), larger(STORED_B, TAR_B, 1.18, 1.10)],
            Self::Memory => [FULL, SCAN, RESTORE].map(memory).to_vec(),
        }
    }
}

fn faster(ours: &'static str, peer: &'static str, required: f64, stretch: f64) -> Goal {
    Goal { measure: Measure::Faster, ours, peer: Some(peer), required, stretch: Some(stretch) }
}

fn floor(ours: &'static str, peer: &'static str, required: f64) -> Goal {
    Goal { measure: Measure::Faster, ours, peer: Some(peer), required, stretch: None }
}

fn larger(ours: &'static str, peer: &'static str, required: f64, stretch: f64) -> Goal {
    Goal { measure: Measure::Larger, ours, peer: Some(peer), required, stretch: Some(stretch) }
}

fn memory(ours: &'static str) -> Goal {
    Goal { measure: Measure::PeakMebibytes, ours, peer: None, required: 64.0, stretch: Some(32.0) }
}
