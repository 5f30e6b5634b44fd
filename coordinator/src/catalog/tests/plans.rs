//! How Postgres carries out the catalog's statements in a fleet of ten thousand hosts: no statement reads a large table from end to end.
//!
//! Every statement is looked at, in the plan that serves any parameters, so that a new one is a hot one until somebody lists it below
//! with a reason. What is listed and does not need it any more has to go from the list.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tokio_postgres::Client;

use super::schema::FILES;
use crate::catalog::testing::with_config;
use crate::catalog::{CatalogConfig, beats, claims, leases};

/// Tables that grow with hosts, runs or files.
const LARGE: &[&str] = &[
    "attempts",
    "audit",
    "backups",
    "certificates",
    "decisions",
    "file_versions",
    "folders",
    "hosts",
    "jobs",
    "placed_blocks",
    "planned_runs",
    "run_events",
    "run_left_out",
    "run_reports",
    "run_warnings",
    "runs",
    "staged_blocks",
    "staged_entries",
    "token_redemptions",
];

/// Statements that may read a large table from end to end, and why.
const SELDOM: &[(&str, &str)] = &[
    ("backups::BY_PREFIX", "somebody types the beginning of an id"),
    ("backups::LIST", "somebody lists backups; the plan for the filters that are given is another"),
    ("backups::NOT_SEARCHABLE", "somebody asks for the state of the catalog"),
    ("certificates::FORGET_OLD", "every hour"),
    ("claims::HELD", "the hosts of all runs that are held, which may be all hosts"),
    ("duplicates::DUPLICATION", "a report on every content of the fleet, within a time"),
    ("health::FIGURES", "counts the hosts"),
    ("jobs::LIST", "somebody lists jobs; the plan for the filters that are given is another"),
    ("pauses::LOOK_AGAIN", "somebody pauses the fleet"),
    ("policies::END_JOBS", "somebody applies a policy: any host may be one of its own"),
    ("runs::LIST", "somebody lists runs; the plan for the filters that are given is another"),
    ("schedule::FORGET_PLANS", "every hour"),
    (
        "staged::OTHERS",
        "ends at the first block of another backup; without one, the blocks of one index are all there are",
    ),
];

/// Statements whose transaction forbids to read a table from end to end, since Postgres' estimates do not know what their index is worth.
const FORBIDDEN: &[&str] = &["history::BY_DIGEST"];

