//! unlink and rmdir. The object is gone from the store when the call returns; handles that are open keep its bytes.

use std::ffi::OsStr;

use crate::error::{Error, Meaning, Result};
use crate::format::key::BucketName;
use crate::store::{Kind, ListRequest};
use crate::tree::{FileKind, Ino, Knowledge, Place};

use super::{Fs, checked_name};

impl Fs {
    /// Removes a file or symbolic link.
    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.check_writable()?;
        let name = checked_name(name)?;
        let _held = self.tree.hold(parent);
        let ino = self.existing(parent, name).await?;
        self.check_changeable(ino)?;
        if self.kind(ino) == Some(FileKind::Directory) {
            return Err(Error::new(Meaning::IsDirectory, name));
        }
        let Place::File(location) = self.place(ino)? else { return Err(Error::new(Meaning::IsDirectory, name)) };
        let file = self.files.get(ino);
        let _guard = match &file {
            Some(file) => Some(file.lock.lock().await),
            None => None,
        };
        self.keep_directory(parent, Some(name)).await;
        if self.tree.read(ino, |inode| inode.object.is_some()).unwrap_or(false) {
            if let Some(file) = file.as_ref().filter(|_| self.is_open(ino)) {
                file.bytes.preserve().await?;
            }
            self.keep_copies(Some(ino), |at| *at == location).await?;
            self.store.delete(&location, None).await?;
        }
        self.tree.remove(parent, name);
        if !self.is_open(ino) {
            self.files.remove(ino);
        }
        self.note_names_changed(parent);
        self.keep_directory(parent, None).await;
        Ok(())
    }

    /// Removes an empty directory, or an empty bucket at the account's level.
    pub async fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.check_writable()?;
        let name = checked_name(name)?;
        let _held = self.tree.hold(parent);
        let ino = self.existing(parent, name).await?;
        self.check_changeable(ino)?;
        self.keep_directory(parent, Some(name)).await;
        let _held = self.owed.hold_marker(ino).await;
        match self.place(ino)? {
            Place::Directory { bucket, prefix } if prefix.marker().is_none() => {
                self.delete_bucket(ino, &bucket).await?;
            }
            Place::Directory { .. } => self.remove_directory(ino).await?,
            _ => return Err(Error::new(Meaning::NotDirectory, name)),
        }
        self.tree.remove(parent, name);
        self.note_names_changed(parent);
        self.keep_directory(parent, None).await;
        Ok(())
    }

    /// Deletes the marker of a directory that is empty in the store and here. The marker must be held.
    pub(crate) async fn remove_directory(&self, ino: Ino) -> Result<()> {
        let Place::Directory { bucket, prefix } = self.place(ino)? else {
            return Err(Error::new(Meaning::NotDirectory, self.path(ino)));
        };
        let not_empty = || Error::new(Meaning::NotEmpty, self.path(ino));
        if self.tree.children(ino).iter().any(|(_, entry)| self.is_local(entry.ino)) {
            return Err(not_empty());
        }
        // What was listed lately, or made here, is known to be empty or not.
        let marker = self.tree.read(ino, |inode| (inode.object.is_some(), inode.attributes_known()));
        if let Some((has_marker, true)) = marker
            && self.tree.knowledge(ino) == Knowledge::Complete
            && let Some(key) = prefix.marker()
        {
            if !self.visible_children(ino).is_empty() {
                return Err(not_empty());
            }
            return match has_marker {
                true => Ok(self.store.delete(&crate::store::Location { bucket, key }, None).await?),
                false => Ok(()),
            };
        }
        let request = ListRequest { prefix: prefix.as_str().to_owned(), keys_max: Some(2), ..ListRequest::default() };
        let page = self.store.list(&bucket, &request).await?;
        if page.objects.iter().any(|object| object.key != prefix.as_str()) {
            return Err(not_empty());
        }
        if !page.objects.is_empty()
            && let Some(key) = prefix.marker()
        {
            self.store.delete(&crate::store::Location { bucket, key }, None).await?;
        }
        Ok(())
    }

    async fn delete_bucket(&self, ino: Ino, bucket: &BucketName) -> Result<()> {
        self.check_bucket_ops(bucket)?;
        if self.tree.children(ino).iter().any(|(_, entry)| self.is_local(entry.ino)) {
            return Err(Error::new(Meaning::NotEmpty, self.path(ino)));
        }
        match self.store.delete_bucket(bucket).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind == Kind::NoSuchBucket => Ok(()),
            Err(error) => Err(self.bucket_error(bucket, error).await),
        }
    }

    /// The inode of a name that must be there.
    pub(crate) async fn existing(&self, parent: Ino, name: &str) -> Result<Ino> {
        let entry = self.find(parent, name).await?;
        entry.map(|entry| entry.ino).ok_or_else(|| Error::new(Meaning::NotFound, name))
    }

    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.tree.read(ino, |inode| inode.handles() > 0).unwrap_or(false)
    }

    fn is_local(&self, ino: Ino) -> bool {
        self.tree.read(ino, |inode| inode.local).unwrap_or(false)
    }
}
