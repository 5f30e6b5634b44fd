//! What brings a host, or some of its paths, back to a time.
//!
//! At T a job's point is the highest `seq` with captured_at <= T; where an archive that it needs is damaged, the point before it
//! stands in, and the plan says so. Between jobs the later captured_at wins, path by path: a path belongs to the newest point
//! whose sources cover it, and to no other, so the parts of a plan never touch the same path. Owns the invariant that a part
//! reads one full and at most one differential of that same full.
//!
//! Not here: where the archives are, and what the target holds.

use std::collections::{BTreeMap, BTreeSet};

use coord_archive::entry::is_at_or_below;
use coord_shared::ids::{BackupId, JobId};
use coord_shared::slug::PolicySlug;
use jiff::{SignedDuration, Timestamp};

use super::chain::{Point, Points, Unusable};

/// Most paths that one restore may name.
pub const MAX_PATHS: usize = 1000;

/// What is wanted back.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The time; none means the latest.
    pub at: Option<Timestamp>,
    /// Paths relative to the root, without a leading or trailing slash; none, or the empty path, means the whole host.
    pub paths: Vec<Vec<u8>>,
    /// Only from this policy's backups.
    pub policy: Option<PolicySlug>,
}

/// How it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each job that gives something, newest first.
    pub parts: Vec<Part>,
    /// What an operator should know of the choice, in sentences.
    pub notes: Vec<String>,
}

/// What one job gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The restore point.
    pub backup: BackupId,
    /// Its job.
    pub job: JobId,
    /// Its policy.
    pub policy: PolicySlug,
    /// Its time.
    pub captured_at: Timestamp,
    /// The backup whose archive is the full.
    pub full: BackupId,
    /// The backup whose archive is the differential of that full.
    pub differential: Option<BackupId>,
    /// What is restored from it: these paths and everything below, less `except`. None lies below another.
    pub paths: Vec<Vec<u8>>,
    /// Subtrees of `paths` that belong to another part.
    pub except: Vec<Vec<u8>>,
}

/// Why there is nothing to restore from. The target is untouched in each case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No backup at all.
    #[error("{} has no backup yet", match .policy { Some(policy) => format!("policy {policy} on this host"), None => "this host".to_owned() })]
    NoBackup {
        /// The policy asked for, if one was.
        policy: Option<PolicySlug>,
    },
    /// Every restore point is later.
    #[error("{path} has no restore point at or before {at}: the first is of {first} (policy {policy})")]
    NothingBefore {
        /// The path, as text.
        path: String,
        /// The time asked for.
        at: Timestamp,
        /// The first restore point.
        first: Timestamp,
        /// Its policy.
        policy: PolicySlug,
    },
    /// No policy protects the path.
    #[error("{path} is outside of every policy of this host: protected {}", .protected.join(", "))]
    Outside {
        /// The path, as text.
        path: String,
        /// What is protected, with the policy's name in brackets.
        protected: Vec<String>,
    },
    /// There are restore points, and each needs an archive that is damaged.
    #[error(
        "every restore point of {path} at or before the time is damaged; the newest was of {newest} (policy {policy}): {why}"
    )]
    Damaged {
        /// The path, as text.
        path: String,
        /// The newest of them.
        newest: Timestamp,
        /// Its policy.
        policy: PolicySlug,
        /// What is the matter with it.
        why: Unusable,
    },
    /// More paths than a restore may name.
    #[error("{given} paths are more than the {MAX_PATHS} that one restore takes: name a folder above them")]
    TooManyPaths {
        /// How many were given.
        given: usize,
    },
}

