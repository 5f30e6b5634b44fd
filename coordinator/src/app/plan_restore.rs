//! What a restore would do: which restore points answer, from which archives, how much. Nothing is touched.

use std::time::{Duration, Instant};

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::BackupId;
use coord_shared::slug::PolicySlug;
use coord_shared::wire::{optional_us, to_us};
use jiff::Timestamp;

use super::restore_points::RestorePoints;
use super::{App, names, restore_digest};
use crate::catalog::{Backup, CatalogError, Host, HostState, Searchable};
use crate::domain::restore_plan::{Part, Plan, PlanError, Wanted, distance, plan, shown};

/// Longest path, in bytes.
const MAX_PATH: usize = 64 << 10;
/// Most globs of one restore.
const MAX_GLOBS: usize = 1000;
/// Longest time for counting what a restore brings back. A huge tree is restored uncounted rather than late, or not at all.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);

/// A restore that is possible, as planned.
#[derive(Debug)]
pub struct PlannedRestore {
    /// The host whose backups are read.
    pub from: Host,
    /// The host that is written to.
    pub to: Host,
    /// The time asked for; none is the latest.
    pub at: Option<Timestamp>,
    /// What comes from where.
    pub plan: Plan,
    /// The rows behind it.
    pub points: RestorePoints,
}

/// What a restore would do.
///
/// # Errors
/// As [`of_request`].
pub async fn preview(app: &App, request: &api::RestoreRequest) -> Result<api::RestorePlan, Fault> {
    let planned = of_request(app, request).await?;
    encode(app, request, &planned).await
}

/// Plans what a request asks for.
///
/// # Errors
/// `not_found` for names; `invalid_argument` for paths, folders and globs that cannot be; `nothing_to_restore`,
/// `outside_every_policy` and `archive_damaged` with what there is instead.
pub async fn of_request(app: &App, request: &api::RestoreRequest) -> Result<PlannedRestore, Fault> {
    let from = names::host(app, &request.host).await?;
    let to = if request.to_host.is_empty() { from.clone() } else { names::host(app, &request.to_host).await? };
    if to.state == HostState::Revoked {
        return Err(Fault::new(ErrorCode::NotNow, format!("{} was revoked: nothing can be restored to it", to.name))
            .with_hint("--to names another host"));
    }
    check_folder(&request.to_folder)?;
    check_globs(request.include.iter().chain(&request.exclude))?;
    let at = instant(app, request.at.as_ref()).await?;
    let (plan, points) = planned(app, &from, &request.paths, &request.policy, at).await?;
    Ok(PlannedRestore { from, to, at, plan, points })
}

/// Plans for paths of a host at a time.
///
/// # Errors
/// As [`of_request`].
pub async fn planned(
    app: &App,
    host: &Host,
    paths: &[Vec<u8>],
    policy: &str,
    at: Option<Timestamp>,
) -> Result<(Plan, RestorePoints), Fault> {
    let points = RestorePoints::of_host(app, host.id).await?;
    let policy = match policy {
        "" => None,
        text => {
            let name = names::policy(app, text).await?.name;
            Some(PolicySlug::new(name).map_err(|error| Fault::new(ErrorCode::Internal, error.to_string()))?)
        }
    };
    let paths = paths.iter().map(|path| clean(path)).collect::<Result<Vec<_>, Fault>>()?;
    let wanted = Wanted { at, paths, policy };
    let plan = plan(&points.points, &wanted).map_err(|error| refusal(&host.name, &error))?;
    Ok((plan, points))
}

/// The instant that an operator's time means.
///
/// # Errors
/// `not_found` for a run that does not exist, `invalid_argument` for an instant that no calendar holds.
pub async fn instant(app: &App, at: Option<&api::At>) -> Result<Option<Timestamp>, Fault> {
    match at.and_then(|at| at.at.as_ref()) {
        None => Ok(None),
        Some(api::at::At::InstantUs(us)) => Timestamp::from_microsecond(*us)
            .map(Some)
            .map_err(|_| Fault::new(ErrorCode::InvalidArgument, "the time lies outside of every calendar")),
        Some(api::at::At::BeforeRun(text)) => {
            let run = names::run(app, text).await?;
            let began = run.started_at.unwrap_or(run.created_at);
            Ok(Some(began.saturating_sub(jiff::SignedDuration::from_micros(1)).unwrap_or(began)))
        }
    }
}

/// A path relative to the root, without slashes at its ends.
///
/// # Errors
/// `invalid_argument` for what climbs, or cannot be a path.
pub fn clean(path: &[u8]) -> Result<Vec<u8>, Fault> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    if path.len() > MAX_PATH || path.contains(&0) || parts.iter().any(|part| *part == b"." || *part == b"..") {
        return Err(Fault::new(ErrorCode::InvalidArgument, format!("'{}' is no path of a backup", shown(path)))
            .with_hint("write the whole path, without '.' and '..'"));
    }
    Ok(parts.join(&b'/'))
}

fn check_folder(folder: &[u8]) -> Result<(), Fault> {
    if folder.is_empty() {
        return Ok(());
    }
    clean(folder)?;
    if folder.first() != Some(&b'/') {
        return Err(Fault::new(
            ErrorCode::InvalidArgument,
            "the folder of a restore is an absolute path of the target host",
        )
        .with_hint("--to-dir /srv/restored"));
    }
    Ok(())
}

