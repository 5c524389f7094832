//! Bytes of one file that are written and not stored, as far as they are in memory. No I/O.
//!
//! A chunk is wholly in memory or wholly on disk. In memory are those that are written from their beginning on, as most
//! files are; one that is written here and there would be mostly zeros, and goes to disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::budget::Claim;

/// What may be left out before a write in a chunk that stays in memory. It is filled with zeros.
const GAP_BYTES_MAX: u64 = 1 << 20;

/// The first memory of a chunk; it doubles as the chunk grows.
const FIRST_BYTES: u64 = 64 << 10;

/// The chunks of a file.
#[derive(Debug)]
pub(super) struct Chunks {
    chunk_bytes: u64,
    held: BTreeMap<u64, Chunk>,
    on_disk: BTreeSet<u64>,
    /// The memory of one that went to disk, for the next.
    spare: Option<Chunk>,
}

#[derive(Debug, Default)]
struct Chunk {
    /// Shared with whoever sends it; a write makes a copy then.
    bytes: Arc<Vec<u8>>,
    room_bytes: u64,
    room: Vec<Claim>,
    /// Whether an upload has all of it, as it is now.
    sent: bool,
}

/// A chunk that is to be written to disk, as it was when it was looked at.
#[derive(Debug)]
pub(super) struct Full {
    index: u64,
    /// Where its bytes belong in the file.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) bytes: Arc<Vec<u8>>,
}

