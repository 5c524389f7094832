//! A file that goes up while it is still being written: its parts are sent as they become full, so that close has only
//! the last of them to wait for.
//!
//! All bytes stay staged until the upload is complete: a part that is written again is sent again, a failure is tried
//! again by the next commit, and a mount that ends before that leaves everything to recover. What an object's upload
//! was begun with cannot be changed later: times are left out of it, since they would be those of the beginning.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::error::{Error, Meaning, Result};
use crate::store::{Condition, Kind, Location, ObjectHeaders, Part, Written, etag_of_parts};

use super::attempt::Attempt;
use super::extents::{Extent, Source};
use super::file::{File, State};
use super::plan::Piece;
use super::stage::{Stage, Staged, off_worker};
use super::state::NoteOnDisk;
use super::upload::{Committed, Snapshot};
use super::{Data, Limits, Version};

/// Parts of one size. Then they are twice as large: 10,000 of them hold 8 TiB, and a file of ordinary size has small
/// ones, which cost little memory.
const PARTS_OF_ONE_SIZE: u64 = 1000;

/// A part that was sent, or is on its way.
struct Slot {
    coming: Option<JoinHandle<Result<Part>>>,
    sent: Option<Part>,
    /// Whether its bytes were written again since it was read for sending.
    outdated: bool,
}

/// An upload that was begun before its file was closed.
pub(super) struct Stream {
    data: Data,
    pub(super) to: Location,
    pub(super) headers: ObjectHeaders,
    upload_id: String,
    record: Mutex<Option<NoteOnDisk>>,
    slots: Mutex<Vec<Slot>>,
    permits: Arc<Semaphore>,
}

/// The bytes of part `index`, counted from 0, of a file that has no end yet.
fn range_of(index: u64, part_bytes: u64) -> Range<u64> {
    let (steps, rest) = (index / PARTS_OF_ONE_SIZE, index % PARTS_OF_ONE_SIZE);
    let before = part_bytes * PARTS_OF_ONE_SIZE * ((1 << steps) - 1);
    let length = part_bytes << steps;
    let start = before + rest * length;
    start..start + length
}

impl Stream {
    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().expect("no panic under this lock")
    }

    fn part_bytes(&self) -> u64 {
        self.data.inner.limits.part_bytes
    }

    /// Bytes of a file's range are about to be written again.
    pub(super) fn outdate(&self, range: &Range<u64>) {
        for (index, slot) in (0..).zip(self.slots().iter_mut()) {
            let part = range_of(index, self.part_bytes());
            slot.outdated |= part.start < range.end && range.start < part.end;
        }
    }

    /// The end of what was sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        match self.slots().len() as u64 {
            0 => 0,
            count => range_of(count - 1, self.part_bytes()).end,
        }
    }

    /// Ends it without an object, in the background. Its record stays until the store has confirmed.
    pub(super) fn discard(self: Arc<Self>) {
        let data = self.data.clone();
        data.spawn(async move {
            let coming: Vec<_> = self.slots().iter_mut().filter_map(|slot| slot.coming.take()).collect();
            for task in coming {
                task.abort();
                // It was ended, whatever it says.
                let _ = task.await;
            }
            match self.data.inner.store.abort_upload(&self.to, &self.upload_id).await {
                Ok(()) => self.remove_record().await,
                Err(error) => log::warn!("{}: an upload is left to be aborted by the next mount: {error}", self.to),
            }
        });
    }

    /// Waits for the parts that are on their way; answers where the first begins that has not arrived as it is now.
    async fn arrived_bytes(&self) -> u64 {
        let mut slots = std::mem::take(&mut *self.slots());
        for slot in &mut slots {
            if let Some(task) = slot.coming.take() {
                slot.sent = task.await.ok().and_then(Result::ok);
            }
        }
        let arrived = slots.iter().take_while(|slot| slot.sent.is_some() && !slot.outdated).count() as u64;
        *self.slots() = slots;
        range_of(arrived, self.part_bytes()).start
    }

    async fn remove_record(&self) {
        let record = self.record.lock().expect("no panic under this lock").take();
        if let Some(record) = record
            && let Err(error) = off_worker(move || record.remove()).await
        {
            log::warn!("{}: the record of an upload stays: {error}", self.to);
        }
    }
}

impl State {
    /// Whether a range is written here, all of it.
    fn is_staged(&self, range: &Range<u64>) -> bool {
        let extents = self.extents.slice(range);
        matches!(extents.as_slice(), [Extent { range: staged, source: Source::Staged }] if staged == range)
    }

    /// The next part of the upload, if all of it is written.
    fn full_part(&self) -> Option<(Arc<Stream>, Range<u64>, Arc<Stage>)> {
        let (stream, stage) = (self.stream.clone()?, self.stage.clone()?);
        let range = range_of(stream.slots().len() as u64, stream.part_bytes());
        self.is_staged(&range).then_some((stream, range, stage))
    }
}

