//! The first full of a job, whose entries are placed where they stay while its index arrives.

use coord_archive::digest::Digest;
use coord_archive::entry::Entry;
use coord_shared::ids::{BackupId, Seq};
use coord_shared::level::Level;

use super::entries::tree;
use super::fixture::{Fleet, sealed};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{BlockOutcome, Catalog, IndexProgress, MergeOutcome, Searchable, ShortDigest};

/// A full whose index has two blocks.
async fn full(fleet: &Fleet, ordinal: u64) -> BackupId {
    fleet.back_up(ordinal, sealed(Level::Full, None, 2)).await
}

/// What a coordinator that has heard nothing of it before makes of one block.
async fn send(fleet: &Fleet, backup: BackupId, number: u64) -> BlockOutcome {
    let mut intake = fleet.catalog.index_intake(backup, fleet.host).await.unwrap().unwrap();
    intake.store_block(number, half(number)).await.unwrap()
}

fn half(number: u64) -> &'static [Entry] {
    static TREE: std::sync::LazyLock<Vec<Entry>> = std::sync::LazyLock::new(tree);
    if number == 0 { &TREE[..2] } else { &TREE[2..] }
}

async fn merged(fleet: &Fleet) -> (u64, u64) {
    match fleet.catalog.merge_next(fleet.job).await.unwrap() {
        MergeOutcome::Merged { closed, opened, .. } => (closed, opened),
        other => panic!("{other:?}"),
    }
}

/// Names in the folder that both files of the tree are in.
async fn names(fleet: &Fleet, seq: i64) -> usize {
    fleet.catalog.list_folder(fleet.job, Seq(seq), b"etc", None, 100).await.unwrap().entries.len()
}

/// What questions over all time find: states of a path, places of a content, files with content.
async fn found(fleet: &Fleet) -> (usize, usize, u64) {
    let catalog = &fleet.catalog;
    let content = ShortDigest::from(&Digest::of(b"one"));
    let states = catalog.path_history(fleet.job, b"etc/a", 10).await.unwrap().len();
    let places = catalog.find_digest(content, 10).await.unwrap().len();
    (states, places, catalog.duplication(Some(fleet.host)).await.unwrap().1.files)
}

#[tokio::test]
async fn nothing_of_a_first_full_is_seen_before_all_of_it_is_there() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let fleet = Fleet::new(&catalog).await;
        let first = full(&fleet, 1).await;
        let second = full(&fleet, 2).await;
        assert_eq!(send(&fleet, first, 1).await, BlockOutcome::Stored);
        assert_eq!(send(&fleet, first, 1).await, BlockOutcome::AlreadyThere);
        // What the server does to tables that are not logged after a crash costs a first full nothing.
        client.batch_execute("TRUNCATE staged_blocks, staged_entries").await.unwrap();
        let progress = catalog.index_progress(first, fleet.host).await.unwrap();
        assert_eq!(progress, IndexProgress { next_block: 0, complete: false });
        assert_eq!(found(&fleet).await, (0, 0, 0));
        // The second comes sooner and waits.
        assert_eq!(
            (send(&fleet, second, 0).await, send(&fleet, second, 1).await),
            (BlockOutcome::Stored, BlockOutcome::Stored)
        );
        assert_eq!(catalog.merge_next(fleet.job).await.unwrap(), MergeOutcome::Waiting(first));

        assert_eq!(send(&fleet, first, 0).await, BlockOutcome::Stored);
        assert_eq!(found(&fleet).await, (0, 0, 0), "whole, and not searchable yet");
        let moved: i64 = client.query_one("SELECT count(*) FROM file_versions", &[]).await.unwrap().get(0);
        assert_eq!(moved, 4, "it is where it will stay");
        assert_eq!(catalog.jobs_to_merge(10).await.unwrap(), [fleet.job]);
        assert_eq!(merged(&fleet).await, (0, 4));
        assert_eq!((names(&fleet, 1).await, found(&fleet).await), (2, (1, 1, 2)));
        assert_eq!(merged(&fleet).await, (0, 0), "the second changes nothing");
        let left: i64 = client.query_one("SELECT count(*) FROM placed_blocks", &[]).await.unwrap().get(0);
        assert_eq!(left, 0);
    })
    .await;
}

