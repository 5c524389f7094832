//! Bytes that the store does not have yet: in memory, and where that is short or they lie here and there, in a sparse file
//! of the state folder, at the file's own offsets.
//!
//! The staging file goes with its last user, unless it was parked: then it stays for a person to recover. All of them
//! together are bounded, and leave some of the disk free. What of a long file has gone up can be given back: its bytes
//! cannot be read again before the file is stored, and asking for them is an error, never zeros.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::pread;

use crate::error::{Error, Meaning, Result};

use super::budget::{Budget, Claim};
use super::chunks::{Chunks, Full, Way};
use super::disk::room;

/// Bytes that are written to or read from the local disk without handing the work over: the page cache takes them in
/// tens of microseconds.
const AT_ONCE_BYTES_MAX: usize = 256 << 10;

/// The part of the memory that may be taken by what is written and not stored: the rest is for readers.
const MEMORY_SHARE: u64 = 2;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Local bytes at the offsets of the file that they are of.
#[async_trait]
pub(super) trait Staged: Send + Sync {
    /// Reads a range that was written before.
    async fn read(self: Arc<Self>, range: Range<u64>) -> Result<Bytes>;

    /// Whether reading a range takes no memory: it is there already.
    fn is_held(&self, range: &Range<u64>) -> bool;
}

/// Where staging files lie, and what staged bytes may take of the disk and of memory together.
pub(super) struct StageArea {
    folder: PathBuf,
    bytes_max: u64,
    on_disk_bytes: AtomicU64,
    chunk_bytes: u64,
    budget: Budget,
    /// A part of the budget.
    share: Budget,
    stages: Mutex<HashMap<u64, Weak<Stage>>>,
}

/// The staged bytes of one file.
pub struct Stage {
    area: Arc<StageArea>,
    id: u64,
    chunks: Mutex<Chunks>,
    disk: Mutex<Option<Arc<OnDisk>>>,
    /// Held by whoever writes to the disk, so that nothing newer is overwritten there.
    writing: Mutex<()>,
    parked: AtomicBool,
    on_disk_bytes: AtomicU64,
    /// Bytes at the beginning that were given back. Held by readers, so that nobody reads what is just going.
    given_back_bytes: RwLock<u64>,
}

struct OnDisk {
    file: File,
    path: PathBuf,
}

impl StageArea {
    /// Staging files in `folder`, which take `bytes_max` of its disk at most. In memory bytes lie in chunks of one size,
    /// and take a part of `budget`.
    pub(super) fn new(folder: PathBuf, bytes_max: u64, chunk_bytes: u64, budget: Budget) -> Arc<Self> {
        let share = Budget::new(budget.bytes_max() / MEMORY_SHARE);
        let (on_disk_bytes, stages) = Default::default();
        Arc::new(StageArea { folder, bytes_max, on_disk_bytes, chunk_bytes, budget, share, stages })
    }

