//! The catalog on a real PostgreSQL.

mod asking;
mod changes;
mod claims;
mod commits;
mod entries;
pub(crate) mod fixture;
mod identity;
mod lifecycle;
mod outage;
mod overlay;
mod own_runs;
mod pauses;
mod placing;
mod plans;
mod policies;
mod run_history;
mod runs;
mod scheduling;
mod schema;
mod timing;
mod together;
