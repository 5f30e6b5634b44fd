//! The coordinator: catalog, decisions, schedule and sessions of a fleet. A library, so that tests and the demo can reach its
//! parts; the binary is `main.rs`. Floors are in ARCHITECTURE.md: `domain` < `catalog`, `pki`, `sessions` < `app` < `grpc`, `tasks`.

pub mod bootstrap;
pub mod domain;
pub mod init;
pub mod pki;
pub mod postgres;
pub mod sessions;
pub mod settings;
