//! read: bytes of an open file, never of two versions.
//!
//! A file that is read here and there, and for whose pieces its readers have waited as long as all of it would take, is
//! brought in whole: not into our memory but into the kernel's page cache, where the next read finds it without us.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::data::LocalCopy;
use crate::error::Result;
use crate::tree::Ino;

use super::files::OpenFile;
use super::open::HandleId;
use super::{Fs, Notice};

impl Fs {
    /// The same as [`Fs::read`], if the bytes are in memory; does not wait.
    pub fn read_ready(&self, id: HandleId, offset: u64, size: u32) -> Option<Bytes> {
        let file = self.files.file(id, |access| access.read || access.write).ok()?;
        file.bytes.read_ready(offset, size as usize)
    }

    /// Up to `size` bytes from `offset`; fewer only at the end of the file.
    pub async fn read(self: &Arc<Self>, id: HandleId, offset: u64, size: u32) -> Result<Bytes> {
        let file = self.files.file(id, |access| access.read || access.write)?;
        let bytes = match file.bytes.read_at(offset, size as usize).await {
            // Some of it was too long to be kept here: it can be read once the file is stored.
            Err(_) if file.bytes.has_given_back() => {
                self.commit(&file).await?;
                file.bytes.read_at(offset, size as usize).await?
            }
            read => read?,
        };
        if file.bytes.take_hot(self.config.whole_file_bytes_max) {
            self.data.spawn(self.clone().bring_in(file));
        }
        Ok(bytes)
    }

    /// An open file's copy on the local disk, for a kernel that can read from it by itself.
    pub async fn local_copy(&self, ino: Ino) -> Option<LocalCopy> {
        self.files.get(ino)?.bytes.local_copy().await
    }

    /// Puts all of a file into the kernel's page cache, as long as it is open, and unchanged here and in the store.
    async fn bring_in(self: Arc<Self>, file: Arc<OpenFile>) {
        let mut offset = 0;
        while self.is_open(file.ino)
            && let Some(guard) = file.keep_pages().await
            && let Ok(Some(bytes)) = file.bytes.read_through(offset).await
        {
            let length = bytes.len() as u64;
            let (done, told) = oneshot::channel();
            self.notify(Notice::Pages { ino: file.ino, offset, bytes, done });
            if told.await.is_err() {
                // The mount is going.
                break;
            }
            drop(guard);
            offset += length;
        }
        log::debug!("{}: {offset} bytes brought in", self.path(file.ino));
        file.bytes.end_bringing_in().await;
        self.forget_file(file);
    }
}
