//! What to fetch next. Pure: what was read in, what to fetch out.
//!
//! A reader that goes forward is a stream: it gets a window, which doubles while the reader comes near its end before
//! the bytes do, and is never larger than what the reader is sure to have read so far, so that at most every second byte
//! can turn out to be fetched in vain; of who copies the file from its beginning on, all that the kernel asked for counts.
//! Several streams in one file (players, archives) are told apart. A reader that jumps gets what it asked for.

use std::ops::Range;

/// What an open fetches of a large file before anybody reads: its head is what the open waits for, and who opens it only
/// to copy it on the server, or to look what it is, needs no more.
pub const OPEN_BYTES: u64 = 32 << 10;

/// What a reader of a large file's beginning gets at least.
pub const FIRST_BYTES: u64 = 256 << 10;

/// A file up to this is fetched whole at its first read.
pub const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// How far a read may be from where its stream is: requests of one reader pass each other on their way here.
const SLACK_BYTES_MAX: u64 = 8 << 20;

/// Streams that are told apart in one file.
const STREAMS_MAX: usize = 8;

/// How much of what a stream took may never have been read: the kernel asks for so many of its own windows ahead of its
/// reader, beginning the next when the reader enters the last, and as much again is to stay unfetched by us.
const KERNEL_SHARE: u64 = 4;

/// The kernel asks for so much of a file's beginning at once if its reader wants half of that or more in one call. Who does
/// so copies the file, and is not looking what it is: all that is taken counts as read.
const COPIER_BYTES_MIN: u64 = 1 << 20;

/// How far ahead of a reader is fetched.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What one stream may have.
    pub window_bytes_max: u64,
    /// The kernel's own read-ahead, which asks us for more than its reader wants.
    pub kernel_bytes_max: u64,
}

/// One forward reader.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Where it goes on.
    next: u64,
    /// How much it has taken.
    taken_bytes: u64,
    /// How far ahead of it is fetched.
    window_bytes: u64,
    /// How much of it is fetched at once whatever it takes.
    first_bytes: u64,
    /// Whether it copies the file, so that all that it took counts as read.
    copies: bool,
}

impl Stream {
    fn new(range: &Range<u64>, first_bytes: u64) -> Self {
        let taken_bytes = range.end - range.start;
        let copies = range.start == 0 && taken_bytes >= COPIER_BYTES_MIN;
        let window_bytes = if copies { taken_bytes } else { 0 };
        Stream { next: range.end, taken_bytes, window_bytes, first_bytes, copies }
    }

    fn end(&self) -> u64 {
        self.next + self.window_bytes.max(self.first_bytes.saturating_sub(self.taken_bytes))
    }
}

/// What a file's readers did last.
#[derive(Clone, Debug, Default)]
pub struct Readahead {
    /// The latest at the end.
    streams: Vec<Stream>,
}

/// What a read is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What should be fetched besides, empty where nothing is. It begins where the stream goes on: what lies between a
    /// read that comes late and there has been read already.
    pub ahead: Range<u64>,
    /// Whether it jumped: neither a file's beginning nor a stream's next bytes.
    pub jumped: bool,
}

