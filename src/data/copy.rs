//! Content that is taken over from another file: its extents, not its bytes.
//!
//! Until it is stored, the target refers to the version that the source had. Whoever takes that version away through
//! this mount brings its bytes here first ([`File::keep_borrowed`]); what another client takes away is ESTALE at the
//! next close, never bytes of another version.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Meaning, Result};
use crate::format::encryption::makes_up_tags;
use crate::store::{CopySource, Location, ObjectHead};

use super::extents::{Extent, Extents, Source};
use super::file::{File, PRESERVE_BYTES};
use super::{Data, Stored, Version, version_error};

impl File {
    /// Takes over a range of `source`, cut to its length, to where `at` is here; answers how many bytes. What lies in
    /// the store is referred to; what is only staged is copied. The caller keeps the source from being stored meanwhile.
    pub async fn take_over(&self, source: &File, range: Range<u64>, at: u64) -> Result<u64> {
        let extents = source.lock().extents.slice(&range);
        let mut taken_bytes = 0;
        for Extent { range: from, source: origin } in extents {
            let length = from.end - from.start;
            let to = at + taken_bytes;
            match origin {
                Source::Object(..) | Source::Hole => self.refer(to..to + length, origin).await,
                Source::Staged => self.copy_staged(source, from, to).await?,
            }
            taken_bytes += length;
        }
        Ok(taken_bytes)
    }

    async fn refer(&self, range: Range<u64>, origin: Source) {
        let _gate = self.gate.lock().await;
        let mut state = self.lock();
        if let Some(stream) = &state.stream {
            stream.outdate(&range);
        }
        state.extents.put(range, origin);
        (state.dirty, state.written) = (true, true);
    }

    async fn copy_staged(&self, source: &File, range: Range<u64>, at: u64) -> Result<()> {
        let mut done = 0;
        while range.start + done < range.end {
            let length = PRESERVE_BYTES.min(range.end - range.start - done);
            let bytes = source.read_at(range.start + done, length as usize).await?;
            if bytes.is_empty() {
                return Err(Error::new(Meaning::Stale, "the source of a copy was cut meanwhile"));
            }
            let length = bytes.len() as u64;
            self.write_at(at + done, bytes).await?;
            done += length;
        }
        Ok(())
    }

    /// Whether content that is not stored yet refers to an object other than the file's own version, that fits.
    pub fn borrows(&self, fits: impl Fn(&Location) -> bool) -> bool {
        let state = self.lock();
        let base = state.base.as_ref();
        state.dirty && borrowed(&state.extents, base).any(|stored| fits(&stored.version.location))
    }

    /// Brings the bytes here that the file refers to and that are about to be taken away.
    ///
    /// # Errors
    /// None if another client took them away before: the file's own close tells that.
    pub async fn keep_borrowed(&self) -> Result<()> {
        let _gate = self.gate.lock().await;
        let base = self.lock().base.clone();
        match self.bring(|stored| base.as_ref().is_none_or(|base| !Arc::ptr_eq(base, stored))).await {
            Err(error) if error.meaning() == Meaning::Stale => {
                log::warn!("a copy that is not stored yet has lost its source: {error}");
                Ok(())
            }
            result => result,
        }
    }
}

fn borrowed<'a>(extents: &'a Extents, base: Option<&'a Arc<Stored>>) -> impl Iterator<Item = &'a Arc<Stored>> {
    extents.iter().filter_map(move |extent| match &extent.source {
        Source::Object(stored, _) if base.is_none_or(|base| !Arc::ptr_eq(base, stored)) => Some(stored),
        Source::Object(..) | Source::Staged | Source::Hole => None,
    })
}

impl Data {
    /// The source of a copy of a whole version, looked at before: some stores ignore the condition on it. Also answers
    /// whether its tag is made of its bytes.
    pub(super) async fn copy_source(&self, version: &Version) -> Result<(CopySource, bool)> {
        let head = self.check_present(version).await?;
        let source = CopySource { location: version.location.clone(), if_match: Some(version.etag.clone()) };
        Ok((source, !makes_up_tags(head.headers.encryption.as_deref())))
    }

    /// After parts were copied and before they become an object: every other object that they came from is still the
    /// version that was meant. Some stores ignore the condition on a copy's source.
    pub(super) async fn check_sources(&self, extents: &Extents, to: &Location) -> Result<()> {
        let mut checked: Vec<&Version> = Vec::new();
        for stored in borrowed(extents, None) {
            let version = &stored.version;
            if version.location != *to && !checked.contains(&version) {
                self.check_present(version).await?;
                checked.push(version);
            }
        }
        Ok(())
    }

    async fn check_present(&self, version: &Version) -> Result<ObjectHead> {
        let head = self.inner.store.head(&version.location, None).await.map_err(version_error)?;
        match head.etag == version.etag {
            true => Ok(head),
            false => Err(Error::new(Meaning::Stale, format!("{}: replaced by another client", version.location))),
        }
    }
}
