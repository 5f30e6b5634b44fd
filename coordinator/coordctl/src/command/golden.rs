//! Every table that people read, with all its columns.

use coord_shared::api;

use super::{backup, history, host, job, limit, policy, run, server, token};
use crate::output::{Format, Output};

/// The narrow table, and the wide one.
fn tables(name: &str, print: impl Fn(&Output) -> Result<(), crate::failure::Failure>) -> String {
    let told = |format| {
        let mut out = Output::new(format);
        out.capture();
        let printed = print(&out);
        assert!(printed.is_ok(), "{printed:?}");
        out.captured().text
    };
    format!("### {name}\n{}### {name} -o wide\n{}", told(Format::Table), told(Format::Wide))
}

fn sample_host() -> api::Host {
    api::Host {
        id: "0a1b2c3d-0000-4000-8000-000000000001".into(),
        name: "web-1".into(),
        state: "active".into(),
        connected: true,
        version: "0.1.0".into(),
        operating_system: "Debian 12".into(),
        labels: [("role".to_owned(), "web".to_owned())].into(),
        policies: vec!["etc".into(), "srv".into()],
        ..Default::default()
    }
}

fn sample_policy() -> api::Policy {
    let hosts = vec!["db-1".into(), "web-1".into()];
    api::Policy {
        id: "1b".into(),
        name: "srv".into(),
        version: 3,
        hosts,
        applied_by: "ada".into(),
        ..Default::default()
    }
}

fn sample_run() -> api::Run {
    api::Run {
        id: "2c3d4e5f-0000-4000-8000-000000000002".into(),
        kind: api::RunKind::Backup.into(),
        state: api::RunState::Failed.into(),
        host: "web-1".into(),
        policy: "srv".into(),
        level: api::Level::Full.into(),
        attempt: 3,
        max_attempts: 3,
        started_at_us: 0,
        warnings_total: 2,
        asked_by: "schedule".into(),
        fault: Some(api::Fault { message: "the disk is full".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn sample_backup() -> api::Backup {
    api::Backup {
        id: "3d4e5f60-0000-4000-8000-000000000003".into(),
        host: "web-1".into(),
        policy: "srv".into(),
        level: api::Level::Differential.into(),
        files: 12,
        content_bytes: 4096,
        stored_bytes: 1024,
        status: "protected".into(),
        codec: api::Codec::Zstd.into(),
        run_id: "2c3d4e5f-0000-4000-8000-000000000002".into(),
        searchable: true,
        ..Default::default()
    }
}

fn sample_job() -> api::Job {
    api::Job {
        id: "4e".into(),
        host: "web-1".into(),
        policy: "srv".into(),
        state: "active".into(),
        newest: Some(sample_backup()),
        open_run: Some(api::Run { state: api::RunState::Running.into(), ..sample_run() }),
        backups: 7,
        stored_bytes: 7168,
        ..Default::default()
    }
}

fn sample_limit() -> api::Limit {
    api::Limit {
        name: "production".into(),
        scope: "group".into(),
        selector: "env=prod".into(),
        runs: 8,
        running: 3,
        hosts: 40,
        changed_by: "ada".into(),
        ..Default::default()
    }
}

fn sample_members() -> api::CoordinatorList {
    let one = api::Coordinator {
        id: "6a718293-0000-4000-8000-000000000005".into(),
        state: "serving".into(),
        version: "0.1.0".into(),
        schema_version: 15,
        endpoints: vec!["backup-1.example.net:7443".into()],
        enrol_endpoints: vec!["backup-1.example.net:7444".into()],
        last_beat_at_us: 1_000_000,
        sessions: 412,
        ..Default::default()
    };
    let leaving = api::Coordinator {
        id: "7b829304-0000-4000-8000-000000000006".into(),
        state: "draining".into(),
        drain_asked_by: "ada".into(),
        ..one.clone()
    };
    api::CoordinatorList { answered_by: one.id.clone(), coordinators: vec![one, leaving], now_us: 4_000_000 }
}

fn sample_token() -> api::Token {
    api::Token {
        id: "5f607182-0000-4000-8000-000000000004".into(),
        kind: "agent".into(),
        state: "active".into(),
        uses_left: 1,
        created_by: "ada".into(),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        ..Default::default()
    }
}

fn sample_version() -> api::PathVersion {
    let file = api::File {
        kind: "file".into(),
        size_bytes: 2048,
        digest: vec![7; 32],
        mode: 0o644,
        policy: "srv".into(),
        ..Default::default()
    };
    api::PathVersion {
        file: Some(file),
        end: "current".into(),
        last_backup_id: sample_backup().id,
        ..Default::default()
    }
}

#[test]
fn every_table_has_the_columns_it_had() {
    let all = [
        tables("host list", |out| host::table(out, &[sample_host()])),
        tables("policy list", |out| policy::table(out, &[sample_policy()])),
        tables("job list", |out| job::table(out, &[sample_job()])),
        tables("run list", |out| run::table(out, &[sample_run()])),
        tables("backup list", |out| backup::table(out, &[sample_backup()])),
        tables("limit list", |out| limit::table(out, &[sample_limit()])),
        tables("server members", |out| server::table(out, &sample_members())),
        tables("history", |out| history::table(out, &[sample_version()])),
        tables("token list", |out| token::table(out, &[sample_token()])),
    ];
    crate::golden::compare("tables.txt", &all.concat());
}
