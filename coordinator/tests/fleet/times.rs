//! Questions about two times, plans that are held to, and what is told of a run.

use super::operator::{Host, apply, restore, tree};
use super::support::{Fleet, wait_for};
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::{self, At};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::wire::to_us;
use jiff::{Timestamp, ToSpan};

const WEB: &str = "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = { cron = \"0 3 1 1 *\" }\n";

type Operator = super::operator::Operator;

fn at(instant: Timestamp) -> Option<At> {
    Some(At { at: Some(api::at::At::InstantUs(to_us(instant))) })
}

async fn full(operator: &mut Operator) -> api::Run {
    let level = api::Level::Full.into();
    let request = api::StartBackupRequest { host: "one".into(), policy: "web".into(), level, ..Default::default() };
    operator.start_backup(request).await.unwrap().into_inner()
}

async fn diff(operator: &mut Operator, request: api::DiffFilesRequest) -> Result<Vec<api::DiffBatch>, Fault> {
    let request = api::DiffFilesRequest { host: "one".into(), ..request };
    let mut stream = operator.diff_files(request).await.map_err(Fault::from)?.into_inner();
    let mut batches = Vec::new();
    while let Some(batch) = stream.message().await.map_err(Fault::from)? {
        batches.push(batch);
    }
    Ok(batches)
}

/// The tree one hour later: one file larger, one gone, one new.
fn later() -> Vec<coord_archive::entry::Entry> {
    let mut entries = tree("etc", 150);
    let mut new = entries.pop().unwrap();
    new.path = b"etc/nginx/new".to_vec();
    entries.push(new);
    entries
}

#[tokio::test]
async fn two_times_are_compared_and_a_path_tells_its_past() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, WEB).await;
    let now = Timestamp::now();
    let early = now - 1.hour();
    full(&mut operator).await;
    let first = host.back_up(&fleet, early, tree("etc", 100)).await;
    full(&mut operator).await;
    let second = host.back_up(&fleet, now, later()).await;

    let request = api::DiffFilesRequest { from: at(early), ..Default::default() };
    let batches = diff(&mut operator, request.clone()).await.unwrap();
    let told: Vec<String> = batches
        .iter()
        .flat_map(|batch| &batch.changes)
        .map(|change| {
            let file = change.after.as_ref().or(change.before.as_ref()).unwrap();
            format!("{} {} {:?}", change.change, String::from_utf8_lossy(&file.path), change.what)
        })
        .collect();
    let expected = ["changed etc/hosts [\"content\"]", "added etc/nginx/new []", "removed etc/nginx/nginx.conf []"];
    assert_eq!(told, expected);
    let totals =
        api::DiffTotals { added: 1, removed: 1, changed: 1, added_bytes: 300, removed_bytes: 200, changed_bytes: 150 };
    assert_eq!(batches.last().unwrap().totals, Some(totals));
    assert_eq!(batches[0].from_points[0].backup_id, first.to_string());
    assert_eq!(batches[0].to_points[0].backup_id, second.to_string());
    let counted = diff(&mut operator, api::DiffFilesRequest { only_totals: true, ..request }).await.unwrap();
    assert_eq!((counted.len(), counted[0].changes.len(), counted[0].totals), (1, 0, Some(totals)));
    let back = api::DiffFilesRequest { to: at(early), path: b"etc/nginx".to_vec(), ..Default::default() };
    let back = diff(&mut operator, back).await.unwrap();
    let words: Vec<&str> = back[0].changes.iter().map(|change| change.change.as_str()).collect();
    assert_eq!(words, ["removed", "added"], "a later time is compared with an earlier one as well");
    let absent = api::DiffFilesRequest { from: at(early), path: b"etc/absent".to_vec(), ..Default::default() };
    assert_eq!(diff(&mut operator, absent).await.unwrap_err().code, ErrorCode::NotFound);
    let before = api::DiffFilesRequest { from: at(early - 1.hour()), ..Default::default() };
    assert_eq!(diff(&mut operator, before).await.unwrap_err().code, ErrorCode::NothingToRestore);

    let past = async |operator: &mut Operator, path: &str, limit| {
        let request =
            api::ListPathVersionsRequest { host: "one".into(), path: path.into(), limit, ..Default::default() };
        operator.list_path_versions(request).await.map(tonic::Response::into_inner).map_err(Fault::from)
    };
    let hosts = past(&mut operator, "etc/hosts", 0).await.unwrap();
    let sizes = hosts.versions.iter().map(|version| version.file.as_ref().unwrap().size_bytes);
    assert_eq!(sizes.collect::<Vec<_>>(), [150, 100], "newest first");
    assert_eq!((hosts.versions[0].end.as_str(), hosts.versions[1].end.as_str()), ("current", "changed"));
    assert_eq!(hosts.versions[1].last_backup_id, first.to_string());
    assert!(past(&mut operator, "etc/hosts", 1).await.unwrap().more);
    assert_eq!(past(&mut operator, "etc/nginx/nginx.conf", 0).await.unwrap().versions[0].end, "gone");
    assert_eq!(past(&mut operator, "etc/never", 0).await.unwrap_err().code, ErrorCode::NotFound);
    fleet.stop().await;
}

