//! WHAT EACH REQUEST MEANS: one file per family of verbs. No fuser, no HTTP, no disk.
//!
//! A verb asks memory first ([`crate::tree`], [`crate::data`]) and sends as few requests as it needs. Two places send
//! requests: the verbs here (names and metadata) and `data/` (bytes).
//!
//! | file | verbs |
//! |---|---|
//! | [`lookup`] | lookup, getattr, forget |
//! | [`list`] | opendir, readdir, and how a directory is learned from the store |
//! | [`snapshot`], `pages`, `judge` | an open directory; the pages of a large one, several at once; whose attributes need a HEAD |
//! | `walk`, `flat`, `names` | which directories are read as a walk, the one listing behind it, what pages tell |
//! | [`open`], `files` | open, create's handle; the table of open files |
//! | `ahead`, `sequence` | small files that are fetched before they are opened, and which |
//! | [`read`], [`mod@write`], [`copy`] | read; write, truncate, fallocate; copy_file_range |
//! | [`commit`] | flush, fsync, release, drain: when bytes become an object; `conflict`: when another client was first |
//! | [`attr`] | setattr: mode, owner, times, and the one road of every metadata change |
//! | [`xattr`], [`acl`], `tags` | extended attributes; ACLs, links and tags behind them |
//! | `finish` | what is put onto a version after it was made, also after a crash |
//! | [`make`], [`remove`], [`rename`], [`link`] | mkdir, mknod, create; unlink, rmdir; rename; symlink, readlink |
//! | `marker`, `owed` | the objects of directories; what is stored a little later, if it is needed then |
//! | `versions` | names of old versions |
//! | [`statfs`] | statfs |
//!
//! Lock order: a file's async lock (`files::OpenFile::lock`; two of them in ascending inode order), then the tree's
//! own lock inside its methods, with `Fs::moving` between the two. A directory's listing lock is taken with no file lock held.

pub mod acl;
mod ahead;
pub mod attr;
pub mod commit;
mod conflict;
pub mod copy;
mod encryption;
mod files;
mod finish;
mod flat;
mod judge;
pub mod link;
pub mod list;
pub mod lookup;
pub mod make;
mod marker;
mod names;
pub mod open;
mod owed;
mod pages;
pub mod read;
pub mod remove;
pub mod rename;
mod scan;
mod sequence;
pub mod snapshot;
pub mod statfs;
mod tags;
mod versions;
mod walk;
pub mod write;
pub mod xattr;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::data::Data;
use crate::data::journal::Journal;
use crate::error::{Error, Meaning, Result};
use crate::format::key::{BadName, BucketName, check_segment};
use crate::store::profile::Profile;
use crate::store::{Location, Store};
use crate::tree::{Defaults, FileKind, Ino, Place, Tree, Ttl};

use files::Files;
use statfs::Usage;

/// Where files' POSIX attributes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attrs {
    /// From HEAD in directories whose marker carries POSIX metadata, else from the listing.
    Auto,
    /// From the listing alone.
    List,
    /// From HEAD everywhere.
    Full,
}

/// What the mount was asked to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the root is.
    pub root: Place,
    /// Attributes of objects that carry none.
    pub defaults: Defaults,
    /// Refuse all changes.
    pub read_only: bool,
    /// Whether mkdir and rmdir at the account's level create and delete buckets.
    pub bucket_ops: bool,
    /// Where attributes come from.
    pub attrs: Attrs,
    /// How long names and attributes are believed.
    pub ttl: Ttl,
    /// The canned ACL of what this mount creates.
    pub acl: Option<String>,
    /// The storage class of what this mount creates.
    pub storage_class: Option<String>,
    /// Whether directories get markers where they need them.
    pub markers: bool,
    /// How the store encrypts what is written, where nothing else is known; `None` is as the bucket says.
    pub encryption: Option<String>,
    /// Whether old versions are shown by their names.
    pub versions: bool,
    /// HEAD requests at once when a directory's attributes are read.
    pub requests_max: usize,
    /// The largest file that is brought into the kernel's page cache as a whole, in bytes.
    pub whole_file_bytes_max: u64,
    /// Names remembered, about.
    pub names_max: usize,
    /// This machine's name, for what is kept beside another client's version.
    pub host_name: String,
    /// Who runs the daemon: signed links lend this user's credentials.
    pub daemon_uid: u32,
    /// The daemon's control socket.
    pub socket: PathBuf,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
}

/// What the kernel is told unasked: sent to the notify thread, never written from a verb (the kernel may wait for us).
#[derive(Debug)]
pub enum Notice {
    /// Forget a name in a directory.
    Entry(Ino, Arc<str>),
    /// Forget an inode's attributes, and its pages unless it is open.
    Inode(Ino),
    /// Take bytes of an inode's content into its pages.
    Pages {
        /// The inode.
        ino: Ino,
        /// Where the bytes begin.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
        /// Told when it is done, whether or not the kernel took them.
        done: oneshot::Sender<()>,
    },
}