    /// Room for a new file's bytes.
    pub(super) fn create(self: &Arc<Self>) -> Arc<Stage> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let stage = Arc::new(Stage {
            area: self.clone(),
            id,
            chunks: Mutex::new(Chunks::new(self.chunk_bytes)),
            disk: Mutex::default(),
            writing: Mutex::default(),
            parked: AtomicBool::new(false),
            on_disk_bytes: AtomicU64::new(0),
            given_back_bytes: RwLock::default(),
        });
        self.stages().insert(id, Arc::downgrade(&stage));
        stage
    }

    fn stages(&self) -> MutexGuard<'_, HashMap<u64, Weak<Stage>>> {
        self.stages.lock().expect("no panic under this lock")
    }

    fn claim(&self, bytes: u64) -> Option<[Claim; 2]> {
        let share = self.share.claim_if_free(bytes)?;
        Some([share, self.budget.try_claim(bytes)?])
    }

    /// Storage full, where so many bytes more would be too many.
    fn check_room(&self, file: &File, bytes: u64) -> io::Result<()> {
        let fits = self.on_disk_bytes.load(Ordering::Relaxed) + bytes <= self.bytes_max;
        if fits && room(file)?.fits(bytes) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    /// Moves a chunk to disk that has gone up and may still be wanted if its upload fails, for the sake of a file that
    /// wants the memory; answers whether there was one.
    async fn move_sent_to_disk(&self, wanting: &Arc<Stage>) -> Result<bool> {
        let others: Vec<Arc<Stage>> = self.stages().values().filter_map(Weak::upgrade).collect();
        let mut stages = std::iter::once(wanting.clone()).chain(others);
        let Some(stage) = stages.find(|stage| stage.lock().any_sent().is_some()) else { return Ok(false) };
        let keep = Arc::ptr_eq(&stage, wanting);
        off_worker(move || stage.move_to_disk(Chunks::any_sent, keep)).await?;
        Ok(true)
    }

    /// A new staging file.
    fn make_file(&self) -> io::Result<OnDisk> {
        loop {
            let path = self.folder.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(OnDisk { file, path }),
                // What a former mount parked keeps its name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Chunks> {
        self.chunks.lock().expect("no panic under this lock")
    }

    fn known_disk(&self) -> Option<Arc<OnDisk>> {
        self.disk.lock().expect("no panic under this lock").clone()
    }

    /// The staging file, made when the first byte needs it.
    fn disk(&self) -> io::Result<Arc<OnDisk>> {
        let mut disk = self.disk.lock().expect("no panic under this lock");
        if let Some(disk) = &*disk {
            return Ok(disk.clone());
        }
        let made = Arc::new(self.area.make_file()?);
        *disk = Some(made.clone());
        Ok(made)
    }

    /// Writes bytes at an offset of the file, if memory has room for all of them. Does not wait.
    pub(super) fn try_write(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut chunks = self.lock();
        let pieces: Vec<_> = chunks.pieces(&(offset..offset + bytes.len() as u64)).collect();
        let fits = pieces.iter().all(|piece| chunks.make_room(piece, |bytes| self.area.claim(bytes)) == Way::Memory);
        if fits {
            pieces.iter().for_each(|piece| chunks.put(piece.start, part_of(bytes, piece, offset)));
        }
        fits
    }

    /// Writes bytes at an offset of the file.
    ///
    /// # Errors
    /// ENOSPC also where staging files have taken what they may.
    pub async fn write(self: &Arc<Self>, offset: u64, bytes: Bytes) -> Result<()> {
        let pieces = self.lock().pieces(&(offset..offset + bytes.len() as u64));
        for piece in pieces {
            let part = part_of(&bytes, &piece, offset);
            while !self.try_write(piece.start, part) {
                let way = self.lock().make_room(&piece, |bytes| self.area.claim(bytes));
                if way == Way::Short && self.area.move_sent_to_disk(self).await? {
                    continue;
                }
                let (stage, part) = (self.clone(), bytes.slice_ref(part));
                local_work(part.len(), move || stage.write_to_disk(piece.start, &part)).await?;
                break;
            }
        }
        Ok(())
    }

    fn write_to_disk(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.move_to_disk(|chunks| chunks.at(offset), false)?;
        let _writing = self.writing.lock().expect("no panic under this lock");
        let disk = self.disk()?;
        self.area.check_room(&disk.file, bytes.len() as u64)?;
        self.lock().note_on_disk(offset);
        disk.file.write_all_at(bytes, offset)?;
        self.count()
    }

    /// Moves a chunk from memory to disk, if there is such; its memory may be kept for this file's next.
    fn move_to_disk(&self, pick: impl Fn(&Chunks) -> Option<Full>, keep: bool) -> io::Result<()> {
        let _writing = self.writing.lock().expect("no panic under this lock");
        let Some(full) = pick(&self.lock()) else { return Ok(()) };
        let disk = self.disk()?;
        self.area.check_room(&disk.file, full.bytes.len() as u64)?;
        disk.file.write_all_at(&full.bytes, full.offset)?;
        self.lock().moved_to_disk(full, keep);
        self.count()
    }

    /// An upload has all of a range, as it is now: it need not stay in memory.
    pub(super) fn note_sent(&self, range: &Range<u64>) {
        self.lock().note_sent(range);
    }

    /// Frees memory and disk of the file's beginning; answers how many bytes more than before.
    pub(super) async fn give_back(self: &Arc<Self>, to_bytes: u64) -> Result<u64> {
        let stage = self.clone();
        off_worker(move || {
            let mut given_back_bytes = stage.given_back_bytes.write().expect("no panic under this lock");
            let more_bytes = to_bytes.saturating_sub(*given_back_bytes);
            if more_bytes > 0 {
                let _writing = stage.writing.lock().expect("no panic under this lock");
                if let Some(disk) = stage.known_disk() {
                    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    fallocate(&disk.file, flags, *given_back_bytes, more_bytes)?;
                    stage.count()?;
                }
                stage.lock().give_back(to_bytes);
                *given_back_bytes = to_bytes;
            }
            Ok(more_bytes)
        })
        .await
    }

    /// Bytes at the beginning that were given back.
    pub(super) fn given_back_bytes(&self) -> u64 {
        *self.given_back_bytes.read().expect("no panic under this lock")
    }

    /// What it takes of the disk and of memory.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.on_disk_bytes.load(Ordering::Relaxed) + self.lock().held_bytes()
    }

    /// Counts what the file takes of the disk now.
    fn count(&self) -> io::Result<()> {
        let now_bytes =
            self.known_disk().map_or(Ok(0), |disk| disk.file.metadata().map(|found| found.blocks() * 512))?;
        self.count_as(now_bytes);
        Ok(())
    }

    fn count_as(&self, now_bytes: u64) {
        let before_bytes = self.on_disk_bytes.swap(now_bytes, Ordering::Relaxed);
        self.area.on_disk_bytes.fetch_add(now_bytes, Ordering::Relaxed);
        self.area.on_disk_bytes.fetch_sub(before_bytes, Ordering::Relaxed);
    }

    /// Keeps all of it on disk after its last user, with a record beside it that says what it is.
    pub fn park(&self, record: &str) -> io::Result<PathBuf> {
        let disk = self.disk()?;
        for full in self.lock().all() {
            disk.file.write_all_at(&full.bytes, full.offset)?;
        }
        disk.file.sync_all()?;
        std::fs::write(disk.path.with_extension("json"), record)?;
        self.parked.store(true, Ordering::Relaxed);
        Ok(disk.path.clone())
    }

    fn read_pieces(&self, range: Range<u64>) -> io::Result<Bytes> {
        let given_back_bytes = self.given_back_bytes.read().expect("no panic under this lock");
        if range.start < *given_back_bytes {
            return Err(io::Error::other("these bytes were sent to the store and are not kept here"));
        }
        let pieces: Vec<(Range<u64>, Option<Bytes>)> = {
            let chunks = self.lock();
            chunks.pieces(&range).map(|piece| (piece.clone(), chunks.get(&piece))).collect()
        };
        let mut out = Vec::with_capacity((range.end - range.start) as usize);
        for (piece, held) in pieces {
            let bytes = match held {
                Some(bytes) => bytes,
                None => read_range(&self.disk()?.file, piece)?,
            };
            if bytes.len() as u64 == range.end - range.start {
                return Ok(bytes);
            }
            out.extend_from_slice(&bytes);
        }
        Ok(out.into())
    }
}

