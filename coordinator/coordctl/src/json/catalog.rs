//! JSON of backups, files and restores.

use coord_shared::api;
use serde_json::{Value, json};

use super::{at, checks, digest, with_path, word};
use crate::shown;

/// One backup.
#[must_use]
pub fn backup(b: &api::Backup) -> Value {
    let location = b.location.as_ref().map_or(Value::Null, |l| with_path(json!({ "key": l.key }), "folder", &l.folder));
    json!({
        "id": b.id,
        "host": b.host,
        "policy": b.policy,
        "level": word(shown::level(b.level)),
        "base_id": word(b.base_id.clone()),
        "ordinal": b.ordinal,
        "started_at": at(b.started_at_us),
        "captured_at": at(b.captured_at_us),
        "files": b.files,
        "source_bytes": b.source_bytes,
        "content_bytes": b.content_bytes,
        "stored_bytes": b.stored_bytes,
        "archive_digest": digest(&b.archive_digest),
        "codec": word(shown::codec(b.codec)),
        "location": location,
        "status": b.status,
        "searchable": b.searchable,
        "searchable_reason": word(b.searchable_reason.clone()),
        "same_as": word(b.same_as.clone()),
        "checks": checks(&b.checks),
        "run_id": word(b.run_id.clone()),
        "unreadable": b.unreadable,
        "changed_while_read": b.changed_while_read,
    })
}

/// Backups.
#[must_use]
pub fn backups(list: &[api::Backup]) -> Value {
    json!({ "backups": list.iter().map(backup).collect::<Value>() })
}

fn contents(jobs: &[api::CatalogOfJob]) -> Value {
    let job = |j: &api::CatalogOfJob| {
        json!({
            "host": j.host,
            "policy": j.policy,
            "name": format!("{}/{}", j.host, j.policy),
            "connected": j.connected,
            "backups": j.backups,
            "searchable": j.searchable,
            "pending": j.pending,
            "not_searchable": j.not_searchable,
            "why": word(j.why.clone()),
        })
    };
    jobs.iter().map(job).collect()
}

/// What the catalog has of backups.
#[must_use]
pub fn catalog_status(s: &api::CatalogStatus) -> Value {
    json!({
        "jobs": contents(&s.jobs),
        "versions": s.versions,
        "entry_bytes": s.entry_bytes,
        "database_bytes": s.database_bytes,
        "schema_version": s.schema_version,
    })
}

/// What a rebuild has come to, and the jobs that it left out.
#[must_use]
pub fn catalog_rebuild(jobs: &[api::CatalogOfJob], left_out: &[api::CatalogOfJob]) -> Value {
    json!({ "jobs": contents(jobs), "left_out": contents(left_out) })
}

/// One file at a time.
#[must_use]
pub fn file(f: &api::File) -> Value {
    let mtime = jiff::Timestamp::new(f.mtime_s, i32::try_from(f.mtime_ns).unwrap_or(0)).ok();
    let object = json!({
        "kind": f.kind,
        "size_bytes": f.size_bytes,
        "mode": format!("{:04o}", f.mode),
        "uid": f.uid,
        "gid": f.gid,
        "mtime": mtime.map(|instant| instant.to_string()),
        "digest": digest(&f.digest),
        "flags": f.flags,
        "policy": f.policy,
    });
    let object = with_path(object, "path", &f.path);
    if f.kind == "symlink" { with_path(object, "link_target", &f.link_target) } else { object }
}

/// A restore point that answers.
#[must_use]
pub fn point(p: &api::RestorePoint) -> Value {
    json!({
        "backup_id": p.backup_id,
        "policy": p.policy,
        "level": word(shown::level(p.level)),
        "captured_at": at(p.captured_at_us),
        "age_s": p.age_s,
        "full_backup_id": p.full_backup_id,
        "stored_bytes": p.stored_bytes,
    })
}

/// The states of a path.
#[must_use]
pub fn path_versions(list: &api::PathVersionList) -> Value {
    let version = |v: &api::PathVersion| {
        let mut object = v.file.as_ref().map_or_else(|| json!({}), file);
        object["first_backup_id"] = word(v.first_backup_id.clone());
        object["first_captured_at"] = at(v.first_captured_at_us);
        object["last_backup_id"] = word(v.last_backup_id.clone());
        object["last_captured_at"] = at(v.last_captured_at_us);
        object["end"] = word(v.end.clone());
        object
    };
    json!({ "versions": list.versions.iter().map(version).collect::<Value>(), "more": list.more })
}

/// What became of a path between two times.
#[must_use]
pub fn change(c: &api::FileChange) -> Value {
    let path = c.after.as_ref().or(c.before.as_ref()).map_or(&[][..], |file| &file.path);
    let object = json!({
        "change": c.change,
        "what": c.what,
        "before": c.before.as_ref().map(file),
        "after": c.after.as_ref().map(file),
    });
    with_path(object, "path", path)
}

/// How much differs between two times.
#[must_use]
pub fn diff_totals(t: &api::DiffTotals) -> Value {
    json!({
        "added": t.added,
        "removed": t.removed,
        "changed": t.changed,
        "added_bytes": t.added_bytes,
        "removed_bytes": t.removed_bytes,
        "changed_bytes": t.changed_bytes,
    })
}

/// What a restore would do.
#[must_use]
pub fn plan(p: &api::RestorePlan) -> Value {
    let object = json!({
        "points": p.points.iter().map(point).collect::<Value>(),
        "to_host": p.to_host,
        "files": p.files,
        "bytes": p.bytes,
        "at_least": p.at_least,
        "archives": p.archives,
        "at": at(p.at_us),
        "notes": p.notes,
        "digest": p.digest,
    });
    with_path(object, "to_folder", &p.to_folder)
}
