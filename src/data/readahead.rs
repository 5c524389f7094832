//! What to fetch next. Pure: offsets in, chunks out.
//!
//! A reader that goes forward gets a window that doubles up to [`WINDOW_CHUNKS_MAX`]; one that jumps gets the chunks
//! it asked for and no more.

use std::ops::Range;

/// The unit in which content is fetched and cached.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// Chunks ahead of a forward reader at most: with four chunks a request, four requests in flight.
pub const WINDOW_CHUNKS_MAX: u64 = 16;

/// What a file's readers did last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readahead {
    next: u64,
    window: u64,
}

impl Readahead {
    /// The chunks that should be here or on their way when bytes `range` of a file of `size_bytes` are read.
    pub fn wanted(&mut self, range: &Range<u64>, size_bytes: u64) -> Range<u64> {
        let first = range.start / CHUNK_BYTES;
        let end = range.end.div_ceil(CHUNK_BYTES);
        // The kernel's own read-ahead comes in several requests that may pass each other.
        let forward = first <= self.next && self.next <= first + 2 && !(first == 0 && self.next > 1);
        self.window = match (forward, first == 0) {
            (true, _) => (self.window * 2).clamp(1, WINDOW_CHUNKS_MAX),
            (false, true) => 1,
            (false, false) => 0,
        };
        self.next = end;
        first..(end + self.window).min(size_bytes.div_ceil(CHUNK_BYTES)).max(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_reader_gets_ever_more_and_a_jumping_one_what_it_asked() {
        let size = 1 << 30;
        let mut reader = Readahead::default();
        let mut ahead = 0;
        for at in 0..64u64 {
            let wanted = reader.wanted(&(at * CHUNK_BYTES / 8..(at + 1) * CHUNK_BYTES / 8), size);
            ahead = wanted.end - wanted.start;
        }
        assert_eq!(ahead, WINDOW_CHUNKS_MAX + 1);
        for jump in [500u64, 20, 900, 333] {
            let wanted = reader.wanted(&(jump * CHUNK_BYTES..jump * CHUNK_BYTES + 4096), size);
            assert_eq!(wanted, jump..jump + 1);
        }
    }

    #[test]
    fn nothing_is_wanted_behind_the_end() {
        let mut reader = Readahead::default();
        assert_eq!(reader.wanted(&(0..100), 100), 0..1);
        assert_eq!(reader.wanted(&(0..CHUNK_BYTES), CHUNK_BYTES + 1), 0..2);
    }
}
