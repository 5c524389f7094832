//! One inode: its number, its attributes, and what is known of the object behind it.
//!
//! Passive data. What the fields mean together is decided in [`super`]; nothing here knows a store or a clock.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::format::acl::Acl;
use crate::store::{AclHeaders, ETag, ObjectHeaders};

use super::children::Directory;

/// The number of an inode, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// The root of the mount (FUSE_ROOT_ID).
pub const ROOT: Ino = Ino(1);

/// What sort of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory: a bucket, a prefix or a marker.
    Directory,
    /// A regular file: an object.
    File,
    /// A symbolic link: an object whose mode says so and whose body is the target.
    Symlink,
}

/// The POSIX attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// What sort of file.
    pub kind: FileKind,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Permissions: the lower twelve bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content.
    pub mtime: SystemTime,
    /// Last access.
    pub atime: SystemTime,
    /// Last change of attributes.
    pub ctime: SystemTime,
}

/// What is known of the object behind a file, or of the marker behind a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Which version of the content.
    pub etag: ETag,
    /// Its length in the store, in bytes.
    pub size_bytes: u64,
    /// When it was stored; `None` after our own write, until a listing tells.
    pub modified: Option<SystemTime>,
    /// Its id in a versioned bucket, where told.
    pub version_id: Option<String>,
    /// Storage class, where told.
    pub storage_class: Option<String>,
    /// All headers and metadata, once a HEAD, a GET or our own write has taught them.
    pub headers: Option<Arc<ObjectHeaders>>,
}

/// What is known of the ACL of the object behind an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AclState {
    /// Nothing: the store must be asked.
    #[default]
    Unknown,
    /// What this mount sent, or will send, with the write that makes the object; `None` is the store's default.
    Sent(Option<AclHeaders>),
    /// What the store told.
    Known(Arc<Acl>),
}

/// One inode of the table.
#[derive(Debug)]
pub struct Inode {
    /// The directory it is in; of a detached one, the last.
    pub(super) parent: Ino,
    /// Its name there.
    pub(super) name: Arc<str>,
    /// How many lookups the kernel has not yet forgotten.
    pub(super) lookups: u64,
    /// How many handles are open.
    pub(super) pins: u32,
    /// Whether no name leads here any more: unlinked, renamed over, or replaced by another client.
    pub(super) detached: bool,
    /// Whether its name was taken away through this mount: what is still written to it is nobody's.
    pub(super) unlinked: bool,
    /// When the store last confirmed it; `None` if it is to be asked again.
    pub(super) checked: Option<Instant>,
    /// The names in it, if it is a directory.
    pub(super) directory: Option<Box<Directory>>,
    /// POSIX attributes.
    pub attr: Attr,
    /// Headers for what is not stored yet.
    pub(super) pending: Option<Arc<ObjectHeaders>>,
    /// Whether a HEAD was answered for this version, if only by "not found": a directory need not have a marker.
    pub(super) asked: bool,
    /// Whether its attributes are those that a former mount learnt of this version; its headers need not be known.
    pub(super) remembered: bool,
    /// What is known of the ACL of the object behind it, and since when; boxed, since few are asked for.
    pub(super) acl: Option<Box<(AclState, Instant)>>,
    /// The object behind it; `None` for what is not (yet) stored, and for a directory without a known marker.
    pub object: Option<Object>,
    /// The version whose bytes the kernel's pages of this inode are, if they are any one's.
    pub pages: Option<ETag>,
    /// Whether this mount has content or attributes that the store has not: the store's view does not count then.
    pub local: bool,
    /// Whether the times were set by hand, so that the time of storing cannot stand in for them.
    pub times_set: bool,
}

impl Inode {
    /// An inode that nobody knows yet.
    pub(super) fn new(
        parent: Ino,
        name: Arc<str>,
        attr: Attr,
        object: Option<Object>,
        checked: Option<Instant>,
    ) -> Self {
        Inode {
            parent,
            name,
            lookups: 0,
            pins: 0,
            detached: false,
            unlinked: false,
            checked,
            directory: (attr.kind == FileKind::Directory).then(Box::default),
            attr,
            pending: None,
            asked: false,
            remembered: false,
            acl: None,
            object,
            local: false,
            times_set: false,
            pages: None,
        }
    }

    /// Whether nothing is known of it but what a listing tells, and no handle is open.
    pub(super) fn is_as_listed(&self) -> bool {
        let is_used = self.pins > 0 || self.detached || self.unlinked || self.local;
        let is_known = self.asked || self.remembered || self.times_set || self.pending.is_some() || self.acl.is_some();
        !is_used && !is_known && self.directory.is_none() && self.pages.is_none()
    }

    /// Whether no name leads here any more.
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    /// Whether it was unlinked, or renamed over, through this mount.
    pub fn is_unlinked(&self) -> bool {
        self.unlinked
    }

    /// Whether all attributes that the store has are known.
    pub fn attributes_known(&self) -> bool {
        self.asked || self.object.as_ref().is_some_and(|object| object.headers.is_some())
    }

    /// Whether its POSIX attributes are known, if not all that the store has.
    pub fn posix_known(&self) -> bool {
        self.remembered || self.attributes_known()
    }

    /// Notes that the store was asked for attributes and has none.
    pub fn set_attributes_known(&mut self) {
        self.asked = true;
    }

    /// What is known of the ACL. What was learned longer than `ttl` ago of an object that is stored may have been
    /// changed by others, who leave no other trace.
    pub fn acl(&self, ttl: Duration) -> AclState {
        match self.acl.as_deref() {
            Some((_, since)) if self.object.is_some() && since.elapsed() > ttl => AclState::Unknown,
            Some((state, _)) => state.clone(),
            None => AclState::Unknown,
        }
    }

    /// Notes what is known of the ACL, from now on.
    pub fn set_acl(&mut self, state: AclState) {
        self.acl = (state != AclState::Unknown).then(|| Box::new((state, Instant::now())));
    }

    /// Notes headers that the next version is to have.
    pub fn set_headers(&mut self, headers: Option<ObjectHeaders>) {
        let headers = headers.map(Arc::new);
        match &mut self.object {
            Some(object) => object.headers = headers,
            None => self.pending = headers,
        }
    }

    /// Headers that were set before anything was stored.
    pub fn pending_headers(&self) -> Option<Arc<ObjectHeaders>> {
        self.pending.clone()
    }

    /// How many handles are open.
    pub fn handles(&self) -> u32 {
        self.pins
    }

    /// Where it is: its directory and its name there.
    pub fn parent_and_name(&self) -> (Ino, Arc<str>) {
        (self.parent, self.name.clone())
    }
}
