use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn time() -> impl Strategy<Value = FileTime> {
    (any::<i64>(), 0_u32..1_000_000_000).prop_map(|(seconds, nanos)| FileTime { seconds, nanos })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let xattrs = vec((vec(any::<u8>(), 1..9), vec(any::<u8>(), 0..9)), 0..3);
    (0_u32..0o10000, 0_u32..3, any::<u32>(), "[a-z]{0,4}", time(), any::<u32>(), xattrs).prop_map(
        |(mode, uid, gid, user, mtime, inode_flags, xattrs)| Attributes {
            mode,
            uid,
            gid,
            user: user.clone().into_bytes(),
            group: user.into_bytes(),
            mtime,
            inode_flags,
            xattrs: xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect(),
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let ranges = vec((1_u64..1 << 30, 1_u64..1 << 30), 0..4);
    let content = (0_u64..3, any::<u64>(), any::<u32>(), any::<u32>());
    (
        (0_u8..8, any::<u16>(), attributes(), time(), any::<u64>()),
        (vec(any::<u8>(), 0..9), any::<(u32, u32)>(), any::<u64>(), prop::option::of(ranges)),
        (prop::option::of(any::<[u8; 32]>()), vec(any::<[u8; 32]>(), 0..3), prop::option::of(content)),
    )
        .prop_map(|((kind, flags, attributes, ctime, inode), (link_target, device, link_group, gaps), rest)| {
            let mut end = 0;
            let data_ranges = gaps.map(|gaps| {
                let ranges = gaps.into_iter().map(|(hole, length)| {
                    let offset = end + hole;
                    end = offset + length;
                    DataRange { offset, length }
                });
                ranges.collect::<Vec<_>>()
            });
            let (digest, pieces, content) = rest;
            Entry {
                path: Vec::new(),
                kind: kind_from(kind % 7 + 1).unwrap(),
                flags: Flags(flags),
                size: end + u64::from(kind),
                attributes,
                identity: Identity { inode, ctime },
                link_target,
                device,
                link_group,
                data_ranges,
                digest: digest.map(Digest),
                pieces: pieces.into_iter().map(Digest).collect(),
                content: content.map(|(frame, frame_offset, frame_length, offset)| ContentRef {
                    frame,
                    frame_offset,
                    frame_length,
                    offset,
                }),
            }
        })
}

pub(crate) fn block() -> impl Strategy<Value = Vec<Entry>> {
    let name = vec(prop::sample::select(b"ab/\xff\n".as_slice()), 0..12);
    btree_map(name, entry(), 1..20).prop_map(|entries| {
        let mut entries: Vec<Entry> = entries
            .into_iter()
            .filter(|(path, _)| is_clean_path(path))
            .map(|(path, entry)| Entry { path, ..entry })
            .collect();
        entries.sort_by(|a, b| cmp_paths(&a.path, &b.path));
        entries
    })
}

pub(crate) fn raw(entries: &[Entry]) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    entries.iter().for_each(|entry| builder.push(entry));
    builder.take().map(|block| block.raw).unwrap_or_else(|| vec![0; 512])
}

proptest! {
    #[test]
    fn any_entries_come_back(entries in block()) {
        prop_assert_eq!(decode(&raw(&entries)).unwrap(), entries);
    }

    #[test]
    fn changed_bytes_never_panic(
        entries in block(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut raw = raw(&entries);
        for (at, byte) in changes {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        if let Ok(entries) = decode(&raw) {
            prop_assert!(entries.iter().all(|entry| is_clean_path(&entry.path)));
            prop_assert!(entries.windows(2).all(|pair| cmp_paths(&pair[0].path, &pair[1].path).is_lt()));
        }
        let _may_fail = decode(&raw[..cut.index(raw.len())]);
    }
}

#[test]
fn a_later_version_may_append_fields_to_an_entry() {
    let mut builder = BlockBuilder::default();
    let entry = Entry { path: b"a".to_vec(), ..generated() };
    builder.push(&entry);
    let records = std::mem::take(&mut builder.records);
    let mut cursor = Cursor::new(&records);
    let body = [cursor.bytes().unwrap(), b"something new"].concat();
    let mut longer = Vec::new();
    put_u64(&mut longer, 1);
    put_bytes(&mut longer, &body);
    assert_eq!(decode(&longer).unwrap(), [entry]);
}

/// Some entry, always the same.
fn generated() -> Entry {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    proptest::strategy::ValueTree::current(&entry().new_tree(&mut runner).unwrap())
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let entry = generated();
    for path in [&b".."[..], b"/etc", b"a/../b", b"a//b", b"a/", b"./a", b"nul\0"] {
        let hostile = Entry { path: path.to_vec(), ..entry.clone() };
        assert!(decode(&raw(&[hostile])).is_err(), "{path:?}");
    }
    let named = |path: &[u8]| Entry { path: path.to_vec(), ..entry.clone() };
    assert!(decode(&raw(&[named(b"b"), named(b"a")])).is_err());
    assert!(decode(&raw(&[named(b"a"), named(b"a")])).is_err());
}
