//! Attributes: whether a directory's files carry POSIX metadata, and if so, a HEAD for each that is not yet known.
//!
//! What a listing means (DESIGN "attrs"): a directory whose marker carries POSIX metadata is a POSIX directory; a
//! bucket's root, which has no marker, is judged by up to three of its newest files, or of its directories' markers.

use std::time::Duration;

use crate::error::Result;
use crate::format::header::Posix;
use crate::format::key::{BucketName, Prefix};
use crate::store::{Key, Kind, ListPage, ListedObject, Location, ObjectHead};
use crate::tree::{Entry, FileKind, Ino, Place, ROOT, Sighting};

use super::attr::remembered;
use super::names::Names;
use super::{Attrs, Fs};

/// Objects of a bucket's root that are looked at to judge whether its files carry POSIX metadata.
const JUDGES_MAX: usize = 3;

/// Within a second of its last change an object can change again without showing it: what is younger than this is asked
/// for again by the next mount.
const SETTLED_AGE: Duration = Duration::from_secs(2);

/// How long the start of a mount waits for what can be learned later as well.
const AHEAD_MAX: Duration = Duration::from_secs(2);

impl Fs {
    /// Judges the root of a bucket, by the page that showed at the start that the store answers: nobody waits for it
    /// later. What the page tells of names is too old by the time that somebody asks for them.
    pub(crate) async fn judge_ahead(&self, page: Option<ListPage>) {
        let (Some(page), Place::Directory { bucket, prefix }) = (page, &self.config.root) else { return };
        let mut names = Names::new(prefix.as_str());
        names.add(page);
        // What is empty now may get files that tell more.
        if self.config.attrs != Attrs::Auto || prefix.marker().is_some() || names.newest(1).is_empty() {
            return;
        }
        match tokio::time::timeout(AHEAD_MAX, self.judge_root(bucket, &names)).await {
            Ok(Ok(posix)) => self.tree.set_posix(ROOT, posix),
            Ok(Err(error)) => log::debug!("what the root's files carry is not known: {error}"),
            Err(_) => log::debug!("what the root's files carry takes too long to learn"),
        }
    }

    /// Finds out whether a directory's files carry POSIX metadata.
    pub(super) async fn judge(
        &self,
        directory: Ino,
        bucket: &BucketName,
        prefix: &Prefix,
        names: &Names,
    ) -> Result<()> {
        let posix = match (self.judged(directory, prefix, names), names.marker(), prefix.marker()) {
            (Some(posix), _, _) => posix,
            (None, Some(marker), Some(key)) => {
                self.judge_marker(directory, &Location { bucket: bucket.clone(), key }, marker).await?
            }
            (None, _, _) => self.judge_root(bucket, names).await?,
        };
        if prefix.marker().is_some() && names.marker().is_none() && self.config.attrs == Attrs::Auto {
            self.tree.note_no_marker(directory);
        }
        self.tree.set_posix(directory, posix);
        Ok(())
    }

    /// Whether a directory's files carry POSIX metadata, if that is known without asking the store.
    pub(super) fn judged(&self, directory: Ino, prefix: &Prefix, names: &Names) -> Option<bool> {
        match self.config.attrs {
            Attrs::List => return Some(false),
            Attrs::Full => return Some(true),
            Attrs::Auto => {}
        }
        match names.marker() {
            Some(marker) if prefix.marker().is_some() => {
                let known = self.tree.read(directory, |inode| {
                    let object = inode.object.as_ref().filter(|object| object.headers.is_some());
                    inode.local || object.is_some_and(|object| object.modified.is_none_or(|at| at == marker.modified))
                });
                self.tree.posix(directory).filter(|_| known == Some(true))
            }
            None if prefix.marker().is_some() => Some(false),
            _ => self.tree.posix(directory),
        }
    }