/// A fleet of ten thousand hosts with a month of runs; the contents of a few of them.
const FLEET: &str = "
    ALTER TABLE runs DISABLE TRIGGER USER;
    ALTER TABLE decisions DISABLE TRIGGER USER;
    ALTER TABLE run_warnings DISABLE TRIGGER USER;
    INSERT INTO coordinators (coordinator_id, endpoint, version, quiet_until) VALUES (gen_random_uuid(), 'x:1', '1', now());
    INSERT INTO hosts (host_id, name, labels, session_number, session_open, session_instance, session_coordinator, last_seen_at)
        SELECT gen_random_uuid(), 'host-' || n, '{\"role\": \"web\"}', 3, true, gen_random_uuid(), c.coordinator_id, now()
        FROM generate_series(1, 10000) n CROSS JOIN coordinators c;
    INSERT INTO certificates (serial, subject_kind, subject_id, generation, public_key_sha256, pem, not_after)
        SELECT md5(h.host_id::text || g), 'agent', h.host_id::text, g, sha256((h.host_id::text || g)::bytea), repeat('x', 700), now()
        FROM hosts h CROSS JOIN generate_series(1, 3) g;
    INSERT INTO tokens (token_id, secret_sha256, kind, uses_left, created_by, expires_at)
        SELECT gen_random_uuid(), sha256('x'), 'agent', 0, 'admin', now() FROM generate_series(1, 100);
    INSERT INTO token_redemptions (token_id, public_key_sha256, subject_kind, subject_id, serial)
        SELECT t.token_id, c.public_key_sha256, 'agent', c.subject_id, c.serial
        FROM certificates c CROSS JOIN LATERAL (SELECT token_id FROM tokens LIMIT 1) t WHERE c.generation = 1;
    INSERT INTO audit (actor_kind, actor, action, subject)
        SELECT 'agent', n::text, 'host_joined', n::text FROM generate_series(1, 20000) n;
    INSERT INTO policies (policy_id, name, version) SELECT gen_random_uuid(), 'policy-' || n, 2 FROM generate_series(1, 20) n;
    INSERT INTO policy_versions (policy, version, toml, spec, applied_by)
        SELECT p.policy, v, 'x', '{}', 'admin' FROM policies p CROSS JOIN generate_series(1, 2) v;
    INSERT INTO jobs (job_id, host, policy, backup_due_at, verify_due_at)
        SELECT gen_random_uuid(), h.host, p.policy, now() + random() * INTERVAL '1 day', now() + random() * INTERVAL '7 days'
        FROM hosts h CROSS JOIN (SELECT policy FROM policies ORDER BY policy LIMIT 2) p;
    INSERT INTO runs (run_id, kind, host, job, policy_version, due_at, state, attempt, max_attempts, lease_session, lease_until,
            run_after, priority, asked_by, spec, started_at, ended_at)
        SELECT gen_random_uuid(), 'backup', j.host, j.job, 1, now() - n * INTERVAL '1 day',
            CASE WHEN n > 1 OR j.job > 900 THEN 'succeeded' WHEN j.job > 600 THEN 'queued' ELSE 'running' END, 1, 3, 3,
            CASE WHEN n > 1 OR j.job > 600 THEN NULL ELSE now() END, now(), 50, 'schedule', '{}', now(), now()
        FROM jobs j CROSS JOIN generate_series(1, 3) n;
    INSERT INTO attempts (run_id, attempt, session) SELECT run_id, 1, 3 FROM runs;
    INSERT INTO run_reports (run_id, attempt, sequence) SELECT run_id, 1, n FROM runs CROSS JOIN generate_series(1, 2) n;
    INSERT INTO run_events (run_id, attempt, kind, detail)
        SELECT run_id, 1, 'phase', 'packing' FROM runs CROSS JOIN generate_series(1, 2) n;
    INSERT INTO run_warnings (run_id, attempt, sequence, position, path, kind, detail)
        SELECT run_id, 1, 1, 1, 'srv/x', 'unreadable', 'x' FROM runs LIMIT 20000;
    INSERT INTO run_left_out (run_id, position, rule, detail, files, folders, bytes)
        SELECT run_id, 1, 'pattern', '*.tmp', 1, 0, 1 FROM runs LIMIT 20000;
    INSERT INTO decisions (run_id, job, attempt, stage, level, rule, reason, inputs, options)
        SELECT run_id, job, 1, 'before_scan', 'full', 'first', 'x', '{}', '{}' FROM runs;
    INSERT INTO planned_runs (run_id, job, kind, due_at, level, policy_version)
        SELECT gen_random_uuid(), job, 'backup', now() + n * INTERVAL '1 day', 'differential', 1
        FROM jobs CROSS JOIN generate_series(1, 3) n;
    ALTER TABLE backups ALTER archive_of DROP NOT NULL;
    INSERT INTO backups (backup_id, host, job, seq, ordinal, level, base, archive_of, run_id, attempt, policy_version, location_folder,
            location_key, archive_digest, stored_bytes, codec, selection_digest, started_at, captured_at, clock_offset_us, entries, files,
            content_bytes, source_files, source_bytes, changed_files, changed_bytes, removed, index_blocks, unreadable,
            changed_while_read, scan_ms, pack_ms, seal_ms, verify_ms, status, searchable, checks)
        SELECT gen_random_uuid(), r.host, r.job, n.seq, n.seq, 'full', NULL, NULL,
            r.run_id, 1, 1, '/a', 'k', '\\x00', 1, 'zstd', '\\x00', now(), r.due_at, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1, 1,
            'protected', CASE WHEN n.seq = 3 AND r.job > 19000 THEN 'pending' ELSE 'searchable' END, '[]'
        FROM runs r CROSS JOIN LATERAL (SELECT 4 - extract(day FROM now() - r.due_at)::integer AS seq) n
        WHERE r.state = 'succeeded';
    UPDATE backups SET archive_of = backup;
    ALTER TABLE backups ALTER archive_of SET NOT NULL;
    INSERT INTO folders (host, parent, name)
        SELECT h.host, n / 10, ('folder-' || n)::bytea FROM generate_series(1, 1000) n CROSS JOIN (SELECT host FROM hosts LIMIT 60) h;
    INSERT INTO file_versions (host, job, folder, size, mtime_s, digest_head, digest_tail, state, first_seq, last_seq, mtime_ns, uid, gid,
            mode, flags, kind, name, link_target)
        SELECT f.host, j.job, f.folder, 1, 1, ('x' || substr(md5(f.folder || '-' || n), 1, 16))::bit(64)::bigint, 1, n, 1,
            CASE WHEN n = 1 THEN 3 ELSE 2147483647 END, 1, 1, 1, 420, 0, 'f', ('file-' || n)::bytea, ''
        FROM folders f CROSS JOIN generate_series(1, 5) n
        CROSS JOIN LATERAL (SELECT job FROM jobs j WHERE j.host = f.host ORDER BY job LIMIT 1) j;
    INSERT INTO staged_blocks (backup, number, last) SELECT b, n, n = 20 FROM generate_series(1, 300) b CROSS JOIN generate_series(1, 20) n;
    INSERT INTO placed_blocks (backup, number, entries) SELECT b, n, 4096 FROM generate_series(301, 600) b CROSS JOIN generate_series(1, 20) n;
    INSERT INTO staged_entries (backup, folder, size, mtime_s, digest_head, digest_tail, state, mtime_ns, uid, gid, mode, flags, kind,
            name, link_target)
        SELECT b, n, 1, 1, n, n, n, 1, 1, 1, 420, 0, 'f', ('file-' || n)::bytea, ''
        FROM generate_series(1, 200) b CROSS JOIN generate_series(1, 500) n;
    ANALYZE;";

