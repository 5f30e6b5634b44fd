//! Where archives are: the folder of this agent, write-once, and what of other agents' folders can be read from here.

mod local;
mod set_aside;
mod store_id;

pub use local::{ArchiveName, LocalStore, StoreError};
pub use set_aside::{KEPT as SET_ASIDE_KEPT, SetAside};
