//! What pages of a listing tell: the names in one directory, or in all directories of a subtree. Pure.
//!
//! Keys that no path can name are counted and left out. An object `a` beside `a/` is hidden: the directory has the name.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use crate::format::key::check_segment;
use crate::store::{ListPage, ListedObject};
use crate::tree::{Listing, Object, Sighting, Span};

/// Names of unfinished directories that are gathered at most: a larger directory is better listed by itself.
const GATHERED_MAX: usize = 10_000;

/// The names that pages of a listing tell, below one prefix.
pub(super) struct Names {
    prefix: String,
    files: Vec<(String, ListedObject)>,
    directories: HashSet<String>,
    marker: Option<ListedObject>,
    hidden_keys: u64,
    /// The last key of the last page, below the prefix.
    last: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Names {
            prefix,
            files: Vec::new(),
            directories: HashSet::new(),
            marker: None,
            hidden_keys: 0,
            last: String::new(),
        }
    }

    /// The prefix of all keys.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The directory's own object.
    pub(super) fn marker(&self) -> Option<&ListedObject> {
        self.marker.as_ref()
    }

    /// Keys that no path can name.
    pub(super) fn hidden_keys(&self) -> u64 {
        self.hidden_keys
    }

    /// The last key that has come, below the prefix.
    pub(super) fn last(&self) -> &str {
        &self.last
    }

    /// Takes in a page of a listing that folds what is deeper.
    pub(super) fn add(&mut self, page: ListPage) {
        let last = page.objects.last().map(|object| &object.key).max(page.prefixes.last());
        self.last = last.and_then(|key| key.strip_prefix(&self.prefix)).unwrap_or_default().to_owned();
        for object in page.objects {
            self.add_object(object);
        }
        for folded in page.prefixes {
            let name = folded.strip_prefix(&self.prefix).and_then(|name| name.strip_suffix('/'));
            match name.filter(|name| check_segment(name).is_ok()) {
                Some(name) => _ = self.directories.insert(name.to_owned()),
                None => self.hidden_keys += 1,
            }
        }
    }

    fn add_object(&mut self, object: ListedObject) {
        match object.key.strip_prefix(&self.prefix) {
            Some("") => self.marker = Some(object),
            Some(name) if check_segment(name).is_ok() => self.files.push((name.to_owned(), object)),
            _ => self.hidden_keys += 1,
        }
    }

    fn count(&self) -> usize {
        self.files.len() + self.directories.len()
    }

    /// Keys of the newest files; if those are too few, also of markers that directories may have.
    pub(super) fn newest(&self, count: usize) -> Vec<(String, Option<&ListedObject>)> {
        let mut objects: Vec<&ListedObject> = self.files.iter().map(|(_, object)| object).collect();
        objects.sort_by_key(|object| std::cmp::Reverse(object.modified));
        let mut directories: Vec<&String> = self.directories.iter().collect();
        directories.sort();
        let markers = directories.into_iter().map(|name| (format!("{}{name}/", self.prefix), None));
        objects.into_iter().map(|object| (object.key.clone(), Some(object))).chain(markers).take(count).collect()
    }

    /// What the tree is told of the directory, at a time.
    pub(super) fn into_listing(self, complete: bool, now: SystemTime) -> Listing {
        let unchanged = self.newest_age(now).unwrap_or_default();
        Listing { names: self.without_doubtful(complete).into_sightings(), complete, unchanged }
    }

    /// What the pages so far tell for sure; what a later one may change is kept for it.
    pub(super) fn take_certain(&mut self, ended: bool) -> Vec<(String, Sighting)> {
        let span = Span { from: String::new(), last: (!ended).then(|| self.last.clone()) };
        let files = std::mem::take(&mut self.files);
        let (certain, doubtful) = files.into_iter().partition(|(name, _)| span.has(name));
        self.files = doubtful;
        let directories = std::mem::take(&mut self.directories);
        let told = Names { files: certain, directories, ..Names::new(&self.prefix) };
        self.files.retain(|(name, _)| !told.directories.contains(name));
        told.into_sightings()
    }

    /// How long ago the newest file of those that are here was stored.
    pub(super) fn newest_age(&self, now: SystemTime) -> Option<Duration> {
        let times = self.files.iter().map(|(_, object)| object).chain(&self.marker).map(|object| object.modified);
        // A store whose clock is ahead of ours stores what is new to both.
        times.max().map(|newest| now.duration_since(newest).unwrap_or_default())
    }

    /// What the tree is told of the names from one on, which need not be the last ones.
    pub(super) fn into_span(self, from: &str, ended: bool) -> (Span, Vec<(String, Sighting)>) {
        let span = Span { from: from.to_owned(), last: (!ended).then(|| self.last.clone()) };
        (span, self.without_doubtful(ended).into_sightings())
    }

    /// Without files of which a later page may show that their name is a directory's.
    fn without_doubtful(mut self, ended: bool) -> Self {
        if !ended {
            let span = Span { from: String::new(), last: Some(self.last.clone()) };
            self.files.retain(|(name, _)| span.has(name));
        }
        self
    }

    fn into_sightings(self) -> Vec<(String, Sighting)> {
        let directories = self.directories;
        let files = self.files.into_iter().filter(|(name, _)| !directories.contains(name));
        let files: HashMap<String, Sighting> = files.map(|(name, object)| (name, listed(object))).collect();
        files.into_iter().chain(directories.into_iter().map(|name| (name, Sighting::Directory))).collect()
    }
}

