//! flush, fsync, release, drain: when bytes become an object.
//!
//! Errors come back from the call that can still be heard. A file that was created or emptied by open and not yet
//! written waits for its first byte or its release, so that `echo x > f` costs one PUT; if storing it at release
//! fails, its state says so and the next open or fsync of it returns the error.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::data::{Replaces, UploadState};
use crate::error::{Error, Meaning, Result};
use crate::format::header::Posix;
use crate::store::{Kind, Location, ObjectHeaders};
use crate::tree::{Ino, Place, ROOT};

use super::Fs;
use super::files::{Handle, OpenFile};
use super::open::HandleId;

/// Stores tell the time of storing in whole seconds, and their clocks are not ours.
const STORE_TIME_GRAIN: Duration = Duration::from_secs(2);

/// How much later than its last write a file's time may be, before it is worth another request to say so.
const LATE_MAX: Duration = Duration::from_secs(60);

/// A file with bytes that the store does not have.
#[derive(Clone, Debug)]
pub struct UnsavedFile {
    /// Its path from the mount's root.
    pub path: String,
    /// How far it is.
    pub state: UploadState,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Where its bytes lie now, if they were parked.
    pub parked: Option<PathBuf>,
}

impl Fs {
    /// close(2): what was written is in the store when this answers Ok.
    pub async fn flush(&self, id: HandleId) -> Result<()> {
        match self.files.handle(id)? {
            Handle::File { file, access } if access.write && file.bytes.is_written() => self.commit(&file).await,
            // Another call may have stored what was written here, or have failed to.
            Handle::File { file, access } if access.write => file.check_not_overtaken(),
            _ => Ok(()),
        }
    }

    /// fsync(2): all of the file is in the store when this answers Ok, and it stays writable.
    pub async fn fsync(&self, id: HandleId) -> Result<()> {
        let file = self.files.file(id, |_| true)?;
        match file.take_unheard_failure() {
            Some(error) if !file.bytes.is_dirty() => Err(error),
            _ => {
                self.commit(&file).await?;
                self.settle_name(file.ino).await
            }
        }
    }

    /// fsync(2) of a directory: all files below it are in the store when this answers Ok.
    pub async fn fsync_directory(&self, directory: Ino) -> Result<()> {
        for file in self.files.all() {
            if self.tree.is_below(file.ino, directory) {
                self.commit(&file).await?;
                self.forget_file(file);
            }
        }
        self.settle_owed(directory).await?;
        match self.place(directory)? {
            Place::Account => self.settle(|_| true).await,
            Place::Directory { bucket, prefix } => {
                self.settle(|name| name.bucket == bucket && name.key.as_str().starts_with(prefix.as_str())).await
            }
            Place::File(_) => Ok(()),
        }
    }

    /// The last close of a handle. Nobody hears an error from here.
    pub async fn release(&self, id: HandleId) {
        let Some(Handle::File { file, access }) = self.files.take_handle(id) else { return };
        let left = self.tree.unpin(file.ino);
        if file.bytes.is_dirty()
            && access.write | access.truncate
            && let Err(error) = self.commit(&file).await
        {
            log::error!("{}: not stored: {error}", self.path(file.ino));
            file.fail_unheard(&error);
        }
        if left == 0 {
            self.forget_file(file);
        }
    }

    /// Takes a file out of the table once nobody uses it and the store has all of it.
    pub(crate) fn forget_file(&self, file: Arc<OpenFile>) {
        let unused = self.tree.read(file.ino, |inode| inode.handles() == 0).unwrap_or(true);
        let kept = file.bytes.is_dirty() && self.tree.place(file.ino).is_some();
        if unused && !kept {
            self.files.remove_unused(file);
        }
    }

    /// Stores a file's present content and attributes, if the store has not got them.
    pub(crate) async fn commit(&self, file: &Arc<OpenFile>) -> Result<()> {
        let _guard = file.lock.lock().await;
        file.check_not_overtaken()?;
        if !file.bytes.is_dirty() && !self.owes_attributes(file.ino) {
            return Ok(());
        }
        self.commit_locked(file).await
    }

    /// The same, with the file's lock held, also for a clean file whose attributes changed.
    pub(crate) async fn commit_locked(&self, file: &OpenFile) -> Result<()> {
        // Unlinked while it was open: there is no name to store it under.
        if self.tree.read(file.ino, |inode| inode.is_unlinked()) == Some(true) {
            return Ok(());
        }
        self.keep_attributes(file.ino).await?;
        let _moving = self.moving.read().await;
        let location = match self.tree.place(file.ino) {
            Some(Place::File(location)) => location,
            Some(_) => return Err(Error::new(Meaning::IsDirectory, self.path(file.ino))),
            None if self.tree.read(file.ino, |inode| inode.is_unlinked()) == Some(true) => return Ok(()),
            // Its name, or that of a directory above it, is not what it was.
            None => {
                return Err(Error::new(Meaning::Stale, format!("{}: replaced by another client", self.path(file.ino))));
            }
        };
        self.commit_to(file, &location, Replaces::ItsBase).await
    }

