//! lookup, getattr, forget: a name becomes an inode, from memory if the tree knows, else by as few requests as can be.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use crate::error::{Error, Meaning, Result};
use crate::format::key::{BucketName, Prefix};
use crate::store::{Kind, ListRequest, Location};
use crate::tree::{Answer, Entry, FileKind, Ino, Knowledge, Place, ROOT, Sighting};

use super::names::Names;
use super::{Fs, checked_name};

/// How long a bucket that could not be entered is not asked for again.
const REFUSED_BUCKET_TTL: Duration = Duration::from_secs(60);

/// Names of a page of a listing: a directory of more is not listed for the sake of one of them.
const PAGE_NAMES: usize = 1000;

/// The answer to a lookup.
#[derive(Clone, Debug)]
pub enum Found {
    /// The name leads here; the kernel's lookup is already counted.
    Entry(Entry),
    /// There is no such name, for so long.
    Nothing(Duration),
}

impl Fs {
    /// Answers from memory if it is known there, without waiting.
    pub fn lookup_known(&self, parent: Ino, name: &OsStr) -> Option<Found> {
        let found = match self.tree.answer(parent, name.to_str()?) {
            Answer::Found(entry) if self.is_known(parent, &entry) => Found::Entry(entry),
            Answer::Absent(ttl)
                if self.directory_place(parent).is_ok_and(|place| place != Place::Account)
                    && !self.may_be_version(parent, name.to_str()?) =>
            {
                Found::Nothing(ttl)
            }
            _ => return None,
        };
        Some(self.counted(found))
    }

    /// What `name` in `parent` leads to.
    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Found> {
        let name = checked_name(name)?;
        let _held = self.tree.hold(parent);
        let found = match self.find(parent, name).await? {
            Some(entry) => Found::Entry(entry),
            None => match self.tree.answer(parent, name) {
                Answer::Absent(ttl) => Found::Nothing(ttl),
                _ => Found::Nothing(Duration::ZERO),
            },
        };
        Ok(self.counted(found))
    }

