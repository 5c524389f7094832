//! write, truncate, fallocate: changes of content, which stay local until a commit.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Meaning, Result};
use crate::format::header::Posix;
use crate::tree::Place;

use super::attr::clear_set_id;
use super::files::OpenFile;
use super::open::HandleId;
use super::{Caller, Fs, Notice};

/// FALLOC_FL_KEEP_SIZE: space without length (fallocate(2)).
const FALLOCATE_KEEP_SIZE: i32 = 0x01;

impl Fs {
    /// A copy of bytes that are about to be written.
    pub fn hold_bytes(&self, bytes: &[u8]) -> Bytes {
        self.data.cache().hold(bytes)
    }

    /// The same as [`Fs::write`] or, where the file `appends`, [`Fs::append`], if memory has room for the bytes and nobody
    /// else is at the file; does not wait.
    pub fn write_ready(
        self: &Arc<Self>,
        id: HandleId,
        offset: u64,
        bytes: &[u8],
        appends: bool,
        caller: Caller,
    ) -> bool {
        let Ok(file) = self.files.file(id, |access| access.write) else { return false };
        if file.check_not_overtaken().is_err() || !file.bytes.try_write_at(offset, bytes, appends) {
            return false;
        }
        self.note_change(&file, caller);
        if file.bytes.take_sending() {
            let fs = self.clone();
            self.data.spawn(async move {
                fs.send_ahead(&file).await;
                file.bytes.end_sending();
            });
        }
        true
    }

    /// Writes bytes at an offset; answers how many, which is all of them.
    pub async fn write(&self, id: HandleId, offset: u64, bytes: Bytes, caller: Caller) -> Result<u32> {
        let file = self.files.file(id, |access| access.write)?;
        file.check_not_overtaken()?;
        let written = bytes.len() as u32;
        self.with_room(&file, || file.bytes.write_at(offset, bytes.clone())).await?;
        self.note_change(&file, caller);
        self.send_ahead(&file).await;
        Ok(written)
    }

    /// Writes bytes at the end of a file that is open for appending. The kernel says where it thinks that is: it may
    /// not know yet how long another client has made the file.
    pub async fn append(&self, id: HandleId, offset: u64, bytes: Bytes, caller: Caller) -> Result<u32> {
        let file = self.files.file(id, |access| access.write)?;
        file.check_not_overtaken()?;
        let written = bytes.len() as u32;
        let end = self.with_room(&file, || file.bytes.append(bytes.clone())).await?;
        if end != offset {
            // Its pages have these bytes in the wrong place: the next open must not keep them.
            self.tree.note_pages(file.ino, None);
            self.notify(Notice::Inode(file.ino));
        }
        self.note_change(&file, caller);
        self.send_ahead(&file).await;
        Ok(written)
    }

    /// Changes a file's content. Where the local disk has no room for it, what the store has is given back first; and if
    /// that is nothing, the file is stored as it stands and goes on from there.
    async fn with_room<T, F: Future<Output = Result<T>>>(
        &self,
        file: &Arc<OpenFile>,
        change: impl Fn() -> F,
    ) -> Result<T> {
        loop {
            match change().await {
                Err(error) if error.meaning() == Meaning::NoSpace => match self.make_room(file).await {
                    Ok(true) => {}
                    Ok(false) => return Err(error),
                    Err(cause) => return Err(Error::with_source(Meaning::NoSpace, self.path(file.ino), cause)),
                },
                result => return result,
            }
        }
    }

    /// Frees local disk, of this file if it has any, else of others; answers whether there may be room now.
    async fn make_room(&self, file: &Arc<OpenFile>) -> Result<bool> {
        let mut files = self.files.all();
        files.sort_by_key(|other| other.ino != file.ino);
        for one in &files {
            let _guard = one.lock.lock().await;
            if let Some(Place::File(location)) = self.tree.place(one.ino)
                && one.bytes.give_back(&location).await? > 0
            {
                return Ok(true);
            }
        }
        let mut failure = Ok(false);
        for one in files.iter().filter(|one| one.bytes.staged_bytes() > 0) {
            let before_bytes = one.bytes.staged_bytes();
            match self.commit(one).await {
                Ok(()) if one.bytes.staged_bytes() < before_bytes => return Ok(true),
                // Unlinked while it is open: its bytes are nowhere else.
                Ok(()) => {}
                Err(error) => failure = failure.and(Err(error)),
            }
        }
        failure
    }

    /// A long file goes up while it is written.
    async fn send_ahead(&self, file: &OpenFile) {
        // A commit that is under way sends all there is.
        if file.bytes.wants_stream()
            && let Ok(_guard) = file.lock.try_lock()
            && let Some(Place::File(location)) = self.tree.place(file.ino)
            && let Ok(()) = self.keep_attributes(file.ino).await
            && let Ok(mut headers) = self.headers_to_store(file.ino).await
        {
            Posix::clear_times(&mut headers.metadata);
            file.bytes.begin_stream(&location, &headers).await;
        }
        file.bytes.send_parts().await;
    }

    /// Sets the length of a file.
    pub(crate) async fn truncate(&self, file: &OpenFile, size_bytes: u64, caller: Caller) -> Result<()> {
        if file.bytes.size_bytes() == size_bytes {
            return Ok(());
        }
        file.close_pages().await;
        file.bytes.truncate(size_bytes).await?;
        self.note_change(file, caller);
        Ok(())
    }

    /// Makes sure that the file is at least so long. Space itself cannot be reserved in a store.
    pub async fn fallocate(&self, id: HandleId, offset: u64, length: u64, mode: i32, caller: Caller) -> Result<()> {
        let file = self.files.file(id, |access| access.write)?;
        let end = offset.checked_add(length).ok_or_else(|| Error::new(Meaning::TooLarge, "fallocate"))?;
        match mode {
            FALLOCATE_KEEP_SIZE => Ok(()),
            0 if end > file.bytes.size_bytes() => self.truncate(&file, end, caller).await,
            0 => Ok(()),
            _ => Err(Error::new(Meaning::Unsupported, "fallocate can only extend")),
        }
    }

    /// The content changed here: size and times follow, and set-id bits go.
    pub(crate) fn note_change(&self, file: &OpenFile, caller: Caller) {
        let now = self.clock.now();
        let size_bytes = file.bytes.size_bytes();
        self.tree.update(file.ino, |inode| {
            // A commit may have come in between.
            inode.local = file.bytes.is_dirty();
            inode.times_set = false;
            inode.attr.size_bytes = size_bytes;
            inode.attr.mtime = now;
            inode.attr.ctime = now;
            clear_set_id(&mut inode.attr, caller);
        });
    }
}
