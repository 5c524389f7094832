//! setattr, and the one road of every metadata change.
//!
//! Attributes of a dirty file ride with its upload. Those of a clean one cost a copy of the object onto itself with
//! new headers, in which everything that the object had is sent again: content headers, user metadata, storage class
//! and the ACL, which the store would otherwise reset.

use std::sync::Arc;
use std::time::SystemTime;

use crate::data::Version;
use crate::data::attributes::Remembered;
use crate::error::{Error, Meaning, Result};
use crate::format::header::{FORMAT_DIRECTORY, FORMAT_FILE, FORMAT_MASK, FORMAT_SYMLINK, Posix, link_target};
use crate::store::{Kind, ObjectHead, ObjectHeaders};
use crate::tree::{Attr, Entry, FileKind, Ino, Inode, Object, Place, Sighting};

use super::files::OpenFile;
use super::open::HandleId;
use super::{Attrs, Caller, Fs};

/// Set-user-id and set-group-id.
const SET_ID_MASK: u32 = 0o6000;

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// A time given by hand.
    At(SystemTime),
}

/// What setattr is to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size_bytes: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
}

impl Changes {
    fn apply(&self, attr: &Attr, now: SystemTime, caller: Caller) -> Attr {
        let time = |set: Option<SetTime>, old: SystemTime| match set {
            None => old,
            Some(SetTime::Now) => now,
            Some(SetTime::At(time)) => time,
        };
        let mut new = Attr {
            mode: self.mode.map_or(attr.mode, |mode| mode & 0o7777),
            uid: self.uid.unwrap_or(attr.uid),
            gid: self.gid.unwrap_or(attr.gid),
            atime: time(self.atime, attr.atime),
            mtime: time(self.mtime, attr.mtime),
            ..*attr
        };
        if (self.uid.is_some() || self.gid.is_some()) && self.mode.is_none() && attr.kind == FileKind::File {
            clear_set_id(&mut new, caller);
        }
        if new != *attr {
            new.ctime = now;
        }
        new
    }
}

/// A change by anyone but root takes set-id bits away (the kernel leaves this to us: FUSE_HANDLE_KILLPRIV_V2).
pub(crate) fn clear_set_id(attr: &mut Attr, caller: Caller) {
    if caller.uid != 0 {
        attr.mode &= !SET_ID_MASK;
    }
}

/// What a HEAD or GET told that attributes follow from.
pub(super) fn remembered(head: &ObjectHead) -> Remembered {
    Remembered {
        etag: head.etag.clone(),
        size_bytes: head.size_bytes,
        modified: head.modified,
        posix: Posix::read(&head.headers.metadata),
        target_bytes: link_target(&head.headers.metadata).map(|target| target.len() as u64),
    }
}

impl Fs {
    /// Changes attributes and length; answers the attributes as they are now.
    pub async fn setattr(&self, ino: Ino, handle: Option<HandleId>, set: Changes, caller: Caller) -> Result<Entry> {
        self.check_changeable(ino)?;
        match self.tree.place(ino) {
            Some(Place::File(_)) | None => self.set_file_attr(ino, handle, set, caller).await?,
            Some(Place::Directory { prefix, .. }) if prefix.marker().is_some() => {
                self.set_directory_attr(ino, set, caller).await?;
            }
            Some(_) => self.set_bucket_attr(ino, set, caller)?,
        }
        self.tree.entry(ino).ok_or_else(|| Error::new(Meaning::Stale, self.path(ino)))
    }

    async fn set_file_attr(&self, ino: Ino, handle: Option<HandleId>, set: Changes, caller: Caller) -> Result<()> {
        let file = self.open_file(ino)?;
        let result = self.set_open_attr(&file, handle, set, caller).await;
        // Also after an error: what stays in the table without need is not looked at again when others change it.
        if handle.is_none() {
            self.forget_file(file);
        }
        result
    }

    async fn set_open_attr(
        &self,
        file: &OpenFile,
        handle: Option<HandleId>,
        set: Changes,
        caller: Caller,
    ) -> Result<()> {
        let ino = file.ino;
        let _guard = file.lock.lock().await;
        if let Some(size_bytes) = set.size_bytes {
            if file.bytes.has_given_back() {
                self.commit_locked(file).await?;
            }
            self.truncate(file, size_bytes, caller).await?;
        }
        let old = self.known_attr(ino).await?;
        let new = set.apply(&old, self.clock.now(), caller);
        let times_set = set.mtime.map(|time| matches!(time, SetTime::At(_)));
        let was_set = self.tree.update(ino, |inode| {
            inode.attr = new;
            let before = inode.times_set;
            inode.times_set = times_set.unwrap_or(before);
            before
        });
        // A truncate(2) by path has no close that could store it; an open file's changes ride with its close.
        let result = match (file.bytes.is_dirty(), handle) {
            (true, Some(_)) => Ok(()),
            (true, None)
                if self.tree.read(ino, |inode| inode.handles() > 0) == Some(true) && set.size_bytes.is_none() =>
            {
                Ok(())
            }
            (true, None) => self.commit_locked(file).await,
            (false, _) if new != old && self.owe(ino, false, || ()) => self.keep_attributes(ino).await,
            (false, _) if new != old => self.commit_locked(file).await,
            (false, _) => Ok(()),
        };
        if result.is_err() && !file.bytes.is_dirty() {
            self.tree.update(ino, |inode| {
                inode.attr = old;
                inode.times_set = was_set.unwrap_or(false);
            });
        }
        result
    }

