//! symlink and readlink: an object whose mode says that it is a link and whose body is the target (as s3fs does).
//! Hard links do not exist in a store: link(2) is refused by the kernel's default.

use std::ffi::OsStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;

use crate::error::{Error, Meaning, Result};
use crate::format::header::link_target;
use crate::store::{Condition, GetOptions};
use crate::tree::{AclState, Attr, Entry, FileKind, Ino, Object, Place};

use super::{Caller, Fs, checked_name};

/// Bytes of a link's target at most (PATH_MAX of Linux).
const TARGET_BYTES_MAX: u64 = 4096;

impl Fs {
    /// Makes a symbolic link. The kernel's lookup is counted.
    pub async fn symlink(&self, parent: Ino, name: &OsStr, target: Bytes, caller: Caller) -> Result<Entry> {
        self.check_changeable(parent)?;
        let name = checked_name(name)?;
        let _held = self.tree.hold(parent);
        if self.directory_place(parent)? == Place::Account {
            return Err(Error::new(Meaning::NotPermitted, "only buckets lie at the account's level"));
        }
        if self.find(parent, name).await?.is_some() {
            return Err(Error::new(Meaning::Exists, name));
        }
        let attr = Attr { size_bytes: target.len() as u64, ..self.new_attr(parent, FileKind::Symlink, 0o777, caller) };
        let entry = self.tree.insert(parent, name, attr, None);
        let entry = entry.ok_or_else(|| Error::new(Meaning::Stale, self.path(parent)))?;
        if let Err(error) = self.store_link(entry.ino, target).await {
            self.tree.remove(parent, name);
            return Err(error);
        }
        self.note_names_changed(parent);
        self.tree.remember(entry.ino);
        Ok(entry)
    }

    async fn store_link(&self, ino: Ino, target: Bytes) -> Result<()> {
        let acl = self.created_acl(self.parent(ino)).await?;
        self.tree.update(ino, |inode| {
            inode.local = true;
            inode.set_acl(AclState::Sent(acl));
        });
        self.keep_attributes(ino).await?;
        let headers = self.headers_to_store(ino).await?;
        let _moving = self.moving.read().await;
        let Place::File(location) = self.place(ino)? else {
            return Err(Error::new(Meaning::IsDirectory, self.path(ino)));
        };
        let size_bytes = target.len() as u64;
        let written = self.store.put(&location, target, &headers, &Condition::None).await?;
        self.tree.update(ino, |inode| {
            inode.local = false;
            inode.object = Some(Object {
                etag: written.etag,
                size_bytes,
                modified: None,
                version_id: written.version_id,
                storage_class: headers.storage_class.clone(),
                headers: Some(Arc::new(headers.seen())),
            });
        });
        Ok(())
    }

    /// The target of a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let Place::File(location) = self.place(ino)? else {
            return Err(Error::new(Meaning::InvalidArgument, self.path(ino)));
        };
        let (location, version_id) = match self.old_version(&location) {
            Some((real, id)) => (real, Some(id)),
            None => (location, None),
        };
        let got = self.store.get(&location, &GetOptions { version_id, ..GetOptions::default() }).await?;
        if let Some(target) = link_target(&got.head.headers.metadata) {
            return Ok(target.into());
        }
        if got.head.size_bytes > TARGET_BYTES_MAX {
            return Err(Error::new(Meaning::NameTooLong, location.to_string()));
        }
        let target: BytesMut = got.body.try_collect().await?;
        Ok(target.freeze())
    }
}
