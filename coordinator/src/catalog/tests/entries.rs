//! File versions in stories of their own, beside the model of `overlay`.

use coord_archive::digest::Digest;
use coord_archive::entry::{Entry, Kind, cmp_paths};
use coord_shared::ids::{BackupId, Seq};
use coord_shared::level::Level;

use super::fixture::{Fleet, entry, file, sealed};
use crate::catalog::testing::{with_catalog, with_config};
use crate::catalog::{
    BackupStatus, BlockOutcome, Catalog, CatalogError, IndexProgress, MergeOutcome, Searchable, ShortDigest,
};

pub(super) fn tree() -> Vec<Entry> {
    vec![entry(b"", Kind::Folder), entry(b"etc", Kind::Folder), file(b"etc/a", b"one"), file(b"etc/b", b"two")]
}

async fn full(fleet: &Fleet, ordinal: u64, entries: &[Entry]) -> BackupId {
    let backup = fleet.back_up(ordinal, sealed(Level::Full, None, 1)).await;
    fleet.ingest(backup, entries, 100_000).await;
    backup
}

async fn merged(fleet: &Fleet) -> (u64, u64) {
    match fleet.catalog.merge_next(fleet.job).await.unwrap() {
        MergeOutcome::Merged { closed, opened, .. } => (closed, opened),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unchanged_full_writes_nothing() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        full(&fleet, 1, &tree()).await;
        assert_eq!(merged(&fleet).await, (0, 4));
        full(&fleet, 2, &tree()).await;
        assert_eq!(merged(&fleet).await, (0, 0));
        let mut changed = tree();
        changed[2] = file(b"etc/a", b"three");
        full(&fleet, 3, &changed).await;
        assert_eq!(merged(&fleet).await, (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_deleted_file_stays_deleted_also_after_a_rebuild() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let base = tree();
        let first = full(&fleet, 1, &base).await;
        let added = vec![file(b"etc/new", b"n")];
        let removed = vec![entry(b"etc/a", Kind::Tombstone)];
        let mut indexes = vec![(first, base)];
        for (ordinal, index) in [(2, added), (3, removed)] {
            let backup = fleet.back_up(ordinal, sealed(Level::Differential, Some(first), 1)).await;
            fleet.ingest(backup, &index, 100).await;
            indexes.push((backup, index));
        }
        while catalog.merge_next(fleet.job).await.unwrap() != MergeOutcome::Nothing {}
        let names = async |seq| -> Vec<Vec<u8>> {
            let page = catalog.list_folder(fleet.job, Seq(seq), b"etc", None, 100).await.unwrap();
            page.entries.into_iter().map(|version| version.path).collect()
        };
        let before = [names(1).await, names(2).await, names(3).await];
        assert_eq!(before[1], [&b"etc/a"[..], b"etc/b", b"etc/new"]);
        assert_eq!(
            before[2],
            [&b"etc/b"[..]],
            "neither the deleted nor the file that only the second differential had"
        );
        catalog.forget_entries(fleet.job).await.unwrap();
        assert_eq!(names(3).await, Vec::<Vec<u8>>::new());
        assert_eq!(catalog.indexes_to_ask_for(&[fleet.host], 10).await.unwrap().len(), 3);
        for (backup, index) in indexes.iter().rev() {
            fleet.ingest(*backup, index, 100).await;
        }
        while catalog.merge_next(fleet.job).await.unwrap() != MergeOutcome::Nothing {}
        assert_eq!([names(1).await, names(2).await, names(3).await], before);
    })
    .await;
}

#[tokio::test]
async fn a_later_backup_waits_until_the_gap_is_given_up() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let first = full(&fleet, 1, &tree()).await;
        merged(&fleet).await;
        let lost = fleet.back_up(2, sealed(Level::Differential, Some(first), 1)).await;
        let later = fleet.back_up(3, sealed(Level::Differential, Some(first), 1)).await;
        fleet.ingest(later, &[file(b"etc/c", b"c")], 10).await;
        assert_eq!(catalog.jobs_to_merge(10).await.unwrap(), []);
        assert_eq!(catalog.merge_next(fleet.job).await.unwrap(), MergeOutcome::Waiting(lost));
        assert!(catalog.give_up_index(lost, "its archive is damaged").await.unwrap());
        assert_eq!(catalog.jobs_to_merge(10).await.unwrap(), [fleet.job]);
        assert_eq!(merged(&fleet).await, (0, 1));
        assert_eq!(catalog.backup(lost).await.unwrap().unwrap().searchable, Searchable::NotSearchable);
        assert_eq!(catalog.count_not_searchable().await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_missing_full_keeps_its_chain_out_and_no_other() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let lost = fleet.back_up(1, sealed(Level::Full, None, 1)).await;
        let chained = fleet.back_up(2, sealed(Level::Differential, Some(lost), 1)).await;
        catalog.give_up_index(lost, "lost").await.unwrap();
        assert_eq!(catalog.merge_next(fleet.job).await.unwrap(), MergeOutcome::NotSearchable(chained));
        full(&fleet, 3, &tree()).await;
        assert_eq!(merged(&fleet).await, (0, 4));
    })
    .await;
}

