//! A large directory, taken in page by page: what is known of it is never held twice, and may be more than the tree keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Entry;
use super::inode::Ino;
use super::sighting::Sighting;
use super::table::Table;

/// What was known of a directory before it is listed.
#[derive(Debug)]
pub struct Before {
    since: Instant,
    /// Names, if all were known.
    count: Option<usize>,
    losses: u64,
    /// How long ago the newest object of the pages so far was stored.
    pub newest_age: Option<Duration>,
}

impl Table {
    /// A listing by pages begins.
    pub(super) fn before(&self, ino: Ino) -> Before {
        let directory = self.directory(ino);
        let count = directory.filter(|directory| directory.complete).map(|directory| directory.names.len());
        let losses = directory.map_or(0, |directory| directory.losses);
        Before { since: Instant::now(), count, losses, newest_age: None }
    }

    /// Takes in the names of a page, but for those that this mount changed meanwhile; answers those that are there.
    pub(super) fn take_page(&mut self, ino: Ino, names: Vec<(String, Sighting)>) -> Vec<(Arc<str>, Entry)> {
        let now = Instant::now();
        let mut children = Vec::new();
        for (name, sighting) in names {
            if self.directory(ino).is_some_and(|directory| !directory.is_touched(&name)) {
                self.sight(ino, &name, sighting, now);
            }
            let known = self.directory(ino).and_then(|directory| directory.names.get_key_value(&*name));
            if let Some((name, entry)) = known.and_then(|(name, ino)| Some((name.clone(), self.entry(*ino)?))) {
                children.push((name, entry));
            }
        }
        if let Some(directory) = self.directory_mut(ino) {
            (directory.complete, directory.listed, directory.large) = (false, None, true);
        }
        self.recent.put(ino, ());
        self.shrink();
        children.sort_by(|(a, _), (b, _): &(Arc<str>, Entry)| a.cmp(b));
        children
    }

    /// All pages were taken in: what none of them told is gone. Answers whether all of them are still known.
    pub(super) fn end_pages(&mut self, ino: Ino, before: &Before) -> bool {
        let now = Instant::now();
        let Some(directory) = self.directory(ino) else { return false };
        let kept_all = directory.losses == before.losses;
        let is_seen = |ino: &Ino| self.inodes.checked_at(*ino).is_some_and(|at| at >= before.since);
        let unseen = directory.names.iter().filter(|(name, ino)| !is_seen(ino) && !directory.is_touched(name));
        let unseen = unseen.filter(|(_, ino)| kept_all && !self.holds_local(**ino));
        let gone: Vec<Arc<str>> = unseen.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.lose(ino, name);
        }
        let Some(directory) = self.directory_mut(ino) else { return false };
        let changed = !gone.is_empty() || before.count != Some(directory.names.len());
        let age = before.newest_age.filter(|_| gone.is_empty()).unwrap_or_default();
        directory.note_listed(now, changed, age);
        directory.complete = kept_all;
        directory.listed = kept_all.then_some(now);
        directory.large = !kept_all;
        directory.end_listing();
        kept_all
    }
}
