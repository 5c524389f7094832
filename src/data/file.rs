//! The bytes of one inode, shared by all its handles: what is stored, what is staged, and how they become one.
//!
//! Locks: `gate` (async) is taken by whoever changes content, and by a commit for all its time, so that what goes up
//! does not change on the way; readers do not take it. `state` (sync) is held for moments and never across an await.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Meaning, Result};
use crate::store::{Kind, Location, ObjectHeaders};

use super::attempt::Attempt;
use super::cache::ReaderPlace;
use super::extents::{Extent, Extents, Source};
use super::readahead::Readahead;
use super::stage::{Stage, Staged};
use super::stream::Stream;
use super::upload::Snapshot;
use super::{Data, Replaces, Stored, Version};

/// Bytes brought at a time when a file's content is saved from being removed.
pub(super) const PRESERVE_BYTES: u64 = 8 << 20;

/// How far a file's present content is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// The store has all of it.
    Stored,
    /// It has changes that wait for close or fsync.
    Pending,
    /// It is on its way.
    Uploading {
        /// How much of it has arrived.
        percent: u8,
    },
    /// Storing it failed; it is kept here.
    Failed {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for UploadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UploadState::Stored => f.write_str("stored"),
            UploadState::Pending => f.write_str("pending"),
            UploadState::Uploading { percent } => write!(f, "uploading {percent}%"),
            UploadState::Failed { reason } => write!(f, "failed {reason}"),
        }
    }
}

pub(super) struct State {
    pub(super) extents: Extents,
    pub(super) base: Option<Arc<Stored>>,
    pub(super) stage: Option<Arc<Stage>>,
    pub(super) dirty: bool,
    pub(super) written: bool,
    pub(super) failed: Option<String>,
    /// The upload that was begun before the file was closed, and whether the store refused to begin one.
    pub(super) stream: Option<Arc<Stream>>,
    pub(super) stream_refused: bool,
    /// Whether somebody sees to it that full parts go up.
    pub(super) sending: bool,
    /// The last commit, if it ended without a clear answer.
    pub(super) unclear: Option<Arc<Attempt>>,
    /// Bytes of the upload under way that have arrived, and of how many.
    pub(super) uploading: Option<(Arc<AtomicU64>, u64)>,
    pub(super) readahead: Readahead,
    /// Its share of the memory for windows, once it is read forward.
    pub(super) place: Option<ReaderPlace>,
    /// How long readers that jump have waited for single pieces, and for how many.
    pub(super) waited: (Duration, u32),
    /// Whether all of it is being brought in because of that.
    pub(super) bringing_in: bool,
}

/// The bytes of a file.
pub struct File {
    pub(super) data: Data,
    pub(super) gate: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

impl File {
    pub(super) fn new(data: Data, base: Option<Version>) -> Self {
        let base = base.map(|version| Arc::new(Stored::new(version)));
        if let Some(stored) = &base {
            data.inner.cache.bring_tail(stored);
        }
        let state = State {
            extents: base.clone().map_or_else(Extents::default, Extents::whole),
            dirty: base.is_none(),
            base,
            stage: None,
            written: false,
            failed: None,
            stream: None,
            stream_refused: false,
            sending: false,
            unclear: None,
            uploading: None,
            readahead: Readahead::default(),
            place: None,
            waited: (Duration::ZERO, 0),
            bringing_in: false,
        };
        File { data, gate: Default::default(), state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds a file's state")
    }

    /// Length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.lock().extents.size_bytes()
    }

    /// Whether the content differs from what is stored, or was never stored.
    pub fn is_dirty(&self) -> bool {
        self.lock().dirty
    }

    /// Whether a byte was written or a length set since the file was created, emptied by open, or stored.
    pub fn is_written(&self) -> bool {
        let state = self.lock();
        state.dirty && state.written
    }

    /// The stored version that the content builds on.
    pub fn version(&self) -> Option<Version> {
        self.lock().base.as_ref().map(|stored| stored.version.clone())
    }

    /// How far the present content is stored.
    pub fn upload_state(&self) -> UploadState {
        let state = self.lock();
        match (&state.uploading, &state.failed) {
            (Some((done, all)), _) => {
                let percent = done.load(Ordering::Relaxed) * 100 / (*all).max(1);
                UploadState::Uploading { percent: percent.min(100) as u8 }
            }
            (None, Some(reason)) if state.dirty => UploadState::Failed { reason: reason.clone() },
            (None, _) if state.dirty => UploadState::Pending,
            (None, _) => UploadState::Stored,
        }
    }

