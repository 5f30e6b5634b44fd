//! Levelled fulls: planned, shown, taken and explained; and a past replayed under another policy.

use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coordinator::catalog::{JobFilter, NewPlannedFull};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::operator::{Host, Operator, apply, start, tree};
use super::support::{Fleet, wait_for};

/// Due every night, half a day from now, so that nothing is due while the test runs.
fn nightly(full: &str) -> String {
    let hour = (Timestamp::now().to_zoned(TimeZone::UTC).hour() + 12) % 24;
    format!(
        "name = \"web\"\nhosts = \"env = test\"\nsources = [\"/etc\"]\nschedule = {{ cron = \"0 {hour} * * *\" }}\n\
         diff_threshold_percent = 100\nfull = {{ {full} }}\n"
    )
}

fn date(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

async fn ahead(operator: &mut Operator) -> api::Schedule {
    operator.get_schedule(api::GetScheduleRequest::default()).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_levelled_full_is_planned_shown_taken_on_its_night_and_can_be_replayed_under_another_policy() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &nightly("day = \"levelled\"")).await;
    start(&mut operator, "web").await.unwrap();
    let first = Timestamp::now() - 48.hours();
    host.back_up(&fleet, first, tree("etc", 100)).await;

    // One job alone takes its full as late as it may.
    let job = fleet.catalog.jobs(JobFilter::default()).await.unwrap()[0].id;
    let latest = date(first).checked_add(7.days()).unwrap();
    let planned = wait_for("the full to be planned", || async {
        fleet.catalog.planned_full(job).await.unwrap().filter(|night| *night == latest)
    })
    .await;
    let shown = ahead(&mut operator).await;
    assert_eq!((shown.runs.len(), shown.levelled_jobs, shown.levelled_within_bound), (14, 1, true), "{shown:?}");
    let fulls: Vec<&api::DueRun> = shown.runs.iter().filter(|run| run.level() == api::Level::Full).collect();
    assert_eq!(fulls[0].night, planned.to_string());
    assert_eq!((fulls[0].rule.as_str(), fulls[0].predicted_bytes), ("levelled_full_night", Some(4000)));
    assert!(fulls[0].reason.ends_with("the last night that the age of the newest full allows"), "{}", fulls[0].reason);
    let night = shown.nights.iter().find(|night| night.date == planned.to_string()).unwrap();
    assert_eq!((night.fulls, night.full_bytes, night.differentials), (1, 4000, 0));

    // The night comes.
    let tonight = date(Timestamp::now());
    let new = NewPlannedFull { job, seen: Some(planned), night: tonight, bytes: 4000 };
    assert_eq!(fleet.catalog.put_full_plan(&[new]).await.unwrap(), 1);
    assert_eq!(fleet.catalog.put_full_plan(&[new]).await.unwrap(), 0, "that is not what the row says any more");
    start(&mut operator, "web").await.unwrap();
    host.back_up(&fleet, Timestamp::now(), tree("etc", 200)).await;
    let why = operator.explain(api::ExplainRequest { subject: "one/web".into() }).await.unwrap().into_inner();
    let decision = &why.decisions[0];
    assert_eq!((decision.level(), decision.rule.as_str()), (api::Level::Full, "levelled_full_night"), "{decision:?}");
    let full = decision.options.iter().find(|option| option.taken).unwrap();
    // Scanned in 10 ms; packed and read back at 4000 bytes in 1005 ms; restored at half the pace of reading back.
    assert_eq!((full.predicted_ms, full.predicted_restore_ms), (Some(1015), Some(10)), "{full:?}");
    wait_for("the next full to be planned", || async {
        let night = fleet.catalog.planned_full(job).await.unwrap();
        night.filter(|night| *night == tonight.checked_add(7.days()).unwrap())
    })
    .await;

    // With a fixed day that is not today, the second run would have been a differential.
    let another = tonight.tomorrow().unwrap().strftime("%A").to_string().to_lowercase();
    let request = api::WhatIfRequest { toml: nightly(&format!("day = \"{another}\"")), ..Default::default() };
    let report = operator.what_if(request.clone()).await.unwrap().into_inner();
    let (was, would_be) = (report.was.clone().unwrap(), report.would_be.clone().unwrap());
    assert_eq!((was.runs, was.fulls, was.stored_bytes, was.estimated), (2, 2, 2000, 0), "{report:?}");
    assert_eq!((would_be.runs, would_be.fulls, would_be.estimated), (2, 1, 1), "{report:?}");
    assert_eq!((report.jobs[0].levels_changed, report.notes.len()), (1, 0), "{report:?}");
    let unknown = api::WhatIfRequest { policy: "wep".into(), ..request };
    assert!(operator.what_if(unknown).await.is_err());

    // A policy that takes its fulls on a fixed day needs no plan.
    apply(&mut operator, &nightly("day = \"sunday\"")).await;
    wait_for("the plan to be forgotten", || async {
        fleet.catalog.planned_full(job).await.unwrap().is_none().then_some(())
    })
    .await;
    assert_eq!(ahead(&mut operator).await.levelled_jobs, 0);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_says_which_levelled_fulls_it_does_not_count() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    apply(&mut operator, &nightly("day = \"sunday\"")).await;
    for name in ["one", "two"] {
        let mut host = Host::join(&fleet, name).await;
        let request = api::StartBackupRequest { host: name.into(), policy: "web".into(), ..Default::default() };
        operator.start_backup(request).await.unwrap();
        host.back_up(&fleet, Timestamp::now() - 48.hours(), tree("etc", 100)).await;
    }
    let size = [("size".to_owned(), "large".to_owned())];
    let label = api::LabelHostRequest { host: "one".into(), set: size.into(), ..Default::default() };
    operator.label_host(label).await.unwrap();
    let levelled = api::WhatIfRequest { toml: nightly("day = \"levelled\""), ..Default::default() };
    let fixed = api::WhatIfRequest { toml: nightly("day = \"monday\""), ..Default::default() };
    let part = |request: &api::WhatIfRequest| api::WhatIfRequest { selector: "size=large".into(), ..request.clone() };
    let others = nightly("day = \"levelled\"").replace("name = \"web\"", "name = \"other\"").replace("/etc", "/srv");
    let (all, some) = (
        "fulls are levelled over the 2 job(s) replayed alone: ",
        "fulls are levelled over the 1 job(s) replayed alone: ",
    );
    let mut notes = async |request| operator.what_if(request).await.unwrap().into_inner().notes;
    assert_eq!(notes(levelled.clone()).await, [""; 0], "these are all there are");
    let said = notes(part(&levelled)).await;
    assert!(
        said.len() == 1 && said[0].starts_with(&format!("{some}those of 1 job(s) that -l leaves out are not counted")),
        "{said:?}"
    );
    apply(&mut operator, &others).await;
    let mut notes = async |request| operator.what_if(request).await.unwrap().into_inner().notes;
    let said = notes(levelled.clone()).await;
    assert!(
        said.len() == 1 && said[0].starts_with(&format!("{all}those of 2 job(s) of other policies are not")),
        "{said:?}"
    );
    let said = notes(part(&levelled)).await;
    let both = "those of 2 job(s) of other policies and 1 job(s) that -l leaves out are not counted";
    assert!(said.len() == 1 && said[0].starts_with(&format!("{some}{both}")), "{said:?}");
    assert_eq!(notes(part(&fixed)).await, [""; 0], "nothing is levelled");
    fleet.stop().await;
}
