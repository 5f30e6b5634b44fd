//! Every document that scripts read, with every field that it has.

use coord_shared::api;
use serde_json::Value;

use super::*;
use crate::command::preview::Found;

/// An instant that is told from "not set".
const AT: i64 = 1_700_000_000_000_000;

fn sample_fault() -> Option<api::Fault> {
    Some(api::Fault { code: "disk_full".into(), message: "m".into(), hint: "h".into(), trace_id: "t".into() })
}

fn sample_run() -> api::Run {
    api::Run {
        kind: api::RunKind::Restore.into(),
        state: api::RunState::Succeeded.into(),
        level: api::Level::Full.into(),
        due_at_us: AT,
        started_at_us: AT,
        ended_at_us: AT,
        not_before_us: AT,
        progress: Some(api::Progress { phase: api::Phase::Packing.into(), ..Default::default() }),
        restore: Some(api::RestoreResult::default()),
        spent: vec![api::Spent { stage: "compress".into(), ms: 1 }],
        limited_by: "compress".into(),
        left_out: vec![api::LeftOut { by: api::LeftOutBy::Pattern.into(), text: "*.tmp".into(), ..Default::default() }],
        makes_up_for: Some(api::MakesUpFor { due_at_us: AT, why: "w".into() }),
        from_plan: Some(api::FromPlan {
            started_at_us: AT,
            cut_off_since_us: AT,
            plan_made_at_us: AT,
            clock_offset_us: 1,
            ..Default::default()
        }),
        fault: sample_fault(),
        checks: vec![api::Check::default()],
        attempts: vec![api::Attempt { leased_at_us: AT, ended_at_us: AT, fault: sample_fault(), ..Default::default() }],
        ..Default::default()
    }
}

fn sample_backup() -> api::Backup {
    api::Backup {
        captured_at_us: AT,
        started_at_us: AT,
        location: Some(api::ArchiveLocation { folder: b"/var/\xff".to_vec(), ..Default::default() }),
        checks: vec![api::Check::default()],
        ..Default::default()
    }
}

fn sample_job() -> api::Job {
    api::Job {
        newest: Some(sample_backup()),
        newest_full: Some(sample_backup()),
        open_run: Some(sample_run()),
        next_due_at_us: AT,
        growth: Some(api::ChainGrowth::default()),
        last_good_at_us: AT,
        values: vec![api::PolicyValue { key: "full.day".into(), value: "\"sunday\"".into(), from: "policy".into() }],
        last_missed: Some(api::Run { reason: "r".into(), due_at_us: AT, ..Default::default() }),
        owed_runs: 1,
        owed_from_us: AT,
        pauses: vec![sample_pause()],
        ..Default::default()
    }
}

fn sample_pause() -> api::Pause {
    api::Pause { scope: "host".into(), host: "web-1".into(), since_us: AT, reason: "r".into(), ..Default::default() }
}

fn sample_policy() -> api::Policy {
    api::Policy { applied_at_us: AT, next_due_at_us: AT, hosts: vec!["web-1".into()], ..Default::default() }
}

fn sample_point() -> api::RestorePoint {
    api::RestorePoint { captured_at_us: AT, level: api::Level::Full.into(), ..Default::default() }
}

