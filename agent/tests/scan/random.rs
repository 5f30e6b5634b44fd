//! Random trees under random edits: a full with any of its differentials is the tree as it was.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use proptest::prelude::*;

use crate::support::{Bench, differences, state};

/// One edit; names are drawn from a few, so that edits meet.
#[derive(Clone, Debug)]
enum Edit {
    Write(u8, u16),
    Append(u8),
    Remove(u8),
    Folder(u8),
    Link(u8, u8),
    Symlink(u8, u8),
    Rename(u8, u8),
    Mode(u8, u8),
    Touch(u8, u32),
    Rewrite(u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (any::<u8>(), any::<u16>()).prop_map(|(name, size)| Edit::Write(name, size)),
        1 => any::<u8>().prop_map(Edit::Append),
        2 => any::<u8>().prop_map(Edit::Remove),
        2 => any::<u8>().prop_map(Edit::Folder),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Edit::Link(from, to)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, to)| Edit::Symlink(name, to)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(name, mode)| Edit::Mode(name, mode)),
        1 => (any::<u8>(), any::<u32>()).prop_map(|(name, time)| Edit::Touch(name, time)),
        2 => any::<u8>().prop_map(Edit::Rewrite),
    ]
}

/// Names of three depths, in an order that tells byte order from path order.
fn path(bench: &Bench, number: u8) -> PathBuf {
    const NAMES: [&str; 6] = ["a", "a-b", "a.c", "b", "\u{e9}", "z"];
    let at = |number: u8| NAMES[usize::from(number) % NAMES.len()];
    match number % 3 {
        0 => bench.at(at(number / 3)),
        1 => bench.at(at(number / 3)).join(at(number / 18)),
        _ => bench.at(at(number / 3)).join(at(number / 18)).join(at(number / 108)),
    }
}

/// Edits that cannot be made in this state are passed over.
fn apply(bench: &Bench, edit: &Edit) {
    let done = match edit {
        Edit::Write(name, size) => fs::write(path(bench, *name), vec![*name; usize::from(*size)]),
        Edit::Append(name) => fs::read(path(bench, *name)).and_then(|mut bytes| {
            bytes.push(b'+');
            fs::write(path(bench, *name), bytes)
        }),
        Edit::Remove(name) => {
            let path = path(bench, *name);
            if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        }
        Edit::Folder(name) => fs::create_dir(path(bench, *name)),
        Edit::Link(from, to) => fs::hard_link(path(bench, *from), path(bench, *to)),
        Edit::Symlink(name, to) => symlink(format!("target-{to}"), path(bench, *name)),
        Edit::Rename(from, to) => fs::rename(path(bench, *from), path(bench, *to)),
        Edit::Mode(name, mode) => {
            let mode = 0o700 | u32::from(*mode);
            let path = path(bench, *name);
            if path.is_symlink() { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(mode)) }
        }
        Edit::Touch(name, time) => {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs((*time).into());
            fs::File::open(path(bench, *name)).and_then(|file| file.set_modified(time))
        }
        // The same content on a new inode: splits a group without changing a byte.
        Edit::Rewrite(name) => fs::read(path(bench, *name)).and_then(|bytes| {
            fs::remove_file(path(bench, *name))?;
            fs::write(path(bench, *name), bytes)
        }),
    };
    // Most random edits meet a name that is not there, or is something else.
    done.unwrap_or_default();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_full_and_any_of_its_differentials_are_the_tree_as_it_was(
        before in prop::collection::vec(edit(), 0..60),
        rounds in prop::collection::vec(prop::collection::vec(edit(), 0..25), 1..4),
    ) {
        let bench = Bench::new();
        before.iter().for_each(|edit| apply(&bench, edit));
        let full = bench.full();
        let mut newest = None;
        for edits in &rounds {
            edits.iter().for_each(|edit| apply(&bench, edit));
            let (found, made) = bench.differential(&full, newest.as_ref());
            let now = state(&bench.full(), None);
            let wrong = differences(&state(&full, Some(&made)), &now);
            prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
            let before = state(&full, newest.as_ref());
            prop_assert_eq!(found.equals_newest, before == now, "{}", differences(&before, &now).join("\n"));
            let (found, _) = bench.compare(&full, Some(&made));
            prop_assert!(found.equals_newest, "nothing happened since");
            newest = Some(made);
        }
    }
}
