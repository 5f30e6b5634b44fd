//! Restore points and the chains they form: a full and the differentials that stand on it.
//!
//! Owns the rule of which archives a restore point needs: its own, or the one it names when nothing had changed, and the full
//! below that. Never more than one full and one differential.

use std::collections::BTreeMap;

use coord_shared::ids::{BackupId, JobId, Seq};
use coord_shared::level::Level;
use coord_shared::slug::PolicySlug;
use jiff::Timestamp;
use serde::Serialize;

/// What a successful backup run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its id.
    pub id: BackupId,
    /// The job whose restore point it is.
    pub job: JobId,
    /// That job's policy.
    pub policy: PolicySlug,
    /// How much it stored.
    pub level: Level,
    /// The full that a differential stands on; none for a full.
    pub base: Option<BackupId>,
    /// The backup whose archive it names because nothing had changed since; none when it has an archive of its own.
    pub same_as: Option<BackupId>,
    /// Its place among the job's backups.
    pub seq: Seq,
    /// The end of reading, by the corrected clock of the host.
    pub captured_at: Timestamp,
    /// Whether its own archive was found damaged or missing.
    pub damaged: bool,
    /// Paths that it protects, relative to the root and without a leading slash; the root is empty.
    pub sources: Vec<Vec<u8>>,
    /// Bytes of the sources.
    pub source_bytes: u64,
    /// Content that a differential stored, before compression; for a full, all of it.
    pub content_bytes: u64,
    /// Size of its own archive; 0 without one.
    pub stored_bytes: u64,
}

/// The archives that one restore point needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archives {
    /// The backup whose archive is the full.
    pub full: BackupId,
    /// The backup whose archive is the differential of that full, if one is needed.
    pub differential: Option<BackupId>,
}

/// Why a restore point cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// An archive that it needs is damaged.
    #[error("the archive of backup {0} is damaged")]
    Damaged(BackupId),
    /// An archive that it needs is not in the catalog.
    #[error("backup {0}, which it stands on, is not in the catalog")]
    Missing(BackupId),
}

/// The restore points of a host by id, as the rules of this floor look at them.
#[derive(Debug, Clone, Default)]
pub struct Points {
    by_id: BTreeMap<BackupId, Point>,
}

impl Points {
    /// The points given, of any number of jobs.
    pub fn new(points: impl IntoIterator<Item = Point>) -> Self {
        Self { by_id: points.into_iter().map(|point| (point.id, point)).collect() }
    }

    /// The point with that id.
    pub fn get(&self, id: BackupId) -> Option<&Point> {
        self.by_id.get(&id)
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Point> {
        self.by_id.values()
    }

    /// The archives that `point` needs, all of them undamaged.
    ///
    /// # Errors
    /// [`Unusable`] names the archive that is damaged or not there.
    pub fn archives(&self, point: &Point) -> Result<Archives, Unusable> {
        let holder = match point.same_as {
            None => point,
            Some(id) => self.get(id).ok_or(Unusable::Missing(id))?,
        };
        if holder.damaged {
            return Err(Unusable::Damaged(holder.id));
        }
        let full = match (holder.level, holder.base) {
            (Level::Full, _) => return Ok(Archives { full: holder.id, differential: None }),
            (Level::Differential, Some(id)) => self.get(id).ok_or(Unusable::Missing(id))?,
            (Level::Differential, None) => return Err(Unusable::Missing(holder.id)),
        };
        if full.damaged {
            return Err(Unusable::Damaged(full.id));
        }
        Ok(Archives { full: full.id, differential: Some(holder.id) })
    }

    /// The chain of a full, oldest differential first; `None` when there is no such full.
    pub fn chain(&self, full: BackupId) -> Option<Chain<'_>> {
        let full = self.get(full).filter(|point| point.level == Level::Full)?;
        let mut differentials: Vec<&Point> =
            self.iter().filter(|point| point.base == Some(full.id) && point.level == Level::Differential).collect();
        differentials.sort_by_key(|point| point.seq);
        Some(Chain { full, differentials })
    }
}

/// A full and the differentials that stand on it.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    /// The full.
    pub full: &'a Point,
    /// Its differentials, oldest first.
    pub differentials: Vec<&'a Point>,
}

/// How a chain has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Growth {
    /// Content of the newest differential that stored any, before compression.
    pub newest_bytes: u64,
    /// Content of the largest one.
    pub largest_bytes: u64,
    /// The newest against the full's source bytes, in percent, rounded down.
    pub percent: u64,
}

