//! The table behind the tree's lock: inodes by number, and the moves that keep names and numbers in step.
//!
//! Invariants: an attached inode is listed under its name in its parent's directory and nowhere else; a detached one
//! is listed nowhere and lives while the kernel knows it or a handle is open; the root is always there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::store::BucketName;

use super::children::Directory;
use super::inode::{Attr, FileKind, Ino, Inode, Object, ROOT};
use super::inodes::Inodes;
use super::news::News;
use super::number::{RESERVED_FROM, number};
use super::sighting::{Listing, Sighting, directory_attr};
use super::{Answer, Defaults, Entry, Knowledge, Place, Ttl, remaining};

pub(super) struct Table {
    pub(super) inodes: Inodes,
    pub(super) defaults: Defaults,
    pub(super) root: Place,
    ttl: Ttl,
    pub(super) names_max: usize,
    next_reserved: u64,
    /// Directories by last use: the names of the longest unused go first.
    pub(super) recent: LruCache<Ino, ()>,
    /// With more inodes than this, some are forgotten.
    pub(super) shrink_above: usize,
    /// Names that could be forgotten if the kernel did not know them.
    pub(super) unwanted: Vec<(Ino, Arc<str>)>,
    /// When somebody last asked to forget what is known.
    pub(super) refreshed: Option<Instant>,
    /// What the kernel takes for true and is no more.
    pub(super) news: Vec<News>,
}

impl Table {
    pub(super) fn new(root: Place, defaults: Defaults, ttl: Ttl, names_max: usize) -> Self {
        let attr = directory_attr(&defaults, defaults.dir_time);
        let mut inodes = Inodes::new(defaults);
        inodes.insert(ROOT, Inode { lookups: 1, ..Inode::new(ROOT, "".into(), attr, None, None) });
        Table {
            inodes,
            defaults,
            root,
            ttl,
            names_max,
            next_reserved: RESERVED_FROM,
            recent: LruCache::unbounded(),
            shrink_above: names_max,
            unwanted: Vec::new(),
            refreshed: None,
            news: Vec::new(),
        }
    }

    pub(super) fn directory(&self, ino: Ino) -> Option<&Directory> {
        self.inodes.whole(ino)?.directory.as_deref()
    }

    pub(super) fn directory_mut(&mut self, ino: Ino) -> Option<&mut Directory> {
        self.inodes.whole_mut(ino)?.directory.as_deref_mut()
    }

    pub(super) fn child(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.directory(parent)?.names.get(name).copied()
    }

    pub(super) fn answer(&mut self, parent: Ino, name: &str) -> Answer {
        self.recent.promote(&parent);
        let Some(directory) = self.directory(parent) else { return Answer::Unknown };
        let listed = directory.listed.map_or(Duration::ZERO, |at| remaining(at, self.ttl_in(directory)));
        match directory.names.get(name).and_then(|ino| self.entry(*ino)) {
            Some(entry) if !entry.ttl.is_zero() => Answer::Found(entry),
            Some(_) => Answer::Unknown,
            None => match listed.max(directory.spans.absent(name, &self.ttl, directory.unchanged)) {
                Duration::ZERO => Answer::Unknown,
                known => {
                    self.note_denied(parent, known);
                    Answer::Absent(known)
                }
            },
        }
    }

    pub(super) fn entry(&self, ino: Ino) -> Option<Entry> {
        if let Some((parent, attr, checked)) = self.inodes.listed_attr(ino) {
            let ttl = checked.map_or(Duration::ZERO, |checked| remaining(checked, self.ttl_below(parent)));
            return Some(Entry { ino, attr, ttl });
        }
        let inode = self.inodes.whole(ino)?;
        let ttl = match inode.checked {
            _ if inode.local || ino == ROOT || inode.detached => self.ttl.min(),
            Some(checked) => remaining(checked, self.ttl_below(inode.parent)),
            None => Duration::ZERO,
        };
        Some(Entry { ino, attr: inode.attr, ttl })
    }

    /// How long the names in a directory, and their attributes, are believed.
    fn ttl_in(&self, directory: &Directory) -> Duration {
        self.ttl.of(directory.unchanged)
    }

    fn ttl_below(&self, parent: Ino) -> Duration {
        self.directory(parent).map_or(self.ttl.min(), |directory| self.ttl_in(directory))
    }

    pub(super) fn remember(&mut self, ino: Ino) {
        self.inodes.remember(ino);
    }