#[tokio::test]
async fn blocks_arrive_in_any_order_and_more_than_once() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let backup = fleet.back_up(1, sealed(Level::Full, None, 4)).await;
        let entries = tree();
        let mut intake = catalog.index_intake(backup, fleet.host).await.unwrap().unwrap();
        let progress = async || catalog.index_progress(backup, fleet.host).await.unwrap();
        assert_eq!(progress().await, IndexProgress { next_block: 0, complete: false });
        for (number, next) in [(3, 0), (0, 1), (2, 1)] {
            let block = &entries[number..=number];
            assert_eq!(intake.store_block(number as u64, block).await.unwrap(), BlockOutcome::Stored);
            assert_eq!(intake.store_block(number as u64, block).await.unwrap(), BlockOutcome::AlreadyThere);
            assert_eq!(progress().await, IndexProgress { next_block: next, complete: false });
        }
        assert!(intake.store_block(4, &entries[..1]).await.is_err());
        assert_eq!(catalog.merge_next(fleet.job).await.unwrap(), MergeOutcome::Waiting(backup));
        intake.store_block(1, &entries[1..2]).await.unwrap();
        assert!(progress().await.complete);
        assert_eq!(merged(&fleet).await, (0, 4));
        assert!(progress().await.complete, "nothing is wanted any more");
        assert!(catalog.index_intake(backup, fleet.host).await.unwrap().is_none());
        let other = Fleet::new(&catalog).await;
        let foreign = fleet.back_up(2, sealed(Level::Full, None, 4)).await;
        assert!(catalog.index_intake(foreign, other.host).await.unwrap().is_none(), "another host's index");
    })
    .await;
}

#[tokio::test]
async fn a_crash_of_the_database_asks_for_the_blocks_again() {
    with_config(async |config| {
        let client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let fleet = Fleet::new(&catalog).await;
        full(&fleet, 1, &tree()[..1]).await;
        assert_eq!(merged(&fleet).await, (0, 1));
        let backup = fleet.back_up(2, sealed(Level::Full, None, 2)).await;
        let mut intake = catalog.index_intake(backup, fleet.host).await.unwrap().unwrap();
        intake.store_block(0, &tree()[..2]).await.unwrap();
        // What the server does to unlogged tables after a crash.
        client.batch_execute("TRUNCATE staged_blocks, staged_entries").await.unwrap();
        assert_eq!(intake.progress().await.unwrap(), IndexProgress { next_block: 0, complete: false });
        fleet.ingest(backup, &tree(), 2).await;
        assert_eq!(merged(&fleet).await, (0, 3));
    })
    .await;
}

