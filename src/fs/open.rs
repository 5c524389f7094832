//! open: what a handle stands for is the version that the store has now.
//!
//! An open for reading sends the first GET at once, with If-Match of the version that the name stands for, and waits
//! for its head: what another client has changed is found out here, where the kernel can look the name up again.

use std::sync::Arc;

use crate::data::Version;
use crate::error::{Error, Meaning, Result};
use crate::store::Kind;
use crate::tree::{FileKind, Ino, Place, Sighting};

use super::files::{Handle, OpenFile};
use super::{Caller, Fs};

/// The number of an open handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Emptied at once (O_TRUNC).
    pub truncate: bool,
    /// Only if there is no such name yet (O_EXCL).
    pub exclusive: bool,
}

/// What an open gives to the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The handle.
    pub id: HandleId,
    /// Whether the pages that the kernel may have of this inode are still its content.
    pub keep_pages: bool,
}

impl Fs {
    /// Opens a file.
    pub async fn open(self: &Arc<Self>, ino: Ino, access: Access, caller: Caller) -> Result<Opened> {
        if access.write || access.truncate {
            self.check_changeable(ino)?;
        }
        let file = self.open_file(ino)?;
        if access.write || access.truncate {
            file.close_pages().await;
        } else {
            self.expect_next(ino);
        }
        match self.open_checked(&file, access, caller).await {
            Ok(()) => {
                let keep_pages = self.pages_kept(&file);
                Ok(Opened { id: self.files.add_handle(Handle::File { file, access }), keep_pages })
            }
            Err(error) => {
                self.forget_file(file);
                if error.meaning() == Meaning::Archived {
                    log::warn!(
                        "{}: it is archived. `setfattr -n user.s3.restore -v DAYS` asks the store for its bytes, which \
                         takes minutes to hours",
                        self.path(ino)
                    );
                }
                Err(error)
            }
        }
    }

    async fn open_checked(&self, file: &OpenFile, access: Access, caller: Caller) -> Result<()> {
        if let Some(error) = file.take_unheard_failure() {
            return Err(error);
        }
        let _guard = file.lock.lock().await;
        if let Err(error) = file.check_not_overtaken() {
            self.look_again(file).await?;
            return Err(error);
        }
        if !file.bytes.is_dirty() {
            match access.write || access.truncate {
                true => self.confirm(file).await?,
                false => self.validate(file).await?,
            }
        }
        if access.truncate {
            self.empty(file, caller);
        }
        self.tree.pin(file.ino);
        Ok(())
    }

    /// The file of an inode, opened by its stored version if it is not in the table yet.
    pub(crate) fn open_file(&self, ino: Ino) -> Result<Arc<OpenFile>> {
        self.take_ahead(ino);
        self.file_of(ino)
    }

    /// The same, also where it was fetched ahead.
    pub(super) fn file_of(&self, ino: Ino) -> Result<Arc<OpenFile>> {
        self.files.get_or_insert(ino, || {
            let location = match self.place(ino)? {
                Place::File(location) => location,
                _ => return Err(Error::new(Meaning::IsDirectory, self.path(ino))),
            };
            let object = self.tree.read(ino, |inode| inode.object.clone()).flatten();
            let object = object.ok_or_else(|| Error::new(Meaning::Stale, location.to_string()))?;
            let (location, version_id) = match self.old_version(&location) {
                Some((real, id)) => (real, Some(id)),
                None => (location, None),
            };
            Ok(self.data.open(Version { location, etag: object.etag, size_bytes: object.size_bytes, version_id }))
        })
    }

    /// Whether the kernel's pages of a file are its content; after this open they are.
    fn pages_kept(&self, file: &OpenFile) -> bool {
        let etag = file.bytes.version().map(|version| version.etag);
        let unsaved = file.bytes.is_dirty();
        let kept = self.tree.read(file.ino, |inode| inode.pages == etag).unwrap_or(false);
        if !kept {
            self.tree.note_pages(file.ino, etag);
        }
        kept || unsaved
    }

    /// Whether the file's version lies on this machine, in the kernel's pages or on disk, and the store said lately that
    /// it is the present one: then an open costs nothing.
    async fn is_trusted(&self, file: &OpenFile) -> bool {
        let Some(version) = file.bytes.version() else { return false };
        let kept = self.tree.read(file.ino, |inode| {
            let present = inode.object.as_ref().map(|object| &object.etag);
            (present == Some(&version.etag)).then(|| inode.pages.as_ref() == present)
        });
        let believed = self.tree.entry(file.ino).is_some_and(|entry| !entry.ttl.is_zero());
        match kept.flatten() {
            Some(in_pages) if believed => in_pages || file.bytes.is_on_disk().await,
            _ => false,
        }
    }