    /// Notes why storing it failed.
    pub fn set_failed(&self, reason: String) {
        self.lock().failed = Some(reason);
    }

    /// Writes bytes at an offset; a gap behind the old end reads as zeros.
    pub async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<()> {
        let _gate = self.gate.lock().await;
        self.put(offset, bytes).await
    }

    /// Writes bytes at an offset, if nobody else is at it and memory has room for them; with `at_end` only if that is the
    /// file's end. Does not wait.
    pub fn try_write_at(&self, offset: u64, bytes: &[u8], at_end: bool) -> bool {
        let Ok(_gate) = self.gate.try_lock() else { return false };
        if at_end && offset != self.size_bytes() {
            return false;
        }
        let (stage, range) = (self.stage(), offset..offset + bytes.len() as u64);
        if offset < stage.given_back_bytes() || !stage.try_write(offset, bytes) {
            return false;
        }
        if let Some(stream) = self.lock().stream.clone() {
            stream.outdate(&range);
        }
        self.note_written(range);
        true
    }

    /// Writes bytes at the file's end, wherever that is now; answers where.
    pub async fn append(&self, bytes: Bytes) -> Result<u64> {
        let _gate = self.gate.lock().await;
        let end = self.size_bytes();
        self.put(end, bytes).await.map(|()| end)
    }

    /// With the gate held.
    async fn put(&self, offset: u64, bytes: Bytes) -> Result<()> {
        let range = offset..offset + bytes.len() as u64;
        let stage = self.stage();
        if offset < stage.given_back_bytes() {
            return Err(Error::new(Meaning::NoSpace, "a part that would be sent again is not kept here"));
        }
        if let Some(stream) = self.lock().stream.clone() {
            stream.outdate(&range);
        }
        stage.write(offset, bytes).await?;
        self.note_written(range);
        Ok(())
    }

    fn note_written(&self, range: Range<u64>) {
        let mut state = self.lock();
        state.extents.put(range, Source::Staged);
        (state.dirty, state.written) = (true, true);
    }

    /// Where its bytes are staged.
    fn stage(&self) -> Arc<Stage> {
        self.lock().stage.get_or_insert_with(|| self.data.inner.stages.create()).clone()
    }

    /// Sets the length.
    ///
    /// # Errors
    /// ENOSPC where it would have to be sent again and some of it is not kept here any more: see [`File::give_back`].
    pub async fn truncate(&self, size_bytes: u64) -> Result<()> {
        let _gate = self.gate.lock().await;
        if self.has_given_back() && size_bytes < self.size_bytes() {
            return Err(Error::new(Meaning::NoSpace, "what was sent is not kept here"));
        }
        let mut state = self.lock();
        let old_bytes = state.extents.size_bytes();
        if let Some(stream) = state.stream.take() {
            stream.outdate(&(old_bytes.min(size_bytes)..old_bytes.max(size_bytes)));
            // Some stores refuse to leave out a part that was sent.
            match size_bytes < stream.sent_bytes() {
                true => stream.discard(),
                false => state.stream = Some(stream),
            }
        }
        state.extents.truncate(size_bytes);
        (state.dirty, state.written) = (true, true);
        Ok(())
    }

    /// O_TRUNC at an open: empty and dirty, but not yet written.
    pub fn mark_emptied(&self) {
        let mut state = self.lock();
        (state.extents, state.stage) = (Extents::default(), None);
        state.dirty = true;
        if let Some(stream) = state.stream.take() {
            stream.discard();
        }
    }

