//! Runs a plan: one PUT, one COPY, or a multipart upload whose parts go in parallel.
//!
//! A multipart upload is recorded in the state folder before its first part goes, so that a mount that dies leaves a
//! note for the next one, which aborts it or goes on with it. A failure aborts it at once, or leaves it to the next
//! attempt: see `resume`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{Error, Meaning, Result};
use crate::format::encryption::makes_up_tags;
use crate::store::operation::COPY_OBJECT;
use crate::store::versions::ListedPart;
use crate::store::{
    Condition, CopyHeaders, CopySource, ETag, GetOptions, Kind, Location, ObjectHeaders, Part, Written,
};

use super::append::Grown;
use super::attempt::{Attempt, SENDS_MAX};
use super::budget::Claim;
use super::extents::{Extents, Source};
use super::plan::{Piece, Plan, plan, plan_without_copies};
use super::resume::{Before, Parts, is_made_of, mark, passes};
use super::stage::{Staged, off_worker};
use super::state::Leftover;
use super::{Data, Stored, Version, version_error};

/// Content that is about to be stored: it does not change while it is.
pub(super) struct Snapshot {
    pub(super) extents: Extents,
    pub(super) stage: Option<Arc<dyn Staged>>,
    /// The version that it replaces, if any.
    pub(super) base: Option<ETag>,
    /// Bytes that the store has confirmed, for progress.
    pub(super) stored_bytes: Arc<AtomicU64>,
    /// Whether the same is stored again until it is: what has arrived of it is kept for that.
    pub(super) is_insistent: bool,
}

impl Snapshot {
    /// What it means that bytes of a version cannot be had. Another object that was replaced is no lost race for this
    /// one's name.
    fn source_error(&self, stored: &Stored, error: Error) -> Error {
        let own = self.base.as_ref() == Some(&stored.version.etag);
        match error.store_kind() {
            Some(Kind::PreconditionFailed) if !own => {
                Error::with_source(error.meaning(), stored.version.location.to_string(), error)
            }
            _ => error,
        }
    }
}

/// What a commit made.
pub(super) struct Committed {
    pub(super) version: Version,
    /// The whole content, if it went up in one PUT.
    pub(super) bytes: Option<Bytes>,
}

