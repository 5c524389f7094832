//! Clean bytes of stored versions: blocks in memory, and how they are read.
//!
//! A byte is fetched once however many wait for it. What a reader needs waits for memory; what is fetched ahead of it
//! does without when there is none. A block of which every byte was read has served and goes at once: the kernel's page
//! cache has it now, and its buffer is warm for the next one. Only what is read here and there, and fits, stays.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Meaning, Result};
use crate::store::{ObjectHead, Store};

use super::blocks::Blocks;
use super::budget::{Budget, Need};
use super::buffers::{BUFFER_BYTES, Buffers};
use super::disk::DiskCache;
use super::pace::Pace;
use super::readahead::{self, OPEN_BYTES, WHOLE_BYTES_MAX};
use super::tails::Tails;
use super::{Stored, version_error};

/// The longest block: one FUSE request, so that its reply is a slice of one block.
pub(super) const BLOCK_BYTES: u64 = BUFFER_BYTES as u64;

/// The part of the memory that windows may take, with what the kernel asks for ahead of its readers: the rest is for
/// receiving it, and for parts going up.
const WINDOWS_SHARE: (u64, u64) = (1, 2);

/// How far the kernel reads ahead in a mount unless told otherwise (VM_READAHEAD_PAGES).
const KERNEL_AHEAD_BYTES: u64 = 128 << 10;

/// How a block stands.
#[derive(Clone)]
pub(super) enum BlockState {
    /// A GET is on its way.
    Coming,
    /// Its bytes; what they claim is given back with their last user.
    Here(Bytes),
    /// It will not come.
    Failed(Meaning, String),
}

/// A range of a version.
pub(super) struct Block {
    pub(super) state: watch::Sender<BlockState>,
    /// Bytes that were read of it.
    read_bytes: AtomicU64,
}

impl Block {
    pub(super) fn new(state: BlockState) -> Arc<Block> {
        Arc::new(Block { state: watch::Sender::new(state), read_bytes: AtomicU64::new(0) })
    }

    /// Counts bytes that were read of it; answers whether it has done its work with them.
    fn has_served(&self, stored: &Stored, covered: &Range<u64>, from: u64, to: u64) -> bool {
        let read_bytes = self.read_bytes.fetch_add(to - from, Ordering::Relaxed) + to - from;
        !stored.is_hot() && read_bytes >= covered.end - covered.start
    }

    fn was_read(&self) -> bool {
        self.read_bytes.load(Ordering::Relaxed) > 0
    }

    /// Whether it may be given back: it is here, and nobody is waiting to take bytes of it.
    fn is_idle(&self) -> bool {
        !self.is_coming() && self.state.receiver_count() == 0
    }

    fn is_coming(&self) -> bool {
        matches!(*self.state.borrow(), BlockState::Coming)
    }
}

/// What reading has cost so far, in bytes and numbers since the mount began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes that readers asked for.
    pub asked_bytes: AtomicU64,
    /// Bytes that came from the store.
    pub fetched_bytes: AtomicU64,
    /// Bytes that were fetched and given back without a reader.
    pub wasted_bytes: AtomicU64,
    /// Reads that found all they asked for.
    pub hits: AtomicU64,
    /// GETs that were started because another one stalled.
    pub hedges: AtomicU64,
}

pub(super) struct Inner {
    pub(super) store: Arc<dyn Store>,
    pub(super) budget: Budget,
    pub(super) counters: Counters,
    pub(super) pace: Mutex<Pace>,
    pub(super) buffers: Buffers,
    /// Contents that outlive the mount.
    pub(super) disk: Option<DiskCache>,
    pub(super) tracker: TaskTracker,
    pub(super) runtime: Handle,
    blocks: Mutex<Blocks<Block>>,
    tails: Tails,
    /// Files that are read forward now: they share the memory.
    readers: AtomicU64,
    /// How far the kernel reads ahead on its own.
    kernel_ahead_bytes: AtomicU64,
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    pub(super) inner: Arc<Inner>,
}

/// A place among those that share the memory for windows.
pub struct ReaderPlace(Cache);

impl Drop for ReaderPlace {
    fn drop(&mut self) {
        if self.0.inner.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.inner.buffers.release(u64::MAX);
        }
    }
}

impl Cache {
    /// An empty cache that takes its memory from `budget`. Needs to be called within a runtime.
    pub fn new(store: Arc<dyn Store>, budget: Budget, tracker: TaskTracker, disk: Option<DiskCache>) -> Self {
        let inner = Arc::new(Inner {
            store,
            budget: budget.clone(),
            counters: Counters::default(),
            pace: Mutex::default(),
            buffers: Buffers::new(budget.clone()),
            disk,
            tracker,
            runtime: Handle::current(),
            blocks: Mutex::default(),
            tails: Tails::new(budget.bytes_max()),
            readers: AtomicU64::new(0),
            kernel_ahead_bytes: AtomicU64::new(KERNEL_AHEAD_BYTES),
        });
        let shrinking = Arc::downgrade(&inner);
        budget.on_shortage(move |bytes, need| {
            if let Some(inner) = shrinking.upgrade() {
                inner.shrink(bytes, need);
            }
        });
        Cache { inner }
    }

