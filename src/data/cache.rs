//! Clean bytes of stored versions: chunks in memory, and the ranged GETs that fill them.
//!
//! A chunk is fetched once however many wait for it. Every GET carries If-Match, so that a chunk never holds bytes of
//! another version; what the store answers to a replaced object is ESTALE here. Whoever waits gets the bytes or an
//! error: a fetch that dies marks its chunks as failed.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use lru::LruCache;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::error::{Error, Meaning, Result};
use crate::store::{GetOptions, ObjectHead, Store};

use super::Stored;
use super::budget::{Budget, Claim};
use super::readahead::CHUNK_BYTES;

/// Chunks that one GET brings at most: an object of Ceph lies in pieces of 4 MiB.
const FETCH_CHUNKS_MAX: u64 = 4;

/// The identity of a stored version, and a chunk's number in it.
type ChunkKey = (u64, u64);

#[derive(Clone)]
enum ChunkState {
    Coming,
    Here(Bytes),
    Failed(Meaning, String),
}

struct Chunk {
    state: watch::Sender<ChunkState>,
    _claim: Option<Claim>,
}

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    store: Arc<dyn Store>,
    budget: Budget,
    tracker: TaskTracker,
    chunks: Arc<Mutex<LruCache<ChunkKey, Arc<Chunk>>>>,
}

impl Cache {
    /// An empty cache that takes its memory from `budget`.
    pub fn new(store: Arc<dyn Store>, budget: Budget, tracker: TaskTracker) -> Self {
        let chunks = Arc::new(Mutex::new(LruCache::<ChunkKey, Arc<Chunk>>::unbounded()));
        let shrinking = Arc::downgrade(&chunks);
        budget.on_shortage(move |bytes| {
            if let Some(chunks) = shrinking.upgrade() {
                shrink(&mut chunks.lock().expect("no panic under this lock"), bytes);
            }
        });
        Cache { store, budget, tracker, chunks }
    }

    /// Whether a version's first chunk is here or on its way.
    pub fn has_first(&self, stored: &Stored) -> bool {
        self.chunks.lock().expect("no panic under this lock").contains(&(stored.id, 0))
    }

    /// Keeps the whole of a small version that we have just written, if there is room.
    pub fn insert_small(&self, stored: &Stored, bytes: Bytes) {
        if bytes.is_empty() || bytes.len() as u64 > CHUNK_BYTES || bytes.len() as u64 != stored.version.size_bytes {
            return;
        }
        if let Some(claim) = self.budget.try_claim(bytes.len() as u64) {
            let chunk = Chunk { state: watch::Sender::new(ChunkState::Here(bytes)), _claim: Some(claim) };
            self.chunks.lock().expect("no panic under this lock").put((stored.id, 0), Arc::new(chunk));
        }
    }

    /// Starts the GET of a version's beginning and waits for its head only.
    pub async fn warm(&self, stored: &Arc<Stored>) -> Result<ObjectHead> {
        let (head, told) = oneshot::channel();
        self.fetch_missing(stored, 0..1, true, Some(head)).await;
        match told.await {
            Ok(head) => head,
            // Somebody else fetches it already: the head of that fetch was theirs.
            Err(_) => Ok(self.store.head(&stored.version.location, None).await?),
        }
    }

    /// Bytes of a version; `ahead` are the chunks that are worth fetching with them.
    pub async fn read(&self, stored: &Arc<Stored>, range: Range<u64>, ahead: Range<u64>) -> Result<Bytes> {
        let first = range.start / CHUNK_BYTES;
        let end = range.end.div_ceil(CHUNK_BYTES);
        self.fetch_missing(stored, first..end, true, None).await;
        self.fetch_missing(stored, end..ahead.end.max(end), false, None).await;
        let mut joined = BytesMut::new();
        for index in first..end {
            let chunk = self.chunk(stored, index).await?;
            let from = range.start.saturating_sub(index * CHUNK_BYTES) as usize;
            let to = ((range.end - index * CHUNK_BYTES).min(CHUNK_BYTES) as usize).min(chunk.len());
            let part = chunk.slice(from.min(to)..to);
            if end - first == 1 {
                return Ok(part);
            }
            joined.extend_from_slice(&part);
        }
        Ok(joined.freeze())
    }

    /// One chunk, once it is here.
    async fn chunk(&self, stored: &Arc<Stored>, index: u64) -> Result<Bytes> {
        loop {
            let known = self.chunks.lock().expect("no panic under this lock").get(&(stored.id, index)).cloned();
            let Some(chunk) = known else {
                // Given back under pressure before we came to it.
                self.fetch_missing(stored, index..index + 1, true, None).await;
                continue;
            };
            let mut state = chunk.state.subscribe();
            let state = state.wait_for(|state| !matches!(state, ChunkState::Coming)).await;
            return match state.map(|state| state.clone()) {
                Ok(ChunkState::Here(bytes)) => Ok(bytes),
                Ok(ChunkState::Failed(meaning, subject)) => Err(Error::new(meaning, subject)),
                Ok(ChunkState::Coming) | Err(_) => Err(Error::new(Meaning::Io, "a fetch was given up")),
            };
        }
    }

