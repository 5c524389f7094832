//! Buffers for blocks, used again and again: a fresh one costs a page fault for each of its pages, which takes longer
//! than filling it from the network. A spare one keeps its claim on the budget, and goes when somebody else wants that.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::store::{self, PIECE_BYTES};

use super::budget::{Budget, Claim};

/// The size of a buffer that is kept for the next user. Others come from the allocator and go back to it.
pub const BUFFER_BYTES: usize = PIECE_BYTES as usize;

/// The part of the memory that spare buffers may take.
const SPARE_SHARE: u64 = 4;

/// The spare buffers. Cheap to clone.
#[derive(Clone)]
pub struct Buffers {
    budget: Budget,
    spare: Arc<Mutex<Vec<Room>>>,
    spare_max: usize,
}

/// Memory for so many bytes that is claimed, and taken from the allocator when the first byte comes.
#[derive(Debug)]
pub struct Room {
    length: usize,
    bytes: Vec<u8>,
    _claim: Claim,
}

/// Bytes together with the memory that is claimed for them.
struct Held {
    room: Option<Room>,
    buffers: Buffers,
}

/// Bytes that were received in memory of their own, together with the memory that is claimed for them.
struct Received {
    bytes: Bytes,
    room: Option<Room>,
    buffers: Buffers,
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let (Some(mut room), Ok(mut bytes)) = (self.room.take(), std::mem::take(&mut self.bytes).try_into_mut()) {
            // Emptied first, so that nothing is moved.
            bytes.clear();
            room.bytes = bytes.into();
            self.buffers.give_back(room);
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.room.as_ref().expect("there until it is dropped").bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            self.buffers.give_back(room);
        }
    }
}

impl Room {
    /// Its memory, if it has any yet, for somebody else to fill.
    pub fn lend(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.bytes)).filter(|bytes| bytes.capacity() > 0)
    }

    /// Takes back memory that was lent and not used, if it has none.
    pub fn use_memory(&mut self, lent: &store::Buffers) {
        if self.bytes.capacity() == 0 && self.length == BUFFER_BYTES {
            self.bytes = lent.take().unwrap_or_default();
        }
    }

    /// The bytes so far.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.bytes.reserve_exact(self.length - self.bytes.len());
        &mut self.bytes
    }
}