/// The file system: what every verb works on.
pub struct Fs {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) data: Data,
    /// What answers for the store until it has what was written, if the mount has such a journal.
    journal: Option<Journal>,
    pub(crate) tree: Tree,
    pub(crate) files: Files,
    pub(crate) config: Config,
    pub(crate) profile: Arc<Profile>,
    pub(crate) clock: Clock,
    notices: UnboundedSender<Notice>,
    /// Read from when a key is taken from the tree until it is stored, written while a directory moves: what is stored
    /// meanwhile would stay behind under the old name. Taken after file locks, and never twice by one task.
    pub(crate) moving: tokio::sync::RwLock<()>,
    /// One lock per directory that is being listed, so that many who ask cost one listing.
    listing_locks: Mutex<HashMap<Ino, Arc<tokio::sync::Mutex<()>>>>,
    /// Until when the store is taken to be silent.
    silent_until: Mutex<Option<Instant>>,
    /// What is stored a little later.
    owed: owed::Owed,
    spare: marker::Spare,
    /// Small files that will be opened next.
    ahead: ahead::Ahead,
    /// Programs that read one directory after another.
    walks: flat::Walks,
    /// Buckets that may not be entered or do not exist, and when that was found out.
    refused_buckets: Mutex<HashMap<BucketName, Instant>>,
    usage: Mutex<HashMap<BucketName, (Instant, Usage)>>,
    /// Names that stand for old versions.
    versions: versions::Known,
}

impl Fs {
    /// Puts the parts together.
    pub fn new(
        store: Arc<dyn Store>,
        data: Data,
        journal: Option<Journal>,
        profile: Arc<Profile>,
        config: Config,
        clock: Clock,
        notices: UnboundedSender<Notice>,
    ) -> Self {
        let tree = Tree::new(config.root.clone(), config.defaults, config.ttl, config.names_max);
        Fs {
            store,
            data,
            journal,
            tree,
            files: Files::default(),
            config,
            profile,
            clock,
            notices,
            moving: tokio::sync::RwLock::default(),
            listing_locks: Mutex::default(),
            silent_until: Mutex::default(),
            owed: owed::Owed::default(),
            spare: marker::Spare::default(),
            ahead: ahead::Ahead::default(),
            walks: flat::Walks::default(),
            refused_buckets: Mutex::default(),
            usage: Mutex::default(),
            versions: versions::Known::default(),
        }
    }

    /// The path of an inode, for messages.
    pub fn path(&self, ino: Ino) -> String {
        self.tree.path(ino)
    }

    /// How many inodes are known.
    pub fn names(&self) -> u64 {
        self.tree.names()
    }

    /// How many keys were seen that no path can name.
    pub fn hidden_keys(&self) -> u64 {
        self.tree.hidden_keys()
    }

    /// Tells the kernel, a little later.
    pub(crate) fn notify(&self, what: Notice) {
        // The receiver is gone only when the mount is.
        let _ = self.notices.send(what);
    }

    /// Where an inode lies, or ESTALE if no name leads to it any more.
    pub(crate) fn place(&self, ino: Ino) -> Result<Place> {
        self.tree.place(ino).ok_or_else(|| Error::new(Meaning::Stale, self.tree.path(ino)))
    }

    /// Where a directory lies, or ENOTDIR.
    pub(crate) fn directory_place(&self, ino: Ino) -> Result<Place> {
        match self.place(ino)? {
            Place::File(location) => Err(Error::new(Meaning::NotDirectory, location.to_string())),
            place => Ok(place),
        }
    }

    /// Waits until the store has what this mount wrote under these names.
    pub(crate) async fn settle(&self, wanted: impl Fn(&Location) -> bool) -> Result<()> {
        match &self.journal {
            Some(journal) => journal.settle(wanted).await,
            None => Ok(()),
        }
    }

    /// The same for one inode's own name.
    pub(crate) async fn settle_name(&self, ino: Ino) -> Result<()> {
        match self.tree.place(ino).and_then(|place| place.location()) {
            Some(location) => self.settle(|name| *name == location).await,
            None => Ok(()),
        }
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.config.read_only { Err(Error::new(Meaning::ReadOnly, "the mount is read-only")) } else { Ok(()) }
    }

    pub(crate) fn kind(&self, ino: Ino) -> Option<FileKind> {
        self.tree.read(ino, |inode| inode.attr.kind)
    }
}

/// A name as the kernel gives it, checked: UTF-8, and one that a key can hold.
pub(crate) fn checked_name(name: &OsStr) -> Result<&str> {
    let text = name.to_str().ok_or_else(|| Error::new(Meaning::BadName, format!("{name:?} is not UTF-8")))?;
    check_segment(text).map_err(|why| bad_name(text, why))?;
    Ok(text)
}

/// What a name that cannot be a key means.
pub(crate) fn bad_name(name: &str, why: BadName) -> Error {
    let meaning = match why {
        BadName::TooLong => Meaning::NameTooLong,
        BadName::Empty | BadName::DotSegment | BadName::Nul | BadName::Character => Meaning::InvalidArgument,
    };
    Error::new(meaning, format!("{name:?}: {why}"))
}
