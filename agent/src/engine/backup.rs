//! A backup run: scan, let the coordinator confirm the level, pack, seal, verify. Never an archive that is not wanted: a differential
//! equal to the newest backup stores none, and whatever fails before the seal leaves none.
//!
//! Not here: what differs (`scan`), how bytes are laid out (the archive package), and what becomes of the archive of an attempt that
//! does not count (the owner removes it).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use coord_archive::header::Mount;
use coord_archive::reader::ArchiveReader;
use coord_archive::rules::Rules;
use coord_shared::api::{self, finished, run_report};
use coord_shared::durable;
use coord_shared::failpoint;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::PolicyId;
use coord_shared::level::Level;
use coord_shared::slug::{HostSlug, PolicySlug};
use jiff::Timestamp;

use super::archive::open_archive;
use super::host_clock::HostClock;
use super::pack::{self, Parts};
use super::work::report_notes;
use super::{Done, Failure, HostWork, RunContext, notes, verify};
use crate::scan::{Against, Comparison, Scan, ScanError, ScanRequest};

/// How long a run waits for the coordinator's word on its level. A coordinator that is away does not stop it: the level decided
/// before the scan is then taken.
const LEVEL_PATIENCE: Duration = Duration::from_secs(120);

/// The level is the one that was ordered.
const FROM_ORDER: Option<&str> = None;

/// What is known before the archive is verified and belongs into the last report.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    /// Warnings of the scan and of the packer.
    pub(super) warnings: u64,
}

/// One backup run on its way.
pub(super) struct Backup<'a> {
    pub(super) work: &'a HostWork,
    pub(super) context: &'a RunContext,
    pub(super) task: &'a api::BackupTask,
    /// Start, by the host's clock.
    pub(super) started_at: Timestamp,
    /// What corrects the host's clock, measured before the run.
    pub(super) offset_us: i64,
    /// The chain as far as it can be read here.
    chain: Chain,
    /// `None`: there are earlier backups, and none tells.
    expected_mounts: Option<Vec<Mount>>,
}

/// The archives that a differential is compared with.
struct Chain {
    base: Option<ArchiveReader>,
    newest: Newest,
}

enum Newest {
    /// The full itself is the chain's newest backup.
    Base,
    Differential(Box<ArchiveReader>),
    /// There is one, and it cannot be read: nothing can be equal to it.
    Unreadable,
}

/// Runs a backup.
pub(super) fn run(work: &HostWork, context: &RunContext, task: &api::BackupTask) -> Result<Done, Failure> {
    context.control.enter(api::Phase::Scanning, 0, 0);
    check_names(task)?;
    let decided = Level::from_api(task.level()).ok_or_else(|| invalid("the order names no level"))?;
    durable::private_folder(&work.cache).map_err(|error| Failure::of_error(&error))?;
    let chain = match decided {
        Level::Differential => Chain::open(work, task),
        Level::Full => Chain { base: None, newest: Newest::Base },
    };
    let backup = Backup {
        work,
        context,
        task,
        started_at: context.clock.now(),
        offset_us: context.clock.offset_us(),
        expected_mounts: expected_mounts(work, context, task, &chain),
        chain,
    };
    match decided {
        Level::Full => backup.full(FROM_ORDER),
        Level::Differential => backup.differential(),
    }
}

/// Verifies a sealed archive, and gives the run's result.
pub(super) fn finish_sealed(
    work: &HostWork,
    context: &RunContext,
    sealed: &api::Sealed,
    measured: &Measured,
) -> Result<Done, Failure> {
    let location = sealed.location.as_ref().ok_or_else(|| invalid("the sealed archive has no location"))?;
    let began = Instant::now();
    context.control.enter(api::Phase::Verifying, sealed.files, sealed.content_bytes);
    let checks = verify::check(work, context, location)?;
    if let Some(failed) = checks.iter().find(|check| !check.passed) {
        let message = format!("the archive did not pass its verification: {}: {}", failed.name, failed.detail);
        let hint =
            "look at the disk of the archive folder; the archive was set aside there (coord-agent status says where)";
        return Err(Failure::retryable(Fault::new(ErrorCode::ArchiveDamaged, message).with_hint(hint)));
    }
    failpoint::reach("agent.verified");
    let result = api::BackupResult {
        sealed: Some(sealed.clone()),
        unchanged: None,
        checks,
        verify_ms: milliseconds(began.elapsed()),
    };
    Ok(Done { result: finished::Result::Backup(result), warnings_total: measured.warnings })
}

