//! One part of the fleet is newer than the other: the schema, an agent.

use coord_shared::api;
use coord_shared::api::Disposition;
use coord_shared::fault::ErrorCode;
use coord_shared::ids::InstanceId;
use coordinator::catalog::{BackupFilter, SCHEMA_VERSION};

use super::health::ask;
use super::runs::{POLICY, apply, backup_of, dial, dial_at, finished, hello, start_backup};
use super::support::{Fleet, wait_for};

/// What a later release may do to the schema: it adds, and programs of today leave what they do not know as it is.
const ADDS: &str = "
    ALTER TABLE runs ADD COLUMN later text NOT NULL DEFAULT 'so far';
    ALTER TABLE attempts ADD COLUMN later text NOT NULL DEFAULT 'so far';
    ALTER TABLE backups ADD COLUMN later bigint;
    ALTER TABLE hosts ADD COLUMN later jsonb NOT NULL DEFAULT '{}';
    CREATE TABLE later (later bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run_id uuid REFERENCES runs (run_id));
    CREATE INDEX later_runs ON runs (later)";

async fn migrate(fleet: &Fleet, statements: &str, ahead: u32, compatible_from: u32) {
    let (mut client, connection) = tokio_postgres::connect(&fleet.url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute(statements).await.unwrap();
    let insert = "INSERT INTO schema_version (version, name, compatible_from) VALUES ($1, 'later', $2)";
    let (version, from) = ((SCHEMA_VERSION + ahead).cast_signed(), compatible_from.cast_signed());
    transaction.execute(insert, &[&version, &from]).await.unwrap();
    transaction.commit().await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_works_on_a_schema_that_grew_and_leaves_one_that_is_too_new() {
    let mut fleet = Fleet::start().await;
    let (admin, member) = (fleet.admin().await, fleet.agent("one").await);
    apply(&admin, POLICY).await;
    let mut agent = dial(&fleet, &member, hello(InstanceId::random())).await.unwrap();
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;

    migrate(&fleet, ADDS, 1, SCHEMA_VERSION).await;
    agent.say_what_nobody_knows().await;
    assert_eq!(agent.report(&order, 1, finished(&backup_of(&order))).await, Disposition::Forget);
    start_backup(&admin, api::Level::Full).await;
    let order = agent.order().await;
    assert_eq!(agent.report(&order, 1, finished(&backup_of(&order))).await, Disposition::Forget);
    assert_eq!(fleet.catalog.backups(BackupFilter::default()).await.unwrap().len(), 2);
    let (status, text) = ask(&fleet.health, "GET /readyz HTTP/1.1").await;
    assert!(status == 200 && text.contains(&format!("schema: version {}", SCHEMA_VERSION + 1)), "{text}");

    // It starts on it too.
    fleet.restart().await;
    let other = fleet.second().await;
    let mut agent = dial_at(&other.main, &member, hello(InstanceId::random())).await.unwrap();
    migrate(&fleet, "SELECT 1", 2, SCHEMA_VERSION + 1).await;
    let (health, ended) = (other.health.clone(), agent.wait_for_end());
    let unready = || async {
        let (status, text) = ask(&health, "GET /readyz HTTP/1.1").await;
        (status == 503).then_some(text)
    };
    let said = wait_for("it to say that it is too old", unready).await;
    assert!(said.starts_with("FAILED schema"), "{said}");
    assert_eq!(ended.await.code, ErrorCode::Unavailable);
    other.ended().await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_let_in_when_it_is_a_minor_version_older_or_newer_and_told_what_to_upgrade_otherwise() {
    let fleet = Fleet::start().await;
    let member = fleet.agent("one").await;
    let instance = InstanceId::random();
    let with = |version: &str| api::Hello { version: version.into(), ..hello(instance) };
    let greeted = dial(&fleet, &member, with(env!("CARGO_PKG_VERSION"))).await.unwrap().greeting;
    assert_eq!(greeted.version, env!("CARGO_PKG_VERSION"));
    // What is left out is what a peer of before does not say.
    for version in ["", "0.0.9", "0.2.0", "0.1.7-rc.1"] {
        dial(&fleet, &member, with(version)).await.unwrap_or_else(|fault| panic!("{version}: {fault}"));
    }
    for version in ["0.3.0", "1.1.0"] {
        let refused = dial(&fleet, &member, with(version)).await.err().unwrap();
        assert_eq!(refused.code, ErrorCode::Unsupported, "{version}");
        assert!(
            refused.message.contains(version) && refused.hint.starts_with("upgrade the coordinators"),
            "{refused:?}"
        );
    }
    fleet.stop().await;
}
