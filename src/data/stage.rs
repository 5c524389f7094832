//! Bytes that the store does not have yet, in a sparse file of the state folder, at the file's own offsets.
//!
//! The staging file goes with its last user, unless it was parked: then it stays for a person to recover.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::pread;

use crate::error::{Error, Meaning, Result};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Local bytes at the offsets of the file that they are of.
#[async_trait]
pub(super) trait Staged: Send + Sync {
    /// Reads a range that was written before.
    async fn read(self: Arc<Self>, range: Range<u64>) -> Result<Bytes>;
}

/// A staging file.
#[derive(Debug)]
pub struct Stage {
    file: File,
    path: PathBuf,
    parked: AtomicBool,
}

impl Stage {
    /// A new, empty staging file in `folder`.
    pub async fn create(folder: &Path) -> Result<Arc<Stage>> {
        let folder = folder.to_owned();
        let made = off_worker(move || {
            loop {
                let path = folder.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
                match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                    Ok(file) => return Ok(Stage { file, path, parked: AtomicBool::new(false) }),
                    // What a former mount parked keeps its name.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            }
        });
        made.await.map(Arc::new)
    }

    /// Writes bytes at an offset of the file.
    pub async fn write(self: &Arc<Self>, offset: u64, bytes: Bytes) -> Result<()> {
        let stage = self.clone();
        off_worker(move || stage.file.write_all_at(&bytes, offset)).await
    }

    /// Keeps the file after its last user, with a record beside it that says what it is.
    pub fn park(&self, record: &str) -> io::Result<PathBuf> {
        self.file.sync_all()?;
        std::fs::write(self.path.with_extension("json"), record)?;
        self.parked.store(true, Ordering::Relaxed);
        Ok(self.path.clone())
    }
}

#[async_trait]
impl Staged for Stage {
    async fn read(self: Arc<Self>, range: Range<u64>) -> Result<Bytes> {
        off_worker(move || read_range(&self.file, range)).await
    }
}

/// Reads a range of a file, all of it.
pub(super) fn read_range(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
    while range.start + (bytes.len() as u64) < range.end {
        let at = range.start + bytes.len() as u64;
        if pread(file, spare_capacity(&mut bytes), at)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    bytes.truncate((range.end - range.start) as usize);
    Ok(bytes.into())
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.parked.load(Ordering::Relaxed)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("{}: cannot be removed: {error}", self.path.display());
        }
    }
}

/// Runs local disk work where it blocks no request.
pub(super) async fn off_worker<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).flatten().map_err(|error| {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let meaning = if full { Meaning::NoSpace } else { Meaning::Io };
        Error::with_source(meaning, "the local state folder", error)
    })
}