    async fn set_directory_attr(&self, ino: Ino, set: Changes, caller: Caller) -> Result<()> {
        let old = self.known_attr(ino).await?;
        let new = set.apply(&old, self.clock.now(), caller);
        if new == old {
            return Ok(());
        }
        if set.mtime.is_some() || set.atime.is_some() {
            self.tree.update(ino, |inode| inode.times_set = true);
        }
        self.owe_marker(ino, Some(&new), false).await?;
        self.keep_attributes(ino).await
    }

    /// A bucket and the account have no attributes of their own: times are kept while the mount lives, the rest must
    /// stay what it is.
    fn set_bucket_attr(&self, ino: Ino, set: Changes, caller: Caller) -> Result<()> {
        let now = self.clock.now();
        let changed = self.tree.update(ino, |inode| {
            let new = set.apply(&inode.attr, now, caller);
            let same = (new.mode, new.uid, new.gid) == (inode.attr.mode, inode.attr.uid, inode.attr.gid);
            if same {
                inode.attr = new;
            }
            same
        });
        match changed {
            Some(true) => Ok(()),
            _ => Err(Error::new(Meaning::Unsupported, "mode and owner of a bucket cannot be stored; see --dir-mode")),
        }
    }

    /// The attributes of an inode with what only its headers tell.
    async fn known_attr(&self, ino: Ino) -> Result<Attr> {
        self.known_headers(ino).await?;
        self.tree.read(ino, |inode| inode.attr).ok_or_else(|| Error::new(Meaning::Stale, self.path(ino)))
    }

