//! Recognizes files that are opened one after another in an order that is known beforehand, and says how many of the
//! next ones should be here when their turn comes. Pure.
//!
//! The third file in order makes a sequence, and the first one that a walk comes to; the window doubles with each further
//! one. Whoever opens files here and there pays for no more than a few wrong guesses: what was fetched in vain is
//! counted, and too much of it ends the guessing until more has been of use.

use std::collections::VecDeque;

use crate::tree::{Ino, Order};

/// Bytes ahead that need not be earned by bytes that were opened.
const BYTES_UNEARNED: u64 = 1 << 20;

/// One byte in so many may be fetched in vain.
const WASTE_SHARE: u64 = 20;

/// Opens in order, the first not counted, that are no accident: of a few files, any two may follow each other.
const RUN_MIN: u32 = 2;

/// From here on the window does not grow: 64 files hide the way to any store.
const RUN_MAX: u32 = 6;

/// How many files may be left out between two opens of a sequence: some are filtered, some come from elsewhere.
const SKIPPED_MAX: usize = 4;

/// What guessing has brought so far, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    /// Of small files that were opened.
    pub(super) opened_bytes: u64,
    /// That were fetched ahead and not opened.
    pub(super) missed_bytes: u64,
}

impl Record {
    /// Bytes that may be held ahead of all sequences, out of so much memory.
    pub(super) fn ahead_bytes_max(&self, memory_bytes: u64) -> u64 {
        let earned = self.opened_bytes / WASTE_SHARE;
        match self.missed_bytes <= earned.max(BYTES_UNEARNED) {
            true => earned.max(BYTES_UNEARNED).min(memory_bytes / 8),
            false => 0,
        }
    }
}

/// Files that are opened one after another.
#[derive(Debug)]
pub(super) struct Sequence {
    order: Order,
    last: Ino,
    /// The next files, as far as they were looked up.
    upcoming: VecDeque<Ino>,
    /// Opens in order so far, the first not counted, less those that went on with nothing.
    run: u32,
}

impl Sequence {
    /// A sequence that may begin with a file.
    pub(super) fn new(first: Ino, order: Order) -> Self {
        Sequence { order, last: first, upcoming: VecDeque::new(), run: 0 }
    }

    /// A sequence that begins with the file to which a walk has come: who reads directories one after another and opens
    /// a file on the way is about to open others.
    pub(super) fn of_walk(first: Ino, order: Order) -> Self {
        Sequence { run: RUN_MIN, ..Sequence::new(first, order) }
    }

    /// Whether an open goes on with the sequence; then it has come to that file.
    pub(super) fn goes_on_with(&mut self, opened: Ino) -> bool {
        let Some(at) = self.upcoming.iter().take(SKIPPED_MAX + 1).position(|ino| *ino == opened) else { return false };
        self.upcoming.drain(..=at);
        (self.last, self.run) = (opened, (self.run + 1).min(RUN_MAX));
        true
    }

    /// A file was opened that goes on with no sequence: less speaks for each of them.
    pub(super) fn doubt(&mut self) {
        self.run = self.run.saturating_sub(1);
    }

    /// Files ahead that should be here.
    fn window(&self) -> usize {
        if self.run < RUN_MIN { 0 } else { 1 << self.run }
    }

    /// After which file, in which order, so many more have to be looked up.
    pub(super) fn lacks(&self) -> (Ino, Order, usize) {
        let after = self.upcoming.back().copied().unwrap_or(self.last);
        (after, self.order, (self.window() + SKIPPED_MAX + 1).saturating_sub(self.upcoming.len()))
    }

    /// Adds files that were looked up.
    pub(super) fn extend(&mut self, files: Vec<Ino>) {
        self.upcoming.extend(files);
    }

    /// The files that should be here, the next one first.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Ino> {
        self.upcoming.iter().take(self.window()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Opens files whose order is that of their numbers; answers how many are wanted after each.
    fn wanted(opens: &[u64]) -> Vec<usize> {
        let mut sequence = Sequence::new(Ino(opens[0]), Order::Name);
        let mut told = Vec::new();
        for opened in opens {
            if *opened != opens[0] && !sequence.goes_on_with(Ino(*opened)) {
                sequence = Sequence::new(Ino(*opened), Order::Name);
            }
            let (Ino(after), _, count) = sequence.lacks();
            sequence.extend((after + 1..=after + count as u64).map(Ino).collect());
            told.push(sequence.wanted().count());
        }
        told
    }

    #[test]
    fn the_window_doubles_with_each_file_in_order() {
        let table: [(&str, &[u64], &[usize]); 7] = [
            ("in order", &[1, 2, 3, 4, 5, 6, 7], &[0, 0, 4, 8, 16, 32, 64]),
            ("one alone", &[1], &[0]),
            ("some are left out", &[1, 3, 8, 9], &[0, 0, 4, 8]),
            ("too many are left out", &[1, 2, 8, 9, 10], &[0, 0, 0, 0, 4]),
            ("two are no order", &[1, 2, 90, 91], &[0, 0, 0, 0]),
            ("backwards", &[9, 8, 7, 6], &[0, 0, 0, 0]),
            ("here and there", &[70, 3, 900, 41, 500], &[0, 0, 0, 0, 0]),
        ];
        for (what, opens, expected) in table {
            assert_eq!(wanted(opens), expected, "{what}");
        }
    }

    #[test]
    fn a_walk_has_a_window_from_its_first_file_on() {
        let mut sequence = Sequence::of_walk(Ino(1), Order::Name);
        sequence.extend((2..99).map(Ino).collect());
        assert_eq!(sequence.wanted().count(), 4);
        assert!(sequence.goes_on_with(Ino(2)));
        assert_eq!(sequence.wanted().count(), 8);
    }

    #[test]
    fn the_next_files_come_first() {
        let mut sequence = Sequence::new(Ino(1), Order::Number);
        sequence.extend((2..9).map(Ino).collect());
        assert!(sequence.goes_on_with(Ino(2)) && sequence.goes_on_with(Ino(3)));
        assert_eq!(sequence.wanted().collect::<Vec<_>>(), [4, 5, 6, 7].map(Ino));
        assert_eq!(sequence.lacks(), (Ino(8), Order::Number, 4));
    }

    #[test]
    fn each_file_that_goes_on_with_nothing_halves_the_window() {
        let mut sequence = Sequence::new(Ino(1), Order::Name);
        sequence.extend((2..99).map(Ino).collect());
        (2..=5).for_each(|next| assert!(sequence.goes_on_with(Ino(next))));
        let mut windows = Vec::new();
        for _ in 0..4 {
            windows.push(sequence.wanted().count());
            sequence.doubt();
        }
        assert_eq!(windows, [16, 8, 4, 0]);
    }

    #[test]
    fn bytes_ahead_are_earned_and_waste_ends_the_guessing() {
        let table = [
            // MiB opened, missed and of memory; MiB that may be ahead
            (0, 0, 256, 1),
            (100, 0, 256, 5),
            (1000, 0, 256, 32),
            (1000, 0, 4096, 50),
            (0, 1, 256, 1),
            (0, 2, 256, 0),
            (100, 5, 256, 5),
            (100, 6, 256, 0),
        ];
        for (opened, missed, memory, ahead) in table {
            let record = Record { opened_bytes: opened * MIB, missed_bytes: missed * MIB };
            assert_eq!(record.ahead_bytes_max(memory * MIB), ahead * MIB, "{opened} {missed} {memory}");
        }
    }
}
