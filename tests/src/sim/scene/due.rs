//! Every host has a run that is due: spread over a minute, then all at one instant. How long each waits for its lease, by the catalog's own
//! clock; that each was leased and ordered once; and that none was lost.

use std::time::{Duration, Instant};

use anyhow::ensure;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::crowd::Crowd;
use super::super::figures::Samples;
use super::super::ground::Ground;
use super::super::report::Figure;
use super::super::work::Temper;

/// Runs that are due within a minute: of a hundred, 99 are leased after so many seconds.
const MOST_SPREAD_S: f64 = 2.0;
/// Runs that are due at one instant: the last is leased after so many seconds.
const MOST_AT_ONCE_S: f64 = 10.0;
/// How long the runs of these hosts take, and how many of a thousand attempts fail.
const TEMPER: Temper = Temper { takes: Duration::from_secs(3), failing: 5 };
/// From a policy to the instant at which its runs are due: this, and a second for so many hosts.
const LEAD: Duration = Duration::from_secs(10);
const HOSTS_A_SECOND: u32 = 200;
/// When to give up: a failed attempt is repeated after a minute.
const PATIENCE: Duration = Duration::from_secs(420);

pub(super) async fn play(ground: &Ground, crowd: &Crowd) -> anyhow::Result<Vec<Figure>> {
    crowd.set_temper(TEMPER);
    let mut figures = due(ground, crowd, "minute", "60s").await?;
    figures.extend(due(ground, crowd, "instant", "").await?);
    Ok(figures)
}

async fn due(ground: &Ground, crowd: &Crowd, policy: &str, jitter: &str) -> anyhow::Result<Vec<Figure>> {
    let _earlier = crowd.orders();
    let agents = crowd.size() as u64;
    let (transactions, before) = (ground.transactions().await?, ground.coordinator()?);
    begin(ground, policy, "crowd=yes", jitter, agents).await?;
    let begun = Instant::now();
    let of_policy = of(policy);
    let ended = format!("SELECT count(*) {of_policy} AND r.state IN ('succeeded', 'failed', 'cancelled', 'missed')");
    ground.wait_for_count(&ended, agents, PATIENCE).await?;
    let (after, seconds) = (ground.coordinator()?, begun.elapsed().as_secs_f64());
    let transactions = ground.transactions().await? - transactions;
    let succeeded = ground.count(&format!("SELECT count(*) {of_policy} AND r.state = 'succeeded'")).await?;
    let runs = ground.count(&format!("SELECT count(*) {of_policy}")).await?;
    let leased = waits(ground, policy).await?;
    let orders = crowd.orders();
    let twice = orders.values().filter(|times| times.len() > 1).count() as u64;
    let at_once = jitter.is_empty();
    let how = if at_once { "at one instant" } else { "within a minute" };
    let told = |what: &str, wait: Duration| Figure::told(format!("{what}, due {how}"), wait.as_secs_f64(), "s");
    let (p99, last) = (leased.per_mille(990), leased.longest());
    let mut figures = vec![
        Figure::exactly(format!("runs due {how}"), runs, agents),
        Figure::exactly(format!("leased once for each attempt, due {how}"), twice, 0),
        Figure::exactly(format!("succeeded, due {how}"), succeeded, agents),
        told("from due to lease, median", leased.per_mille(500)),
    ];
    let required =
        |what: &str, wait: Duration, most| Figure::at_most(format!("{what}, due {how}"), wait.as_secs_f64(), most, "s");
    if at_once {
        figures.push(told("from due to lease, of a hundred 99", p99));
        figures.push(required("from due to lease, the last", last, MOST_AT_ONCE_S));
    } else {
        figures.push(required("from due to lease, of a hundred 99", p99, MOST_SPREAD_S));
        figures.push(told("from due to lease, the last", last));
    }
    let ordered = ordered(ground, policy, &orders).await?;
    figures.push(told("from due to the order at its host, of a hundred 99", ordered.per_mille(990)));
    figures.push(told("from due to the order at its host, the last", ordered.longest()));
    figures.push(Figure::told(
        format!("transactions for each run, due {how}"),
        transactions as f64 / agents as f64,
        "",
    ));
    figures.push(told("all had ended after", Duration::from_secs_f64(seconds)));
    let cores = after.cores_since(&before) * 100.0;
    figures.push(Figure::told(format!("coordinator's processor, due {how}"), cores, "% of a core"));
    end(ground, policy).await?;
    Ok(figures)
}

