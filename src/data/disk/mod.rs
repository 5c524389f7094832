//! Contents on disk (`--cache DIR`): chunks of stored versions that outlive the mount and are shared by all mounts.
//!
//! A version is a sparse file of its own and beside it a file of checksums, one for each chunk (see `entry`). There is
//! no database over them on purpose: a database is locked by one process, while any number of mounts may use one
//! folder at the same time, and damage to one index costs one file. Two mounts that keep the same chunk write the same
//! bytes, and what they leave when they get into each other's way fails its checksum. Nothing about single files is
//! held in memory, so that a million small ones cost none.
//!
//! Nothing is ever synced. A chunk's bytes are written first and its checksum after them; whatever order a crash makes
//! of that, a chunk is served only if both are there and fit, and a lost record costs one fetch.
//!
//! It refuses to be in anybody's way: a reader gets `None` and asks the store when the disk fails or the bytes are not
//! as they were, what comes faster than the disk takes it is not kept, and 5 % of the file system stay free.

mod entry;
mod evict;
mod health;
mod verified;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Version;
use super::buffers::BUFFER_BYTES;
use crate::clock::Clock;
use entry::{Entry, Fingerprint};
pub(super) use health::room;
use health::{AskRoom, Trouble};
use verified::Verified;
use writer::Job;

/// Below this a cache holds next to nothing.
pub const BYTES_MIN: u64 = 16 << 20;

/// Files about which was complained; after so many it is quiet.
const COMPLAINTS_MAX: usize = 1024;

/// The cache on disk. Cheap to clone; when the last clone is gone, what waits is written and the writer ends.
#[derive(Clone)]
pub struct DiskCache {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job>,
}

/// What a cache is to be.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// Where it lies; made if it is missing.
    pub folder: &'a Path,
    /// What contents may take on disk, all mounts of the folder together; each further live mount may exceed that by a
    /// thirty-second part until it looks again.
    pub bytes_max: u64,
    /// The endpoint of the store: two stores may hold the same name.
    pub store: &'a str,
    /// Bytes that wait to be written at most. They are what readers were given, in memory that is claimed for them:
    /// with a queue that is too short a file that comes fast is kept with holes.
    pub queue_bytes_max: u64,
}

/// What the cache has done since the mount began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that were answered.
    pub hits: u64,
    /// Reads that were not.
    pub misses: u64,
    /// Chunks that were written.
    pub kept: u64,
    /// Chunks that were not written: no room, or the disk was too slow.
    pub dropped: u64,
}

/// What a cache is made of; tests choose the last three.
struct Setup<'a> {
    config: Config<'a>,
    chunk_bytes: u64,
    clock: Clock,
    room: AskRoom,
}

/// What readers and the writer share.
struct Shared {
    /// `DIR/contents`, mode 0700.
    folder: PathBuf,
    /// Whoever evicts locks it, so that two mounts do not evict twice as much.
    lock: File,
    store: String,
    bytes_max: u64,
    queue_bytes_max: u64,
    chunk_bytes: u64,
    clock: Clock,
    room: AskRoom,
    /// What the last look at the folder found, and what was written since.
    used_bytes: AtomicU64,
    queued_bytes: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    kept: AtomicU64,
    dropped: AtomicU64,
    reads: Trouble,
    writes: Trouble,
    full: Trouble,
    verified: Verified,
    verifying: Mutex<HashSet<String>>,
    complained: Mutex<HashSet<String>>,
}

impl DiskCache {
    /// Opens the cache for versions of a store's objects.
    pub fn open(config: Config<'_>) -> io::Result<DiskCache> {
        let (clock, room) = (Clock::system(), Box::new(health::room));
        DiskCache::open_with(Setup { config, chunk_bytes: BUFFER_BYTES as u64, clock, room })
    }

    fn open_with(Setup { config, chunk_bytes, clock, room }: Setup<'_>) -> io::Result<DiskCache> {
        let folder = config.folder.join("contents");
        let lock = take_folder(&folder)?;
        let shared = Arc::new(Shared {
            folder,
            lock,
            store: config.store.to_owned(),
            bytes_max: config.bytes_max,
            queue_bytes_max: config.queue_bytes_max,
            chunk_bytes,
            clock,
            room,
            used_bytes: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            reads: Trouble::new("cannot be read"),
            writes: Trouble::new("cannot be written"),
            full: Trouble::new("takes no new contents until there is room"),
            verified: Verified::new(),
            verifying: Mutex::default(),
            complained: Mutex::default(),
        });
        let (queue, jobs) = mpsc::channel();
        let writing = shared.clone();
        // A thread of its own: it waits for the disk all day, and a hanging disk must not take a runtime's thread.
        std::thread::Builder::new().name("cache-writer".to_owned()).spawn(move || writer::run(&writing, &jobs))?;
        Ok(DiskCache { shared, queue })
    }

