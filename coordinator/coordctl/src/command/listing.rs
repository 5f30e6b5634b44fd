//! What lists have in common: how much of them is shown, and what is said of the rest.

use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;

/// Rows of a list that a table still tells; beyond, people filter.
pub const DEFAULT_LIMIT: usize = 200;

/// Shows the first `limit` rows, all where it is 0, and says how many are left out.
pub fn cut<T>(out: &Output, list: &mut Vec<T>, limit: usize) {
    if limit == 0 || list.len() <= limit {
        return;
    }
    let more = list.len() - limit;
    list.truncate(limit);
    out.talk(&format!("{more} more, use --limit (0: all)"));
}

/// How many rows to ask for, of a list that the coordinator cuts at `most`: one more than are shown tells that there are more.
#[must_use]
pub const fn to_ask(limit: u32, most: u32) -> u32 {
    if limit == 0 || limit >= most { most } else { limit + 1 }
}

/// Of a list that was asked for so: shows `limit` rows, as many as came where it is 0, and says that there are more.
pub fn cut_asked<T>(out: &Output, list: &mut Vec<T>, limit: u32, most: u32) {
    let came = u32::try_from(list.len()).unwrap_or(u32::MAX);
    if limit != 0 && limit < most {
        if came > limit {
            list.pop();
            out.talk(&format!("only the first {limit} are listed: there are more, use --limit"));
        }
    } else if came >= most {
        out.talk(&format!("only {most} are listed at once: --since and --until, --host or -l lead to the others"));
    }
}

/// The bounds of a list, in microseconds; 0: none.
pub fn bounds(session: &Session, since: Option<&str>, until: Option<&str>) -> Result<Bounds, Failure> {
    Ok(Bounds { since: super::backup::bound(session, since)?, until: super::backup::bound(session, until)? })
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first instant within, in microseconds; 0: no bound.
    pub since: i64,
    /// The first instant behind, likewise.
    pub until: i64,
}

impl Bounds {
    /// Whether an instant lies within.
    #[must_use]
    pub const fn hold(self, us: i64) -> bool {
        (self.since == 0 || us >= self.since) && (self.until == 0 || us < self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, cut, cut_asked, to_ask};
    use crate::output::{Format, Output};

    #[test]
    fn what_a_list_leaves_out_is_said_and_whole_lists_say_nothing() {
        let told = |limit: usize| {
            let mut out = Output::new(Format::Json);
            out.capture();
            let mut list = vec![1, 2, 3];
            cut(&out, &mut list, limit);
            (list.len(), out.captured().talk)
        };
        assert_eq!(told(2), (2, vec!["1 more, use --limit (0: all)".to_owned()]));
        assert_eq!((told(3), told(0)), ((3, vec![]), (3, vec![])));
    }

    #[test]
    fn a_list_that_the_coordinator_cuts_is_asked_for_one_more() {
        let told = |limit: u32, there: u32| {
            let mut out = Output::new(Format::Table);
            out.capture();
            let mut list: Vec<u32> = (0..there.min(to_ask(limit, 5))).collect();
            cut_asked(&out, &mut list, limit, 5);
            (list.len(), out.captured().talk.len())
        };
        assert_eq!([told(2, 2), told(2, 3), told(4, 9)], [(2, 0), (2, 1), (4, 1)]);
        assert_eq!([told(0, 4), told(0, 9), told(7, 9)], [(4, 0), (5, 1), (5, 1)]);
    }

    #[test]
    fn a_bound_is_at_or_after_and_before() {
        let bounds = Bounds { since: 10, until: 20 };
        assert!(bounds.hold(10) && bounds.hold(19) && !bounds.hold(9) && !bounds.hold(20));
        assert!(Bounds { since: 0, until: 0 }.hold(-5));
    }
}
