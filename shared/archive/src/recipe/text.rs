//! The text of `RESTORE.txt`: commands for this very archive, to be run by somebody who has nothing of ours.
//!
//! The commands are the lines indented by four spaces, in one piece; a test runs exactly these. Only the assignments at
//! their beginning have to be edited.

use super::{quoted, quoted_name};
use crate::codec::Codec;
use crate::header::{Header, Level, escape};

/// What precedes the place of an archive or target in the commands, to be replaced by whoever runs them.
pub const PLACE: &str = "/PATH/TO/";

/// Flags for an exact extraction with GNU tar.
const TAR_FLAGS: &str = "--force-local --same-owner --numeric-owner -p --acls --xattrs --xattrs-include='*' \\
        --delay-directory-restore";

/// The content of `RESTORE.txt` for the archive whose file name is `name`.
#[must_use]
pub fn restore_txt(header: &Header, codec: Codec, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    introduction(header, codec, &mut out);
    match header.level {
        Level::Full => full_commands(header, name, &mut out),
        Level::Differential => differential_commands(header, name, &mut out),
    }
    out.extend_from_slice(
        b"\nOne file or folder alone: name it at the end of the tar command, as ./path/to/it. `tar -t` lists the names.\n",
    );
    out
}

fn introduction(header: &Header, codec: Codec, out: &mut Vec<u8>) {
    let named = |named: &Option<crate::header::Named>| {
        named.as_ref().map_or("-".to_owned(), |named| named.name.escape_debug().to_string())
    };
    let level = match header.level {
        Level::Full => "full backup",
        Level::Differential => "differential backup",
    };
    let codec = match codec {
        Codec::Zstd => "zstd",
        Codec::Gzip => "gzip",
    };
    let text = format!(
        "This file is a compressed tar archive with a {level}.\n\
         Host: {}. Policy: {}. Names are relative to: {}\n\
         Backup begun at: {} (clock of the host).\n\
         Written by: {}.\n\n\
         It can be restored without the program that wrote it. As root, with GNU tar 1.31 or newer, {codec}, GNU\n\
         coreutils and findutils, setfattr (attr) and chattr (e2fsprogs): set the names in the first lines below, with\n\
         their whole paths, and run all of these lines with sh. The target must be an empty folder. The exit status is 0\n\
         when everything was restored.\n\n",
        named(&header.host),
        named(&header.policy),
        escape(&header.root),
        header.scan_started_at,
        header.tool.escape_debug(),
    );
    out.extend_from_slice(text.as_bytes());
}

fn place(variable: &str, name: &[u8], out: &mut Vec<u8>) {
    let word = quoted(&[PLACE.as_bytes(), name].concat());
    out.extend_from_slice(&[b"    ", variable.as_bytes(), b"=", &word, b"\n"].concat());
}

fn command(line: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("    {line}\n").as_bytes());
}

fn full_commands(header: &Header, name: &[u8], out: &mut Vec<u8>) {
    place("full", name, out);
    place("target", b"an/empty/folder", out);
    command("set -eu", out);
    command("cd -- \"$target\"", out);
    command(&format!("tar {TAR_FLAGS} -xf \"$full\""), out);
    command(&format!("sh ./{}/attributes.sh", header.dot_coord_name()), out);
}

/// The full may use another codec and another name for our folder: its first member tells the name, and tar finds the codec.
/// What the full's script has to say comes last, as it may make files immutable.
fn differential_commands(header: &Header, name: &[u8], out: &mut Vec<u8>) {
    let base_name = header.base.as_ref().map_or("FULL", |base| base.name.as_str());
    let ours = quoted_name(header.dot_coord_name().as_bytes());
    let ours = String::from_utf8_lossy(&ours).into_owned();
    out.extend_from_slice(
        b"A differential needs the full it stands on, which is named here, and no other archive.\n\n",
    );
    place("full", base_name.as_bytes(), out);
    place("differential", name, out);
    place("target", b"an/empty/folder", out);
    for line in [
        "set -eu",
        "cd -- \"$target\"",
        "work=$(mktemp -d)",
        &format!("tar {TAR_FLAGS} -xf \"$full\""),
        "ours=$(tar --force-local -tf \"$full\" 2>/dev/null | head -n 1)",
        "ours=${ours%/*}",
        "mv \"$ours/attributes.sh\" \"$work/full.sh\"",
        "rm -rf \"$ours\"",
        &format!("tar --force-local -xOf \"$differential\" {ours}/deleted > \"$work/deleted\""),
        "xargs -0 -r rm -df < \"$work/deleted\"",
        ": > \"$work/marker\"; sleep 1",
        &format!("tar {TAR_FLAGS} -xf \"$differential\""),
        &format!("sh {ours}/attributes.sh"),
        "sh \"$work/full.sh\" \"$work/marker\"",
        "rm -rf \"$work\"",
    ] {
        command(line, out);
    }
}