/// The large tables that a plan reads from end to end.
fn scanned(plan: &serde_json::Value, found: &mut BTreeSet<String>) {
    if let Some(relation) = plan["Relation Name"].as_str()
        && plan["Node Type"] == "Seq Scan"
        && LARGE.contains(&relation)
    {
        found.insert(relation.to_owned());
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        scanned(below, found);
    }
}

/// The plan of a statement for any parameters. `None`: Postgres does not plan it.
async fn plan_of(client: &Client, sql: &str) -> Option<serde_json::Value> {
    let first = sql.split_whitespace().next().unwrap_or_default();
    if !["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first) {
        return None;
    }
    let parameters = client.prepare(sql).await.unwrap().params().len();
    let nulls = vec!["NULL"; parameters].join(", ");
    let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
    client.batch_execute(&format!("PREPARE hot AS {sql}")).await.unwrap();
    let explained = client.query_one(&format!("EXPLAIN (FORMAT JSON) EXECUTE hot{arguments}"), &[]).await.unwrap();
    client.batch_execute("DEALLOCATE hot").await.unwrap();
    let plans: serde_json::Value = explained.get(0);
    Some(plans[0]["Plan"].clone())
}

#[tokio::test]
async fn no_statement_reads_a_large_table_from_end_to_end() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        client.batch_execute(FLEET).await.unwrap();
        client.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
        let mut wrong = String::new();
        let mut looked_at = 0;
        for (file, statements) in FILES {
            for (name, sql) in *statements {
                let statement = format!("{file}::{name}");
                let scans = if FORBIDDEN.contains(&statement.as_str()) { "off" } else { "on" };
                client.batch_execute(&format!("SET enable_seqscan = {scans}")).await.unwrap();
                let Some(plan) = plan_of(&client, sql.0).await else { continue };
                let mut found = BTreeSet::new();
                scanned(&plan, &mut found);
                looked_at += 1;
                let allowed = SELDOM.iter().any(|(seldom, _)| *seldom == statement);
                if found.is_empty() && allowed {
                    writeln!(wrong, "{statement} reads no large table from end to end: take it from the list").unwrap();
                } else if !found.is_empty() && !allowed {
                    writeln!(wrong, "{statement} reads {found:?} from end to end").unwrap();
                }
            }
        }
        assert!(looked_at > 200, "only {looked_at} statements");
        assert!(wrong.is_empty(), "\n{wrong}");
    })
    .await;
}

/// Indexes of what waits for something: empty at most times, and long at some.
const QUEUES: &[&str] = &[
    "backups_pending",
    "runs_cancelling",
    "runs_ended",
    "runs_held",
    "runs_kept",
    "runs_leases",
    "runs_limited",
    "runs_one_open_backup",
    "runs_queue",
    "runs_waiting",
];

/// Statements that may go along a queue from its beginning, and why. All others look something up in it, or leave it alone.
const GO_ALONG: &[(&str, &str)] = &[
    ("backups::ASK_FOR", "all that are wanted of the hosts that are connected"),
    ("claims::ANY_OF_OURS", "ends at the first"),
    ("claims::ANY_WAITING", "ends at the first"),
    ("claims::HELD", "all that is held, to be counted"),
    ("claims::WAITING", "the queue itself, for a thousand claims"),
    ("lapses::LONG", "those that take too long, which are few among those that may"),
    ("leases::REAP", "all leases that have lapsed"),
    ("merge::READY_JOBS", "the first of each job"),
    ("run_history::ENDED_BEFORE", "the oldest, a page"),
    ("run_history::KEPT_LONG", "the oldest, a page"),
    ("runs::CANCELLING", "those that an operator cancels"),
];

/// Postgres looked when nothing waited for anything.
const ALL_IS_DONE: &str = "
    UPDATE runs SET state = 'succeeded', lease_until = NULL, steps_forgotten_at = 'infinity';
    UPDATE backups SET searchable = 'searchable';
    VACUUM ANALYZE runs;
    VACUUM ANALYZE backups;";

/// A client of the fleet after these statements, each by itself: several in one message are one transaction, in which nothing is vacuumed.
async fn fleet_since(config: &CatalogConfig, statements: &str) -> Client {
    let client = config.connect().await.unwrap();
    client.batch_execute(FLEET).await.unwrap();
    for statement in statements.split_inclusive(';') {
        client.batch_execute(statement).await.unwrap();
    }
    client
}

