//! What is known to be right of files since this mount began: chunks that it wrote itself, and chunks that it compared
//! with their checksums. A file that somebody else changed since is known no more, and its chunks are compared again.

use std::num::NonZeroUsize;
use std::sync::Mutex;

use lru::LruCache;

use super::entry::{Entry, Fingerprint};

/// Files that are remembered; one more is compared again when its turn comes.
const FILES_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Chunks of a file that is remembered at most (a byte each in memory): a larger one is compared each time.
const CHUNKS_MAX: u64 = 1 << 16;

/// What is known to be right, file by file.
pub(super) struct Verified {
    files: Mutex<LruCache<String, Known>>,
}

struct Known {
    fingerprint: Fingerprint,
    chunks: Vec<bool>,
}

impl Verified {
    pub(super) fn new() -> Self {
        Verified { files: Mutex::new(LruCache::new(FILES_MAX)) }
    }

    /// A chunk was compared while the file's fingerprint was this.
    pub(super) fn note_compared(&self, entry: &Entry, fingerprint: Fingerprint, index: u64) {
        self.note(entry, fingerprint, fingerprint, index);
    }

    /// A chunk was written, which changed the file's fingerprint.
    pub(super) fn note(&self, entry: &Entry, before: Fingerprint, after: Fingerprint, index: u64) {
        if entry.chunks() > CHUNKS_MAX {
            return;
        }
        let mut files = self.files.lock().expect("no panic under this lock");
        let known = files.get_or_insert_mut(entry.stem.clone(), || Known { fingerprint: before, chunks: Vec::new() });
        if known.fingerprint != before {
            known.chunks.clear();
        }
        known.chunks.resize(entry.chunks() as usize, false);
        known.chunks[index as usize] = true;
        known.fingerprint = after;
    }

    /// The chunks of a file that have not been found right.
    pub(super) fn missing(&self, entry: &Entry, fingerprint: Fingerprint) -> Vec<u64> {
        let mut files = self.files.lock().expect("no panic under this lock");
        let known = files.get(&entry.stem).filter(|known| known.fingerprint == fingerprint);
        let is_right = |index: u64| known.is_some_and(|known| known.chunks.get(index as usize) == Some(&true));
        (0..entry.chunks()).filter(|index| !is_right(*index)).collect()
    }
}