fn listed(object: ListedObject) -> Sighting {
    Sighting::Listed(Object {
        etag: object.etag,
        size_bytes: object.size_bytes,
        modified: Some(object.modified),
        version_id: None,
        // The one that all have who name none is not worth its bytes.
        storage_class: object.storage_class.filter(|class| class != "STANDARD"),
        headers: None,
    })
}

/// Where a directory is, seen from a listing that has come so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Its keys are still to come.
    Ahead,
    /// Some of its keys have come; how many in the last page lay in the directory itself, not deeper.
    Inside {
        /// Keys in the directory itself.
        own: usize,
    },
    /// Its keys have come, or were passed over.
    Behind,
}

/// A directory whose keys are coming.
struct Open {
    names: Names,
    /// Keys of it in this page.
    own: usize,
    /// When its first page was asked for.
    since: Instant,
    /// Whether some of its keys were passed over, so that it will not be told.
    partial: bool,
}

/// All names in a directory, as old as the first of the pages that told them.
pub(super) struct Whole {
    pub(super) names: Names,
    pub(super) since: Instant,
}

impl Open {
    fn into_whole(self) -> Option<Whole> {
        let Open { names, since, partial, .. } = self;
        (!partial).then_some(Whole { names, since })
    }
}

/// The directories of a subtree, out of pages of a listing that folds nothing.
pub(super) struct Subtree {
    open: Vec<Open>,
    last_key: String,
    ended: bool,
}

impl Subtree {
    /// The directories below `base`, from the directory `first` on.
    pub(super) fn new(base: &str, first: &str) -> Self {
        let mut subtree = Subtree { open: Vec::new(), last_key: String::new(), ended: false };
        let now = Instant::now();
        subtree.enter(base, now, true);
        let parents = first.match_indices('/').map(|(at, _)| &first[..=at]);
        for parent in parents.filter(|parent| parent.len() > base.len() && parent.len() < first.len()) {
            subtree.enter(parent, now, true);
        }
        subtree
    }

    fn enter(&mut self, prefix: &str, since: Instant, partial: bool) {
        self.open.push(Open { names: Names::new(prefix), own: 0, since, partial });
    }

    /// Takes in the next page, which was asked for at `since`; answers the directories that are known whole now, each
    /// before those that hold it.
    pub(super) fn add(&mut self, page: ListPage, since: Instant) -> Vec<Whole> {
        let mut whole = Vec::new();
        self.open.iter_mut().for_each(|open| open.own = 0);
        if let Some(last) = page.objects.last() {
            self.last_key.clone_from(&last.key);
        }
        for object in page.objects {
            self.leave(&object.key, &mut whole);
            self.place(object, since);
        }
        if page.continuation.is_none() {
            self.ended = true;
            whole.extend(self.open.drain(..).rev().filter_map(Open::into_whole));
        }
        if self.open.iter().map(|open| open.names.count()).sum::<usize>() > GATHERED_MAX {
            for open in &mut self.open {
                (open.names, open.partial) = (Names::new(open.names.prefix()), true);
            }
        }
        whole
    }

    /// Leaves the directories that a key does not lie in: all of theirs have come.
    fn leave(&mut self, key: &str, whole: &mut Vec<Whole>) {
        while let Some(open) = self.open.pop_if(|open| !key.starts_with(open.names.prefix())) {
            whole.extend(open.into_whole());
        }
    }

    /// Puts an object into its directory, which may be one that begins with it.
    fn place(&mut self, object: ListedObject, since: Instant) {
        while let Some(top) = self.open.last_mut() {
            let (done, rest) = object.key.split_at(top.names.prefix().len());
            match rest.split_once('/') {
                Some((name, _)) if check_segment(name).is_ok() => {
                    if !top.partial {
                        top.names.directories.insert(name.to_owned());
                    }
                    let prefix = format!("{done}{name}/");
                    self.enter(&prefix, since, false);
                }
                Some(_) => return top.names.hidden_keys += 1,
                None => {
                    top.own += 1;
                    return if top.partial {
                    } else {
                        top.names.add_object(object)
                    };
                }
            }
        }
    }

    /// Takes the names of a directory that have come, and when the first page of them was asked for; what comes behind
    /// them is passed over. Nothing where they end with those of a deeper directory, which would be passed over as well.
    pub(super) fn take(&mut self, prefix: &str) -> Option<(Names, Instant)> {
        let open = self.open.last_mut().filter(|open| open.names.prefix() == prefix && !open.partial)?;
        open.partial = true;
        let mut names = std::mem::replace(&mut open.names, Names::new(prefix));
        names.last = self.last_key.strip_prefix(prefix).unwrap_or_default().to_owned();
        self.last_key = format!("{prefix}{}", char::MAX);
        Some((names, open.since))
    }

