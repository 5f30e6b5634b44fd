//! Names that lead elsewhere, are no names, or are names that a careless program takes for something else.

use super::forge::kind;
use super::{Case, Expect, file, folder, node, plain, record, shown, symlink, with};

/// Paths that no index may hold.
fn unclean() -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = [
        &b".."[..],
        b"../outside/canary",
        b"../outside/new",
        b"../../outside/new",
        b"a/../../outside/new",
        b"a/..",
        b"a/../b",
        b".",
        b"./a",
        b"a/.",
        b"a/./b",
        b"a//b",
        b"//a",
        b"a/",
        b"/",
        b"/a",
        b"/../outside/new",
        b"a\0b",
        b"\0",
        b"..\0",
        b"../outside/canary\0",
    ]
    .map(<[u8]>::to_vec)
    .into();
    paths.push([b"a/".repeat(300), b"..".to_vec()].concat());
    paths
}

/// Names that are right, and that one must not trip over.
fn odd() -> Vec<Vec<u8>> {
    let mut paths: Vec<Vec<u8>> = [
        &b"..."[..],
        b"..a",
        b" ",
        b"-rf",
        b"--checkpoint-action=exec=touch ..",
        b"$(touch ..)",
        b"`touch outside`",
        b"';touch x;'",
        b"\"; rm -rf ..; \"",
        b"new\nline",
        b"\x1b]0;title\x07\x1b[2J",
        b"\xff\xfe",
        b"\\..\\..\\outside",
        b"%2e%2e%2foutside",
        b"C:\\windows",
        b"~root",
        b".coord-restore-0",
        b"GNUSparseFile.0",
        b"PaxHeaders",
        b"@LongLink",
        b"\xe2\x80\xae.txt",
    ]
    .map(<[u8]>::to_vec)
    .into();
    paths.push(vec![b'n'; 255]);
    paths
}

/// Names that exist and cannot be made: too long for a file system, or for one call.
fn long() -> Vec<Vec<u8>> {
    vec![vec![b'n'; 256], vec![b'n'; 4096], vec![b'n'; 256 << 10], vec![b'n'; (256 << 10) + 1]]
}

/// All cases of this group.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in unclean() {
        for (kind, word) in [(kind::FILE, "file"), (kind::FOLDER, "folder"), (kind::SYMLINK, "link")] {
            let (name, path) = (format!("the name {} as a {word}", shown(&path)), path.clone());
            cases.push(Case::of_nodes(name, Expect::Refused, move |_| vec![named(&path, kind)]));
        }
        let (name, path) = (format!("a tombstone of {}", shown(&path)), path.clone());
        cases.push(Case::of_nodes(name, Expect::Refused, move |_| vec![plain(&path, kind::TOMBSTONE)]));
    }
    for absolute in [&b"canary"[..], b"new", b"folder/new"] {
        let name = format!("the absolute name of {}", shown(absolute));
        cases.push(Case::of_nodes(name, Expect::Refused, move |place| {
            vec![file(&super::outside(place, absolute), b"x")]
        }));
    }
    for path in odd() {
        let name = format!("the odd name {}", shown(&path));
        cases.push(Case::of_nodes(name, Expect::Clean, move |_| vec![file(&path, b"odd")]));
    }
    for path in long() {
        let name = format!("a name of {} bytes", path.len());
        cases.push(Case::of_nodes(name, Expect::Contained, move |_| vec![file(&path, b"long")]));
    }
    cases.push(Case::of_nodes("folders 2,000 deep", Expect::Contained, |_| deep(2000, b"d")));
    cases
        .push(Case::of_nodes("folders 40 deep with names of 250 bytes", Expect::Contained, |_| deep(40, &[b'd'; 250])));
    cases.push(Case::of_nodes("a name that shares more than there is", Expect::Refused, |_| {
        vec![with(file(b"a", b"x"), |record| record.shared = 1 << 40)]
    }));
    cases.push(Case::of_nodes("a name that becomes .. by what it shares", Expect::Refused, |_| {
        // "." of "..." and another "." behind it.
        vec![file(b"...", b"x"), with(file(b".", b"y"), |record| record.shared = 1)]
    }));
    cases
        .push(Case::of_nodes("a name that comes twice", Expect::Refused, |_| vec![file(b"a", b"x"), file(b"a", b"y")]));
    cases.push(Case::of_nodes("names in the wrong order", Expect::Refused, |_| {
        vec![file(b"b", b"x"), file(b"a", b"y")]
    }));
    cases.push(Case::of_nodes("a name without its folder", Expect::Contained, |_| vec![file(b"a/b/c", b"x")]));
    cases.push(Case::of_nodes("a second root", Expect::Refused, |_| vec![node(record(b"", kind::FOLDER))]));
    cases
}

fn named(path: &[u8], kind: u8) -> super::forge::Node {
    if kind == kind::SYMLINK { symlink(path, b"../outside") } else { plain(path, kind) }
}

fn deep(depth: usize, name: &[u8]) -> Vec<super::forge::Node> {
    let mut path = Vec::new();
    (0..depth)
        .map(|level| {
            if level > 0 {
                path.push(b'/');
            }
            path.extend(name);
            folder(&path)
        })
        .collect()
}
