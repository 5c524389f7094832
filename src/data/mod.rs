//! BYTES: the only folder that touches local disk for content.
//!
//! A file's content is a list of [`extents`]. What is stored of it is read through [`cache`], which holds [`blocks`]
//! and has `fetch` fill them, from [`disk`] or by ranged GETs, as far ahead as [`readahead`] and [`pace`] say; what is
//! not lies in a [`stage`]; [`plan`] says how to store it and `upload` does, where it was begun before from there on
//! (`resume`), or `stream` while it is written, or `append` where only its end is new, under a `condition`; `attempt` finds out what
//! became of a write whose answer was lost. [`journal`] stands for the store in a write-back mount. [`attributes`] outlive the mount. Everything that holds memory claims it from one [`budget`]. `extents`, `plan`, `blocks`,
//! `readahead` and `pace` are pure.

mod append;
mod attempt;
pub mod attributes;
pub mod blocks;
pub mod budget;
pub mod buffers;
pub mod cache;
mod chunks;
mod condition;
mod copy;
pub mod disk;
pub mod extents;
mod fetch;
pub mod file;
pub mod journal;
pub mod pace;
mod park;
pub mod plan;
mod read;
pub mod readahead;
mod resume;
mod schedule;
pub mod stage;
pub mod state;
mod stream;
mod tails;
mod upload;
mod whole;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio_util::task::TaskTracker;

use crate::error::{Error, Meaning};
use crate::store::{self, ETag, Kind, Location, Store};

use attributes::Attributes;
use budget::Budget;
use cache::Cache;
use disk::DiskCache;
use stage::{StageArea, off_worker};
use state::{Finish, Leftover, NoteOnDisk, State};

pub use condition::Replaces;
pub use file::{File, UploadState};
pub use whole::LocalCopy;

/// A version of an object's content: what a clean file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The object.
    pub location: Location,
    /// Which version of it.
    pub etag: ETag,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its id where it is an old one, which is asked for by it; `None` is what the name stands for.
    pub version_id: Option<String>,
}

/// A stored version with an identity of its own in memory.
#[derive(Debug)]
pub struct Stored {
    /// What it is.
    pub version: Version,
    id: u64,
    /// Whether its blocks stay after they were read: it is read here and there, and all of it fits in memory.
    hot: AtomicBool,
    /// All of its bytes on disk, once they are there and checked.
    whole: OnceLock<std::fs::File>,
}

impl Stored {
    fn new(version: Version) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Stored { version, id, hot: AtomicBool::new(false), whole: OnceLock::new() }
    }

    fn is_hot(&self) -> bool {
        self.hot.load(Ordering::Relaxed)
    }
}

/// What it means that bytes of a version cannot be had: an object that is gone was removed by another client, and to
/// whoever still has the file open that is ESTALE, as if it were replaced.
fn version_error(error: store::Error) -> Error {
    match error.kind {
        Kind::NotFound => Error::with_source(Meaning::Stale, error.subject.clone(), error),
        _ => error.into(),
    }
}

/// How long an unmount waits for the cache's disk: what is not kept there is only fetched again.
const SETTLE_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// What a store accepts in one request (S3 API reference, "Multipart upload limits"). Tests lower them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one PUT at most.
    pub put_bytes_max: u64,
    /// Bytes of every part but the last at least.
    pub part_bytes_min: u64,
    /// Bytes of a part that is uploaded; a file up to this is one PUT.
    pub part_bytes: u64,
    /// Parts of an upload at most.
    pub parts_max: u32,
    /// Bytes of one copy, whole or part, at most.
    pub copy_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            put_bytes_max: 5 << 30,
            part_bytes_min: 5 << 20,
            part_bytes: 8 << 20,
            parts_max: 10_000,
            copy_bytes_max: 5 << 30,
        }
    }
}

/// What the engine of bytes is given.
pub struct Config {
    /// Memory for content, in bytes.
    pub memory_bytes_max: u64,
    /// The state folder.
    pub state: Arc<State>,
    /// The store's limits.
    pub limits: Limits,
    /// Parts of one file in flight.
    pub uploads_at_once: usize,
    /// Whether a journal answers for the store: then nothing is sent early, and nothing asked before it is sent.
    pub journaled: bool,
    /// What bytes that are not stored yet may take of the local disk.
    pub stage_bytes_max: u64,
    /// Contents that outlive the mount.
    pub disk: Option<DiskCache>,
}

