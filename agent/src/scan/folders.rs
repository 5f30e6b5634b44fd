//! The folders that the comparison is inside of, and whether the recipe has to mend their times when it leaves them.
//!
//! Creating or removing a name changes the folder's own times. The recipe therefore ends each such folder with a line that
//! sets all of its attributes again; leaving is bottom-up, so the deepest comes first. A folder that is itself a member of
//! this archive needs none: tar sets its times after everything below it. A folder whose own attributes changed has lines of
//! its own already; only where names in it come or go as well are its times set again.

use coord_archive::entry::{Attributes, Entry, is_at_or_below, parent};
use coord_archive::pack::Step;

#[derive(Debug)]
struct Open {
    entry: Entry,
    base: Option<Box<Attributes>>,
    is_member: bool,
    needs_mending: bool,
}

/// A stack of folders from the root to where the comparison is.
#[derive(Debug, Default)]
pub struct FolderStack(Vec<Open>);

/// How a folder stands to the base when the comparison enters it.
#[derive(Clone, Debug)]
pub enum Standing {
    /// A member of this archive.
    Member,
    /// As in the base.
    Unchanged(Box<Attributes>),
    /// With other attributes than in the base.
    Changed(Box<Attributes>),
}

impl FolderStack {
    /// Goes into a folder.
    pub fn enter(&mut self, entry: Entry, standing: Standing) {
        let (base, is_member, needs_mending) = match standing {
            Standing::Member => (None, true, false),
            Standing::Unchanged(base) => (Some(base), false, false),
            // The lines of its own item have removed what the base had too much; twice would fail. The root's item has none.
            Standing::Changed(base) => (Some(base).filter(|_| entry.path.is_empty()), false, false),
        };
        self.0.push(Open { entry, base, is_member, needs_mending });
    }

    /// Notes that the recipe creates or removes the name `path`.
    pub fn touch(&mut self, path: &[u8]) {
        if let Some(top) = self.0.last_mut()
            && parent(path) == Some(&top.entry.path)
        {
            top.needs_mending = true;
        }
    }

    /// Leaves the innermost folder if `path` is not below it. `None`: it is, or there is none. Otherwise the step that
    /// mends it, if one is needed.
    pub fn leave_for(&mut self, path: &[u8]) -> Option<Option<Step>> {
        let top = self.0.last()?;
        if is_at_or_below(path, &top.entry.path) {
            return None;
        }
        self.leave()
    }

    /// Leaves the innermost folder. The root always needs mending, as the recipe itself works in it.
    pub fn leave(&mut self) -> Option<Option<Step>> {
        let top = self.0.pop()?;
        let is_root = top.entry.path.is_empty();
        let mend = is_root || (top.needs_mending && !top.is_member);
        Some(mend.then_some(Step::FolderExit { entry: top.entry, base: top.base }))
    }
}
