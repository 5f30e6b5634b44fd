//! Random faults that can be had again: every run prints its seed, and `FAULT_SEED` makes the next one the same.

use std::env;

use crate::random::Random;

/// Names the seed of a run.
pub const VARIABLE: &str = "FAULT_SEED";

/// The generator of a run, and its seed, which is printed with the command that replays it.
#[must_use]
pub fn random(story: &str) -> Random {
    // Short enough to be copied by a person.
    let seed = number(VARIABLE).unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0 >> 24);
    println!(
        "{story}: seed {seed}; again with {VARIABLE}={seed} cargo test -p fleet-tests --test faults -- --include-ignored {story}"
    );
    Random::new(seed)
}

/// What a variable of the environment says, if that is a number.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    env::var_os(variable)?.to_str()?.parse().ok()
}