impl Readahead {
    /// What of a file of `size_bytes` should be fetched when `range` of it is read; `is_here` tells whether all of a range has come.
    pub fn wanted(
        &mut self,
        range: &Range<u64>,
        size_bytes: u64,
        limits: Limits,
        is_here: impl Fn(Range<u64>) -> bool,
    ) -> Wanted {
        let length = range.end - range.start;
        let found = self.streams.iter().rposition(|stream| {
            let slack = stream.taken_bytes.min(SLACK_BYTES_MAX);
            (stream.next.saturating_sub(slack)..=stream.next + slack).contains(&range.start)
        });
        let stream = match found.map(|index| self.streams.remove(index)) {
            Some(stream) => {
                let taken_bytes = stream.taken_bytes + length;
                let next = stream.next.max(range.end);
                let near = range.start..(next + stream.window_bytes / 2).min(size_bytes);
                let spared_bytes = if stream.copies { 0 } else { KERNEL_SHARE * limits.kernel_bytes_max };
                let earned = taken_bytes.saturating_sub(spared_bytes);
                let wider = (stream.window_bytes * 2).max(length).min(earned).max(stream.window_bytes);
                let window_bytes = if is_here(near) { stream.window_bytes } else { wider };
                Stream { next, taken_bytes, window_bytes, ..stream }
            }
            None if range.start == 0 && size_bytes <= WHOLE_BYTES_MAX => Stream::new(range, size_bytes),
            None if range.start == 0 => Stream::new(range, FIRST_BYTES),
            None => Stream::new(range, 0),
        };
        let stream = Stream { window_bytes: stream.window_bytes.min(limits.window_bytes_max), ..stream };
        if self.streams.len() == STREAMS_MAX {
            self.streams.remove(0);
        }
        self.streams.push(stream);
        let end = stream.end().min(size_bytes).max(stream.next);
        Wanted { ahead: stream.next..end, jumped: found.is_none() && range.start > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1 << 30;
    const WINDOW_MAX: u64 = 64 * MIB;
    const LIMITS: Limits = Limits { window_bytes_max: WINDOW_MAX, kernel_bytes_max: 128 << 10 };

    fn read(reader: &mut Readahead, start: u64, length: u64, here: bool) -> Wanted {
        reader.wanted(&(start..start + length), SIZE, LIMITS, |_| here)
    }

    #[test]
    fn a_waiting_forward_reader_gets_ever_more_but_never_more_than_it_took() {
        let mut reader = Readahead::default();
        for at in 0..200 {
            let wanted = read(&mut reader, at * MIB, MIB, false);
            let ahead = wanted.ahead.end - (at + 1) * MIB;
            assert!(ahead <= ((at + 1) * MIB).min(WINDOW_MAX) && !wanted.jumped, "{ahead} ahead at {at} MiB");
        }
        assert_eq!(read(&mut reader, 200 * MIB, MIB, false).ahead.end, 201 * MIB + WINDOW_MAX);
    }

    #[test]
    fn who_copies_has_a_window_at_once_and_who_looks_when_the_kernel_is_outdone() {
        let limits = Limits { kernel_bytes_max: 2 * MIB, ..LIMITS };
        for (first, ahead_at) in [(MIB, MIB), (MIB / 2, 8 * MIB + 1)] {
            let (mut reader, mut next) = (Readahead::default(), 0);
            for length in std::iter::once(first).chain(std::iter::repeat_n(MIB, 20)) {
                let wanted = reader.wanted(&(next..next + length), SIZE, limits, |_| false);
                next += length;
                let goes_ahead = wanted.ahead.end > next.max(FIRST_BYTES);
                assert_eq!(goes_ahead, next >= ahead_at, "{first} first, {next} taken: {wanted:?}");
                assert!(wanted.ahead.end <= 2 * next, "{wanted:?}");
            }
        }
    }

    #[test]
    fn a_reader_that_does_not_wait_keeps_its_window() {
        let mut reader = Readahead::default();
        let window = read(&mut reader, 0, MIB, false).ahead.end - MIB;
        for at in 1..50 {
            assert_eq!(read(&mut reader, at * MIB, MIB, true).ahead.end, (at + 1) * MIB + window);
        }
    }

    #[test]
    fn requests_that_pass_each_other_are_one_stream_and_nothing_behind_it_is_wanted() {
        let mut reader = Readahead::default();
        for (at, next) in [(0, 1), (1, 2), (3, 4), (2, 4), (4, 5), (6, 7), (5, 7), (7, 8)] {
            let wanted = read(&mut reader, at * MIB, MIB, false);
            assert!(!wanted.jumped && wanted.ahead.start == next * MIB, "{at}: {wanted:?}");
        }
        assert_eq!(reader.streams.len(), 1);
    }

    #[test]
    fn a_jumping_reader_gets_what_it_asked() {
        let mut reader = Readahead::default();
        for jump in [500, 20, 900, 333, 700, 100, 44, 612, 810, 17] {
            let wanted = read(&mut reader, jump * MIB, 65536, false);
            assert_eq!(wanted, Wanted { ahead: jump * MIB + 65536..jump * MIB + 65536, jumped: true });
        }
    }

    #[test]
    fn two_streams_in_one_file_are_told_apart() {
        let mut reader = Readahead::default();
        for at in 0..64 {
            let sound = read(&mut reader, at * 65536, 65536, false);
            let picture = read(&mut reader, 500 * MIB + at * MIB, MIB, false);
            assert!(at == 0 || !(sound.jumped || picture.jumped), "{at}");
        }
        assert_eq!(reader.streams.len(), 2);
        assert!(read(&mut reader, 564 * MIB, MIB, false).ahead.end > 600 * MIB);
    }

    #[test]
    fn beginnings_ends_and_small_files() {
        let whole = |size: u64| Readahead::default().wanted(&(0..size.min(4096)), size, LIMITS, |_| false).ahead.end;
        assert_eq!((whole(100), whole(MIB), whole(SIZE)), (100, MIB, FIRST_BYTES));
        let mut reader = Readahead::default();
        assert_eq!(reader.wanted(&(SIZE - 100..SIZE), SIZE, LIMITS, |_| false).ahead, SIZE..SIZE);
    }
}
