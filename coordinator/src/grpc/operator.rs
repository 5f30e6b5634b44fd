//! What operators call. Every handler decodes, makes one call into `app` and encodes; roles were checked by the layer in front.

use std::pin::Pin;
use std::sync::Arc;

use coord_shared::api;
use coord_shared::api::operator_service_server::OperatorService;
use coord_shared::fault::Fault;
use coord_shared::lifecycle::Lifecycle;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::identity::judged;
use super::{Caller, caller, refused};
use crate::app::relay::Part;
use crate::app::{
    App, apply_policy, backups, cancel_run, catalog_status, coordinators, delete_policy, diff_files, explain, files,
    hosts, label_host, limits, list_jobs, look_ahead, path_versions, pauses, plan_restore, policies, policy_history,
    preview_policy, read_file, rebuild_catalog, relay, report_dedup, report_objectives, retry_run, revoke_host,
    rollback_policy, run_events, runs, start_backup, start_restore, status, tokens, users, watch_run, what_if,
};
use crate::relays::Receiving;

/// Answers between a use case and HTTP/2.
const MAX_BUFFERED_ANSWERS: usize = 4;

/// The service for operators.
#[derive(Debug, Clone)]
pub struct Operators {
    app: Arc<App>,
    life: Lifecycle,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl Operators {
    /// Serves operators of the fleet of `app`; streams end with `life`.
    pub fn new(app: Arc<App>, life: Lifecycle) -> Operators {
        Operators { app, life }
    }

    /// Hands on what a host sends until it has ended, or the operator is gone.
    fn hand_on<T: Part + Send + 'static>(
        &self,
        name: &'static str,
        mut receiving: Receiving<T>,
        caller: Caller,
    ) -> Response<Answers<T>> {
        let (outgoing, stream) = mpsc::channel(MAX_BUFFERED_ANSWERS);
        let (app, ending) = (Arc::clone(&self.app), self.life.ending().clone());
        self.life.spawn(name, async move {
            let relayed = relay::pass_on(&mut receiving, |part| {
                let outgoing = outgoing.clone();
                async move { outgoing.send(Ok(part)).await.is_ok() }
            });
            let result = tokio::select! {
                result = relayed => result,
                fault = judged(&app, &caller) => Err(fault),
                () = outgoing.closed() => Ok(()),
                () = ending.cancelled() => Err(watch_run::ending()),
            };
            close(caller, outgoing, result).await;
        });
        Response::new(Box::pin(ReceiverStream::new(stream)))
    }
}

fn open<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let caller = caller(&request)?;
    Ok((caller, request.into_inner()))
}

fn answer<T>(caller: &Caller, result: Result<T, Fault>) -> Answer<T> {
    result.map(Response::new).map_err(|fault| refused(caller, fault))
}

/// Puts a stream's answers on the wire; what it ends with, if not well, is its last answer.
async fn close<T>(caller: Caller, outgoing: mpsc::Sender<Result<T, Status>>, result: Result<(), Fault>) {
    if let Err(fault) = result {
        // The operator may be gone: then nobody is left to be told.
        let _gone = outgoing.send(Err(refused(&caller, fault))).await;
    }
}

#[tonic::async_trait]
impl OperatorService for Operators {
    type WatchRunStream = Answers<api::Run>;
    type ListFilesStream = Answers<api::FileBatch>;
    type ReadFileStream = Answers<api::FileChunk>;
    type DiffFilesStream = Answers<api::DiffBatch>;
    type PreviewPolicyStream = Answers<api::PreviewPart>;

    async fn get_version(&self, request: Request<api::GetVersionRequest>) -> Answer<api::VersionInfo> {
        let (caller, _) = open(request)?;
        answer(&caller, status::version(&self.app).await)
    }

    async fn get_status(&self, request: Request<api::GetStatusRequest>) -> Answer<api::FleetStatus> {
        let (caller, request) = open(request)?;
        answer(&caller, status::fleet(&self.app, &request.host).await)
    }

    async fn explain(&self, request: Request<api::ExplainRequest>) -> Answer<api::Explanation> {
        let (caller, request) = open(request)?;
        answer(&caller, explain::explain(&self.app, &request.subject).await)
    }

    async fn get_schedule(&self, request: Request<api::GetScheduleRequest>) -> Answer<api::Schedule> {
        let (caller, request) = open(request)?;
        answer(&caller, look_ahead::schedule(&self.app, &request).await)
    }

    async fn what_if(&self, request: Request<api::WhatIfRequest>) -> Answer<api::WhatIfReport> {
        let (caller, request) = open(request)?;
        answer(&caller, what_if::what_if(&self.app, &request).await)
    }

