//! A file's content as a list of extents: where each byte of it comes from. Pure.
//!
//! The list covers the file from its first byte to its last, in order, without gaps or overlaps, and neighbours that
//! continue each other are one extent. Writes, truncation and copies are edits of this list.

use std::ops::Range;
use std::sync::Arc;

use super::Stored;

/// Where the bytes of an extent come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A stored version, from this offset on.
    Object(Arc<Stored>, u64),
    /// The local staging file, at the file's own offsets.
    Staged,
    /// Nowhere: zeros.
    Hole,
}

impl Source {
    /// The same source, `by` bytes further on.
    fn advanced(&self, by: u64) -> Source {
        match self {
            Source::Object(stored, offset) => Source::Object(stored.clone(), offset + by),
            other => other.clone(),
        }
    }

    /// Whether `next` goes on where this ends, `length` bytes on.
    fn continues(&self, length: u64, next: &Source) -> bool {
        match (self, next) {
            (Source::Object(a, from), Source::Object(b, on)) => Arc::ptr_eq(a, b) && from + length == *on,
            (Source::Staged, Source::Staged) | (Source::Hole, Source::Hole) => true,
            _ => false,
        }
    }
}

/// A range of the file and its source.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Bytes of the file, end exclusive; never empty.
    pub range: Range<u64>,
    /// Where they come from.
    pub source: Source,
}

impl Extent {
    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn clipped(&self, to: &Range<u64>) -> Option<Extent> {
        let start = self.range.start.max(to.start);
        let end = self.range.end.min(to.end);
        let source = self.source.advanced(start.saturating_sub(self.range.start));
        (start < end).then_some(Extent { range: start..end, source })
    }
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub struct Extents {
    list: Vec<Extent>,
}

impl Extents {
    /// All of a stored version.
    pub fn whole(stored: Arc<Stored>) -> Self {
        let size_bytes = stored.version.size_bytes;
        let mut extents = Extents::default();
        extents.put(0..size_bytes, Source::Object(stored, 0));
        extents
    }

    /// The file's length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.list.last().map_or(0, |extent| extent.range.end)
    }

    /// The extents in order.
    pub fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.list.iter()
    }

    /// The extents of a range, cut to it. What lies beyond the file's end is left out.
    pub fn slice(&self, range: &Range<u64>) -> Vec<Extent> {
        let first = self.list.partition_point(|extent| extent.range.end <= range.start);
        let within = self.list[first..].iter().take_while(|extent| extent.range.start < range.end);
        within.filter_map(|extent| extent.clipped(range)).collect()
    }

    /// Replaces a range by another source, which begins with the range's first byte. A gap behind the old end becomes
    /// a hole.
    pub fn put(&mut self, range: Range<u64>, source: Source) {
        if range.is_empty() {
            return;
        }
        let size_bytes = self.size_bytes();
        let mut list = Vec::with_capacity(self.list.len() + 3);
        list.extend(self.list.iter().filter_map(|extent| extent.clipped(&(0..range.start))));
        if size_bytes < range.start {
            list.push(Extent { range: size_bytes..range.start, source: Source::Hole });
        }
        list.push(Extent { range: range.clone(), source });
        list.extend(self.list.iter().filter_map(|extent| extent.clipped(&(range.end..u64::MAX))));
        self.list = coalesced(list);
    }

    /// Cuts the file, or lengthens it by a hole.
    pub fn truncate(&mut self, size_bytes: u64) {
        let old = self.size_bytes();
        if size_bytes > old {
            self.put(old..size_bytes, Source::Hole);
        } else {
            self.list = self.list.iter().filter_map(|extent| extent.clipped(&(0..size_bytes))).collect();
        }
    }

    /// The version that this is all of, and nothing else.
    pub fn as_whole(&self) -> Option<&Arc<Stored>> {
        match self.list.as_slice() {
            [Extent { range, source: Source::Object(stored, 0) }] if range.end == stored.version.size_bytes => {
                Some(stored)
            }
            _ => None,
        }
    }

    /// The version that this begins with, from its first byte on, and the staged bytes that follow; nothing else.
    pub fn as_grown(&self) -> Option<(&Arc<Stored>, Range<u64>)> {
        match self.list.as_slice() {
            [Extent { source: Source::Object(stored, 0), .. }, Extent { range, source: Source::Staged }] => {
                Some((stored, range.clone()))
            }
            _ => None,
        }
    }

    /// The same content, with one version's bytes now found in another.
    pub fn moved(&self, from: &Arc<Stored>, to: &Arc<Stored>) -> Extents {
        let mut list = self.list.clone();
        for extent in &mut list {
            if let Source::Object(stored, _) = &mut extent.source
                && Arc::ptr_eq(stored, from)
            {
                *stored = to.clone();
            }
        }
        Extents { list }
    }

    /// The same content after it was stored: what came from anywhere in `from` now lies in `to` where it lies in the
    /// file.
    pub fn taken_over(&self, from: &Arc<Stored>, to: &Arc<Stored>) -> Extents {
        let mut list = self.list.clone();
        for Extent { range, source } in &mut list {
            if matches!(source, Source::Object(stored, _) if Arc::ptr_eq(stored, from)) {
                *source = Source::Object(to.clone(), range.start);
            }
        }
        Extents { list: coalesced(list) }
    }
}

