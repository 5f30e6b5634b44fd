//! Things of an odd kind, in odd places, with facts that do not suit them, and attributes that lend rights.

use super::forge::{Node, kind};
use super::{Case, Expect, Make, device, file, folder, node, plain, record, symlink, with};

/// All cases of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let parents: [(&str, Make<Node>); 5] = [
        ("a file", || file(b"a", b"x")),
        ("a pipe", || plain(b"a", kind::FIFO)),
        ("a character device", || device(b"a", kind::CHAR_DEVICE, (1, 3))),
        ("a block device", || device(b"a", kind::BLOCK_DEVICE, (7, 0))),
        ("a tombstone", || plain(b"a", kind::TOMBSTONE)),
    ];
    for (word, parent) in parents {
        let name = format!("a file below {word}");
        cases.push(Case::of_nodes(name, Expect::Contained, move |_| vec![parent(), file(b"a/b", b"hostile")]));
    }
    let roots: [(&str, u8); 5] = [
        ("a file", kind::FILE),
        ("a link", kind::SYMLINK),
        ("a pipe", kind::FIFO),
        ("a device", kind::CHAR_DEVICE),
        ("a tombstone", kind::TOMBSTONE),
    ];
    for (word, kind) in roots {
        let name = format!("a root that is {word}");
        cases.push(Case::forged(name, Expect::Contained, move |_, forge| {
            forge.nodes =
                vec![with(plain(b"", kind), |record| record.link_target = b"../outside".to_vec()), file(b"a", b"x")];
        }));
    }
    for number in [0, 8, 9, 127, 255] {
        let name = format!("the unknown kind {number}");
        cases.push(Case::of_nodes(name, Expect::Refused, move |_| vec![node(record(b"a", number))]));
    }
    for flags in [1_u64, 2, 4, 8, 16, 32, 63, 64, 0xffff] {
        let name = format!("a file with the flags {flags:#x}");
        cases.push(Case::of_nodes(name, Expect::Contained, move |_| {
            vec![with(file(b"a", b"x"), |record| record.flags = flags)]
        }));
        let name = format!("a folder with the flags {flags:#x} and a file in it");
        cases.push(Case::of_nodes(name, Expect::Contained, move |_| {
            vec![with(folder(b"a"), |record| record.flags = flags), file(b"a/b", b"x")]
        }));
    }
    cases.push(Case::of_nodes("flags beyond sixteen bits", Expect::Refused, |_| {
        vec![with(file(b"a", b"x"), |record| record.flags = 1 << 20)]
    }));
    cases.extend(facts());
    cases.extend(attributes());
    cases
}

/// Facts that do not suit the kind.
fn facts() -> Vec<Case> {
    let sized = |node: Node| with(node, |record| record.size = 7);
    vec![
        Case::of_nodes("a pipe with a size and a digest", Expect::Contained, move |_| {
            vec![with(sized(plain(b"a", kind::FIFO)), |record| record.digest = Some([1; 32]))]
        }),
        Case::of_nodes("a folder with content", Expect::Contained, |_| {
            vec![with(file(b"a", b"x"), |record| record.kind = kind::FOLDER)]
        }),
        Case::of_nodes("a link with content", Expect::Contained, |_| {
            vec![with(file(b"a", b"x"), |record| {
                (record.kind, record.link_target) = (kind::SYMLINK, b"../outside".to_vec())
            })]
        }),
        Case::of_nodes("a file with a link target", Expect::Contained, |_| {
            vec![with(file(b"a", b"x"), |record| record.link_target = b"../outside/canary".to_vec())]
        }),
        Case::of_nodes("a file with device numbers", Expect::Contained, |_| {
            vec![with(file(b"a", b"x"), |record| record.device = (8, 0))]
        }),
        Case::of_nodes("a tombstone with content in a full", Expect::Contained, |_| {
            vec![with(file(b"a", b"x"), |record| record.kind = kind::TOMBSTONE)]
        }),
        Case::of_nodes("device numbers of 32 bits", Expect::Contained, |_| {
            vec![device(b"a", kind::BLOCK_DEVICE, (u64::from(u32::MAX), u64::from(u32::MAX)))]
        }),
        Case::of_nodes("device numbers beyond 32 bits", Expect::Refused, |_| {
            vec![device(b"a", kind::BLOCK_DEVICE, (1 << 40, 1))]
        }),
        Case::of_nodes("a pipe that a reader would wait for", Expect::Contained, |_| {
            vec![plain(b"a", kind::FIFO), plain(b"b", kind::FIFO), plain(b"dir", kind::FIFO)]
        }),
        Case::of_nodes("the whole target replaced by pipes and links", Expect::Contained, |_| {
            vec![
                plain(b"a", kind::FIFO),
                symlink(b"b", b"../outside"),
                symlink(b"dir", b"../outside"),
                plain(b"link", kind::FIFO),
            ]
        }),
    ]
}