    /// Bytes `range` of a version if all of them are here and are what was kept. Whole chunks are read, since a
    /// checksum covers one, and what is answered holds on to their memory: ask for whole chunks. They are read into
    /// `memory`, which may be empty.
    pub async fn read(&self, version: &Version, range: Range<u64>, memory: Vec<u8>) -> Option<Bytes> {
        if range.is_empty() {
            return Some(Bytes::new());
        }
        let read = self.off_worker(version, move |shared, entry| shared.read(entry, range, memory)).await;
        let counter = if read.is_some() { &self.shared.hits } else { &self.shared.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        read
    }

    /// Which of these chunks are recorded. It says what a read is worth trying for; only the read checks the bytes.
    pub async fn recorded(&self, version: &Version, chunks: Range<u64>) -> Vec<bool> {
        let count = chunks.end.saturating_sub(chunks.start) as usize;
        let records = self.off_worker(version, move |shared, entry| {
            entry.open_sums(&shared.folder)?.map(|sums| sums.read(chunks)).transpose()
        });
        records.await.map_or_else(|| vec![false; count], |sums| sums.iter().map(|sum| *sum != entry::ABSENT).collect())
    }

    /// A chunk that came from the store: one unit at a multiple of the unit, or the version's last one. It is written
    /// later, or not at all when the disk does not keep up; this never waits.
    pub fn keep(&self, version: &Version, offset: u64, bytes: Bytes) {
        let shared = &self.shared;
        let expected = version.size_bytes.saturating_sub(offset).min(shared.chunk_bytes);
        let is_chunk = offset.is_multiple_of(shared.chunk_bytes) && bytes.len() as u64 == expected && expected > 0;
        if !is_chunk || !shared.knows(version) || shared.writes.is_lasting() || shared.reads.is_lasting() {
            return;
        }
        let length = bytes.len() as u64;
        let queued = shared.queued_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
            (queued + length <= shared.queue_bytes_max).then_some(queued + length)
        });
        let job = Job::Keep { version: version.clone(), offset, bytes };
        if queued.is_err() || self.queue.send(job).is_err() {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A handle of the version's file if every chunk is here, for the kernel to read from. Chunks that this mount has
    /// neither written nor compared are compared first, and all of them when somebody else changed the file, which takes
    /// as long as reading it: who gives up waiting leaves the comparison running and profits next time. Answers `None` while another caller's comparison runs.
    /// The handle stays good when the file is evicted: it is never changed, only unlinked.
    pub async fn whole(&self, version: &Version) -> Option<File> {
        self.off_worker(version, |shared, entry| shared.whole(entry)).await
    }

    /// What the contents take on disk, about; 0 until the folder was looked through after the start.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Ordering::Relaxed)
    }

    /// What the contents may take on disk.
    pub fn bytes_max(&self) -> u64 {
        self.shared.bytes_max
    }

    /// What was read and kept since the start.
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        Counts {
            hits: get(&shared.hits),
            misses: get(&shared.misses),
            kept: get(&shared.kept),
            dropped: get(&shared.dropped),
        }
    }

    /// Waits until what was given to [`DiskCache::keep`] before is written or given up.
    pub async fn settled(&self) {
        let (mark, reached) = oneshot::channel();
        if self.queue.send(Job::Mark(mark)).is_ok() {
            // An error means that the writer is gone, and then nothing waits.
            let _ = reached.await;
        }
    }

    /// Runs disk work where it blocks no request; trouble is told once and is no answer.
    async fn off_worker<T: Send + 'static>(
        &self,
        version: &Version,
        work: impl FnOnce(&Shared, &Entry) -> io::Result<Option<T>> + Send + 'static,
    ) -> Option<T> {
        if self.shared.reads.is_lasting() || !self.shared.knows(version) {
            return None;
        }
        let (shared, version) = (self.shared.clone(), version.clone());
        let done = tokio::task::spawn_blocking(move || {
            let entry = Entry::of(&shared.store, &version, shared.chunk_bytes);
            let result = work(&shared, &entry);
            shared.judge(&entry, result)
        });
        done.await.ok().flatten()
    }
}

impl Shared {
    /// Whether a version can be told from others.
    fn knows(&self, version: &Version) -> bool {
        !version.etag.as_str().is_empty()
    }