#[async_trait]
impl Staged for Stage {
    async fn read(self: Arc<Self>, range: Range<u64>) -> Result<Bytes> {
        let at_once = self.is_held(&range);
        let length = if at_once { 0 } else { (range.end - range.start) as usize };
        local_work(length, move || self.read_pieces(range)).await
    }

    fn is_held(&self, range: &Range<u64>) -> bool {
        self.lock().holds(range)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.area.stages().remove(&self.id);
        self.count_as(0);
        if let Some(disk) = self.known_disk()
            && !self.parked.load(Ordering::Relaxed)
            && let Err(error) = std::fs::remove_file(&disk.path)
        {
            log::warn!("{}: cannot be removed: {error}", disk.path.display());
        }
    }
}

/// The bytes of a piece, out of those that begin at an offset.
fn part_of<'a>(bytes: &'a [u8], piece: &Range<u64>, offset: u64) -> &'a [u8] {
    &bytes[(piece.start - offset) as usize..(piece.end - offset) as usize]
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

/// Runs local disk work where it blocks no request.
pub(super) async fn off_worker<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).flatten().map_err(on_disk)
}

/// Runs local disk work on so many bytes: at once where they are few, since that takes less time than to hand it over.
pub(super) async fn local_work<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    if length <= AT_ONCE_BYTES_MAX { work().map_err(on_disk) } else { off_worker(work).await }
}

/// What a failure of the local disk means.
pub(super) fn on_disk(error: io::Error) -> Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let meaning = if full { Meaning::NoSpace } else { Meaning::Io };
    Error::with_source(meaning, "the local state folder", error)
}
