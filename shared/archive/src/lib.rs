//! The archive format of coord: a plain tar in independent compressed frames, with a sealed index at its end.
//!
//! Pure `Read`/`Write`/fd code: no network, no SQL, no clock of its own. The agent, the operator's tool, a rebuild of
//! the catalog and the fuzzers all stand on this package. `FORMAT.md` (in the folder above) fixes every byte.

pub mod block;
pub mod codec;
mod cursor;
pub mod digest;
pub mod entry;
pub mod file;
pub mod footer;
pub mod glance;
mod gzip;
pub mod header;
pub mod holes;
pub mod overlay;
pub mod pack;
pub mod progress;
pub mod reader;
pub mod rebuild;
pub mod recipe;
pub mod rules;
mod spool;
pub mod table;
mod tar;
pub mod unpack;
pub mod verify;