impl Buffers {
    /// None yet. Their memory is claimed from `budget`.
    pub fn new(budget: Budget) -> Self {
        let spare_max = (budget.bytes_max() / SPARE_SHARE) as usize / BUFFER_BYTES;
        Buffers { budget, spare: Arc::default(), spare_max }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Room>> {
        self.spare.lock().expect("no panic under this lock")
    }

    /// Gives spare buffers of about so many bytes back, if there are such; answers how many bytes.
    pub fn release(&self, bytes: u64) -> u64 {
        let count = usize::try_from(bytes.div_ceil(BUFFER_BYTES as u64)).unwrap_or(usize::MAX);
        let gone = {
            let mut spare = self.spare();
            let rest = spare.len().saturating_sub(count);
            spare.split_off(rest)
        };
        (gone.len() * BUFFER_BYTES) as u64
    }

    fn spare_room(&self, length: u64) -> Option<Room> {
        if length == BUFFER_BYTES as u64 { self.spare().pop() } else { None }
    }

    fn fresh_room(length: u64, claim: Claim) -> Room {
        Room { length: length as usize, bytes: Vec::new(), _claim: claim }
    }

    /// Room for so many bytes if there is any left, after asking the cache to give back what has served.
    pub fn try_room(&self, length: u64) -> Option<Room> {
        self.spare_room(length).or_else(|| Some(Self::fresh_room(length, self.budget.try_claim(length)?)))
    }

    /// Room for each of these lengths, waiting for all of it: whoever waits holds nothing that others wait for, but
    /// spare buffers.
    pub async fn rooms(&self, lengths: impl Iterator<Item = u64> + Send) -> Vec<Room> {
        let lengths: Vec<u64> = lengths.collect();
        let mut rooms: Vec<Option<Room>> = lengths.iter().map(|length| self.spare_room(*length)).collect();
        let missing = || rooms.iter().zip(&lengths).filter(|(room, _)| room.is_none()).map(|(_, length)| *length);
        let missing_bytes = missing().sum();
        if missing_bytes > 0 {
            let mut claim = self.budget.claim(missing_bytes).await;
            for (room, length) in rooms.iter_mut().zip(lengths).filter(|(room, _)| room.is_none()) {
                *room = Some(Self::fresh_room(length, claim.split(length)));
            }
        }
        rooms.into_iter().flatten().collect()
    }

    /// Room for so many bytes, waiting for it.
    pub async fn room(&self, length: u64) -> Room {
        match self.spare_room(length) {
            Some(room) => room,
            None => Self::fresh_room(length, self.budget.claim(length).await),
        }
    }

    /// Keeps a buffer for the next user, if it is of the size that is kept, there are not enough yet, and nobody waits
    /// for the memory.
    pub fn give_back(&self, mut room: Room) {
        if room.bytes.capacity() == BUFFER_BYTES && !self.budget.is_short() {
            room.bytes.clear();
            let mut spare = self.spare();
            if spare.len() < self.spare_max {
                spare.push(room);
            }
        }
    }

    /// What was received in memory that the room lent, or in other memory that is used for nothing else: the room's own
    /// goes. The last user gives the memory back.
    pub fn hold_received(&self, mut room: Room, bytes: Bytes) -> Bytes {
        room.bytes = Vec::new();
        Bytes::from_owner(Received { bytes, room: Some(room), buffers: self.clone() })
    }

    /// What a room was filled with. The last user gives the memory back.
    pub fn hold(&self, room: Room) -> Bytes {
        Bytes::from_owner(Held { room: Some(room), buffers: self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: u64 = BUFFER_BYTES as u64;

    #[tokio::test]
    async fn a_buffer_comes_back_with_its_last_user_and_is_used_again() {
        let budget = Budget::new(16 << 20);
        let buffers = Buffers::new(budget.clone());
        let mut room = buffers.room(BUFFER).await;
        room.bytes_mut().resize(BUFFER_BYTES, 7);
        let place = room.bytes.as_ptr();
        let bytes = buffers.hold(room);
        let slice = bytes.slice(5..10);
        drop(bytes);
        assert_eq!((slice.as_ref(), budget.used_bytes()), ([7; 5].as_slice(), BUFFER));
        drop(slice);
        assert_eq!(budget.used_bytes(), BUFFER, "it is kept with its claim");
        let mut again = buffers.rooms([BUFFER, 100].into_iter()).await;
        assert!(again[0].bytes_mut().is_empty() && again[0].bytes.as_ptr() == place);
        drop(again);
        assert_eq!(budget.used_bytes(), 0, "what was never filled is not kept");
    }

    #[tokio::test]
    async fn memory_that_was_lent_and_filled_comes_back_with_its_claim() {
        let budget = Budget::new(16 << 20);
        let buffers = Buffers::new(budget.clone());
        buffers.give_back(filled(&buffers, BUFFER));
        let mut room = buffers.try_room(BUFFER).expect("the spare one");
        let mut lent = room.lend().expect("it was filled before");
        let place = lent.as_ptr();
        assert!(room.lend().is_none());
        lent.resize(BUFFER_BYTES, 7);
        let held = buffers.hold_received(room, lent.into());
        let slice = held.slice(1..3);
        drop(held);
        assert_eq!((slice.as_ref(), budget.used_bytes()), ([7; 2].as_slice(), BUFFER));
        drop(slice);
        let mut again = buffers.try_room(BUFFER).expect("the same");
        assert_eq!((again.bytes_mut().as_ptr(), budget.used_bytes()), (place, BUFFER));
        let lent = store::Buffers::new(again.lend().into_iter().collect());
        again.use_memory(&lent);
        assert_eq!(again.bytes_mut().as_ptr(), place, "what was not used is not lost");
    }

    fn filled(buffers: &Buffers, length: u64) -> Room {
        let mut room = buffers.try_room(length).expect("room");
        room.bytes_mut().push(0);
        room
    }

    #[tokio::test]
    async fn few_are_kept_and_go_when_memory_is_wanted() {
        let budget = Budget::new(64 << 20);
        let buffers = Buffers::new(budget.clone());
        let give_back = |count| {
            let rooms: Vec<Room> =
                (0..count).map(|_| filled(&buffers, BUFFER)).chain([filled(&buffers, 100)]).collect();
            rooms.into_iter().for_each(|room| buffers.give_back(room));
        };
        give_back(20);
        assert_eq!(budget.used_bytes(), 16 * BUFFER, "no more are kept than are worth it");
        assert_eq!((buffers.release(BUFFER + 1), budget.used_bytes()), (2 * BUFFER, 14 * BUFFER));
        buffers.release(u64::MAX);
        let room = filled(&buffers, BUFFER);
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.claim(64 << 20).await }
        });
        tokio::task::yield_now().await;
        buffers.give_back(room);
        assert_eq!(
            waiting.await.map(|_| ()).map_err(|error| error.to_string()),
            Ok(()),
            "nobody keeps what is waited for"
        );
    }
}
