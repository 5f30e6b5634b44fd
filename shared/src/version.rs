//! Which releases talk to each other: those of one major version whose minor versions differ by at most one, in either direction. That lets a
//! fleet be upgraded host by host, and its coordinators one after the other, with runs going on.
//!
//! Fields and messages of the contract are only ever added, so that the older side passes over what it does not know.

use std::cmp::Ordering;

/// This release, of all programs of the workspace.
pub const OURS: &str = env!("CARGO_PKG_VERSION");
/// How far minor versions may be apart.
const MAX_MINORS_APART: u64 = 1;

/// Two releases that do not talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFarApart {
    /// How the other side stands to us: `Less` when it is the older.
    pub theirs: Ordering,
}

/// Whether a peer of version `theirs` and we, of version `ours`, understand each other. A version that cannot be read is one that nobody
/// gave out: nothing can be said against it.
///
/// # Errors
/// [`TooFarApart`] when they do not.
pub fn check(ours: &str, theirs: &str) -> Result<(), TooFarApart> {
    let (Some((our_major, our_minor)), Some((their_major, their_minor))) = (release(ours), release(theirs)) else {
        return Ok(());
    };
    if our_major == their_major && our_minor.abs_diff(their_minor) <= MAX_MINORS_APART {
        return Ok(());
    }
    Err(TooFarApart { theirs: (their_major, their_minor).cmp(&(our_major, our_minor)) })
}

/// Major and minor version of `1.2.3`, `1.2.3-rc.1` and the like.
fn release(text: &str) -> Option<(u64, u64)> {
    let core = text.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(str::parse);
    match (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()) {
        (Ok(major), Ok(minor), Ok(_patch), None) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_version_of_distance_is_bridged_and_two_are_not() {
        for theirs in ["1.4.0", "1.3.9", "1.5.0-rc.1", "1.4.7+build"] {
            assert_eq!(check("1.4.2", theirs), Ok(()), "{theirs}");
        }
        for (theirs, order) in [
            ("1.2.9", Ordering::Less),
            ("0.4.2", Ordering::Less),
            ("1.6.0", Ordering::Greater),
            ("2.0.0", Ordering::Greater),
        ] {
            assert_eq!(check("1.4.2", theirs), Err(TooFarApart { theirs: order }), "{theirs}");
        }
    }

    #[test]
    fn what_is_no_release_is_not_judged() {
        for theirs in ["", "nightly", "1", "1.2", "1.2.3.4", "1.x.3", "99999999999999999999.0.0"] {
            assert_eq!(check("1.4.2", theirs), Ok(()), "{theirs}");
        }
        assert!(release(OURS).is_some());
    }
}
