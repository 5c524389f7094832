//! Bytes that the store does not have yet, in a sparse file of the state folder, at the file's own offsets.
//!
//! The staging file goes with its last user, unless it was parked: then it stays for a person to recover. All of them
//! together are bounded, and leave some of the disk free. What of a long file has gone up can be given back: its bytes
//! cannot be read again before the file is stored, and asking for them is an error, never zeros.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::pread;

use crate::error::{Error, Meaning, Result};

use super::disk::room;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Local bytes at the offsets of the file that they are of.
#[async_trait]
pub(super) trait Staged: Send + Sync {
    /// Reads a range that was written before.
    async fn read(self: Arc<Self>, range: Range<u64>) -> Result<Bytes>;
}

/// Where staging files lie, and what they may take of the disk together.
#[derive(Debug)]
pub(super) struct StageArea {
    folder: PathBuf,
    bytes_max: u64,
    on_disk_bytes: AtomicU64,
}

/// A staging file.
#[derive(Debug)]
pub struct Stage {
    area: Arc<StageArea>,
    file: File,
    path: PathBuf,
    parked: AtomicBool,
    on_disk_bytes: AtomicU64,
    /// Bytes at the beginning that were given back. Held by readers, so that nobody reads what is just going.
    given_back_bytes: RwLock<u64>,
}

impl StageArea {
    /// Staging files in `folder`, which take `bytes_max` of its disk at most.
    pub(super) fn new(folder: PathBuf, bytes_max: u64) -> Arc<Self> {
        Arc::new(StageArea { folder, bytes_max, on_disk_bytes: AtomicU64::new(0) })
    }

    /// A new, empty staging file.
    pub(super) async fn create(self: &Arc<Self>) -> Result<Arc<Stage>> {
        let area = self.clone();
        let made = off_worker(move || {
            loop {
                let path = area.folder.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
                match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                    Ok(file) => {
                        let (parked, on_disk_bytes, given_back_bytes) = Default::default();
                        return Ok(Stage { area, file, path, parked, on_disk_bytes, given_back_bytes });
                    }
                    // What a former mount parked keeps its name.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
            }
        });
        made.await.map(Arc::new)
    }

    /// Storage full, where so many bytes more would be too many.
    fn check_room(&self, file: &File, bytes: u64) -> io::Result<()> {
        let fits = self.on_disk_bytes.load(Ordering::Relaxed) + bytes <= self.bytes_max;
        if fits && room(file)?.fits(bytes) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

impl Stage {
    /// Writes bytes at an offset of the file.
    ///
    /// # Errors
    /// ENOSPC also where staging files have taken what they may.
    pub async fn write(self: &Arc<Self>, offset: u64, bytes: Bytes) -> Result<()> {
        let stage = self.clone();
        off_worker(move || {
            stage.area.check_room(&stage.file, bytes.len() as u64)?;
            stage.file.write_all_at(&bytes, offset)?;
            stage.count()
        })
        .await
    }

    /// Frees the disk of the file's beginning; answers how many bytes more than before.
    pub(super) async fn give_back(self: &Arc<Self>, to_bytes: u64) -> Result<u64> {
        let stage = self.clone();
        off_worker(move || {
            let mut given_back_bytes = stage.given_back_bytes.write().expect("no panic under this lock");
            let more_bytes = to_bytes.saturating_sub(*given_back_bytes);
            if more_bytes > 0 {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&stage.file, flags, *given_back_bytes, more_bytes)?;
                *given_back_bytes = to_bytes;
                stage.count()?;
            }
            Ok(more_bytes)
        })
        .await
    }

    /// Bytes at the beginning that were given back.
    pub(super) fn given_back_bytes(&self) -> u64 {
        *self.given_back_bytes.read().expect("no panic under this lock")
    }

    /// What the file takes of the disk.
    pub(super) fn on_disk_bytes(&self) -> u64 {
        self.on_disk_bytes.load(Ordering::Relaxed)
    }

    /// Counts what the file takes of the disk now.
    fn count(&self) -> io::Result<()> {
        self.count_as(self.file.metadata()?.blocks() * 512);
        Ok(())
    }

    fn count_as(&self, now_bytes: u64) {
        let before_bytes = self.on_disk_bytes.swap(now_bytes, Ordering::Relaxed);
        self.area.on_disk_bytes.fetch_add(now_bytes, Ordering::Relaxed);
        self.area.on_disk_bytes.fetch_sub(before_bytes, Ordering::Relaxed);
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
        off_worker(move || {
            let given_back_bytes = self.given_back_bytes.read().expect("no panic under this lock");
            match range.start < *given_back_bytes {
                true => Err(io::Error::other("these bytes were sent to the store and are not kept here")),
                false => read_range(&self.file, range),
            }
        })
        .await
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
        self.count_as(0);
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
