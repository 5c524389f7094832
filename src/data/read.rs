//! The reading side of a [`File`]: what lies in the store as it does here comes through the cache, with a window ahead
//! of forward readers; the rest is put together from where its extents lie. Takes no `gate`: readers never wait for a
//! writer.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::error::{Error, Meaning, Result};
use crate::store::ObjectHead;

use super::Stored;
use super::buffers::BUFFER_BYTES;
use super::cache::Cache;
use super::extents::{Extent, Source};
use super::file::{File, State};
use super::readahead::Wanted;
use super::stage::{Stage, Staged};

impl State {
    /// A range of the file, cut to its length.
    fn clip(&self, offset: u64, length: usize) -> Range<u64> {
        let size_bytes = self.extents.size_bytes();
        offset.min(size_bytes)..offset.saturating_add(length as u64).min(size_bytes)
    }

    /// The stored version and its range that a range of the file is, if all of it lies there as it does here.
    fn unchanged(&self, range: &Range<u64>) -> Option<(Arc<Stored>, Range<u64>)> {
        match self.extents.slice(range).as_slice() {
            [Extent { range, source: Source::Object(stored, from) }] if *from == range.start => {
                Some((stored.clone(), range.clone()))
            }
            _ => None,
        }
    }

    /// The same, and how far a reader who has to wait for it should have it fetched.
    fn wanted(&mut self, range: &Range<u64>, cache: &Cache) -> Option<(Arc<Stored>, Range<u64>, Wanted)> {
        let (stored, range) = self.unchanged(range)?;
        let wanted = self.readahead.wanted(&range, stored.version.size_bytes, cache.readahead_limits(), |_| false);
        if !wanted.ahead.is_empty() && self.place.is_none() {
            self.place = Some(cache.take_place());
        }
        Some((stored, range, wanted))
    }
}

impl File {
    /// At an open for reading: starts the conditional GET of the beginning and waits for its head only; the bytes
    /// stream into the cache behind. `None` if nothing needed to be asked, or somebody else asks already.
    ///
    /// # Errors
    /// ESTALE if the object is another version now, or gone.
    pub async fn warm(&self) -> Result<Option<ObjectHead>> {
        match self.warming() {
            Some(warming) => warming.await,
            None => Ok(None),
        }
    }

    /// The same as work that does not keep the file.
    pub fn warming(&self) -> Option<impl Future<Output = Result<Option<ObjectHead>>> + Send + use<>> {
        let cache = self.data.inner.cache.clone();
        let state = self.lock();
        let stored = state.base.clone().filter(|stored| {
            let clean = !state.dirty && state.stage.is_none();
            clean && stored.version.size_bytes > 0 && !cache.has_first(stored)
        })?;
        Some(async move { cache.warm(&stored).await })
    }

    /// Whether the file's version is in the disk cache, as far as its beginning tells.
    pub async fn is_on_disk(&self) -> bool {
        let Some(stored) = self.lock().base.clone() else { return false };
        self.data.inner.cache.is_on_disk(&stored).await
    }

    /// Bytes from an offset, if they are here in one piece; fewer only at the end of the file. Does not wait.
    pub fn read_ready(&self, offset: u64, length: usize) -> Option<Bytes> {
        let cache = &self.data.inner.cache;
        let mut state = self.lock();
        let range = state.clip(offset, length);
        if range.is_empty() {
            return Some(Bytes::new());
        }
        let (stored, range) = state.unchanged(&range)?;
        let bytes = cache.ready(&stored, &range)?;
        let (size_bytes, limits) = (stored.version.size_bytes, cache.readahead_limits());
        let wanted = state.readahead.wanted(&range, size_bytes, limits, |range| cache.has_come(&stored, range));
        drop(state);
        cache.fetch_ahead(&stored, wanted.ahead);
        Some(bytes)
    }

    /// Bytes from an offset; fewer only at the end of the file.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let (extents, stage, wanted) = {
            let mut state = self.lock();
            let range = state.clip(offset, length);
            if range.is_empty() {
                return Ok(Bytes::new());
            }
            let wanted = state.wanted(&range, &self.data.inner.cache);
            (state.extents.slice(&range), state.stage.clone(), wanted)
        };
        if let Some((stored, range, wanted)) = wanted {
            let began = Instant::now();
            let bytes = self.data.inner.cache.read(&stored, range, wanted.ahead).await?;
            if wanted.jumped {
                let mut state = self.lock();
                let (waited, jumps) = state.waited;
                state.waited = (waited + began.elapsed(), jumps + 1);
            }
            return Ok(bytes);
        }
        if let [extent] = extents.as_slice() {
            return self.read_extent(extent, stage.as_ref()).await;
        }
        let mut out = BytesMut::with_capacity(length);
        for extent in &extents {
            out.extend_from_slice(&self.read_extent(extent, stage.as_ref()).await?);
        }
        Ok(out.freeze())
    }

    async fn read_extent(&self, extent: &Extent, stage: Option<&Arc<Stage>>) -> Result<Bytes> {
        match (&extent.source, stage) {
            (Source::Object(stored, from), _) => {
                let range = *from..from + extent.length();
                self.data.inner.cache.read(stored, range.clone(), range.end..range.end).await
            }
            (Source::Staged, Some(stage)) => stage.clone().read(extent.range.clone()).await,
            (Source::Staged, None) => Err(Error::new(Meaning::Io, "staged bytes without a staging file")),
            (Source::Hole, _) => Ok(BytesMut::zeroed(extent.length() as usize).freeze()),
        }
    }

    /// Whether all of the file should be brought in now, because its readers have waited long enough for pieces of it;
    /// answers so once, until [`File::end_bringing_in`]. A file over `size_bytes_max` is not worth it.
    pub fn take_hot(&self, size_bytes_max: u64) -> bool {
        let mut state = self.lock();
        let size_bytes = state.extents.size_bytes();
        let hot = !state.bringing_in
            && !state.dirty
            && self.data.inner.cache.pace().is_hot(state.waited.0, state.waited.1, size_bytes, size_bytes_max);
        state.bringing_in |= hot;
        if let Some(stored) = state.base.as_ref().filter(|_| hot) {
            self.data.inner.cache.keep_blocks(stored);
        }
        hot
    }

    /// The waiting is counted anew: what was brought in may be forgotten again.
    pub async fn end_bringing_in(&self) {
        let base = self.lock().base.clone();
        if let Some(stored) = base {
            self.data.inner.cache.settle().await;
            self.data.inner.cache.find_whole(&stored).await;
        }
        let mut state = self.lock();
        (state.bringing_in, state.waited) = (false, (Duration::ZERO, 0));
    }

    /// The next bytes of a reader who reads all of a clean file; `None` at its end, or if it is not clean.
    pub async fn read_through(&self, offset: u64) -> Result<Option<Bytes>> {
        let cache = &self.data.inner.cache;
        let (stored, range) = {
            let state = self.lock();
            let range = state.clip(offset, BUFFER_BYTES);
            match state.unchanged(&range) {
                Some(found) if !state.dirty => found,
                _ => return Ok(None),
            }
        };
        // All of it is to be kept on disk, which a reader in passing does not wait for.
        cache.settle().await;
        let end = (range.end + cache.window_bytes_max()).min(stored.version.size_bytes);
        let ahead = range.end..end;
        cache.read(&stored, range, ahead).await.map(Some)
    }
}
