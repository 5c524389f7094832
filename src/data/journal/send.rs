//! Carries changes out, many at once, as the queue allows. What fails rests and is tried again, for ever: nothing that
//! was acknowledged is given up. What lost a race goes beside its name.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::data::attempt::Attempt;
use crate::data::extents::{Extents, Source};
use crate::data::stage::{Staged, local_work};
use crate::data::upload::Snapshot;
use crate::data::{Stored, Version};
use crate::error::{Error, Meaning, Result};
use crate::store::{Condition, CopyHeaders, ETag, Key, Kind, Location, operation};

use super::record::{Change, Pending, Record, Segment, slice};
use super::{Inner, Journal};

/// Deletes of one request at most (S3 API reference, "DeleteObjects").
const DELETES_MAX: usize = 1000;

/// What became of a change.
enum Outcome {
    /// It is carried out; the store calls the version so.
    Stored(ETag),
    /// Another client was first: the bytes are under this key now.
    Beside(Key),
    /// Another client took away what it was to copy: there is nothing to do any more.
    SourceGone,
    /// Nothing can be made of it: another client took away what it builds on.
    Lost(Error),
}

impl Journal {
    /// Carries changes out until `stop`; then finishes what is under way.
    pub async fn run(self, stop: CancellationToken) {
        let inner = self.inner;
        let mut under_way = JoinSet::new();
        loop {
            while !stop.is_cancelled() {
                let next = inner.lock().queue.start(Instant::now(), under_way.len(), inner.config.requests_max);
                let Some(record) = next else { break };
                under_way.spawn(inner.clone().carry_out(record));
            }
            let turn = inner.lock().queue.next_turn(Instant::now());
            let wait = tokio::time::sleep_until(turn.unwrap_or_else(Instant::now));
            tokio::select! {
                () = stop.cancelled(), if under_way.is_empty() => break,
                () = inner.kick.notified() => {}
                _ = under_way.join_next(), if !under_way.is_empty() => {}
                () = wait, if turn.is_some() && !stop.is_cancelled() => {}
            }
        }
        inner.sender.wait_for_background().await;
    }
}

impl Inner {
    async fn carry_out(self: Arc<Self>, record: Arc<Record>) {
        match &record.change {
            Change::Delete => self.delete(record).await,
            Change::Store(pending) => {
                let result = self.store(&record, pending).await;
                self.finish_store(&record, pending, result).await;
            }
        }
        // What a change has begun that is not wanted any more, or was carried out in another way.
        self.sender.abort_unfinished(|name| self.lock().queue.last(name).is_none()).await;
    }

    /// Deletes a name, and in the same request others whose turn has come.
    async fn delete(&self, first: Arc<Record>) {
        let bucket = first.to.bucket.clone();
        let mut records = vec![first];
        {
            let mut book = self.lock();
            let share = book.queue.turns(Instant::now(), self.config.requests_max);
            records.extend(book.queue.start_deletes(&bucket, share, DELETES_MAX - 1));
        }
        let failures = match records.as_slice() {
            [only] => self.store.delete(&only.to, None).await.map(|()| Vec::new()),
            all => {
                let keys: Vec<Key> = all.iter().map(|record| record.to.key.clone()).collect();
                self.store.delete_many(&bucket, &keys).await
            }
        };
        for record in records {
            let failure = match &failures {
                Err(error) => Some(error),
                Ok(failures) => failures.iter().find(|one| one.key == record.to.key).map(|one| &one.error),
            };
            match failure.filter(|error| error.kind != Kind::NotFound) {
                None => self.finish(&record),
                Some(error) => self.fail(&record, &error.to_string(), Some(error.kind)),
            }
        }
    }

    /// Stores an object as a mount without a journal would.
    async fn store(self: &Arc<Self>, record: &Record, pending: &Pending) -> Result<Outcome> {
        let (to, snapshot) = (&record.to, self.snapshot(record, pending));
        let stored = match pending.copied_from().filter(|_| pending.keeps_headers) {
            Some((source, etag)) => self.copy(source, etag, to, pending).await,
            None => {
                // Whoever else made the same directory meanwhile is no rival.
                let condition = if record.is_marker() { &Condition::None } else { &pending.condition };
                let stored = self.sender.store_snapshot(&snapshot, to, &pending.headers, condition).await;
                stored.map(|committed| committed.version)
            }
        };
        match stored {
            Ok(version) => Ok(Outcome::Stored(version.etag)),
            Err(error) if error.meaning() == Meaning::Stale || matches!(error.store_kind(), Some(Kind::NotFound)) => {
                self.lost_race(record, pending, &snapshot, error).await
            }
            Err(error) => Err(error),
        }
    }

