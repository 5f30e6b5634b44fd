//! When the next heartbeat is due: often while something runs here, seldom while nothing does, at once after every Hello.

use std::time::Duration;

use coord_shared::api::HelloAnswer;
use tokio::time::Instant;

/// Bounds of what a coordinator may ask for, in seconds.
const MOST_S: u32 = 3600;

/// See the module.
#[derive(Debug)]
pub struct Beats {
    working: Duration,
    idle: Duration,
    /// `None`: one is due now.
    last: Option<Instant>,
}

impl Beats {
    /// One is due now, and the next ones every so often, until a coordinator has said how often.
    pub fn every(interval: Duration) -> Beats {
        Beats { working: interval, idle: interval, last: None }
    }

    /// A coordinator has said how often. One that says nothing of idle times means all times.
    pub fn greeted(&mut self, answer: &HelloAnswer) {
        let interval = |seconds: u32| Duration::from_secs(u64::from(seconds.clamp(1, MOST_S)));
        self.working = interval(answer.heartbeat_interval_s);
        self.idle = match answer.idle_heartbeat_interval_s {
            0 => self.working,
            seconds => interval(seconds),
        };
        self.last = None;
    }

    /// Whether one is due; then it counts as sent.
    pub fn take_due(&mut self, is_working: bool, now: Instant) -> bool {
        let interval = if is_working { self.working } else { self.idle };
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_host_beats_often_while_it_works_and_seldom_while_it_does_not() {
        let mut beats = Beats::every(SECOND);
        let began = Instant::now();
        let answer = HelloAnswer { heartbeat_interval_s: 5, idle_heartbeat_interval_s: 30, ..HelloAnswer::default() };
        beats.greeted(&answer);
        assert!(beats.take_due(false, began), "at once after a Hello");
        assert!(!beats.take_due(false, began + 29 * SECOND));
        assert!(beats.take_due(true, began + 29 * SECOND), "a run began: it is heard of within its interval");
        assert!(!beats.take_due(true, began + 33 * SECOND));
        assert!(beats.take_due(true, began + 34 * SECOND));
        beats.greeted(&HelloAnswer { heartbeat_interval_s: 5, ..HelloAnswer::default() });
        assert!(beats.take_due(false, began));
        assert!(beats.take_due(false, began + 5 * SECOND), "an older coordinator knows one interval");
    }
}