impl Data {
    /// Stores a snapshot under `to`.
    pub(super) async fn store_snapshot(
        &self,
        snapshot: &Snapshot,
        to: &Location,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Committed> {
        let growth = self.growth(&snapshot.extents, to, headers, condition);
        let grown = match &growth {
            Some(growth) => self.grow(growth, snapshot, headers, condition).await,
            None => Ok(None),
        };
        let (stored, grows) = match grown {
            Ok(Some(Grown { version, grows })) => (Ok(Committed { version, bytes: None }), grows),
            Ok(None) => (self.store_by_plan(snapshot, to, headers, condition).await, Some(false)),
            Err(error) => (Err(error), None),
        };
        let version = stored.as_ref().ok().map(|committed| &committed.version);
        self.inner.appends.note(to, growth.as_ref(), version.zip(grows));
        stored
    }

    async fn store_by_plan(
        &self,
        snapshot: &Snapshot,
        to: &Location,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Committed> {
        let planned = plan(&snapshot.extents, &self.inner.limits);
        let has_copies = planned.has_copies();
        match self.carry_out(planned, snapshot, to, headers, condition).await {
            Err(error) if has_copies && error.store_kind() == Some(Kind::Unsupported) => {
                log::info!("{to}: the store copies none of it, so its bytes pass through here: {error}");
                self.store_without_copies(snapshot, to, headers, condition).await
            }
            done => done,
        }
    }

    /// Some stores (RGW 16.2) copy nothing that they have encrypted, or are to encrypt.
    async fn store_without_copies(
        &self,
        snapshot: &Snapshot,
        to: &Location,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Committed> {
        let planned = plan_without_copies(&snapshot.extents, &self.inner.limits);
        self.carry_out(planned, snapshot, to, headers, condition).await
    }

    async fn carry_out(
        &self,
        planned: Plan,
        snapshot: &Snapshot,
        to: &Location,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Committed> {
        let size_bytes = snapshot.extents.size_bytes();
        let attempt = Attempt::new(snapshot, to, headers);
        let mut whole = None;
        let written = match planned {
            Plan::Put => {
                let _claim = self.memory_for(snapshot, &(0..size_bytes)).await;
                let bytes = self.assemble(snapshot, 0..size_bytes).await?;
                whole = Some(bytes.clone());
                self.put(&attempt, &bytes, condition).await?
            }
            Plan::Copy(stored) => {
                let (from, source_tags) = self.copy_source(&stored.version).await?;
                // No store takes a condition on what a copy replaces; the source has just been looked at.
                if stored.version.location != *to {
                    self.check(condition, to, COPY_OBJECT).await?;
                }
                let is_md5 = source_tags && !makes_up_tags(headers.encryption.as_deref());
                let headers = CopyHeaders::Replace(headers.clone());
                let copy = || async { Ok(self.inner.store.copy(&from, to, &headers).await?) };
                let copied = self.surely(&attempt, SENDS_MAX, copy).await;
                let copied = copied.map_err(|error| snapshot.source_error(&stored, error))?;
                if is_md5 { same_content(&stored.version, copied)? } else { copied }
            }
            Plan::Multipart(pieces) => self.multipart(snapshot, &pieces, &attempt, condition).await?,
        };
        Ok(Committed {
            version: Version { location: to.clone(), etag: written.etag, size_bytes, version_id: None },
            bytes: whole,
        })
    }

    /// The source of a copy, looked at before: some stores ignore the condition on it.
    async fn checked_source(&self, source: &Version, to: &Location) -> Result<CopySource> {
        if source.location == *to && self.inner.store.head(to, None).await?.etag != source.etag {
            return Err(Error::new(Meaning::Stale, format!("{to}: replaced by another client")));
        }
        Ok(CopySource { location: source.location.clone(), if_match: Some(source.etag.clone()) })
    }

    /// Copies an object on the server, in parts where it is too large for one copy.
    pub async fn copy_object(&self, source: &Version, to: &Location, headers: &CopyHeaders) -> Result<Version> {
        let version = |written: Written| Version {
            etag: written.etag,
            location: to.clone(),
            size_bytes: source.size_bytes,
            version_id: None,
        };
        let mut copies = true;
        if source.size_bytes <= self.inner.limits.copy_bytes_max {
            let from = self.checked_source(source, to).await?;
            match self.inner.store.copy(&from, to, headers).await {
                Ok(written) if headers.has_made_up_tags() => return Ok(version(written)),
                Ok(written) => return same_content(source, written).map(version),
                Err(error) if error.kind == Kind::Unsupported => copies = false,
                Err(error) => return Err(error.into()),
            }
        }
        let headers = match headers {
            CopyHeaders::Replace(headers) => headers.clone(),
            CopyHeaders::Keep { acl, storage_class } => {
                let head = self.inner.store.head(&source.location, None).await?;
                ObjectHeaders { acl: acl.clone(), storage_class: storage_class.clone(), ..head.headers }
            }
        };
        let extents = Extents::whole(Arc::new(Stored::new(source.clone())));
        let stored_bytes = Arc::default();
        let snapshot = Snapshot { extents, stage: None, base: None, stored_bytes, is_insistent: false };
        let stored = match copies {
            true => self.store_snapshot(&snapshot, to, &headers, &Condition::None).await,
            false => self.store_without_copies(&snapshot, to, &headers, &Condition::None).await,
        };
        stored.map(|committed| committed.version)
    }

    async fn multipart(
        &self,
        snapshot: &Snapshot,
        pieces: &[Piece],
        attempt: &Attempt,
        condition: &Condition,
    ) -> Result<Written> {
        let to = &attempt.to;
        let plan = mark(pieces, &attempt.headers).filter(|_| snapshot.is_insistent);
        let (upload, arrived) = match self.before(attempt, plan.as_deref()).await? {
            Before::Completed(version) => return Ok(Written { etag: version.etag, version_id: None }),
            Before::Unfinished(upload, parts) => (upload, parts),
            Before::Nothing => (self.begin_upload(to, &attempt.headers, plan).await?, Parts::new()),
        };
        match self.send_parts(snapshot, pieces, attempt, (&upload.upload_id, &arrived), condition).await {
            Ok(written) => {
                off_worker(move || upload.forget()).await?;
                Ok(written)
            }
            Err(error) => {
                match upload.plan.is_some() && passes(&error) {
                    true => self.keep_unfinished([upload]),
                    false => self.abort_leftovers(vec![upload]).await,
                }
                Err(error)
            }
        }
    }

    async fn begin_upload(&self, to: &Location, headers: &ObjectHeaders, plan: Option<String>) -> Result<Leftover> {
        let upload_id = self.inner.store.create_upload(to, headers).await?;
        let (data, location, id) = (self.clone(), to.clone(), upload_id.clone());
        let recorded = off_worker(move || data.inner.state.record_planned(location, id, plan)).await;
        if recorded.is_err()
            && let Err(error) = self.inner.store.abort_upload(to, &upload_id).await
        {
            log::warn!("{to}: an upload stays in the store: {error}");
        }
        recorded
    }

    async fn send_parts(
        &self,
        snapshot: &Snapshot,
        pieces: &[Piece],
        attempt: &Attempt,
        (upload_id, arrived): (&str, &Parts),
        condition: &Condition,
    ) -> Result<Written> {
        let to = &attempt.to;
        let numbered: Vec<(u32, Piece)> = (1..).zip(pieces.iter().cloned()).collect();
        let parts = stream::iter(numbered)
            .map(|(number, piece)| self.send_part(snapshot, piece, to, (upload_id, number), arrived.get(&number)));
        let mut parts: Vec<Part> = parts.buffer_unordered(self.inner.uploads_at_once).try_collect().await?;
        parts.sort_by_key(|part| part.number);
        self.check_sources(&snapshot.extents, to).await?;
        self.complete(attempt, upload_id, &parts, condition).await
    }

    /// Sends a part, unless it is what has arrived under its number.
    pub(super) async fn send_part(
        &self,
        snapshot: &Snapshot,
        piece: Piece,
        to: &Location,
        (upload_id, number): (&str, u32),
        arrived: Option<&ListedPart>,
    ) -> Result<Part> {
        let length = piece.length();
        let part = match &piece.copied_from {
            Some((stored, offset)) => {
                let version = &stored.version;
                let source = CopySource { location: version.location.clone(), if_match: Some(version.etag.clone()) };
                let range = *offset..offset + length;
                let copied = self.inner.store.upload_part_copy(to, upload_id, number, &source, range).await;
                copied.map_err(|error| snapshot.source_error(stored, version_error(error)))?
            }
            None => {
                let _claim = self.memory_for(snapshot, &piece.range).await;
                let bytes = self.assemble(snapshot, piece.range).await?;
                match arrived {
                    Some(part) if is_made_of(part, &bytes).await? => part.part.clone(),
                    _ => self.inner.store.upload_part(to, upload_id, number, bytes).await?,
                }
            }
        };
        snapshot.stored_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(part)
    }

    /// Memory for the bytes of a range, unless they are in memory already.
    pub(super) async fn memory_for(&self, snapshot: &Snapshot, range: &std::ops::Range<u64>) -> Option<Claim> {
        let held = snapshot.stage.as_ref().is_some_and(|stage| stage.is_held(range));
        if held { None } else { Some(self.inner.budget.claim(range.end - range.start).await) }
    }

    /// The bytes of a range, from wherever they come. Unchanged ones are fetched straight into the buffer, which is
    /// already claimed: waiting for more memory here could wait for ever.
    pub(super) async fn assemble(&self, snapshot: &Snapshot, range: std::ops::Range<u64>) -> Result<Bytes> {
        let extents = snapshot.extents.slice(&range);
        if let ([extent], Some(stage)) = (extents.as_slice(), &snapshot.stage)
            && matches!(extent.source, Source::Staged)
        {
            return stage.clone().read(range).await;
        }
        let mut out = BytesMut::with_capacity((range.end - range.start) as usize);
        for extent in extents {
            match (&extent.source, &snapshot.stage) {
                (Source::Hole, _) => out.resize(out.len() + extent.length() as usize, 0),
                (Source::Staged, Some(stage)) => {
                    out.extend_from_slice(&stage.clone().read(extent.range.clone()).await?)
                }
                (Source::Staged, None) => return Err(Error::new(Meaning::Io, "staged bytes without a staging file")),
                (Source::Object(stored, offset), _) => {
                    let fetched = self.fetch_into(&mut out, stored, *offset..offset + extent.length()).await;
                    fetched.map_err(|error| snapshot.source_error(stored, error))?;
                }
            }
        }
        Ok(out.freeze())
    }

    async fn fetch_into(&self, out: &mut BytesMut, stored: &Stored, range: std::ops::Range<u64>) -> Result<()> {
        let version = &stored.version;
        let wanted = out.len() + (range.end - range.start) as usize;
        let if_match = Some(version.etag.clone());
        let options = GetOptions {
            range: Some(range),
            if_match,
            version_id: version.version_id.clone(),
            ..GetOptions::default()
        };
        let mut got = self.inner.store.get(&version.location, &options).await.map_err(version_error)?;
        if got.head.etag != version.etag {
            return Err(Error::new(Meaning::Stale, version.location.to_string()));
        }
        while let Some(piece) = got.body.next().await {
            out.extend_from_slice(&piece?);
        }
        match out.len() == wanted {
            true => Ok(()),
            false => Err(Error::new(Meaning::Io, format!("{}: body of another length", version.location))),
        }
    }
}

/// Looks at what came of a copy, after it too: see [`Data::copy_source`].
fn same_content(source: &Version, written: Written) -> Result<Written> {
    let in_parts = |etag: &ETag| etag.as_str().contains('-');
    if in_parts(&source.etag) == in_parts(&written.etag) && written.etag != source.etag {
        return Err(Error::new(Meaning::Stale, format!("{}: changed while it was copied", source.location)));
    }
    Ok(written)
}
