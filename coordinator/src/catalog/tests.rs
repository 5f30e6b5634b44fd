//! The catalog on a real PostgreSQL.

mod asking;
mod changes;
mod claims;
mod commits;
mod entries;
mod fixture;
mod identity;
mod outage;
mod overlay;
mod pauses;
mod runs;
mod scheduling;
mod schema;
mod timing;
