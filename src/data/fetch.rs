//! One GET, and the neighbouring blocks that it fills.
//!
//! Every GET carries If-Match, so that a block never holds bytes of another version: what the store answers to a
//! replaced object is ESTALE here. A GET that stalls is not waited for: a second one is sent for the rest, and
//! whichever brings bytes first goes on. Whoever waits gets the bytes or an error: a fetch that dies marks its blocks
//! as failed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{Error, Meaning, Result};
use crate::store::{self, GetOptions, ObjectHead};

use super::budget::Claim;
use super::buffers::{BUFFER_BYTES, Room};
use super::cache::{Block, BlockState, Cache};
use super::{Stored, version_error};

/// A GET is looked at so often: one that has brought nothing since, or far less than others do, gets a rival.
const STALL: Duration = Duration::from_secs(5);

/// Told once, to whoever opens the file.
type Head = Option<oneshot::Sender<Result<ObjectHead>>>;

/// A block that is being filled.
struct Filling {
    range: Range<u64>,
    block: Arc<Block>,
    room: Room,
}

/// A block that is to be filled, and room for its bytes.
pub(super) type Coming = (Range<u64>, Arc<Block>, Room);

/// One GET. Dropped before its end, it fails what is left.
pub(super) struct Fetch {
    cache: Cache,
    stored: Arc<Stored>,
    /// The next byte that is missing, and the end.
    missing: Range<u64>,
    blocks: VecDeque<Filling>,
    /// What memory their rooms have already.
    lent: store::Buffers,
    /// Memory in which the answer is received.
    _receiving: Option<Claim>,
}

impl Fetch {
    pub(super) fn new(
        cache: Cache,
        stored: Arc<Stored>,
        missing: Range<u64>,
        (blocks, receiving): (Vec<Coming>, Option<Claim>),
    ) -> Self {
        let filling = |(range, block, room)| Filling { range, block, room };
        let mut blocks: VecDeque<Filling> = blocks.into_iter().map(filling).collect();
        let lent = store::Buffers::new(blocks.iter_mut().filter_map(|filling| filling.room.lend()).collect());
        Fetch { cache, stored, missing, blocks, lent, _receiving: receiving }
    }

    pub(super) async fn run(mut self, mut head: Head) {
        if let Err(error) = self.fill(&mut head).await {
            self.fail(error.meaning(), &error.to_string());
            if let Some(head) = head {
                // The opener may have given up meanwhile.
                let _ = head.send(Err(error));
            }
        } else if !self.blocks.is_empty() {
            self.fail(Meaning::Io, "an object's body ended early");
        }
    }

