//! Links that lead outside, and names that go through them.

use super::forge::{Node, kind};
use super::{Case, Expect, Make, file, folder, outside, plain, shown, symlink, with};

/// What the planted link leads to; the empty one is the absolute path of what nobody may touch.
const TARGETS: [&[u8]; 6] = [b"../outside", b"/", b".", b"..", b"", b"folder"];

/// All cases of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for to in TARGETS {
        let leads = if to.is_empty() { "an absolute path".to_owned() } else { shown(to) };
        let below: [(&str, Make<Node>); 5] = [
            ("a file", || file(b"a/canary", b"hostile")),
            ("a new file", || file(b"a/new", b"hostile")),
            ("a folder", || folder(b"a/folder")),
            ("a link", || symlink(b"a/canary", b"/")),
            ("a pipe", || plain(b"a/pipe", kind::FIFO)),
        ];
        for (word, below) in below {
            let name = format!("{word} through a planted link to {leads}");
            cases.push(Case::of_nodes(name, Expect::Contained, move |place| vec![to_outside(place, to), below()]));
        }
        let name = format!("a link to {leads} replaced by a folder of the same name");
        cases.push(Case::of_nodes(name, Expect::Refused, move |place| {
            vec![to_outside(place, to), folder(b"a"), file(b"a/canary", b"hostile")]
        }));
        let name = format!("a folder replaced by a link to {leads}");
        cases.push(Case::of_nodes(name, Expect::Refused, move |place| {
            vec![folder(b"a"), file(b"a/x", b"x"), to_outside(place, to), file(b"a/z", b"hostile")]
        }));
        let name = format!("a link to {leads} in a block of its own, its folder in the next");
        cases.push(Case::of_nodes(name, Expect::Refused, move |place| {
            vec![to_outside(place, to), Node { begins_block: true, ..folder(b"a") }, file(b"a/canary", b"hostile")]
        }));
    }
    cases.extend(chains());
    cases.extend(hard_links());
    cases
}

fn to_outside(place: &super::Place, to: &[u8]) -> Node {
    symlink(b"a", if to.is_empty() { &place.outside } else { to })
}

fn chains() -> Vec<Case> {
    vec![
        Case::of_nodes("a link to a link to the outside, and a file through both", Expect::Contained, |_| {
            vec![symlink(b"a", b"../outside"), symlink(b"b", b"a"), file(b"b/canary", b"hostile")]
        }),
        Case::of_nodes("links in a circle", Expect::Clean, |_| vec![symlink(b"a", b"b"), symlink(b"b", b"a")]),
        Case::of_nodes("a link to itself with a file below", Expect::Contained, |_| {
            vec![symlink(b"a", b"a"), file(b"a/b", b"hostile")]
        }),
        Case::of_nodes("a link without a target", Expect::Contained, |_| vec![symlink(b"a", b"")]),
        Case::of_nodes("a link whose target has a NUL", Expect::Contained, |_| vec![symlink(b"a", b"x\0y")]),
        Case::of_nodes("a link whose target is 64 KiB long", Expect::Contained, |_| {
            vec![symlink(b"a", &[b'x'; 64 << 10])]
        }),
        Case::of_nodes("a file in a folder below a link", Expect::Contained, |_| {
            vec![symlink(b"a", b"../outside"), folder(b"a/folder"), file(b"a/folder/new", b"hostile")]
        }),
        Case::of_nodes("a link to the process's own descriptors", Expect::Contained, |_| {
            vec![symlink(b"a", b"/proc/self/fd"), file(b"a/3", b"hostile")]
        }),
        Case::of_nodes("a link to the process's own root", Expect::Contained, |_| {
            vec![symlink(b"a", b"/proc/self/root"), folder(b"a/tmp")]
        }),
        Case::of_nodes("a hundred links, each through the last", Expect::Contained, |_| {
            (0..100)
                .map(|number| symlink(format!("l{number:03}").as_bytes(), format!("l{:03}/..", number + 1).as_bytes()))
                .collect()
        }),
    ]
}

fn in_group(node: Node, group: u64) -> Node {
    with(node, move |record| record.link_group = group)
}

fn hard_links() -> Vec<Case> {
    vec![
        Case::of_nodes("a hard link to a link that leads outside", Expect::Contained, |_| {
            vec![in_group(symlink(b"a", b"../outside/canary"), 7), in_group(file(b"b", b"hostile"), 7)]
        }),
        Case::of_nodes("a hard link to a link with an absolute target", Expect::Contained, |place| {
            let to = outside(place, b"canary");
            vec![in_group(symlink(b"a", &to), 7), in_group(symlink(b"b", &to), 7), file(b"c", b"x")]
        }),
        Case::of_nodes("names of one inode with other contents", Expect::Found, |_| {
            vec![in_group(file(b"a", b"one"), 7), in_group(file(b"b", b"other"), 7)]
        }),
        Case::of_nodes("a folder that is a hard link", Expect::Contained, |_| {
            vec![in_group(folder(b"a"), 7), in_group(folder(b"b"), 7), file(b"b/x", b"x")]
        }),
        Case::of_nodes("a file and a folder of one inode", Expect::Contained, |_| {
            vec![in_group(file(b"a", b"x"), 7), in_group(folder(b"b"), 7)]
        }),
        Case::of_nodes("the largest number of a group", Expect::Contained, |_| {
            vec![in_group(file(b"a", b"x"), u64::MAX), in_group(file(b"b", b"x"), u64::MAX)]
        }),
        Case::of_nodes("ten thousand names of one inode", Expect::Clean, |_| {
            (0..10_000).map(|number| in_group(file(format!("n{number:05}").as_bytes(), b"x"), 7)).collect()
        }),
        Case::of_nodes("a device and a file of one inode", Expect::Contained, |_| {
            vec![in_group(super::device(b"a", kind::CHAR_DEVICE, (1, 3)), 7), in_group(file(b"b", b"x"), 7)]
        }),
    ]
}
