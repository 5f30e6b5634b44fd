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
    /// What becomes of it.
    pub kind: Kind,
}

/// The instants after `now` up to and including `until`, ascending, at most `limit` of them. `owed` runs are owed now.
pub fn ahead(
    (due, holds, rule): (&Due<'_>, &Holds<'_>, CatchUp),
    owed: u32,
    now: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Vec<Ahead> {
    let (mut found, mut owed, mut at) = (Vec::new(), owed.min(rule.most()), now);
    while found.len() < limit {
        let next = due.next_after(at).filter(|next| *next <= until);
        let opens = if owed > 0 { holds.opens_at(at).map(|opens| due.making_up(holds, at, opens)) } else { None };
        if let Some(opens) = opens.filter(|opens| *opens <= until && next.is_none_or(|next| *opens < next)) {
            found.extend((0..owed).map(|_| Ahead { at: opens, kind: Kind::CatchUp }));
            owed = 0;
            continue;
        }
        let Some(next) = next else { break };
        let kind = holds.at(next).map_or(Kind::Run, Kind::Held);
        match (&kind, rule) {
            (Kind::Held(_), _) => owed = owed.saturating_add(1).min(rule.most()),
            (Kind::Run | Kind::CatchUp, CatchUp::Latest) => owed = 0,
            (Kind::Run | Kind::CatchUp, CatchUp::All | CatchUp::None) => {}
        }
        found.push(Ahead { at: next, kind });
        at = next;
    }
    found.truncate(limit);
    found
}
