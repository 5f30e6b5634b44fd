//! What a scan, a packer or an unpacker has to tell, as notes of the wire contract.

use coord_archive::pack::{Reason, Warning as PackWarning};
use coord_shared::api::{self, PathNote};
use coord_shared::left_out::LeftOutBy;
use coord_shared::wire::{MAX_LEFT_OUT_RULES, MAX_RULE_TEXT_BYTES};

use crate::scan::{Notes, RuleCount, Warning};

/// Warnings of a scan, and what was left out though nobody named it.
pub(super) fn of_scan(notes: &Notes) -> Vec<PathNote> {
    let warnings = notes.warnings.iter().map(of_warning);
    let left_out = notes.left_out.iter().map(|(path, why)| {
        let kind = match why {
            LeftOutBy::KernelFileSystem => "pseudo_file_system_left_out",
            LeftOutBy::OtherFileSystem => "other_file_system_left_out",
            LeftOutBy::Own => "own_state_left_out",
            LeftOutBy::Socket => "socket_skipped",
            // These are counted, and not listed.
            LeftOutBy::Pattern
            | LeftOutBy::IfPresent
            | LeftOutBy::Cache
            | LeftOutBy::Nodump
            | LeftOutBy::LargerThan => why.as_str(),
        };
        note(path, kind, why.as_phrase())
    });
    let lost = notes
        .lost_mounts
        .iter()
        .map(|path| note(path, "stale", "was a mount point and is none now: its state is kept"));
    warnings.chain(lost).chain(left_out).collect()
}

/// A name that a scan could not look at.
pub(super) fn of_warning(warning: &Warning) -> PathNote {
    note(&warning.path, "unreadable", &warning.reason)
}

/// What the rules left out, as far as a report takes it.
pub(super) fn left_out(notes: &Notes) -> Vec<api::LeftOut> {
    let told = |count: &RuleCount| api::LeftOut {
        by: count.by.to_api().into(),
        text: count.text[..count.text.floor_char_boundary(MAX_RULE_TEXT_BYTES)].to_owned(),
        files: count.files,
        folders: count.folders,
        bytes: count.bytes,
    };
    notes.counts().take(MAX_LEFT_OUT_RULES).map(told).collect()
}

/// Warnings of the packer.
pub(super) fn of_pack(warnings: &[PackWarning]) -> Vec<PathNote> {
    let describe = |warning: &PackWarning| match &warning.reason {
        Reason::Vanished => note(&warning.path, "vanished", "it was gone when it was to be read"),
        Reason::Unreadable(why) => note(&warning.path, "unreadable", why),
        Reason::ChangedWhileRead => note(&warning.path, "changed_while_read", "it changed in both readings"),
        Reason::TooLarge => note(&warning.path, "unreadable", "it is larger than files that are stored"),
    };
    warnings.iter().map(describe).collect()
}

pub(super) fn note(path: &[u8], kind: &str, detail: &str) -> PathNote {
    PathNote { path: path.to_vec(), kind: kind.to_owned(), detail: detail.to_owned() }
}