    pub(super) fn forget(&mut self, ino: Ino, lookups: u64) {
        if ino != ROOT {
            self.inodes.forget(ino, lookups);
            self.release(ino);
            self.forget_idle(ino);
        }
    }

    pub(super) fn pin(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.pins += 1;
        }
    }

    pub(super) fn unpin(&mut self, ino: Ino) -> u32 {
        let Some(inode) = self.inodes.get_mut(&ino) else { return 0 };
        inode.pins = inode.pins.saturating_sub(1);
        let left = inode.pins;
        self.release(ino);
        left
    }

    /// Frees a detached inode that nobody uses any more.
    fn release(&mut self, ino: Ino) {
        let unused =
            self.inodes.whole(ino).is_some_and(|inode| inode.detached && inode.lookups == 0 && inode.pins == 0);
        if unused {
            self.free(ino);
        }
    }

    fn free(&mut self, ino: Ino) {
        self.recent.pop(&ino);
        let Some(inode) = self.inodes.remove(ino) else { return };
        for child in inode.directory.into_iter().flat_map(|directory| directory.names.into_values()) {
            if let Some(child_inode) = self.inodes.get_mut(&child) {
                child_inode.detached = true;
                self.release(child);
            }
        }
    }

    pub(super) fn update<R>(&mut self, ino: Ino, change: impl FnOnce(&mut Inode) -> R) -> Option<R> {
        let inode = self.inodes.get_mut(&ino)?;
        let result = change(inode);
        inode.checked = Some(Instant::now());
        let (parent, name) = inode.parent_and_name();
        if let Some(directory) = self.directory_mut(parent) {
            directory.touch(&name);
        }
        Some(result)
    }

    /// Makes an inode under a name that is free.
    pub(super) fn create(
        &mut self,
        parent: Ino,
        name: &Arc<str>,
        attr: Attr,
        object: Option<Object>,
        now: Instant,
    ) -> Option<Ino> {
        let ino = self.free_number(parent, name, attr.kind)?;
        self.directory_mut(parent)?.names.insert(name.clone(), ino);
        self.inodes.insert(ino, Inode::new(parent, name.clone(), attr, object, Some(now)));
        Some(ino)
    }

    /// The number that the name always has, or a reserved one while a living inode holds that.
    fn free_number(&mut self, parent: Ino, name: &str, kind: FileKind) -> Option<Ino> {
        let own = match self.place(parent)? {
            Place::Account => number(&BucketName::new(name).ok()?, None),
            Place::Directory { bucket, prefix } if kind == FileKind::Directory => {
                number(&bucket, prefix.directory(name).ok()?.marker().as_ref())
            }
            Place::Directory { bucket, prefix } => number(&bucket, Some(&prefix.file(name).ok()?)),
            Place::File(_) => return None,
        };
        if !self.inodes.contains(own) {
            return Some(own);
        }
        self.next_reserved += 1;
        Some(Ino(self.next_reserved))
    }

    pub(super) fn insert(&mut self, parent: Ino, name: &str, attr: Attr, object: Option<Object>) -> Option<Entry> {
        let name: Arc<str> = name.into();
        self.detach(parent, &name);
        let now = Instant::now();
        let ino = self.create(parent, &name, attr, object, now)?;
        if let Some(inode) = self.inodes.whole_mut(ino).filter(|inode| inode.directory.is_some()) {
            inode.directory = Some(Box::new(Directory::created(now)));
        }
        self.directory_mut(parent)?.touch(&name);
        self.shrink();
        self.entry(ino)
    }

    pub(super) fn remove(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        let ino = self.unlink(parent, name);
        self.directory_mut(parent)?.touch(&name.into());
        ino
    }

    /// This mount takes a name away.
    fn unlink(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        if let Some(inode) = self.child(parent, name).and_then(|ino| self.inodes.get_mut(&ino)) {
            inode.unlinked = true;
        }
        self.detach(parent, name)
    }

    /// Takes a name away; the inode lives on while it is used.
    pub(super) fn detach(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        let ino = self.directory_mut(parent)?.names.remove(name)?;
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.detached = true;
        }
        self.release(ino);
        Some(ino)
    }

    pub(super) fn rename(&mut self, parent: Ino, name: &str, new_parent: Ino, new_name: &str) {
        let Some(ino) = self.child(parent, name) else { return };
        self.unlink(new_parent, new_name);
        let new_name: Arc<str> = new_name.into();
        if let Some(directory) = self.directory_mut(parent) {
            directory.names.remove(name);
            directory.touch(&name.into());
        }
        if let Some(directory) = self.directory_mut(new_parent) {
            directory.names.insert(new_name.clone(), ino);
            directory.touch(&new_name);
        }
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.parent = new_parent;
            inode.name = new_name;
            inode.checked = Some(Instant::now());
        }
    }

    pub(super) fn children(&mut self, directory: Ino) -> Vec<(Arc<str>, Entry)> {
        self.recent.promote(&directory);
        let names = self.directory(directory).map(|directory| &directory.names);
        let entries = names.into_iter().flatten();
        entries.filter_map(|(name, ino)| Some((name.clone(), self.entry(*ino)?))).collect()
    }

    pub(super) fn knowledge(&mut self, ino: Ino) -> Knowledge {
        match self.directory(ino) {
            Some(directory) if directory.complete => match directory.listed {
                Some(at) if !remaining(at, self.ttl_in(directory)).is_zero() => Knowledge::Complete,
                _ => Knowledge::Outdated,
            },
            Some(directory) if directory.large => Knowledge::Large,
            _ => Knowledge::Unknown,
        }
    }

    pub(super) fn set_posix(&mut self, ino: Ino, posix: bool) {
        if let Some(directory) = self.directory_mut(ino) {
            directory.posix = Some(posix);
        }
    }

    pub(super) fn begin_listing(&mut self, ino: Ino) {
        if let Some(directory) = self.directory_mut(ino) {
            directory.begin_listing();
        }
    }

    pub(super) fn end_listing(&mut self, ino: Ino, listing: Option<Listing>) {
        if let Some(listing) = listing {
            self.take_listing(ino, listing, Instant::now());
        }
        if let Some(directory) = self.directory_mut(ino) {
            directory.end_listing();
        }
    }

    /// Takes in what a listing told of a directory at a time, but for names that this mount changed meanwhile, and those
    /// of which something is known from later.
    pub(super) fn take_listing(&mut self, ino: Ino, Listing { names, complete, unchanged }: Listing, at: Instant) {
        let lost = complete && self.drop_unlisted(ino, &names, at);
        let known = self.directory(ino).map_or(0, |directory| directory.names.len());
        for (name, sighting) in names {
            let touched = self.directory(ino).is_some_and(|directory| directory.is_touched(&name));
            let checked = self.child(ino, &name).and_then(|child| self.inodes.checked_at(child));
            if !touched && checked.is_none_or(|checked| checked <= at) {
                self.sight(ino, &name, sighting, at);
            }
        }
        if let Some(directory) = self.directory_mut(ino) {
            let changed = !directory.complete || lost || directory.names.len() != known;
            directory.note_listed(at, changed, if lost { Duration::ZERO } else { unchanged });
            directory.complete = complete;
            directory.listed = complete.then_some(at);
            directory.large = !complete;
        }
        self.recent.put(ino, ());
        self.shrink();
    }

    /// Takes away the names that a complete listing did not show at a time, but for those that are only here and those
    /// seen later; answers whether there were any.
    fn drop_unlisted(&mut self, ino: Ino, listed: &[(String, Sighting)], at: Instant) -> bool {
        let Some(directory) = self.directory(ino) else { return false };
        let listed: std::collections::HashSet<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        let gone = directory.names.iter().filter(|(name, _)| !listed.contains(&***name) && !directory.is_touched(name));
        let stays = |ino: &Ino| self.inodes.checked_at(*ino).is_some_and(|seen| seen > at) || self.holds_local(*ino);
        let gone: Vec<Arc<str>> = gone.filter(|(_, ino)| !stays(ino)).map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.lose(ino, name);
        }
        !gone.is_empty()
    }

    pub(super) fn sight_one(&mut self, parent: Ino, name: &str, sighting: Sighting) -> Option<Entry> {
        let entry = self.sight(parent, name, sighting, Instant::now());
        self.shrink();
        entry
    }

    pub(super) fn sight_absent(&mut self, parent: Ino, name: &str) {
        if self.child(parent, name).is_some_and(|ino| !self.holds_local(ino)) {
            self.lose(parent, name);
        }
    }

    /// Whether it, or something below it, has what the store has not.
    pub(super) fn holds_local(&self, ino: Ino) -> bool {
        // What is only here is kept whole.
        let Some(inode) = self.inodes.whole(ino) else { return false };
        let below = inode.directory.iter().flat_map(|directory| directory.names.values());
        inode.local || below.into_iter().any(|child| self.holds_local(*child))
    }
}