    pub(super) fn blocks(&self) -> MutexGuard<'_, Blocks<Block>> {
        self.inner.blocks.lock().expect("no panic under this lock")
    }

    /// What was measured of the store.
    pub fn pace(&self) -> Pace {
        *self.inner.pace.lock().expect("no panic under this lock")
    }

    /// What reading has cost so far.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Counts a forward reader for as long as the place is kept.
    pub fn take_place(&self) -> ReaderPlace {
        self.inner.readers.fetch_add(1, Ordering::Relaxed);
        ReaderPlace(self.clone())
    }

    /// Files that are read forward now, at least one.
    pub(super) fn readers(&self) -> u64 {
        self.inner.readers.load(Ordering::Relaxed).max(1)
    }

    /// The window that one reader may have besides what the kernel asks for ahead of it.
    pub fn window_bytes_max(&self) -> u64 {
        let share = self.inner.budget.bytes_max() * WINDOWS_SHARE.0 / WINDOWS_SHARE.1 / self.readers();
        let kernel_bytes = self.inner.kernel_ahead_bytes.load(Ordering::Relaxed);
        self.pace().window_bytes_max().min(share.saturating_sub(kernel_bytes))
    }

    /// How far ahead of one reader is fetched.
    pub fn readahead_limits(&self) -> readahead::Limits {
        let kernel_bytes_max = self.inner.kernel_ahead_bytes.load(Ordering::Relaxed);
        readahead::Limits { window_bytes_max: self.window_bytes_max(), kernel_bytes_max }
    }

    /// The kernel reads so far ahead on its own from now on.
    pub fn set_kernel_ahead(&self, bytes: u64) {
        self.inner.kernel_ahead_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether a version's first byte is here or on its way.
    pub fn has_first(&self, stored: &Stored) -> bool {
        self.blocks().covering(stored.id, 0).is_some()
    }

    /// Keeps the whole of a small version that we have just written, if there is room.
    pub fn insert_small(&self, stored: &Stored, bytes: &Bytes) {
        let length = bytes.len() as u64;
        if length == 0 || length > BLOCK_BYTES || length != stored.version.size_bytes {
            return;
        }
        if let Some(bytes) = self.try_hold(bytes) {
            let block = Block::new(BlockState::Here(bytes));
            self.blocks().insert(stored.id, 0..length, block);
        }
        self.inner.tails.keep(&stored.version, bytes, &self.inner.budget);
    }

    /// A version is opened: what the kernel could not keep of it when it was written is there at once.
    pub fn bring_tail(&self, stored: &Stored) {
        if let Some((range, tail)) = self.inner.tails.of(&stored.version) {
            self.blocks().insert(stored.id, range, Block::new(BlockState::Here(tail)));
        }
    }

    /// Starts the GET of a version's beginning and waits for its head only; asks for the head alone where the beginning
    /// is on disk. `None` if somebody else fetches the beginning already: that GET says whether the version is right.
    pub async fn warm(&self, stored: &Arc<Stored>) -> Result<Option<ObjectHead>> {
        let size_bytes = stored.version.size_bytes;
        let first = if size_bytes <= WHOLE_BYTES_MAX { size_bytes } else { OPEN_BYTES };
        let first = self.in_chunks(stored, 0..first);
        if self.is_on_disk(stored).await {
            return self.validate(stored).await.map(Some);
        }
        let (head, told) = oneshot::channel();
        self.fetch(stored, 0..1.min(size_bytes), 1.min(size_bytes)..first.end, Some(head)).await;
        told.await.map_or(Ok(None), |head| head.map(Some))
    }

    /// Whether a version's beginning is on disk; where it is, all of it is looked for there.
    pub async fn is_on_disk(&self, stored: &Arc<Stored>) -> bool {
        let Some(disk) = &self.inner.disk else { return false };
        let recorded = disk.recorded(&stored.version, 0..1).await == [true];
        if recorded {
            let (cache, stored) = (self.clone(), stored.clone());
            self.inner.tracker.spawn(async move { cache.find_whole(&stored).await });
        }
        recorded
    }

    /// Asks whether a version is the present one.
    async fn validate(&self, stored: &Stored) -> Result<ObjectHead> {
        let version = &stored.version;
        let head =
            self.inner.store.head(&version.location, version.version_id.as_deref()).await.map_err(version_error)?;
        match head.etag == stored.version.etag {
            true => Ok(head),
            false => Err(Error::new(Meaning::Stale, stored.version.location.to_string())),
        }
    }

    /// Bytes of a version, if they are here in one piece. Does not wait.
    pub fn ready(&self, stored: &Stored, range: &Range<u64>) -> Option<Bytes> {
        let bytes = self.ready_block(stored, range).or_else(|| self.whole_ready(stored, range))?;
        self.inner.counters.hits.fetch_add(1, Ordering::Relaxed);
        self.inner.counters.asked_bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
        Some(bytes)
    }

    fn ready_block(&self, stored: &Stored, range: &Range<u64>) -> Option<Bytes> {
        let mut blocks = self.blocks();
        let (covered, block) =
            blocks.covering(stored.id, range.start).filter(|(covered, _)| covered.end >= range.end)?;
        let BlockState::Here(bytes) = block.state.borrow().clone() else { return None };
        if block.has_served(stored, &covered, range.start, range.end) {
            blocks.remove(stored.id, covered.start, &block);
        }
        Some(bytes.slice((range.start - covered.start) as usize..(range.end - covered.start) as usize))
    }

    /// Whether all of a range has come, and is held or was read.
    pub fn has_come(&self, stored: &Stored, range: Range<u64>) -> bool {
        !self.blocks().any_in(stored.id, &range, Block::is_coming)
    }

    /// Bytes of a version; those `ahead` are fetched meanwhile.
    pub async fn read(&self, stored: &Arc<Stored>, range: Range<u64>, ahead: Range<u64>) -> Result<Bytes> {
        if let Some(bytes) = self.ready(stored, &range) {
            self.fetch_ahead(stored, ahead);
            return Ok(bytes);
        }
        self.inner.counters.asked_bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
        if let Some(bytes) = self.read_whole(stored, &range).await {
            return Ok(bytes);
        }
        // What belongs to a stream is kept on disk, in whole chunks; a reader that jumps gets what it asked for.
        let (needed, ahead) = match ahead.is_empty() && range.end < stored.version.size_bytes {
            true => (range.clone(), ahead),
            false => (self.in_chunks(stored, range.clone()), ahead),
        };
        self.fetch(stored, needed, ahead, None).await;
        let mut joined = BytesMut::new();
        let mut at = range.start;
        while at < range.end {
            let (covered, bytes) = self.block(stored, at, &range).await?;
            let to = range.end.min(covered.end);
            let part = bytes.slice((at - covered.start) as usize..(to - covered.start) as usize);
            if part.len() as u64 == range.end - range.start {
                return Ok(part);
            }
            joined.reserve((range.end - at) as usize);
            joined.extend_from_slice(&part);
            at = to;
        }
        Ok(joined.freeze())
    }

    /// The block that has the byte at `at`, once it is here.
    async fn block(&self, stored: &Arc<Stored>, at: u64, range: &Range<u64>) -> Result<(Range<u64>, Bytes)> {
        loop {
            let known = self.blocks().covering(stored.id, at);
            let Some((covered, block)) = known else {
                // Given back under pressure before we came to it.
                self.fetch(stored, at..range.end, range.end..range.end, None).await;
                continue;
            };
            let mut state = block.state.subscribe();
            let state = state.wait_for(|state| !matches!(state, BlockState::Coming)).await;
            return match state.map(|state| state.clone()) {
                Ok(BlockState::Here(bytes)) => {
                    if block.has_served(stored, &covered, at, range.end.min(covered.end)) {
                        self.blocks().remove(stored.id, covered.start, &block);
                    }
                    Ok((covered, bytes))
                }
                Ok(BlockState::Failed(meaning, subject)) => Err(Error::new(meaning, subject)),
                Ok(BlockState::Coming) | Err(_) => Err(Error::new(Meaning::Io, "a fetch was given up")),
            };
        }
    }

    /// A copy of bytes, in memory that is used again and again where there is some.
    pub fn hold(&self, bytes: &[u8]) -> Bytes {
        self.try_hold(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes))
    }

    fn try_hold(&self, bytes: &[u8]) -> Option<Bytes> {
        let mut room = self.inner.buffers.try_room(bytes.len() as u64)?;
        room.bytes_mut().extend_from_slice(bytes);
        Some(self.inner.buffers.hold(room))
    }

    /// All of a version is about to be read through: its blocks stay from now on, if there is room for them.
    pub fn keep_blocks(&self, stored: &Stored) {
        stored.hot.store(stored.version.size_bytes <= self.inner.budget.bytes_max(), Ordering::Relaxed);
    }

    /// Gives back what is held of a version that nobody can read any more.
    pub fn forget(&self, stored: &Stored) {
        self.blocks().remove_version(stored.id, Block::is_idle);
    }

    /// Waits until what came is kept on disk, or given up.
    pub async fn settle(&self) {
        if let Some(disk) = &self.inner.disk {
            disk.settled().await;
        }
    }
}

impl Inner {
    fn shrink(&self, bytes: u64, need: Need) {
        if self.buffers.release(bytes) >= bytes {
            return;
        }
        let may = |block: &Block| block.is_idle() && (need == Need::Waiting || block.was_read());
        let gone = self.blocks.lock().expect("no panic under this lock").evict(bytes, may);
        let unread = gone.iter().filter(|(_, block)| !block.was_read());
        self.counters.wasted_bytes.fetch_add(unread.map(|(length, _)| length).sum(), Ordering::Relaxed);
        // What was given back may have become spare buffers.
        drop(gone);
        self.buffers.release(bytes);
    }
}