fn check_globs<'a>(globs: impl Iterator<Item = &'a String>) -> Result<(), Fault> {
    for (number, text) in globs.enumerate() {
        if number >= MAX_GLOBS {
            return Err(Fault::new(ErrorCode::LimitExceeded, format!("a restore takes at most {MAX_GLOBS} globs")));
        }
        let glob = text.trim_start_matches('!');
        if glob.is_empty() || globset::Glob::new(glob).is_err() {
            return Err(Fault::new(ErrorCode::InvalidArgument, format!("'{}' is no glob", names::shown(text)))
                .with_hint("such as '*.conf' or 'etc/nginx/**'"));
        }
    }
    Ok(())
}

fn refusal(host: &str, error: &PlanError) -> Fault {
    let fault = |code: ErrorCode| Fault::new(code, format!("{host}: {error}"));
    match error {
        PlanError::NoBackup { .. } => fault(ErrorCode::NothingToRestore)
            .with_hint(format!("coordctl job list --host {host} shows what protects it and what is due")),
        PlanError::NothingBefore { first, .. } => {
            fault(ErrorCode::NothingToRestore).with_hint(format!("--at {first} is the first restore point"))
        }
        PlanError::Outside { .. } => {
            fault(ErrorCode::OutsideEveryPolicy).with_hint("coordctl policy show says what a policy protects")
        }
        PlanError::Damaged { .. } => {
            fault(ErrorCode::ArchiveDamaged).with_hint(format!("coordctl backup list --host {host} shows the others"))
        }
        PlanError::TooManyPaths { .. } => fault(ErrorCode::LimitExceeded),
    }
}

/// The restore points of a plan, as operators see them.
///
/// # Errors
/// `not_found` when a row is missing, which only a defect can cause.
pub fn points(plan: &Plan, rows: &RestorePoints, at: Option<Timestamp>) -> Result<Vec<api::RestorePoint>, Fault> {
    plan.parts.iter().map(|part| point(part, rows, at)).collect()
}

fn point(part: &Part, rows: &RestorePoints, at: Option<Timestamp>) -> Result<api::RestorePoint, Fault> {
    let row = rows.row(part.backup)?;
    let stored = |id: BackupId| rows.row(id).map(|row| row.stored_bytes);
    let differential = part.differential.map(stored).transpose()?.unwrap_or(0);
    Ok(api::RestorePoint {
        backup_id: part.backup.to_string(),
        policy: part.policy.to_string(),
        level: row.level.to_api().into(),
        captured_at_us: to_us(part.captured_at),
        age_s: distance(part.captured_at, at).as_secs(),
        full_backup_id: part.full.to_string(),
        stored_bytes: stored(part.full)?.saturating_add(differential),
    })
}

/// A planned restore as the operator sees it, with figures where the catalog has them.
///
/// # Errors
/// Those of the catalog.
pub async fn encode(
    app: &App,
    request: &api::RestoreRequest,
    planned: &PlannedRestore,
) -> Result<api::RestorePlan, Fault> {
    let PlannedRestore { from, to, at, plan, points: rows } = planned;
    let mut notes = plan.notes.clone();
    let (mut files, mut bytes, mut at_least) = (0u64, 0u64, false);
    let until = Instant::now() + COUNTED_WITHIN;
    for part in &plan.parts {
        let row = rows.row(part.backup)?;
        if row.searchable != Searchable::Searchable {
            notes.push(format!(
                "the entries of backup {} are not in the catalog yet: how many files there are is not known",
                row.id.short()
            ));
            at_least = true;
            continue;
        }
        match totals(app, row, part, until).await? {
            Some((part_files, part_bytes)) => {
                files = files.saturating_add(part_files);
                bytes = bytes.saturating_add(part_bytes);
            }
            None => {
                let id = row.id.short();
                notes.push(format!(
                    "counting the files of backup {id} would take too long: how many there are is not known"
                ));
                at_least = true;
            }
        }
        notes.extend(unreadable(row));
    }
    if !to.connected {
        notes.push(format!("{} is not connected: the restore begins when it is", to.name));
    }
    if to.id != from.id {
        notes.push(format!("{} must be able to read the archive folder of {} under the same path", to.name, from.name));
    }
    if !request.include.is_empty() || !request.exclude.is_empty() {
        notes.push("the numbers of files and bytes do not take --include and --exclude into account".to_owned());
    }
    let archives: std::collections::BTreeSet<BackupId> =
        plan.parts.iter().flat_map(|part| std::iter::once(part.full).chain(part.differential)).collect();
    Ok(api::RestorePlan {
        points: points(plan, rows, *at)?,
        to_host: to.name.clone(),
        to_folder: request.to_folder.clone(),
        files,
        bytes,
        archives: u64::try_from(archives.len()).unwrap_or(u64::MAX),
        at_us: optional_us(*at),
        notes,
        at_least,
        digest: restore_digest::digest(request, planned)?,
    })
}

fn unreadable(row: &Backup) -> Option<String> {
    (row.unreadable > 0).then(|| {
        format!(
            "{} entries could not be read when backup {} was taken; the restore names them",
            row.unreadable,
            row.id.short()
        )
    })
}

/// Files and bytes of a part at its restore point; `None` when they are not counted by then.
async fn totals(app: &App, row: &Backup, part: &Part, until: Instant) -> Result<Option<(u64, u64)>, Fault> {
    let (mut files, mut bytes) = (0u64, 0u64);
    let paths = part.paths.iter().map(|path| (path, true)).chain(part.except.iter().map(|path| (path, false)));
    for (path, wanted) in paths {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let totals = match app.catalog.subtree_totals(row.job, row.seq, path, left).await {
            Ok(totals) => totals,
            Err(CatalogError::TookTooLong(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let add = if wanted { u64::saturating_add } else { u64::saturating_sub };
        (files, bytes) = (add(files, totals.files), add(bytes, totals.bytes));
    }
    Ok(Some((files, bytes)))
}