impl Chain<'_> {
    /// How the chain has grown. A restore point without an archive of its own is as large as the one it names, so it changes
    /// nothing.
    pub fn growth(&self) -> Growth {
        let own = self.differentials.iter().filter(|point| point.same_as.is_none());
        Growth::of(self.full.source_bytes, own.map(|point| point.content_bytes))
    }
}

impl Growth {
    /// That of a chain whose full has `full_bytes` of sources, and whose differentials stored these, oldest first.
    pub fn of(full_bytes: u64, differentials: impl Iterator<Item = u64>) -> Growth {
        let (newest_bytes, largest_bytes) =
            differentials.fold((0, 0), |(_, largest), bytes| (bytes, bytes.max(largest)));
        Growth { newest_bytes, largest_bytes, percent: percent(newest_bytes, full_bytes) }
    }
}

/// `part` of `whole` in percent, rounded down; more than nothing of nothing is 100.
pub fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return if part == 0 { 0 } else { 100 };
    }
    u64::try_from(u128::from(part) * 100 / u128::from(whole)).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn point(seq: i64, level: Level, base: Option<&Point>) -> Point {
        Point {
            id: BackupId::random(),
            job: JobId::from_uuid(uuid::Uuid::nil()),
            policy: PolicySlug::new("web").unwrap(),
            level,
            base: base.map(|base| base.id),
            same_as: None,
            seq: Seq(seq),
            captured_at: Timestamp::from_second(seq * 86_400).unwrap(),
            damaged: false,
            sources: vec![b"etc".to_vec()],
            source_bytes: 1000,
            content_bytes: 100,
            stored_bytes: 50,
        }
    }

    #[test]
    fn a_point_needs_its_full_and_at_most_one_differential() {
        let full = point(1, Level::Full, None);
        let first = point(2, Level::Differential, Some(&full));
        let second = point(3, Level::Differential, Some(&full));
        let same = Point { same_as: Some(second.id), ..point(4, Level::Differential, Some(&full)) };
        let same_as_full = Point { same_as: Some(full.id), ..point(5, Level::Differential, Some(&full)) };
        let points = Points::new([full.clone(), first.clone(), second.clone(), same.clone(), same_as_full.clone()]);
        let needs = |point: &Point| points.archives(point).unwrap();
        assert_eq!(needs(&full), Archives { full: full.id, differential: None });
        assert_eq!(needs(&second), Archives { full: full.id, differential: Some(second.id) });
        assert_eq!(needs(&same), needs(&second), "it names the archive of the backup it equals");
        assert_eq!(needs(&same_as_full), needs(&full));
    }

    #[test]
    fn a_damaged_full_takes_its_chain_with_it_and_a_damaged_differential_only_itself() {
        let full = point(1, Level::Full, None);
        let first = Point { damaged: true, ..point(2, Level::Differential, Some(&full)) };
        let same = Point { same_as: Some(first.id), ..point(3, Level::Differential, Some(&full)) };
        let second = point(4, Level::Differential, Some(&full));
        let points = Points::new([full.clone(), first.clone(), same.clone(), second.clone()]);
        assert_eq!(points.archives(&first), Err(Unusable::Damaged(first.id)));
        assert_eq!(points.archives(&same), Err(Unusable::Damaged(first.id)), "nor what names its archive");
        assert!(points.archives(&second).is_ok());
        let points = Points::new([Point { damaged: true, ..full.clone() }, second.clone()]);
        assert_eq!(points.archives(&second), Err(Unusable::Damaged(full.id)));
        let points = Points::new([second.clone()]);
        assert_eq!(points.archives(&second), Err(Unusable::Missing(full.id)));
    }

    #[test]
    fn growth_is_the_newest_differential_against_the_full() {
        let full = point(1, Level::Full, None);
        let large = Point { content_bytes: 700, ..point(2, Level::Differential, Some(&full)) };
        let newest = Point { content_bytes: 255, ..point(3, Level::Differential, Some(&full)) };
        let same = Point { same_as: Some(newest.id), content_bytes: 0, ..point(4, Level::Differential, Some(&full)) };
        let points = Points::new([same, newest, large, full.clone()]);
        let growth = points.chain(full.id).unwrap().growth();
        assert_eq!(growth, Growth { newest_bytes: 255, largest_bytes: 700, percent: 25 });
        assert!(points.chain(BackupId::random()).is_none());
        assert_eq!((percent(0, 0), percent(1, 0), percent(u64::MAX, 1)), (0, 100, u64::MAX));
    }
}