    async fn judge_marker(&self, directory: Ino, marker: &Location, listed: &ListedObject) -> Result<bool> {
        let ListedObject { etag, size_bytes, modified, .. } = listed;
        if let Some(told) = self.data.attributes().find(marker, etag, *size_bytes, *modified).await {
            self.tree.note_remembered(directory, self.attr_of(&told, FileKind::Directory));
            return Ok(told.posix.is_some());
        }
        match self.store.head(marker, None).await {
            Ok(head) => {
                self.remember_told(marker, &head).await;
                let sighting = self.full_sighting(&head, FileKind::Directory);
                if let Sighting::Full(attr, object) = sighting {
                    self.tree.note_marker(directory, attr, object);
                }
                Ok(Posix::read(&head.headers.metadata).is_some())
            }
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn judge_root(&self, bucket: &BucketName, names: &Names) -> Result<bool> {
        let judged = names.newest(JUDGES_MAX).into_iter().map(|(key, listed)| async move {
            let Ok(key) = Key::new(&key) else { return Ok(false) };
            let location = Location { bucket: bucket.clone(), key };
            if let Some(ListedObject { etag, size_bytes, modified, .. }) = listed
                && let Some(told) = self.data.attributes().find(&location, etag, *size_bytes, *modified).await
            {
                return Ok(told.posix.is_some());
            }
            let head = match self.store.head(&location, None).await {
                Ok(head) => head,
                Err(error) if error.kind.is_transient() => return Err(error),
                // Nothing is there, or nothing that may be read.
                Err(_) => return Ok(false),
            };
            let is_posix = Posix::read(&head.headers.metadata).is_some();
            if is_posix {
                self.remember_told(&location, &head).await;
            }
            Ok(is_posix)
        });
        Ok(futures_util::future::try_join_all(judged).await?.contains(&true))
    }

    /// Keeps what a HEAD told for later mounts.
    async fn remember_told(&self, location: &Location, head: &ObjectHead) {
        let age = self.clock.now().duration_since(head.modified).unwrap_or_default();
        if age >= SETTLED_AGE {
            self.data.attributes().note(location, remembered(head)).await;
        }
    }

    /// What a former mount was told of the version that an entry is, as the listing shows it.
    async fn remembered_entry(&self, entry: &Entry, location: &Location) -> Option<Entry> {
        let object = self.tree.read(entry.ino, |inode| inode.object.clone())??;
        let found = self.data.attributes().find(location, &object.etag, object.size_bytes, object.modified?);
        let attr = self.attr_of(&found.await?, entry.attr.kind);
        self.tree.note_remembered(entry.ino, attr)
    }

    /// Whether an entry's attributes are all known as far as its directory asks for it.
    pub(crate) fn is_known(&self, parent: Ino, entry: &Entry) -> bool {
        if self.tree.posix(parent) != Some(true) {
            return true;
        }
        self.tree.read(entry.ino, |inode| inode.local || inode.posix_known()).unwrap_or(true)
    }

    /// The entry with its attributes: in a POSIX directory, from one HEAD per version ever.
    pub(crate) async fn with_attributes(&self, parent: Ino, name: &str, entry: Entry) -> Result<Option<Entry>> {
        if self.is_known(parent, &entry) {
            return Ok(Some(entry));
        }
        let Some(location) = self.tree.place(entry.ino).and_then(|place| place.location()) else {
            return Ok(Some(entry));
        };
        // What was an old version's is told of by another name.
        let is_present = self.old_version(&location).is_none();
        if is_present && let Some(entry) = self.remembered_entry(&entry, &location).await {
            return Ok(Some(entry));
        }
        match self.head_at(&location).await {
            Ok(head) => {
                if is_present {
                    self.remember_told(&location, &head).await;
                }
                Ok(self.tree.sight(parent, name, self.full_sighting(&head, entry.attr.kind)))
            }
            Err(error) if error.kind == Kind::NotFound && entry.attr.kind == FileKind::Directory => {
                self.tree.update(entry.ino, |inode| inode.set_attributes_known());
                Ok(Some(entry))
            }
            Err(error) if error.kind == Kind::NotFound => {
                self.tree.sight_absent(parent, name);
                Ok(None)
            }
            // An object that may be listed and not read still has a name and a size.
            Err(error) if error.kind == Kind::AccessDenied => Ok(Some(entry)),
            Err(error) => Err(error.into()),
        }
    }
}
