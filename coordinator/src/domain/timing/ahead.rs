//! The due instants ahead, and what will become of each by what is known now.

use jiff::Timestamp;

use super::{CatchUp, Due, Holds};

/// What becomes of a due instant ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It runs.
    Run,
    /// It runs to make up for runs that will have been missed.
    CatchUp,
    /// It will be missed, for this reason.
    Held(String),
}

/// A due instant ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// When.
    pub at: Timestamp,
    /// The instant of the calendar that it is for: its own before jitter; of a run that makes up, the newest one it makes up for.
    pub stands_for: Timestamp,
    /// What becomes of it.
    pub kind: Kind,
}

/// The instants after `now` up to and including `until`, ascending, at most `limit` of them. `owed`: the runs that are owed now, and
/// the newest instant of them.
pub fn ahead(
    (due, holds, rule): (&Due<'_>, &Holds<'_>, CatchUp),
    owed: Option<(u32, Timestamp)>,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Vec<Ahead> {
    let (owed, newest) = owed.unwrap_or((0, now));
    let (mut found, mut owed, mut newest, mut at) = (Vec::new(), owed.min(rule.most()), newest, now);
    while found.len() < limit {
        let next = due.next_after(at).filter(|next| *next <= until);
        let opens = if owed > 0 { holds.opens_at(at).map(|opens| due.making_up(holds, at, opens)) } else { None };
        if let Some(opens) = opens.filter(|opens| *opens <= until && next.is_none_or(|next| *opens < next)) {
            let stands_for = due.plain_of(newest);
            found.extend((0..owed).map(|_| Ahead { at: opens, stands_for, kind: Kind::CatchUp }));
            owed = 0;
            continue;
        }
        let Some(next) = next else { break };
        let kind = holds.at(next).map_or(Kind::Run, Kind::Held);
        match (&kind, rule) {
            (Kind::Held(_), _) => (owed, newest) = (owed.saturating_add(1).min(rule.most()), next),
            (Kind::Run | Kind::CatchUp, CatchUp::Latest) => owed = 0,
            (Kind::Run | Kind::CatchUp, CatchUp::All | CatchUp::None) => {}
        }
        found.push(Ahead { at: next, stands_for: due.plain_of(next), kind });
        at = next;
    }
    found.truncate(limit);
    found
}
