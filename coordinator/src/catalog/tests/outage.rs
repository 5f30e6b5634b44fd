//! The database goes away and comes back: errors say so at once, and nothing has to be restarted.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::Seq;

use super::fixture::Fleet;
use crate::catalog::testing::with_config;
use crate::catalog::{Catalog, CatalogConfig, CatalogError};
use crate::postgres::Private;

#[tokio::test]
async fn the_catalog_survives_a_stop_and_a_start_of_its_database() {
    let scratch = tempfile::tempdir().unwrap();
    // The database's user has to get through.
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let folder = scratch.path().join("s");
    let server = Private::start(&folder).await.unwrap();
    let catalog = Catalog::new(CatalogConfig::from_url(&server.url()).unwrap()).unwrap();
    catalog.migrate().await.unwrap();
    catalog.claim_fleet("demo").await.unwrap();
    let started = catalog.now().await.unwrap();

    server.stop().await.unwrap();
    for _ in 0..3 {
        let asked = Instant::now();
        let error = catalog.claim_fleet("demo").await.unwrap_err();
        assert!(matches!(error, CatalogError::Unavailable(_)) && error.is_retryable(), "{error:?}");
        assert!(asked.elapsed() < Duration::from_secs(5), "an outage is no hang");
    }

    let server = Private::start(&folder).await.unwrap();
    assert_eq!(catalog.claim_fleet("other").await.unwrap().name, "demo");
    assert!(catalog.now().await.unwrap() > started);
    catalog.close();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_takes_no_writes_any_more_is_left_for_the_one_that_does() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let (mut servers, mut hosts) = (Vec::new(), Vec::new());
    for name in ["a", "b"] {
        let server = Private::start(&scratch.path().join(name)).await.unwrap();
        let own = Catalog::new(CatalogConfig::from_url(&server.url()).unwrap()).unwrap();
        own.migrate().await.unwrap();
        // Which of the two answers is told by the fleet's name.
        own.claim_fleet(name).await.unwrap();
        own.close();
        hosts.push(server.url().split('\'').nth(1).unwrap().to_owned());
        servers.push(server);
    }
    let url = format!("host='{}' user=postgres dbname=coordinator", hosts.join(","));
    let catalog = Catalog::new(CatalogConfig::from_url(&url).unwrap()).unwrap();
    assert_eq!(catalog.claim_fleet("none").await.unwrap().name, "a");

    // What a failover makes of a server that goes on running: it reads, and takes no writes.
    let demote = CatalogConfig::from_url(&servers[0].url()).unwrap().connect().await.unwrap();
    demote.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
    demote.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let begun = Instant::now();
    loop {
        match catalog.claim_fleet("none").await {
            Ok(fleet) if fleet.name == "b" => break,
            // The change has not reached the old connection yet.
            Ok(_) => {}
            Err(error) => assert!(matches!(error, CatalogError::Unavailable(_)), "{error:?}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the old server is still used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    catalog.close();
    drop(demote);
    for server in servers {
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn an_address_without_a_server_is_an_outage_and_no_hang() {
    let config = CatalogConfig::from_url("host=/nowhere user=postgres dbname=none").unwrap();
    let catalog = Catalog::new(config).unwrap();
    assert!(matches!(catalog.now().await, Err(CatalogError::Unavailable(_))));
    let error = catalog.migrate().await.unwrap_err();
    assert!(matches!(error, crate::catalog::MigrateError::Database(CatalogError::Unavailable(_))), "{error:?}");
    assert!(CatalogConfig::from_url("no address").is_err());
}

#[tokio::test]
async fn a_statement_that_is_stopped_for_its_time_is_no_outage() {
    with_config(async |config| {
        let mut client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let fleet = Fleet::new(&catalog).await;
        let busy = client.transaction().await.unwrap();
        busy.batch_execute("LOCK TABLE file_versions").await.unwrap();
        let within = Duration::from_millis(20);
        let error = catalog.subtree_totals(fleet.job, Seq(1), b"", within).await.unwrap_err();
        assert!(matches!(error, CatalogError::TookTooLong(_)) && error.is_retryable(), "{error:?}");
        let fault = Fault::from(error);
        assert_eq!(fault.code, ErrorCode::TimedOut);
        assert!(fault.hint.contains("ask for less"), "{fault}");
        busy.commit().await.unwrap();
        assert!(catalog.subtree_totals(fleet.job, Seq(1), b"", Duration::from_secs(60)).await.is_ok());
    })
    .await;
}
