//! What one listing told of many directories: each is taken in as if it had been listed by itself, but where this
//! mount changed a name since the listing was asked for, somebody asked to forget what is known, or the directory was
//! listed by itself. All that it told is as old as the request.

use std::time::Instant;

use super::Place;
use super::children::Directory;
use super::inode::{FileKind, Ino};
use super::sighting::{Listing, Sighting};
use super::table::Table;

impl Table {
    /// The directory at a path of names below another one, which is at `place` as far as the listing knows. Those on
    /// the way that were unknown are known now. `None` where the listing is older than what is known here.
    pub(super) fn reach(&mut self, base: Ino, place: &Place, path: &str, since: Instant) -> Option<Ino> {
        if self.place(base).as_ref() != Some(place) || self.is_refreshed_since(since) {
            return None;
        }
        path.trim_end_matches('/').split('/').try_fold(base, |at, name| {
            self.directory(at).filter(|directory| !directory.changed_since(since))?;
            let entry = self.sight(at, name, Sighting::Directory, since)?;
            (entry.attr.kind == FileKind::Directory).then_some(entry.ino)
        })
    }

    /// Whether a listing that was asked for at `since` knows all that is known here of a directory.
    pub(super) fn may_tell_of(&self, ino: Ino, since: Instant) -> bool {
        let older = |directory: &Directory| {
            !directory.changed_since(since) && directory.listed.is_none_or(|listed| listed <= since)
        };
        !self.is_refreshed_since(since) && self.directory(ino).is_some_and(older)
    }

    fn is_refreshed_since(&self, since: Instant) -> bool {
        self.refreshed.is_some_and(|refreshed| refreshed >= since)
    }

    /// Takes in all names of a directory, which is at `place` as far as the listing knows.
    pub(super) fn fill(&mut self, ino: Ino, place: &Place, listing: Listing, since: Instant) {
        if self.may_tell_of(ino, since) && self.place(ino).as_ref() == Some(place) {
            self.take_listing(ino, listing, since);
        }
    }
}