/// Attributes that lend rights or cannot be.
fn attributes() -> Vec<Case> {
    let xattr = |name: &'static [u8], value: Vec<u8>| {
        move |_: &super::Place| {
            vec![with(file(b"a", b"x"), |record| record.xattrs = vec![(name.to_vec(), value.clone())])]
        }
    };
    vec![
        Case::of_nodes("a set-id file of root", Expect::Contained, |_| {
            vec![with(file(b"a", b"x"), |record| (record.mode, record.owner) = (0o6755, (0, 0)))]
        }),
        Case::of_nodes("a mode beyond its bits", Expect::Contained, |_| {
            vec![with(file(b"a", b"x"), |record| record.mode = u64::from(u32::MAX))]
        }),
        Case::of_nodes("an owner beyond 32 bits", Expect::Refused, |_| {
            vec![with(file(b"a", b"x"), |record| record.owner = (1 << 33, 0))]
        }),
        Case::of_nodes("an owner of no number", Expect::Contained, |_| {
            vec![with(file(b"a", b"x"), |record| record.owner = (u64::from(u32::MAX), u64::from(u32::MAX)))]
        }),
        Case::of_nodes("the last second there is", Expect::Contained, |_| {
            vec![
                with(file(b"a", b"x"), |record| record.mtime = (i64::MAX, 999_999_999)),
                with(folder(b"b"), |record| record.mtime = (i64::MIN, 0)),
            ]
        }),
        Case::of_nodes("a thousand million nanoseconds", Expect::Refused, |_| {
            vec![with(file(b"a", b"x"), |record| record.mtime = (0, 1_000_000_000))]
        }),
        Case::of_nodes("every inode flag", Expect::Contained, |_| {
            // Not the two that keep the scratch folder from being removed.
            vec![with(file(b"a", b"x"), |record| record.inode_flags = !0x30 & 0xffff_ffff)]
        }),
        Case::of_nodes(
            "a capability of nobody's version",
            Expect::Contained,
            xattr(b"security.capability", vec![0xff; 20]),
        ),
        Case::of_nodes("an attribute without a name", Expect::Contained, xattr(b"", vec![1])),
        Case::of_nodes("an attribute with a NUL in its name", Expect::Contained, xattr(b"user.a\0b", vec![1])),
        Case::of_nodes("an attribute of 70 KB", Expect::Contained, xattr(b"user.big", vec![1; 70_000])),
        Case::of_nodes("an attribute of no namespace", Expect::Contained, xattr(b"nowhere.a", vec![1])),
        Case::of_nodes("an ACL that is none", Expect::Contained, xattr(b"system.posix_acl_access", vec![0xff; 9])),
        Case::of_nodes(
            "an ACL with seven thousand entries",
            Expect::Contained,
            xattr(b"system.posix_acl_access", {
                let mut acl = vec![2, 0, 0, 0];
                (0..7_000_u32).for_each(|id| acl.extend([&[2, 0, 7, 0][..], &id.to_le_bytes()].concat()));
                acl
            }),
        ),
        Case::of_nodes("ten thousand attributes", Expect::Contained, |_| {
            let many = |number: u32| (format!("user.{number}").into_bytes(), vec![1]);
            vec![with(file(b"a", b"x"), |record| record.xattrs = (0..10_000).map(many).collect())]
        }),
    ]
}
