//! The coordinator: catalog, decisions, schedule and sessions of a fleet. A library, so that tests and the demo can reach its
//! parts; the binary is `main.rs`. Floors are in ARCHITECTURE.md: `domain` < `catalog`, `pki`, `sessions` < `app` < `grpc`, `tasks`, `web`.

pub mod app;
pub mod bootstrap;
pub mod catalog;
pub mod domain;
pub mod draining;
pub mod grpc;
pub mod init;
pub mod pki;
pub mod postgres;
pub mod probe;
pub mod pulses;
pub mod relays;
pub mod server;
pub mod sessions;
pub mod settings;
pub mod tasks;
pub mod web;
