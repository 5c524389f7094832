//! Recognizes walks: programs that read one directory after another below a common one (`ls -R`, `find`, `du`, `tar`).
//! Pure.
//!
//! Looking names up is no walk: a path that is typed leads through directories which nobody reads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::format::key::{BucketName, Prefix};
use crate::tree::Ino;

/// Reads that are remembered.
const READS_MAX: usize = 16;

/// A read so long after another one is not part of the same walk.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Directories below a common one that were read before, that one included, when a further one is taken for a walk.
const STEPS_MIN: usize = 2;

/// A directory in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) ino: Ino,
    pub(super) bucket: BucketName,
    pub(super) prefix: Prefix,
}

impl Spot {
    /// Whether `other` lies below this one, at any depth.
    pub(super) fn holds(&self, other: &Spot) -> bool {
        self.bucket == other.bucket
            && self.prefix != other.prefix
            && other.prefix.as_str().starts_with(self.prefix.as_str())
    }
}

/// The directories that were read last.
#[derive(Debug, Default)]
pub(super) struct Reads {
    recent: VecDeque<(Spot, Instant)>,
}

impl Reads {
    /// Notes that a directory is read; answers the one below which this is a walk, if it is.
    pub(super) fn note(&mut self, read: &Spot, now: Instant) -> Option<Spot> {
        if self.recent.back().is_some_and(|(_, at)| now.saturating_duration_since(*at) > PAUSE_MAX) {
            self.recent.clear();
        }
        self.recent.retain(|(spot, _)| spot != read);
        let above = self.recent.iter().map(|(spot, _)| spot).filter(|spot| spot.holds(read));
        let steps = |base: &Spot| self.recent.iter().filter(|(spot, _)| spot == base || base.holds(spot)).count();
        let base = above.filter(|base| steps(base) >= STEPS_MIN).min_by_key(|base| base.prefix.as_str().len()).cloned();
        if self.recent.len() == READS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((read.clone(), now));
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(prefix: &str) -> Spot {
        let (bucket, prefix) = prefix.split_once(':').unwrap_or(("bucket", prefix));
        let bucket = BucketName::new(bucket).expect("plain");
        Spot { ino: Ino(2), bucket, prefix: Prefix::new(prefix).expect("plain") }
    }

    #[test]
    fn walks_are_recognized_at_their_third_step() {
        let table: [(&str, &[&str], Option<&str>); 9] = [
            ("one after the other", &["", "a", "b"], Some("")),
            ("down", &["", "a", "a/b"], Some("")),
            ("the topmost counts", &["", "a", "a/b", "a/b/c"], Some("")),
            ("below a directory", &["r", "r/a", "r/b"], Some("r/")),
            ("two steps are not enough", &["", "a"], None),
            ("again and again the same", &["", "a", "a", "a"], None),
            ("here and there", &["a", "b", "c", "d"], None),
            ("another bucket", &["", "a", "other:b"], None),
            ("names that only begin alike", &["r", "r/a", "rb"], None),
        ];
        for (what, reads, expected) in table {
            let (mut seen, now) = (Reads::default(), Instant::now());
            let told = reads.iter().map(|prefix| seen.note(&spot(prefix), now)).last().flatten();
            assert_eq!(told, expected.map(spot), "{what}");
        }
    }

    #[test]
    fn a_pause_ends_a_walk_and_memory_is_bounded() {
        let (mut seen, start) = (Reads::default(), Instant::now());
        seen.note(&spot(""), start);
        seen.note(&spot("a"), start);
        assert_eq!(seen.note(&spot("b"), start + PAUSE_MAX * 2), None);
        for number in 0..100 {
            seen.note(&spot(&number.to_string()), start + PAUSE_MAX * 2);
        }
        assert_eq!(seen.recent.len(), READS_MAX);
    }
}
