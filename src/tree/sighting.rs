//! What the store said of names: the rules by which news meets what is already known.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::inode::{AclState, Attr, FileKind, Ino, Inode, Object};
use super::news::News;
use super::table::Table;
use super::{Defaults, Entry, Tree};

/// What the store said of one name.
#[derive(Clone, Debug)]
pub enum Sighting {
    /// A directory: there are keys below it.
    Directory,
    /// A bucket of the account.
    Bucket {
        /// When it was created.
        created: Option<SystemTime>,
    },
    /// An object as a listing shows it, without its metadata.
    Listed(Object),
    /// An object or marker with all its headers, and the attributes that follow from them.
    Full(Attr, Object),
}

/// What the store said of a directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// The names in it.
    pub names: Vec<(String, Sighting)>,
    /// Whether these are all of them; else there are more than a page.
    pub complete: bool,
    /// How long ago the newest object in it was stored; nothing if there is none.
    pub unchanged: Duration,
}

impl Sighting {
    /// The attributes of an inode that is made from this sighting.
    fn attr(&self, defaults: &Defaults) -> Attr {
        match self {
            Sighting::Directory => directory_attr(defaults, defaults.dir_time),
            Sighting::Bucket { created } => directory_attr(defaults, created.unwrap_or(defaults.dir_time)),
            Sighting::Full(attr, _) => *attr,
            Sighting::Listed(object) => {
                file_attr(defaults, object.size_bytes, object.modified.unwrap_or(defaults.dir_time))
            }
        }
    }

    fn object(&self) -> Option<&Object> {
        match self {
            Sighting::Directory | Sighting::Bucket { .. } => None,
            Sighting::Listed(object) | Sighting::Full(_, object) => Some(object),
        }
    }

    /// Whether an inode of this kind can be what was seen. A listing cannot tell a symbolic link from a file.
    fn may_be(&self, kind: FileKind) -> bool {
        match self {
            Sighting::Directory | Sighting::Bucket { .. } => kind == FileKind::Directory,
            Sighting::Listed(_) => kind != FileKind::Directory,
            Sighting::Full(attr, _) => attr.kind == kind,
        }
    }
}

/// The attributes of a file of which a listing tells.
pub(super) fn file_attr(defaults: &Defaults, size_bytes: u64, time: SystemTime) -> Attr {
    Attr {
        kind: FileKind::File,
        size_bytes,
        mode: defaults.file_mode,
        uid: defaults.uid,
        gid: defaults.gid,
        mtime: time,
        atime: time,
        ctime: time,
    }
}

/// The attributes of a directory of which the store tells nothing but a time.
pub(super) fn directory_attr(defaults: &Defaults, time: SystemTime) -> Attr {
    Attr {
        kind: FileKind::Directory,
        size_bytes: 0,
        mode: defaults.dir_mode,
        uid: defaults.uid,
        gid: defaults.gid,
        mtime: time,
        atime: time,
        ctime: time,
    }
}

impl Tree {
    /// Takes in what the store said of a directory's marker. No change of the directory.
    pub fn note_marker(&self, ino: Ino, attr: Attr, object: Object) {
        if let Some(inode) = self.lock().inodes.get_mut(&ino) {
            (inode.attr, inode.object, inode.checked) = (attr, Some(object), Some(Instant::now()));
        }
    }

    /// A listing has shown that a directory has no marker. No change of the directory.
    pub fn note_no_marker(&self, ino: Ino) {
        if let Some(inode) = self.lock().inodes.get_mut(&ino).filter(|inode| inode.object.is_none()) {
            inode.set_attributes_known();
        }
    }

    /// Takes in the attributes that a former mount learnt of the version that is there. No change of the file.
    pub fn note_remembered(&self, ino: Ino, attr: Attr) -> Option<Entry> {
        let mut table = self.lock();
        let inode = table.inodes.get_mut(&ino)?;
        // The kernel cannot bear another kind under a number that it knows.
        if inode.local || inode.lookups > 0 && inode.attr.kind != attr.kind {
            return None;
        }
        (inode.attr, inode.remembered) = (attr, true);
        table.entry(ino)
    }
}