impl File {
    /// Whether so much was written from the file's beginning on that it should go up now.
    pub fn wants_stream(&self) -> bool {
        let (state, limits) = (self.lock(), self.data.inner.limits);
        !self.data.inner.journaled
            && state.stream.is_none()
            && !state.stream_refused
            && state.extents.size_bytes() > limits.part_bytes
            && state.is_staged(&(0..limits.part_bytes))
    }

    /// Whether it goes up while it is written.
    pub fn is_streaming(&self) -> bool {
        self.lock().stream.is_some()
    }

    /// Gives the local disk back what has gone up under `to`, after waiting for what is on its way; answers how many
    /// bytes. They cannot be read, changed or sent elsewhere before the file is stored, which is up to the caller.
    pub async fn give_back(&self, to: &Location) -> Result<u64> {
        let _gate = self.gate.lock().await;
        let (stream, stage) = {
            let state = self.lock();
            (state.stream.clone(), state.stage.clone())
        };
        match (stream, stage) {
            (Some(stream), Some(stage)) if stream.to == *to => stage.give_back(stream.arrived_bytes().await).await,
            _ => Ok(0),
        }
    }

    /// Whether some of the content is in an unfinished upload only.
    pub fn has_given_back(&self) -> bool {
        self.lock().stage.as_ref().is_some_and(|stage| stage.given_back_bytes() > 0)
    }

    /// What the content takes of this machine's disk and memory.
    pub fn staged_bytes(&self) -> u64 {
        self.lock().stage.as_ref().map_or(0, |stage| stage.taken_bytes())
    }

    /// Whether something should go up that does not yet; answers so once, until [`File::end_sending`].
    pub fn take_sending(&self) -> bool {
        let wanted = self.wants_stream() || self.lock().full_part().is_some();
        wanted && !std::mem::replace(&mut self.lock().sending, true)
    }

    /// What was full is on its way.
    pub fn end_sending(&self) {
        self.lock().sending = false;
    }

    /// Begins an upload that will store the file under `to` with these headers. If that fails, all is left to the
    /// commit.
    pub async fn begin_stream(&self, to: &Location, headers: &ObjectHeaders) {
        match self.data.open_stream(to, headers).await {
            Ok(stream) => self.lock().stream = Some(Arc::new(stream)),
            Err(error) => {
                log::debug!("{to}: no upload before close: {error}");
                self.lock().stream_refused = true;
            }
        }
    }

    /// Finishes the upload that was begun while the file was written; answers its headers too. `None` if there is none
    /// for this place.
    pub(super) async fn commit_stream(
        &self,
        snapshot: &Snapshot,
        to: &Location,
        condition: &Condition,
    ) -> Option<(ObjectHeaders, Result<Committed>)> {
        let stream = self.lock().stream.clone()?;
        if stream.to == *to {
            let result = self.data.finish_stream(&stream, snapshot, condition).await;
            if !result.as_ref().is_err_and(is_over) {
                return Some((stream.headers.clone(), result));
            }
        }
        self.lock().stream = None;
        stream.discard();
        None
    }

    /// Sends the parts that are full. Waits while too many are on their way: the writer is no faster than the store.
    pub async fn send_parts(&self) {
        loop {
            let Some(stream) = self.lock().full_part().map(|(stream, ..)| stream) else { return };
            let permit = stream.permits.clone().acquire_owned().await;
            let _gate = self.gate.lock().await;
            // While we waited, another may have sent it, or stored the file.
            let Some((current, range, stage)) = self.lock().full_part() else { return };
            if !Arc::ptr_eq(&current, &stream) {
                return;
            }
            let mut slots = stream.slots();
            let (data, to, upload_id) = (self.data.clone(), stream.to.clone(), stream.upload_id.clone());
            let number = slots.len() as u32 + 1;
            let task = tokio::spawn(async move {
                let _permit = permit;
                let _claim = match stage.is_held(&range) {
                    true => None,
                    false => Some(data.inner.budget.claim(range.end - range.start).await),
                };
                let bytes = stage.clone().read(range.clone()).await?;
                let part = data.inner.store.upload_part(&to, &upload_id, number, bytes).await?;
                stage.note_sent(&range);
                Ok(part)
            });
            slots.push(Slot { coming: Some(task), sent: None, outdated: false });
        }
    }
}

impl Data {
    /// Whether an object of this size may have gone up while it was written, and so carry no time of its own.
    pub fn may_be_undated(&self, size_bytes: u64) -> bool {
        size_bytes > self.inner.limits.part_bytes
    }

    /// Whether an object of this size is copied in parts, which have no headers of their source.
    pub fn is_copied_in_parts(&self, size_bytes: u64) -> bool {
        size_bytes > self.inner.limits.copy_bytes_max
    }

