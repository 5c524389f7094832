//! The names in one directory, and how far they are known.
//!
//! A directory is *complete* when a listing (or its creation by us) has told every name in it; then a name that is
//! not here does not exist. Local changes made while a listing is under way outrank that listing: see
//! [`Directory::touch`].

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inode::Ino;
use super::span::Spans;

/// The names in a directory.
#[derive(Debug, Default)]
pub struct Directory {
    /// Known names, in the order in which S3 sorts.
    pub(super) names: BTreeMap<Arc<str>, Ino>,
    /// Whether all names were told; they may be outdated.
    pub(super) complete: bool,
    /// When a listing last told all names; `None` if the store is to be asked again.
    pub(super) listed: Option<Instant>,
    /// What is known of parts of it.
    pub(super) spans: Spans,
    /// Whether it has more names than one page: single names are then asked for by themselves.
    pub(super) large: bool,
    /// Whether its files carry POSIX metadata; `None` while nobody has looked.
    pub(super) posix: Option<bool>,
    /// Keys below it that no path can name.
    pub(super) hidden_keys: u64,
    /// How many verbs are at work in it: none of its names may be forgotten between being found and being used.
    pub(super) held: u32,
    /// For how long it has not changed, as far as listings tell, when it was last listed.
    pub(super) unchanged: Duration,
    /// When a listing last told a change of its names.
    same_since: Option<Instant>,
    /// How often names of it were forgotten, or how fresh they are.
    pub(super) losses: u64,
    /// Until when the kernel may believe of some names that they are not there.
    pub(super) denied_until: Option<Instant>,
    /// When this mount last changed a name in it, or made it.
    changed: Option<Instant>,
    /// How many listings are under way.
    listings: u32,
    /// Names that changed here while a listing was under way.
    touched: HashSet<Arc<str>>,
}

impl Directory {
    /// An empty directory all of whose names are known.
    pub(super) fn created(now: Instant) -> Self {
        Directory { complete: true, listed: Some(now), changed: Some(now), ..Directory::default() }
    }

    /// Notes that a name was changed by this mount.
    pub(super) fn touch(&mut self, name: &Arc<str>) {
        self.changed = Some(Instant::now());
        if self.listings > 0 {
            self.touched.insert(name.clone());
        }
    }

    /// A listing has told its names: whether they are others than were known, and how long ago its newest object was
    /// stored.
    pub(super) fn note_listed(&mut self, now: Instant, changed: bool, newest_age: Duration) {
        if changed {
            self.same_since = Some(now);
        }
        let same = self.same_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.unchanged = newest_age.max(same);
    }

    /// Not all of its names are known any more.
    pub(super) fn forget_listing(&mut self) {
        self.complete = false;
        self.losses += 1;
        self.listed = None;
        self.spans.clear();
    }

    /// Whether this mount changed a name in it at that time or later.
    pub(super) fn changed_since(&self, since: Instant) -> bool {
        self.changed.is_some_and(|at| at >= since)
    }

    /// A listing starts: from now on touched names are remembered.
    pub(super) fn begin_listing(&mut self) {
        self.listings += 1;
    }

    /// A listing has ended, with an answer or without.
    pub(super) fn end_listing(&mut self) {
        self.listings = self.listings.saturating_sub(1);
        if self.listings == 0 {
            self.touched.clear();
        }
    }

    /// Whether this mount changed the name while the listing was under way.
    pub(super) fn is_touched(&self, name: &str) -> bool {
        self.touched.contains(name)
    }
}
