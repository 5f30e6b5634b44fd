//! Hosts are asked for indexes that have not arrived.

use std::time::Duration;

use coord_shared::level::Level;

use super::entries::tree;
use super::fixture::{Fleet, sealed};
use crate::catalog::Catalog;
use crate::catalog::testing::with_config;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_missing_index_is_asked_for_with_growing_pauses_and_only_the_time_of_asking_counts() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let fleet = Fleet::new(&catalog).await;
        let backup = fleet.back_up(1, sealed(Level::Full, None, 2)).await;
        let due = async || catalog.indexes_to_ask_for(&[fleet.host], 10).await.unwrap().len();
        let pass = async |table: &str, column: &str, time: &str| {
            let later = format!("UPDATE {table} SET {column} = {column} - INTERVAL '{time}'");
            client.batch_execute(&later).await.unwrap();
        };
        let ask = async |next| catalog.ask_for_index(backup, next).await.unwrap().unwrap().asked_for;
        assert_eq!(due().await, 0, "it may be on its way");
        pass("backups", "committed_at", "3 days").await;
        assert_eq!(due().await, 1);
        assert_eq!(ask(0).await, Duration::ZERO, "the host was away, and was not asked");
        for (short, long) in [("29 s", "2 s"), ("58 s", "3 s"), ("115 s", "6 s")] {
            pass("index_asks", "asked_at", short).await;
            assert_eq!(due().await, 0, "asked {short} ago");
            pass("index_asks", "asked_at", long).await;
            assert_eq!(due().await, 1);
            ask(0).await;
        }
        pass("index_asks", "asked_at", "30 days").await;
        let asked_for = ask(0).await;
        assert!(asked_for > 2 * HOUR && asked_for < 3 * HOUR, "away for the rest of a month: {asked_for:?}");
        assert_eq!(ask(1).await, Duration::ZERO, "a block has come");

        assert!(catalog.note_index_excuse(backup, fleet.host, "its disk is not mounted").await.unwrap());
        let other = Fleet::new(&catalog).await;
        assert!(!catalog.note_index_excuse(backup, other.host, "not mine").await.unwrap());
        assert_eq!(catalog.ask_for_index(backup, 1).await.unwrap().unwrap().said, "its disk is not mounted");
        fleet.ingest(backup, &tree(), 2).await;
        catalog.merge_next(fleet.job).await.unwrap();
        assert_eq!(catalog.ask_for_index(backup, 2).await.unwrap(), None, "it is here");
        assert_eq!(due().await, 0);
    })
    .await;
}
