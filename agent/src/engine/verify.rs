//! Reading archives back: every stored byte, every content, and some files the way a restore would come. What is found is the result;
//! it never repairs.

use std::time::Instant;

use coord_archive::digest::Digest;
use coord_archive::verify::{self, CheckName, Expected, Outcome, VerifyOptions};
use coord_shared::api::{self, ArchiveLocation, VerifyTask, finished};
use coord_shared::fault::{ErrorCode, Fault};

use super::backup::milliseconds;
use super::notes::note;
use super::work::report_notes;
use super::{Done, Failure, HostWork, RunContext};
use crate::store::StoreError;

/// Files that are read one by one, as a restore of a single file does.
const SAMPLES: usize = 16;

/// Verifies the archives of a task. Damage is a failure that carries what was found.
pub(super) fn run(work: &HostWork, context: &RunContext, task: &VerifyTask) -> Result<Done, Failure> {
    let began = Instant::now();
    let total = task.archives.iter().map(|location| location.stored_bytes).sum();
    context.control.enter(api::Phase::Verifying, 0, total);
    let mut archives = Vec::new();
    let mut damaged = 0;
    for location in &task.archives {
        let checks = check(work, context, location)?;
        if checks.iter().any(|check| !check.passed) {
            damaged += 1;
        }
        archives.push(api::ArchiveChecks { backup_id: location.backup_id.clone(), checks });
    }
    let result = finished::Result::Verify(api::VerifyResult { archives, verify_ms: milliseconds(began.elapsed()) });
    if damaged == 0 {
        return Ok(Done { result, warnings_total: 0 });
    }
    let message = format!("{damaged} of {} archives are damaged or missing", task.archives.len());
    let fault = Fault::new(ErrorCode::ArchiveDamaged, message);
    Err(Failure::lasting(fault.with_hint("the next backup is a full; earlier restore points still serve"))
        .with_result(result))
}

/// The checks of one archive, and a list of its damaged files.
pub(super) fn check(
    work: &HostWork,
    context: &RunContext,
    location: &ArchiveLocation,
) -> Result<Vec<api::Check>, Failure> {
    let path = match work.store.locate(location) {
        Ok(path) => path,
        Err(error) => return failed_to_locate(&error),
    };
    let expected = Digest::from_slice(&location.archive_digest)
        .map(|archive_digest| Expected { stored_bytes: location.stored_bytes, archive_digest });
    let options = VerifyOptions { threads: work.threads, samples: SAMPLES, expected };
    let verified = verify::verify(&path, &options, context.control.as_ref()).map_err(|_| Failure::cancelled())?;
    let damaged: Vec<_> =
        verified.damaged.iter().map(|path| note(path, "damaged", &location.key.escape_debug().to_string())).collect();
    report_notes(context, &damaged)?;
    Ok(verified.checks.iter().map(|check| one(check.name, &check.outcome)).collect())
}

fn one(name: CheckName, outcome: &Outcome) -> api::Check {
    let (passed, detail) = match outcome {
        Outcome::Passed => (true, String::new()),
        Outcome::Failed(why) => (false, why.clone()),
        Outcome::NotDone => (false, "not done, because an earlier check failed".to_owned()),
    };
    api::Check { name: name.as_str().to_owned(), passed, detail }
}

/// An archive that is not there, or is none, is a finding; a disk that does not answer is not.
fn failed_to_locate(error: &StoreError) -> Result<Vec<api::Check>, Failure> {
    let name = match error {
        StoreError::Missing { .. } => CheckName::Exists,
        StoreError::Damaged { .. } => CheckName::Readable,
        StoreError::Replaced { .. } => CheckName::Digest,
        StoreError::Key { .. } | StoreError::Io { .. } | StoreError::File(_) => return Err(Failure::of_store(error)),
    };
    Ok(vec![one(name, &Outcome::Failed(crate::chain::chain(error)))])
}
