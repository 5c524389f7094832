//! NAMES: inodes, the names in directories, and how long they may be believed.
//!
//! Passive and synchronous: one std Mutex, short sections, no I/O and no await. A verb asks here first; what is not
//! known or no longer fresh is [`Answer::Unknown`], and the verb asks the store and tells the tree what it saw.
//!
//! Versions: a name whose object another client replaced gets its news in place while no handle is open. With an
//! open handle the old inode is *detached* with all that is known of it, and the name gets a new inode.

mod children;
mod expiry;
mod fill;
mod inode;
mod inodes;
mod news;
mod number;
mod order;
mod pages;
mod paths;
mod sighting;
mod span;
mod table;
#[cfg(test)]
mod tests;
mod ttl;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use crate::format::key::{BucketName, Prefix};
use crate::store::{ETag, Key, Location};

pub use inode::{AclState, Attr, FileKind, Ino, Inode, Object, ROOT};
pub use news::News;
pub use order::Order;
pub use pages::Before;
pub use sighting::{Listing, Sighting};
pub use span::Span;
use table::Table;
pub use ttl::Ttl;

/// What an inode is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The account: its children are buckets.
    Account,
    /// A bucket's root or a directory in it.
    Directory {
        /// The bucket.
        bucket: BucketName,
        /// The directory; empty for the bucket's root.
        prefix: Prefix,
    },
    /// A file.
    File(Location),
}

/// Attributes of what the store says nothing about.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Owner of all.
    pub uid: u32,
    /// Group of all.
    pub gid: u32,
    /// Permissions of files.
    pub file_mode: u32,
    /// Permissions of directories.
    pub dir_mode: u32,
    /// Time of directories that have no marker.
    pub dir_time: SystemTime,
}

/// What a name leads to.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The inode.
    pub ino: Ino,
    /// Its attributes.
    pub attr: Attr,
    /// How long this may still be believed.
    pub ttl: Duration,
}

/// What the tree knows of a name.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is there.
    Found(Entry),
    /// It is not there, for so long.
    Absent(Duration),
    /// Ask the store.
    Unknown,
}

/// How far the names of a directory are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// All of them, and fresh.
    Complete,
    /// All of them, as they were a while ago.
    Outdated,
    /// Not all; it has more than a page of them.
    Large,
    /// Nothing, or little.
    Unknown,
}

/// The table of inodes. See the module.
pub struct Tree {
    table: Mutex<Table>,
}

/// A directory in which a verb is at work: its names are not forgotten until this is dropped.
#[must_use]
pub struct Held<'a> {
    tree: &'a Tree,
    directory: Ino,
}

impl Held<'_> {
    /// Holds on until [`Tree::let_go`].
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.tree.let_go(self.directory);
    }
}

impl Tree {
    /// A tree whose root is `root`. Names are believed as `ttl` says; about `names_max` are remembered.
    pub fn new(root: Place, defaults: Defaults, ttl: Ttl, names_max: usize) -> Self {
        Tree { table: Mutex::new(Table::new(root, defaults, ttl, names_max)) }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds the tree")
    }

    /// What is known of `name` in the directory `parent`.
    pub fn answer(&self, parent: Ino, name: &str) -> Answer {
        self.lock().answer(parent, name)
    }

    /// The inode that `name` leads to, fresh or not.
    pub fn child(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.lock().child(parent, name)
    }

    /// The inode as an entry, if the number is known.
    pub fn entry(&self, ino: Ino) -> Option<Entry> {
        self.lock().entry(ino)
    }

    /// Counts a lookup that the kernel is about to be told.
    pub fn remember(&self, ino: Ino) {
        self.lock().remember(ino);
    }

