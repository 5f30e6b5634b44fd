//! A plain comparison of a folder with a full's index: the steps of a differential. The real one lives in the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use coord_archive::digest::Digest;
use coord_archive::entry::{Attributes, Entry, FileTime, Flags, Identity, Kind, Xattr, cmp_paths, is_at_or_below};
use coord_archive::pack::{Item, Plan, Step};
use coord_archive::reader::ArchiveReader;
use coord_archive::recipe::RESTORABLE_INODE_FLAGS;

use crate::support::full_steps;

/// The steps of a full, with inode flags and the attributes of symbolic links besides.
pub fn full_of(root: &Path) -> Vec<Step> {
    let mut steps = full_steps(root);
    for step in &mut steps {
        if let Step::Item(item) = step {
            complete(root, &mut item.entry);
        }
    }
    steps
}

fn complete(root: &Path, entry: &mut Entry) {
    let path = root.join(OsStr::from_bytes(&entry.path));
    if matches!(entry.kind, Kind::File | Kind::Folder) {
        let file = std::fs::File::open(&path).unwrap();
        let flags = rustix::fs::ioctl_getflags(&file).map_or(0, |flags| flags.bits());
        entry.attributes.inode_flags = flags & RESTORABLE_INODE_FLAGS;
    } else {
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
            entry.attributes.xattrs.push(Xattr { name: name.to_vec(), value: value[..length].to_vec() });
        }
    }
}

type Groups = BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>;

/// For each hard-linked path all paths of its group.
fn groups<'a>(entries: impl Iterator<Item = &'a Entry> + Clone) -> Groups {
    let mut members: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for entry in entries.filter(|entry| entry.link_group != 0) {
        members.entry(entry.link_group).or_default().insert(entry.path.clone());
    }
    members.into_values().flat_map(|set| set.clone().into_iter().map(move |path| (path, set.clone()))).collect()
}

/// The steps of a differential of `root` on `base`.
pub fn steps(base: &ArchiveReader, root: &Path) -> Vec<Step> {
    let old: Vec<Entry> = base.entries().map(Result::unwrap).collect();
    let new: Vec<Item> = full_of(root)
        .into_iter()
        .filter_map(|step| match step {
            Step::Item(item) => Some(item),
            Step::Removed { .. } | Step::FolderExit { .. } => None,
        })
        .map(|mut item| {
            // The full's numbers name the full's groups; a differential's own groups have others.
            item.entry.link_group += if item.entry.link_group == 0 { 0 } else { 1 << 32 };
            item
        })
        .collect();
    let mut differ = Differ {
        root,
        old_groups: groups(old.iter()),
        new_groups: groups(new.iter().map(|item| &item.entry)),
        open: Vec::new(),
        steps: Vec::new(),
    };
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => differ.gone(&old.next().unwrap()),
            (None, Some(_)) => differ.appeared(new.next().unwrap()),
            (Some(a), Some(b)) => match cmp_paths(&a.path, &b.entry.path) {
                std::cmp::Ordering::Less => differ.gone(&old.next().unwrap()),
                std::cmp::Ordering::Greater => differ.appeared(new.next().unwrap()),
                std::cmp::Ordering::Equal => differ.both(&old.next().unwrap(), new.next().unwrap()),
            },
        }
    }
    differ.leave_all();
    differ.steps
}

struct Differ<'a> {
    root: &'a Path,
    old_groups: Groups,
    new_groups: Groups,
    /// Folder, its attributes in the base, whether it needs a line.
    open: Vec<(Entry, Option<Attributes>, bool)>,
    steps: Vec<Step>,
}

impl Differ<'_> {
    fn leave(&mut self, next: &[u8]) {
        while self.open.last().is_some_and(|(folder, _, _)| !is_at_or_below(next, &folder.path)) {
            self.leave_one();
        }
    }

    fn leave_one(&mut self) {
        if let Some((entry, base, true)) = self.open.pop() {
            self.steps.push(Step::FolderExit { entry, base: base.map(Box::new) });
        }
    }

    fn leave_all(&mut self) {
        while !self.open.is_empty() {
            self.leave_one();
        }
    }

    fn folder_changes(&mut self) {
        if let Some((_, _, changes)) = self.open.last_mut() {
            *changes = true;
        }
    }

    fn gone(&mut self, old: &Entry) {
        self.leave(&old.path);
        self.folder_changes();
        let entry = Entry {
            kind: Kind::Tombstone,
            flags: Flags::default(),
            size: 0,
            attributes: Attributes { mtime: FileTime::default(), ..Attributes::default() },
            identity: Identity::default(),
            link_target: Vec::new(),
            device: (0, 0),
            link_group: 0,
            data_ranges: None,
            digest: None,
            pieces: Vec::new(),
            content: None,
            path: old.path.clone(),
        };
        self.steps.push(Step::Item(Item { entry, plan: Plan::IndexOnly }));
    }

    fn appeared(&mut self, item: Item) {
        self.leave(&item.entry.path);
        self.folder_changes();
        self.store(item, None);
    }

    fn store(&mut self, item: Item, base: Option<Attributes>) {
        if item.entry.kind == Kind::Folder {
            self.open.push((item.entry.clone(), base, false));
        }
        self.steps.push(Step::Item(item));
    }

    fn both(&mut self, old: &Entry, item: Item) {
        self.leave(&item.entry.path);
        let entry = &item.entry;
        if old.kind != entry.kind {
            self.folder_changes();
            self.steps.push(Step::Removed { path: old.path.clone() });
            return self.store(item, None);
        }
        let attributes_differ = old.attributes != entry.attributes;
        if entry.kind == Kind::Folder {
            let changes = attributes_differ || entry.path.is_empty();
            self.open.push((entry.clone(), Some(old.attributes.clone()), changes));
            if attributes_differ {
                let plan = Plan::Attributes { base: Box::new(old.attributes.clone()) };
                self.steps.push(Step::Item(Item { entry: item.entry, plan }));
            }
            return;
        }
        let links_differ = self.old_groups.get(&old.path) != self.new_groups.get(&old.path);
        let content_differs = old.link_target != entry.link_target
            || old.device != entry.device
            || (entry.kind == Kind::File && old.digest != Some(self.digest(&entry.path)));
        if links_differ || content_differs {
            self.folder_changes();
            self.steps.push(Step::Item(item));
        } else if attributes_differ {
            let plan = Plan::Attributes { base: Box::new(old.attributes.clone()) };
            let entry = Entry {
                flags: Flags::CONTENT_IN_BASE,
                data_ranges: old.data_ranges.clone(),
                digest: old.digest,
                pieces: old.pieces.clone(),
                content: old.content,
                ..item.entry
            };
            self.steps.push(Step::Item(Item { entry, plan }));
        }
    }

    fn digest(&self, path: &[u8]) -> Digest {
        Digest::of(&std::fs::read(self.root.join(OsStr::from_bytes(path))).unwrap())
    }
}
