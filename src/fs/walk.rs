//! Recognizes walks: programs that read one directory after another below a common one (`ls -R`, `find`, `du`, `tar`).
//! Pure.
//!
//! Who reads a directory and then the first one in it begins a walk already; of any other order two steps are seen first.
//!
//! So do programs that read directories of one parent in an order of their own (`git` in its objects), which may never
//! read that parent itself; where that is the order of names, it is a walk like any other.
//!
//! Looking names up is less of a walk: a path that is typed leads through directories which nobody reads. Who looks into
//! one directory of a parent after the other (`git status`, a checkout) goes from one to another like those.

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

/// Directories of one parent that were read before, when a further one is taken for such a walk.
const SIBLINGS_MIN: usize = 3;

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

/// A walk that a read is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Through all below a directory, one after the other.
    Below(Spot),
    /// From one directory in this one to another.
    Among(Spot),
}

/// The last directories of one sort.
#[derive(Debug, Default)]
struct Recent(VecDeque<(Spot, Instant)>);

/// The directories that were read last, and those that were listed for the sake of a name in them.
#[derive(Debug, Default)]
pub(super) struct Reads {
    read: Recent,
    looked_into: Recent,
}

impl Recent {
    fn spots(&self) -> impl DoubleEndedIterator<Item = &Spot> {
        self.0.iter().map(|(spot, _)| spot)
    }

    /// Forgets what a further one has nothing to do with.
    fn come_to(&mut self, next: &Spot, now: Instant) {
        if self.0.back().is_some_and(|(_, at)| now.saturating_duration_since(*at) > PAUSE_MAX) {
            self.0.clear();
        }
        self.0.retain(|(spot, _)| spot != next);
    }

    fn push(&mut self, spot: &Spot, now: Instant) {
        if self.0.len() == READS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((spot.clone(), now));
    }

    /// The walk among the directories of one parent that a further one of them is part of, if there were enough.
    fn among(&self, next: &Spot, parent: &Spot) -> Option<Course> {
        let is_sibling = |spot: &&Spot| {
            parent.holds(spot)
                && !spot.prefix.as_str()[parent.prefix.as_str().len()..].trim_end_matches('/').contains('/')
        };
        let siblings: Vec<&str> =
            self.spots().filter(is_sibling).chain([next]).map(|spot| spot.prefix.as_str()).collect();
        (siblings.len() > SIBLINGS_MIN).then(|| match siblings.is_sorted() {
            true => Course::Below(parent.clone()),
            false => Course::Among(parent.clone()),
        })
    }
}

