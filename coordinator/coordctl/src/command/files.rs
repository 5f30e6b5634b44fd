//! `coordctl ls` and `coordctl cat`: looking into a restore point.

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Args;
use coord_archive::digest::ContentHasher;
use coord_shared::api::{self, ListFilesRequest, ReadFileRequest, file_chunk};
use coord_shared::fault::{ErrorCode, Fault};
use serde_json::{Value, json};

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Format;
use crate::output::document::Fields;
use crate::place::Place;
use crate::session::Session;
use crate::{complete, completer};
use crate::{json as form, shown};

/// Lists a folder, or one file, at a time.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// HOST or HOST/PATH.
    #[arg(add = completer(complete::places))]
    place: OsString,
    /// The time; default: latest.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Of this policy only.
    #[arg(long, add = completer(complete::policies))]
    policy: Option<String>,
    /// Mode, owner, size and time too.
    #[arg(short = 'l', long)]
    long: bool,
    /// Everything below, not only the folder itself.
    #[arg(short = 'R', long)]
    recursive: bool,
}

/// Writes one file as it was at a time to standard output.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// HOST/FILE.
    #[arg(add = completer(complete::places))]
    place: OsString,
    /// The time; default: latest.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Of this policy only.
    #[arg(long, add = completer(complete::policies))]
    policy: Option<String>,
}

/// Reads a place.
pub fn place(argument: &std::ffi::OsStr) -> Result<Place, Failure> {
    Place::parse(argument).map_err(|error| Failure::usage(error.to_string(), "coordctl host list"))
}

/// Runs `ls`.
pub async fn ls(session: &mut Session, args: &LsArgs) -> Result<(), Failure> {
    let place = place(&args.place)?;
    let message = ListFilesRequest {
        host: place.host,
        path: place.path,
        at: Some(session.at(args.at.as_deref())?.to_api()),
        policy: args.policy.clone().unwrap_or_default(),
        recursive: args.recursive,
    };
    let mut stream = answer(session.client.list_files(request(message)).await)?;
    let (mut points, mut files) = (Vec::new(), Vec::new());
    // Text is printed as it comes, and so are lines of JSON; a document is one.
    let long = args.long || session.out.format == Format::Wide;
    let by_row = session.out.format == Format::Jsonl && session.out.fields != Some(Fields::Names);
    while let Some(batch) = stream.message().await.map_err(|status| Fault::from(&status))? {
        if points.is_empty() && !batch.points.is_empty() {
            points = batch.points;
            say_points(session, &points);
        }
        if by_row {
            batch.files.iter().try_for_each(|file| session.out.row(&form::file(file)))?;
        } else if session.out.is_json() {
            files.extend(batch.files.iter().map(form::file));
        } else {
            print(session, &batch.files, long)?;
        }
    }
    if by_row || !session.out.is_json() {
        return Ok(());
    }
    let points: Value = points.iter().map(form::point).collect();
    session.out.list(&json!({ "points": points, "files": files }), "files")
}

/// Says which restore points answer, and how far from the asked time they are.
pub fn say_points(session: &Session, points: &[api::RestorePoint]) {
    for point in points {
        let line = format!(
            "{} backup {} of policy {}, captured {} ({} before the asked time)",
            shown::level(point.level),
            shown::short(&point.backup_id),
            point.policy,
            shown::instant(point.captured_at_us),
            shown::seconds(point.age_s)
        );
        session.out.talk(&line);
    }
}

fn print(session: &Session, files: &[api::File], long: bool) -> Result<(), Failure> {
    let mut text = String::new();
    for file in files {
        let slash = if file.kind == "folder" { "/" } else { "" };
        let name = shown::path(&file.path);
        if long {
            let time = shown::instant(file.mtime_s.saturating_mul(1_000_000));
            let target =
                if file.kind == "symlink" { format!(" -> {}", shown::path(&file.link_target)) } else { String::new() };
            let flags = if file.flags.is_empty() { String::new() } else { format!("  [{}]", file.flags.join(", ")) };
            text.push_str(&format!(
                "{}{:04o} {:>6}:{:<6} {:>10}  {time}  {name}{slash}{target}{flags}\n",
                kind_letter(&file.kind),
                file.mode,
                file.uid,
                file.gid,
                shown::size(file.size_bytes),
            ));
        } else {
            text.push_str(&format!("{name}{slash}\n"));
        }
    }
    session.out.print(&text)
}

fn kind_letter(kind: &str) -> char {
    match kind {
        "folder" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "char_device" => 'c',
        "block_device" => 'b',
        _ => '-',
    }
}

/// Runs `cat`.
pub async fn cat(session: &mut Session, args: &CatArgs) -> Result<(), Failure> {
    let place = place(&args.place)?;
    let message = ReadFileRequest {
        host: place.host,
        path: place.path,
        at: Some(session.at(args.at.as_deref())?.to_api()),
        policy: args.policy.clone().unwrap_or_default(),
    };
    let mut stream = answer(session.client.read_file(request(message)).await)?;
    let mut out = io::stdout().lock();
    let mut hasher = Hasher::default();
    while let Some(chunk) = stream.message().await.map_err(|status| Fault::from(&status))? {
        match chunk.part {
            Some(file_chunk::Part::Data(data)) => {
                hasher.take(&data);
                out.write_all(&data)?;
            }
            Some(file_chunk::Part::End(end)) => {
                out.flush()?;
                warn_of(session, &end);
                return hasher.check(&end);
            }
            Some(file_chunk::Part::Fault(fault)) => return Err(Fault::from_api(&fault).into()),
            None => {}
        }
    }
    Err(Fault::new(ErrorCode::Unavailable, "the file broke off before its end").with_hint("repeat the command").into())
}

/// What the bytes on standard output do not say: they are not, or not surely, those of the time asked for.
fn warn_of(session: &Session, end: &api::FileEnd) {
    if end.stale {
        session
            .out
            .talk("warning: that backup could not read this file: its content is that of the last one that could");
    }
    if end.changed_while_read {
        session.out.talk("warning: this file changed while it was read: its content may be of no one moment");
    }
}

/// Counts and hashes what went through, to compare with what the archive's index says.
#[derive(Default)]
struct Hasher {
    size: u64,
    content: ContentHasher,
}

impl Hasher {
    fn take(&mut self, data: &[u8]) {
        self.size += data.len() as u64;
        self.content.update(data);
    }

    fn check(self, end: &api::FileEnd) -> Result<(), Failure> {
        // An empty file has no digest in the index.
        let digest = self.content.finish().digest;
        let right = self.size == end.size_bytes && (self.size == 0 || end.digest == digest.0);
        if right {
            return Ok(());
        }
        let fault = Fault::new(ErrorCode::ArchiveDamaged, "the bytes printed are not those that were backed up");
        Err(fault.with_hint("coordctl backup list shows other restore points").into())
    }
}