/// The queues that a plan goes along: reads by no key.
fn queues_walked(plan: &serde_json::Value, found: &mut BTreeSet<String>) {
    let index = plan["Index Name"].as_str().unwrap_or_default();
    if QUEUES.contains(&index) && !plan["Index Cond"].as_str().unwrap_or_default().contains(" = ") {
        found.insert(index.to_owned());
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        queues_walked(below, found);
    }
}

#[tokio::test]
async fn what_has_a_key_is_not_searched_for_along_a_queue_that_was_empty_when_postgres_looked() {
    with_config(async |config| {
        let client = fleet_since(&config, ALL_IS_DONE).await;
        client.batch_execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
        let mut wrong = String::new();
        for (file, statements) in FILES {
            for (name, sql) in *statements {
                let statement = format!("{file}::{name}");
                let Some(plan) = plan_of(&client, sql.0).await else { continue };
                let mut found = BTreeSet::new();
                queues_walked(&plan, &mut found);
                let allowed = GO_ALONG.iter().any(|(walks, _)| *walks == statement);
                if found.is_empty() && allowed {
                    writeln!(wrong, "{statement} goes along no queue: take it from the list").unwrap();
                } else if !found.is_empty() && !allowed {
                    writeln!(wrong, "{statement} goes along {found:?}").unwrap();
                }
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    })
    .await;
}

/// Ten thousand runs are queued since Postgres looked how many there are: none.
const SUDDENLY_DUE: &str = "
    UPDATE runs SET state = 'succeeded', lease_until = NULL;
    VACUUM ANALYZE runs;
    UPDATE runs SET state = 'queued', run_after = now(), lease_session = NULL
        WHERE run_id IN (SELECT run_id FROM runs ORDER BY due_at DESC, run_id LIMIT 10000);";

/// A hundred of them, as arguments of a statement.
const SOME_OF_THEM: &str = "
    SELECT array_agg(r.run_id)::text, array_agg(h.host_id)::text, array_fill(3, ARRAY[100])::text, array_fill($1::integer, ARRAY[100])::text,
        array_fill('{}'::jsonb, ARRAY[100])::text
    FROM (SELECT run_id, host FROM runs WHERE state = $2 ORDER BY run_id LIMIT 100) r JOIN hosts h ON h.host = r.host";

/// How many rows of `runs` were read, by a plan that was carried out.
fn runs_read(plan: &serde_json::Value) -> u64 {
    let figure = |name: &str| plan[name].as_u64().unwrap_or_default();
    let own = if plan["Relation Name"] == "runs" && plan["Node Type"] != "ModifyTable" {
        (figure("Actual Rows") + figure("Rows Removed by Filter")) * figure("Actual Loops")
    } else {
        0
    };
    own + plan["Plans"].as_array().into_iter().flatten().map(runs_read).sum::<u64>()
}

#[tokio::test]
async fn a_hundred_runs_are_claimed_kept_and_beaten_by_reading_a_hundred_however_many_came_due_at_once() {
    with_config(async |config| {
        let client = fleet_since(&config, SUDDENLY_DUE).await;
        for plans in ["force_generic_plan", "force_custom_plan"] {
            client.batch_execute(&format!("SET plan_cache_mode = {plans}; BEGIN")).await.unwrap();
            for (what, sql, (attempt, state)) in [
                ("claimed", &claims::CLAIM, (1, "queued")),
                ("kept", &leases::KEEP, (2, "leased")),
                ("beaten", &beats::BEAT_MANY, (2, "leased")),
            ] {
                let some = client.query_one(SOME_OF_THEM, &[&attempt, &state]).await.unwrap();
                let [runs, hosts, sessions, attempts, progress]: [String; 5] = std::array::from_fn(|n| some.get(n));
                let arguments = match what {
                    "claimed" => format!("'{runs}', '{hosts}', '{sessions}', 60"),
                    "kept" => format!("60, '{runs}', '{attempts}'"),
                    _ => format!("60, '{hosts}', '{sessions}', '{runs}', '{attempts}', '{progress}'"),
                };
                client.batch_execute(&format!("PREPARE hot AS {}", sql.0)).await.unwrap();
                let explain = format!("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE hot({arguments})");
                let explained: serde_json::Value = client.query_one(&explain, &[]).await.unwrap().get(0);
                client.batch_execute("DEALLOCATE hot").await.unwrap();
                let read = runs_read(&explained[0]["Plan"]);
                assert!(
                    (200..=400).contains(&read),
                    "{plans}: {read} rows are read so that 100 are {what}: {explained:#}"
                );
            }
            client.batch_execute("ROLLBACK").await.unwrap();
        }
    })
    .await;
}