    /// Stores a file under a key, with the file's lock held.
    pub(crate) async fn commit_to(&self, file: &OpenFile, location: &Location, replaces: Replaces) -> Result<()> {
        let mut headers = self.headers_to_store(file.ino).await?;
        let noted = self.note_finish(location, self.known_acl(file.ino), &headers.tags).await?;
        let dated = self.tree.read(file.ino, |inode| inode.times_set) == Some(true);
        let undated = file.bytes.is_streaming() && !dated;
        if undated {
            Posix::clear_times(&mut headers.metadata);
        }
        self.keep_copies(Some(file.ino), |at| at == location).await?;
        self.commit_with(file, location, &headers, replaces).await?;
        if undated {
            self.take_stored_time(file, location, headers).await?;
        }
        self.owed.note_writable(&location.bucket);
        self.release_markers(file.ino).await;
        self.finish(noted).await
    }

    /// Stores a file with these headers. What went up while it was written may have been begun with others: then the
    /// object is copied onto itself.
    async fn commit_with(
        &self,
        file: &OpenFile,
        location: &Location,
        headers: &ObjectHeaders,
        replaces: Replaces,
    ) -> Result<()> {
        let (version, stored) = match file.bytes.commit(location, headers, replaces).await {
            Ok(made) => made,
            Err(error) if error.store_kind() == Some(Kind::PreconditionFailed) && file.bytes.is_dirty() => {
                return Err(self.lose_race(file, location, headers, error).await);
            }
            Err(error) => return Err(error),
        };
        let differ = stored != *headers;
        self.stored(file.ino, &version, stored, file.bytes.is_dirty());
        if differ {
            let (version, stored) = file.bytes.commit(location, headers, Replaces::ItsBase).await?;
            self.stored(file.ino, &version, stored, file.bytes.is_dirty());
        }
        Ok(())
    }

    /// A file that went up while it was written carries no time of its own: the store's is its time from now on. A
    /// store that says when the upload began is told better.
    async fn take_stored_time(&self, file: &OpenFile, location: &Location, headers: ObjectHeaders) -> Result<()> {
        let Some(version) = file.bytes.version() else { return Ok(()) };
        let head = match self.store.head(location, None).await {
            Ok(head) => head,
            // The bytes are stored, which is what was asked for; the time is seen with the next look.
            Err(error) => {
                log::debug!("{location}: its time is not known yet: {error}");
                return Ok(());
            }
        };
        let Some(written) = self.tree.read(file.ino, |inode| inode.attr.mtime) else { return Ok(()) };
        if head.etag != version.etag || file.bytes.is_dirty() {
            return Ok(());
        }
        if head.modified + STORE_TIME_GRAIN < written || written + LATE_MAX < head.modified {
            let mut headers = headers;
            headers.metadata.extend(self.headers_to_store(file.ino).await?.metadata);
            return self.commit_with(file, location, &headers, Replaces::ItsBase).await;
        }
        self.tree.update(file.ino, |inode| {
            inode.attr.mtime = head.modified;
            inode.attr.ctime = head.modified;
            if let Some(object) = &mut inode.object {
                object.modified = Some(head.modified);
            }
        });
        Ok(())
    }

    /// Stores everything that no handle holds open, and answers what could not be stored.
    pub async fn drain(&self) -> Vec<UnsavedFile> {
        for file in self.files.all() {
            let open = self.tree.read(file.ino, |inode| inode.handles() > 0).unwrap_or(false);
            if file.bytes.is_dirty()
                && !open
                && let Err(error) = self.commit(&file).await
            {
                log::error!("{}: not stored: {error}", self.path(file.ino));
                file.fail_unheard(&error);
            }
            self.forget_file(file);
        }
        // A failure is told with what is not stored.
        let _ = self.settle_owed(ROOT).await;
        self.data.close().await;
        self.unsaved()
    }

    /// Files with bytes that the store does not have.
    pub fn unsaved(&self) -> Vec<UnsavedFile> {
        let unsaved = self.files.all().into_iter().filter(|file| file.bytes.is_dirty());
        let named = unsaved.filter(|file| self.tree.place(file.ino).is_some());
        let mut unsaved: Vec<_> = named.map(|file| self.describe(&file, None)).collect();
        unsaved.extend(self.unsaved_attributes());
        if let Some(journal) = &self.journal {
            let left = journal.left().into_iter().map(|left| UnsavedFile {
                path: self.shown(&left.name),
                state: left.state,
                size_bytes: left.bytes,
                parked: Some(journal.folder()),
            });
            unsaved.extend(left);
        }
        unsaved
    }

    /// An object's path from the mount's root.
    fn shown(&self, location: &Location) -> String {
        match &self.config.root {
            Place::Directory { prefix, .. } => {
                let key = location.key.as_str();
                key.strip_prefix(prefix.as_str()).unwrap_or(key).to_owned()
            }
            _ => location.to_string(),
        }
    }

    /// The mount ends with unsaved files: their bytes stay where they are staged, with a record of what they are.
    pub fn park_unsaved(&self) -> Vec<UnsavedFile> {
        let unsaved = self.files.all().into_iter().filter(|file| file.bytes.is_dirty());
        let parked = unsaved.filter_map(|file| match self.tree.place(file.ino)? {
            Place::File(location) => Some(self.describe(&file, file.bytes.park(&location))),
            _ => None,
        });
        parked.collect()
    }

    fn describe(&self, file: &OpenFile, parked: Option<PathBuf>) -> UnsavedFile {
        UnsavedFile {
            path: self.path(file.ino),
            state: file.bytes.upload_state(),
            size_bytes: file.bytes.size_bytes(),
            parked,
        }
    }
}
