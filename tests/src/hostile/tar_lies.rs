//! Archives whose index is harmless and whose tar is not: stock tools would unpack something else than the index says.

use super::forge::{Forge, Member, Node, kind};
use super::{Case, Expect, device, file, folder, outside, plain, shown_as, symlink, tar, with};

/// All cases of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = members();
    cases.extend(hidden());
    cases.extend(pax());
    cases.extend(index_member());
    cases
}

/// A file that the tar shows as something else.
fn shown(name: impl Into<String>, blocks: impl Fn(&super::Place) -> Vec<u8> + Send + Sync + 'static) -> Case {
    Case::of_nodes(name, Expect::Found, move |place| {
        vec![shown_as(file(b"a", b"harmless"), blocks(place)), file(b"b", b"x")]
    })
}

fn members() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in [
        &b"./c"[..],
        b"a",
        b"/a",
        b"../outside/new",
        b"./../outside/new",
        b"./a/../b",
        b"././a",
        b"./a/",
        b"./",
        b"",
        b"./a\n",
    ] {
        let text = name.escape_ascii().to_string();
        cases.push(shown(format!("a member named {text:?} for the file a"), move |_| tar::header(name, b'0', 8, b"")));
    }
    cases.push(shown("a member with an absolute name", |place| tar::header(&outside(place, b"new"), b'0', 8, b"")));
    for (flag, word) in
        [(b'1', "a hard link"), (b'2', "a link"), (b'3', "a device"), (b'5', "a folder"), (b'6', "a pipe")]
    {
        let name = format!("{word} in the tar for a file in the index");
        cases.push(shown(name, move |_| tar::header(b"./a", flag, 0, b"../outside/canary")));
    }
    for flag in [b'7', b'g', b'S', b'D', b'M', b'V', b'A', 0, b'8', b'L', b'K'] {
        let name = format!("a member of type {} for a file", flag.escape_ascii());
        cases.push(shown(name, move |_| tar::header(b"./a", flag, 8, b"")));
    }
    for size in [0, 7, 9, 512, 1 << 30] {
        cases.push(shown(format!("a member of {size} bytes for a file of 8"), move |_| {
            tar::header(b"./a", b'0', size, b"")
        }));
    }
    cases.push(shown("a set-id member for a plain file", |_| {
        tar::changed_header(b"./a", b'0', 8, b"", |block| block[100..108].copy_from_slice(b"0006755\0"))
    }));
    cases.push(shown("a member of another owner", |_| {
        tar::changed_header(b"./a", b'0', 8, b"", |block| block[108..116].copy_from_slice(b"0001750\0"))
    }));
    cases.push(shown("a member of another time", |_| {
        tar::changed_header(b"./a", b'0', 8, b"", |block| block[146] = b'2')
    }));
    cases.push(shown("a member with a wrong checksum", |_| {
        let mut block = tar::header(b"./a", b'0', 8, b"");
        block[150] ^= 1;
        block
    }));
    cases.push(shown("a member whose name is split otherwise", |_| {
        tar::changed_header(b"a", b'0', 8, b"", |block| block[345..356].copy_from_slice(b"../outside/"))
    }));
    cases
}