#[tokio::test]
async fn a_first_full_that_is_given_up_takes_its_entries_with_it() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let lost = full(&fleet, 1).await;
        let mut late = catalog.index_intake(lost, fleet.host).await.unwrap().unwrap();
        late.store_block(0, half(0)).await.unwrap();
        assert!(catalog.give_up_index(lost, "its archive is damaged").await.unwrap());
        assert_eq!(late.store_block(1, half(1)).await.unwrap(), BlockOutcome::Withdrawn);

        let next = full(&fleet, 2).await;
        for number in [0, 1] {
            send(&fleet, next, number).await;
        }
        assert_eq!(merged(&fleet).await, (0, 4), "of the lost one, nothing is left");
        assert_eq!((names(&fleet, 2).await, found(&fleet).await), (2, (1, 1, 2)));
    })
    .await;
}

#[tokio::test]
async fn blocks_that_came_while_another_backup_was_before_it_count_with_those_that_are_placed() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let lost = full(&fleet, 1).await;
        let first = full(&fleet, 2).await;
        let mut early = catalog.index_intake(first, fleet.host).await.unwrap().unwrap();
        early.store_block(0, half(0)).await.unwrap();
        catalog.give_up_index(lost, "lost").await.unwrap();
        assert_eq!(send(&fleet, first, 1).await, BlockOutcome::Stored);
        assert!(catalog.index_progress(first, fleet.host).await.unwrap().complete);
        // And one that came both ways.
        early.store_block(1, half(1)).await.unwrap();
        assert_eq!(merged(&fleet).await, (0, 4));
        assert_eq!((names(&fleet, 2).await, found(&fleet).await), (2, (1, 1, 2)));
    })
    .await;
}

#[tokio::test]
async fn a_rebuild_while_a_first_full_arrives_begins_it_anew() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let first = full(&fleet, 1).await;
        let mut before = catalog.index_intake(first, fleet.host).await.unwrap().unwrap();
        before.store_block(0, half(0)).await.unwrap();
        catalog.forget_entries(fleet.job).await.unwrap();
        assert_eq!(before.store_block(1, half(1)).await.unwrap(), BlockOutcome::Withdrawn);
        let progress = catalog.index_progress(first, fleet.host).await.unwrap();
        assert_eq!(progress, IndexProgress { next_block: 0, complete: false });
        for number in [0, 1] {
            assert_eq!(send(&fleet, first, number).await, BlockOutcome::Stored);
        }
        assert_eq!(merged(&fleet).await, (0, 4));
    })
    .await;
}

#[tokio::test]
async fn a_backup_that_is_committed_after_a_later_one_began_to_arrive_stays_out() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let later = full(&fleet, 2).await;
        send(&fleet, later, 0).await;
        let earlier = full(&fleet, 1).await;
        assert_eq!(catalog.backup(earlier).await.unwrap().unwrap().searchable, Searchable::NotSearchable);
        send(&fleet, later, 1).await;
        assert_eq!(merged(&fleet).await, (0, 4));
        assert_eq!(catalog.merge_next(fleet.job).await.unwrap(), MergeOutcome::Nothing);
    })
    .await;
}

#[tokio::test]
async fn asking_how_much_of_a_first_full_has_arrived_keeps_no_earlier_backup_out() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let later = full(&fleet, 2).await;
        assert!(!catalog.index_progress(later, fleet.host).await.unwrap().complete);
        let earlier = full(&fleet, 1).await;
        assert_eq!(catalog.backup(earlier).await.unwrap().unwrap().searchable, Searchable::Pending);
        for number in [0, 1] {
            send(&fleet, later, number).await;
            send(&fleet, earlier, number).await;
        }
        assert_eq!((merged(&fleet).await, merged(&fleet).await), ((0, 4), (0, 0)));
    })
    .await;
}
