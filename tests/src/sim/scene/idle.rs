//! Everybody is connected, and nothing happens but heartbeats: what that costs.

use std::time::{Duration, Instant};

use super::super::Options;
use super::super::crowd::Crowd;
use super::super::ground::Ground;
use super::super::report::Figure;

/// Memory for one agent that is connected, in KiB: 1 GiB for ten thousand.
const KIB_PER_AGENT: f64 = 104.8576;
/// Of one core, in percent.
const MOST_CORE: f64 = 10.0;
/// What follows the connecting is over after this long.
const SETTLING: Duration = Duration::from_secs(10);
const MIB: f64 = 1_048_576.0;

pub(super) async fn play(ground: &Ground, crowd: &Crowd, options: &Options) -> anyhow::Result<Vec<Figure>> {
    tokio::time::sleep(SETTLING).await;
    crowd.note_beats();
    let (begun, before) = (Instant::now(), ground.coordinator()?);
    let (postgres, transactions) = (ground.postgres()?, ground.transactions().await?);
    tokio::time::sleep(Duration::from_secs(options.watch_s)).await;
    let (after, beats) = (ground.coordinator()?, crowd.beats());
    let seconds = begun.elapsed().as_secs_f64();
    let agents = crowd.size() as f64;
    let mut figures = vec![
        Figure::exactly(
            "agents connected, idle",
            crowd.shared.connected.load(std::sync::atomic::Ordering::Relaxed) as u64,
            crowd.size() as u64,
        ),
        Figure::at_most("coordinator's memory", after.resident as f64 / MIB, agents * KIB_PER_AGENT / 1024.0, "MiB"),
        Figure::told("coordinator's memory for each agent", after.resident as f64 / 1024.0 / agents, "KiB"),
        Figure::at_most("coordinator's processor, idle", after.cores_since(&before) * 100.0, MOST_CORE, "% of a core"),
        Figure::told("heartbeats, idle", beats.all.count() as f64 / seconds, "/s"),
        Figure::told("transactions, idle", (ground.transactions().await? - transactions) as f64 / seconds, "/s"),
    ];
    if let (Some(before), Some(after)) = (postgres, ground.postgres()?) {
        let used = after.saturating_sub(before).as_secs_f64() / seconds;
        figures.push(Figure::told("Postgres' processor, idle", used * 100.0, "% of a core"));
    }
    Ok(figures)
}
