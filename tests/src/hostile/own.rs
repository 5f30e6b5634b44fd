//! Files that pretend to be our own folder in the archive, and scripts and lists that say more than they should.

use super::forge::kind;
use super::{Case, Expect, file, folder, outside, plain, shown_as, symlink, tar};

/// All cases of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in [&b".coord/index"[..], b".coord/attributes.sh", b".coord/deleted", b".coord/RESTORE.txt", b".coord/x"] {
        let text = name.escape_ascii().to_string();
        cases.push(Case::of_nodes(format!("a file of the backup named {text}"), Expect::Found, move |_| {
            vec![folder(b".coord"), file(name, b"touch pwned\n")]
        }));
    }
    cases.push(Case::of_nodes("our own folder as a link to the outside", Expect::Found, |_| {
        vec![symlink(b".coord", b"../outside")]
    }));
    cases.push(Case::of_nodes("our own folder as a file", Expect::Found, |_| vec![file(b".coord", b"x")]));
    cases.push(Case::of_nodes("folders with numbers of ours", Expect::Clean, |_| {
        vec![folder(b".coord.1"), file(b".coord.1/index", b"x"), folder(b".coord.4294967295"), folder(b".coord.x")]
    }));
    let scripts: [(&str, &[u8]); 7] = [
        ("a script that removes everything", b"#!/bin/sh\nrm -rf ..\n"),
        ("a script with a name that is a command", b"#!/bin/sh\nchmod 00644 './a'; touch pwned || s=1\n"),
        ("a script whose quotes never end", b"chmod 00644 './a || s=1\n"),
        ("a script with names outside", b"chmod 00777 './../outside/canary' || s=1\nchown -h 0:0 '/etc' || s=1\n"),
        ("a script with a line of a megabyte", b"chmod "),
        ("a script of NULs", b"\0\0\0\0"),
        ("no script", b""),
    ];
    for (name, script) in scripts {
        cases.push(Case::lie(name, Expect::Contained, move |forge| {
            forge.script = if name.contains("megabyte") { script.repeat(1 << 18) } else { script.to_vec() };
        }));
    }
    let lists: [(&str, &[u8]); 5] = [
        ("a list of deleted names that leads outside", b"./../outside/canary\0../outside\0/\0"),
        ("a list of deleted names without an end", b"./a"),
        ("a list of deleted names that are empty", b"\0\0\0./\0"),
        ("a list of deleted names with an option", b"-rf\0--\0./-rf\0"),
        ("a list that deletes everything", b"./\0.\0"),
    ];
    for (name, list) in lists {
        cases.push(Case::lie(name, Expect::Contained, move |forge| forge.deleted = list.to_vec()));
    }
    cases.extend(members());
    cases
}

/// Members of ours where none belongs.
fn members() -> Vec<Case> {
    let between = |name: &str, blocks: fn(&super::Place) -> Vec<u8>| {
        Case::of_nodes(name, Expect::Found, move |place| {
            let mut both = blocks(place);
            let honest = file(b"b", b"x");
            both.extend(tar::of_record(&honest.record, Some(b"x"), None));
            vec![file(b"a", b"harmless"), shown_as(honest, both)]
        })
    };
    vec![
        between("a second RESTORE.txt in the middle", |_| tar::member(b"./.coord/RESTORE.txt", b'0', b"rm -rf /\n")),
        between("a script in the middle", |_| tar::member(b"./.coord/attributes.sh", b'0', b"rm -rf /\n")),
        between("an index in the middle", |_| tar::member(b"./.coord/index", b'0', b"x")),
        between("a stranger in our folder", |_| tar::member(b"./.coord/extra", b'0', b"x")),
        between("our folder as a link", |_| tar::header(b"./.coord", b'2', 0, b"../outside")),
        between("a link in our folder", |place| {
            tar::header(b"./.coord/attributes.sh", b'2', 0, &outside(place, b"canary"))
        }),
        Case::lie("no RESTORE.txt", Expect::Found, |forge| {
            forge.lies.raw_frames = Some(Box::new(|frames| {
                frames[0].drain(..1024);
            }));
        }),
        Case::lie("a script before the content", Expect::Found, |forge| {
            forge.lies.raw_frames = Some(Box::new(|frames| {
                let script = tar::member(b"./.coord/attributes.sh", b'0', b"exit 0\n");
                frames[0].splice(1024..1024, script);
            }));
        }),
        Case::of_nodes("a tombstone of everything", Expect::Contained, |_| {
            vec![plain(b"a", kind::TOMBSTONE), plain(b"dir", kind::TOMBSTONE)]
        }),
    ]
}
