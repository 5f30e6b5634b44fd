//! `coordctl schedule`.

use clap::Args;
use coord_shared::api::{DueRun, GetScheduleRequest, Night, Schedule};
use jiff::civil::Date;

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Align::{Left, Right};
use crate::session::Session;
use crate::{complete, completer, json, shown};

/// Columns of the longest bar.
const BAR: u64 = 40;
/// Runs listed in the table; JSON has them all.
const MAX_ROWS: usize = 50;

/// How far ahead, and of which jobs.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// Days to look ahead, at most 62.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=62))]
    days: u32,
    /// Of this host only.
    #[arg(long, default_value = "", add = completer(complete::hosts))]
    host: String,
    /// Of this policy only.
    #[arg(long, default_value = "", add = completer(complete::policies))]
    policy: String,
    /// Of hosts with these labels only.
    #[arg(short = 'l', long, default_value = "")]
    selector: String,
}

/// Runs it.
pub async fn run(session: &mut Session, args: &ScheduleArgs) -> Result<(), Failure> {
    let message = GetScheduleRequest {
        days: args.days,
        host: args.host.clone(),
        policy: args.policy.clone(),
        selector: args.selector.clone(),
    };
    let schedule = answer(session.client.get_schedule(request(message)).await)?;
    if session.out.is_json() {
        return session.out.list(&json::schedule(&schedule), "runs");
    }
    session.out.print(&bars(&schedule.nights))?;
    if schedule.levelled_jobs > 0 {
        session.out.print(&levelled(&schedule))?;
    }
    if !schedule.runs.is_empty() {
        session.out.print("\n")?;
    }
    let columns = [("due", Left), ("job", Left), ("level", Left), ("bytes", Right), ("time", Right), ("why", Left)];
    let rows = schedule.runs.iter().take(MAX_ROWS).map(row).collect();
    session.out.table(&columns, rows, "nothing is due in that time; coordctl job list shows the jobs")?;
    let more = u64::try_from(schedule.runs.len().saturating_sub(MAX_ROWS)).unwrap_or(0) + schedule.runs_left_out;
    if more > 0 {
        session.out.talk(&format!("and {more} more; -o json lists them, --host, --policy and -l narrow it"));
    }
    Ok(())
}

/// A line for each night.
fn bars(nights: &[Night]) -> String {
    let most = nights.iter().map(|night| night.full_bytes.saturating_add(night.differential_bytes)).max().unwrap_or(0);
    let mut text = String::new();
    for night in nights {
        let fulls = columns(night.full_bytes, most);
        let all = columns(night.full_bytes.saturating_add(night.differential_bytes), most).max(fulls);
        let bar = format!("{}{}", "#".repeat(fulls), "-".repeat(all - fulls));
        let day = night.date.parse::<Date>().map_or_else(|_| String::new(), |date| date.strftime("%a").to_string());
        text.push_str(&format!(
            "{day:<3} {}  {bar:<40}  {:>4} fulls {:>10}  {:>4} differentials {:>10}\n",
            shown::safe(&night.date),
            night.fulls,
            shown::size(night.full_bytes),
            night.differentials,
            shown::size(night.differential_bytes),
        ));
        if night.held > 0 {
            text.pop();
            text.push_str(&format!("  {:>4} missed\n", night.held));
        }
    }
    text
}

/// The columns of a bar: something is never nothing.
fn columns(bytes: u64, most: u64) -> usize {
    let columns = u128::from(bytes) * u128::from(BAR) / u128::from(most.max(1));
    usize::try_from(columns).unwrap_or(0).max(usize::from(bytes > 0))
}

fn levelled(s: &Schedule) -> String {
    let bound = shown::size(s.levelled_bound_bytes);
    let verdict = if s.levelled_within_bound {
        format!("no night carries more than {bound} of them")
    } else {
        format!("some night carries more than {bound} of them, and moving fulls does not help yet")
    };
    format!("\n{} jobs have levelled fulls: {verdict}\n", s.levelled_jobs)
}

fn row(run: &DueRun) -> Vec<String> {
    let unknown = || "-".to_owned();
    vec![
        shown::instant(run.due_at_us),
        format!("{}/{}", run.host, run.policy),
        if run.held.is_empty() { shown::level(run.level) } else { "missed".to_owned() },
        run.predicted_bytes.map_or_else(unknown, shown::size),
        run.predicted_ms.map_or_else(unknown, shown::milliseconds),
        why(run),
    ]
}

fn why(run: &DueRun) -> String {
    if !run.held.is_empty() {
        return run.held.clone();
    }
    let makes_up = if run.makes_up { "makes up for what is missed by then; " } else { "" };
    format!("{makes_up}{}", run.reason)
}

#[cfg(test)]
mod tests {
    use super::{bars, levelled, row};
    use coord_shared::api::{DueRun, Night, Schedule};

    #[test]
    fn a_night_is_a_bar_of_its_fulls_and_differentials() {
        let night = |date: &str, full_bytes, differential_bytes| Night {
            date: date.into(),
            fulls: 1,
            full_bytes,
            differentials: 2,
            differential_bytes,
            ms: 0,
            held: 0,
        };
        let text = bars(&[night("2026-11-28", 0, 1), night("2026-11-29", 3072, 1024)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("Sat 2026-11-28  -  "), "{text}");
        assert!(lines[1].starts_with(&format!("Sun 2026-11-29  {}{}  ", "#".repeat(30), "-".repeat(10))), "{text}");
        assert!(lines[1].ends_with("1 fulls    3.0 KiB     2 differentials    1.0 KiB"), "{text}");
    }

    #[test]
    fn what_will_be_missed_is_listed_with_its_reason() {
        let held = DueRun { held: "blackout until 2027-01-02 00:00: closing".into(), ..DueRun::default() };
        let row = row(&held);
        assert_eq!((row[2].as_str(), row[5].as_str()), ("missed", "blackout until 2027-01-02 00:00: closing"));
        let night = Night { date: "2027-01-01".into(), held: 3, ..Night::default() };
        assert!(bars(&[night]).ends_with("   3 missed\n"));
        let makes_up = DueRun { makes_up: true, reason: "no full yet".into(), ..DueRun::default() };
        assert_eq!(super::why(&makes_up), "makes up for what is missed by then; no full yet");
    }

    #[test]
    fn a_plan_that_is_not_level_says_so() {
        let plan = Schedule { levelled_jobs: 3, levelled_bound_bytes: 1024, ..Schedule::default() };
        assert!(levelled(&plan).contains("some night carries more than 1.0 KiB"));
        assert!(levelled(&Schedule { levelled_within_bound: true, ..plan }).contains("no night carries more"));
    }
}
