//! Where archives are: the folder of this agent, write-once, and what of other agents' folders can be read from here.

mod local;

pub use local::{ArchiveName, LocalStore, StoreError};
