//! Hostile archives: some hundred ways in which somebody who can write an archive may try to harm whoever reads it.
//!
//! Each case is made by code and has a name. `forge` and `tar` write them without any code of the product; the other modules hold one group
//! of cases each, and `trial` puts one through every command that reads archives.

pub mod content;
pub mod forge;
pub mod header;
pub mod kinds;
pub mod links;
pub mod names;
pub mod own;
pub mod structure;
pub mod tar;
pub mod tar_lies;
pub mod trial;

use forge::{Forge, Node, Record, kind};

/// What a case meets.
#[derive(Clone, Debug)]
pub struct Place {
    /// Absolute path of a folder beside the target, which nobody may touch.
    pub outside: Vec<u8>,
    /// Digest of the full, where the case is to be a differential.
    pub base: Option<[u8; 32]>,
}

/// What has to come of a case, besides that nothing outside the target is touched, nothing panics, and memory and time are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It is taken for an archive, and all of it is right: this is no attack.
    Clean,
    /// It is no archive, or its index cannot be read: nobody reads it to the end, and nobody restores all of it.
    Refused,
    /// `verify` finds it.
    Found,
    /// A correct and safe result, or an error.
    Contained,
}

/// Makes an archive for a place.
type Build = Box<dyn Fn(&Place) -> anyhow::Result<Vec<u8>> + Send + Sync>;

/// Changes something that is being made.
type Change<T> = fn(&mut T);

/// Makes something.
type Make<T> = fn() -> T;

/// One hostile archive.
pub struct Case {
    /// Its name, for the one who looks for it.
    pub name: String,
    /// What has to come of it.
    pub expect: Expect,
    build: Build,
}

impl Case {
    /// The archive's bytes.
    ///
    /// # Errors
    /// It cannot be compressed.
    pub fn build(&self, place: &Place) -> anyhow::Result<Vec<u8>> {
        (self.build)(place)
    }

    /// A case made of names; the root is put before them.
    fn of_nodes(
        name: impl Into<String>,
        expect: Expect,
        nodes: impl Fn(&Place) -> Vec<Node> + Send + Sync + 'static,
    ) -> Self {
        Self::forged(name, expect, move |place, forge| forge.nodes.extend(nodes(place)))
    }

    /// A case made of an archive that has its root, and to which `change` adds what it likes.
    fn forged(
        name: impl Into<String>,
        expect: Expect,
        change: impl Fn(&Place, &mut Forge) + Send + Sync + 'static,
    ) -> Self {
        let build = move |place: &Place| {
            let mut forge = Forge::new(place.base, vec![folder(b"")]);
            change(place, &mut forge);
            forge.seal()
        };
        Self { name: name.into(), expect, build: Box::new(build) }
    }

    /// A case that changes one thing about an archive of two files in two frames.
    fn lie(name: impl Into<String>, expect: Expect, change: impl Fn(&mut Forge) + Send + Sync + 'static) -> Self {
        Self::forged(name, expect, move |_, forge| {
            forge.nodes.extend([file(b"a", b"first"), Node { begins_frame: true, ..file(b"b", b"second") }]);
            change(forge);
        })
    }
}

/// Names of nobody's harm: some files, folders and a link.
#[must_use]
pub fn honest_nodes() -> Vec<Node> {
    vec![
        folder(b""),
        folder(b"a"),
        file(b"a/x", b"in a folder"),
        file(b"b", b"a file"),
        folder(b"dir"),
        folder(b"dir/sub"),
        file(b"dir/sub/y", b"deep"),
        symlink(b"link", b"b"),
    ]
}

/// The archive that differentials stand on.
///
/// # Errors
/// It cannot be compressed.
pub fn honest_full() -> anyhow::Result<Vec<u8>> {
    Forge::new(None, honest_nodes()).seal()
}

fn record(path: &[u8], kind: u8) -> Record {
    Record {
        path: path.to_vec(),
        kind,
        flags: 0,
        mode: if kind == kind::FOLDER { 0o755 } else { 0o644 },
        mtime: (1, 0),
        owner: (u64::from(rustix::process::getuid().as_raw()), u64::from(rustix::process::getgid().as_raw())),
        size: 0,
        inode_flags: 0,
        xattrs: Vec::new(),
        link_target: Vec::new(),
        device: (0, 0),
        link_group: 0,
        ranges: None,
        digest: None,
        pieces: Vec::new(),
        content: None,
        shared: 0,
        false_fields: 0,
        raw: None,
    }
}

fn node(record: Record) -> Node {
    Node { record, content: None, member: forge::Member::Honest, begins_frame: false, begins_block: false }
}

/// A name of that kind, without anything else.
fn plain(path: &[u8], kind: u8) -> Node {
    if kind == kind::FILE { file(path, b"content") } else { node(record(path, kind)) }
}

fn folder(path: &[u8]) -> Node {
    node(record(path, kind::FOLDER))
}

fn file(path: &[u8], content: &[u8]) -> Node {
    let digest = Some(*blake3::hash(content).as_bytes());
    let record = Record { size: content.len() as u64, digest, ..record(path, kind::FILE) };
    Node { content: Some(content.to_vec()), ..node(record) }
}

fn symlink(path: &[u8], to: &[u8]) -> Node {
    node(Record { link_target: to.to_vec(), ..record(path, kind::SYMLINK) })
}

fn device(path: &[u8], kind: u8, device: (u64, u64)) -> Node {
    node(Record { device, ..record(path, kind) })
}

/// The same node with another record.
fn with(mut node: Node, change: impl Fn(&mut Record)) -> Node {
    change(&mut node.record);
    node
}

/// The same node with other blocks in the tar.
fn shown_as(node: Node, blocks: Vec<u8>) -> Node {
    Node { member: forge::Member::Raw(blocks), ..node }
}

/// A path in the folder that nobody may touch.
fn outside(place: &Place, name: &[u8]) -> Vec<u8> {
    [place.outside.as_slice(), b"/", name].concat()
}

/// Text of bytes for a case's name.
fn shown(bytes: &[u8]) -> String {
    let text: String = bytes.escape_ascii().to_string();
    if text.len() > 40 { format!("{}.. of {} bytes", &text[..30], bytes.len()) } else { text }
}
