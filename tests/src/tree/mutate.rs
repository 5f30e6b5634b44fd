//! Changes to an awkward tree that a differential must carry: one of each kind.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::awkward::set_mtime;

/// Applies one change of each kind to a tree that [`super::awkward::make`] made. Returns them in words.
///
/// # Errors
/// The first change that could not be made.
pub fn change_everything(root: &Path) -> io::Result<Vec<&'static str>> {
    let mut done = Vec::new();
    edits(root, &mut done)?;
    names(root, &mut done)?;
    kinds(root, &mut done)?;
    links(root, &mut done)?;
    attributes(root, &mut done)?;
    Ok(done)
}

fn edits(root: &Path, done: &mut Vec<&'static str>) -> io::Result<()> {
    fs::write(root.join("names/a/new"), b"added")?;
    done.push("a file added");
    OpenOptions::new().append(true).open(root.join("files/several-pieces"))?.write_all(b"tail")?;
    done.push("a large file appended to");
    // The folder's own times are put back: an edit under a folder that looks unchanged.
    let folder = fs::metadata(root.join("files"))?;
    fs::write(root.join("files/block"), vec![7; 512])?;
    fs::write(root.join("files/empty"), b"not empty any more")?;
    set_mtime(&root.join("files"), std::os::unix::fs::MetadataExt::mtime(&folder), nanos(&folder))?;
    done.push("files edited under a folder whose times did not change");
    // Same size, same mtime: only the change time tells.
    let small = fs::metadata(root.join("files/small"))?;
    fs::write(root.join("files/small"), b"SMALL")?;
    set_mtime(&root.join("files/small"), std::os::unix::fs::MetadataExt::mtime(&small), nanos(&small))?;
    done.push("an edit that kept size and mtime");
    set_mtime(&root.join("files/block-and-one"), 1_500_000_000, 500)?;
    done.push("a file touched, content equal");
    Ok(())
}

fn nanos(metadata: &fs::Metadata) -> u32 {
    u32::try_from(std::os::unix::fs::MetadataExt::mtime_nsec(metadata)).unwrap_or(0)
}

fn names(root: &Path, done: &mut Vec<&'static str>) -> io::Result<()> {
    fs::remove_file(root.join("names/a.b"))?;
    fs::remove_file(root.join("names/-leading-dash"))?;
    done.push("files deleted");
    fs::rename(root.join("names/a-b"), root.join("names/renamed"))?;
    done.push("a file renamed");
    fs::rename(root.join("names/deep"), root.join("moved"))?;
    done.push("a folder moved with all below it");
    fs::create_dir_all(root.join("fresh/folder"))?;
    fs::write(root.join("fresh/folder/file"), b"fresh")?;
    done.push("a folder added");
    Ok(())
}

fn kinds(root: &Path, done: &mut Vec<&'static str>) -> io::Result<()> {
    fs::remove_dir(root.join("folders/empty"))?;
    fs::write(root.join("folders/empty"), b"a file now")?;
    done.push("a folder became a file");
    fs::remove_file(root.join("files/block-and-one"))?;
    fs::create_dir(root.join("files/block-and-one"))?;
    fs::write(root.join("files/block-and-one/inside"), b"inside")?;
    done.push("a file became a folder");
    fs::remove_file(root.join("links/to-first"))?;
    fs::write(root.join("links/to-first"), b"a file now")?;
    fs::remove_file(root.join("files/suid"))?;
    symlink("sgid", root.join("files/suid"))?;
    done.push("links and files swapped");
    Ok(())
}

fn links(root: &Path, done: &mut Vec<&'static str>) -> io::Result<()> {
    fs::remove_file(root.join("links/second"))?;
    fs::write(root.join("links/second"), b"three names")?;
    done.push("a hard link split off, content equal");
    fs::hard_link(root.join("files/piece"), root.join("links/joined"))?;
    done.push("a hard link added to a file of another folder");
    fs::hard_link(root.join("links/first"), root.join("links/a-fourth"))?;
    done.push("a name added to a group");
    Ok(())
}

fn attributes(root: &Path, done: &mut Vec<&'static str>) -> io::Result<()> {
    fs::set_permissions(root.join("files/sgid"), Permissions::from_mode(0o600))?;
    fs::set_permissions(root.join("folders/private"), Permissions::from_mode(0o750))?;
    done.push("modes changed");
    // Absent where the file system kept no attributes to begin with.
    let removed = rustix::fs::lremovexattr(root.join("attributes/removed-later"), "user.gone").is_ok();
    let removed = rustix::fs::lremovexattr(root.join("attributes/acl"), "system.posix_acl_access").is_ok() && removed;
    if removed {
        done.push("an attribute and an ACL removed");
    }
    Ok(())
}
