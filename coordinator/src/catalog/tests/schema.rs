//! The schema and the statements: one fits the other, and the words in both are those of the code.

use std::collections::BTreeSet;

use coord_shared::left_out::LeftOutBy;
use coord_shared::level::Level;
use coord_shared::run::{RunKind, RunState};

use crate::catalog::pool::Sql;
use crate::catalog::testing::{with_config, with_empty};
use crate::catalog::{
    AttemptOutcome, BackupStatus, Catalog, CatalogConfig, CertificateState, Codec, DecisionStage, HostState, JobState,
    LimitScope, MigrateError, OperatorRole, RunEventKind, SCHEMA_VERSION, Searchable, TokenKind, VersionKind,
    VersionOrigin, audit, backups, beats, certificates, changes, claims, commit, contents, coordinators, decisions,
    due, duplicates, fleet, folder_keys, full_plan, health, history, hosts, index_asks, ingest, jobs, labels, lapses,
    leases, left_out, limits, listing, measures, merge, migrate, newest_chains, operators, owing, pauses, placing,
    plans, policies, policy_defaults, recorded, reports, revocation, run_events, run_history, run_keys, run_policies,
    runs, schedule, sessions, staged, tokens, walk,
};

pub(super) type Statements = &'static [(&'static str, &'static Sql)];

pub(super) const FILES: &[(&str, Statements)] = &[
    ("audit", audit::STATEMENTS),
    ("backups", backups::STATEMENTS),
    ("beats", beats::STATEMENTS),
    ("certificates", certificates::STATEMENTS),
    ("claims", claims::STATEMENTS),
    ("changes", changes::STATEMENTS),
    ("commit", commit::STATEMENTS),
    ("contents", contents::STATEMENTS),
    ("coordinators", coordinators::STATEMENTS),
    ("decisions", decisions::STATEMENTS),
    ("due", due::STATEMENTS),
    ("duplicates", duplicates::STATEMENTS),
    ("fleet", fleet::STATEMENTS),
    ("full_plan", full_plan::STATEMENTS),
    ("health", health::STATEMENTS),
    ("history", history::STATEMENTS),
    ("hosts", hosts::STATEMENTS),
    ("index_asks", index_asks::STATEMENTS),
    ("folder_keys", folder_keys::STATEMENTS),
    ("ingest", ingest::STATEMENTS),
    ("jobs", jobs::STATEMENTS),
    ("labels", labels::STATEMENTS),
    ("lapses", lapses::STATEMENTS),
    ("leases", leases::STATEMENTS),
    ("left_out", left_out::STATEMENTS),
    ("limits", limits::STATEMENTS),
    ("listing", listing::STATEMENTS),
    ("measures", measures::STATEMENTS),
    ("merge", merge::STATEMENTS),
    ("migrate", migrate::STATEMENTS),
    ("newest_chains", newest_chains::STATEMENTS),
    ("operators", operators::STATEMENTS),
    ("owing", owing::STATEMENTS),
    ("pauses", pauses::STATEMENTS),
    ("placing", placing::STATEMENTS),
    ("plans", plans::STATEMENTS),
    ("policies", policies::STATEMENTS),
    ("policy_defaults", policy_defaults::STATEMENTS),
    ("recorded", recorded::STATEMENTS),
    ("reports", reports::STATEMENTS),
    ("revocation", revocation::STATEMENTS),
    ("run_history", run_history::STATEMENTS),
    ("run_keys", run_keys::STATEMENTS),
    ("run_policies", run_policies::STATEMENTS),
    ("run_events", run_events::STATEMENTS),
    ("runs", runs::STATEMENTS),
    ("schedule", schedule::STATEMENTS),
    ("sessions", sessions::STATEMENTS),
    ("staged", staged::STATEMENTS),
    ("tokens", tokens::STATEMENTS),
    ("walk", walk::STATEMENTS),
];

#[tokio::test]
async fn every_statement_fits_the_schema() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        for (file, statements) in FILES {
            for (name, sql) in *statements {
                if let Err(error) = client.prepare(sql.0).await {
                    panic!("{file}::{name}: {error:?}");
                }
            }
        }
    })
    .await;
}

#[test]
fn no_statement_of_a_file_is_left_out() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/catalog");
    let mut listed: BTreeSet<&str> = FILES.iter().map(|(file, _)| *file).collect();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let written = text.lines().filter(|line| line.contains("const ") && line.contains(": Sql =")).count();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let known = FILES.iter().find(|(file, _)| *file == name).map_or(0, |(_, statements)| statements.len());
        assert_eq!(written, known, "STATEMENTS of {name}.rs does not list all its statements");
        listed.remove(name);
    }
    assert!(listed.is_empty(), "{listed:?}");
}

