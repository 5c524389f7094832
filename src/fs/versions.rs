//! Old versions of a bucket that keeps them: `FILE@VERSIONID` opens one, and `.versions/` in each directory lists those of
//! the files in it, of deleted ones and of directories below too. Neither is listed; both are read-only.
//!
//! What the store really has under such a name wins. A bucket that keeps no versions has none of this, and costs one
//! request a minute at most, sent when such a name is looked up.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::error::{Error, Meaning, Result};
use crate::format::header::Posix;
use crate::format::key::{BucketName, Prefix};
use crate::store::versions::{ListedVersion, VersionsRequest};
use crate::store::{self, ETag, Key, Location, ObjectHead};
use crate::tree::{Entry, FileKind, Ino, Listing, Object, Place, Sighting};

use super::Fs;

/// The directory of versions.
const DIRECTORY: &str = ".versions";

/// What stands between a file's name and a version's id.
const SEPARATOR: char = '@';

/// How long it is believed whether a bucket keeps versions.
const VERSIONED_TTL: Duration = Duration::from_secs(60);

/// Names that were found to be old versions, and directories of them, that are remembered: one that was forgotten is
/// looked up again.
const NAMES_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// What is known of old versions.
pub(super) struct Known {
    buckets: Mutex<HashMap<BucketName, (bool, Instant)>>,
    names: Mutex<Names>,
}

struct Names {
    /// `FILE@VERSIONID` beside the file, and what it stands for.
    files: LruCache<Location, (Location, String)>,
    /// Real directories whose `.versions` was entered, by their prefix.
    directories: LruCache<(BucketName, String), ()>,
}

impl Default for Known {
    fn default() -> Self {
        let names = Names { files: LruCache::new(NAMES_MAX), directories: LruCache::new(NAMES_MAX) };
        Known { buckets: Mutex::default(), names: Mutex::new(names) }
    }
}

impl Names {
    /// The prefix whose versions lie in a directory, if that is one of versions.
    fn real_prefix(&mut self, bucket: &BucketName, prefix: &str) -> Option<String> {
        let segment = format!("{DIRECTORY}/");
        let starts = prefix.match_indices(&segment).map(|(at, _)| at);
        let mut starts = starts.filter(|at| *at == 0 || prefix[..*at].ends_with('/'));
        let at = starts.find(|at| self.directories.get(&(bucket.clone(), prefix[..*at].to_owned())).is_some())?;
        Some(format!("{}{}", &prefix[..at], &prefix[at + segment.len()..]))
    }

    fn real_file(&mut self, location: &Location) -> Option<(Location, String)> {
        if let Some(found) = self.files.get(location) {
            return Some(found.clone());
        }
        let key = location.key.as_str();
        let (directory, name) = key.split_at(key.rfind('/').map_or(0, |at| at + 1));
        let prefix = self.real_prefix(&location.bucket, directory)?;
        let (file, id) = name.rsplit_once(SEPARATOR)?;
        let key = Key::new(&format!("{prefix}{file}")).ok()?;
        Some((Location { bucket: location.bucket.clone(), key }, id.to_owned()))
    }
}

impl Known {
    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().expect("no panic under this lock")
    }

    fn bucket(&self, bucket: &BucketName) -> Option<bool> {
        let buckets = self.buckets.lock().expect("no panic under this lock");
        buckets.get(bucket).filter(|(_, at)| at.elapsed() < VERSIONED_TTL).map(|(versioned, _)| *versioned)
    }
}

/// Whether a name may be that of an old version, or of the directory of them.
fn is_shaped(name: &str) -> bool {
    name == DIRECTORY || name.split_once(SEPARATOR).is_some_and(|(file, id)| !file.is_empty() && !id.is_empty())
}

impl Fs {
    /// Whether a name that the store does not have may still be an old version's.
    pub(super) fn may_be_version(&self, parent: Ino, name: &str) -> bool {
        if !self.config.versions || !is_shaped(name) {
            return false;
        }
        match self.tree.place(parent) {
            Some(Place::Directory { bucket, .. }) => self.versions.bucket(&bucket) != Some(false),
            _ => false,
        }
    }