/// What one job has to offer at the time.
enum Offer<'a> {
    Usable { point: &'a Point, full: BackupId, differential: Option<BackupId> },
    Damaged { newest: &'a Point, why: Unusable },
    Later { first: &'a Point },
}

/// Plans a restore from the restore points of one host.
///
/// # Errors
/// [`PlanError`] says why there is nothing to restore from.
pub fn plan(points: &Points, wanted: &Wanted) -> Result<Plan, PlanError> {
    if wanted.paths.len() > MAX_PATHS {
        return Err(PlanError::TooManyPaths { given: wanted.paths.len() });
    }
    let mut notes = Vec::new();
    let offers = offers(points, wanted, &mut notes);
    if offers.is_empty() {
        return Err(PlanError::NoBackup { policy: wanted.policy.clone() });
    }
    let mut usable: Vec<Part> = offers.iter().filter_map(part).collect();
    usable.sort_by(|a, b| b.captured_at.cmp(&a.captured_at).then_with(|| a.policy.cmp(&b.policy)));
    for path in outermost(&wanted.paths) {
        let mut given = false;
        for part in &mut usable {
            let sources = points.get(part.backup).map_or(&[][..], |point| &point.sources);
            let regions = regions(&path, sources);
            given |= !regions.is_empty();
            part.paths.extend(regions);
        }
        if !given {
            return Err(nothing_for(&path, points, &offers, wanted));
        }
    }
    let parts = disjoint(usable, &mut notes);
    for offer in &offers {
        note_on_offer(offer, wanted, &mut notes);
    }
    Ok(Plan { parts, notes })
}

fn part(offer: &Offer<'_>) -> Option<Part> {
    match offer {
        Offer::Usable { point, full, differential } => Some(Part {
            backup: point.id,
            job: point.job,
            policy: point.policy.clone(),
            captured_at: point.captured_at,
            full: *full,
            differential: *differential,
            paths: Vec::new(),
            except: Vec::new(),
        }),
        Offer::Damaged { .. } | Offer::Later { .. } => None,
    }
}

fn offers<'a>(points: &'a Points, wanted: &Wanted, notes: &mut Vec<String>) -> Vec<Offer<'a>> {
    let mut jobs: BTreeMap<JobId, Vec<&Point>> = BTreeMap::new();
    for point in points.iter().filter(|point| wanted.policy.as_ref().is_none_or(|policy| *policy == point.policy)) {
        jobs.entry(point.job).or_default().push(point);
    }
    let mut offers = Vec::new();
    for mut of_job in jobs.into_values() {
        of_job.sort_by_key(|point| std::cmp::Reverse(point.seq));
        offers.extend(offer(points, &of_job, wanted.at, notes));
    }
    offers
}

/// The offer of a job whose points come newest first.
fn offer<'a>(
    points: &Points,
    of_job: &[&'a Point],
    at: Option<Timestamp>,
    notes: &mut Vec<String>,
) -> Option<Offer<'a>> {
    let mut damaged: Option<(&Point, Unusable)> = None;
    for point in of_job.iter().filter(|point| at.is_none_or(|at| point.captured_at <= at)) {
        match points.archives(point) {
            Ok(archives) => {
                if let Some((newer, why)) = damaged {
                    notes.push(format!(
                        "policy {}: the restore point of {} cannot be used ({why}); the one of {} stands in",
                        point.policy, newer.captured_at, point.captured_at
                    ));
                }
                return Some(Offer::Usable { point, full: archives.full, differential: archives.differential });
            }
            Err(why) => damaged = damaged.or(Some((point, why))),
        }
    }
    if let Some((newest, why)) = damaged {
        return Some(Offer::Damaged { newest, why });
    }
    of_job.iter().min_by_key(|point| point.captured_at).map(|first| Offer::Later { first })
}

/// The paths without those that lie below another; the whole host when there are none.
fn outermost(paths: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if paths.is_empty() {
        return vec![Vec::new()];
    }
    let unique: BTreeSet<&Vec<u8>> = paths.iter().collect();
    unique
        .iter()
        .filter(|path| !unique.iter().any(|outer| outer != *path && is_at_or_below(path, outer)))
        .map(|path| (*path).clone())
        .collect()
}

/// What of `path` a backup of `sources` covers: the path itself, or the sources below it.
fn regions(path: &[u8], sources: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if sources.iter().any(|source| is_at_or_below(path, source)) {
        return vec![path.to_vec()];
    }
    sources.iter().filter(|source| is_at_or_below(source, path)).cloned().collect()
}