    /// All headers that the object behind an inode has, from one HEAD if they are not known yet; `None` if there is
    /// no object.
    pub(crate) async fn known_headers(&self, ino: Ino) -> Result<Option<Arc<ObjectHeaders>>> {
        let known = self.tree.read(ino, |inode| {
            let object = inode.object.as_ref();
            let headers = object.map_or_else(|| inode.pending_headers(), |object| object.headers.clone());
            let unstored = object.is_none() && inode.local && inode.attr.kind != FileKind::Directory;
            (headers, inode.attributes_known(), unstored)
        });
        let (headers, asked, unstored) = known.ok_or_else(|| Error::new(Meaning::Stale, self.path(ino)))?;
        let Some(location) = self.tree.place(ino).and_then(|place| place.location()) else { return Ok(headers) };
        if headers.is_some() || asked || unstored {
            return Ok(headers);
        }
        // A file renamed while it was being written lies where its stored version lies.
        let stored = self.files.get(ino).and_then(|file| file.bytes.version());
        let stored = stored.filter(|version| version.version_id.is_none());
        let location = stored.map_or(location, |version| version.location);
        let head = match self.head_at(&location).await {
            Ok(head) => head,
            Err(error) if error.kind == Kind::NotFound => {
                self.tree.update(ino, Inode::set_attributes_known);
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let kind = self.kind(ino).unwrap_or(FileKind::File);
        let Sighting::Full(attr, object) = self.full_sighting(&head, kind) else { return Ok(None) };
        let headers = object.headers.clone();
        self.tree.update(ino, |inode| {
            if inode.local {
                // Its own attributes outrank the store's; what only the store has is kept.
                inode.object.get_or_insert(object).headers = headers.clone();
            } else if inode.attr.kind == attr.kind {
                inode.attr = attr;
                inode.object = Some(object);
            }
        });
        Ok(headers)
    }

    /// What a HEAD or GET tells of a name: attributes and object.
    pub(crate) fn full_sighting(&self, head: &ObjectHead, kind: FileKind) -> Sighting {
        let attr = self.attr_of(&remembered(head), kind);
        let object = Object {
            etag: head.etag.clone(),
            size_bytes: head.size_bytes,
            modified: Some(head.modified),
            version_id: head.version_id.clone(),
            storage_class: head.headers.storage_class.clone(),
            headers: Some(Arc::new(head.headers.clone())),
        };
        Sighting::Full(attr, object)
    }

    /// The attributes of an inode of this kind, as far as it can be told from what was told of its object.
    pub(super) fn attr_of(&self, told: &Remembered, kind: FileKind) -> Attr {
        let Remembered { posix, target_bytes, size_bytes, modified, .. } = told;
        let defaults = &self.config.defaults;
        let is_link = posix.mode.is_some_and(|mode| mode & FORMAT_MASK == FORMAT_SYMLINK);
        let kind = match kind {
            FileKind::Directory => FileKind::Directory,
            FileKind::File | FileKind::Symlink if is_link => FileKind::Symlink,
            FileKind::File | FileKind::Symlink => FileKind::File,
        };
        let default_mode = if kind == FileKind::Directory { defaults.dir_mode } else { defaults.file_mode };
        let mtime = posix.mtime.unwrap_or(*modified);
        Attr {
            kind,
            size_bytes: match (kind, target_bytes) {
                (FileKind::Directory, _) => 0,
                (FileKind::Symlink, Some(target_bytes)) => *target_bytes,
                (FileKind::File | FileKind::Symlink, _) => *size_bytes,
            },
            mode: posix.mode.map_or(default_mode, |mode| mode & 0o7777),
            uid: posix.uid.unwrap_or(defaults.uid),
            gid: posix.gid.unwrap_or(defaults.gid),
            mtime,
            atime: posix.atime.unwrap_or(mtime),
            ctime: posix.ctime.unwrap_or(*modified),
        }
    }

    /// The headers with which an inode's next version is stored: what its object has, what changed here, its ACL.
    pub(crate) async fn headers_to_store(&self, ino: Ino) -> Result<ObjectHeaders> {
        let known = self.known_headers(ino).await?;
        let acl = self.riding_acl(ino).await?;
        let attr = self.tree.read(ino, |inode| inode.attr);
        let attr = attr.ok_or_else(|| Error::new(Meaning::Stale, self.path(ino)))?;
        let mut headers = match known {
            Some(known) => (*known).clone(),
            None => self.new_headers(ino),
        };
        if attr.kind == FileKind::Directory {
            headers.content_type = Some("application/x-directory".to_owned());
        }
        to_posix(&attr).write(&mut headers.metadata);
        headers.encryption = headers.encryption.or_else(|| self.config.encryption.clone());
        headers.acl = acl;
        if let Some(location) = self.stored_location(ino) {
            headers.tags = self.told_tags(headers.tags, &location).await?;
        }
        Ok(headers)
    }

    /// The headers of what this mount creates: the mount's storage class, and the type that the name's ending tells.
    pub(crate) fn new_headers(&self, ino: Ino) -> ObjectHeaders {
        let name = self.tree.read(ino, |inode| inode.parent_and_name().1);
        let name = name.filter(|_| self.kind(ino) == Some(FileKind::File));
        let content_type = name.and_then(|name| mime_guess::from_path(&*name).first_raw());
        ObjectHeaders {
            content_type: content_type.map(str::to_owned),
            storage_class: self.config.storage_class.clone(),
            encryption: self.config.encryption.clone(),
            ..ObjectHeaders::default()
        }
    }

    /// A version was stored: the tree learns it.
    pub(crate) fn stored(&self, ino: Ino, version: &Version, headers: ObjectHeaders, still_dirty: bool) {
        let headers = headers.seen();
        self.tree.update(ino, |inode| {
            inode.local = still_dirty;
            // The kernel saw all that was written: its pages follow the content from version to version.
            if inode.pages == inode.object.as_ref().map(|object| object.etag.clone()) {
                inode.pages = Some(version.etag.clone());
            }
            inode.object = Some(Object {
                etag: version.etag.clone(),
                size_bytes: version.size_bytes,
                modified: None,
                version_id: None,
                storage_class: headers.storage_class.clone(),
                headers: Some(Arc::new(headers)),
            });
        });
    }

    /// Attributes that a plain listing could not show are about to be stored: the directory's marker must say that
    /// its files carry metadata. A bucket's root has no marker: it is judged by its objects.
    pub(crate) async fn keep_attributes(&self, ino: Ino) -> Result<()> {
        let known = self.tree.read(ino, |inode| (inode.times_set, inode.parent_and_name().0));
        let Some((times_set, parent)) = known else { return Ok(()) };
        let plain = self.is_plain(ino) && !times_set;
        let decided = self.config.attrs != Attrs::Auto || self.tree.posix(parent) == Some(true);
        if plain
            || decided
            || !self.config.markers
            || self.tree.place(parent).and_then(|place| place.location()).is_none()
        {
            return Ok(());
        }
        self.known_headers(parent).await?;
        self.owe_marker(parent, None, true).await?;
        self.tree.set_posix(parent, true);
        Ok(())
    }
}

/// Attributes as metadata.
pub(crate) fn to_posix(attr: &Attr) -> Posix {
    let format = match attr.kind {
        FileKind::Directory => FORMAT_DIRECTORY,
        FileKind::File => FORMAT_FILE,
        FileKind::Symlink => FORMAT_SYMLINK,
    };
    Posix {
        mode: Some(format | attr.mode),
        uid: Some(attr.uid),
        gid: Some(attr.gid),
        mtime: Some(attr.mtime),
        atime: Some(attr.atime),
        ctime: Some(attr.ctime),
    }
}
