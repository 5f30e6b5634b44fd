//! What the scan promises: nothing that changed is missed, nothing that is merely unreadable is taken for deleted, and a
//! full with its differential is the tree as it was.
#![expect(clippy::unwrap_used, reason = "tests")]

mod edits;
mod examples;
mod hiding;
mod large;
mod links;
mod lost;
mod many;
mod places;
mod random;
mod rules;
mod support;
mod unreadable;