    /// The kernel has forgotten this many lookups.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.lock().forget(ino, lookups);
    }

    /// Keeps the names of a directory, however many there are, while a verb is at work in it.
    pub fn hold(&self, directory: Ino) -> Held<'_> {
        self.lock().hold(directory);
        Held { tree: self, directory }
    }

    /// Ends what [`Held::keep`] began.
    pub fn let_go(&self, directory: Ino) {
        self.lock().let_go(directory);
    }

    /// A handle was opened.
    pub fn pin(&self, ino: Ino) {
        self.lock().pin(ino);
    }

    /// A handle was closed; answers how many are left.
    pub fn unpin(&self, ino: Ino) -> u32 {
        self.lock().unpin(ino)
    }

    /// Looks at an inode.
    pub fn read<R>(&self, ino: Ino, look: impl FnOnce(&Inode) -> R) -> Option<R> {
        self.lock().inodes.get(&ino).map(|inode| look(&inode))
    }

    /// Changes an inode's attributes or what is known of its object. The change is this mount's own, so that it
    /// outranks listings under way.
    pub fn update<R>(&self, ino: Ino, change: impl FnOnce(&mut Inode) -> R) -> Option<R> {
        self.lock().update(ino, change)
    }

    /// Notes of which version the kernel's pages are. No change of the file.
    pub fn note_pages(&self, ino: Ino, etag: Option<ETag>) {
        if let Some(inode) = self.lock().inodes.get_mut(&ino) {
            inode.pages = etag;
        }
    }

    /// Where the inode lies in the store; `None` if no name leads to it any more.
    pub fn place(&self, ino: Ino) -> Option<Place> {
        self.lock().place(ino)
    }

    /// The path from the mount's root, for messages.
    pub fn path(&self, ino: Ino) -> String {
        self.lock().path(ino)
    }

    /// Adds a name that this mount made. `object` is what was stored, if anything was yet.
    pub fn insert(&self, parent: Ino, name: &str, attr: Attr, object: Option<Object>) -> Option<Entry> {
        self.lock().insert(parent, name, attr, object)
    }

    /// Takes a name away that this mount removed; answers the inode that it led to.
    pub fn remove(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.lock().remove(parent, name)
    }

    /// Moves a name, over another one if need be.
    pub fn rename(&self, parent: Ino, name: &str, new_parent: Ino, new_name: &str) {
        self.lock().rename(parent, name, new_parent, new_name);
    }

    /// The known names in a directory with their inodes, in the order in which S3 sorts.
    pub fn children(&self, directory: Ino) -> Vec<(Arc<str>, Entry)> {
        self.lock().children(directory)
    }

    /// Up to so many files that follow one in an order, as far as all names on the way are known.
    pub fn files_after(&self, ino: Ino, order: Order, count: usize) -> Vec<Ino> {
        self.lock().files_after(ino, order, count)
    }

    /// Whether no other directory comes before this one in its parent, as far as that is soon found out.
    pub fn is_first_directory(&self, directory: Ino) -> bool {
        self.lock().is_first_directory(directory)
    }

    /// How far the names of a directory are known.
    pub fn knowledge(&self, directory: Ino) -> Knowledge {
        self.lock().knowledge(directory)
    }

    /// Whether the directory's files carry POSIX metadata, if somebody looked.
    pub fn posix(&self, directory: Ino) -> Option<bool> {
        self.lock().directory(directory).and_then(|directory| directory.posix)
    }

    /// Notes whether the directory's files carry POSIX metadata.
    pub fn set_posix(&self, directory: Ino, posix: bool) {
        self.lock().set_posix(directory, posix);
    }

    /// A listing of the directory starts; must be ended by [`Tree::end_listing`].
    pub fn begin_listing(&self, directory: Ino) {
        self.lock().begin_listing(directory);
    }

    /// A listing has ended: its answer is taken in, but for names that this mount changed meanwhile.
    pub fn end_listing(&self, directory: Ino, listing: Option<Listing>) {
        self.lock().end_listing(directory, listing);
    }

    /// Notes what is known of a directory before it is listed by pages.
    pub fn before(&self, directory: Ino) -> Before {
        self.lock().before(directory)
    }

    /// Takes in the names of a page, but for those that this mount changed meanwhile; answers those that are there.
    pub fn take_page(&self, directory: Ino, names: Vec<(String, Sighting)>) -> Vec<(Arc<str>, Entry)> {
        self.lock().take_page(directory, names)
    }

    /// A listing by pages has ended: what none of them told is gone. Answers whether all of them are still known.
    pub fn end_pages(&self, directory: Ino, before: &Before) -> bool {
        self.lock().end_pages(directory, before)
    }

    /// The directory at a path below `base`, which a listing that was asked for at `since` and spans both has told.
    /// `None` if `base` is no longer at `place`, or a name on the way was changed by this mount since.
    pub fn reach(&self, base: Ino, place: &Place, path: &str, since: Instant) -> Option<Ino> {
        self.lock().reach(base, place, path, since)
    }

    /// Whether a listing that was asked for at `since` knows all that is known here of a directory's names.
    pub fn may_tell_of(&self, directory: Ino, since: Instant) -> bool {
        self.lock().may_tell_of(directory, since)
    }

    /// Takes in all names of a directory at `place`, out of a listing that was asked for at `since`, unless this mount
    /// changed a name in it since.
    pub fn fill(&self, ino: Ino, place: &Place, listing: Listing, since: Instant) {
        self.lock().fill(ino, place, listing, since);
    }

    /// A listing of some names has ended, which was begun as one of all: what it told is taken in, and also that there
    /// are no others in its span.
    pub fn end_span(&self, directory: Ino, told: Option<(Span, Vec<(String, Sighting)>)>) {
        let mut table = self.lock();
        if let Some((span, names)) = told {
            table.take_span(directory, span, names);
        }
        table.end_listing(directory, None);
    }

    /// How many names of a large directory should be asked for together, from one on.
    pub fn names_wanted(&self, directory: Ino, name: &str) -> Option<u32> {
        self.lock().directory_mut(directory).map(|directory| directory.spans.names_wanted(name))
    }

    /// How many names of a directory are known, fresh or not.
    pub fn count(&self, directory: Ino) -> usize {
        self.lock().directory(directory).map_or(0, |directory| directory.names.len())
    }

    /// Takes in what the store said of a single name; answers where it leads now.
    pub fn sight(&self, parent: Ino, name: &str, sighting: Sighting) -> Option<Entry> {
        self.lock().sight_one(parent, name, sighting)
    }

    /// The store says that there is no such name.
    pub fn sight_absent(&self, parent: Ino, name: &str) {
        self.lock().sight_absent(parent, name);
    }

    /// Forgets how fresh an inode and all below it is, so that the store is asked again. Answers the inodes and
    /// their (parent, name) for the kernel to forget too.
    pub fn expire(&self, ino: Ino) -> Vec<(Ino, Ino, Arc<str>)> {
        self.lock().expire(ino)
    }

    /// Whether `ino` is `directory` or lies below it.
    pub fn is_below(&self, ino: Ino, directory: Ino) -> bool {
        self.lock().is_below(ino, directory)
    }

    /// The inode at a path of names below a directory, if all of it is known.
    pub fn resolve(&self, directory: Ino, path: &str) -> Option<Ino> {
        self.lock().resolve(directory, path)
    }

    /// Names that are too many, and that only the kernel still knows.
    pub fn take_unwanted(&self) -> Vec<(Ino, Arc<str>)> {
        std::mem::take(&mut self.lock().unwanted)
    }

    /// What the kernel takes for true, of what it knows, and other clients have changed.
    pub fn take_news(&self) -> Vec<News> {
        std::mem::take(&mut self.lock().news)
    }

    /// How many inodes are known.
    pub fn names(&self) -> u64 {
        self.lock().inodes.len() as u64
    }

    /// How many keys were seen that no path can name.
    pub fn hidden_keys(&self) -> u64 {
        let table = self.lock();
        table.inodes.all_whole().filter_map(|inode| inode.directory.as_ref()).map(|names| names.hidden_keys).sum()
    }

    /// Adds to the count of keys in a directory that no path can name.
    pub fn set_hidden_keys(&self, directory: Ino, count: u64) {
        if let Some(names) = self.lock().directory_mut(directory) {
            names.hidden_keys = count;
        }
    }
}

/// The key of a file, or of a directory's marker.
impl Place {
    /// The location of the file or of the directory's marker; `None` for the account and for buckets.
    pub fn location(&self) -> Option<Location> {
        match self {
            Place::Account => None,
            Place::Directory { bucket, prefix } => {
                prefix.marker().map(|key: Key| Location { bucket: bucket.clone(), key })
            }
            Place::File(location) => Some(location.clone()),
        }
    }
}

/// Since when an answer is believed, and until when.
fn remaining(checked: Instant, ttl: Duration) -> Duration {
    ttl.saturating_sub(checked.elapsed())
}