    /// Starts GETs for the chunks that nobody has asked for yet. `needed` ones wait for memory, others do without.
    async fn fetch_missing(
        &self,
        stored: &Arc<Stored>,
        wanted: Range<u64>,
        needed: bool,
        mut head: Option<oneshot::Sender<Result<ObjectHead>>>,
    ) {
        let size_bytes = stored.version.size_bytes;
        let mut index = wanted.start;
        while index < wanted.end {
            let mut run = Vec::new();
            while index < wanted.end && (run.len() as u64) < FETCH_CHUNKS_MAX {
                let known = self.chunks.lock().expect("no panic under this lock").contains(&(stored.id, index));
                if known {
                    break;
                }
                let bytes = (size_bytes - index * CHUNK_BYTES).min(CHUNK_BYTES);
                let claim = match needed && run.is_empty() {
                    true => Some(self.budget.claim(bytes).await),
                    false => self.budget.try_claim(bytes),
                };
                if claim.is_none() {
                    break;
                }
                let chunk = Arc::new(Chunk { state: watch::Sender::new(ChunkState::Coming), _claim: claim });
                let mut chunks = self.chunks.lock().expect("no panic under this lock");
                // Another reader may have come while we waited for memory.
                if chunks.contains(&(stored.id, index)) {
                    break;
                }
                chunks.put((stored.id, index), chunk.clone());
                drop(chunks);
                run.push((index, chunk));
                index += 1;
            }
            if run.is_empty() {
                index += 1;
                continue;
            }
            let fetch = Fetch { cache: self.clone(), stored: stored.clone(), chunks: run };
            self.tracker.spawn(fetch.run(head.take()));
        }
    }
}

/// Gives back chunks that are not used right now, the longest unused first.
fn shrink(chunks: &mut LruCache<ChunkKey, Arc<Chunk>>, bytes: u64) {
    let mut freed = 0;
    let mut kept = Vec::new();
    while freed < bytes {
        let Some((key, chunk)) = chunks.pop_lru() else { break };
        let length = match &*chunk.state.borrow() {
            ChunkState::Here(bytes) => Some(bytes.len() as u64),
            ChunkState::Failed(..) => Some(CHUNK_BYTES),
            ChunkState::Coming => None,
        };
        match length {
            Some(length) => freed += length,
            None => kept.push((key, chunk)),
        }
    }
    for (key, chunk) in kept {
        chunks.put(key, chunk);
    }
}

/// One GET, and the neighbouring chunks that it fills. Dropped before its end, it fails what is left.
struct Fetch {
    cache: Cache,
    stored: Arc<Stored>,
    chunks: Vec<(u64, Arc<Chunk>)>,
}

impl Fetch {
    async fn run(mut self, head: Option<oneshot::Sender<Result<ObjectHead>>>) {
        let size_bytes = self.stored.version.size_bytes;
        let first = self.chunks.first().map_or(0, |(index, _)| *index);
        let last = self.chunks.last().map_or(0, |(index, _)| *index);
        let range = first * CHUNK_BYTES..((last + 1) * CHUNK_BYTES).min(size_bytes);
        let version = self.stored.version.clone();
        let options =
            GetOptions { range: Some(range.clone()), if_match: Some(version.etag.clone()), ..GetOptions::default() };
        let got = match self.cache.store.get(&version.location, &options).await {
            Ok(got) if got.head.etag == version.etag => got,
            Ok(_) => return self.fail(Error::new(Meaning::Stale, version.location.to_string()), head),
            Err(error) => return self.fail(error.into(), head),
        };
        if let Some(head) = head {
            // The opener may have given up meanwhile.
            let _ = head.send(Ok(got.head));
        }
        let mut body = got.body;
        let mut filling = BytesMut::new();
        let mut at = range.start;
        while let Some(piece) = body.next().await {
            match piece {
                Ok(mut piece) => {
                    while !piece.is_empty() {
                        let boundary = ((at / CHUNK_BYTES + 1) * CHUNK_BYTES).min(range.end);
                        let take = piece.len().min((boundary - at) as usize);
                        let Some(taken) = (take > 0).then(|| piece.split_to(take)) else { break };
                        at += take as u64;
                        self.fill(&mut filling, taken, at == boundary);
                    }
                }
                Err(error) => return self.fail(error.into(), None),
            }
        }
        if !self.chunks.is_empty() {
            self.fail(Error::new(Meaning::Io, "an object's body ended early"), None);
        }
    }

    /// Adds bytes to the chunk that is being filled; a chunk that is one piece of the body is not copied.
    fn fill(&mut self, filling: &mut BytesMut, taken: Bytes, complete: bool) {
        if filling.is_empty() && complete {
            return self.done(taken);
        }
        if filling.is_empty() {
            filling.reserve(CHUNK_BYTES.min(self.stored.version.size_bytes) as usize);
        }
        filling.extend_from_slice(&taken);
        if complete {
            self.done(std::mem::take(filling).freeze());
        }
    }

    fn done(&mut self, bytes: Bytes) {
        if !self.chunks.is_empty() {
            let (_, chunk) = self.chunks.remove(0);
            chunk.state.send_replace(ChunkState::Here(bytes));
        }
    }

    fn fail(mut self, error: Error, head: Option<oneshot::Sender<Result<ObjectHead>>>) {
        self.fail_rest(error.meaning(), &error.to_string());
        if let Some(head) = head {
            let _ = head.send(Err(error));
        }
    }

    fn fail_rest(&mut self, meaning: Meaning, subject: &str) {
        let mut chunks = self.cache.chunks.lock().expect("no panic under this lock");
        for (index, chunk) in self.chunks.drain(..) {
            // Taken out first, so that the next reader tries anew.
            chunks.pop(&(self.stored.id, index));
            chunk.state.send_replace(ChunkState::Failed(meaning, subject.to_owned()));
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.fail_rest(Meaning::Io, "a fetch was given up");
    }
}
