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