/// Members that the index does not have, and entries without one.
fn hidden() -> Vec<Case> {
    let extra = |name: &str, blocks: fn(&super::Place) -> Vec<u8>| {
        Case::of_nodes(name, Expect::Found, move |place| {
            let mut both = blocks(place);
            let honest = file(b"b", b"x");
            both.extend(tar::of_record(&honest.record, Some(b"x"), None));
            vec![file(b"a", b"harmless"), shown_as(honest, both)]
        })
    };
    let missing = |node: Node| Node { member: Member::Missing, content: None, ..node };
    vec![
        extra("a file that only the tar has", |_| tar::member(b"./aa", b'0', b"hostile")),
        extra("a link that only the tar has", |_| tar::header(b"./aa", b'2', 0, b"../outside")),
        extra("a hard link that only the tar has", |place| tar::header(b"./aa", b'1', 0, &outside(place, b"canary"))),
        extra("a device that only the tar has", |_| tar::header(b"./aa", b'4', 0, b"")),
        extra("a second member of a name, a link", |_| tar::header(b"./a", b'2', 0, b"../outside")),
        extra("a second member of a name, another file", |_| tar::member(b"./a", b'0', b"hostile!")),
        extra("a first member of a name that is a link", |_| tar::header(b"./b", b'2', 0, b"../outside/canary")),
        extra("a name out of order", |_| tar::member(b"./Z", b'0', b"hostile")),
        extra("the end of a tar in the middle", |_| vec![0; 1024]),
        extra("a block of zeros in the middle", |_| vec![0; 512]),
        Case::of_nodes("a folder without a member", Expect::Found, move |place| {
            full_only(place, vec![missing(folder(b"dir"))])
        }),
        Case::of_nodes("a link without a member", Expect::Found, move |place| {
            full_only(place, vec![missing(symlink(b"l", b"x"))])
        }),
        Case::of_nodes("a pipe without a member", Expect::Found, move |place| {
            full_only(place, vec![missing(plain(b"p", kind::FIFO))])
        }),
        Case::of_nodes("an empty file without a member", Expect::Found, move |place| {
            full_only(place, vec![missing(file(b"e", b""))])
        }),
        Case::of_nodes("a link whose member leads elsewhere", Expect::Found, |_| {
            vec![shown_as(symlink(b"a", b"b"), tar::header(b"./a", b'2', 0, b"../outside"))]
        }),
        Case::of_nodes("a device whose member has other numbers", Expect::Found, |_| {
            let member = device(b"a", kind::CHAR_DEVICE, (8, 1));
            vec![shown_as(device(b"a", kind::CHAR_DEVICE, (1, 3)), tar::of_record(&member.record, None, None))]
        }),
        Case::of_nodes("a hard link whose member leads to another name", Expect::Found, |_| {
            let grouped = |node: Node| with(node, |record| record.link_group = 7);
            let mut second = shown_as(grouped(file(b"c", b"x")), tar::header(b"./c", b'1', 0, b"./b"));
            (second.content, second.record.content) = (None, None);
            vec![grouped(file(b"a", b"x")), file(b"b", b"y"), second]
        }),
    ]
}

/// What a differential may leave to its full, a full may not.
fn full_only(place: &super::Place, nodes: Vec<Node>) -> Vec<Node> {
    if place.base.is_none() {
        nodes
    } else {
        vec![shown_as(file(b"a", b"harmless"), tar::header(b"./c", b'0', 8, b""))]
    }
}

