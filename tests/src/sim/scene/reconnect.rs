//! Many agents lose their connection at the same moment; then the coordinator is killed and started again, and all of them do.

use std::time::Duration;

use super::super::Options;
use super::super::crowd::Crowd;
use super::super::ground::Ground;
use super::super::report::Figure;

/// All are served again after so long, in seconds, at the latest.
const MOST_S: f64 = 20.0;
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(240);

pub(super) async fn play(ground: &Ground, crowd: &Crowd, options: &Options) -> anyhow::Result<Vec<Figure>> {
    let count = options.reconnecting.min(crowd.size());
    let greeted = || crowd.shared.greeted.load(std::sync::atomic::Ordering::Relaxed);
    let before = greeted();
    crowd.cut(count);
    let served = crowd.wait_until_greeted(before + count as u64, PATIENCE).await?;
    crowd.wait_until_connected(PATIENCE).await?;
    let repeated = greeted() - before - count as u64;
    eprintln!("   {}", crowd.faults());
    let before = greeted();
    ground.restart_coordinator().await?;
    crowd.moves_to(ground.main()?);
    let all = crowd.wait_until_greeted(before + crowd.size() as u64, PATIENCE).await?;
    crowd.wait_until_connected(PATIENCE).await?;
    eprintln!("   {}", crowd.faults());
    Ok(vec![
        Figure::at_most(
            format!("{count} agents that reconnect at once are served after"),
            served.as_secs_f64(),
            MOST_S,
            "s",
        ),
        Figure::exactly("sessions that had to begin twice", repeated, 0),
        Figure::told(
            format!("all {} after the coordinator was killed and started", crowd.size()),
            all.as_secs_f64(),
            "s",
        ),
    ])
}
