//! What a shell is offered while a command is typed: hosts, paths as they were at `--at`, jobs, policies, runs, contexts.
//!
//! Invariant: nothing is asked for longer than a moment, nothing is changed, and what goes wrong offers nothing: no error ever lands
//! on a line that somebody is typing.

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use coord_shared::api::{
    At as ApiAt, ListBackupsRequest, ListFilesRequest, ListHostsRequest, ListJobsRequest, ListPoliciesRequest,
    ListRunsRequest,
};
use coord_shared::clock::{Clock, SystemClock};
use jiff::tz::TimeZone;

use crate::at::At;
use crate::client::{self, Client, request};
use crate::context::{Choice, read_config};
use crate::place::Place;
use crate::shown;

/// Longest time that somebody waits for an offer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Offers at most.
const MAX_OFFERS: usize = 1000;
/// Runs and backups looked at.
const MAX_IDS: u32 = 100;

/// Asks the coordinator that the typed command line would ask; nothing in time is nothing.
fn ask<T, F: Future<Output = Option<Vec<T>>>>(question: impl FnOnce(Client) -> F) -> Vec<T> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let answer = async {
        let client = client::connect(&choice().open().ok()?).await.ok()?;
        question(client).await
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await.ok().flatten() }).unwrap_or_default()
}

/// The value of an option on the line that is typed. It stands behind the `--` of the shell's call.
fn typed(option: &str) -> Option<String> {
    option_in(std::env::args_os().skip_while(|word| word != "--").skip(2), option)
}

fn option_in(words: impl Iterator<Item = OsString>, option: &str) -> Option<String> {
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        match word.strip_prefix(option) {
            Some("") => return words.next(),
            Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_owned()),
            Some(_) | None => {}
        }
    }
    None
}

/// Flags of the line, then the environment.
fn choice() -> Choice {
    let of = |option: &str, variable: &str| {
        typed(option).map(OsString::from).or_else(|| std::env::var_os(variable)).filter(|value| !value.is_empty())
    };
    let text = |value: OsString| value.into_string().ok();
    Choice {
        config: of("--config", "COORDCTL_CONFIG").map(Into::into),
        context: of("--context", "COORDCTL_CONTEXT").and_then(text),
        endpoint: of("--endpoint", "COORDCTL_ENDPOINT").and_then(text),
    }
}

/// Those that begin with what is typed already.
fn fitting(current: &OsStr, values: impl IntoIterator<Item = (String, String)>) -> Vec<CompletionCandidate> {
    let fits = |(value, _): &(String, String)| value.as_bytes().starts_with(current.as_bytes());
    let offer = |(value, help): (String, String)| {
        CompletionCandidate::new(value).help(Some(shown::safe(&help).into()).filter(|_| !help.is_empty()))
    };
    values.into_iter().filter(fits).take(MAX_OFFERS).map(offer).collect()
}

/// Names of hosts.
pub fn hosts(current: &OsStr) -> Vec<CompletionCandidate> {
    fitting(current, ask(host_names))
}

async fn host_names(mut client: Client) -> Option<Vec<(String, String)>> {
    let hosts = client.list_hosts(request(ListHostsRequest::default())).await.ok()?.into_inner().hosts;
    Some(hosts.into_iter().map(|host| (host.name, host.policies.join(", "))).collect())
}

/// Names of policies.
pub fn policies(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = async |mut client: Client| {
        let list = client.list_policies(request(ListPoliciesRequest {})).await.ok()?.into_inner().policies;
        Some(list.into_iter().map(|policy| (policy.name, format!("{} hosts", policy.hosts.len()))).collect())
    };
    fitting(current, ask(names))
}

/// `HOST/POLICY`.
pub fn jobs(current: &OsStr) -> Vec<CompletionCandidate> {
    let names = async |mut client: Client| {
        let list = client.list_jobs(request(ListJobsRequest::default())).await.ok()?.into_inner().jobs;
        Some(list.into_iter().map(|job| (format!("{}/{}", job.host, job.policy), job.state)).collect())
    };
    fitting(current, ask(names))
}

/// The newest runs.
pub fn runs(current: &OsStr) -> Vec<CompletionCandidate> {
    let ids = async |mut client: Client| {
        let message = ListRunsRequest { limit: MAX_IDS, ..ListRunsRequest::default() };
        let list = client.list_runs(request(message)).await.ok()?.into_inner().runs;
        let told = |run: &coord_shared::api::Run| {
            format!(
                "{} {} {} {}",
                shown::kind(run.kind),
                run.host,
                shown::state(run.state),
                shown::instant(run.due_at_us)
            )
        };
        Some(list.into_iter().map(|run| (run.id.clone(), told(&run))).collect())
    };
    fitting(current, ask(ids))
}