#[tokio::test]
async fn a_restore_is_held_to_the_plan_that_was_shown_or_is_not_made() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, WEB).await;
    let (early, now) = (Timestamp::now() - 1.hour(), Timestamp::now());
    full(&mut operator).await;
    host.back_up(&fleet, early, tree("etc", 100)).await;

    let shown = operator.plan_restore(restore(&["etc"], None)).await.unwrap().into_inner().digest;
    let same = operator.plan_restore(restore(&["etc"], Some(early + 5.minutes()))).await.unwrap().into_inner();
    assert_eq!(same.digest, shown, "the same archives answer, whatever the words for the time");
    let other = api::RestoreRequest { delete_extra: true, ..restore(&["etc"], None) };
    assert_ne!(operator.plan_restore(other).await.unwrap().into_inner().digest, shown);

    full(&mut operator).await;
    host.back_up(&fleet, now, later()).await;
    let held = |at| api::RestoreRequest { plan_digest: shown.clone(), ..restore(&["etc"], at) };
    let refused = Fault::from(operator.start_restore(held(None)).await.unwrap_err());
    assert_eq!((refused.code, refused.exit().code()), (ErrorCode::Changed, 9), "another restore point answers now");
    let request = api::ListRunsRequest { kind: api::RunKind::Restore.into(), ..Default::default() };
    assert!(operator.list_runs(request).await.unwrap().into_inner().runs.is_empty(), "nothing was begun");
    let started = operator.start_restore(held(Some(early))).await.unwrap().into_inner();
    assert_eq!(started.plan.unwrap().digest, shown);
    fleet.stop().await;
}

#[tokio::test]
async fn the_events_of_a_run_lead_from_the_wish_to_its_entries_in_the_catalog() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, WEB).await;
    let run = full(&mut operator).await;
    host.back_up(&fleet, Timestamp::now(), tree("etc", 100)).await;
    let events = async |operator: &mut Operator| {
        let request = api::ListRunEventsRequest { run: run.id.clone() };
        operator.list_run_events(request).await.unwrap().into_inner()
    };
    let told = wait_for("the entries to be told of", || {
        let mut operator = operator.clone();
        async move {
            let told = events(&mut operator).await;
            told.events.iter().any(|event| event.kind == "searchable").then_some(told)
        }
    })
    .await;
    let kinds: Vec<&str> = told.events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["queued", "leased", "decided", "succeeded", "searchable"]);
    assert_eq!(told.events[0].detail, "asked for by admin");
    assert!(told.events[2].detail.starts_with("full, "), "{:?}", told.events[2]);
    assert_eq!(told.run.unwrap().state(), api::RunState::Succeeded);

    let listed = async |operator: &mut Operator, selector: &str| {
        let request = api::ListRunsRequest { selector: selector.into(), ..Default::default() };
        let runs = operator.list_runs(request).await.unwrap().into_inner().runs.len();
        let request = api::ListBackupsRequest { selector: selector.into(), ..Default::default() };
        (runs, operator.list_backups(request).await.unwrap().into_inner().backups.len())
    };
    assert_eq!(listed(&mut operator, "env=test").await, (1, 1));
    assert_eq!(listed(&mut operator, "env=prod").await, (0, 0), "no host has this label");
    fleet.stop().await;
}
