//! What the next runs of a job will be, as far as history tells: the engine itself decides at each due instant, on what the runs before
//! it are expected to leave.

use coord_shared::ids::BackupId;
use coord_shared::level::Level;
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use super::decision::{FullFacts, Inputs, Rule, before_scan};
use super::timing::{Ahead, Kind};

/// A run ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// When it is due.
    pub at: Timestamp,
    /// The day that it is due on in the policy's zone, though jitter may move it past midnight; of one that makes up, that of `at`.
    pub night: Date,
    /// What it is expected to be.
    pub level: Level,
    /// By which rule.
    pub rule: Rule,
    /// The rule in a sentence.
    pub reason: String,
    /// Bytes that it is expected to store, before compression; none when nothing is known.
    pub bytes: Option<u64>,
    /// Milliseconds that it is expected to take; none while nothing like it was measured.
    pub ms: Option<u64>,
}

/// The runs that begin, of the instants `due`, ascending. `known` is what the engine would be told now, `source_bytes` the size of the sources, and
/// `full_nights` where fulls are planned, ascending.
pub fn forecast(known: &Inputs, source_bytes: Option<u64>, full_nights: &[Date], due: &[Ahead]) -> Vec<Forecast> {
    let mut inputs = Inputs { asked: None, ..known.clone() };
    // Of a chain that does not exist yet, the first differentials are taken to be as large as those of this one are on average.
    let typical = known.full.as_ref().and_then(mean);
    let mut ahead = Vec::with_capacity(due.len());
    for Ahead { at, stands_for, kind } in due {
        inputs.now = at.to_zoned(known.now.time_zone().clone());
        inputs.due = Some(*stands_for);
        let day = inputs.day();
        let night = match kind {
            Kind::Run => day,
            Kind::CatchUp => inputs.now.date(),
            Kind::Held(_) => continue,
        };
        inputs.planned_full = full_nights.iter().copied().rfind(|planned| *planned <= day);
        let decision = before_scan(&inputs);
        let bytes = match decision.level {
            Level::Full => source_bytes.or_else(|| inputs.full.as_ref().map(|full| full.source_bytes)),
            Level::Differential => decision.estimate.or(typical),
        };
        ahead.push(Forecast {
            at: *at,
            night,
            level: decision.level,
            rule: decision.rule,
            reason: decision.reason,
            bytes,
            ms: bytes.and_then(|bytes| inputs.rates.backup_ms(decision.level, bytes)),
        });
        match decision.level {
            Level::Full => {
                inputs.full = Some(FullFacts {
                    backup: BackupId::from_uuid(Uuid::nil()),
                    captured_at: *at,
                    source_bytes: bytes.unwrap_or(0),
                    stored_bytes: 0,
                    differentials: Vec::new(),
                });
                (inputs.full_of_other_selection, inputs.full_damaged) = (false, false);
            }
            Level::Differential => {
                // The engine's own estimate grows with the age of the full; it needs one differential to go by.
                let empty = inputs.full.as_mut().filter(|full| full.differentials.is_empty());
                if let Some((full, bytes)) = empty.zip(typical) {
                    full.differentials.push(bytes);
                }
            }
        }
    }
    ahead
}