    async fn fill(&mut self, head: &mut Head) -> Result<()> {
        // Whoever opens the file wants to know whether it is still the present version: only the store can tell.
        if head.is_none() {
            self.fill_from_disk().await;
        }
        let (began, length) = (Instant::now(), self.missing.end - self.missing.start);
        let (mut first_byte, mut hedged_at) = (None, None);
        let mut pieces = self.pieces(self.missing.clone());
        // Bytes that the stream in use brings a second time.
        let mut surplus = 0;
        let mut rival: Option<(u64, BoxStream<'static, Result<Piece>>)> = None;
        let (mut look, mut brought_at) = ((began + STALL, self.missing.start), began);
        while !self.missing.is_empty() {
            let piece = tokio::select! {
                biased;
                piece = pieces.next() => piece,
                piece = next_of(&mut rival) => {
                    // One that fails leaves things as they were.
                    let (Some((start, stream)), Some(Ok(_))) = (rival.take(), &piece) else { continue };
                    (pieces, surplus) = (stream, self.missing.start - start);
                    piece
                }
                () = sleep_until(look.0.min(brought_at + STALL)) => {
                    let now = Instant::now();
                    let brought = if now >= brought_at + STALL { 0 } else { self.missing.start - look.1 };
                    (look, brought_at) = ((now + STALL, self.missing.start), now);
                    // One rival for each place where it stalls: time limits must come to their end.
                    if hedged_at != Some(self.missing.start) && self.cache.pace().is_slow(brought, STALL) {
                        log::debug!("{}: a GET stalls, another is sent", self.stored.version.location);
                        self.cache.inner.counters.hedges.fetch_add(1, Ordering::Relaxed);
                        hedged_at = Some(self.missing.start);
                        rival = Some((self.missing.start, self.pieces(self.missing.clone())));
                    }
                    continue;
                }
            };
            match piece {
                Some(Ok(Piece::Head(told))) => {
                    first_byte.get_or_insert_with(Instant::now);
                    if let Some(head) = head.take() {
                        // The opener may have given up meanwhile.
                        let _ = head.send(Ok(*told));
                    }
                }
                Some(Ok(Piece::Bytes(mut bytes))) => {
                    brought_at = Instant::now();
                    let skipped = (bytes.len() as u64).min(surplus);
                    surplus -= skipped;
                    self.take(bytes.split_off(skipped as usize), Origin::Store);
                }
                // It was repeated below us until its time was over: no rival is given longer than that.
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        self.cache.inner.counters.fetched_bytes.fetch_add(length, Ordering::Relaxed);
        if let (Some(first_byte), None) = (first_byte, hedged_at) {
            let mut pace = self.cache.inner.pace.lock().expect("no panic under this lock");
            pace.note(first_byte - began, length, first_byte.elapsed());
        }
        Ok(())
    }

    /// Fills the first blocks, as far as they are on disk.
    async fn fill_from_disk(&mut self) {
        let Some(disk) = self.cache.inner.disk.clone() else { return };
        // A disk that hangs must not hang the reader: the store is asked then.
        while let Some(range) = self.blocks.front().map(|filling| filling.range.clone())
            && let memory = self.lent.take().unwrap_or_default()
            && let Ok(Some(bytes)) = timeout(STALL, disk.read(&self.stored.version, range, memory)).await
        {
            self.take(bytes, Origin::Disk);
        }
    }

    /// Keeps a block on disk, if it is a whole chunk.
    fn keep(&self, range: &Range<u64>, bytes: &Bytes) {
        let whole = range.start.is_multiple_of(BUFFER_BYTES as u64)
            && (bytes.len() == BUFFER_BYTES || range.end == self.stored.version.size_bytes);
        if whole && let Some(disk) = &self.cache.inner.disk {
            disk.keep(&self.stored.version, range.start, bytes.clone());
        }
    }

    /// What the store answers to a GET of a range of our version.
    fn pieces(&self, range: Range<u64>) -> BoxStream<'static, Result<Piece>> {
        let (store, version) = (self.cache.inner.store.clone(), self.stored.version.clone());
        let buffers = self.lent.clone();
        let get = async move {
            let if_match = Some(version.etag.clone());
            let version_id = version.version_id.clone();
            let options = GetOptions { range: Some(range), if_match, version_id, buffers };
            let got = store.get(&version.location, &options).await.map_err(version_error)?;
            if got.head.etag != version.etag {
                return Err(Error::new(Meaning::Stale, version.location.to_string()));
            }
            let head = futures_util::stream::once(std::future::ready(Ok(Piece::Head(Box::new(got.head)))));
            Ok(head.chain(got.body.map_ok(Piece::Bytes).map_err(version_error)))
        };
        get.try_flatten_stream().boxed()
    }

    /// Puts bytes where they belong.
    fn take(&mut self, mut bytes: Bytes, origin: Origin) {
        while let Some(filling) = self.blocks.front_mut().filter(|_| !bytes.is_empty()) {
            let wanted = (filling.range.end - self.missing.start) as usize;
            let whole = bytes.len() == wanted && wanted >= BUFFER_BYTES;
            let taken = bytes.split_to(wanted.min(bytes.len()));
            if !whole {
                filling.room.use_memory(&self.lent);
                filling.room.bytes_mut().extend_from_slice(&taken);
            }
            self.missing.start += taken.len() as u64;
            if taken.len() == wanted
                && let Some(Filling { range, block, room }) = self.blocks.pop_front()
            {
                // A piece that is all of a block stays where it is, in the place of the room's own memory.
                let buffers = &self.cache.inner.buffers;
                let bytes = if whole { buffers.hold_received(room, taken) } else { buffers.hold(room) };
                if origin == Origin::Store {
                    self.keep(&range, &bytes);
                }
                block.state.send_replace(BlockState::Here(bytes));
            }
        }
    }

    fn fail(&mut self, meaning: Meaning, subject: &str) {
        for Filling { range, block, .. } in self.blocks.drain(..) {
            // Taken out first, so that the next reader tries anew.
            self.cache.blocks().remove(self.stored.id, range.start, &block);
            block.state.send_replace(BlockState::Failed(meaning, subject.to_owned()));
        }
    }
}

/// Where bytes came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Store,
    Disk,
}

/// What a GET brings: first what the object is, then its bytes.
enum Piece {
    Head(Box<ObjectHead>),
    Bytes(Bytes),
}

/// The next piece of a rival's; never, if there is none.
async fn next_of(rival: &mut Option<(u64, BoxStream<'static, Result<Piece>>)>) -> Option<Result<Piece>> {
    match rival {
        Some((_, stream)) => stream.next().await,
        None => std::future::pending().await,
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.fail(Meaning::Io, "a fetch was given up");
    }
}