struct Inner {
    store: Arc<dyn Store>,
    budget: Budget,
    cache: Cache,
    attributes: Attributes,
    state: Arc<State>,
    stages: Arc<StageArea>,
    limits: Limits,
    uploads_at_once: usize,
    journaled: bool,
    /// Uploads that somebody may go on with.
    unfinished: Mutex<Vec<Leftover>>,
    /// Whether the store was seen to refuse conditions on writes.
    conditions_refused: AtomicBool,
    appends: append::Appends,
    tracker: TaskTracker,
}

/// The engine of bytes. Cheap to clone.
#[derive(Clone)]
pub struct Data {
    inner: Arc<Inner>,
}

impl Data {
    /// Puts the engine together. Needs to be called within a runtime.
    pub fn new(store: Arc<dyn Store>, config: Config) -> Self {
        let budget = Budget::new(config.memory_bytes_max);
        let tracker = TaskTracker::new();
        let cache = Cache::new(store.clone(), budget.clone(), tracker.clone(), config.disk);
        // Parts in flight may take half of the memory; the other half is for readers.
        let affordable = (config.memory_bytes_max / 2 / config.limits.part_bytes.max(1)).max(1);
        let uploads_at_once = config.uploads_at_once.min(affordable as usize);
        let Config { state, limits, journaled, stage_bytes_max, .. } = config;
        let conditions_refused = AtomicBool::new(false);
        let stages = StageArea::new(state.stage_folder(), stage_bytes_max, limits.part_bytes, budget.clone());
        let inner = Inner {
            store,
            budget,
            cache,
            attributes: Attributes::new(state.attributes_file()),
            state,
            stages,
            limits,
            uploads_at_once,
            journaled,
            unfinished: Mutex::default(),
            conditions_refused,
            appends: append::Appends::default(),
            tracker,
        };
        Data { inner: Arc::new(inner) }
    }

    /// A new file: empty, never stored, dirty.
    pub fn create(&self) -> File {
        File::new(self.clone(), None)
    }

    /// A clean file.
    pub fn open(&self, version: Version) -> File {
        File::new(self.clone(), Some(version))
    }

    /// The cache of what is stored.
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// Attributes that were learnt, also by former mounts.
    pub fn attributes(&self) -> &Attributes {
        &self.inner.attributes
    }

    /// The memory that is accounted for.
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Aborts uploads that nobody goes on with. What cannot be aborted now is left to the next mount.
    pub async fn abort_leftovers(&self, leftovers: Vec<Leftover>) {
        for leftover in leftovers {
            let location = leftover.location.clone();
            let aborted = self.inner.store.abort_upload(&location, &leftover.upload_id).await;
            match aborted.map(|()| leftover.forget()) {
                Ok(Ok(())) => log::info!("{location}: aborted an upload that was left unfinished"),
                Ok(Err(error)) => log::warn!("{location}: the record of its upload stays: {error}"),
                Err(error) => log::warn!("{location}: an upload is left to be aborted by the next mount: {error}"),
            }
        }
    }

    /// Records what a version needs after it was made.
    pub async fn record_finish(&self, finish: &Finish) -> crate::error::Result<NoteOnDisk> {
        let (data, finish) = (self.clone(), finish.clone());
        off_worker(move || data.inner.state.record_finish(&finish)).await
    }

    /// A version is finished.
    pub async fn forget_finish(&self, record: NoteOnDisk) -> crate::error::Result<()> {
        off_worker(move || record.remove()).await
    }

    /// Runs background work, which unmounting waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.inner.tracker.spawn(work);
    }

    /// Waits for what was spawned.
    pub(super) async fn wait_for_background(&self) {
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
        self.inner.tracker.reopen();
    }

    /// Waits for background work.
    pub async fn close(&self) {
        self.wait_for_background().await;
        self.inner.attributes.write().await;
        if tokio::time::timeout(SETTLE_MAX, self.inner.cache.settle()).await.is_err() {
            log::warn!("the cache's disk is slow: what came last is not kept");
        }
    }
}