    /// Stores the present content under `to` with these headers, by the cheapest plan; also for a clean file, whose
    /// headers changed. Writers wait, readers go on. After an error the file is as dirty and as readable as before.
    /// Answers what it stored, and with which headers: those with which its upload was begun while it was written.
    pub async fn commit(
        &self,
        to: &Location,
        headers: &ObjectHeaders,
        replaces: Replaces,
    ) -> Result<(Version, ObjectHeaders)> {
        let _gate = self.gate.lock().await;
        self.settle().await?;
        let (snapshot, condition) = {
            let mut state = self.lock();
            let seen = state.base.as_ref().map(|stored| (&stored.version.location, &stored.version.etag));
            let condition = replaces.condition(seen, to);
            let stored_bytes = Arc::<AtomicU64>::default();
            state.uploading = Some((stored_bytes.clone(), state.extents.size_bytes()));
            let base = state.base.as_ref().map(|stored| stored.version.etag.clone());
            let stage = state.stage.clone().map(|stage| stage as Arc<dyn Staged>);
            let extents = state.extents.clone();
            (Snapshot { extents, stage, base, stored_bytes, is_insistent: false }, condition)
        };
        let streamed = self.commit_stream(&snapshot, to, &condition).await;
        let (headers, result) = match streamed {
            Some((headers, result)) => (headers, result),
            None => (headers.clone(), self.data.store_snapshot(&snapshot, to, headers, &condition).await),
        };
        let unclear = match &result {
            Err(error) if error.store_kind().is_some_and(Kind::may_have_happened) => {
                self.data.attempt_behind(error, &snapshot, to, &headers).await
            }
            _ => None,
        };
        let mut state = self.lock();
        state.uploading = None;
        match result {
            Ok(committed) => {
                state.stream = None;
                let stored = Arc::new(Stored::new(committed.version.clone()));
                if let Some(bytes) = committed.bytes {
                    self.data.inner.cache.insert_small(&stored, &bytes);
                }
                state.extents = Extents::whole(stored.clone());
                state.base = Some(stored);
                (state.dirty, state.written, state.failed, state.stage) = (false, false, None, None);
                Ok((committed.version, headers))
            }
            Err(error) => {
                state.failed = Some(error.to_string());
                state.unclear = unclear.map(Arc::new);
                Err(error)
            }
        }
    }

    /// If the last commit ended without a clear answer: finds out whether it was carried out. Then its version has
    /// taken the place of the one that the content builds on, with the same bytes where nothing was changed.
    async fn settle(&self) -> Result<()> {
        let Some(attempt) = self.lock().unclear.clone() else { return Ok(()) };
        let made = self.data.outcome(&attempt).await?;
        let mut state = self.lock();
        state.unclear = None;
        if let Some(version) = made {
            let made = Arc::new(Stored::new(version));
            if let Some(base) = state.base.replace(made.clone()) {
                state.extents = state.extents.taken_over(&base, &made);
            }
        }
        Ok(())
    }

    /// Before the object is unlinked or replaced while handles are open: brings all bytes that only the store has into
    /// the staging file, so that reads go on without it.
    pub async fn preserve(&self) -> Result<()> {
        let _gate = self.gate.lock().await;
        self.bring(|_| true).await
    }

    /// The same for what comes from some versions only, with the gate held.
    pub(super) async fn bring(&self, wanted: impl Fn(&Arc<Stored>) -> bool) -> Result<()> {
        let extents: Vec<Extent> = self.lock().extents.iter().cloned().collect();
        let is_wanted = |source: &Source| matches!(source, Source::Object(stored, _) if wanted(stored));
        for extent in extents.iter().filter(|extent| is_wanted(&extent.source)) {
            let stage = self.stage();
            let mut start = extent.range.start;
            while start < extent.range.end {
                let range = start..(start + PRESERVE_BYTES).min(extent.range.end);
                let bytes = self.read_at(range.start, (range.end - range.start) as usize).await?;
                stage.write(range.start, bytes).await?;
                start = range.end;
            }
            self.lock().extents.put(extent.range.clone(), Source::Staged);
        }
        Ok(())
    }

    /// The same content now lies elsewhere in the store.
    pub fn rebase(&self, version: Version) {
        let mut state = self.lock();
        let moved = Arc::new(Stored::new(version));
        if let Some(base) = state.base.replace(moved.clone()) {
            state.extents = state.extents.moved(&base, &moved);
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Who still reads it, or builds on it, has it too.
        let mut state = self.lock();
        if let Some(stream) = state.stream.take() {
            stream.discard();
        }
        state.extents = Extents::default();
        let stored = state.base.take().and_then(Arc::into_inner);
        drop(state);
        if let Some(stored) = stored {
            self.data.inner.cache.forget(&stored);
        }
    }
}