impl Reads {
    /// The directory that was read last is still being read.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.read.0.back_mut().into_iter().for_each(|(_, at)| *at = now);
    }

    /// The directory that was read last.
    pub(super) fn last(&self) -> Option<&Spot> {
        self.read.spots().next_back()
    }

    /// Notes that a directory is to be listed for the sake of a name in it; answers the walk that this is part of, if it
    /// is.
    pub(super) fn note_look(&mut self, into: &Spot, parent: &Spot, now: Instant) -> Option<Course> {
        self.looked_into.come_to(into, now);
        let course = self.looked_into.among(into, parent);
        self.looked_into.push(into, now);
        course
    }

    /// Those that were read, or looked into, were none of a walk.
    pub(super) fn forget(&mut self, looks: bool) {
        if looks { self.looked_into.0.clear() } else { self.read.0.clear() }
    }

    /// Notes that a directory is read, where that lies, and whether no other directory comes before it there; answers the
    /// walk that this is part of, if it is.
    pub(super) fn note(
        &mut self,
        read: &Spot,
        parent: Option<&Spot>,
        is_first: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<Course> {
        self.read.come_to(read, now);
        let above = self.read.spots().filter(|spot| spot.holds(read));
        let steps = |base: &Spot| self.read.spots().filter(|spot| *spot == base || base.holds(spot)).count();
        let base = above.filter(|base| steps(base) >= STEPS_MIN).min_by_key(|base| base.prefix.as_str().len()).cloned();
        let first_step = parent.filter(|parent| base.is_none() && self.last() == Some(*parent) && is_first()).cloned();
        let among = parent.and_then(|parent| self.read.among(read, parent));
        self.read.push(read, now);
        base.or(first_step).map(Course::Below).or(among)
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
            let told = reads.iter().map(|prefix| seen.note(&spot(prefix), None, || false, now)).last().flatten();
            assert_eq!(told, expected.map(|base| Course::Below(spot(base))), "{what}");
        }
    }

    #[test]
    fn the_first_directory_in_the_one_that_was_read_last_is_a_second_step() {
        let table: [(&str, &[&str], bool, Option<&str>); 4] = [
            ("the first one", &["r", "r/a"], true, Some("r/")),
            ("another one", &["r", "r/b"], false, None),
            ("something was read between", &["r", "x", "r/a"], true, None),
            ("its parent was not read", &["r/a"], true, None),
        ];
        for (what, reads, is_first, expected) in table {
            let (mut seen, now) = (Reads::default(), Instant::now());
            let told = reads.iter().map(|read| seen.note(&spot(read), Some(&spot("r")), || is_first, now));
            assert_eq!(told.last().flatten(), expected.map(|base| Course::Below(spot(base))), "{what}");
        }
    }

    #[test]
    fn the_fourth_of_some_siblings_is_a_walk_among_them() {
        let (mut seen, now) = (Reads::default(), Instant::now());
        let parent = spot("p");
        let told = ["p/7", "q/1", "p/3", "p/9/x", "p/1", "p/5"]
            .map(|read| seen.note(&spot(read), Some(&parent), || false, now));
        assert_eq!(told, [None, None, None, None, None, Some(Course::Among(parent.clone()))]);
        let mut seen = Reads::default();
        let told = ["p/1", "p/2", "p/3", "p/4"].map(|read| seen.note(&spot(read), Some(&parent), || false, now));
        assert_eq!(told, [None, None, None, Some(Course::Below(parent))], "in the order of names");
    }

    #[test]
    fn the_fourth_sibling_that_is_looked_into_is_a_step_and_a_path_is_none() {
        let (mut seen, now) = (Reads::default(), Instant::now());
        let path = ["p", "p/a", "p/a/b", "p/a/b/c", "p/a/b/c/d"];
        let told = path.windows(2).map(|step| seen.note_look(&spot(step[1]), &spot(step[0]), now));
        assert_eq!(told.flatten().next(), None, "a path");
        let mut look = |name: &str| seen.note_look(&spot(name), &spot("q"), now);
        let told = ["q/1", "q/2", "q/3", "q/4", "q/5", "q/2"].map(&mut look);
        let (below, among) = (Some(Course::Below(spot("q"))), Some(Course::Among(spot("q"))));
        assert_eq!(told, [None, None, None, below.clone(), below, among]);
        seen.forget(true);
        assert_eq!(seen.note_look(&spot("q/6"), &spot("q"), now), None);
    }

    #[test]
    fn a_pause_ends_a_walk_and_memory_is_bounded() {
        let (mut seen, start) = (Reads::default(), Instant::now());
        seen.note(&spot(""), None, || false, start);
        seen.note(&spot("a"), None, || false, start);
        assert_eq!(seen.note(&spot("b"), None, || false, start + PAUSE_MAX * 2), None);
        let mut large = Reads::default();
        large.note(&spot(""), None, || false, start);
        large.go_on(start + PAUSE_MAX * 2);
        large.note(&spot("a"), None, || false, start + PAUSE_MAX * 2);
        assert!(
            large.note(&spot("b"), None, || false, start + PAUSE_MAX * 2).is_some(),
            "a large directory takes long to read"
        );
        for number in 0..100 {
            seen.note(&spot(&number.to_string()), None, || false, start + PAUSE_MAX * 2);
        }
        assert_eq!(seen.read.0.len(), READS_MAX);
    }
}
