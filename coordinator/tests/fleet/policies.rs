//! Policies as a fleet has them: many files at once, versions, the way back, and what becomes of backups that no policy is for any more.

use std::collections::HashMap;

use coord_shared::api;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::run_order::Task;
use coord_shared::fault::ErrorCode;
use jiff::Timestamp;
use tonic::{Response, Status};

use super::operator::{Host, Operator, apply, refused, restore, start, tree};
use super::support::Fleet;

/// Due once a year, so that only what the tests ask for runs.
pub(super) fn file(name: &str, hosts: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nhosts = \"{hosts}\"\nsources = [\"/{name}\"]\nschedule = {{ cron = \"0 3 1 1 *\" }}\n{more}\n"
    )
}

pub(super) fn files(texts: &[String]) -> api::PolicyFiles {
    let file = |(number, toml): (usize, &String)| api::PolicyFile {
        path: format!("{number}.toml"),
        toml: toml.clone(),
        if_version: 0,
    };
    api::PolicyFiles { files: texts.iter().enumerate().map(file).collect(), ..Default::default() }
}

async fn versions(operator: &mut Operator, policy: &str) -> Vec<api::PolicyVersion> {
    let request = api::GetPolicyRequest { policy: policy.into(), host: String::new() };
    operator.get_policy_history(request).await.unwrap().into_inner().versions
}

fn keys(changes: &[api::KeyChange]) -> Vec<&str> {
    changes.iter().map(|change| change.key.as_str()).collect()
}

