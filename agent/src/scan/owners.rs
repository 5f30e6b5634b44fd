//! Names of owners and groups, as the protected host itself knows them. Informative: restores go by number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::tree::Tree;

/// Longest account file that is read, in bytes.
const MAX_ACCOUNT_BYTES: u64 = 16 << 20;

/// Names by number.
#[derive(Debug, Default)]
pub struct Owners {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl Owners {
    /// Reads `etc/passwd` and `etc/group` of the tree, or of this machine where the tree is no whole host.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        Self { users: accounts(tree, "etc/passwd"), groups: accounts(tree, "etc/group") }
    }

    /// Name of user `id`; empty if unknown.
    #[must_use]
    pub fn user(&self, id: u32) -> Vec<u8> {
        self.users.get(&id).cloned().unwrap_or_default()
    }

    /// Name of group `id`; empty if unknown.
    #[must_use]
    pub fn group(&self, id: u32) -> Vec<u8> {
        self.groups.get(&id).cloned().unwrap_or_default()
    }
}

fn accounts(tree: &Tree, path: &str) -> HashMap<u32, Vec<u8>> {
    let own = tree.open_file(path.as_bytes()).and_then(read);
    let text = own.or_else(|_| File::open(Path::new("/").join(path)).and_then(read));
    // Names are a courtesy: a host without account files is backed up by number.
    parse(&text.unwrap_or_default())
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(MAX_ACCOUNT_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// `name:x:number:...`; the first line of a number counts, as for the system.
fn parse(text: &[u8]) -> HashMap<u32, Vec<u8>> {
    let mut names = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else { continue };
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        if let Some(number) = number.filter(|_| !name.is_empty()) {
            names.entry(number).or_insert_with(|| name.to_vec());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_a_number_counts_and_nonsense_is_passed_over() {
        let names =
            parse(b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n#c\n+::::::\nbad:x:minus:1\nann:x:1000:1000");
        assert_eq!(names.len(), 2);
        assert_eq!(names[&0], b"root");
        assert_eq!(names[&1000], b"ann");
    }
}