    async fn copy(&self, source: &Location, etag: &ETag, to: &Location, pending: &Pending) -> Result<Version> {
        let version = Version {
            location: source.clone(),
            etag: etag.clone(),
            size_bytes: pending.size_bytes(),
            version_id: None,
        };
        let headers = CopyHeaders::Keep {
            acl: pending.headers.acl.clone(),
            storage_class: pending.headers.storage_class.clone(),
        };
        self.sender.copy_object(&version, to, &headers).await
    }

    /// Another version is there: ours, if an earlier attempt was carried out; else another client's.
    async fn lost_race(
        &self,
        record: &Record,
        pending: &Pending,
        snapshot: &Snapshot,
        cause: Error,
    ) -> Result<Outcome> {
        let to = &record.to;
        let mut attempt = Attempt::new(snapshot, to, &pending.headers);
        attempt.etag = Some(pending.etag.clone());
        // An append gives its headers to whatever it is made to, which may be another client's: they prove nothing.
        if cause.store_operation() != Some(operation::APPEND_OBJECT)
            && let Some(version) = self.sender.outcome(&attempt).await?
        {
            return Ok(Outcome::Stored(version.etag));
        }
        if pending.copied_from().is_some() {
            return Ok(Outcome::SourceGone);
        }
        // An upload that somebody has aborted is no rival's version; bytes that are gone with their source are stale.
        if cause.meaning() == Meaning::NotFound {
            match self.sender.check(&pending.condition, to, operation::COMPLETE_MULTIPART_UPLOAD).await {
                Ok(()) => return Err(Error::new(Meaning::Io, cause.to_string())),
                Err(error) if error.kind == Kind::PreconditionFailed => {}
                Err(error) => return Err(error.into()),
            }
        }
        let builds_on = pending.segments.iter().any(|segment| matches!(segment, Segment::Stored { .. }));
        let now = OffsetDateTime::from(self.config.clock.now());
        let time = now.format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap_or_default();
        let key = Key::new(&format!("{}.conflict-{}-{time}", to.key, self.config.host_name));
        let (false, Ok(key)) = (builds_on, key) else { return Ok(Outcome::Lost(cause)) };
        let beside = Location { bucket: to.bucket.clone(), key };
        self.sender.store_snapshot(snapshot, &beside, &pending.headers, &Condition::None).await?;
        Ok(Outcome::Beside(beside.key))
    }

    fn snapshot(self: &Arc<Self>, record: &Record, pending: &Pending) -> Snapshot {
        let mut extents = Extents::default();
        let mut at = 0;
        for segment in &pending.segments {
            let range = at..at + segment.length();
            at = range.end;
            match segment {
                Segment::Local { .. } => extents.put(range, Source::Staged),
                Segment::Stored { source, etag, range: from, whole, .. } => {
                    let (location, etag) = (source.clone(), etag.clone());
                    // How long all of it is matters only for a copy of all of it.
                    let size_bytes = if *whole { from.end } else { u64::MAX };
                    let version = Version { location, etag, size_bytes, version_id: None };
                    extents.put(range, Source::Object(Arc::new(Stored::new(version)), from.start));
                }
            }
        }
        let base = match &pending.condition {
            Condition::IfMatch(etag) => Some(etag.clone()),
            _ => None,
        };
        let stored_bytes = {
            let book = self.lock();
            let op = book.queue.of(&record.to).find(|op| op.record.order == record.order);
            op.map(|op| op.stored_bytes.clone()).unwrap_or_default()
        };
        let stage = Arc::new(Content { inner: self.clone(), segments: pending.segments.clone() });
        // An earlier attempt may have counted what is counted now.
        stored_bytes.store(0, Ordering::Relaxed);
        Snapshot { extents, stage: Some(stage), base, stored_bytes, is_insistent: true }
    }

