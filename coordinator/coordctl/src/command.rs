//! The commands: a file each noun. Arguments are read, one call is made, the answer is shown; no decision is taken here.

pub mod backup;
pub mod catalog;
pub mod context;
pub mod diff;
pub mod files;
pub mod fleet;
pub mod generate;
pub mod help;
pub mod history;
pub mod host;
pub mod job;
pub mod limit;
pub mod listing;
pub mod login;
pub mod logs;
pub mod pause;
pub mod policy;
pub mod policy_change;
pub mod policy_edit;
pub mod policy_week;
pub mod preview;
pub mod report;
pub mod restore;
pub mod run;
pub mod schedule;
pub mod server;
pub mod token;
pub mod user;
pub mod what_if;

#[cfg(test)]
mod golden;