async fn rollback(operator: &mut Operator, version: u64) -> Result<Response<api::AppliedPolicy>, Status> {
    let request = api::RollbackPolicyRequest { policy: "web".into(), version, dry_run: false, ..Default::default() };
    operator.rollback_policy(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_files_all_are_applied_or_none_and_what_would_change_is_told_before() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let _host = Host::join(&fleet, "one").await;
    apply(&mut operator, &file("old", "env=test", "")).await;
    let (web, db) = (file("web", "env=test", ""), file("db", "env=prod", ""));

    let wrong = files(&[web.clone(), file("db", "env=prod", "full = { day = \"someday\" }")]);
    for refusal in [refused(operator.diff_policies(wrong.clone()).await), refused(operator.apply_policies(wrong).await)]
    {
        assert_eq!(refusal.code, ErrorCode::InvalidPolicy);
        assert!(refusal.message.starts_with("1.toml: full.day: "), "{refusal:?}");
    }
    let twice = refused(operator.apply_policies(files(&[web.clone(), web.clone()])).await);
    assert_eq!(twice.message, "0.toml and 1.toml are both named web");
    assert_eq!(refused(operator.apply_policies(files(&[])).await).code, ErrorCode::InvalidPolicy);
    let known = operator.list_policies(api::ListPoliciesRequest {}).await.unwrap().into_inner().policies;
    assert_eq!(known.len(), 1, "one wrong file, and none was applied");

    let both = files(&[web.clone(), db]);
    let told = operator.diff_policies(both.clone()).await.unwrap().into_inner();
    let done = operator.apply_policies(both.clone()).await.unwrap().into_inner();
    for all in [&told, &done] {
        let said: Vec<_> = all.policies.iter().map(|one| (one.change.as_str(), one.hosts_added.len())).collect();
        assert_eq!(
            (said, all.untouched.as_slice()),
            (vec![("created", 0), ("created", 1)], ["old".to_owned()].as_slice())
        );
        let nobody = &all.policies[0].warnings;
        assert!(nobody.iter().any(|warning| warning.message.contains("selects none of the 1 hosts")), "{nobody:?}");
    }
    let again = operator.diff_policies(both).await.unwrap().into_inner();
    assert!(again.policies.iter().all(|one| one.change == "unchanged" && one.keys.is_empty()), "{again:?}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_goes_back_to_any_version_that_it_had_and_to_no_other() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let _host = Host::join(&fleet, "one").await;
    apply(&mut operator, &file("web", "env=test", "")).await;
    let second = apply(&mut operator, &file("web", "env=test", "full = { day = \"monday\" }")).await;
    assert_eq!((second.from_version, keys(&second.keys)), (1, vec!["full.day"]), "{second:?}");
    assert_eq!((second.keys[0].was.as_str(), second.keys[0].becomes.as_str()), ("\"sunday\"", "\"monday\""));

    let never = refused(rollback(&mut operator, 7).await);
    assert_eq!(never.code, ErrorCode::NotFound);
    assert_eq!(never.message, "policy web has no version 7: its newest is 2");
    let back = rollback(&mut operator, 1).await.unwrap().into_inner();
    let policy = back.policy.unwrap();
    assert_eq!(
        (policy.version, policy.toml),
        (3, file("web", "env=test", "")),
        "a new version says what the old one said"
    );
    assert_eq!((keys(&back.keys), back.hosts_removed.len()), (vec!["full.day"], 0));
    assert_eq!(rollback(&mut operator, 1).await.unwrap().into_inner().change, "unchanged");

    let told = versions(&mut operator, "web").await;
    let made: Vec<_> = told.iter().map(|one| (one.version, one.change.as_str(), one.equals)).collect();
    assert_eq!(made, [(3, "rolled_back", 1), (2, "applied", 0), (1, "applied", 0)]);
    assert_eq!((keys(&told[1].keys), told[1].applied_by.as_str()), (vec!["full.day"], "admin"));

    let ending = api::DeletePolicyRequest { policy: "web".into(), dry_run: false, ..Default::default() };
    assert_eq!(operator.delete_policy(ending.clone()).await.unwrap().into_inner().change, "deleted");
    assert_eq!(refused(operator.delete_policy(ending).await).code, ErrorCode::NotFound, "it is gone already");
    let gone = refused(rollback(&mut operator, 4).await);
    assert_eq!(gone.code, ErrorCode::InvalidArgument);
    assert_eq!(gone.message, "version 4 of policy web is its deletion: there is nothing to go back to");
    let taken = refused(operator.apply_policies(files(&[file("web", "env=test", "")])).await);
    assert_eq!(
        (taken.code, taken.hint.contains("coordctl policy rollback web")),
        (ErrorCode::NameTaken, true),
        "{taken:?}"
    );
    let revived = rollback(&mut operator, 2).await.unwrap().into_inner();
    assert_eq!((revived.policy.unwrap().state, revived.hosts_added), ("active".to_owned(), vec!["one".to_owned()]));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backups_of_a_host_that_leaves_and_of_a_policy_that_ends_stay_and_are_restored_from() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    apply(&mut operator, &file("web", "env=test", "")).await;
    start(&mut operator, "web").await.unwrap();
    let backup = host.back_up(&fleet, Timestamp::now(), tree("web", 100)).await.to_string();

    // Its label goes, and with it the job; told before by a diff of what would do the same.
    let elsewhere = files(&[file("web", "env=prod", "")]);
    let told = operator.diff_policies(elsewhere).await.unwrap().into_inner();
    let leaving = &told.policies[0].leaving[0];
    assert_eq!((leaving.host.as_str(), leaving.backups, leaving.stored_bytes), ("one", 1, 1000), "{told:?}");
    assert_eq!(leaving.other_policies, [] as [String; 0]);
    let label = |env: &str| api::LabelHostRequest {
        host: "one".into(),
        set: HashMap::from([("env".to_owned(), env.to_owned())]),
        ..Default::default()
    };
    let would =
        operator.label_host(api::LabelHostRequest { dry_run: true, ..label("dev") }).await.unwrap().into_inner();
    assert_eq!((would.labels["env"].as_str(), would.policies.as_slice()), ("dev", [].as_slice()), "only told");
    let shown = operator.get_host(api::GetHostRequest { host: "one".into() }).await.unwrap().into_inner();
    assert_eq!((shown.labels["env"].as_str(), shown.policies.join(" ").as_str()), ("test", "web"));
    operator.label_host(label("dev")).await.unwrap();
    let job = api::GetJobRequest { host: "one".into(), policy: "web".into() };
    let ended = operator.get_job(job.clone()).await.unwrap().into_inner();
    assert_eq!((ended.state.as_str(), ended.ended_because.as_str()), ("ended", "not_selected"));
    still_there(&mut operator, &backup).await;
    operator.label_host(label("test")).await.unwrap();
    assert_eq!(operator.get_job(job.clone()).await.unwrap().into_inner().state, "active", "it comes back as it was");

    // The policy ends while a run of it is going on: the run goes on under its version, and what it leaves counts.
    start(&mut operator, "web").await.unwrap();
    let order = host.order().await;
    let ending = api::DeletePolicyRequest { policy: "web".into(), dry_run: true, ..Default::default() };
    let would = operator.delete_policy(ending.clone()).await.unwrap().into_inner();
    assert_eq!((would.change.as_str(), would.leaving[0].backups), ("deleted", 1), "{would:?}");
    assert_eq!(operator.get_job(job.clone()).await.unwrap().into_inner().state, "active", "nothing was changed");
    operator.delete_policy(api::DeletePolicyRequest { dry_run: false, ..ending }).await.unwrap();
    let Some(Task::Backup(task)) = order.task.clone() else { panic!("{order:?}") };
    host.finish(&order, Timestamp::now(), &tree("web", 200)).await;
    let second =
        operator.get_backup(api::GetBackupRequest { backup: task.backup_id.clone() }).await.unwrap().into_inner();
    assert_eq!((second.policy.as_str(), task.policy_version), ("web", 1));

    let ended = operator.get_job(job).await.unwrap().into_inner();
    assert_eq!((ended.state.as_str(), ended.backups, ended.next_due_at_us), ("ended", 2, 0));
    assert_eq!((ended.ended_because.as_str(), ended.values.len()), ("policy_deleted", 0));
    assert_eq!(ended.last_good_at_us, ended.newest.unwrap().captured_at_us);
    let all = operator.list_jobs(api::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    assert_eq!(all.len(), 1, "what has ended is listed too");
    still_there(&mut operator, &backup).await;
    let listed = operator.list_policies(api::ListPoliciesRequest {}).await.unwrap().into_inner().policies;
    assert_eq!(listed.len(), 0);
    let shown = api::GetPolicyRequest { policy: "web".into(), host: String::new() };
    assert_eq!(operator.get_policy(shown).await.unwrap().into_inner().state, "deleted");
    let refusal = refused(start(&mut operator, "web").await);
    assert_eq!(refusal.message, "policy web was deleted: nothing of it is backed up any more");
    fleet.stop().await;
}

/// The backup is listed under its policy, and a restore would take it.
async fn still_there(operator: &mut Operator, backup: &str) {
    let request = api::ListBackupsRequest { host: "one".into(), policy: "web".into(), ..Default::default() };
    let listed = operator.list_backups(request).await.unwrap().into_inner().backups;
    assert!(listed.iter().any(|found| found.id == backup), "{listed:?}");
    let plan = operator.plan_restore(restore(&["web"], None)).await.unwrap().into_inner();
    assert_eq!(plan.points.len(), 1, "{plan:?}");
}

fn of_fulls(warnings: &[api::PolicyFinding]) -> Vec<&str> {
    warnings.iter().filter(|warning| warning.key == "full").map(|warning| warning.message.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_that_another_selection_forces_is_told_before_with_its_size() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let mut host = Host::join(&fleet, "one").await;
    let _never_backed_up = Host::join(&fleet, "two").await;
    let first = file("web", "env=test", "");
    apply(&mut operator, &first).await;
    start(&mut operator, "web").await.unwrap();
    host.back_up(&fleet, Timestamp::now(), tree("web", 100)).await;

    let excluding =
        file("web", "env=test", "exclude = [\"*.tmp\"]\n[[override]]\nhosts = \"big=\"\nexclude = [\"*.log\"]");
    let told = operator.diff_policies(files(std::slice::from_ref(&excluding))).await.unwrap().into_inner();
    let said = [
        "the next backup of one is a full, about 3.9 KiB before compression: policy web selects other files than the newest full was taken of",
    ];
    assert_eq!(of_fulls(&told.policies[0].warnings), said);
    let elsewhere = files(&[file("web", "env=prod", "exclude = [\"*.tmp\"]")]);
    let told = operator.diff_policies(elsewhere).await.unwrap().into_inner();
    assert_eq!(of_fulls(&told.policies[0].warnings), [""; 0], "nothing is backed up any more");
    let later = files(&[file("web", "env=test", "full = { day = \"monday\" }")]);
    let told = operator.diff_policies(later).await.unwrap().into_inner();
    assert_eq!(of_fulls(&told.policies[0].warnings), [""; 0], "the selection stays");

    assert_eq!(of_fulls(&apply(&mut operator, &excluding).await.warnings), said);
    let big = api::LabelHostRequest {
        host: "one".into(),
        set: HashMap::from([("big".to_owned(), String::new())]),
        dry_run: true,
        ..Default::default()
    };
    let would = operator.label_host(big).await.unwrap().into_inner();
    assert_eq!(of_fulls(&would.warnings), said, "an override for hosts with the label");
    let back = rollback(&mut operator, 1).await.unwrap().into_inner();
    assert_eq!(of_fulls(&back.warnings), [""; 0], "the full was taken of just that");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_what_is_made_or_nothing_is_when_somebody_else_was_there_meanwhile() {
    let fleet = Fleet::start().await;
    let mut operator = OperatorServiceClient::new(fleet.admin().await);
    let _host = Host::join(&fleet, "one").await;
    let on = |day: &str| file("web", "env=test", &format!("full = {{ day = \"{day}\" }}"));
    apply(&mut operator, &on("monday")).await;
    apply(&mut operator, &on("tuesday")).await;
    let meanwhile = |fault: &coord_shared::fault::Fault| {
        assert_eq!(fault.code, ErrorCode::Changed, "{fault:?}");
        assert!(fault.message.starts_with("since it was shown what this would do, somebody has changed"), "{fault:?}");
    };

    let back = api::RollbackPolicyRequest { policy: "web".into(), version: 1, dry_run: true, ..Default::default() };
    let told = operator.rollback_policy(back.clone()).await.unwrap().into_inner();
    let held = |plan_digest: String| api::RollbackPolicyRequest { dry_run: false, plan_digest, ..back.clone() };
    apply(&mut operator, &on("friday")).await;
    meanwhile(&refused(operator.rollback_policy(held(told.plan_digest)).await));
    let told = operator.rollback_policy(back.clone()).await.unwrap().into_inner();
    assert_eq!(told.from_version, 3);
    let done = operator.rollback_policy(held(told.plan_digest)).await.unwrap().into_inner();
    assert_eq!((done.from_version, done.policy.unwrap().version), (3, 4), "what was told anew is done");

    let ending = api::DeletePolicyRequest { policy: "web".into(), dry_run: true, ..Default::default() };
    let told = operator.delete_policy(ending.clone()).await.unwrap().into_inner();
    let held = |plan_digest: String| api::DeletePolicyRequest { dry_run: false, plan_digest, ..ending.clone() };
    let _joined = Host::join(&fleet, "two").await;
    meanwhile(&refused(operator.delete_policy(held(told.plan_digest)).await));
    let told = operator.delete_policy(ending.clone()).await.unwrap().into_inner();
    assert_eq!(told.leaving.len(), 2, "{told:?}");
    apply(&mut operator, &on("sunday")).await;
    meanwhile(&refused(operator.delete_policy(held(told.plan_digest)).await));

    let told_of = async |operator: &mut Operator, toml: String| {
        let asked = files(&[toml]);
        let told = operator.diff_policies(asked.clone()).await.unwrap().into_inner();
        (api::PolicyFiles { plan_digest: told.plan_digest.clone(), ..asked }, told)
    };
    let (mine, told) = told_of(&mut operator, file("db", "env=test", "")).await;
    assert_eq!((told.policies[0].change.as_str(), told.policies[0].from_version), ("created", 0));
    let theirs = file("db", "env=prod", "priority = 9");
    apply(&mut operator, &theirs).await;
    meanwhile(&refused(operator.apply_policies(mine).await));
    let shown = api::GetPolicyRequest { policy: "db".into(), host: String::new() };
    assert_eq!(operator.get_policy(shown).await.unwrap().into_inner().toml, theirs);

    let age = |days: u32| format!("kind = \"defaults\"\nfull = {{ max_age_days = {days} }}\n");
    let (mine, told) = told_of(&mut operator, age(14)).await;
    assert_eq!(told.policies.len(), 2, "{told:?}");
    operator.apply_policies(files(&[age(21)])).await.unwrap();
    meanwhile(&refused(operator.apply_policies(mine).await));
    let (mine, told) = told_of(&mut operator, age(14)).await;
    assert_eq!(told.defaults.unwrap().from_version, 1);
    apply(&mut operator, &on("monday")).await;
    meanwhile(&refused(operator.apply_policies(mine).await));
    let (mine, _) = told_of(&mut operator, age(14)).await;
    let done = operator.apply_policies(mine).await.unwrap().into_inner();
    assert_eq!(done.defaults.unwrap().version, 2, "nobody was there meanwhile");
    fleet.stop().await;
}
