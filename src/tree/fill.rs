//! What one listing told of many directories: each is taken in as if it had been listed by itself, but where this
//! mount changed a name since the listing was asked for.

use std::time::Instant;

use super::Place;
use super::inode::{FileKind, Ino};
use super::sighting::{Listing, Sighting};
use super::table::Table;

impl Table {
    /// The directory at a path of names below another one, which is at `place` as far as the listing knows. Those on
    /// the way that were unknown are known now. `None` where the listing is older than what is known here.
    pub(super) fn reach(&mut self, base: Ino, place: &Place, path: &str, since: Instant) -> Option<Ino> {
        if self.place(base).as_ref() != Some(place) {
            return None;
        }
        let now = Instant::now();
        path.trim_end_matches('/').split('/').try_fold(base, |at, name| {
            self.directory(at).filter(|directory| !directory.changed_since(since))?;
            let entry = self.sight(at, name, Sighting::Directory, now)?;
            (entry.attr.kind == FileKind::Directory).then_some(entry.ino)
        })
    }

    /// Takes in all names of a directory, which is at `place` as far as the listing knows.
    pub(super) fn fill(&mut self, ino: Ino, place: &Place, listing: Listing, since: Instant) {
        let unchanged = self.directory(ino).is_some_and(|directory| !directory.changed_since(since));
        if unchanged && self.place(ino).as_ref() == Some(place) {
            self.take_listing(ino, listing);
        }
    }
}
