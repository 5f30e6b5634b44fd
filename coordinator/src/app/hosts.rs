//! Hosts as operators see them.

use std::collections::HashMap;

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::ids::HostId;
use coord_shared::selector::Selector;
use coord_shared::tls::PeerKind;
use coord_shared::wire::{optional_us, to_us};

use super::{App, names, pauses};
use crate::catalog::{Host, JobFilter, JobState};

/// Hosts whose labels fulfil a selector and whose name fits a glob.
///
/// # Errors
/// `invalid_argument` for a selector or glob that cannot be read.
pub async fn list(app: &App, request: &api::ListHostsRequest) -> Result<api::HostList, Fault> {
    let selector = selector(&request.selector)?;
    let glob = match request.name.as_str() {
        "" => None,
        text => Some(glob(text)?),
    };
    let mut policies: HashMap<_, Vec<String>> = HashMap::new();
    for job in app.catalog.jobs(JobFilter { state: Some(JobState::Active), ..JobFilter::default() }).await? {
        policies.entry(job.host).or_default().push(job.policy_name);
    }
    let hosts = app.catalog.hosts().await?;
    let fits =
        |host: &&Host| selector.matches(&host.labels) && glob.as_ref().is_none_or(|glob| glob.is_match(&host.name));
    let hosts =
        hosts.iter().filter(fits).map(|host| encode(host, policies.remove(&host.id).unwrap_or_default())).collect();
    Ok(api::HostList { hosts })
}

/// One host, with the end of its certificate.
///
/// # Errors
/// `not_found` with the nearest name.
pub async fn show(app: &App, text: &str) -> Result<api::Host, Fault> {
    let host = names::host(app, text).await?;
    let filter = JobFilter { host: Some(host.id), state: Some(JobState::Active), ..JobFilter::default() };
    let policies: Vec<String> = app.catalog.jobs(filter).await?.into_iter().map(|job| job.policy_name).collect();
    let pauses = pauses::of_host(app, &host, &policies).await?;
    let certificate = app.catalog.newest_certificate(PeerKind::Agent, &host.id.to_string()).await?;
    let not_after = certificate.map(|certificate| certificate.not_after);
    Ok(api::Host { certificate_not_after_us: optional_us(not_after), pauses, ..encode(&host, policies) })
}

/// The hosts whose labels fulfil a selector; `None` for the empty one, which asks for nothing.
///
/// # Errors
/// `invalid_argument` with the position.
pub async fn selected(app: &App, text: &str) -> Result<Option<Vec<HostId>>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let selector = selector(text)?;
    let hosts = app.catalog.hosts().await?;
    Ok(Some(hosts.into_iter().filter(|host| selector.matches(&host.labels)).map(|host| host.id).collect()))
}

/// A selector as an operator typed it.
///
/// # Errors
/// `invalid_argument` with the position.
pub fn selector(text: &str) -> Result<Selector, Fault> {
    text.parse().map_err(|error: coord_shared::selector::SelectorError| {
        Fault::new(ErrorCode::InvalidArgument, format!("'{}' is no selector: {error}", names::shown(text)))
            .with_hint("such as -l 'role in (web, api), env=prod, !canary'")
    })
}

fn glob(text: &str) -> Result<globset::GlobMatcher, Fault> {
    let glob = globset::Glob::new(text).map_err(|error| {
        Fault::new(ErrorCode::InvalidArgument, format!("'{}' is no glob: {}", names::shown(text), error.kind()))
            .with_hint("such as web-*")
    })?;
    Ok(glob.compile_matcher())
}

/// A host as it is sent, with the policies that protect it.
pub(super) fn encode(host: &Host, policies: Vec<String>) -> api::Host {
    api::Host {
        id: host.id.to_string(),
        name: host.name.clone(),
        labels: host.labels.clone().into_iter().collect(),
        connected: host.connected,
        last_seen_at_us: optional_us(host.last_seen_at),
        joined_at_us: to_us(host.joined_at),
        hostname: host.hostname.clone(),
        operating_system: host.operating_system.clone(),
        version: host.version.clone(),
        clock_offset_us: host.clock_offset_us,
        archive_folder: host.archive_folder.clone(),
        policies,
        certificate_not_after_us: 0,
        state: host.state.as_str().to_owned(),
        pauses: Vec::new(),
        archive_store_id: host.archive_store.map_or_else(String::new, |store| store.to_string()),
        warnings: Vec::new(),
    }
}