/// Where a piece of a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// There is room for it in memory.
    Memory,
    /// It belongs on disk; what memory has of its chunk must be there first.
    Disk,
    /// It belongs in memory, which is short.
    Short,
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Chunks {
    pub(super) fn new(chunk_bytes: u64) -> Self {
        Chunks { chunk_bytes, held: BTreeMap::new(), on_disk: BTreeSet::new(), spare: None }
    }

    /// A range cut where chunks meet.
    pub(super) fn pieces(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let (chunk_bytes, end) = (self.chunk_bytes, range.end);
        let starts = std::iter::successors(Some(range.start), move |at| Some((at / chunk_bytes + 1) * chunk_bytes));
        starts.take_while(move |at| *at < end).map(move |at| at..end.min((at / chunk_bytes + 1) * chunk_bytes))
    }

    /// Makes room for a piece, which lies in one chunk. `claim` gives memory.
    pub(super) fn make_room(&mut self, piece: &Range<u64>, mut claim: impl FnMut(u64) -> Option<[Claim; 2]>) -> Way {
        let index = piece.start / self.chunk_bytes;
        if self.on_disk.contains(&index) {
            return Way::Disk;
        }
        let within = piece.start % self.chunk_bytes..piece.end - index * self.chunk_bytes;
        let known = self.held.get(&index);
        let (length, room_bytes) = known.map_or((0, 0), |chunk| (chunk.bytes.len() as u64, chunk.room_bytes));
        if within.start > length && within.end > GAP_BYTES_MAX {
            return Way::Disk;
        }
        if within.end <= room_bytes {
            return Way::Memory;
        }
        if room_bytes == 0
            && let Some(spare) = self.spare.take()
        {
            self.held.insert(index, spare);
            return Way::Memory;
        }
        // A file that has filled the chunk before will fill this one too.
        let goes_on = index > 0 && self.is_full(index - 1);
        let wanted = if goes_on { self.chunk_bytes } else { within.end.max(FIRST_BYTES).next_power_of_two() };
        let wanted = wanted.min(self.chunk_bytes);
        let Some(more) = claim(wanted - room_bytes) else { return Way::Short };
        let chunk = self.held.entry(index).or_default();
        chunk.room.extend(more);
        chunk.room_bytes = wanted;
        Way::Memory
    }

    fn is_full(&self, index: u64) -> bool {
        let held = self.held.get(&index).map(|chunk| chunk.bytes.len() as u64);
        held.map_or(self.on_disk.contains(&index), |length| length == self.chunk_bytes)
    }

    /// Puts bytes where [`Chunks::make_room`] made room for them.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) {
        let index = offset / self.chunk_bytes;
        let chunk = self.held.get_mut(&index).expect("there is room for it");
        let start = (offset % self.chunk_bytes) as usize;
        let held = Arc::make_mut(&mut chunk.bytes);
        held.reserve_exact(chunk.room_bytes as usize - held.len());
        if held.len() < start {
            held.resize(start, 0);
        }
        let overlap = bytes.len().min(held.len() - start);
        held[start..start + overlap].copy_from_slice(&bytes[..overlap]);
        held.extend_from_slice(&bytes[overlap..]);
        chunk.sent = false;
    }

    /// The bytes of a piece, which lies in one chunk, if that is in memory.
    pub(super) fn get(&self, piece: &Range<u64>) -> Option<Bytes> {
        let index = piece.start / self.chunk_bytes;
        let chunk = self.held.get(&index)?;
        let within = (piece.start % self.chunk_bytes) as usize..(piece.end - index * self.chunk_bytes) as usize;
        (within.end <= chunk.bytes.len()).then(|| Bytes::from_owner(Shared(chunk.bytes.clone())).slice(within))
    }

    /// Whether all of a range is in memory.
    pub(super) fn holds(&self, range: &Range<u64>) -> bool {
        self.pieces(range).all(|piece| self.held.contains_key(&(piece.start / self.chunk_bytes)))
    }

    /// An upload has all of a range as it is now.
    pub(super) fn note_sent(&mut self, range: &Range<u64>) {
        let chunk_bytes = self.chunk_bytes;
        for (index, chunk) in self.held.range_mut(range.start / chunk_bytes..range.end.div_ceil(chunk_bytes)) {
            let end = index * chunk_bytes + chunk.bytes.len() as u64;
            chunk.sent = index * chunk_bytes >= range.start && end <= range.end;
        }
    }

    /// What they take of memory.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held.values().chain(&self.spare).map(|chunk| chunk.room_bytes).sum()
    }

    /// A chunk that was sent and is still in memory.
    pub(super) fn any_sent(&self) -> Option<Full> {
        let (index, chunk) = self.held.iter().find(|(_, chunk)| chunk.sent)?;
        Some(self.full(*index, chunk))
    }

    /// The chunk that a byte lies in, if that is in memory.
    pub(super) fn at(&self, offset: u64) -> Option<Full> {
        let index = offset / self.chunk_bytes;
        self.held.get(&index).map(|chunk| self.full(index, chunk))
    }

    /// All chunks in memory.
    pub(super) fn all(&self) -> Vec<Full> {
        self.held.iter().map(|(index, chunk)| self.full(*index, chunk)).collect()
    }

    fn full(&self, index: u64, chunk: &Chunk) -> Full {
        Full { index, offset: index * self.chunk_bytes, bytes: chunk.bytes.clone() }
    }

    /// A chunk is on disk now, and leaves memory, unless it was written since. Its memory may be kept for the next.
    pub(super) fn moved_to_disk(&mut self, full: Full, keep: bool) {
        let Full { index, bytes, .. } = full;
        if !self.held.get(&index).is_some_and(|chunk| Arc::ptr_eq(&chunk.bytes, &bytes)) {
            return;
        }
        drop(bytes);
        let gone = self.held.remove(&index);
        self.on_disk.insert(index);
        // Who still sends it has it alone.
        self.spare = gone.filter(|chunk| keep && chunk.room_bytes == self.chunk_bytes).and_then(|mut chunk| {
            Arc::get_mut(&mut chunk.bytes)?.clear();
            Some(Chunk { sent: false, ..chunk })
        });
    }

    /// From now on a piece's chunk is on disk.
    pub(super) fn note_on_disk(&mut self, offset: u64) {
        self.on_disk.insert(offset / self.chunk_bytes);
    }

    /// Gives back what lies before `to_bytes`, in whole chunks.
    pub(super) fn give_back(&mut self, to_bytes: u64) {
        self.held = self.held.split_off(&(to_bytes / self.chunk_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::budget::Budget;
    use proptest::prelude::*;

    const CHUNK: u64 = 4 << 20;

    fn claim(budget: &Budget, bytes: u64) -> Option<[Claim; 2]> {
        Some([budget.claim_if_free(bytes)?, Budget::new(bytes).claim_if_free(bytes)?])
    }

    fn write(chunks: &mut Chunks, budget: &Budget, offset: u64, length: u64) -> Vec<Way> {
        let pieces: Vec<_> = chunks.pieces(&(offset..offset + length)).collect();
        let ways: Vec<_> = pieces.iter().map(|piece| chunks.make_room(piece, |bytes| claim(budget, bytes))).collect();
        if ways.iter().all(|way| *way == Way::Memory) {
            pieces.iter().for_each(|piece| chunks.put(piece.start, &vec![7; (piece.end - piece.start) as usize]));
        }
        ways
    }

    #[test]
    fn what_is_written_forward_stays_in_memory_and_what_jumps_goes_to_disk() {
        let (mut chunks, budget) = (Chunks::new(CHUNK), Budget::new(64 << 20));
        let table = [
            (0, 100, vec![Way::Memory]),
            (5000, 100, vec![Way::Memory]),
            (3 << 20, 10, vec![Way::Disk]),
            (5100, CHUNK, vec![Way::Memory, Way::Memory]),
            (9 * CHUNK + (2 << 20), 10, vec![Way::Disk]),
        ];
        for (offset, length, ways) in table {
            assert_eq!(write(&mut chunks, &budget, offset, length), ways, "{length} bytes at {offset}");
        }
        assert_eq!(budget.used_bytes(), CHUNK + (64 << 10));
        assert!(chunks.get(&(5000..5100)).is_some_and(|bytes| bytes == vec![7; 100]));
        assert!(chunks.get(&(100..5000)).is_some_and(|bytes| bytes == vec![0; 4900]));
    }

    #[test]
    fn a_chunk_leaves_memory_unless_it_was_written_meanwhile() {
        let (mut chunks, budget) = (Chunks::new(CHUNK), Budget::new(64 << 20));
        write(&mut chunks, &budget, 0, CHUNK + 10);
        chunks.note_sent(&(0..CHUNK));
        let full = chunks.any_sent().expect("the first");
        assert_eq!((full.offset, full.bytes.len() as u64), (0, CHUNK));
        write(&mut chunks, &budget, 5, 5);
        chunks.moved_to_disk(full, true);
        assert!(chunks.any_sent().is_none() && chunks.holds(&(0..CHUNK)));
        let full = chunks.at(5).expect("in memory");
        chunks.moved_to_disk(full, true);
        assert_eq!(write(&mut chunks, &budget, 0, 1), [Way::Disk]);
        assert!(!chunks.holds(&(0..CHUNK)) && chunks.holds(&(CHUNK..CHUNK + 10)));
        assert_eq!(budget.used_bytes(), CHUNK + FIRST_BYTES, "its memory is there for the next");
        assert_eq!(write(&mut chunks, &budget, 2 * CHUNK, 1), [Way::Memory]);
        assert_eq!(budget.used_bytes(), CHUNK + FIRST_BYTES);
        chunks.give_back(3 * CHUNK);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn where_memory_is_short_nothing_is_taken() {
        let (mut chunks, budget) = (Chunks::new(CHUNK), Budget::new(3 << 20));
        let others = budget.claim_if_free(2 << 20).expect("free");
        assert_eq!(write(&mut chunks, &budget, 0, 2 << 20), [Way::Short]);
        drop(others);
        assert_eq!(budget.used_bytes(), 0);
        assert_eq!(write(&mut chunks, &budget, 0, 1 << 20), [Way::Memory]);
    }

    proptest! {
        /// Against plain bytes: what was put is what is got, wherever chunks meet.
        #[test]
        fn bytes_are_where_they_were_put(writes in prop::collection::vec((0u64..60, 1u64..30, any::<u8>()), 1..30)) {
            let (mut chunks, mut model) = (Chunks::new(16), vec![0; 100]);
            for (offset, length, byte) in writes {
                let range = offset..offset + length;
                for piece in chunks.pieces(&range) {
                    let budget = Budget::new(1 << 30);
                    prop_assert_eq!(chunks.make_room(&piece, |bytes| claim(&budget, bytes)), Way::Memory);
                    chunks.put(piece.start, &vec![byte; (piece.end - piece.start) as usize]);
                }
                model[offset as usize..(offset + length) as usize].fill(byte);
                for piece in chunks.pieces(&range) {
                    let got = chunks.get(&piece).expect("in memory");
                    prop_assert_eq!(got.as_ref(), &model[piece.start as usize..piece.end as usize]);
                }
            }
        }
    }
}
