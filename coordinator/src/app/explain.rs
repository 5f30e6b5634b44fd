//! Why a level was chosen: the stored decisions of a host, a job, a run or a backup, with inputs and the options not taken.

use coord_shared::api;
use coord_shared::fault::{ErrorCode, Fault};

use super::{App, names, start_backup};
use crate::catalog::{DecisionRecord, JobFilter};
use crate::domain::decision::Choice;

/// Decisions shown of a job.
const OF_A_JOB: u32 = 10;
/// Decisions shown of each job of a host.
const OF_A_HOST: u32 = 2;

/// Decisions, newest first, about what an operator names: HOST, HOST/POLICY, a run or a backup.
///
/// # Errors
/// `not_found` when the text is none of these, `ambiguous` with the candidates.
pub async fn explain(app: &App, subject: &str) -> Result<api::Explanation, Fault> {
    let records = match subject.split_once('/') {
        Some((host, policy)) => {
            let job = start_backup::job(app, host, policy).await?;
            app.catalog.decisions_of_job(job.id, OF_A_JOB).await?
        }
        None => of_name_or_id(app, subject).await?,
    };
    let decisions = records.iter().map(encode).collect::<Result<Vec<_>, Fault>>()?;
    if decisions.is_empty() {
        return Err(Fault::new(
            ErrorCode::NotFound,
            format!("nothing was decided yet for '{}'", names::shown(subject)),
        )
        .with_hint("coordctl job run HOST/POLICY asks for a backup; levels are decided when it starts"));
    }
    Ok(api::Explanation { decisions })
}

async fn of_name_or_id(app: &App, subject: &str) -> Result<Vec<DecisionRecord>, Fault> {
    let run = match app.catalog.host_by_name(subject).await? {
        Some(_) => None,
        None => match names::find_run(app, subject).await? {
            Some(run) => Some(run.id),
            None => names::find_backup(app, subject).await?.map(|backup| backup.run),
        },
    };
    if let Some(run) = run {
        let mut records = app.catalog.decisions_of_run(run).await?;
        records.reverse();
        return Ok(records);
    }
    let host = names::host(app, subject).await?;
    let mut records = Vec::new();
    for job in app.catalog.jobs(JobFilter { host: Some(host.id), ..JobFilter::default() }).await? {
        records.extend(app.catalog.decisions_of_job(job.id, OF_A_HOST).await?);
    }
    records.sort_by_key(|record| std::cmp::Reverse(record.decided_at));
    Ok(records)
}

fn encode(record: &DecisionRecord) -> Result<api::Decision, Fault> {
    let decision = &record.decision;
    let unreadable = |error: serde_json::Error| {
        tracing::error!(run = %decision.run, %error, "the options of a decision do not read");
        Fault::new(ErrorCode::Internal, "a stored decision does not read; the coordinator's log says more")
    };
    let options: Vec<Choice> = serde_json::from_value(decision.options.clone()).map_err(unreadable)?;
    let option = |choice: Choice| api::DecisionOption {
        level: choice.level.to_api().into(),
        taken: choice.taken,
        predicted_bytes: choice.predicted_bytes,
        why: choice.why,
        predicted_ms: choice.predicted_ms,
        predicted_restore_ms: choice.predicted_restore_ms,
    };
    Ok(api::Decision {
        run_id: decision.run.to_string(),
        host: record.host_name.clone(),
        policy: record.policy_name.clone(),
        stage: decision.stage.as_str().to_owned(),
        level: decision.level.to_api().into(),
        rule: decision.rule.clone(),
        reason: decision.reason.clone(),
        decided_at_us: coord_shared::wire::to_us(record.decided_at),
        inputs_json: decision.inputs.to_string(),
        options: options.into_iter().map(option).collect(),
        estimate_bytes: decision.estimate_bytes,
        exact_bytes: decision.exact_bytes,
    })
}