impl Chain {
    fn open(work: &HostWork, task: &api::BackupTask) -> Chain {
        let open = |location: &api::ArchiveLocation| {
            let opened = open_archive(&work.store, location);
            opened.inspect_err(|failure| tracing::warn!(message = %failure.fault.message, "an archive of the chain cannot be read")).ok()
        };
        let base = task.base.as_ref().and_then(open);
        let stands_on_base = |reader: &ArchiveReader| {
            let digest = base.as_ref().map(|base| base.footer().archive_digest);
            reader.header().base.as_ref().map(|base| base.archive_digest) == digest
        };
        let newest = match &task.newest {
            None => Newest::Base,
            Some(location) => match open(location).filter(stands_on_base) {
                Some(reader) => Newest::Differential(Box::new(reader)),
                None => Newest::Unreadable,
            },
        };
        Chain { base, newest }
    }

    fn newest_reader(&self) -> Option<&ArchiveReader> {
        match &self.newest {
            Newest::Differential(reader) => Some(reader),
            Newest::Base | Newest::Unreadable => self.base.as_ref(),
        }
    }
}

impl Backup<'_> {
    fn scan(&self) -> Result<Scan, Failure> {
        let request = ScanRequest {
            root: self.work.root.clone(),
            sources: self.task.sources.clone(),
            excludes: self.task.exclude.clone(),
            rules: rules(self.task.rules.as_ref()),
            own: self.work.own_folders.clone(),
            expected_mounts: self.expected_mounts.clone().unwrap_or_default(),
            started_at: self.started_at,
        };
        let scan = Scan::begin(&request).map_err(|error| of_scan(&error))?;
        failpoint::reach("agent.scan.begun");
        Ok(scan)
    }

    fn full(&self, why: Option<&str>) -> Result<Done, Failure> {
        let scan = self.scan()?;
        self.store(&scan, (Level::Full, why), None)
    }

    fn differential(&self) -> Result<Done, Failure> {
        let scan = self.scan()?;
        let Some(base) = &self.chain.base else {
            let scanned = api::Scanned { base_unavailable: true, ..api::Scanned::default() };
            return self.ask(scanned, Level::Full).and_then(|level| match level {
                Level::Full => self.full(Some("the full that the planned differential stands on cannot be read here")),
                Level::Differential => {
                    let fault = Fault::new(
                        ErrorCode::ArchiveMissing,
                        "the full that the differential stands on cannot be read here",
                    );
                    Err(Failure::lasting(fault.with_hint("ask for a full: coordctl job run HOST/POLICY --level full")))
                }
            });
        };
        if base.header().selection != scan.selection().digest() {
            let scanned = api::Scanned { selection_changed: true, ..api::Scanned::default() };
            self.ask(scanned, Level::Full)?;
            return self.full(Some("the newest full here was taken with another selection"));
        }
        let comparison = self.compare(&scan, base)?;
        failpoint::reach("agent.scan.done");
        let ended_at = self.context.clock.now();
        let figures = &comparison.figures;
        let equals_newest = match self.chain.newest {
            Newest::Base | Newest::Differential(_) => comparison.equals_newest,
            Newest::Unreadable => false,
        };
        let scanned = api::Scanned {
            source_files: figures.source_files,
            source_bytes: figures.source_bytes,
            changed_files: figures.changed_files,
            changed_bytes: figures.changed_bytes,
            removed: figures.removed,
            attributes_only: figures.metadata_only,
            equals_newest,
            selection_changed: false,
            base_unavailable: false,
        };
        match self.ask(scanned, Level::Differential)? {
            Level::Full => self.full(FROM_ORDER),
            Level::Differential if equals_newest => self.unchanged(&scan, &comparison, ended_at),
            Level::Differential => self.store(&scan, (Level::Differential, FROM_ORDER), Some((base, &comparison))),
        }
    }

    fn compare(&self, scan: &Scan, base: &ArchiveReader) -> Result<Comparison, Failure> {
        let newest = match &self.chain.newest {
            Newest::Differential(reader) => Some(reader.as_ref()),
            Newest::Base | Newest::Unreadable => None,
        };
        let cache = self.cache_file()?;
        let against = Against { base, newest, cache: Some(&cache), scratch: &self.work.cache };
        scan.compare(&against, self.context.control.as_ref()).map_err(|error| of_scan(&error))
    }

    fn cache_file(&self) -> Result<PathBuf, Failure> {
        let policy: PolicyId = self.task.policy_id.parse().map_err(|_| invalid("the order names no policy"))?;
        Ok(self.work.cache.join(format!("{policy}.identities")))
    }

    /// Reports the scan's figures and waits for the level; `otherwise` when the coordinator stays away. About a run that this host
    /// began by itself nothing was decided, so that there is nobody to ask.
    fn ask(&self, scanned: api::Scanned, otherwise: Level) -> Result<Level, Failure> {
        if self.context.from_plan.is_some() {
            return Ok(otherwise);
        }
        self.context.control.enter(api::Phase::Deciding, 0, 0);
        self.context.report(run_report::Event::Scanned(scanned))?;
        failpoint::reach("agent.level.asked");
        let answer = self.context.wait_level(LEVEL_PATIENCE)?;
        failpoint::reach("agent.level.answered");
        if answer.is_none() {
            tracing::warn!(run = %self.context.key, level = %otherwise, "no word from the coordinator on the level: going on");
        }
        Ok(answer.unwrap_or(otherwise))
    }

    fn unchanged(&self, scan: &Scan, comparison: &Comparison, ended_at: Timestamp) -> Result<Done, Failure> {
        let found = scan.notes();
        report_notes(self.context, &notes::of_scan(&found))?;
        let unchecked = self.warn_of_unchecked_mounts()?;
        let number = self.context.next_ordinal(&self.task.policy_id, self.task.ordinal_floor)?;
        let unchanged = api::Unchanged {
            backup_id: self.task.backup_id.clone(),
            newest_backup_id: self.task.newest_backup_id.clone(),
            ordinal: number,
            started_at_us: self.corrected_us(self.started_at),
            captured_at_us: self.corrected_us(ended_at),
            clock_offset_us: self.offset_us,
            source_files: comparison.figures.source_files,
            source_bytes: comparison.figures.source_bytes,
            scan_ms: between_ms(self.started_at, ended_at),
            left_out: notes::left_out(&found),
            level_reason: self.level_reason(FROM_ORDER),
        };
        let result = api::BackupResult { unchanged: Some(unchanged), ..api::BackupResult::default() };
        Ok(Done { result: finished::Result::Backup(result), warnings_total: found.warning_count + unchecked })
    }

    fn store(
        &self,
        scan: &Scan,
        (level, why): (Level, Option<&str>),
        changes: Option<(&ArchiveReader, &Comparison)>,
    ) -> Result<Done, Failure> {
        let mut packed = pack::pack(self, &Parts { scan, level, changes })?;
        packed.sealed.level_reason = self.level_reason(why);
        report_notes(self.context, &packed.notes)?;
        let warnings = packed.warnings + self.warn_of_unchecked_mounts()?;
        self.context.report(run_report::Event::Sealed(packed.sealed.clone()))?;
        if self.task.verify_after {
            return finish_sealed(self.work, self.context, &packed.sealed, &Measured { warnings });
        }
        let result = api::BackupResult { sealed: Some(packed.sealed), ..api::BackupResult::default() };
        Ok(Done { result: finished::Result::Backup(result), warnings_total: warnings })
    }

    /// Why the level, where this host chose it: for this reason, or as its plan says.
    fn level_reason(&self, why: Option<&str>) -> String {
        let Some(begun) = &self.context.from_plan else { return String::new() };
        why.unwrap_or(&begun.level_reason).to_owned()
    }

    /// A check that could not be made is said, never passed over in silence. Answers the number of warnings.
    fn warn_of_unchecked_mounts(&self) -> Result<u64, Failure> {
        if self.expected_mounts.is_some() {
            return Ok(0);
        }
        let detail = "no earlier archive of this job can be read here: what was mounted then could not be compared with what is now";
        report_notes(self.context, &[notes::note(b"", "mounts_unchecked", detail)])?;
        Ok(1)
    }

    /// An instant of the host's clock as the coordinator's clock would have shown it.
    pub(super) fn corrected_us(&self, at: Timestamp) -> i64 {
        HostClock::corrected(at, self.offset_us).as_microsecond()
    }
}