    /// What an old version's name leads to, if it is one.
    pub(super) async fn find_version(&self, parent: Ino, name: &str) -> Result<Option<Entry>> {
        let Place::Directory { bucket, prefix } = self.directory_place(parent)? else { return Ok(None) };
        if !self.may_be_version(parent, name)
            || self.versions.names().real_prefix(&bucket, prefix.as_str()).is_some()
            || !self.is_versioned(&bucket).await?
        {
            return Ok(None);
        }
        if name == DIRECTORY {
            self.versions.names().directories.put((bucket, prefix.as_str().to_owned()), ());
            return Ok(self.tree.sight(parent, name, Sighting::Directory));
        }
        let Some((file, id)) = name.rsplit_once(SEPARATOR) else { return Ok(None) };
        let (Ok(own), Ok(key)) = (prefix.file(name), prefix.file(file)) else { return Ok(None) };
        let own = Location { bucket: bucket.clone(), key: own };
        let real = (Location { bucket, key }, id.to_owned());
        self.versions.names().files.put(own.clone(), real);
        match self.head_at(&own).await {
            Ok(head) => Ok(self.tree.sight(parent, name, self.full_sighting(&head, FileKind::File))),
            Err(error) => {
                self.versions.names().files.pop(&own);
                // Stores differ in how they refuse an id that is none.
                if error.kind.is_transient() { Err(error.into()) } else { Ok(None) }
            }
        }
    }

    /// The id of a file's present version, where its bucket keeps versions: a write by this mount does not tell it.
    pub(super) async fn present_version_id(&self, ino: Ino) -> Result<Option<String>> {
        let Place::File(location) = self.place(ino)? else { return Ok(None) };
        if !self.is_versioned(&location.bucket).await? {
            return Ok(None);
        }
        self.settle_name(ino).await?;
        Ok(self.head_at(&location).await?.version_id)
    }

    async fn is_versioned(&self, bucket: &BucketName) -> Result<bool> {
        if let Some(known) = self.versions.bucket(bucket) {
            return Ok(known);
        }
        let versioned = match self.store.is_versioned(bucket).await {
            Ok(versioned) => versioned,
            Err(error) if error.kind.is_transient() => return Err(error.into()),
            Err(error) => {
                log::debug!("bucket {bucket}: whether it keeps versions is not known, so none are shown: {error}");
                false
            }
        };
        let mut buckets = self.versions.buckets.lock().expect("no panic under this lock");
        buckets.insert(bucket.clone(), (versioned, Instant::now()));
        Ok(versioned)
    }

    /// What an old version's name stands for: the object, and which version of it.
    pub(super) fn old_version(&self, location: &Location) -> Option<(Location, String)> {
        self.versions.names().real_file(location)
    }

    /// Whether an inode is an old version, or a directory of them.
    pub(super) fn is_old(&self, ino: Ino) -> bool {
        match self.tree.place(ino) {
            Some(Place::File(location)) => self.old_version(&location).is_some(),
            Some(Place::Directory { bucket, prefix }) => self.versions_prefix(&bucket, &prefix).is_some(),
            Some(Place::Account) | None => false,
        }
    }

    /// The prefix whose versions a directory lists, if it lists versions.
    pub(super) fn versions_prefix(&self, bucket: &BucketName, prefix: &Prefix) -> Option<String> {
        self.versions.names().real_prefix(bucket, prefix.as_str())
    }

    /// Refuses to change an old version, and anything on a read-only mount.
    pub(crate) fn check_changeable(&self, ino: Ino) -> Result<()> {
        self.check_writable()?;
        match self.is_old(ino) {
            true => Err(Error::new(Meaning::ReadOnly, format!("{}: old versions cannot be changed", self.path(ino)))),
            false => Ok(()),
        }
    }

    /// What the store says of a name, which may be an old version's. Its time is when it was stored.
    pub(super) async fn head_at(&self, location: &Location) -> store::Result<ObjectHead> {
        let Some((real, id)) = self.old_version(location) else { return self.store.head(location, None).await };
        let mut head = self.store.head(&real, Some(&id)).await?;
        Posix::clear_times(&mut head.headers.metadata);
        Ok(head)
    }

    /// The names of a directory without those that nobody stored there.
    pub(super) fn visible_children(&self, directory: Ino) -> Vec<(Arc<str>, Entry)> {
        self.visible(directory, self.tree.children(directory))
    }