/// Pax records and GNU's long names that say something else than the header.
fn pax() -> Vec<Case> {
    let mut cases = Vec::new();
    let records: [(&str, &[u8], &[u8]); 13] = [
        ("another path", b"path", b"../outside/new"),
        ("another size", b"size", b"0"),
        ("a size of 2^64", b"size", b"18446744073709551616"),
        ("a link path", b"linkpath", b"../outside"),
        ("another owner", b"uid", b"1000"),
        ("a sparse name", b"GNU.sparse.name", b"../outside/new"),
        ("a sparse size", b"GNU.sparse.realsize", b"99999999999"),
        ("an attribute", b"SCHILY.xattr.security.capability", b"\x01\0\0\x02\xff\xff\xff\xff"),
        ("an ACL", b"SCHILY.acl.access", b"user::rwx,user:0:rwx,group::rwx,mask::rwx,other::rwx"),
        ("a character set", b"hdrcharset", b"BINARY"),
        ("a volume", b"GNU.volume.label", b"x"),
        ("an unknown key", b"LIBARCHIVE.creationtime", b"0"),
        ("a key of another file", b"path", b"./b"),
    ];
    for (word, key, value) in records {
        cases.push(shown(format!("a pax header with {word}"), move |_| {
            [tar::pax(&[(key, value)]), tar::header(b"./a", b'0', 8, b"")].concat()
        }));
    }
    cases.push(shown("a pax header for all that follows", |_| {
        let mut global = tar::pax(&[(b"path", b"../outside/new")]);
        global[156] = b'g';
        let fixed = tar::changed_header(b"./PaxHeaders", b'g', 27, b"", |_| ());
        global[..512].copy_from_slice(&fixed);
        [global, tar::header(b"./a", b'0', 8, b"")].concat()
    }));
    cases.push(shown("a pax header of a megabyte", |_| {
        [tar::pax(&[(b"SCHILY.xattr.user.x", &vec![b'x'; 1 << 20])]), tar::header(b"./a", b'0', 8, b"")].concat()
    }));
    cases.push(shown("a pax header that says it has 8 GiB", |_| {
        tar::header(b"./PaxHeaders/coord", b'x', 0o77_777_777_777, b"")
    }));
    cases.push(shown("a hundred pax headers", |_| {
        [tar::pax(&[(b"path", b"../outside/new")]).repeat(100), tar::header(b"./a", b'0', 8, b"")].concat()
    }));
    cases.push(shown("a long name that is another", |_| {
        [tar::long(b'L', b"../outside/new"), tar::header(b"./a", b'0', 8, b"")].concat()
    }));
    cases.push(shown("a long link", |_| [tar::long(b'K', b"../outside"), tar::header(b"./a", b'0', 8, b"")].concat()));
    let map = |text: &'static [u8]| {
        move |_: &super::Place| {
            let pax =
                tar::pax(&[(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"8")]);
            [pax, tar::header(b"./a", b'0', 8 + 512, b""), super::forge::padded(text.to_vec())].concat()
        }
    };
    cases.push(shown("a sparse map that overlaps", map(b"2\n0\n5\n2\n6\n")));
    cases.push(shown("a sparse map that overflows", map(b"1\n18446744073709551615\n8\n")));
    cases.push(shown("a sparse map of 2^63 ranges", map(b"9223372036854775808\n0\n8\n")));
    cases.push(shown("a sparse map with data behind the end", map(b"1\n8000000000\n8\n")));
    cases
}

/// The member that holds the index, as stock tools see it.
fn index_member() -> Vec<Case> {
    let head = |name: &str, block: fn(&[u8]) -> Vec<u8>| {
        Case::lie(name, Expect::Found, move |forge: &mut Forge| {
            forge.lies.head = Some(Box::new(move |head| {
                let block = block(head);
                head[..512].copy_from_slice(&block);
            }));
        })
    };
    fn size(head: &[u8]) -> u64 {
        std::str::from_utf8(&head[124..135]).ok().and_then(|text| u64::from_str_radix(text, 8).ok()).unwrap_or(0)
    }
    vec![
        head("an index that stock tools unpack outside", |head| tar::header(b"../outside/new", b'0', size(head), b"")),
        head("an index that stock tools unpack over a file", |head| tar::header(b"./a", b'0', size(head), b"")),
        head("an index that is a link to stock tools", |head| {
            tar::header(b"./.coord/index", b'2', size(head), b"../../outside")
        }),
        head("an index that is shorter to stock tools", |head| {
            tar::header(b"./.coord/index", b'0', size(head) - 512, b"")
        }),
        head("an index that is longer to stock tools", |head| {
            tar::header(b"./.coord/index", b'0', size(head) + 512, b"")
        }),
        Case::lie("a member behind the index", Expect::Found, |forge| {
            forge.lies.raw_table = Some(Box::new(|raw| {
                raw.truncate(raw.len() - 1024);
                raw.extend(tar::member(b"../outside/new", b'0', b"hostile"));
                raw.resize(raw.len() + 1024, 0);
            }));
        }),
        Case::lie("no end of the tar", Expect::Found, |forge| {
            forge.lies.raw_table = Some(Box::new(|raw| {
                let end = raw.len() - 1024;
                raw[end..].fill(7);
            }));
        }),
    ]
}