    async fn list_coordinators(&self, request: Request<api::ListCoordinatorsRequest>) -> Answer<api::CoordinatorList> {
        let (caller, _) = open(request)?;
        answer(&caller, coordinators::list(&self.app).await)
    }

    async fn drain_coordinator(&self, request: Request<api::DrainCoordinatorRequest>) -> Answer<api::Coordinator> {
        let (caller, request) = open(request)?;
        answer(&caller, coordinators::drain(&self.app, caller.user(), &request.coordinator).await)
    }

    async fn create_token(&self, request: Request<api::CreateTokenRequest>) -> Answer<api::CreatedToken> {
        let (caller, request) = open(request)?;
        let creator = tokens::Creator { user: caller.user(), role: caller.role };
        answer(&caller, tokens::create(&self.app, creator, request).await)
    }

    async fn list_tokens(&self, request: Request<api::ListTokensRequest>) -> Answer<api::TokenList> {
        let (caller, _) = open(request)?;
        answer(&caller, tokens::list(&self.app).await)
    }

    async fn revoke_token(&self, request: Request<api::RevokeTokenRequest>) -> Answer<api::Token> {
        let (caller, request) = open(request)?;
        answer(&caller, tokens::revoke(&self.app, caller.user(), &request.id).await)
    }

    async fn list_hosts(&self, request: Request<api::ListHostsRequest>) -> Answer<api::HostList> {
        let (caller, request) = open(request)?;
        answer(&caller, hosts::list(&self.app, &request).await)
    }

    async fn get_host(&self, request: Request<api::GetHostRequest>) -> Answer<api::Host> {
        let (caller, request) = open(request)?;
        answer(&caller, hosts::show(&self.app, &request.host).await)
    }

    async fn label_host(&self, request: Request<api::LabelHostRequest>) -> Answer<api::Host> {
        let (caller, request) = open(request)?;
        answer(&caller, label_host::label(&self.app, caller.user(), request).await)
    }

    async fn report_dedup(&self, request: Request<api::ReportDedupRequest>) -> Answer<api::DedupReport> {
        let (caller, request) = open(request)?;
        answer(&caller, report_dedup::report(&self.app, &request).await)
    }

    async fn report_objectives(&self, request: Request<api::ReportObjectivesRequest>) -> Answer<api::ObjectivesReport> {
        let (caller, request) = open(request)?;
        answer(&caller, report_objectives::report(&self.app, &request).await)
    }

    async fn revoke_host(&self, request: Request<api::RevokeHostRequest>) -> Answer<api::Host> {
        let (caller, request) = open(request)?;
        answer(&caller, revoke_host::revoke(&self.app, caller.user(), &request.host).await)
    }

    async fn list_users(&self, request: Request<api::ListUsersRequest>) -> Answer<api::UserList> {
        let (caller, _) = open(request)?;
        answer(&caller, users::list(&self.app).await)
    }

    async fn disable_user(&self, request: Request<api::DisableUserRequest>) -> Answer<api::User> {
        let (caller, request) = open(request)?;
        answer(&caller, users::disable(&self.app, caller.user(), &request.user).await)
    }

    async fn list_policies(&self, request: Request<api::ListPoliciesRequest>) -> Answer<api::PolicyList> {
        let (caller, _) = open(request)?;
        answer(&caller, policies::list(&self.app).await)
    }

    async fn get_policy(&self, request: Request<api::GetPolicyRequest>) -> Answer<api::Policy> {
        let (caller, request) = open(request)?;
        answer(&caller, policies::show(&self.app, &request.policy, &request.host).await)
    }

    async fn lint_policy(&self, request: Request<api::LintPolicyRequest>) -> Answer<api::PolicyLint> {
        let (caller, request) = open(request)?;
        answer(&caller, apply_policy::lint(&self.app, &request.toml).await)
    }

    async fn apply_policy(&self, request: Request<api::ApplyPolicyRequest>) -> Answer<api::AppliedPolicy> {
        let (caller, request) = open(request)?;
        answer(&caller, apply_policy::apply(&self.app, caller.user(), &request).await)
    }

    async fn apply_policies(&self, request: Request<api::PolicyFiles>) -> Answer<api::AppliedPolicies> {
        let (caller, request) = open(request)?;
        answer(&caller, apply_policy::apply_all(&self.app, caller.user(), &request).await)
    }

    async fn diff_policies(&self, request: Request<api::PolicyFiles>) -> Answer<api::AppliedPolicies> {
        let (caller, request) = open(request)?;
        answer(&caller, apply_policy::diff(&self.app, &request.files).await)
    }

    async fn get_policy_defaults(
        &self,
        request: Request<api::GetPolicyDefaultsRequest>,
    ) -> Answer<api::PolicyDefaults> {
        let (caller, _) = open(request)?;
        answer(&caller, policies::defaults(&self.app).await)
    }

