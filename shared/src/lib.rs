//! What coordinator, agent and operator tools must agree on. No SQL, no business rule.

pub mod api;
pub mod backoff;
pub mod clock;
pub mod durable;
pub mod duration;
pub mod exit;
pub mod failpoint;
pub mod fault;
pub mod hex;
pub mod ids;
pub mod left_out;
pub mod level;
pub mod lifecycle;
pub mod retry;
pub mod run;
pub mod selector;
pub mod size;
pub mod slug;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod turns;
pub mod version;
pub mod wire;
