//! What other clients changed and the kernel does not know yet: of names and inodes that it was told of, and no others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inode::Ino;
use super::table::Table;

/// News that are kept at once: of what is beyond, the kernel asks by itself when its time to live is over.
const NEWS_MAX: usize = 100_000;

/// What the kernel takes for true and is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A name in a directory leads elsewhere, or nowhere, or is there.
    Entry(Ino, Arc<str>),
    /// An inode has other attributes or another content.
    Inode(Ino),
}

impl Table {
    pub(super) fn tell(&mut self, news: News) {
        if self.news.len() < NEWS_MAX {
            self.news.push(news);
        }
    }

    /// The kernel is told that a name in a directory is not there, for so long.
    pub(super) fn note_denied(&mut self, parent: Ino, ttl: Duration) {
        let until = Instant::now() + ttl;
        if let Some(directory) = self.directory_mut(parent) {
            directory.denied_until = directory.denied_until.max(Some(until));
        }
    }

    /// The store has a name no longer, or something else under it.
    pub(super) fn lose(&mut self, parent: Ino, name: &str) {
        let child = self.child(parent, name).and_then(|ino| self.inodes.get(&ino));
        if child.is_some_and(|inode| inode.lookups > 0) {
            self.tell(News::Entry(parent, name.into()));
        }
        self.detach(parent, name);
    }

    /// The store has a name that was not known.
    pub(super) fn gain(&mut self, parent: Ino, name: &str, now: Instant) {
        let denied = self.directory(parent).and_then(|directory| directory.denied_until);
        if denied.is_some_and(|until| now < until) {
            self.tell(News::Entry(parent, name.into()));
        }
    }
}
