//! Files that somebody may be writing into at this moment.
//!
//! write(2) stamps the file's times first and copies the bytes then. A writer that loses its processor in between leaves a file whose
//! times say that it rests, while half of it is still to come: equal times before and after a reading prove nothing when they are that
//! young. So a young file is given time to come to rest before it is read, and one that does not is taken for changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::entry::FileTime;

/// Longest time that a writer is thought to be kept from copying what it announced.
const AT_REST: Duration = Duration::from_millis(200);
/// Longest time that all threads together wait for one archive: files that change all the time are flagged without a wait then.
const MAX_WAITING: Duration = Duration::from_secs(20);

/// What is left of the time for waiting.
#[derive(Debug)]
pub(super) struct Settling {
    left_ms: AtomicU64,
}

impl Settling {
    pub(super) fn new() -> Self {
        // 20,000 milliseconds.
        Self { left_ms: AtomicU64::new(MAX_WAITING.as_millis() as u64) }
    }

    /// Waits until a change at `ctime` is old enough. False: there is no time left for that.
    pub(super) fn wait(&self, ctime: FileTime) -> bool {
        let Some(rest) = rest(ctime, system_time()) else { return true };
        // Rounded up; at most 400.
        let ms = rest.as_millis() as u64 + 1;
        let paid = self.left_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(ms));
        if paid.is_ok() {
            std::thread::sleep(rest);
        }
        paid.is_ok()
    }
}

/// The clock that stamps files.
#[expect(clippy::disallowed_methods, reason = "compared with times of inodes, which know no other clock")]
pub(super) fn system_time() -> SystemTime {
    SystemTime::now()
}

/// How long it takes until a change at `ctime` is old enough; `None` when it is. A time that is further ahead than that is another
/// machine's clock, and says nothing.
pub(super) fn rest(ctime: FileTime, now: SystemTime) -> Option<Duration> {
    let changed = u64::try_from(ctime.seconds).ok().map(|seconds| Duration::new(seconds, ctime.nanos))?;
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    if now >= changed {
        AT_REST.checked_sub(now - changed)
    } else {
        Some(changed - now + AT_REST).filter(|rest| *rest <= 2 * AT_REST)
    }
    .filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(ago_ms: i64) -> (FileTime, SystemTime) {
        let ctime = FileTime { seconds: 1_700_000_000, nanos: 500_000_000 };
        let now = UNIX_EPOCH + Duration::from_millis((1_700_000_000_500_i64 + ago_ms) as u64);
        (ctime, now)
    }

    #[test]
    fn what_changed_a_moment_ago_has_to_rest_and_what_is_older_has_not() {
        let rest_ms = |ago_ms| {
            let (ctime, now) = changed(ago_ms);
            rest(ctime, now).map(|rest| rest.as_millis())
        };
        assert_eq!(rest_ms(0), Some(200));
        assert_eq!(rest_ms(150), Some(50));
        assert_eq!((rest_ms(200), rest_ms(5000)), (None, None));
        assert_eq!(rest_ms(-3), Some(203), "the kernel's coarse clock and ours differ a little");
        assert_eq!(rest_ms(-5000), None, "another machine's clock");
    }

    #[test]
    fn the_time_for_waiting_ends() {
        let settling = Settling { left_ms: AtomicU64::new(10) };
        let now = system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ctime = FileTime { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() };
        assert!(!settling.wait(ctime), "it would take longer than there is");
        assert!(settling.wait(FileTime { seconds: 0, nanos: 0 }), "an old file needs no time");
    }
}