fn mean(full: &FullFacts) -> Option<u64> {
    let count = u128::try_from(full.differentials.len()).ok().filter(|count| *count > 0)?;
    let sum: u128 = full.differentials.iter().map(|bytes| u128::from(*bytes)).sum();
    u64::try_from(sum / count).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::Zoned;
    use jiff::civil::date;

    use super::*;
    use crate::domain::decision::{LEVELLED, Rules};
    use crate::domain::rates::{Rates, Work};
    use crate::domain::schedule::Calendar;

    /// Wednesday noon, after a full of Sunday and a differential of each day since.
    fn known(full_weekday: i8) -> Inputs {
        let now: Zoned = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        Inputs {
            now,
            due: None,
            asked: None,
            rules: Rules { full_weekday, max_age_days: 7, diff_threshold_percent: 50 },
            full: Some(FullFacts {
                backup: BackupId::from_uuid(Uuid::nil()),
                captured_at: "2026-11-22T02:10:00Z".parse().unwrap(),
                source_bytes: 1000,
                stored_bytes: 400,
                differentials: vec![100, 100, 100],
            }),
            full_of_other_selection: false,
            full_damaged: false,
            planned_full: None,
            rates: Rates { scan_ms: Some(1), full: Work { bytes: 10, ms: 10 }, ..Rates::default() },
        }
    }

    fn fortnight(inputs: &Inputs, full_nights: &[Date]) -> Vec<Forecast> {
        let daily = Calendar { cron: "0 2 * * *".parse().unwrap(), zone: "UTC".parse().unwrap() };
        let now = inputs.now.timestamp();
        let due = daily.due_between(now, now + jiff::SignedDuration::from_hours(14 * 24), 100);
        let due: Vec<Ahead> = due.into_iter().map(|at| Ahead { at, stands_for: at, kind: Kind::Run }).collect();
        forecast(inputs, Some(1100), full_nights, &due)
    }

    fn fulls(ahead: &[Forecast]) -> Vec<Date> {
        ahead.iter().filter(|run| run.level == Level::Full).map(|run| run.night).collect()
    }

    #[test]
    fn the_engine_says_what_each_night_will_be() {
        let ahead = fortnight(&known(7), &[]);
        assert_eq!(ahead.len(), 14);
        assert_eq!(fulls(&ahead), [date(2026, 11, 29), date(2026, 12, 6)], "the Sundays");
        assert_eq!(
            (ahead[0].bytes, ahead[0].ms),
            (Some(160), Some(161)),
            "three days after its full, less ten minutes: two"
        );
        assert_eq!((ahead[3].bytes, ahead[3].rule), (Some(1100), Rule::ScheduledFullDay));
        assert_eq!(ahead[4].bytes, Some(100), "the first of the next chain");
        assert_eq!(ahead[6].bytes, Some(160), "which grows with its age as this one does");
    }

    #[test]
    fn runs_are_of_the_night_that_they_are_due_on_and_what_makes_up_is_of_its_own() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let sunday = at("2026-11-29T23:30:00Z");
        let moved = Ahead { at: at("2026-11-30T00:20:00Z"), stands_for: sunday, kind: Kind::Run };
        let ahead = forecast(&known(7), None, &[], std::slice::from_ref(&moved));
        assert_eq!((ahead[0].level, ahead[0].night), (Level::Full, date(2026, 11, 29)));
        let held = Ahead { at: sunday, stands_for: sunday, kind: Kind::Held("a blackout".to_owned()) };
        let due = [held, Ahead { kind: Kind::CatchUp, ..moved.clone() }];
        let ahead = forecast(&known(7), None, &[], &due);
        assert_eq!((ahead.len(), ahead[0].level, ahead[0].night), (1, Level::Full, date(2026, 11, 30)));
        let ahead = forecast(&known(LEVELLED), None, &[date(2026, 11, 29)], &[moved]);
        assert_eq!((ahead[0].rule, ahead[0].night), (Rule::LevelledFullNight, date(2026, 11, 29)));
    }

    #[test]
    fn planned_nights_are_those_of_the_fulls() {
        let ahead = fortnight(&known(LEVELLED), &[date(2026, 11, 27), date(2026, 12, 4)]);
        assert_eq!(fulls(&ahead), [date(2026, 11, 27), date(2026, 12, 4)]);
        assert!(ahead.iter().filter(|run| run.level == Level::Full).all(|run| run.rule == Rule::LevelledFullNight));
        let without = fortnight(&known(LEVELLED), &[]);
        assert_eq!(
            fulls(&without),
            [date(2026, 11, 30), date(2026, 12, 8)],
            "no full gets too old without a plan either"
        );
    }

    #[test]
    fn a_job_without_a_full_begins_with_one() {
        let ahead = fortnight(&Inputs { full: None, ..known(7) }, &[]);
        assert_eq!((ahead[0].level, ahead[0].rule, ahead[0].bytes), (Level::Full, Rule::NoFull, Some(1100)));
        assert_eq!(
            (ahead[1].level, ahead[1].bytes),
            (Level::Differential, None),
            "nothing is known of its differentials"
        );
    }
}
