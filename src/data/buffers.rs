//! Buffers for blocks, used again and again: a fresh one costs a page fault for each of its pages, which takes longer
//! than filling it from the network.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::budget::Claim;

/// The size of a buffer that is kept for the next user. Others come from the allocator and go back to it.
pub const BUFFER_BYTES: usize = 1 << 20;

/// The part of the memory that spare buffers may take besides it.
const SPARE_SHARE: u64 = 16;

/// The spare buffers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Buffers {
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    spare_max: usize,
}

/// Bytes together with the memory that is claimed for them.
struct Held {
    bytes: Vec<u8>,
    buffers: Buffers,
    _claim: Claim,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.bytes));
    }
}

impl Buffers {
    /// None yet; in time as many as go with so much memory for content.
    pub fn new(memory_bytes_max: u64) -> Self {
        let spare_max = (memory_bytes_max / SPARE_SHARE) as usize / BUFFER_BYTES;
        Buffers { spare: Arc::default(), spare_max }
    }

    /// An empty buffer with room for exactly so many bytes.
    pub fn take(&self, length: usize) -> Vec<u8> {
        let spare = (length == BUFFER_BYTES).then(|| self.spare.lock().expect("no panic under this lock").pop());
        spare.flatten().unwrap_or_else(|| Vec::with_capacity(length))
    }

    /// Keeps a buffer for the next user, if it is of the size that is kept and there are not enough yet.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() == BUFFER_BYTES {
            buffer.clear();
            let mut spare = self.spare.lock().expect("no panic under this lock");
            if spare.len() < self.spare_max {
                spare.push(buffer);
            }
        }
    }

    /// A filled buffer as bytes. Their last user gives both the buffer and the claim back.
    pub fn hold(&self, bytes: Vec<u8>, claim: Claim) -> Bytes {
        Bytes::from_owner(Held { bytes, buffers: self.clone(), _claim: claim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::budget::Budget;

    #[test]
    fn a_buffer_and_its_claim_come_back_with_the_last_user() {
        let (budget, buffers) = (Budget::new(16 << 20), Buffers::new(16 << 20));
        let claim = budget.try_claim(BUFFER_BYTES as u64).expect("room");
        let mut buffer = buffers.take(BUFFER_BYTES);
        let place = buffer.as_ptr();
        buffer.resize(BUFFER_BYTES, 7);
        let bytes = buffers.hold(buffer, claim);
        let slice = bytes.slice(5..10);
        drop(bytes);
        assert_eq!((slice.as_ref(), budget.used_bytes()), ([7; 5].as_slice(), BUFFER_BYTES as u64));
        drop(slice);
        assert_eq!(budget.used_bytes(), 0);
        let again = buffers.take(BUFFER_BYTES);
        assert!(again.is_empty() && again.as_ptr() == place);
    }

    #[test]
    fn no_more_are_kept_than_are_worth_it() {
        let buffers = Buffers::new(64 << 20);
        (0..9).for_each(|_| buffers.give_back(Vec::with_capacity(BUFFER_BYTES)));
        buffers.give_back(Vec::with_capacity(100));
        assert_eq!(buffers.spare.lock().expect("unpoisoned").len(), 4);
    }
}