    /// Where what comes next begins: behind the last key that has come or was passed over.
    pub(super) fn last_key(&self) -> &str {
        &self.last_key
    }

    /// Where a directory is.
    pub(super) fn position(&self, prefix: &str) -> Position {
        match self.open.iter().find(|open| open.names.prefix() == prefix) {
            Some(open) if !open.partial => Position::Inside { own: open.own },
            None if !self.ended && prefix > self.last_key.as_str() => Position::Ahead,
            _ => Position::Behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ETag;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::UNIX_EPOCH;

    fn object(key: &str) -> ListedObject {
        ListedObject {
            key: key.to_owned(),
            size_bytes: 1,
            etag: ETag::new("e"),
            modified: UNIX_EPOCH,
            storage_class: None,
        }
    }

    /// All directories that pages of so many keys tell, with the names in them; the keys from `first` on.
    fn told(base: &str, first: &str, keys: &[&str], page_keys: usize) -> Vec<(String, Vec<String>)> {
        let mut subtree = Subtree::new(base, first);
        let keys: Vec<&&str> = keys.iter().filter(|key| **key >= first).collect();
        let mut pages: Vec<_> = keys.chunks(page_keys).collect();
        if pages.is_empty() {
            pages.push(&[]);
        }
        let mut out = Vec::new();
        for (number, keys) in pages.iter().enumerate() {
            let continuation = (number + 1 < pages.len()).then(String::new);
            let objects = keys.iter().map(|key| object(key)).collect();
            let page = ListPage { objects, prefixes: Vec::new(), continuation };
            out.extend(subtree.add(page, Instant::now()).into_iter().map(|whole| whole.names));
        }
        let names = |names: Names| {
            let mut told: Vec<String> = names.into_sightings().into_iter().map(|(name, _)| name).collect();
            told.sort();
            told
        };
        out.into_iter().map(|directory| (directory.prefix().to_owned(), names(directory))).collect()
    }

    #[test]
    fn directories_are_told_once_they_are_whole_children_first() {
        let keys = ["r/a/", "r/a/1", "r/a/b/2", "r/a/b/3", "r/a/c/", "r/d/4", "r/x"];
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for page_keys in 1..8 {
            let told = told("r/", "r/a/", &keys, page_keys);
            let expected = [
                ("r/a/b/".to_owned(), names(&["2", "3"])),
                ("r/a/c/".to_owned(), names(&[])),
                ("r/a/".to_owned(), names(&["1", "b", "c"])),
                ("r/d/".to_owned(), names(&["4"])),
            ];
            assert_eq!(told, expected, "pages of {page_keys}");
        }
        assert_eq!(told("r/", "r/a/c/", &keys, 3).len(), 2, "a directory whose beginning was not seen is not told");
    }

    #[test]
    fn a_key_that_no_path_can_name_hides_nothing_else() {
        let told = told("", "a/", &["a//x", "a/./y", "a/b", "a/c/../z", "a/c/w"], 2);
        let a = (String::from("a/"), vec![String::from("b"), String::from("c")]);
        assert_eq!(told, [(String::from("a/c/"), vec![String::from("w")]), a]);
    }

    #[test]
    fn positions() {
        let mut subtree = Subtree::new("", "b/");
        assert_eq!(subtree.position("b/"), Position::Ahead);
        let objects = ["b/1", "b/2", "c/1", "c/d/1"].map(object).into();
        let page = ListPage { objects, prefixes: Vec::new(), continuation: Some(String::new()) };
        subtree.add(page, Instant::now());
        let inside = |own| Position::Inside { own };
        let found = ["b/", "c/", "c/d/", "d/"].map(|prefix| subtree.position(prefix));
        assert_eq!(found, [Position::Behind, inside(1), inside(1), Position::Ahead]);
        subtree.add(ListPage::default(), Instant::now());
        assert_eq!(subtree.position("d/"), Position::Behind);
    }

    proptest! {
        /// However the pages are cut, each directory is told once, with the names that the keys say.
        #[test]
        fn any_cut_tells_the_same(
            keys in prop::collection::btree_set("[ab.-]/([ab!/]{1,3}/)?[abc]", 1..40),
            page_keys in 1usize..10
        ) {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let first = keys[0].split_inclusive('/').next().expect("not empty");
            let cut = told("", first, &keys, page_keys);
            let prefixes: BTreeSet<&String> = cut.iter().map(|(prefix, _)| prefix).collect();
            prop_assert_eq!(prefixes.len(), cut.len());
            prop_assert_eq!(&cut, &told("", first, &keys, 1000));
            for (prefix, names) in &cut {
                let below = keys.iter().filter_map(|key| key.strip_prefix(prefix.as_str()));
                let named: BTreeSet<&str> = below.filter_map(|rest| rest.split('/').next()).filter(|name| !name.is_empty()).collect();
                prop_assert_eq!(named.into_iter().collect::<Vec<_>>(), names.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }
}