/// The mounts of the job's newest backup that can be read, which this one has to find again. `None` when there is such a
/// backup and none can be read.
fn expected_mounts(work: &HostWork, context: &RunContext, task: &api::BackupTask, chain: &Chain) -> Option<Vec<Mount>> {
    if task.asked_by_operator && task.level() == api::Level::Full {
        return Some(Vec::new());
    }
    let remembered = context.newest_here.iter().find_map(|location| open_archive(&work.store, location).ok());
    let reader = remembered.as_ref().or_else(|| chain.newest_reader());
    let is_first = context.newest_here.is_empty() && task.base.is_none() && task.newest_backup_id.is_empty();
    reader.map(|reader| reader.header().mounts.clone()).or(is_first.then(Vec::new))
}

/// The rules of an order; one of a coordinator that knows none has none.
pub(super) fn rules(rules: Option<&api::SelectionRules>) -> Rules {
    let Some(rules) = rules else { return Rules::default() };
    Rules {
        caches: rules.caches,
        if_present: rules.if_present.clone(),
        nodump: rules.nodump,
        one_file_system: rules.one_file_system,
        larger_than: Some(rules.larger_than_bytes).filter(|bytes| *bytes > 0),
    }
}

/// Names become folders: they are checked here too, whoever sent them.
fn check_names(task: &api::BackupTask) -> Result<(), Failure> {
    HostSlug::new(task.host_name.as_str()).map_err(|error| invalid(&error.to_string()))?;
    PolicySlug::new(task.policy_name.as_str()).map_err(|error| invalid(&error.to_string()))?;
    Ok(())
}

pub(super) fn invalid(what: &str) -> Failure {
    Failure::lasting(Fault::new(ErrorCode::InvalidArgument, what))
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn between_ms(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// A scan that gave no result.
pub(super) fn of_scan(error: &ScanError) -> Failure {
    let message = crate::chain::chain(error);
    match error {
        ScanError::Cancelled => Failure::cancelled(),
        ScanError::SourceMissing { .. } | ScanError::SourceMoved { .. } | ScanError::SourceUnreadable { .. } => {
            Failure::lasting(Fault::new(error.code(), message).with_hint(error.hint()))
        }
        ScanError::Selection(_) => Failure::lasting(Fault::new(ErrorCode::InvalidPolicy, message)),
        ScanError::Index { source, .. } if source.is_damage() => {
            Failure::lasting(Fault::new(error.code(), message).with_hint(error.hint()))
        }
        ScanError::Index { .. } | ScanError::Root { .. } | ScanError::Spool { .. } | ScanError::SpoolDamaged(_) => {
            Failure::of_error(error)
        }
    }
}