    async fn finish_store(&self, record: &Record, pending: &Pending, result: Result<Outcome>) {
        let to = &record.to;
        match result {
            Ok(Outcome::Stored(etag)) => {
                if etag == pending.etag {
                    self.lock().aliases.remove(to);
                    return self.finish(record);
                }
                // What is being taken in may build on it, and is not in the queue yet.
                let _accepting = self.accepting.lock().await;
                self.called_otherwise(record, &pending.etag, etag);
                self.finish(record);
            }
            Ok(Outcome::Beside(key)) => {
                log::error!("{to}: another client stored it meanwhile; what was written here is now {key}");
                self.lock().conflicts.insert(to.clone(), key.to_string());
                self.finish(record);
            }
            Ok(Outcome::SourceGone) => {
                let source = pending.copied_from().map(|(source, _)| source.clone());
                log::error!("{to}: not made: another client has replaced or removed what it was to be a copy of");
                if let Some(source) = source.filter(|source| source != to) {
                    self.keep_source(&source);
                }
                self.finish(record);
            }
            Ok(Outcome::Lost(cause)) => match self.spool.set_aside(record) {
                Ok(place) => {
                    log::error!(
                        "{to}: another client replaced what was edited here; what was written is kept in {}: {cause}",
                        place.display()
                    );
                    self.lock().conflicts.insert(to.clone(), place.display().to_string());
                    let finished = self.lock().queue.finish(record.order);
                    // What it needs stays with it.
                    drop(finished);
                    self.note();
                }
                Err(error) => self.fail(record, &format!("{cause}; and it cannot be set aside: {error}"), None),
            },
            Err(error) => self.fail(record, &error.to_string(), error.store_kind()),
        }
    }

    /// The delete of a name that was to be moved away, and was not: it stays.
    fn keep_source(&self, source: &Location) {
        let cancelled = {
            let mut book = self.lock();
            let delete = book.queue.of(source).find(|op| op.record.change == Change::Delete);
            let order = delete.map(|op| op.record.order);
            order.and_then(|order| book.queue.cancel(order))
        };
        if let Some(delete) = cancelled {
            self.spool.remove_record(delete.order);
        }
    }

    /// The store calls a version otherwise than this mount does, which goes on calling it so; what builds on it and
    /// waits is told.
    fn called_otherwise(&self, made: &Record, ours: &ETag, real: ETag) {
        let rewritten: Vec<Arc<Record>> = {
            let mut book = self.lock();
            let next = book.queue.of(&made.to).map(|op| op.record.order).find(|order| *order > made.order);
            let later = book.queue.touching(&made.to).map(|op| &op.record);
            let renamed = later.filter_map(|record| record.renamed(made.order, next == Some(record.order), &real));
            let renamed: Vec<_> = renamed.map(Arc::new).collect();
            renamed.iter().for_each(|record| book.queue.rewrite(record.clone()));
            book.aliases.insert(made.to.clone(), (ours.clone(), real));
            renamed
        };
        for record in rewritten {
            if let Err(error) = self.spool.write_record(&record) {
                log::warn!("{}: its record in the journal is behind: {error}", record.to);
            }
        }
    }

    /// A change is carried out.
    fn finish(&self, record: &Record) {
        self.spool.remove_record(record.order);
        let unneeded = {
            let mut book = self.lock();
            book.queue.finish(record.order);
            book.let_go(record)
        };
        self.remove(&unneeded);
        self.note();
    }

    fn fail(&self, record: &Record, reason: &str, kind: Option<Kind>) {
        use Kind::*;
        let refused = matches!(kind, Some(NoSuchBucket | NotFound | BadRequest | TooLarge | Unsupported | Archived));
        log::warn!("{}: not stored yet: {reason}", record.to);
        self.lock().queue.fail(record.order, reason.to_owned(), refused, Instant::now());
        self.note();
    }
}

/// The bytes of a change that lie in the journal, at the offsets of its object.
struct Content {
    inner: Arc<Inner>,
    segments: Vec<Segment>,
}

#[async_trait]
impl Staged for Content {
    fn is_held(&self, _range: &Range<u64>) -> bool {
        false
    }

    async fn read(self: Arc<Self>, range: Range<u64>) -> Result<Bytes> {
        let (wanted, length) = (slice(&self.segments, &range), (range.end - range.start) as usize);
        let read = move || {
            let mut out = BytesMut::with_capacity(length);
            for segment in &wanted {
                let Segment::Local { file, range } = segment else {
                    return Err(std::io::Error::other("bytes of the store were taken for bytes of the journal"));
                };
                let bytes = self.inner.spool.read_content(file, range.clone())?;
                if wanted.len() == 1 {
                    return Ok(bytes);
                }
                out.extend_from_slice(&bytes);
            }
            Ok(out.freeze())
        };
        local_work(length, read).await
    }
}
