//! Injected faults: hosts that can be killed, paused and cut off, the network between them, and a fleet out of both.
//!
//! A story is written against [`host::Host`] and [`world::World`]: the same one runs over processes of this machine and over containers.
//! Which faults there are, and what must hold, is in docs/FAULTS.md; what every story ends with is [`crate::checker`].

pub mod container_host;
pub mod host;
pub mod process_host;
pub mod proxy;
pub mod reached;
pub mod seed;
pub mod server;
pub mod world;
pub mod world_of_containers;
pub mod world_of_processes;