#[tokio::test]
async fn check_lists_are_the_words_of_the_code() {
    let kinds: Vec<&str> = RunKind::ALL.iter().map(|word| word.as_str()).collect();
    let levels: Vec<&str> = Level::ALL.iter().map(|word| word.as_str()).collect();
    let roles: Vec<&str> = OperatorRole::ALL.iter().map(|word| word.as_str()).collect();
    let letters: Vec<String> = VersionKind::ALL.iter().map(|kind| char::from(kind.letter()).to_string()).collect();
    let mut staged: Vec<&str> = letters.iter().map(String::as_str).collect();
    let files = staged.clone();
    staged.push("t");
    let peers = vec!["agent", "operator", "coordinator"];
    let wanted: Vec<(&str, &str, Vec<&str>)> = vec![
        ("runs", "kind", kinds.clone()),
        ("runs", "state", RunState::ALL.iter().map(|word| word.as_str()).collect()),
        ("runs", "level", levels.clone()),
        ("planned_runs", "kind", kinds),
        ("planned_runs", "level", levels.clone()),
        (
            "run_events",
            "kind",
            RunState::ALL
                .into_iter()
                .map(RunEventKind::State)
                .chain(RunEventKind::OTHERS)
                .map(RunEventKind::as_str)
                .collect(),
        ),
        ("attempts", "outcome", AttemptOutcome::ALL.iter().map(|word| word.as_str()).collect()),
        ("decisions", "stage", DecisionStage::ALL.iter().map(|word| word.as_str()).collect()),
        ("decisions", "level", levels.clone()),
        ("jobs", "state", JobState::ALL.iter().map(|word| word.as_str()).collect()),
        ("hosts", "state", HostState::ALL.iter().map(|word| word.as_str()).collect()),
        ("operators", "state", HostState::ALL.iter().map(|word| word.as_str()).collect()),
        ("operators", "role", roles.clone()),
        ("tokens", "operator_role", roles),
        ("tokens", "kind", TokenKind::ALL.iter().map(|word| word.as_str()).collect()),
        ("certificates", "state", CertificateState::ALL.iter().map(|word| word.as_str()).collect()),
        ("certificates", "subject_kind", peers.clone()),
        ("token_redemptions", "subject_kind", peers.clone()),
        ("audit", "actor_kind", peers),
        ("backups", "level", levels),
        ("backups", "status", BackupStatus::ALL.iter().map(|word| word.as_str()).collect()),
        ("backups", "searchable", Searchable::ALL.iter().map(|word| word.as_str()).collect()),
        ("backups", "codec", Codec::ALL.iter().map(|word| word.as_str()).collect()),
        ("policy_versions", "origin", VersionOrigin::ALL.iter().map(|word| word.as_str()).collect()),
        ("file_versions", "kind", files),
        ("run_left_out", "rule", LeftOutBy::ALL.iter().map(|word| word.as_str()).collect()),
        ("limits", "scope", LimitScope::ALL.iter().map(|word| word.stored()).collect()),
        ("staged_entries", "kind", staged),
    ];
    with_config(async |config| {
        let mut found = check_lists(&config).await;
        for (table, column, words) in wanted {
            let key = (table.to_owned(), column.to_owned());
            let at =
                found.iter().position(|(at, _)| *at == key).unwrap_or_else(|| panic!("{table}.{column} has no list"));
            let words: BTreeSet<String> = words.into_iter().map(str::to_owned).collect();
            assert_eq!(found.remove(at).1, words, "{table}.{column}");
        }
        assert!(found.is_empty(), "lists that no enum is compared with: {found:?}");
    })
    .await;
}

type CheckList = ((String, String), BTreeSet<String>);

/// Every `CHECK (column IN (...))`: table, column and words.
async fn check_lists(config: &CatalogConfig) -> Vec<CheckList> {
    let rows = config
        .connect()
        .await
        .unwrap()
        .query(
            "SELECT c.conrelid::regclass::text AS name, a.attname::text AS column, pg_get_constraintdef(c.oid) AS text
             FROM pg_constraint c
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
             WHERE c.contype = 'c' AND cardinality(c.conkey) = 1 AND c.connamespace = 'public'::regnamespace",
            &[],
        )
        .await
        .unwrap();
    let mut lists = Vec::new();
    for row in rows {
        let text: String = row.get("text");
        if !text.contains("ANY (ARRAY") {
            continue;
        }
        let words = text.split('\'').skip(1).step_by(2).map(str::to_owned).collect();
        lists.push(((row.get("name"), row.get("column")), words));
    }
    lists
}

