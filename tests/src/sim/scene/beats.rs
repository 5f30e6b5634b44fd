//! Hosts work, and beat with progress: how long a heartbeat takes from the agent's send to the acknowledgement.

use std::time::{Duration, Instant};

use super::super::Options;
use super::super::crowd::Crowd;
use super::super::ground::Ground;
use super::super::report::Figure;
use super::super::work::Temper;
use super::due;

/// Heartbeats with progress a second.
const BEATS_A_SECOND: usize = 200;
/// How often a host that works beats, in seconds.
const EVERY_S: usize = 5;
/// The policy of the hosts that work.
const POLICY: &str = "beats";
/// Of a thousand, 999 take at most so many milliseconds.
const MOST_MS: f64 = 50.0;

pub(super) async fn play(ground: &Ground, crowd: &Crowd, options: &Options) -> anyhow::Result<Vec<Figure>> {
    let working = (BEATS_A_SECOND * EVERY_S).min(crowd.size());
    let takes = Duration::from_secs(options.watch_s + 120);
    crowd.set_temper(Temper { takes, failing: 0 });
    due::begin(ground, POLICY, "batch=0", "", working as u64).await?;
    due::wait_until_held(ground, POLICY, working as u64).await?;
    // What follows the orders is over after two beats.
    tokio::time::sleep(Duration::from_secs(2 * EVERY_S as u64)).await;
    crowd.note_beats();
    let (begun, before, transactions) = (Instant::now(), ground.coordinator()?, ground.transactions().await?);
    tokio::time::sleep(Duration::from_secs(options.watch_s)).await;
    let (beats, after, seconds) = (crowd.beats(), ground.coordinator()?, begun.elapsed().as_secs_f64());
    let transactions = ground.transactions().await? - transactions;
    // Those that go on end at their next beat, so that the next scene finds nobody at work.
    crowd.set_temper(Temper { takes: Duration::ZERO, failing: 0 });
    due::end(ground, POLICY).await?;
    let milliseconds = |took: Duration| took.as_secs_f64() * 1000.0;
    let (all, with_progress) = (&beats.all, &beats.with_progress);
    Ok(vec![
        Figure::told(format!("hosts at work, of {}", crowd.size()), working as f64, ""),
        Figure::told("heartbeats", all.count() as f64 / seconds, "/s"),
        Figure::told("heartbeats with progress among them", with_progress.count() as f64 / seconds, "/s"),
        Figure::told("a heartbeat with progress takes, median", milliseconds(with_progress.per_mille(500)), "ms"),
        Figure::at_most(
            "a heartbeat with progress takes, of a thousand 999",
            milliseconds(with_progress.per_mille(999)),
            MOST_MS,
            "ms",
        ),
        Figure::at_most("any heartbeat takes, of a thousand 999", milliseconds(all.per_mille(999)), MOST_MS, "ms"),
        Figure::told("the longest", milliseconds(all.longest()), "ms"),
        Figure::told("coordinator's processor, beating", after.cores_since(&before) * 100.0, "% of a core"),
        Figure::told("transactions, beating", transactions as f64 / seconds, "/s"),
    ])
}
