//! What coordinator, agent and operator tools must agree on. No SQL, no business rule.

pub mod api;
pub mod exit;
pub mod fault;
pub mod hex;
pub mod lifecycle;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod wire;