/// Takes from each part what a newer one covers. The parts come newest first.
fn disjoint(parts: Vec<Part>, notes: &mut Vec<String>) -> Vec<Part> {
    let mut taken: Vec<(Vec<u8>, PolicySlug)> = Vec::new();
    let mut kept = Vec::new();
    for mut part in parts {
        let covered: Vec<Vec<u8>> = std::mem::take(&mut part.paths);
        let mut winners = BTreeSet::new();
        for path in &covered {
            if let Some((_, policy)) = taken.iter().find(|(newer, _)| is_at_or_below(path, newer)) {
                winners.insert(policy.clone());
                continue;
            }
            for (inner, policy) in taken.iter().filter(|(newer, _)| is_at_or_below(newer, path)) {
                winners.insert(policy.clone());
                part.except.push(inner.clone());
            }
            part.paths.push(path.clone());
        }
        for winner in winners {
            notes.push(format!(
                "policies {winner} and {} protect the same path: the newer backup, of {winner}, is used there; --policy {} chooses the other",
                part.policy, part.policy
            ));
        }
        part.paths.sort();
        part.except = if part.except.is_empty() { Vec::new() } else { outermost(&part.except) };
        taken.extend(covered.into_iter().map(|path| (path, part.policy.clone())));
        if !part.paths.is_empty() {
            kept.push(part);
        }
    }
    kept
}

fn note_on_offer(offer: &Offer<'_>, wanted: &Wanted, notes: &mut Vec<String>) {
    // Of named paths, only the policies that cover them were asked.
    let whole_host = wanted.paths.is_empty() || wanted.paths.iter().any(Vec::is_empty);
    match offer {
        Offer::Usable { .. } => {}
        Offer::Damaged { newest, why } if whole_host => {
            notes.push(format!(
                "policy {} gives nothing: no restore point at or before the time can be used ({why})",
                newest.policy
            ));
        }
        Offer::Later { first } if whole_host => {
            notes.push(format!(
                "policy {} gives nothing: its first restore point is of {}",
                first.policy, first.captured_at
            ));
        }
        Offer::Damaged { .. } | Offer::Later { .. } => {}
    }
}

/// Why no usable point covers `path`.
fn nothing_for(path: &[u8], points: &Points, offers: &[Offer<'_>], wanted: &Wanted) -> PlanError {
    let shown = shown(path);
    let covers = |point: &Point| !regions(path, &point.sources).is_empty();
    for offer in offers {
        match offer {
            Offer::Damaged { newest, why } if covers(newest) => {
                return PlanError::Damaged {
                    path: shown,
                    newest: newest.captured_at,
                    policy: newest.policy.clone(),
                    why: *why,
                };
            }
            Offer::Usable { .. } | Offer::Damaged { .. } | Offer::Later { .. } => {}
        }
    }
    let asked = |point: &&Point| wanted.policy.as_ref().is_none_or(|policy| *policy == point.policy);
    let first = points.iter().filter(asked).filter(|point| covers(point)).min_by_key(|point| point.captured_at);
    match (first, wanted.at) {
        (Some(first), Some(at)) if first.captured_at > at => {
            PlanError::NothingBefore { path: shown, at, first: first.captured_at, policy: first.policy.clone() }
        }
        (Some(_) | None, _) => PlanError::Outside { path: shown, protected: protected(points, wanted) },
    }
}

/// What is protected, each with its policy: of every policy the sources of its newest point.
fn protected(points: &Points, wanted: &Wanted) -> Vec<String> {
    let mut newest: BTreeMap<&PolicySlug, &Point> = BTreeMap::new();
    for point in points.iter().filter(|point| wanted.policy.as_ref().is_none_or(|policy| *policy == point.policy)) {
        let held = newest.entry(&point.policy).or_insert(point);
        if held.captured_at < point.captured_at {
            *held = point;
        }
    }
    newest
        .iter()
        .flat_map(|(policy, point)| point.sources.iter().map(move |source| format!("{} ({policy})", shown(source))))
        .collect()
}

/// A path as people read it: absolute, with everything that is not plain text escaped.
pub fn shown(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) => format!("/{}", text.escape_debug()),
        Err(_) => format!("/{}", path.escape_ascii()),
    }
}

/// The distance from a restore point to the time asked for; zero for the latest.
pub fn distance(point: Timestamp, at: Option<Timestamp>) -> SignedDuration {
    at.map_or(SignedDuration::ZERO, |at| at.duration_since(point))
}

#[cfg(test)]
mod tests;