    fn read(&self, entry: &Entry, range: Range<u64>, memory: Vec<u8>) -> io::Result<Option<Bytes>> {
        if range.end > entry.size_bytes {
            return Ok(None);
        }
        let chunks = range.start / self.chunk_bytes..range.end.div_ceil(self.chunk_bytes);
        let Some(sums) = entry.open_sums(&self.folder)? else { return Ok(None) };
        let records = sums.read(chunks.clone())?;
        if records.contains(&entry::ABSENT) {
            return Ok(None);
        }
        let start = chunks.start * self.chunk_bytes;
        let end = (chunks.end * self.chunk_bytes).min(entry.size_bytes);
        let bytes = entry::read_exact_at(&entry.open_data(&self.folder)?, start..end, memory)?;
        for (index, record) in chunks.zip(records) {
            let own = entry.chunk_range(index);
            if entry.sum(index, &bytes[(own.start - start) as usize..(own.end - start) as usize]) != record {
                self.forget_chunk(entry, index);
                return Ok(None);
            }
        }
        sums.touch(self.clock.now());
        Ok(Some(Bytes::from(bytes).slice((range.start - start) as usize..(range.end - start) as usize)))
    }

    fn whole(&self, entry: &Entry) -> io::Result<Option<File>> {
        let Some(sums) = entry.open_sums(&self.folder)? else { return Ok(None) };
        if entry.chunks() == 0 || !sums.reach(entry.chunks())? {
            return Ok(None);
        }
        let records = sums.read(0..entry.chunks())?;
        if records.contains(&entry::ABSENT) {
            return Ok(None);
        }
        let data = entry.open_data(&self.folder)?;
        let fingerprint = Fingerprint::of(&data)?;
        sums.touch(self.clock.now());
        let missing = self.verified.missing(entry, fingerprint);
        if missing.is_empty() {
            return Ok(Some(data));
        }
        let Some(_turn) = Turn::take(&self.verifying, &entry.stem) else { return Ok(None) };
        let mut bytes = Vec::new();
        for index in missing {
            bytes = entry::read_exact_at(&data, entry.chunk_range(index), bytes)?;
            if entry.sum(index, &bytes) != records[index as usize] {
                self.forget_chunk(entry, index);
                return Ok(None);
            }
            self.verified.note_compared(entry, fingerprint, index);
        }
        // Whoever changed it meanwhile makes the next caller compare again.
        Ok((Fingerprint::of(&data)? == fingerprint).then_some(data))
    }

    /// What an outcome means for the cache: its errors are never the reader's.
    fn judge<T>(&self, entry: &Entry, result: io::Result<Option<T>>) -> Option<T> {
        let error = match result {
            Ok(answer) => {
                answer.iter().for_each(|_| self.reads.passed());
                return answer;
            }
            Err(error) => error,
        };
        match error.kind() {
            // Evicted in this moment, or half of the pair was lost.
            io::ErrorKind::NotFound => entry.remove(&self.folder),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                self.complain(entry, &error.to_string());
                entry.remove(&self.folder);
            }
            _ => self.reads.happened(&self.folder, &error),
        }
        None
    }

    /// The chunk's bytes are not what was kept: it is fetched again.
    fn forget_chunk(&self, entry: &Entry, index: u64) {
        self.complain(entry, &format!("chunk {index} is not what was written"));
        if let Err(error) = entry.forget_chunk(&self.folder, index) {
            self.writes.happened(&self.folder, &error);
        }
    }

    /// Tells of damage, once for each file.
    fn complain(&self, entry: &Entry, what: &str) {
        let mut complained = self.complained.lock().expect("no panic under this lock");
        if complained.len() < COMPLAINTS_MAX && complained.insert(entry.stem.clone()) {
            let path = entry.data_path(&self.folder);
            log::warn!("{}: {what}; it is fetched again from the store", path.display());
        }
    }
}

/// One comparison of a file at a time.
struct Turn<'a> {
    all: &'a Mutex<HashSet<String>>,
    stem: &'a str,
}

impl<'a> Turn<'a> {
    fn take(all: &'a Mutex<HashSet<String>>, stem: &'a str) -> Option<Self> {
        let free = all.lock().expect("no panic under this lock").insert(stem.to_owned());
        free.then_some(Turn { all, stem })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.lock().expect("no panic under this lock").remove(self.stem);
    }
}

/// Makes the folder, for its owner alone, and answers its lock file, whose making proves that it can be written.
fn take_folder(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = folder.symlink_metadata()?;
    // In a folder that others may write, somebody could have laid it out before us and read along.
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let why = format!("{} belongs to another user", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    if found.mode() & 0o077 != 0 {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700))?;
    }
    entry::private().create(true).truncate(false).open(folder.join("lock"))
}