    async fn get_policy_history(&self, request: Request<api::GetPolicyRequest>) -> Answer<api::PolicyHistory> {
        let (caller, request) = open(request)?;
        answer(&caller, policy_history::history(&self.app, &request.policy).await)
    }

    async fn rollback_policy(&self, request: Request<api::RollbackPolicyRequest>) -> Answer<api::AppliedPolicy> {
        let (caller, request) = open(request)?;
        answer(&caller, rollback_policy::rollback(&self.app, caller.user(), &request).await)
    }

    async fn delete_policy(&self, request: Request<api::DeletePolicyRequest>) -> Answer<api::AppliedPolicy> {
        let (caller, request) = open(request)?;
        answer(&caller, delete_policy::delete(&self.app, caller.user(), &request).await)
    }

    async fn preview_policy(&self, request: Request<api::PreviewPolicyRequest>) -> Answer<Self::PreviewPolicyStream> {
        let (caller, request) = open(request)?;
        let opened = preview_policy::open(&self.app, caller.user(), &request).await;
        Ok(self.hand_on("preview", opened.map_err(|fault| refused(&caller, fault))?, caller))
    }

    async fn list_jobs(&self, request: Request<api::ListJobsRequest>) -> Answer<api::JobList> {
        let (caller, request) = open(request)?;
        answer(&caller, list_jobs::list(&self.app, &request).await)
    }

    async fn get_job(&self, request: Request<api::GetJobRequest>) -> Answer<api::Job> {
        let (caller, request) = open(request)?;
        answer(&caller, list_jobs::show(&self.app, &request.host, &request.policy).await)
    }

    async fn start_backup(&self, request: Request<api::StartBackupRequest>) -> Answer<api::Run> {
        let (caller, request) = open(request)?;
        answer(&caller, start_backup::start(&self.app, caller.user(), &request).await)
    }

    async fn list_limits(&self, request: Request<api::ListLimitsRequest>) -> Answer<api::LimitList> {
        let (caller, _) = open(request)?;
        answer(&caller, limits::list(&self.app).await)
    }

    async fn set_limit(&self, request: Request<api::SetLimitRequest>) -> Answer<api::Limit> {
        let (caller, request) = open(request)?;
        answer(&caller, limits::set(&self.app, caller.user(), &request).await)
    }

    async fn remove_limit(&self, request: Request<api::RemoveLimitRequest>) -> Answer<api::Limit> {
        let (caller, request) = open(request)?;
        answer(&caller, limits::remove(&self.app, caller.user(), &request.name).await)
    }

    async fn list_pauses(&self, request: Request<api::ListPausesRequest>) -> Answer<api::PauseList> {
        let (caller, _) = open(request)?;
        answer(&caller, pauses::list(&self.app).await)
    }

    async fn set_pause(&self, request: Request<api::SetPauseRequest>) -> Answer<api::Pause> {
        let (caller, request) = open(request)?;
        answer(&caller, pauses::set(&self.app, caller.user(), &request).await)
    }

    async fn end_pause(&self, request: Request<api::EndPauseRequest>) -> Answer<api::Pause> {
        let (caller, request) = open(request)?;
        answer(&caller, pauses::end(&self.app, caller.user(), &request).await)
    }

    async fn list_runs(&self, request: Request<api::ListRunsRequest>) -> Answer<api::RunList> {
        let (caller, request) = open(request)?;
        answer(&caller, runs::list(&self.app, &request).await)
    }

    async fn get_run(&self, request: Request<api::GetRunRequest>) -> Answer<api::Run> {
        let (caller, request) = open(request)?;
        answer(&caller, runs::show(&self.app, &request.run).await)
    }

