//! mkdir, mknod, create: new names. A directory is a marker object; a bucket is made at the account's level; a file
//! costs nothing until it has something to store.

use std::ffi::OsStr;
use std::sync::Arc;

use crate::error::{Error, Meaning, Result};
use crate::format::key::BucketName;
use crate::store::versions::{ListedVersion, VersionsRequest};
use crate::store::{Key, Kind};
use crate::tree::{AclState, Attr, Entry, FileKind, Ino, Inode, Place};

use super::files::Handle;
use super::open::{Access, HandleId};
use super::{Caller, Fs, bad_name, checked_name};

/// The set-group-id bit: what is made in such a directory gets its group.
const SET_GID: u32 = 0o2000;

impl Fs {
    /// Makes a directory, or a bucket at the account's level. The kernel's lookup is counted.
    pub async fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32, caller: Caller) -> Result<Entry> {
        self.check_changeable(parent)?;
        let name = checked_name(name)?;
        let _held = self.tree.hold(parent);
        let place = self.directory_place(parent)?;
        if self.find(parent, name).await?.is_some() {
            return Err(Error::new(Meaning::Exists, name));
        }
        let attr = self.new_attr(parent, FileKind::Directory, mode, caller);
        let entry = match place {
            Place::Account => self.make_bucket(parent, name).await?,
            _ => {
                let entry = self.tree.insert(parent, name, attr, None);
                let entry = entry.ok_or_else(|| Error::new(Meaning::Stale, self.path(parent)))?;
                // The name was looked up just now: there is no marker whose headers were to be kept.
                self.tree.update(entry.ino, Inode::set_attributes_known);
                let made = match self.make_marker(entry.ino, &attr).await {
                    Ok(()) => self.keep_attributes(entry.ino).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = made {
                    self.tree.remove(parent, name);
                    return Err(error);
                }
                entry
            }
        };
        self.note_names_changed(parent);
        self.tree.remember(entry.ino);
        Ok(entry)
    }

    async fn make_bucket(&self, parent: Ino, name: &str) -> Result<Entry> {
        if !self.config.bucket_ops {
            return Err(Error::new(Meaning::NotPermitted, format!("bucket {name}: mounted with --no-bucket-ops")));
        }
        let bucket = BucketName::new(name).map_err(|why| bad_name(name, why))?;
        self.store.create_bucket(&bucket).await?;
        self.forget_refusal(&bucket);
        let defaults = self.config.defaults;
        let now = self.clock.now();
        let attr = Attr {
            kind: FileKind::Directory,
            size_bytes: 0,
            mode: defaults.dir_mode,
            uid: defaults.uid,
            gid: defaults.gid,
            mtime: now,
            atime: now,
            ctime: now,
        };
        self.tree.insert(parent, name, attr, None).ok_or_else(|| Error::new(Meaning::Stale, self.path(parent)))
    }

    /// Makes a regular file without opening it. The kernel's lookup is counted.
    pub async fn mknod(self: &Arc<Self>, parent: Ino, name: &OsStr, mode: u32, caller: Caller) -> Result<Entry> {
        let (entry, id) = self.create(parent, name, mode, Access { write: true, ..Access::default() }, caller).await?;
        let stored = match self.files.file(id, |_| true) {
            Ok(file) => self.commit(&file).await,
            Err(error) => Err(error),
        };
        self.release(id).await;
        stored.map(|()| entry)
    }

    /// Makes a file, or takes the one that is there, and opens it. The kernel's lookup is counted.
    pub async fn create(
        self: &Arc<Self>,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        access: Access,
        caller: Caller,
    ) -> Result<(Entry, HandleId)> {
        self.check_changeable(parent)?;
        let name = checked_name(name)?;
        let _held = self.tree.hold(parent);
        if self.directory_place(parent)? == Place::Account {
            return Err(Error::new(Meaning::NotPermitted, "only buckets, made by mkdir, lie at the account's level"));
        }
        if let Some(entry) = self.find(parent, name).await? {
            if access.exclusive {
                return Err(Error::new(Meaning::Exists, name));
            }
            let opened = self.open(entry.ino, access, caller).await?;
            self.tree.remember(entry.ino);
            return Ok((entry, opened.id));
        }
        let (attr, acl) = (self.new_attr(parent, FileKind::File, mode, caller), self.created_acl(parent).await?);
        let entry = self.tree.insert(parent, name, attr, None);
        let entry = entry.ok_or_else(|| Error::new(Meaning::Stale, self.path(parent)))?;
        if self.tree.place(entry.ino).and_then(|place| place.location()).is_none() {
            self.tree.remove(parent, name);
            return Err(Error::new(Meaning::NameTooLong, name));
        }
        self.tree.update(entry.ino, |inode| {
            inode.local = true;
            inode.set_acl(AclState::Sent(acl));
        });
        let file = self.files.get_or_insert(entry.ino, || Ok(self.data.create()))?;
        self.note_names_changed(parent);
        self.tree.pin(entry.ino);
        self.tree.remember(entry.ino);
        Ok((entry, self.files.add_handle(Handle::File { file, access })))
    }

    /// The attributes of something new.
    pub(crate) fn new_attr(&self, parent: Ino, kind: FileKind, mode: u32, caller: Caller) -> Attr {
        let now = self.clock.now();
        let inherited = self.tree.read(parent, |inode| inode.attr).filter(|attr| attr.mode & SET_GID != 0);
        let set_gid = if inherited.is_some() && kind == FileKind::Directory { SET_GID } else { 0 };
        Attr {
            kind,
            size_bytes: 0,
            mode: mode & 0o7777 | set_gid,
            uid: caller.uid,
            gid: inherited.map_or(caller.gid, |attr| attr.gid),
            mtime: now,
            atime: now,
            ctime: now,
        }
    }

    /// A name came or went: the directory's own times follow, here only.
    pub(crate) fn note_names_changed(&self, directory: Ino) {
        let now = self.clock.now();
        self.tree.update(directory, |inode| {
            inode.attr.mtime = now;
            inode.attr.ctime = now;
        });
    }

    /// Whether a bucket may be deleted here.
    pub(crate) fn check_bucket_ops(&self, bucket: &BucketName) -> Result<()> {
        if self.config.bucket_ops {
            return Ok(());
        }
        Err(Error::new(Meaning::NotPermitted, format!("bucket {bucket}: mounted with --no-bucket-ops")))
    }

    /// A store's refusal of a bucket that is not empty, in our words.
    pub(crate) async fn bucket_error(&self, bucket: &BucketName, error: crate::store::Error) -> Error {
        if error.kind == Kind::NotEmpty {
            self.log_what_is_unseen(bucket).await;
        }
        error.into()
    }

    /// Says what a bucket holds that `ls` does not show, counted as far as one page of versions tells.
    async fn log_what_is_unseen(&self, bucket: &BucketName) {
        let page = match self.store.list_versions(bucket, &VersionsRequest::default()).await {
            Ok(page) => page,
            Err(error) => return log::warn!("bucket {bucket} is not empty; what it holds cannot be listed: {error}"),
        };
        let at_least = if page.next.is_some() { "at least " } else { "" };
        let hidden = page.versions.iter().filter(|version| Key::new(&version.name.key).is_err()).count();
        let past = |version: &&ListedVersion| !version.is_latest || version.is_delete_marker;
        let old = page.versions.iter().filter(past).count();
        if hidden + old > 0 {
            log::warn!(
                "bucket {bucket} is not empty: it holds {at_least}{old} old versions and delete markers, and \
                 {at_least}{hidden} keys that no path can name. `dreamfs purge {bucket}` deletes all that it holds"
            );
        }
    }
}
