//! `archive verify`.

use std::fs::File;

use coord_archive::verify::{self, CheckName, Outcome, Verification, VerifyOptions};
use coord_shared::exit::Exit;
use coord_shared::fault::{ErrorCode, Fault};
use indicatif::{HumanBytes, HumanCount};

use super::watch::Watch;
use super::{Format, VerifyArgs, reindex_hint, shown, warn};

/// Files that are read one by one the way a restore of a single file reads them.
pub(super) const SAMPLES: usize = 16;

pub(super) fn verify(args: &VerifyArgs) -> Result<Exit, Fault> {
    // Absent or unreadable to us is not damaged.
    if let Err(error) = File::open(&args.archive) {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::ArchiveMissing,
            std::io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
            _ => ErrorCode::Io,
        };
        return Err(Fault::new(code, format!("{}: {error}", args.archive.display())));
    }
    let watch = Watch::begin("verifying", args.quiet);
    let options = VerifyOptions { threads: args.threads, samples: SAMPLES, expected: None };
    let found = verify::verify(&args.archive, &options, &watch)
        .map_err(|error| Fault::new(ErrorCode::Cancelled, error.to_string()))?;
    watch.finish(&format!("{} files, {} checked", HumanCount(found.files), HumanBytes(found.bytes)));
    match args.output {
        Format::Table => print_table(&found),
        Format::Json => println!("{}", object(&found)),
    }
    let damaged = found.damaged.iter().map(|path| (path.as_slice(), "its content is damaged".to_owned()));
    warn(damaged, found.damaged_count);
    let cannot_open = found.checks.iter().any(|check| check.outcome == Outcome::NotDone);
    if cannot_open || found.damaged_blocks > 0 {
        eprintln!("hint: {}", reindex_hint(&args.archive));
    }
    Ok(if found.is_ok() { Exit::Done } else { Exit::Damaged })
}

fn words(outcome: &Outcome) -> (&'static str, &str) {
    match outcome {
        Outcome::Passed => ("passed", ""),
        Outcome::Failed(why) => ("failed", why),
        Outcome::NotDone => ("not_done", ""),
    }
}

/// The checks that did not pass, in words.
pub(super) fn shortcomings(found: &Verification) -> String {
    let failed = found.checks.iter().filter_map(|check| match &check.outcome {
        Outcome::Failed(why) => Some(format!("{}: {why}", check.name.as_str())),
        Outcome::Passed | Outcome::NotDone => None,
    });
    failed.collect::<Vec<_>>().join("; ")
}

fn print_table(found: &Verification) {
    for check in &found.checks {
        let (word, why) = words(&check.outcome);
        println!("{:<10} {word:<9} {why}", CheckName::as_str(check.name));
    }
}

fn object(found: &Verification) -> serde_json::Value {
    let checks = found.checks.iter().map(|check| {
        let (word, why) = words(&check.outcome);
        serde_json::json!({ "name": check.name.as_str(), "outcome": word, "detail": why })
    });
    serde_json::json!({
        "ok": found.is_ok(),
        "checks": checks.collect::<Vec<_>>(),
        "files": found.files,
        "bytes": found.bytes,
        "damaged": found.damaged.iter().map(|path| shown(path)).collect::<Vec<_>>(),
        "damaged_count": found.damaged_count,
        "damaged_frames": found.damaged_frames,
        "damaged_blocks": found.damaged_blocks,
    })
}
