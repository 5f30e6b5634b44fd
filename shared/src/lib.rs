//! What coordinator, agent and operator tools must agree on. No SQL, no business rule.

pub mod api;
