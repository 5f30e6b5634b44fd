//! A coordinator as its fleet sees it: in this process, over real mTLS, with a database of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

mod calendar;
mod indexes;
mod levelling;
mod limits;
mod objectives;
mod operator;
mod outage;
mod pauses;
mod policies;
mod policy_layers;
mod retries;
mod runs;
mod streams;
mod support;
mod times;
mod trust;
mod unreadable;
mod verifying;