    async fn watch_run(&self, request: Request<api::GetRunRequest>) -> Answer<Self::WatchRunStream> {
        let (caller, request) = open(request)?;
        let run = runs::find(&self.app, &request.run).await.map_err(|fault| refused(&caller, fault))?;
        let (outgoing, stream) = mpsc::channel(MAX_BUFFERED_ANSWERS);
        // Who watches goes to another coordinator when this one leaves: it need not see the end here.
        let (app, ending) = (Arc::clone(&self.app), self.life.ending().clone());
        let closing = app.draining.closing().clone();
        self.life.spawn("watched run", async move {
            let watch = watch_run::watch(&app, run.id, |now| {
                let outgoing = outgoing.clone();
                async move { outgoing.send(Ok(now)).await.is_ok() }
            });
            let result = tokio::select! {
                result = watch => result,
                fault = judged(&app, &caller) => Err(fault),
                () = closing.cancelled() => Err(watch_run::ending()),
                () = ending.cancelled() => Err(watch_run::ending()),
            };
            close(caller, outgoing, result).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_run_warnings(&self, request: Request<api::ListRunWarningsRequest>) -> Answer<api::RunWarnings> {
        let (caller, request) = open(request)?;
        answer(&caller, runs::warnings(&self.app, &request.run, request.limit).await)
    }

    async fn list_run_events(&self, request: Request<api::ListRunEventsRequest>) -> Answer<api::RunEventList> {
        let (caller, request) = open(request)?;
        answer(&caller, run_events::list(&self.app, &request.run).await)
    }

    async fn cancel_run(&self, request: Request<api::CancelRunRequest>) -> Answer<api::Run> {
        let (caller, request) = open(request)?;
        answer(&caller, cancel_run::cancel(&self.app, caller.user(), &request.run).await)
    }

    async fn retry_run(&self, request: Request<api::RetryRunRequest>) -> Answer<api::Run> {
        let (caller, request) = open(request)?;
        answer(&caller, retry_run::retry(&self.app, caller.user(), &request.run).await)
    }

    async fn list_backups(&self, request: Request<api::ListBackupsRequest>) -> Answer<api::BackupList> {
        let (caller, request) = open(request)?;
        answer(&caller, backups::list(&self.app, &request).await)
    }

    async fn get_backup(&self, request: Request<api::GetBackupRequest>) -> Answer<api::Backup> {
        let (caller, request) = open(request)?;
        answer(&caller, backups::show(&self.app, &request.backup).await)
    }

    async fn get_catalog_status(&self, request: Request<api::CatalogJobs>) -> Answer<api::CatalogStatus> {
        let (caller, request) = open(request)?;
        answer(&caller, catalog_status::status(&self.app, &request).await)
    }

    async fn rebuild_catalog(&self, request: Request<api::RebuildCatalogRequest>) -> Answer<api::CatalogRebuild> {
        let (caller, request) = open(request)?;
        answer(&caller, rebuild_catalog::rebuild(&self.app, caller.user(), &request).await)
    }

    async fn list_files(&self, request: Request<api::ListFilesRequest>) -> Answer<Self::ListFilesStream> {
        let (caller, request) = open(request)?;
        let listing = files::open(&self.app, &request).await.map_err(|fault| refused(&caller, fault))?;
        let (outgoing, stream) = mpsc::channel(MAX_BUFFERED_ANSWERS);
        let (app, ending) = (Arc::clone(&self.app), self.life.ending().clone());
        self.life.spawn("listing", async move {
            let walk = files::walk(&app, listing, |batch| {
                let outgoing = outgoing.clone();
                async move { outgoing.send(Ok(batch)).await.is_ok() }
            });
            let result = tokio::select! {
                result = walk => result,
                fault = judged(&app, &caller) => Err(fault),
                () = ending.cancelled() => Err(watch_run::ending()),
            };
            close(caller, outgoing, result).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn read_file(&self, request: Request<api::ReadFileRequest>) -> Answer<Self::ReadFileStream> {
        let (caller, request) = open(request)?;
        let opened = read_file::open(&self.app, caller.user(), &request).await;
        Ok(self.hand_on("file", opened.map_err(|fault| refused(&caller, fault))?, caller))
    }

    async fn list_path_versions(&self, request: Request<api::ListPathVersionsRequest>) -> Answer<api::PathVersionList> {
        let (caller, request) = open(request)?;
        answer(&caller, path_versions::list(&self.app, &request).await)
    }

    async fn diff_files(&self, request: Request<api::DiffFilesRequest>) -> Answer<Self::DiffFilesStream> {
        let (caller, request) = open(request)?;
        let diff = diff_files::open(&self.app, &request).await.map_err(|fault| refused(&caller, fault))?;
        let (outgoing, stream) = mpsc::channel(MAX_BUFFERED_ANSWERS);
        let (app, ending) = (Arc::clone(&self.app), self.life.ending().clone());
        self.life.spawn("comparison", async move {
            let walk = diff_files::walk(&app, diff, |batch| {
                let outgoing = outgoing.clone();
                async move { outgoing.send(Ok(batch)).await.is_ok() }
            });
            let result = tokio::select! {
                result = walk => result,
                fault = judged(&app, &caller) => Err(fault),
                () = outgoing.closed() => Ok(()),
                () = ending.cancelled() => Err(watch_run::ending()),
            };
            close(caller, outgoing, result).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn plan_restore(&self, request: Request<api::RestoreRequest>) -> Answer<api::RestorePlan> {
        let (caller, request) = open(request)?;
        answer(&caller, plan_restore::preview(&self.app, &request).await)
    }

    async fn start_restore(&self, request: Request<api::RestoreRequest>) -> Answer<api::StartedRestore> {
        let (caller, request) = open(request)?;
        answer(&caller, start_restore::start(&self.app, caller.user(), &request).await)
    }
}
