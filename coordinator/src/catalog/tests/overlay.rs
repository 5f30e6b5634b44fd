//! The catalog against a model: whatever the tree does, and in whatever order blocks of indexes arrive, the listing at every seq is
//! the overlay of the indexes, and every content is where the catalog says.

use std::collections::BTreeMap;
use std::time::Duration;

use coord_archive::entry::{Entry, Flags, Kind, cmp_paths, is_at_or_below};
use coord_shared::ids::{BackupId, Seq};
use coord_shared::level::Level;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::fixture::{Fleet, entry, file, sealed, unchanged};
use crate::catalog::testing::with_catalog;
use crate::catalog::{Catalog, FileVersion, MergeOutcome, ShortDigest, SubtreeTotals, VersionKind};

/// No tree here takes that long.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);
/// Names that come and go; `b-c` sorts between `b/..` and `bb` as bytes and after `b/c` as components.
const PATHS: [&[u8]; 12] =
    [b"a", b"a/x", b"a/x/p", b"a/x/q", b"a/y", b"b", b"b-c", b"b/c", b"b/c/d", b"bb", b"\xff\n", b"z"];

#[derive(Debug, Clone)]
enum Change {
    Folder { path: usize, mode: u32 },
    File { path: usize, content: u8, mode: u32 },
    Symlink { path: usize, target: u8 },
    Remove { path: usize },
    Root { mode: u32 },
    Stale { path: usize },
}

#[derive(Debug, Clone)]
enum Kept {
    /// A full.
    Full,
    /// On the full so many fulls back; a bit of `extra` for each path mentions it although it equals the base.
    Differential { back: usize, extra: u16, again: u16 },
    /// Nothing changed since the newest backup of the chain so many fulls back.
    Unchanged { back: usize },
}

#[derive(Debug, Clone)]
struct Step {
    changes: Vec<Change>,
    kept: Kept,
    block: usize,
}