    /// The attributes of an inode that the kernel knows.
    pub async fn getattr(&self, ino: Ino) -> Result<Entry> {
        let gone = || Error::new(Meaning::Stale, format!("inode {:#x}", ino.0));
        let entry = self.tree.entry(ino).ok_or_else(gone)?;
        let detached = self.tree.read(ino, |inode| inode.is_detached()).unwrap_or(true);
        // The root has no name that could be looked for.
        if !entry.ttl.is_zero() || detached || ino == ROOT {
            return Ok(entry);
        }
        let (parent, name) = self.tree.read(ino, |inode| inode.parent_and_name()).ok_or_else(gone)?;
        let _held = self.tree.hold(parent);
        match self.find(parent, &name).await {
            Ok(Some(entry)) if entry.ino == ino => Ok(entry),
            Ok(_) => Err(Error::new(Meaning::Stale, self.path(ino))),
            // What is open stays readable as far as it was read; the store being away is no reason to fail a stat.
            Err(error) if error.store_kind().is_some_and(Kind::is_transient) => {
                self.tree.entry(ino).map(|entry| Entry { ttl: Duration::from_secs(1), ..entry }).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The attributes of an inode, if they are fresh in memory.
    pub fn getattr_known(&self, ino: Ino) -> Option<Entry> {
        self.tree.entry(ino).filter(|entry| !entry.ttl.is_zero())
    }

    /// The kernel has forgotten lookups of an inode.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.tree.forget(ino, lookups);
    }

    /// Counts a lookup of an entry that a listing tells the kernel.
    pub fn remember(&self, ino: Ino) {
        self.tree.remember(ino);
    }

    /// Counts the kernel's lookup, before it is told.
    fn counted(&self, found: Found) -> Found {
        if let Found::Entry(entry) = &found {
            self.tree.remember(entry.ino);
        }
        found
    }

    /// What a name leads to, with attributes; `None` if there is nothing. Does not count a lookup.
    pub(crate) async fn find(&self, parent: Ino, name: &str) -> Result<Option<Entry>> {
        let entry = match self.tree.answer(parent, name) {
            Answer::Found(entry) => Some(entry),
            Answer::Absent(_) => None,
            Answer::Unknown => self.learn(parent, name).await?,
        };
        match entry {
            Some(entry) => self.with_attributes(parent, name, entry).await,
            None if self.directory_place(parent)? == Place::Account => self.probe_bucket(parent, name).await,
            None => self.find_version(parent, name).await,
        }
    }

    /// Asks the store for a name that the tree does not know.
    async fn learn(&self, parent: Ino, name: &str) -> Result<Option<Entry>> {
        let place = self.directory_place(parent)?;
        if !self.is_large(parent) {
            self.load_page(parent, self.tree.child(parent, name).is_some()).await?;
        }
        match (self.tree.answer(parent, name), place) {
            (Answer::Found(entry), _) => Ok(Some(entry)),
            (Answer::Unknown, Place::Directory { bucket, prefix }) if self.is_large(parent) => {
                self.one_at_a_time(parent, self.look_around(parent, name, bucket, prefix)).await
            }
            (Answer::Absent(_) | Answer::Unknown, _) => {
                Ok(self.tree.child(parent, name).and_then(|ino| self.tree.entry(ino)))
            }
        }
    }

    /// Whether a directory is not worth being listed for the sake of one name.
    fn is_large(&self, directory: Ino) -> bool {
        match self.tree.knowledge(directory) {
            Knowledge::Large => true,
            Knowledge::Outdated => self.tree.count(directory) > PAGE_NAMES,
            Knowledge::Complete | Knowledge::Unknown => false,
        }
    }

    /// Asks for a name of a large directory and for those that follow it, which are often looked up next.
    async fn look_around(&self, parent: Ino, name: &str, bucket: BucketName, prefix: Prefix) -> Result<Option<Entry>> {
        // Somebody else may have asked meanwhile.
        if let Answer::Found(entry) = self.tree.answer(parent, name) {
            return Ok(Some(entry));
        }
        let request = ListRequest {
            prefix: prefix.as_str().to_owned(),
            delimited: true,
            start_after: Some(format!("{prefix}{}", just_before(name))).filter(|after| !after.is_empty()),
            keys_max: self.tree.names_wanted(parent, name),
            ..ListRequest::default()
        };
        let known = || self.tree.child(parent, name).and_then(|ino| self.tree.entry(ino));
        let is_known = known().is_some() || self.tree.knowledge(parent) == Knowledge::Outdated;
        let asked = async {
            let page = self.store.list(&bucket, &request).await?;
            let ended = page.continuation.is_none();
            let mut names = Names::new(prefix.as_str());
            names.add(page);
            Ok(names.into_span(name, ended))
        };
        self.tree.begin_listing(parent);
        let (told, failed) = match self.unless_silent(parent, is_known, asked).await {
            Some(Ok(told)) => (Some(told), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let certain =
            told.as_ref().is_none_or(|(span, names)| span.has(name) || names.iter().any(|(told, _)| told == name));
        self.tree.end_span(parent, told);
        self.tell_kernel();
        match failed {
            Some(error) => Err(error),
            None if certain => Ok(known()),
            None => self.probe(parent, name, bucket, prefix).await,
        }
    }

    /// Asks for one name of a large directory: as a file and as a directory, at once.
    async fn probe(&self, parent: Ino, name: &str, bucket: BucketName, prefix: Prefix) -> Result<Option<Entry>> {
        let key = prefix.file(name).map_err(|why| super::bad_name(name, why))?;
        let below = ListRequest { prefix: format!("{key}/"), keys_max: Some(1), ..ListRequest::default() };
        let location = Location { bucket: bucket.clone(), key };
        let (head, below) = tokio::join!(self.store.head(&location, None), self.store.list(&bucket, &below));
        let below = below?;
        if !below.objects.is_empty() {
            return Ok(self.tree.sight(parent, name, Sighting::Directory));
        }
        match head {
            Ok(head) => Ok(self.tree.sight(parent, name, self.full_sighting(&head, FileKind::File))),
            Err(error) if error.kind == Kind::NotFound => {
                self.tree.sight_absent(parent, name);
                // What is not stored yet is there all the same.
                Ok(self.tree.child(parent, name).and_then(|ino| self.tree.entry(ino)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A bucket that is not in the account's list may still be entered by its name.
    async fn probe_bucket(&self, parent: Ino, name: &str) -> Result<Option<Entry>> {
        let Ok(bucket) = BucketName::new(name) else { return Ok(None) };
        let refused = self.refused_buckets.lock().expect("no panic under this lock").get(&bucket).copied();
        if refused.is_some_and(|at| at.elapsed() < REFUSED_BUCKET_TTL) {
            return Ok(None);
        }
        match self.store.head_bucket(&bucket).await {
            Ok(_) => Ok(self.tree.sight(parent, name, Sighting::Bucket { created: None })),
            Err(error) if matches!(error.kind, Kind::NoSuchBucket | Kind::NotFound | Kind::AccessDenied) => {
                log::debug!("bucket {bucket} cannot be entered: {error}");
                self.refused_buckets.lock().expect("no panic under this lock").insert(bucket, Instant::now());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets that a bucket could not be entered.
    pub(crate) fn forget_refusal(&self, bucket: &BucketName) {
        self.refused_buckets.lock().expect("no panic under this lock").remove(bucket);
    }
}

/// A string that sorts before a name and behind most that sort before it.
fn just_before(name: &str) -> String {
    let mut characters = name.chars();
    match characters.next_back() {
        Some(last @ '!'..='~') => format!("{}{}~", characters.as_str(), char::from(last as u8 - 1)),
        _ => characters.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_begins_just_before_a_name_shows_it() {
        for name in ["a", "f00123", "!", " ", "x ", "\u{e9}", "a/", "b0", "~"] {
            assert!(just_before(name).as_str() < name, "{name:?}");
        }
        assert!(just_before("f00123").as_str() > "f00122");
    }
}