impl Table {
    /// Takes in what the store said of one name.
    pub(super) fn sight(&mut self, parent: Ino, name: &str, sighting: Sighting, now: Instant) -> Option<Entry> {
        let known = self.child(parent, name);
        if let (Some(ino), Sighting::Listed(object)) = (known, &sighting)
            && self.inodes.confirm(ino, object, now)
        {
            return self.entry(ino);
        }
        let ino = match known.and_then(|ino| self.inodes.get_mut(&ino).map(|inode| (ino, inode))) {
            Some((ino, inode)) if inode.local => {
                inode.checked = Some(now);
                ino
            }
            Some((ino, inode)) if can_take_in(inode, &sighting) => {
                let defaults = self.defaults;
                let before = (inode.attr, inode.object.as_ref().map(|object| object.etag.clone()));
                take_in(inode, sighting, &defaults, now);
                let is_news = before != (inode.attr, inode.object.as_ref().map(|object| object.etag.clone()));
                if is_news && inode.lookups > 0 {
                    self.tell(News::Inode(ino));
                }
                ino
            }
            Some((_, _)) => {
                self.lose(parent, name);
                self.make(parent, name, sighting, now)?
            }
            None => {
                self.gain(parent, name, now);
                self.make(parent, name, sighting, now)?
            }
        };
        self.inodes.settle(ino);
        self.entry(ino)
    }

    fn make(&mut self, parent: Ino, name: &str, sighting: Sighting, now: Instant) -> Option<Ino> {
        let attr = sighting.attr(&self.defaults);
        let object = sighting.object().cloned();
        self.create(parent, &Arc::from(name), attr, object, now)
    }
}

/// Whether the inode can become what was seen: the same sort of file, and the same content unless nobody has it open.
fn can_take_in(inode: &Inode, sighting: &Sighting) -> bool {
    let same_content = match (&inode.object, sighting.object()) {
        (Some(known), Some(seen)) => known.etag == seen.etag && known.size_bytes == seen.size_bytes,
        (None, Some(_)) | (Some(_), None) => inode.attr.kind == FileKind::Directory,
        (None, None) => true,
    };
    // The kernel cannot bear another kind under a number that it knows.
    let kind_may_change = inode.lookups == 0 && inode.attr.kind != FileKind::Directory;
    let same_kind = sighting.may_be(inode.attr.kind)
        || kind_may_change && !matches!(sighting, Sighting::Directory | Sighting::Bucket { .. });
    same_kind && (same_content || inode.pins == 0)
}

fn take_in(inode: &mut Inode, sighting: Sighting, defaults: &Defaults, now: Instant) {
    inode.checked = Some(now);
    match sighting {
        Sighting::Directory => {}
        Sighting::Bucket { created } => {
            if let Some(created) = created {
                inode.attr.mtime = created;
                inode.attr.ctime = created;
            }
        }
        Sighting::Full(attr, object) => {
            if inode.object.as_ref().is_none_or(|known| !same_version(known, &object)) {
                inode.set_acl(AclState::Unknown);
            }
            inode.attr = attr;
            inode.object = Some(object);
        }
        Sighting::Listed(object) => match &mut inode.object {
            Some(known) if same_version(known, &object) => {
                known.modified = object.modified;
                known.storage_class = object.storage_class.or(known.storage_class.take());
            }
            _ => {
                inode.attr = Sighting::Listed(object.clone()).attr(defaults);
                inode.object = Some(object);
                (inode.asked, inode.remembered) = (false, false);
                inode.set_acl(AclState::Unknown);
            }
        },
    }
}

/// Whether nothing, not even metadata, has changed since. Our own writes do not know their time of storing.
fn same_version(known: &Object, seen: &Object) -> bool {
    let same_time = known.modified.is_none() || seen.modified.is_none() || known.modified == seen.modified;
    known.etag == seen.etag && known.size_bytes == seen.size_bytes && same_time
}