fn sample_decision() -> api::Decision {
    let option = api::DecisionOption { level: api::Level::Differential.into(), ..Default::default() };
    api::Decision { inputs_json: r#"{"chain": null}"#.into(), options: vec![option], ..Default::default() }
}

fn sample_preview() -> Found {
    let note = api::PathNote { path: b"srv/a".to_vec(), kind: "unreadable".into(), detail: "d".into() };
    let rule = api::LeftOut { by: api::LeftOutBy::Cache.into(), folders: 1, ..Default::default() };
    Found {
        host: "web-1".into(),
        policy: "web".into(),
        is_selected: true,
        names: vec![api::PreviewName { path: b"srv/\xff".to_vec(), kind: "file".into(), size_bytes: 7 }],
        totals: api::PreviewTotals {
            left_out: vec![rule],
            warnings: vec![note],
            warnings_total: 1,
            ..Default::default()
        },
    }
}

fn documents() -> Vec<(&'static str, Value)> {
    [documents_of_the_fleet(), documents_of_policies(), documents_of_runs()].concat()
}

fn documents_of_the_fleet() -> Vec<(&'static str, Value)> {
    vec![
        ("version", version(&api::VersionInfo::default())),
        ("status", status(&api::FleetStatus { troubles: vec![api::Trouble::default()], ..Default::default() })),
        ("pause", pause(&sample_pause())),
        ("explain", explanation(&api::Explanation { decisions: vec![sample_decision()] })),
        (
            "schedule",
            schedule(&api::Schedule {
                nights: vec![api::Night::default()],
                runs: vec![api::DueRun { due_at_us: AT, level: api::Level::Full.into(), ..Default::default() }],
                ..Default::default()
            }),
        ),
        (
            "what-if",
            what_if(&api::WhatIfReport {
                jobs: vec![api::WhatIfOfJob {
                    was: Some(api::ReplayTotals::default()),
                    changes: vec![api::LevelChange { at_us: AT, ..Default::default() }],
                    ..Default::default()
                }],
                ..Default::default()
            }),
        ),
        ("token list", tokens(&[api::Token::default()])),
        ("user list", users(&[api::User { created_at_us: AT, ..Default::default() }])),
        (
            "server members",
            coordinators(&api::CoordinatorList {
                coordinators: vec![api::Coordinator { duties: vec![api::Duty::default()], ..Default::default() }],
                ..Default::default()
            }),
        ),
        ("host list", hosts(&[api::Host { last_seen_at_us: AT, ..Default::default() }])),
    ]
}

fn documents_of_policies() -> Vec<(&'static str, Value)> {
    let finding = api::PolicyFinding { key: "k".into(), message: "m".into(), hint: "h".into() };
    let key = api::KeyChange { key: "full.day".into(), was: "\"sunday\"".into(), becomes: String::new() };
    vec![
        ("policy list", policies(&[sample_policy()])),
        (
            "policy lint",
            lint(&api::PolicyLint {
                errors: vec![finding.clone()],
                warnings: vec![finding.clone()],
                ..Default::default()
            }),
        ),
        (
            "policy apply",
            applied(&api::AppliedPolicy {
                policy: Some(sample_policy()),
                warnings: vec![finding],
                keys: vec![key.clone()],
                leaving: vec![api::LeavingHost::default()],
                weeks: vec![api::Week {
                    hosts: vec!["web-1".into()],
                    now: vec![],
                    becomes: vec![api::WeekRun { due_at_us: AT, level: api::Level::Full.into(), held: String::new() }],
                }],
                ..Default::default()
            }),
        ),
        (
            "policy apply of a folder, policy diff",
            all_applied(&api::AppliedPolicies {
                policies: vec![],
                untouched: vec!["old".into()],
                defaults: Some(api::DefaultsChange::default()),
                ..Default::default()
            }),
        ),
        ("policy defaults", defaults(&api::PolicyDefaults { applied_at_us: AT, ..Default::default() })),
        (
            "policy history",
            history(&api::PolicyHistory {
                name: "web".into(),
                versions: vec![api::PolicyVersion { applied_at_us: AT, keys: vec![key], ..Default::default() }],
            }),
        ),
        ("policy preview", preview(&sample_preview())),
    ]
}

fn documents_of_runs() -> Vec<(&'static str, Value)> {
    let note = api::PathNote { path: b"a\xff".to_vec(), kind: "unreadable".into(), detail: "d".into() };
    vec![
        ("job list", jobs(&[sample_job()])),
        ("limit list", limits(&[api::Limit { changed_at_us: AT, ..Default::default() }])),
        ("run list", runs(&[sample_run()])),
        ("run warnings", warnings(&api::RunWarnings { total: 1, notes: vec![note] })),
        ("report dedup", dedup(&api::DedupReport { hosts: vec![api::DedupOfHost::default()], overall: None })),
        (
            "report rpo, report rto",
            objectives(&api::ObjectivesReport { jobs: vec![api::ObjectivesOfJob::default()], now_us: AT }),
        ),
        ("backup list", backups(&[sample_backup()])),
        (
            "catalog status",
            catalog_status(&api::CatalogStatus { jobs: vec![api::CatalogOfJob::default()], ..Default::default() }),
        ),
        ("catalog rebuild", catalog_rebuild(&[api::CatalogOfJob::default()], &[])),
        ("ls", file(&api::File { path: b"etc/hosts".to_vec(), ..Default::default() })),
        ("restore point", point(&sample_point())),
        ("restore --dry-run", plan(&api::RestorePlan { points: vec![sample_point()], ..Default::default() })),
    ]
}

/// Those that tell of the past.
fn documents_of_the_past() -> Vec<(&'static str, Value)> {
    vec![
        (
            "history",
            path_versions(&api::PathVersionList {
                versions: vec![api::PathVersion {
                    file: Some(api::File { path: b"etc/hosts".to_vec(), ..Default::default() }),
                    first_captured_at_us: AT,
                    ..Default::default()
                }],
                more: true,
            }),
        ),
        (
            "diff",
            change(&api::FileChange {
                change: "removed".into(),
                before: Some(api::File { path: b"etc/hosts".to_vec(), ..Default::default() }),
                ..Default::default()
            }),
        ),
        ("diff --stat", diff_totals(&api::DiffTotals::default())),
        (
            "run logs",
            run_events(&api::RunEventList {
                events: vec![api::RunEvent { at_us: AT, kind: "phase".into(), ..Default::default() }],
                ..Default::default()
            }),
        ),
    ]
}

#[test]
fn every_document_has_the_fields_it_had() {
    let all = documents()
        .into_iter()
        .chain(documents_of_the_past())
        .map(|(name, document)| format!("### {name}\n{document:#}\n"));
    crate::golden::compare("json.txt", &all.collect::<String>());
}
