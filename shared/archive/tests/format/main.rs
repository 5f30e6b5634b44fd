//! The archive format, seen from outside: what is packed comes back, stock programs read it, damage is found.
#![expect(clippy::unwrap_used, reason = "tests")]

mod damage;
mod damage_anywhere;
mod golden;
mod moving;
mod progress;
mod reads;
mod rebuild;
mod roundtrip;
mod stock_tools;
mod support;
