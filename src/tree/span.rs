//! Parts of a large directory that were listed by themselves: within one, a name that is not here does not exist.
//!
//! The store sorts a directory `a` as `a/`, behind `a.b`: a span has a name only if it has both that name and its
//! directory.

use std::ops::Bound;
use std::time::{Duration, Instant};

use super::inode::Ino;
use super::sighting::Sighting;
use super::table::Table;
use super::{Ttl, remaining};

/// Spans that are remembered of one directory.
const SPANS_MAX: usize = 16;

/// Names asked for at once, after so many that were asked for in order.
const NAMES_WANTED: [u32; 4] = [16, 16, 128, 1000];

/// All names from one on, as far as a page of a listing went.
#[derive(Debug)]
pub struct Span {
    /// The first name that it can tell.
    pub from: String,
    /// The last key that it told, below the directory; `None` at the directory's end.
    pub last: Option<String>,
}

impl Span {
    /// Whether a name that the span does not show is not there.
    pub fn has(&self, name: &str) -> bool {
        let before_end = |last: &String| name.bytes().chain([b'/']).le(last.bytes());
        *self.from <= *name && self.last.as_ref().is_none_or(before_end)
    }
}

/// What spans say of a directory.
#[derive(Debug, Default)]
pub(super) struct Spans {
    told: Vec<(Span, Instant)>,
    /// The name that was asked for last, and how many before it each came behind the one before.
    asked: (String, usize),
}

impl Spans {
    /// For how long it may still be believed that a name is not there.
    pub(super) fn absent(&self, name: &str, ttl: &Ttl, unchanged: Duration) -> Duration {
        let telling = self.told.iter().filter(|(span, _)| span.has(name));
        telling.map(|(_, at)| remaining(*at, ttl.of(unchanged))).max().unwrap_or_default()
    }

    /// How many names should be asked for, from this one on: few, until they are asked for in order.
    pub(super) fn names_wanted(&mut self, name: &str) -> u32 {
        let (last, run) = &self.asked;
        let run = if !last.is_empty() && *name > **last { run + 1 } else { 0 };
        self.asked = (name.to_owned(), run);
        NAMES_WANTED[run.min(NAMES_WANTED.len() - 1)]
    }

    pub(super) fn clear(&mut self) {
        self.told.clear();
    }

    fn add(&mut self, span: Span, now: Instant) {
        if self.told.len() == SPANS_MAX {
            self.told.remove(0);
        }
        self.told.push((span, now));
    }
}

impl Table {
    /// Takes in a span of a directory's names, but for those that this mount changed since it was asked for.
    pub(super) fn take_span(&mut self, ino: Ino, span: Span, names: Vec<(String, Sighting)>) {
        let now = Instant::now();
        let Some(directory) = self.directory(ino) else { return };
        let listed: std::collections::HashSet<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
        let within = directory.names.range::<str, _>((Bound::Included(&*span.from), Bound::Unbounded)).take_while(
            |(name, _)| {
                // Behind the last key no name can be in the span.
                span.last.as_ref().is_none_or(|last| ***name <= **last)
            },
        );
        let gone = within.filter(|(name, child)| {
            span.has(name) && !listed.contains(&***name) && !directory.is_touched(name) && !self.holds_local(**child)
        });
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.lose(ino, &name);
        }
        for (name, sighting) in names {
            if !self.directory(ino).is_some_and(|directory| directory.is_touched(&name)) {
                self.sight(ino, &name, sighting, now);
            }
        }
        if let Some(directory) = self.directory_mut(ino) {
            directory.spans.add(span, now);
        }
        self.recent.put(ino, ());
        self.shrink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_order_are_asked_for_in_ever_larger_pages() {
        let mut spans = Spans::default();
        let wanted = ["a", "c", "d", "x", "z", "b", "c"].map(|name| spans.names_wanted(name));
        assert_eq!(wanted, [16, 16, 128, 1000, 1000, 16, 16]);
    }

    #[test]
    fn a_span_has_the_names_that_its_keys_leave_no_room_for() {
        let span = |last: Option<&str>| Span { from: "b".to_owned(), last: last.map(str::to_owned) };
        let table = [
            (Some("f"), "c", true),
            (Some("f"), "a", false),
            (Some("f"), "b", true),
            (Some("f"), "f", false),
            (Some("f/"), "f", true),
            (Some("c.x"), "c", false),
            (Some("c0"), "c", true),
            (Some("f"), "g", false),
            (None, "z", true),
            (None, "a", false),
        ];
        for (last, name, expected) in table {
            assert_eq!(span(last).has(name), expected, "{name} up to {last:?}");
        }
    }
}
