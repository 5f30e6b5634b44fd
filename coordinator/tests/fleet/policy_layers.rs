//! The fleet's defaults, policies and overrides: what each host gets of them, and where each value comes from.

use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_order::Task;
use coord_shared::fault::ErrorCode;
use coord_shared::token::Token;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::operator::{Host, Operator, apply, refused, start, tree};
use super::policies::{file, files};
use super::support::Fleet;

const DEFAULTS: &str = "kind = \"defaults\"\nfull = { max_age_days = 14 }\n";

/// The value of a key as a policy has it on a host, and the layer it comes from.
async fn value(operator: &mut Operator, host: &str, key: &str) -> (String, String) {
    let request = api::GetPolicyRequest { policy: "web".into(), host: host.into() };
    let values = operator.get_policy(request).await.unwrap().into_inner().values;
    let found = values.into_iter().find(|value| value.key == key).unwrap();
    (found.value, found.from)
}

fn pair(value: &str, from: &str) -> (String, String) {
    (value.to_owned(), from.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_the_strongest_of_defaults_policy_and_overrides_and_says_where_from() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    let _other = Host::join(&fleet, "two").await;
    let web = file("web", "env=test", "exclude = [\"*.log\"]\n[[override]]\nhost = \"one\"\nexclude = [\"*.bak\"]");
    let first = apply(&mut operator, &web).await;
    assert_eq!(first.hosts_added.len(), 2);
    assert_eq!(value(&mut operator, "one", "exclude").await, pair("[\"*.bak\"]", "override[1] (host one)"));
    assert_eq!(value(&mut operator, "two", "exclude").await, pair("[\"*.log\"]", "policy"));
    assert_eq!(value(&mut operator, "two", "full.max_age_days").await, pair("7", "built in"));
    let request = api::GetJobRequest { host: "one".into(), policy: "web".into() };
    let job = operator.get_job(request).await.unwrap().into_inner();
    assert!(job.values.iter().any(|value| value.from == "override[1] (host one)"), "{:?}", job.values);

    // The run does what the host's policy says.
    start(&mut operator, "web").await.unwrap();
    let order = host.order().await;
    let Some(Task::Backup(task)) = &order.task else { panic!("{order:?}") };
    assert_eq!(task.exclude, ["*.bak"]);
    host.finish(&order, Timestamp::now(), &tree("web", 100)).await;

    // Defaults make another version of a policy that no file names, and of no other.
    apply(&mut operator, &file("own", "env=test", "full = { max_age_days = 3 }")).await;
    let told = operator.diff_policies(files(&[DEFAULTS.to_owned()])).await.unwrap().into_inner();
    let done = operator.apply_policies(files(&[DEFAULTS.to_owned()])).await.unwrap().into_inner();
    for all in [told, done] {
        let defaults = all.defaults.unwrap();
        assert_eq!((defaults.change.as_str(), defaults.from_version, defaults.version), ("created", 0, 1));
        assert_eq!(all.untouched, ["own"]);
        let web = &all.policies[0];
        assert_eq!((web.change.as_str(), web.from_version), ("updated", 1), "{web:?}");
        assert_eq!((web.keys.len(), web.keys[0].key.as_str()), (1, "full.max_age_days"), "{web:?}");
    }
    assert_eq!(value(&mut operator, "one", "full.max_age_days").await, pair("14", "defaults"));
    assert_eq!(value(&mut operator, "", "exclude").await, pair("[\"*.log\"]", "policy"), "as the file says it");
    let again = operator.apply_policies(files(&[DEFAULTS.to_owned(), web])).await.unwrap().into_inner();
    assert_eq!(again.defaults.unwrap().change, "unchanged");
    assert_eq!((again.policies.len(), again.policies[0].change.as_str()), (1, "unchanged"));
    let shown = operator.get_policy_defaults(api::GetPolicyDefaultsRequest {}).await.unwrap().into_inner();
    assert_eq!((shown.version, shown.toml.as_str(), shown.applied_by.as_str()), (1, DEFAULTS, "admin"));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_and_overrides_that_cannot_be_change_nothing() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let _host = Host::join(&fleet, "one").await;
    let override_of =
        |hosts: &str, day: &str| format!("[[override]]\nhosts = \"{hosts}\"\nfull = {{ day = \"{day}\" }}\n");
    let two = |one: &str, other: &str| format!("{}{}", override_of(one, "monday"), override_of(other, "friday"));
    for (what, list, named) in [
        (
            "contradicting overrides",
            vec![file("web", "env=test", &two("role=db", "tier=gold"))],
            "override[2].full.day",
        ),
        ("two documents", vec![DEFAULTS.to_owned(), DEFAULTS.to_owned()], "are both the fleet's defaults"),
        ("hosts in the defaults", vec![format!("{DEFAULTS}hosts = \"a\"\n")], "0.toml: hosts"),
        (
            "an override that nothing is left of",
            vec![file("web", "env=test", "[[override]]\nhosts = \"role=db\"")],
            "override[1]",
        ),
    ] {
        let refusal = refused(operator.apply_policies(files(&list)).await);
        assert_eq!(refusal.code, ErrorCode::InvalidPolicy, "{what}");
        assert!(refusal.message.contains(named), "{what}: {refusal:?}");
    }
    assert_eq!(operator.list_policies(api::ListPoliciesRequest {}).await.unwrap().into_inner().policies.len(), 0);
    let none = operator.get_policy_defaults(api::GetPolicyDefaultsRequest {}).await.unwrap().into_inner();
    assert_eq!(none.version, 0);
    let agreeing = file("web", "env=test", &two("role=db", "role!=db"));
    let applied = operator.apply_policies(files(&[agreeing])).await.unwrap().into_inner();
    let warnings = &applied.policies[0].warnings;
    assert!(
        warnings.iter().any(|warning| warning.message == "override[1] (role=db) is for none of the policy's 1 hosts"),
        "{warnings:?}"
    );
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_tells_what_the_next_seven_days_of_each_host_become() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let _hosts = (Host::join(&fleet, "one").await, Host::join(&fleet, "two").await);
    // Half a day from now, so that nothing is due while the test runs.
    let hour = (Timestamp::now().to_zoned(TimeZone::UTC).hour() + 12) % 24;
    let nightly =
        |days: &str, more: &str| file("web", "env=test", more).replace("0 3 1 1 *", &format!("0 {hour} * * {days}"));
    apply(&mut operator, &nightly("*", "")).await;
    let told = async |operator: &mut Operator, toml: String| {
        operator.diff_policies(files(&[toml])).await.unwrap().into_inner().policies.remove(0)
    };
    assert_eq!(told(&mut operator, nightly("*", "")).await.weeks, [], "nothing changes");

    let monday =
        told(&mut operator, nightly("1", "[[override]]\nhost = \"two\"\nschedule = { zone = \"Asia/Tokyo\" }")).await;
    let figures: Vec<_> =
        monday.weeks.iter().map(|week| (week.hosts.join(","), week.now.len(), week.becomes.len())).collect();
    assert_eq!(figures, [("one".to_owned(), 7, 1), ("two".to_owned(), 7, 1)]);
    let hour_of =
        |run: &api::WeekRun| Timestamp::from_microsecond(run.due_at_us).unwrap().to_zoned(TimeZone::UTC).hour();
    assert_eq!(hour_of(&monday.weeks[0].becomes[0]), hour);
    assert_eq!(hour_of(&monday.weeks[1].becomes[0]), (hour + 24 - 9) % 24, "Tokyo is nine hours ahead");
    assert_eq!(monday.weeks[0].now[0].level(), api::Level::Full, "there is no full yet");
    let soon = (Timestamp::now() + 24.hours()).as_microsecond();
    assert!(monday.weeks[0].now[0].due_at_us < soon);

    let day = |days: i64| (Timestamp::now().to_zoned(TimeZone::UTC).date() + days.days()).to_string();
    let closing =
        format!("windows = {{ blackout = [{{ from = \"{}\", to = \"{}\", reason = \"closing\" }}] }}", day(3), day(4));
    let closed = told(&mut operator, nightly("*", &closing)).await;
    let held = |runs: &[api::WeekRun]| runs.iter().filter(|run| run.held.ends_with(": closing")).count();
    assert_eq!((held(&closed.weeks[0].now), held(&closed.weeks[0].becomes)), (0, 2), "{closed:?}");

    let nobody = told(&mut operator, nightly("*", "").replace("env=test", "env=prod")).await;
    assert_eq!(nobody.weeks.len(), 1, "both hosts are alike: {nobody:?}");
    assert_eq!((nobody.weeks[0].hosts.len(), nobody.weeks[0].becomes.len()), (2, 0));
    let rare = "[[override]]\nhost = \"two\"\nobjectives = { rpo = \"1h\" }";
    let cannot_keep = told(&mut operator, nightly("*", rare)).await.warnings;
    let rpo = cannot_keep.iter().find(|warning| warning.key == "objectives.rpo").unwrap();
    assert!(rpo.message.starts_with("with its overrides on two: runs are up to"), "{rpo:?}");
    let weekdays = told(&mut operator, nightly("1-5", "")).await;
    assert!(weekdays.warnings.iter().any(|warning| warning.key == "full.day"), "{weekdays:?}");
    fleet.stop().await;
}

/// Overrides that are fine alone, and on a host with both labels impossible: a jitter of two hours, every 30 minutes.
fn colliding(hosts: &str) -> String {
    let often = "[[override]]\nhosts = \"size=large\"\nschedule = { cron = \"*/30 * * * *\" }\n";
    let spread = "[[override]]\nhosts = \"tier=gold\"\nschedule = { jitter = \"2h\" }\n";
    file("web", hosts, &format!("objectives = {{ rpo = \"26h\" }}\n{often}{spread}"))
}

fn labelling(set: &[(&str, &str)]) -> api::LabelHostRequest {
    let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    api::LabelHostRequest { host: "one".into(), set, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_makes_overrides_impossible_is_refused() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let _host = Host::join(&fleet, "one").await;
    apply(&mut operator, &colliding("env=test")).await;
    operator.label_host(labelling(&[("size", "large")])).await.unwrap();
    let gold = labelling(&[("tier", "gold")]);
    for request in [api::LabelHostRequest { dry_run: true, ..gold.clone() }, gold] {
        let refusal = refused(operator.label_host(request).await);
        assert_eq!(refusal.code, ErrorCode::InvalidPolicy);
        let said = "with these labels, the overrides of policy web that one has make no policy together: schedule.jitter: a jitter of 2h";
        assert!(refusal.message.starts_with(said), "{refusal:?}");
        assert!(refusal.hint.contains("coordctl policy edit"), "{refusal:?}");
    }
    let shown = operator.get_host(api::GetHostRequest { host: "one".into() }).await.unwrap().into_inner();
    assert!(!shown.labels.contains_key("tier"), "nothing was changed: {:?}", shown.labels);
    let both = [("size", "small"), ("tier", "gold")];
    operator.label_host(labelling(&both)).await.unwrap();
    let elsewhere = [("size", "large"), ("env", "prod")];
    let labelled = operator.label_host(labelling(&elsewhere)).await.unwrap().into_inner();
    assert_eq!(labelled.policies, [""; 0], "a policy that is not for it may be what it wants");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_to_overrides_that_cannot_be_is_refused() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let _host = Host::join(&fleet, "one").await;
    apply(&mut operator, &colliding("env=test")).await;
    apply(&mut operator, &file("web", "env=test", "")).await;
    operator.label_host(labelling(&[("size", "large"), ("tier", "gold")])).await.unwrap();
    for dry_run in [true, false] {
        let request = api::RollbackPolicyRequest { policy: "web".into(), version: 1, dry_run, ..Default::default() };
        let refusal = refused(operator.rollback_policy(request).await);
        assert_eq!(refusal.code, ErrorCode::InvalidPolicy);
        assert!(refusal.message.starts_with("the overrides of policy web on one: schedule.jitter: "), "{refusal:?}");
    }
    let request = api::GetPolicyRequest { policy: "web".into(), host: String::new() };
    assert_eq!(operator.get_policy(request).await.unwrap().into_inner().version, 2);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_joins_with_labels_that_make_overrides_impossible_is_named_by_status() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    apply(&mut operator, &colliding("tier=gold")).await;
    let api::LabelHostRequest { set: labels, .. } = labelling(&[("size", "large"), ("tier", "gold")]);
    let request = api::CreateTokenRequest { kind: "agent".into(), labels, ..Default::default() };
    let token: Token = operator.create_token(request).await.unwrap().into_inner().secret_line.parse().unwrap();
    fleet.join(&token, "one", &rcgen::KeyPair::generate().unwrap()).await.unwrap();
    let status = operator.get_status(api::GetStatusRequest::default()).await.unwrap().into_inner();
    assert_eq!((status.jobs, status.jobs_protected), (1, 0), "{status:?}");
    let trouble = &status.troubles[0];
    assert_eq!((trouble.host.as_str(), trouble.policy.as_str()), ("one", "web"));
    let said = "nothing of the policy is scheduled on the host: the overrides of policy web that one has make no policy together";
    assert!(trouble.what.starts_with(said), "{trouble:?}");
    let report = operator.report_objectives(api::ReportObjectivesRequest::default()).await.unwrap().into_inner();
    assert_eq!((report.jobs.len(), report.jobs[0].rpo.as_str()), (1, "out"), "{report:?}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_are_set_at_the_same_moment_all_stay() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let _host = Host::join(&fleet, "one").await;
    let _other = Host::join(&fleet, "two").await;
    apply(&mut operator, &file("web", "env=test, l0=x, l1=x, l2=x, l3=x", "")).await;
    let mut operators = tokio::task::JoinSet::new();
    for number in 0..4 {
        let mut operator = operator.clone();
        operators.spawn(async move { operator.label_host(labelling(&[(&format!("l{number}"), "x")])).await.unwrap() });
    }
    operators.join_all().await;
    let shown = operator.get_host(api::GetHostRequest { host: "one".into() }).await.unwrap().into_inner();
    let kept = (0..4).filter(|number| shown.labels.contains_key(&format!("l{number}"))).count();
    assert_eq!((kept, shown.labels["env"].as_str()), (4, "test"), "{:?}", shown.labels);
    assert_eq!(shown.policies, ["web"], "the last of them has the job that all of them ask for");
    fleet.stop().await;
}