/// The newest backups.
pub fn backups(current: &OsStr) -> Vec<CompletionCandidate> {
    let ids = async |mut client: Client| {
        let message = ListBackupsRequest { limit: MAX_IDS, ..ListBackupsRequest::default() };
        let list = client.list_backups(request(message)).await.ok()?.into_inner().backups;
        let told = |backup: &coord_shared::api::Backup| {
            format!("{}/{} {}", backup.host, backup.policy, shown::instant(backup.captured_at_us))
        };
        Some(list.into_iter().map(|backup| (backup.id.clone(), told(&backup))).collect())
    };
    fitting(current, ask(ids))
}

/// Names of contexts.
pub fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let config = choice().path().and_then(|path| read_config(&path));
    let names = config.map(|config| config.contexts).unwrap_or_default();
    fitting(current, names.into_iter().map(|(name, entry)| (name, entry.endpoints.join(", "))))
}

/// `HOST/PATH`: hosts, then what was in the folder at the time that `--at` says.
pub fn places(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some((host, folder, name)) = split(current.as_bytes()) else {
        let with_slash = ask(host_names).into_iter().map(|(name, help)| (format!("{name}/"), help));
        return fitting(current, with_slash);
    };
    let Ok(place) = Place::parse(OsStr::from_bytes(&[host, b"/", folder].concat())) else { return Vec::new() };
    let paths = ask(async |client: Client| paths(client, place).await);
    let offer = |(path, is_folder): (Vec<u8>, bool)| {
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or(&path);
        // What a terminal would obey is not offered.
        let fits = last.starts_with(name) && !last.iter().any(u8::is_ascii_control);
        let slash: &[u8] = if is_folder { b"/" } else { b"" };
        fits.then(|| CompletionCandidate::new(OsString::from_vec([host, b"/", &path, slash].concat())))
    };
    paths.into_iter().filter_map(offer).take(MAX_OFFERS).collect()
}

/// Host, folder and the beginning of a name; none while the host is typed.
fn split(current: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let slash = current.iter().position(|byte| *byte == b'/')?;
    let (host, rest) = (&current[..slash], &current[slash + 1..]);
    let (folder, name) = match rest.iter().rposition(|byte| *byte == b'/') {
        Some(last) => (&rest[..last], &rest[last + 1..]),
        None => (&[][..], rest),
    };
    Some((host, folder, name))
}

async fn paths(mut client: Client, place: Place) -> Option<Vec<(Vec<u8>, bool)>> {
    let now = SystemClock.now().to_zoned(TimeZone::system());
    // `--to` is the later time of a diff, and the host of a restore.
    let said = typed("--at").or_else(|| typed("--to")).and_then(|text| At::parse(&text, &now).ok());
    let at: ApiAt = said.unwrap_or(At::Latest).to_api();
    let message = ListFilesRequest { host: place.host, path: place.path, at: Some(at), ..ListFilesRequest::default() };
    let mut stream = client.list_files(request(message)).await.ok()?.into_inner();
    let mut found = Vec::new();
    while let Some(batch) = stream.message().await.ok()? {
        found.extend(batch.files.into_iter().map(|file| (file.path, file.kind == "folder")));
        if found.len() >= MAX_OFFERS {
            break;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::{fitting, option_in, split};

    #[test]
    fn a_place_is_completed_name_by_name() {
        assert_eq!(split(b"web-"), None);
        assert_eq!(split(b"web-1/"), Some((&b"web-1"[..], &b""[..], &b""[..])));
        assert_eq!(split(b"web-1/et"), Some((&b"web-1"[..], &b""[..], &b"et"[..])));
        assert_eq!(split(b"web-1/etc/ng\xff"), Some((&b"web-1"[..], &b"etc"[..], &b"ng\xff"[..])));
    }

    #[test]
    fn the_line_that_is_typed_says_which_coordinator_and_which_time() {
        let line = |text: &str| text.split(' ').map(Into::into).collect::<Vec<std::ffi::OsString>>().into_iter();
        assert_eq!(option_in(line("ls web-1/ --at 14:00 -l"), "--at").as_deref(), Some("14:00"));
        assert_eq!(option_in(line("ls --context=lab web-1/"), "--context").as_deref(), Some("lab"));
        assert_eq!(option_in(line("ls --config x"), "--context"), None);
        assert_eq!(option_in(line("ls --at"), "--at"), None);
    }

    #[test]
    fn only_what_begins_as_typed_is_offered() {
        let names = ["web-1", "web-2", "db-1"].map(|name| (name.to_owned(), String::new()));
        assert_eq!(fitting("web".as_ref(), names).len(), 2);
    }
}
