//! Which GETs are started for the [`Cache`]: what a reader needs waits for memory, what is fetched ahead of it does
//! without when there is none.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::Result;
use crate::store::ObjectHead;

use super::Stored;
use super::budget::Claim;
use super::buffers::Room;
use super::cache::{BLOCK_BYTES, Block, BlockState, Cache};
use super::fetch::Fetch;

/// What the HTTP client holds of an answer at most while it receives it: hyper reads into up to 408 KiB at once, and
/// begins the next such buffer before the last is taken.
const RECEIVING_BYTES_MAX: u64 = 512 << 10;

/// Memory for receiving a part, besides that for the part itself. Only what is fetched ahead claims it: that much goes on
/// at once, and can wait.
fn receiving_bytes(part: &Range<u64>) -> u64 {
    (part.end - part.start).min(RECEIVING_BYTES_MAX)
}

impl Cache {
    /// Starts the GETs of what is `needed` and not here, which wait for memory, and of what is wanted `ahead`.
    pub(super) async fn fetch(
        &self,
        stored: &Arc<Stored>,
        needed: Range<u64>,
        ahead: Range<u64>,
        mut head: Option<oneshot::Sender<Result<ObjectHead>>>,
    ) {
        // What follows at once comes with the same GET.
        let end = if ahead.start <= needed.end { ahead.end.max(needed.end) } else { needed.end };
        loop {
            let gap = {
                let blocks = self.blocks();
                let Some(first) = blocks.gaps(stored.id, &needed).into_iter().next() else { break };
                let wide = first.start..end;
                blocks.gaps(stored.id, &wide).into_iter().next().unwrap_or(first)
            };
            let part_bytes = self.part_bytes(end.saturating_sub(gap.start));
            let part = gap.start..gap.end.min(needed.end.max(end_of_part(gap.start, part_bytes)));
            let (must, rest): (Vec<_>, Vec<_>) = cut(&part).partition(|block| block.start < needed.end);
            let mut rooms = self.inner.buffers.rooms(must.iter().map(|block| block.end - block.start)).await;
            rooms.extend(rest.iter().map_while(|block| self.inner.buffers.try_room(block.end - block.start)));
            let blocks = must.into_iter().chain(rest).zip(rooms).collect();
            // Somebody else may have come while we waited for memory: then we look again.
            if self.start(stored, (blocks, None), &mut head) && needed.end <= part.end {
                break;
            }
        }
        self.fetch_ahead(stored, ahead);
    }

    /// Starts GETs of what is not here, as far as there is memory. Does not wait.
    pub fn fetch_ahead(&self, stored: &Arc<Stored>, range: Range<u64>) {
        if range.is_empty() || stored.whole.get().is_some() {
            return;
        }
        let range = self.in_chunks(stored, range);
        let part_bytes = self.part_bytes(range.end - range.start);
        let gaps = self.blocks().gaps(stored.id, &range);
        for gap in gaps {
            let mut at = gap.start;
            while at < gap.end {
                let part = at..gap.end.min(end_of_part(at, part_bytes));
                let short = part.end - part.start < part_bytes;
                if short && part.end == range.end && part.end < stored.version.size_bytes {
                    // It waits until the window has moved on by a whole part.
                    return;
                }
                // A version that is to stay in memory may need all of it.
                let receiving = match self.inner.budget.claim_if_free(receiving_bytes(&part)) {
                    _ if stored.is_hot() => None,
                    Some(claim) => Some(claim),
                    None => return,
                };
                let blocks: Vec<_> = cut(&part)
                    .map_while(|block| {
                        let room = self.inner.buffers.try_room(block.end - block.start)?;
                        Some((block, room))
                    })
                    .collect();
                let Some((last, _)) = blocks.last() else { return };
                at = last.end;
                self.start(stored, (blocks, receiving), &mut None);
            }
        }
    }

    /// Bytes of one GET of a window of this size.
    fn part_bytes(&self, window_bytes: u64) -> u64 {
        let part_bytes = self.pace().part_bytes(window_bytes, self.readers());
        if self.inner.disk.is_some() { part_bytes.max(BLOCK_BYTES) } else { part_bytes }
    }

    /// A range widened to the chunks that are kept on disk, if any are kept.
    pub(super) fn in_chunks(&self, stored: &Stored, range: Range<u64>) -> Range<u64> {
        if self.inner.disk.is_none() {
            return range;
        }
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        start..range.end.next_multiple_of(BLOCK_BYTES).min(stored.version.size_bytes)
    }

    /// Starts one GET that fills these neighbouring blocks; answers false if one of them is there already.
    fn start(
        &self,
        stored: &Arc<Stored>,
        (coming, receiving): (Vec<(Range<u64>, Room)>, Option<Claim>),
        head: &mut Option<oneshot::Sender<Result<ObjectHead>>>,
    ) -> bool {
        let (Some((first, _)), Some((last, _))) = (coming.first(), coming.last()) else { return false };
        let part = first.start..last.end;
        let mut blocks = self.blocks();
        if blocks.gaps(stored.id, &part) != std::slice::from_ref(&part) {
            return false;
        }
        let coming = coming.into_iter().map(|(range, room)| {
            let block = Block::new(BlockState::Coming);
            blocks.insert(stored.id, range.clone(), block.clone());
            (range, block, room)
        });
        let fetch = Fetch::new(self.clone(), stored.clone(), part, (coming.collect(), receiving));
        drop(blocks);
        self.inner.tracker.spawn_on(fetch.run(head.take()), &self.inner.runtime);
        true
    }
}

/// Where a GET of about so many bytes ends: with a whole block, so that those behind it are whole too.
fn end_of_part(start: u64, part_bytes: u64) -> u64 {
    (start + part_bytes) / BLOCK_BYTES * BLOCK_BYTES
}

/// A range cut into blocks.
fn cut(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let end = range.end;
    let cuts = std::iter::successors(Some(range.start), move |at| {
        let next = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
        (next < end).then_some(next)
    });
    cuts.map(move |start| start..end.min((start / BLOCK_BYTES + 1) * BLOCK_BYTES))
}
