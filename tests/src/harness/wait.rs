//! Waiting for something to become true, with a deadline instead of a guess.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks again and again until `look` gives a value.
///
/// # Errors
/// The deadline passed; the text names what was waited for and what was seen last.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if begun.elapsed() > deadline => {
                return Err(format!("waited {} s for {what}; last seen: {seen}", deadline.as_secs()));
            }
            // Polling with a deadline is what this module is for.
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
