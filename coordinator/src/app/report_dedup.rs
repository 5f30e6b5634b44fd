//! How much content the fleet's files have more than once: what deduplication would save before compression.

use coord_shared::api;
use coord_shared::fault::Fault;

use super::{App, names};
use crate::catalog::Duplication;

/// The report, of the fleet or of one host.
///
/// # Errors
/// `not_found` for a host that does not exist.
pub async fn report(app: &App, request: &api::ReportDedupRequest) -> Result<api::DedupReport, Fault> {
    let host = if request.host.is_empty() { None } else { Some(names::host(app, &request.host).await?.id) };
    let (hosts, overall) = app.catalog.duplication(host).await?;
    let hosts = hosts.into_iter().map(|host| api::DedupOfHost { host: host.name, figures: Some(encode(host.figures)) });
    Ok(api::DedupReport { hosts: hosts.collect(), overall: Some(encode(overall)) })
}

fn encode(figures: Duplication) -> api::Duplication {
    let Duplication { files, bytes, contents, unique_bytes } = figures;
    api::Duplication { files, bytes, contents, unique_bytes }
}