    /// The same of some of its names.
    pub(super) fn visible(&self, directory: Ino, mut children: Vec<(Arc<str>, Entry)>) -> Vec<(Arc<str>, Entry)> {
        let Some(Place::Directory { bucket, prefix }) = self.tree.place(directory) else { return children };
        let names = self.versions.names();
        let has_directory = names.directories.contains(&(bucket.clone(), prefix.as_str().to_owned()));
        children.retain(|(name, _)| {
            let own = || prefix.file(name).ok().map(|key| Location { bucket: bucket.clone(), key });
            match &**name {
                DIRECTORY => !has_directory,
                name if is_shaped(name) => !own().is_some_and(|own| names.files.contains(&own)),
                _ => true,
            }
        });
        children
    }

    /// A directory was listed: its `.versions` stays, unless the store has something of that name now.
    pub(super) fn keep_versions_directory(&self, bucket: &BucketName, prefix: &Prefix, listing: &mut Listing) {
        let own = (bucket.clone(), prefix.as_str().to_owned());
        let mut names = self.versions.names();
        if !names.directories.contains(&own) {
            return;
        }
        match listing.names.iter().any(|(name, _)| name == DIRECTORY) {
            true => drop(names.directories.pop(&own)),
            false => listing.names.push((DIRECTORY.to_owned(), Sighting::Directory)),
        }
    }

    /// The versions of all files of a prefix, as the names of the directory that shows them.
    pub(super) async fn list_of_versions(&self, directory: Ino, bucket: &BucketName, real: String) -> Result<Listing> {
        // As the files that they are versions of.
        let parent = self.tree.read(directory, |inode| inode.parent_and_name().0);
        self.tree.set_posix(directory, parent.and_then(|parent| self.tree.posix(parent)) == Some(true));
        let mut request = VersionsRequest { prefix: real.clone(), delimited: true, after: None };
        let mut listing = Listing { complete: true, ..Listing::default() };
        loop {
            let page = self.store.list_versions(bucket, &request).await?;
            let named = page.versions.into_iter().filter_map(|version| sighting(version, &real));
            listing.names.extend(named);
            let folded = page.prefixes.iter().filter_map(|prefix| prefix.strip_prefix(&real)?.strip_suffix('/'));
            listing.names.extend(folded.map(|name| (name.to_owned(), Sighting::Directory)));
            request.after = page.next;
            if request.after.is_none() {
                listing.names.retain(|(name, _)| crate::format::key::check_segment(name).is_ok());
                return Ok(listing);
            }
        }
    }
}

/// A version as a name in the directory of versions. Deletions and markers of directories are none.
fn sighting(version: ListedVersion, prefix: &str) -> Option<(String, Sighting)> {
    let file = version.name.key.strip_prefix(prefix).filter(|file| !file.is_empty() && !file.ends_with('/'))?;
    if version.is_delete_marker {
        return None;
    }
    let name = format!("{file}{SEPARATOR}{}", version.name.version_id);
    let object = Object {
        etag: ETag::new(&version.etag),
        size_bytes: version.size_bytes,
        modified: Some(version.modified),
        version_id: Some(version.name.version_id),
        storage_class: None,
        headers: None,
    };
    Some((name, Sighting::Listed(object)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_versions_lead_to_files() {
        let bucket = BucketName::new("bucket").unwrap();
        let known = Known::default();
        let real = |key: &str| {
            let location = Location { bucket: bucket.clone(), key: Key::new(key).unwrap() };
            known.names().real_file(&location).map(|(real, id)| (real.key.to_string(), id))
        };
        assert_eq!(real("d/.versions/f@1"), None, "nobody entered it");
        known.names().directories.put((bucket.clone(), "d/".into()), ());
        let found = |key: &str, id: &str| Some((key.to_owned(), id.to_owned()));
        assert_eq!(real("d/.versions/f@1"), found("d/f", "1"));
        assert_eq!(real("d/.versions/sub/a@b@2"), found("d/sub/a@b", "2"));
        for other in ["d/x.versions/f@1", ".versions/f@1", "d/e/.versions/f@1", "d/f@1", "d/.versions/f"] {
            assert_eq!(real(other), None, "{other}");
        }
    }
}