    async fn open_stream(&self, to: &Location, headers: &ObjectHeaders) -> Result<Stream> {
        let upload_id = self.inner.store.create_upload(to, headers).await?;
        let (data, location, id) = (self.clone(), to.clone(), upload_id.clone());
        let record = match off_worker(move || data.inner.state.record_upload(&location, &id)).await {
            Ok(record) => record,
            Err(error) => {
                self.inner.store.abort_upload(to, &upload_id).await?;
                return Err(error);
            }
        };
        Ok(Stream {
            data: self.clone(),
            to: to.clone(),
            headers: headers.clone(),
            upload_id,
            record: Mutex::new(Some(record)),
            slots: Mutex::default(),
            permits: Arc::new(Semaphore::new(self.inner.uploads_at_once)),
        })
    }

    /// Sends what is left of a snapshot and completes its upload. After an error the stream may be finished again,
    /// unless the store says that there is no such upload: then it is over.
    pub(super) async fn finish_stream(
        &self,
        stream: &Stream,
        snapshot: &Snapshot,
        condition: &Condition,
    ) -> Result<Committed> {
        let size_bytes = snapshot.extents.size_bytes();
        let slots = std::mem::take(&mut *stream.slots());
        let count = parts_of(size_bytes, &self.inner.limits);
        let slots = slots.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let parts = stream::iter((0..count).zip(slots)).map(|(index, slot)| async move {
            let range = range_of(index, stream.part_bytes());
            let range = range.start..range.end.min(size_bytes);
            let length = range.end - range.start;
            let number = index as u32 + 1;
            let part = match sent(slot).await {
                Some(part) => part,
                None => {
                    let piece = Piece { range, copied_from: None };
                    return self.send_part(snapshot, piece, &stream.to, (&stream.upload_id, number), None).await;
                }
            };
            snapshot.stored_bytes.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
            Ok(part)
        });
        let parts: Vec<Result<Part>> = parts.buffered(self.inner.uploads_at_once).collect().await;
        // What went up need not go again at the next attempt.
        let kept =
            parts.iter().map(|part| Slot { coming: None, sent: part.as_ref().ok().cloned(), outdated: part.is_err() });
        *stream.slots() = kept.take_while(|slot| slot.sent.is_some()).collect();
        let parts = parts.into_iter().collect::<Result<Vec<Part>>>()?;
        let mut attempt = Attempt::new(snapshot, &stream.to, &stream.headers);
        attempt.etag = etag_of_parts(&parts);
        let version = match self.complete(&attempt, &stream.upload_id, &parts, condition).await {
            Ok(Written { etag, .. }) => Version { location: stream.to.clone(), etag, size_bytes, version_id: None },
            // An earlier attempt may have done it, and been thought to have failed.
            Err(error) => match error.store_kind() {
                Some(Kind::NotFound | Kind::PreconditionFailed) => self.outcome(&attempt).await?.ok_or(error)?,
                _ => return Err(error),
            },
        };
        stream.remove_record().await;
        Ok(Committed { version, bytes: None })
    }
}

/// How many parts a file of this size has.
fn parts_of(size_bytes: u64, limits: &Limits) -> u64 {
    (0..).take_while(|index| range_of(*index, limits.part_bytes).start < size_bytes).count() as u64
}

/// The part that went up with the bytes that the file has now.
async fn sent(slot: Option<Slot>) -> Option<Part> {
    let Slot { coming, sent, outdated } = slot?;
    let arrived = match coming {
        // An upload of the same number must have ended before the next, also where it is of no use.
        Some(task) => task.await.ok().and_then(|part| part.inspect_err(|error| log::debug!("a part: {error}")).ok()),
        None => sent,
    };
    arrived.filter(|_| !outdated)
}

/// Whether an error says that the store does not know an upload any more.
fn is_over(error: &Error) -> bool {
    error.meaning() == Meaning::NotFound && error.store_kind() == Some(Kind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_hold_five_tebibytes_and_follow_each_other() {
        let part_bytes = Limits::default().part_bytes;
        let mut end = 0;
        for index in 0..10_000 {
            let range = range_of(index, part_bytes);
            assert_eq!(range.start, end);
            end = range.end;
        }
        assert!(end >= 5 << 40);
        assert_eq!(range_of(10, part_bytes), 80 << 20..88 << 20);
    }

    #[test]
    fn a_files_parts_are_counted_to_its_last_byte() {
        let limits = Limits { part_bytes: 10, ..Limits::default() };
        let counts = [1, 10, 11, 10_000, 10_001, 10_020, 10_021].map(|size_bytes| parts_of(size_bytes, &limits));
        assert_eq!(counts, [1, 1, 2, 1000, 1001, 1001, 1002]);
    }
}