#[tokio::test]
async fn names_of_any_bytes_are_kept_and_impossible_ones_refused() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let long: Vec<u8> = [&b"d/"[..], &[0xfe; 255]].concat();
        let deep: Vec<u8> = vec![&b"d"[..]; 1000].join(&b'/');
        let mut entries =
            vec![entry(b"", Kind::Folder), entry(b"d", Kind::Folder), file(&long, b"1"), file(b"\x1b\n\xff", b"2")];
        entries.push(file(&deep, b"3"));
        full(&fleet, 1, &entries).await;
        assert_eq!(merged(&fleet).await, (0, 5));
        for wanted in &entries {
            let found = catalog.find_path(fleet.job, Seq(1), &wanted.path).await.unwrap().unwrap();
            assert_eq!((&found.path, found.digest), (&wanted.path, wanted.digest.as_ref().map(ShortDigest::from)));
        }
        let backup = fleet.back_up(2, sealed(Level::Full, None, 1)).await;
        let mut intake = catalog.index_intake(backup, fleet.host).await.unwrap().unwrap();
        let deeper = vec![&b"d"[..]; 2049].join(&b'/');
        for path in [&b"a//b"[..], b"/a", b"a/", b"a\0b", &[b'x'; 5000], &deeper] {
            let outcome = intake.store_block(0, &[file(path, b"")]).await;
            assert!(matches!(outcome, Err(CatalogError::BadEntry { .. })), "{path:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_path_tells_its_history_and_a_content_its_places() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let first = full(&fleet, 1, &tree()).await;
        let mut changed = tree();
        changed[2] = file(b"etc/a", b"two");
        let second = full(&fleet, 2, &changed).await;
        let third = full(&fleet, 3, &changed).await;
        while catalog.merge_next(fleet.job).await.unwrap() != MergeOutcome::Nothing {}
        let history = catalog.path_history(fleet.job, b"etc/a", 10).await.unwrap();
        let shown: Vec<_> = history.iter().map(|state| (state.first_backup, state.last_backup)).collect();
        assert_eq!(shown, [(Some(first), Some(first)), (Some(second), Some(third))]);
        assert_eq!(history[1].version.last_seq, None);
        let mut hits = catalog.find_digest(ShortDigest::from(&Digest::of(b"two")), 10).await.unwrap();
        hits.sort_by(|a, b| a.version.path.cmp(&b.version.path));
        let places: Vec<_> = hits.iter().map(|hit| (&hit.version.path[..], hit.version.first_seq)).collect();
        assert_eq!(places, [(&b"etc/a"[..], Seq(2)), (b"etc/b", Seq(1))]);
        assert!(hits.iter().all(|hit| hit.host == fleet.host && hit.job == fleet.job));
        assert!(catalog.path_history(fleet.job, b"no/such", 10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_merge_keeps_no_commit_waiting_and_one_that_it_overtakes_stays_out() {
    with_config(async |config| {
        let mut client = config.connect().await.unwrap();
        let catalog = Catalog::new(config).unwrap();
        let fleet = Fleet::new(&catalog).await;
        let first = full(&fleet, 1, &tree()).await;
        merged(&fleet).await;
        let third = fleet.back_up(3, sealed(Level::Differential, Some(first), 1)).await;
        fleet.ingest(third, &[file(b"etc/c", b"c")], 10).await;
        // Holds the merge in its middle.
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute("LOCK TABLE file_versions IN EXCLUSIVE MODE").await.unwrap();
        let merge = tokio::spawn({
            let fleet = fleet.clone();
            async move { merged(&fleet).await }
        });
        let waits =
            "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'file_versions'::regclass AND NOT granted) AS waits";
        while !transaction.query_one(waits, &[]).await.unwrap().get::<_, bool>("waits") {
            tokio::task::yield_now().await;
        }
        assert_eq!(catalog.merge_next(fleet.job).await.unwrap(), MergeOutcome::Waiting(third), "one merge a job");
        let second = fleet.back_up(2, sealed(Level::Differential, Some(first), 1)).await;
        transaction.commit().await.unwrap();
        assert_eq!(merge.await.unwrap(), (0, 1));
        let overtaken = catalog.backup(second).await.unwrap().unwrap();
        assert_eq!((overtaken.searchable, overtaken.status), (Searchable::NotSearchable, BackupStatus::Protected));
        let late = fleet.back_up(4, sealed(Level::Differential, Some(first), 0)).await;
        assert_eq!(merged(&fleet).await, (1, 0));
        assert_eq!(catalog.backup(late).await.unwrap().unwrap().searchable, Searchable::Searchable);
    })
    .await;
}

#[tokio::test]
async fn a_walk_of_large_and_small_folders_misses_nothing() {
    with_catalog(async |catalog| {
        let fleet = Fleet::new(&catalog).await;
        let mut entries = vec![entry(b"", Kind::Folder)];
        // Around the bounds of a small folder and of what is asked for together.
        for (number, size) in [0, 1, 63, 64, 65, 66, 2001].into_iter().cycle().take(70).enumerate() {
            let folder = format!("f{number}").into_bytes();
            let size = if number > 6 && size > 100 { 3 } else { size };
            entries.push(entry(&folder, Kind::Folder));
            entries.push(entry(&[&folder[..], b"/empty"].concat(), Kind::Folder));
            entries.extend((0..size).map(|name| file(&[&folder[..], format!("/{name}").as_bytes()].concat(), b"x")));
        }
        entries.sort_by(|a, b| cmp_paths(&a.path, &b.path));
        full(&fleet, 1, &entries).await;
        merged(&fleet).await;
        let mut walk = catalog.walk_subtree(fleet.job, Seq(1), b"", None).await.unwrap();
        let mut found = Vec::new();
        loop {
            let batch = walk.next_batch(500).await.unwrap();
            if batch.is_empty() {
                break;
            }
            assert!(batch.len() <= 500);
            found.extend(batch.into_iter().map(|version| version.path));
        }
        assert_eq!(found, entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>());
    })
    .await;
}