/// The runs of a policy, as the rest of a query.
fn of(policy: &str) -> String {
    format!("FROM runs r JOIN jobs j ON j.job = r.job JOIN policies p ON p.policy = j.policy WHERE p.name = '{policy}'")
}

/// Applies a policy whose runs are due at a whole minute not far ahead, and waits for that minute.
pub(super) async fn begin(ground: &Ground, policy: &str, hosts: &str, jitter: &str, agents: u64) -> anyhow::Result<()> {
    let lead = LEAD + Duration::from_secs(agents.div_ceil(u64::from(HOSTS_A_SECOND)));
    let at = (Timestamp::now() + lead + Duration::from_secs(59)).to_zoned(TimeZone::UTC);
    let due = at.with().second(0).subsec_nanosecond(0).build()?;
    let jitter = if jitter.is_empty() { String::new() } else { format!(", jitter = \"{jitter}\"") };
    let cron = format!("{} {} {} {} *", due.minute(), due.hour(), due.day(), due.month());
    let toml = format!(
        "name = \"{policy}\"\nhosts = \"{hosts}\"\nsources = [\"/srv\"]\nschedule = {{ cron = \"{cron}\", zone = \"UTC\"{jitter} }}\n"
    );
    let begun = Instant::now();
    ground.apply_policy(&toml).await?;
    eprintln!("   policy {policy} applied in {:.1?}", begun.elapsed());
    let planned = format!(
        "SELECT count(*) FROM jobs j JOIN policies p ON p.policy = j.policy
         WHERE p.name = '{policy}' AND j.state = 'active' AND j.backup_due_at IS NOT NULL"
    );
    ground.wait_for_count(&planned, agents, PATIENCE).await?;
    eprintln!("   its {agents} jobs have their next run after {:.1?}", begun.elapsed());
    let left = due.timestamp().duration_since(Timestamp::now());
    ensure!(left.is_positive(), "the runs of {policy} were due before all of its jobs knew: give them more time");
    tokio::time::sleep(left.unsigned_abs()).await;
    Ok(())
}

/// Waits until so many attempts of a policy's runs are held by their hosts.
pub(super) async fn wait_until_held(ground: &Ground, policy: &str, count: u64) -> anyhow::Result<()> {
    let held = format!("SELECT count(*) {} AND r.state = 'running'", of(policy));
    ground.wait_for_count(&held, count, PATIENCE).await
}

/// Waits until all runs of a policy have ended, and deletes it.
pub(super) async fn end(ground: &Ground, policy: &str) -> anyhow::Result<()> {
    let ended = format!(
        "SELECT count(*) FILTER (WHERE r.state IN ('queued', 'leased', 'running', 'verifying')) = 0 {}",
        of(policy)
    );
    let all_ended = format!("SELECT CASE WHEN ({ended}) THEN 1::bigint ELSE 0::bigint END");
    ground.wait_for_count(&all_ended, 1, PATIENCE).await?;
    let confirmed = format!("--confirm={policy}");
    ground.with_fleet(|fleet| fleet.coordctl(&["policy", "delete", policy, &confirmed])?.success().map(drop)).await
}

/// From due to the lease of the first attempt, of each run.
async fn waits(ground: &Ground, policy: &str) -> anyhow::Result<Samples> {
    let sql = format!(
        "SELECT extract(epoch FROM a.leased_at - r.due_at)::float8 FROM attempts a JOIN ({}) r USING (run_id) WHERE a.attempt = 1",
        format_args!("SELECT r.run_id, r.due_at {}", of(policy))
    );
    let rows = ground.catalog.query(&sql, &[]).await?;
    Ok(rows.iter().map(|row| Duration::from_secs_f64(row.get::<_, f64>(0).max(0.0))).collect())
}

/// From due to the first order at its host, of each run.
async fn ordered(
    ground: &Ground,
    policy: &str,
    orders: &std::collections::HashMap<(String, u32), Vec<Timestamp>>,
) -> anyhow::Result<Samples> {
    let sql = format!("SELECT r.run_id::text, (extract(epoch FROM r.due_at) * 1000000)::bigint {}", of(policy));
    let mut samples = Samples::default();
    for row in ground.catalog.query(&sql, &[]).await? {
        let (run, due): (String, i64) = (row.get(0), row.get(1));
        if let Some(at) = orders.get(&(run, 1)).and_then(|times| times.first()) {
            samples.add(Duration::from_micros(at.as_microsecond().saturating_sub(due).max(0).unsigned_abs()));
        }
    }
    Ok(samples)
}
