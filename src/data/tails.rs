//! The last bytes of files that were written here. The kernel keeps what is written to it in whole pages only, so the
//! end of nearly every file would cost a request when it is read back, and nothing else of it.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;
use lru::LruCache;

use crate::store::ETag;

use super::Version;
use super::budget::{Budget, Claim};

/// A page of the kernel.
const PAGE_BYTES: u64 = 4096;

/// The part of the memory that tails may take.
const MEMORY_SHARE: u64 = 32;

/// Tails of versions, the last written ones.
pub(super) struct Tails {
    kept: Mutex<LruCache<(ETag, u64), (Bytes, Claim)>>,
}

impl Tails {
    /// None yet; as many as fit into their part of the memory.
    pub(super) fn new(memory_bytes_max: u64) -> Self {
        let count = usize::try_from(memory_bytes_max / MEMORY_SHARE / PAGE_BYTES).unwrap_or(usize::MAX);
        Tails { kept: Mutex::new(LruCache::new(NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN))) }
    }

    /// Keeps the tail of a version, whose bytes are these, if memory is free.
    pub(super) fn keep(&self, version: &Version, bytes: &Bytes, budget: &Budget) {
        let range = range_of(version.size_bytes);
        if range.is_empty() {
            return;
        }
        if let (Some(tail), Some(claim)) = (bytes.get(range.start as usize..), budget.try_claim(PAGE_BYTES)) {
            let tail = Bytes::copy_from_slice(tail);
            let mut kept = self.kept.lock().expect("no panic under this lock");
            kept.put((version.etag.clone(), version.size_bytes), (tail, claim));
        }
    }

    /// The tail of a version, and where it lies.
    pub(super) fn of(&self, version: &Version) -> Option<(Range<u64>, Bytes)> {
        let mut kept = self.kept.lock().expect("no panic under this lock");
        let (tail, _) = kept.get(&(version.etag.clone(), version.size_bytes))?;
        Some((range_of(version.size_bytes), tail.clone()))
    }
}

/// What lies behind the last whole page.
fn range_of(size_bytes: u64) -> Range<u64> {
    size_bytes - size_bytes % PAGE_BYTES..size_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::stored;

    #[test]
    fn only_what_is_behind_the_last_whole_page_is_kept() {
        let (budget, tails) = (Budget::new(1 << 20), Tails::new(1 << 20));
        for (key, size_bytes) in [("long", 10_000), ("short", 5), ("whole", 8192)] {
            let bytes = Bytes::from((0..size_bytes).map(|at| at as u8).collect::<Vec<_>>());
            tails.keep(&stored(key, size_bytes).version, &bytes, &budget);
        }
        let of = |key, size_bytes| tails.of(&stored(key, size_bytes).version);
        let (range, tail) = of("long", 10_000).expect("kept");
        assert_eq!((range, tail.len(), tail[0]), (8192..10_000, 1808, 0));
        assert_eq!(of("short", 5).map(|(range, tail)| (range, tail.len())), Some((0..5, 5)));
        assert!(of("whole", 8192).is_none() && of("long", 10_001).is_none());
    }
}
