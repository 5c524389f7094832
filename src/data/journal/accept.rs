//! How a change gets into the journal: its bytes are written, then its record, then it has a place in the queue.
//!
//! A change that finds one of the same name which has not begun takes its place, so that a file that is written again
//! and again, or removed before it went up, costs no request that nobody needs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use crate::data::stage::{local_work, on_disk};
use crate::error;
use crate::store::{Condition, ETag, Location, Result, Written};

use super::record::{Change, Pending, Record, Segment, check, precondition_failed, slice};
use super::{Book, CHANGES_MAX, Inner, local_error};

/// Where a change goes.
enum Turn {
    /// To the end.
    New,
    /// In the place of one that has not begun, which is held.
    InPlaceOf(u64),
}

impl Inner {
    /// Waits until the journal has room for so many bytes more; answers false if it has none though nothing waits in it.
    pub(super) async fn room(&self, bytes: u64) -> bool {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let book = self.lock();
                let fits = book.bytes + bytes <= self.config.bytes_max && book.queue.len() < CHANGES_MAX;
                if fits || book.queue.len() == 0 {
                    return fits;
                }
            }
            if !self.full_told.swap(true, Ordering::Relaxed) {
                log::warn!("the journal is full: from now on a close waits for the store, until there is room again");
            }
            // The sender is ours.
            let _ = changed.changed().await;
        }
    }

    /// Writes bytes into the journal; answers them as a segment, and what `name` makes of them. `None` if it has no
    /// room for them, nor will have.
    pub(super) async fn keep<T: Send + 'static>(
        &self,
        bytes: Bytes,
        to: &Location,
        name: fn(&Bytes) -> T,
    ) -> Result<Option<(Segment, T)>> {
        let length = bytes.len() as u64;
        let mut changed = self.changed.subscribe();
        loop {
            if !self.room(length).await {
                return Ok(None);
            }
            let (spool, content) = (self.spool.clone(), bytes.clone());
            let write = move || spool.write_content(&content).map(|written| (written, name(&content)));
            match local_work(bytes.len(), write).await {
                Ok(((file, range), named)) => {
                    let mut book = self.lock();
                    book.files.insert(file.clone(), (0, length));
                    book.bytes += length;
                    return Ok(Some((Segment::Local { file, range }, named)));
                }
                // What is carried out makes room.
                Err(error) if error.meaning() == error::Meaning::NoSpace => {
                    if self.lock().queue.len() == 0 {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(local_error(error, to)),
            }
            let _ = changed.changed().await;
        }
    }

    /// Gives up segments that got into no change.
    pub(super) fn discard(&self, segments: &[Segment]) {
        let mut unneeded = Vec::new();
        let mut book = self.lock();
        for segment in segments {
            if let Segment::Local { file, .. } = segment
                && let Some((0, bytes)) = book.files.get(file).copied()
            {
                book.files.remove(file);
                book.bytes -= bytes;
                unneeded.push(file.clone());
            }
        }
        drop(book);
        self.remove(&unneeded);
    }

    /// Takes a new object in. Its condition is checked against what waits here; against the store once it goes up.
    pub(super) async fn accept(&self, to: &Location, pending: Pending, after_closes: bool) -> Result<Written> {
        let written = Written { etag: pending.etag.clone(), version_id: None };
        let segments = pending.segments.clone();
        let accepted = self.accept_locked(to, pending, after_closes).await;
        if accepted.is_err() {
            self.discard(&segments);
        }
        accepted?;
        self.flush(to).await?;
        Ok(written)
    }

    async fn accept_locked(&self, to: &Location, pending: Pending, after_closes: bool) -> Result<()> {
        let _accepting = self.accepting.lock().await;
        let (record, turn) = {
            let mut book = self.lock();
            let (record, turn) = book.place(to, pending, after_closes)?;
            // From now on: what others let go while the record is written stays.
            book.need(&record);
            (Arc::new(record), turn)
        };
        let recorded = self.spool.write_record(&record);
        let mut book = self.lock();
        let mut starts = true;
        let unneeded = match (&recorded, turn) {
            (Ok(()), Turn::New) => {
                starts = book.queue.push(record, Instant::now());
                Vec::new()
            }
            (Ok(()), Turn::InPlaceOf(order)) => {
                let old = book.queue.release(order, Some(record));
                old.map(|old| book.let_go(&old)).unwrap_or_default()
            }
            (Err(_), Turn::New) => book.let_go(&record),
            (Err(_), Turn::InPlaceOf(order)) => {
                book.queue.release(order, None);
                book.let_go(&record)
            }
        };
        book.conflicts.remove(to);
        drop(book);
        self.remove(&unneeded);
        if starts {
            self.note();
        }
        recorded.map_err(|error| local_error(on_disk(error), to))
    }

    /// Takes a delete in. What has not begun to go up need not.
    pub(super) async fn accept_delete(&self, to: &Location) -> Result<()> {
        let _accepting = self.accepting.lock().await;
        let (cancelled, record) = {
            let mut book = self.lock();
            let unsent = book.cancel_unsent(to);
            (unsent, Record { order: book.take_order(), after_closes: true, to: to.clone(), change: Change::Delete })
        };
        if let Some(unneeded) = cancelled {
            self.spool_forgets(unneeded);
            return self.flush(to).await;
        }
        let record = Arc::new(record);
        let recorded = self.spool.write_record(&record);
        recorded.map_err(|error| local_error(on_disk(error), to))?;
        let unneeded = {
            let mut book = self.lock();
            let last = book.queue.last(to).filter(|op| op.record.pending().is_some() && book.queue.is_free(op));
            let last = last.map(|op| op.record.order);
            let cancelled = last.and_then(|order| book.queue.cancel(order));
            let unneeded = cancelled.map(|old| (old.order, book.let_go(&old)));
            book.queue.push(record, Instant::now());
            book.conflicts.remove(to);
            unneeded
        };
        if let Some(unneeded) = unneeded {
            self.spool_forgets(unneeded);
        }
        self.note();
        self.flush(to).await
    }

    /// Takes a marker out that has not begun to go up, whose directory is there without it; answers whether it is out.
    pub(super) async fn withdraw(&self, to: &Location) -> bool {
        let _accepting = self.accepting.lock().await;
        let unsent = self.lock().cancel_unsent(to);
        let is_out = unsent.is_some();
        unsent.into_iter().for_each(|unneeded| self.spool_forgets(unneeded));
        is_out
    }

    fn spool_forgets(&self, (order, unneeded): (u64, Vec<String>)) {
        self.spool.remove_record(order);
        self.remove(&unneeded);
        self.note();
    }

    /// Has the disk keep it, if that was asked for.
    async fn flush(&self, to: &Location) -> Result<()> {
        if !self.config.sync {
            return Ok(());
        }
        let synced = self.spool.sync().await;
        synced.map_err(|error| local_error(error::Error::with_source(error::Meaning::Io, "the journal", error), to))
    }
}

impl Book {
    pub(super) fn take_order(&mut self) -> u64 {
        let order = self.next_order;
        self.next_order += 1;
        order
    }

    /// Checks a new object against what waits, and decides where it goes.
    fn place(&mut self, to: &Location, mut pending: Pending, after_closes: bool) -> Result<(Record, Turn)> {
        let last = self.queue.last(to).map(|op| (op.record.clone(), op.tried || !self.queue.is_free(op)));
        if let Some((last, _)) = &last {
            check(&pending.condition, last.pending().map(|pending| &pending.etag), to)?;
        }
        let record =
            |order, pending| Record { order, after_closes, to: to.clone(), change: Change::Store(Box::new(pending)) };
        if let Some((last, false)) = &last
            && let Some(old) = last.pending()
            && !after_closes
        {
            let mut instead = pending.clone();
            instead.segments = self.expanded(pending.segments.clone(), Some((to, old)));
            // The version that it was to replace is the one that this replaces now.
            if instead.condition != Condition::None || old.condition == Condition::IfAbsent {
                instead.condition = old.condition.clone();
            }
            let instead = Record { after_closes: last.after_closes, ..record(last.order, instead) };
            if instead.names() == last.names() && self.queue.hold(last.order) {
                return Ok((instead, Turn::InPlaceOf(last.order)));
            }
        }
        pending.segments = self.expanded(pending.segments, None);
        if let Condition::IfMatch(etag) = &pending.condition
            && last.is_none()
        {
            pending.condition = Condition::IfMatch(self.real(to, etag));
        }
        let order = self.take_order();
        Ok((record(order, pending), Turn::New))
    }

    /// Segments that come from what waits here, said by where its bytes lie: all of those of `replaced`, which will
    /// never be stored, and others' where they are local.
    fn expanded(&self, segments: Vec<Segment>, replaced: Option<(&Location, &Pending)>) -> Vec<Segment> {
        let mut out = Vec::with_capacity(segments.len());
        for segment in segments {
            let Segment::Stored { source, etag, range, whole, .. } = &segment else {
                out.push(segment);
                continue;
            };
            if let Some((_, old)) = replaced.filter(|(name, old)| *name == source && old.etag == *etag) {
                out.extend(slice(&old.segments, range));
                continue;
            }
            let waiting = self.waiting_version(source, etag);
            let local = waiting.map(|(_, pending)| slice(&pending.segments, range));
            match local.filter(|parts| parts.iter().all(|part| matches!(part, Segment::Local { .. }))) {
                Some(parts) => out.extend(parts),
                None => {
                    let made_by = waiting.map(|(order, _)| order);
                    let etag = if made_by.is_some() { etag.clone() } else { self.real(source, etag) };
                    let (source, range, whole) = (source.clone(), range.clone(), *whole);
                    out.push(Segment::Stored { source, etag, range, whole, made_by });
                }
            }
        }
        out
    }

    /// Takes a name out that has nothing in the store and whose only change has not begun: it never was.
    fn cancel_unsent(&mut self, to: &Location) -> Option<(u64, Vec<String>)> {
        let ops: Vec<_> = self.queue.of(to).collect();
        let [only] = ops.as_slice() else { return None };
        let order = only.record.order;
        let unsent = !only.tried
            && self.queue.is_free(only)
            && only.record.pending().is_some_and(|pending| pending.condition == Condition::IfAbsent);
        if !unsent {
            return None;
        }
        let record = self.queue.cancel(order)?;
        let unneeded = self.let_go(&record);
        Some((order, unneeded))
    }

    /// The newest version of a name that is called so and waits here, and the change that makes it.
    pub(super) fn waiting_version(&self, name: &Location, etag: &ETag) -> Option<(u64, &Pending)> {
        let made = self.queue.of(name).filter_map(|op| Some((op.record.order, op.record.pending()?)));
        made.filter(|(_, one)| one.etag == *etag).last()
    }

    /// What a name stands for, if that waits here.
    pub(super) fn waiting(&self, name: &Location, etag: Option<&ETag>) -> Result<Option<Pending>> {
        let Some(last) = self.queue.last(name) else { return Ok(None) };
        let Some(pending) = last.record.pending() else { return Err(super::record::not_found(name)) };
        match etag.is_none_or(|etag| *etag == pending.etag) {
            true => Ok(Some(pending.clone())),
            false => Err(precondition_failed(name)),
        }
    }
}
