//! The second pass: further names of hard links, each made from a name that this restore wrote or found equal. Where all
//! names of a group are stale, the first of them is written here.

use std::collections::HashSet;

use super::UnpackError;
use super::context::{Context, GroupKey};
use super::folders::Folders;
use super::place::{Hands, Job, link, place};
use super::workers::{group_of, is_deferred};

/// Makes all names that the first pass left.
pub(super) fn write_all(context: &Context<'_>) -> Result<(), UnpackError> {
    let mut groups: HashSet<GroupKey> = HashSet::new();
    let mut folders = Folders::default();
    let mut hands = Hands::default();
    let mut stream = context.stream();
    while let Some(picked) = stream.next_picked()? {
        folders.enter(&picked);
        if !picked.selected {
            continue;
        }
        let Some(key) = group_of(&picked.placed) else { continue };
        if !is_deferred(&mut groups, &folders, &picked.placed) {
            continue;
        }
        if !folders.is_there(context) {
            context.report.count(|counts| counts.below_blocked += 1);
            continue;
        }
        let job = Job { folder: folders.number(), number: picked.number, placed: picked.placed };
        match context.leader(key).filter(|leader| leader.is_like(&job.placed.entry)) {
            Some(leader) => link(context, &mut hands, &job, &leader)?,
            None => place(context, &mut hands, &job)?,
        }
    }
    Ok(())
}
