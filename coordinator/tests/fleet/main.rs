//! A coordinator as its fleet sees it: in this process, over real mTLS, with a database of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

mod calendar;
mod draining;
mod health;
mod indexes;
mod levelling;
mod limits;
mod objectives;
mod operator;
mod outage;
mod pauses;
mod plans;
mod policies;
mod policy_layers;
mod replays;
mod retries;
mod runs;
mod start_order;
mod streams;
mod support;
mod times;
mod trust;
mod unreadable;
mod upgrade;
mod verifying;
