//! Restores seen from outside: exact trees from our own unpacking and from the stock recipe, what exists is respected, and
//! no archive and no neighbour makes a restore touch anything outside its target.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../format/support.rs"]
#[expect(dead_code, reason = "the format's own tests use the rest")]
mod support;
#[path = "../../../../tests/src/tree/mod.rs"]
mod tree;

mod differential;
mod exact;
mod existing;
mod lost;
mod other_tars;
mod racing;
mod rebuilt;
mod spared;
mod story;