    /// Asks whether the file's version is still the one in the store. If not, the tree learns what is there now and
    /// the caller gets ESTALE once, on which the kernel looks the name up again.
    async fn validate(&self, file: &OpenFile) -> Result<()> {
        let shared = self.tree.read(file.ino, |inode| inode.handles() > 0 && !inode.is_detached()).unwrap_or(false);
        // Bytes that the kernel has need not be fetched again, only to learn that they are right.
        let warmed = if self.is_trusted(file).await { Ok(None) } else { file.bytes.warm().await };
        let fresh = match warmed {
            Ok(Some(head)) => Ok(head),
            Ok(None) if !shared => return Ok(()),
            // Others have it open and its first bytes are here: only the store can tell whether it is still current.
            Ok(None) => {
                let Some(version) = file.bytes.version() else { return Ok(()) };
                match self.store.head(&version.location, version.version_id.as_deref()).await {
                    Ok(head) if head.etag == version.etag => Ok(head),
                    Ok(_) => Err(Error::new(Meaning::Stale, version.location.to_string())),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error),
        };
        match fresh {
            Ok(head) => {
                self.learn_head(file.ino, &head);
                Ok(())
            }
            Err(error) if matches!(error.meaning(), Meaning::Stale | Meaning::NotFound) => {
                self.look_again(file).await?;
                Err(Error::with_source(Meaning::Stale, self.path(file.ino), error))
            }
            Err(error) => Err(error),
        }
    }

    /// Before the file is changed: asks whether its version is still the one in the store, since only that will be
    /// replaced. If not, the caller gets ESTALE as from [`Fs::validate`].
    async fn confirm(&self, file: &OpenFile) -> Result<()> {
        let Some(version) = file.bytes.version() else { return Ok(()) };
        match self.store.head(&version.location, None).await {
            Ok(head) if head.etag == version.etag => {
                self.learn_head(file.ino, &head);
                Ok(())
            }
            Err(error) if error.kind != Kind::NotFound => Err(error.into()),
            _ => {
                self.look_again(file).await?;
                Err(Error::new(Meaning::Stale, self.path(file.ino)))
            }
        }
    }

    /// Another client has replaced or removed the object: the tree learns what its name stands for now.
    pub(crate) async fn look_again(&self, file: &OpenFile) -> Result<()> {
        let Some(Place::File(location)) = self.tree.place(file.ino) else { return Ok(()) };
        let Some((parent, name)) = self.tree.read(file.ino, |inode| inode.parent_and_name()) else { return Ok(()) };
        match self.head_at(&location).await {
            Ok(head) => {
                self.tree.sight(parent, &name, self.full_sighting(&head, FileKind::File));
            }
            Err(error) if error.kind == Kind::NotFound => self.tree.sight_absent(parent, &name),
            Err(error) => return Err(error.into()),
        }
        if self.tree.read(file.ino, |inode| inode.handles() == 0).unwrap_or(true) {
            self.files.remove(file.ino);
        }
        Ok(())
    }

    /// Takes in the attributes that a GET or HEAD of the file's present version told.
    pub(super) fn learn_head(&self, ino: Ino, head: &crate::store::ObjectHead) {
        let wanting = self.tree.read(ino, |inode| {
            // What the tree learned meanwhile may be newer.
            let present = inode.object.as_ref().is_some_and(|object| object.etag == head.etag);
            present && !(inode.is_detached() || inode.local || inode.attributes_known())
        });
        if wanting != Some(true) || self.is_old(ino) {
            return;
        }
        if let Some((parent, name)) = self.tree.read(ino, |inode| inode.parent_and_name())
            && let sighting @ Sighting::Full(attr, _) = self.full_sighting(head, FileKind::File)
            && attr.kind == FileKind::File
        {
            self.tree.sight(parent, &name, sighting);
        }
    }

    /// O_TRUNC: the content is gone here at once; the store learns it with the next close, or at release.
    fn empty(&self, file: &OpenFile, caller: Caller) {
        let now = self.clock.now();
        file.bytes.mark_emptied();
        self.tree.update(file.ino, |inode| {
            inode.local = true;
            inode.times_set = false;
            inode.attr.size_bytes = 0;
            inode.attr.mtime = now;
            inode.attr.ctime = now;
            super::attr::clear_set_id(&mut inode.attr, caller);
        });
    }

    /// Handles of files that are open now.
    pub fn open_handles(&self) -> u64 {
        self.files.open_handles()
    }
}
