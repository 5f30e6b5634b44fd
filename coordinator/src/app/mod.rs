//! Use cases, one file each: open the transaction, ask the domain, write the catalog. Requests (`grpc`) and timers (`tasks`) come through
//! here, so both run the same code. What they all need is one struct, [`App`], built once in the composition root.

pub mod apply_policy;
pub mod authorize;
pub mod backups;
pub mod bootstrap;
pub mod cancel_run;
pub mod catalog_status;
pub mod commit;
pub mod coordinators;
pub mod decide;
pub mod delete_policy;
pub mod diff_files;
pub mod dispatch;
pub mod drain;
pub mod explain;
mod fault;
pub mod files;
pub mod forced_fulls;
pub mod forget_runs;
pub mod health;
pub mod heartbeat;
pub mod hello;
pub mod host_policies;
pub mod hosts;
pub mod housekeeping;
pub mod ingest;
pub mod jobs;
pub mod join;
pub mod judge_sessions;
pub mod keep_jobs;
pub mod known_policies;
pub mod label_host;
pub mod lapse;
pub mod last_read;
pub mod level_fulls;
pub mod limits;
pub mod list_jobs;
pub mod look_ahead;
pub mod make_up;
pub mod names;
pub mod pace;
pub mod path_versions;
pub mod pauses;
pub mod plan_restore;
pub mod policies;
pub mod policy_change;
pub mod policy_digest;
pub mod policy_history;
pub mod policy_refusal;
pub mod policy_warnings;
pub mod policy_weeks;
pub mod preview_policy;
pub mod read_file;
pub mod reap;
pub mod rebuild_catalog;
pub mod relay;
pub mod renew;
pub mod report;
pub mod report_dedup;
pub mod report_objectives;
pub mod restore_digest;
pub mod restore_points;
pub mod restore_task;
pub mod retry_run;
pub mod revoke_host;
pub mod rollback_policy;
pub mod run_events;
pub mod runs;
pub mod schedule;
mod selections;
pub mod send_plans;
pub mod start_backup;
pub mod start_restore;
pub mod status;
pub mod tokens;
pub mod users;
pub mod waiting;
pub mod watch_run;
pub mod what_if;

use std::sync::Arc;

use arc_swap::ArcSwap;
use coord_shared::api::{FileChunk, PreviewPart};
use coord_shared::clock::Clock;
use coord_shared::ids::CoordinatorId;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::catalog::Catalog;
use crate::draining::Draining;
use crate::pki::Authority;
use crate::pulses::Pulses;
use crate::relays::Relays;
use crate::sessions::Sessions;
use crate::settings::Settings;

pub use fault::chain;

/// How the fleet reaches this coordinator, each as `host:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Main listener.
    pub main: Vec<String>,
    /// Enrolment listener.
    pub enrolment: Vec<String>,
}

/// Wakes reconcilers before their timers do. Missing a nudge costs seconds, never a run.
#[derive(Debug, Clone, Default)]
pub struct Nudges {
    /// A policy or a job changed.
    pub scheduler: Arc<Notify>,
    /// A run was queued, or an agent greeted us.
    pub dispatcher: Arc<Notify>,
    /// Index blocks are complete.
    pub ingester: Arc<Notify>,
    /// A policy or a pause changed, or a backup was committed.
    pub full_planner: Arc<Notify>,
    /// Something changed that the plans of hosts go by.
    pub plan_sender: Arc<Notify>,
}

/// What use cases work with.
pub struct App {
    /// The truth.
    pub catalog: Catalog,
    /// The same over connections of its own, for what the fleet lives by: runs that become due, claims, heartbeats, leases. It does not wait
    /// behind the reports and indexes of thousands of hosts.
    pub duties: Catalog,
    /// Live agent streams of this coordinator.
    pub sessions: Sessions,
    /// Files on their way to operators.
    pub relays: Relays<FileChunk>,
    /// Previews on their way to operators.
    pub previews: Relays<PreviewPart>,
    /// Issues certificates.
    pub authority: Authority,
    /// What the administrator set.
    pub settings: Settings,
    /// How the fleet reaches us.
    pub endpoints: Endpoints,
    /// This process among the coordinators of the fleet.
    pub coordinator: CoordinatorId,
    /// Dates certificates; leases and schedules go by the database.
    pub clock: Arc<dyn Clock>,
    /// Wakes reconcilers.
    pub nudges: Nudges,
    /// Recent answers of the allow-list.
    pub standings: authorize::Standings,
    /// Versions of policies that were read before.
    pub known_policies: known_policies::KnownPolicies,
    /// Attempts that were claimed and wait for their orders.
    pub unordered: dispatch::Unordered,
    /// Heartbeats that wait to be stored.
    pub beats: heartbeat::Beats,
    /// What passes over many rows have reported.
    pub reported: jobs::Reported,
    /// The plans that the sessions here were sent.
    pub plans: send_plans::Plans,
    /// Whether this coordinator is leaving.
    pub draining: Draining,
    /// Whether its duties turn.
    pub pulses: Pulses,
    /// Where the coordinators are that serve, as of the last look.
    pub whereabouts: ArcSwap<coordinators::Whereabouts>,
    /// When the certificate ends that the listeners show.
    pub certificate_ends: watch::Sender<Timestamp>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("coordinator", &self.coordinator).finish_non_exhaustive()
    }
}