fn coalesced(list: Vec<Extent>) -> Vec<Extent> {
    let mut out: Vec<Extent> = Vec::with_capacity(list.len());
    for extent in list {
        match out.last_mut() {
            Some(last) if last.source.continues(last.length(), &extent.source) => last.range.end = extent.range.end,
            _ => out.push(extent),
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::tests::stored;
    use proptest::prelude::*;

    /// An edit, and what it does to a model in which each byte is its own origin.
    #[derive(Clone, Debug)]
    pub(in crate::data) enum Edit {
        Write(u64, u64),
        Truncate(u64),
        Copy(u64, u64, u64),
    }

    pub(in crate::data) fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let edit = prop_oneof![
            (0u64..300, 1u64..80).prop_map(|(at, length)| Edit::Write(at, length)),
            (0u64..300).prop_map(Edit::Truncate),
            (0u64..300, 1u64..80, 0u64..120).prop_map(|(at, length, from)| Edit::Copy(at, length, from)),
        ];
        proptest::collection::vec(edit, 0..12)
    }

    /// Which source, and which byte of it. Staged bytes and holes are told apart from a version's.
    pub(in crate::data) type Origin = (u8, u64);

    pub(in crate::data) fn origins(extents: &Extents, base: &Arc<Stored>) -> Vec<Origin> {
        let of = |extent: &Extent| {
            let start = extent.range.start;
            let source = extent.source.clone();
            let base = base.clone();
            extent.range.clone().map(move |at| match &source {
                Source::Object(stored, from) => (if Arc::ptr_eq(stored, &base) { 1 } else { 2 }, from + at - start),
                Source::Staged => (3, at),
                Source::Hole => (0, 0),
            })
        };
        extents.iter().flat_map(of).collect()
    }

    pub(in crate::data) fn apply(edits: &[Edit], base: &Arc<Stored>, other: &Arc<Stored>) -> (Extents, Vec<Origin>) {
        let mut extents = Extents::whole(base.clone());
        let mut model: Vec<Origin> = (0..base.version.size_bytes).map(|at| (1, at)).collect();
        for edit in edits {
            let (at, length, origin): (u64, u64, Box<dyn Fn(u64) -> Origin>) = match *edit {
                Edit::Truncate(size) => {
                    extents.truncate(size);
                    model.resize(size as usize, (0, 0));
                    continue;
                }
                Edit::Write(at, length) => {
                    extents.put(at..at + length, Source::Staged);
                    (at, length, Box::new(move |index| (3, at + index)))
                }
                Edit::Copy(at, length, from) => {
                    extents.put(at..at + length, Source::Object(other.clone(), from));
                    (at, length, Box::new(move |index| (2, from + index)))
                }
            };
            if model.len() < (at + length) as usize {
                model.resize((at + length) as usize, (0, 0));
            }
            for index in 0..length {
                model[(at + index) as usize] = origin(index);
            }
        }
        (extents, model)
    }

    /// A part of the base that moved within the file lies, once stored, where it lies in the file.
    #[test]
    fn a_stored_version_takes_over_where_things_lie_in_the_file() {
        let (base, made) = (stored("base", 100), stored("made", 80));
        let mut extents = Extents::default();
        extents.put(0..50, Source::Object(base.clone(), 30));
        extents.put(50..60, Source::Staged);
        extents.put(60..80, Source::Object(base.clone(), 0));
        let before = origins(&extents, &base)[50];
        let origins = origins(&extents.taken_over(&base, &made), &made);
        assert!((0..50).chain(60..80).all(|at| origins[at] == (1, at as u64)), "{origins:?}");
        assert_eq!(origins[50], before);
    }

    proptest! {
        #[test]
        fn edits_do_what_they_do_to_bytes(size in 0u64..250, edits in edits(), cut in (0u64..320, 0u64..320)) {
            let (base, other) = (stored("base", size), stored("other", 400));
            let (extents, model) = apply(&edits, &base, &other);
            prop_assert_eq!(origins(&extents, &base), model.clone());
            let range = cut.0.min(cut.1)..cut.0.max(cut.1);
            let sliced = Extents { list: extents.slice(&range) };
            let end = (range.end as usize).min(model.len());
            prop_assert_eq!(origins(&sliced, &base), &model[(range.start as usize).min(end)..end]);
            for pair in extents.list.windows(2) {
                prop_assert_eq!(pair[0].range.end, pair[1].range.start);
                prop_assert!(!pair[0].source.continues(pair[0].length(), &pair[1].source), "not coalesced");
            }
        }
    }
}