#[tokio::test]
async fn migrations_run_from_empty_twice_and_side_by_side() {
    with_empty(async |config| {
        let catalogs: Vec<Catalog> = (0..2).map(|_| Catalog::new(config.clone()).unwrap()).collect();
        let (one, two) = tokio::join!(catalogs[0].migrate(), catalogs[1].migrate());
        assert_eq!((one.unwrap(), two.unwrap()), (SCHEMA_VERSION, SCHEMA_VERSION));
        assert_eq!(catalogs[0].migrate().await.unwrap(), SCHEMA_VERSION);
        assert!(catalogs[0].now().await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_schema_that_this_program_cannot_use_is_refused() {
    with_config(async |config| {
        let insert = "INSERT INTO schema_version (version, name, compatible_from) VALUES ($1, 'later', $2)";
        let client = config.connect().await.unwrap();
        let newer = i32::try_from(SCHEMA_VERSION).unwrap() + 1;
        client.execute(insert, &[&newer, &(newer - 1)]).await.unwrap();
        let catalog = Catalog::new(config.clone()).unwrap();
        assert_eq!(catalog.migrate().await.unwrap(), SCHEMA_VERSION + 1, "a compatible newer schema is used");
        client.execute(insert, &[&(newer + 1), &newer]).await.unwrap();
        assert!(matches!(catalog.migrate().await, Err(MigrateError::TooNew { .. })));
    })
    .await;
}

#[tokio::test]
async fn deeds_are_never_changed() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let insert = "INSERT INTO audit (actor_kind, actor, action, subject) VALUES ('operator', 'ada', 'x', 'y')";
        client.execute(insert, &[]).await.unwrap();
        for statement in ["UPDATE audit SET actor = 'eve'", "DELETE FROM audit", "TRUNCATE audit"] {
            assert!(client.execute(statement, &[]).await.is_err(), "{statement}");
        }
    })
    .await;
}

/// Statements that run often, and the tables that they must not read from end to end.
const HOT: &[(&Sql, &[&str])] = &[
    (&claims::WAITING, &["runs"]),
    (&claims::CLAIM, &["runs", "attempts"]),
    (&leases::BEAT, &["runs"]),
    (&leases::KEEP, &["runs"]),
    (&leases::REAP, &["runs", "attempts"]),
    (&listing::LIST, &["file_versions", "folders"]),
    (&listing::FIND_FOLDER, &["folders"]),
    (&listing::FIND_VERSION, &["file_versions"]),
    (&listing::TOTALS, &["file_versions", "folders"]),
    (&changes::CHANGED_FOLDERS, &["file_versions", "folders"]),
    (&measures::OF_JOB, &["jobs", "hosts", "backups", "runs"]),
    (&run_events::OF_RUN, &["run_events"]),
    (&run_history::ENDED_BEFORE, &["runs"]),
    (&run_history::KEPT_LONG, &["runs"]),
    (&run_history::JUDGE, &["runs", "backups"]),
    (&history::HISTORY, &["file_versions", "backups"]),
    (&history::BY_DIGEST, &["file_versions", "folders"]),
    (&walk::LIST_SMALL, &["file_versions", "folders"]),
    (&merge::STAGE_RETURNS, &["file_versions", "staged_entries"]),
    (&merge::CLOSE_DIFFERENTIAL, &["file_versions", "staged_entries"]),
    (&merge::READY_JOBS, &["backups", "jobs", "staged_blocks", "placed_blocks"]),
    (&schedule::DUE_JOBS, &["jobs"]),
    (&owing::OWING, &["jobs"]),
    (&lapses::LATE, &["runs"]),
    (&lapses::LONG, &["runs"]),
    (&folder_keys::FIND_FOLDERS, &["folders"]),
    (&backups::NEWEST, &["backups"]),
    (&backups::ASK_FOR, &["backups", "index_asks"]),
    (&certificates::BY_SERIAL, &["certificates"]),
];

#[tokio::test]
async fn hot_statements_use_indexes() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        // Tables are empty here, so the planner is told that reading them whole is dear; where an index serves, it shows.
        let settings = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan; SET enable_hashjoin = off;
                        SET enable_mergejoin = off";
        client.batch_execute(settings).await.unwrap();
        for (number, (sql, tables)) in HOT.iter().enumerate() {
            let parameters = client.prepare(sql.0).await.unwrap().params().len();
            client.batch_execute(&format!("PREPARE hot_{number} AS {}", sql.0)).await.unwrap();
            let nulls = vec!["NULL"; parameters].join(", ");
            let rows = client.query(&format!("EXPLAIN EXECUTE hot_{number} ({nulls})"), &[]).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            for table in *tables {
                let whole = format!("Seq Scan on {table} ");
                assert!(!plan.iter().any(|line| line.contains(&whole)), "{}\n{}", sql.0, plan.join("\n"));
            }
        }
    })
    .await;
}