fn change() -> impl Strategy<Value = Change> {
    let path = 0..PATHS.len();
    let mode = prop_oneof![Just(0o755_u32), Just(0o700)];
    prop_oneof![
        3 => (path.clone(), mode.clone()).prop_map(|(path, mode)| Change::Folder { path, mode }),
        6 => (path.clone(), 0..4_u8, mode.clone()).prop_map(|(path, content, mode)| Change::File { path, content, mode }),
        1 => (path.clone(), 0..2_u8).prop_map(|(path, target)| Change::Symlink { path, target }),
        3 => path.clone().prop_map(|path| Change::Remove { path }),
        1 => mode.prop_map(|mode| Change::Root { mode }),
        1 => path.prop_map(|path| Change::Stale { path }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let back = prop_oneof![4 => Just(0_usize), 1 => 1..3_usize];
    let kept = prop_oneof![
        2 => Just(Kept::Full),
        5 => (back.clone(), any::<u16>(), any::<u16>())
            .prop_map(|(back, extra, again)| Kept::Differential { back, extra: extra & again, again }),
        1 => back.prop_map(|back| Kept::Unchanged { back }),
    ];
    (prop::collection::vec(change(), 0..8), kept, 1..6_usize).prop_map(|(changes, kept, block)| Step {
        changes,
        kept,
        block,
    })
}

type Tree = BTreeMap<Vec<u8>, Entry>;

fn is_folder(tree: &Tree, path: &[u8]) -> bool {
    tree.get(path).is_some_and(|entry| entry.kind == Kind::Folder)
}

fn remove(tree: &mut Tree, path: &[u8]) {
    tree.retain(|other, _| !is_at_or_below(other, path));
}

fn put(tree: &mut Tree, entry: Entry) {
    let parent = coord_archive::entry::parent(&entry.path).unwrap_or_default();
    if !is_folder(tree, parent) {
        return;
    }
    if entry.kind != Kind::Folder {
        remove(tree, &entry.path);
    }
    tree.insert(entry.path.clone(), entry);
}

fn apply(tree: &mut Tree, change: &Change) {
    match change {
        Change::Folder { path, mode } => {
            let mut folder = entry(PATHS[*path], Kind::Folder);
            folder.attributes.mode = *mode;
            put(tree, folder);
        }
        Change::File { path, content, mode } => {
            let mut file =
                if *content == 0 { entry(PATHS[*path], Kind::File) } else { file(PATHS[*path], &[*content; 9]) };
            file.attributes.mode = *mode;
            put(tree, file);
        }
        Change::Symlink { path, target } => {
            let mut link = entry(PATHS[*path], Kind::Symlink);
            link.link_target = vec![b't', *target];
            put(tree, link);
        }
        Change::Remove { path } => remove(tree, PATHS[*path]),
        Change::Root { mode } => {
            if let Some(root) = tree.get_mut(&b""[..]) {
                root.attributes.mode = *mode;
            }
        }
        Change::Stale { path } => {
            if let Some(entry) = tree.get_mut(PATHS[*path]) {
                entry.flags = Flags(entry.flags.0 ^ Flags::STALE.0);
            }
        }
    }
}

/// A differential's index: what a scan that stands on `base` would write.
fn differential(base: &Tree, now: &Tree, extra: u16, again: u16) -> Vec<Entry> {
    let bit = |bits: u16, path: &[u8]| {
        PATHS.iter().position(|other| *other == path).is_some_and(|number| bits & (1 << number) != 0)
    };
    let mut index = Vec::new();
    for (path, entry) in now {
        let before = base.get(path);
        if before == Some(entry) && !bit(extra, path) {
            continue;
        }
        let mut entry = entry.clone();
        // The same content may be left in the base or stored again.
        let in_base = entry.content.is_some() && before.is_some_and(|before| before.digest == entry.digest);
        if in_base && !bit(again, path) {
            entry.flags = entry.flags.with(Flags::CONTENT_IN_BASE);
        }
        index.push(entry);
    }
    index.extend(
        base.keys().filter(|path| !now.contains_key(*path)).map(|path| super::fixture::entry(path, Kind::Tombstone)),
    );
    index.sort_by(|a, b| cmp_paths(&a.path, &b.path));
    index
}

/// What the indexes say of one restore point.
#[derive(Debug, Clone)]
struct Expected {
    backup: BackupId,
    full: u64,
    /// Entries, and whether their content is in the full's archive.
    entries: BTreeMap<Vec<u8>, (Entry, bool)>,
}

fn overlay(full: &[Entry], own: &[Entry]) -> BTreeMap<Vec<u8>, (Entry, bool)> {
    let mut entries: BTreeMap<Vec<u8>, (Entry, bool)> =
        full.iter().map(|entry| (entry.path.clone(), (entry.clone(), true))).collect();
    for entry in own {
        if entry.kind == Kind::Tombstone {
            entries.remove(&entry.path);
        } else {
            let in_base = entry.flags.contains(Flags::CONTENT_IN_BASE);
            entries.insert(entry.path.clone(), (entry.clone(), in_base));
        }
    }
    entries
}

/// A full so far: its ordinal, its id, its tree, and the place of the newest restore point on it.
struct FullSoFar {
    ordinal: u64,
    backup: BackupId,
    tree: Tree,
    index: Vec<Entry>,
    newest: usize,
}

/// A block that will arrive some time.
struct Block {
    backup: BackupId,
    number: u64,
    entries: Vec<Entry>,
}

/// Commits every step; answers what to expect and the blocks in order.
async fn commit_all(fleet: &Fleet, steps: &[Step]) -> (Vec<Expected>, Vec<Block>) {
    let mut tree = Tree::from([(Vec::new(), entry(b"", Kind::Folder))]);
    let (mut fulls, mut points, mut blocks): (Vec<FullSoFar>, Vec<Expected>, Vec<Block>) = Default::default();
    for (step, ordinal) in steps.iter().zip(1..) {
        for change in &step.changes {
            apply(&mut tree, change);
        }
        let on = |back: usize| fulls.len().checked_sub(1 + back.min(fulls.len().saturating_sub(1)));
        let (left, index, full) = match &step.kept {
            Kept::Differential { back, extra, again } if !fulls.is_empty() => {
                let full = on(*back).unwrap();
                let index = differential(&fulls[full].tree, &tree, *extra, *again);
                let number = index.chunks(step.block).count();
                (sealed(Level::Differential, Some(fulls[full].backup), number), index, Some(full))
            }
            Kept::Unchanged { back } if !fulls.is_empty() => {
                let full = on(*back).unwrap();
                let newest = points[fulls[full].newest].clone();
                // The tree is as it was then.
                tree = newest.entries.iter().map(|(path, (entry, _))| (path.clone(), plain(entry))).collect();
                let backup = fleet.back_up(ordinal, unchanged(newest.backup)).await;
                fulls[full].newest = points.len();
                points.push(Expected { backup, ..newest });
                continue;
            }
            Kept::Full | Kept::Differential { .. } | Kept::Unchanged { .. } => {
                let mut index: Vec<Entry> = tree.values().cloned().collect();
                index.sort_by(|a, b| cmp_paths(&a.path, &b.path));
                (sealed(Level::Full, None, index.chunks(step.block).count()), index, None)
            }
        };
        let backup = fleet.back_up(ordinal, left).await;
        let full = full.unwrap_or_else(|| {
            let (tree, index) = (tree.clone(), index.clone());
            fulls.push(FullSoFar { ordinal, backup, tree, index, newest: points.len() });
            fulls.len() - 1
        });
        fulls[full].newest = points.len();
        let own = if fulls[full].backup == backup { &[][..] } else { &index[..] };
        let entries = overlay(&fulls[full].index, own);
        points.push(Expected { backup, full: fulls[full].ordinal, entries });
        let parts = index.chunks(step.block).zip(0..);
        blocks.extend(parts.map(|(part, number)| Block { backup, number, entries: part.to_vec() }));
    }
    (points, blocks)
}

/// The entry as the tree has it: where the content lies is no part of that.
fn plain(entry: &Entry) -> Entry {
    Entry { flags: entry.flags.without(Flags::CONTENT_IN_BASE), ..entry.clone() }
}

/// What the catalog should say of an entry, its interval aside.
fn seen(entry: &Entry, version: &FileVersion) -> FileVersion {
    let kind = match entry.kind {
        Kind::File => VersionKind::File,
        Kind::Folder => VersionKind::Folder,
        Kind::Symlink => VersionKind::Symlink,
        Kind::Fifo | Kind::CharDevice | Kind::BlockDevice | Kind::Tombstone => panic!("not made here"),
    };
    FileVersion {
        path: entry.path.clone(),
        kind,
        size: entry.size,
        mode: entry.attributes.mode,
        uid: entry.attributes.uid,
        gid: entry.attributes.gid,
        mtime: entry.attributes.mtime,
        digest: entry.digest.as_ref().map(ShortDigest::from),
        link_target: entry.link_target.clone(),
        state: version.state,
        flags: Flags(plain(entry).flags.0 | (version.flags.0 & Flags::CONTENT_IN_BASE.0)),
        first_seq: version.first_seq,
        last_seq: version.last_seq,
    }
}

async fn walk(fleet: &Fleet, seq: Seq, path: &[u8]) -> Vec<FileVersion> {
    let mut walk = fleet.catalog.walk_subtree(fleet.job, seq, path, None).await.unwrap();
    let mut found = Vec::new();
    loop {
        let batch = walk.next_batch(3).await.unwrap();
        if batch.is_empty() {
            return found;
        }
        found.extend(batch);
    }
}

async fn check_point(fleet: &Fleet, seq: Seq, point: &Expected) -> Result<(), TestCaseError> {
    let found = walk(fleet, seq, b"").await;
    let mut expected: Vec<&(Entry, bool)> = point.entries.values().collect();
    expected.sort_by(|a, b| cmp_paths(&a.0.path, &b.0.path));
    prop_assert_eq!(found.len(), expected.len(), "{:?} {:?}\n{:?}", seq, found, expected);
    for (version, (entry, in_base)) in found.iter().zip(expected) {
        prop_assert_eq!(version, &seen(entry, version), "at {:?}", seq);
        if entry.content.is_some() {
            let full = Seq(point.full.cast_signed());
            prop_assert_eq!(version.content_in_full(full), *in_base, "at {:?} on {:?}: {:?}", seq, full, version);
        }
        let one = fleet.catalog.find_path(fleet.job, seq, &version.path).await.unwrap();
        prop_assert_eq!(one.as_ref(), Some(version));
    }
    for path in [&b""[..], b"a", b"b/c"] {
        check_below(fleet, seq, point, path).await?;
    }
    Ok(())
}

async fn check_below(fleet: &Fleet, seq: Seq, point: &Expected, path: &[u8]) -> Result<(), TestCaseError> {
    let below: Vec<&Entry> =
        point.entries.values().map(|(entry, _)| entry).filter(|entry| is_at_or_below(&entry.path, path)).collect();
    let totals = SubtreeTotals {
        entries: below.len() as u64,
        files: below.iter().filter(|entry| entry.kind == Kind::File).count() as u64,
        bytes: below.iter().map(|entry| entry.size).sum(),
    };
    prop_assert_eq!(fleet.catalog.subtree_totals(fleet.job, seq, path, COUNTED_WITHIN).await.unwrap(), totals);
    let mut listed = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = fleet.catalog.list_folder(fleet.job, seq, path, after.as_deref(), 2).await.unwrap();
        after = page.entries.last().map(|last| last.path[if path.is_empty() { 0 } else { path.len() + 1 }..].to_vec());
        listed.extend(page.entries.into_iter().map(|version| version.path));
        if !page.more {
            break;
        }
    }
    let direct = |entry: &&&Entry| coord_archive::entry::parent(&entry.path) == Some(path);
    let expected: Vec<Vec<u8>> = below.iter().filter(direct).map(|entry| entry.path.clone()).collect();
    prop_assert_eq!(listed, expected);
    Ok(())
}

async fn check(catalog: &Catalog, steps: &[Step], order: &[u16]) -> Result<(), TestCaseError> {
    let fleet = Fleet::new(catalog).await;
    let (points, blocks) = commit_all(&fleet, steps).await;
    let mut arriving: Vec<(u16, Block)> =
        blocks.into_iter().zip(order.iter().copied().cycle()).map(|(block, key)| (key, block)).collect();
    arriving.sort_by_key(|(key, _)| *key);
    merge_all(&fleet).await;
    for (_, block) in &arriving {
        // Several coordinators, each with its own memory of folders; some blocks come twice.
        for _ in 0..2 {
            if let Some(mut intake) = catalog.index_intake(block.backup, fleet.host).await.unwrap() {
                intake.store_block(block.number, &block.entries).await.unwrap();
            }
        }
        merge_all(&fleet).await;
    }
    prop_assert_eq!(catalog.merge_next(fleet.job).await.unwrap(), MergeOutcome::Nothing);
    for (point, seq) in points.iter().zip(1..) {
        check_point(&fleet, Seq(seq), point).await?;
    }
    Ok(())
}

async fn merge_all(fleet: &Fleet) {
    loop {
        match fleet.catalog.merge_next(fleet.job).await.unwrap() {
            MergeOutcome::Merged { .. } => {}
            MergeOutcome::Waiting(_) | MergeOutcome::Nothing => return,
            MergeOutcome::NotSearchable(backup) => panic!("{backup} stands on nothing"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_listing_at_every_seq_is_the_overlay_of_the_indexes() {
    with_catalog(async |catalog| {
        let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let steps = (prop::collection::vec(step(), 1..9), prop::collection::vec(any::<u16>(), 16));
        let outcome = runner.run(&steps, |(steps, order)| {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(check(&catalog, &steps, &order)))
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
    })
    .await;
}
