//! opendir, readdir, and how a directory is learned from the store: pages of a listing, and where its files carry
//! POSIX metadata, a HEAD for each that is not yet known.
//!
//! What a listing means (DESIGN "attrs"): a directory whose marker carries POSIX metadata is a POSIX directory; a
//! bucket's root, which has no marker, is judged by up to three of its newest files, or of its directories' markers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use crate::error::{Error, Result};
use crate::format::header::Posix;
use crate::format::key::{BucketName, Prefix};
use crate::store::{Key, Kind, ListRequest, Location, ObjectHead};
use crate::tree::{Entry, FileKind, Ino, Knowledge, Listing, Place, Sighting};

use super::files::Handle;
use super::flat::Step;
use super::names::Names;
use super::open::HandleId;
use super::{Attrs, Fs, Notice};

/// Objects of a bucket's root that are looked at to judge whether its files carry POSIX metadata.
const JUDGES_MAX: usize = 3;

/// How long the store may take to confirm a listing that we still have, before the old one is shown.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long a store that did not answer is not asked again about names that are known: what is done to them goes on
/// at once meanwhile.
const SILENCE: Duration = Duration::from_secs(30);

/// The names of a directory as they were when it was opened.
pub type Snapshot = Arc<Vec<(Arc<str>, Entry)>>;

/// How much of a directory is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    FirstPage,
    All,
}

impl Fs {
    /// Opens a directory; its names are read when they are first asked for, and stay the same for this handle.
    pub fn open_directory(&self) -> HandleId {
        self.files.add_handle(Handle::Directory { snapshot: None })
    }

    /// The names of an open directory; `rewound` reads them again, as rewinddir does.
    pub async fn read_directory(self: &Arc<Self>, ino: Ino, id: HandleId, rewound: bool) -> Result<Snapshot> {
        if let Handle::Directory { snapshot: Some(snapshot) } = self.files.handle(id)?
            && !rewound
        {
            return Ok(snapshot);
        }
        let snapshot = self.list(ino).await?;
        self.files.set_snapshot(id, snapshot.clone());
        Ok(snapshot)
    }

    /// Closes a directory.
    pub fn close_directory(&self, id: HandleId) {
        self.files.take_handle(id);
    }

    /// All names of a directory, with attributes.
    pub async fn list(self: &Arc<Self>, directory: Ino) -> Result<Snapshot> {
        let _held = self.tree.hold(directory);
        let step = self.step(directory)?;
        if self.tree.knowledge(directory) != Knowledge::Complete {
            self.load(directory, Extent::All, step.as_ref(), false).await?;
        }
        self.run_ahead(step);
        for (directory, name) in self.tree.take_unwanted() {
            self.notify(Notice::Entry(directory, name));
        }
        let entries = self.visible_children(directory);
        let known = stream::iter(entries).map(|(name, entry)| async move {
            let entry = self.with_attributes(directory, &name, entry).await?;
            Ok::<_, Error>(entry.map(|entry| (name, entry)))
        });
        let known: Vec<_> = known.buffered(self.config.requests_max).collect().await;
        let known: Result<Vec<_>> = known.into_iter().filter_map(Result::transpose).collect();
        Ok(Arc::new(known?))
    }

    /// Learns the first page of a directory, which is all of most directories, for the sake of a name that is known
    /// from before, or not.
    pub(crate) async fn load_page(&self, directory: Ino, is_known: bool) -> Result<()> {
        self.load(directory, Extent::FirstPage, None, is_known).await
    }

    /// Learns a directory. Many who ask at once cost one listing. While the store is away, a directory that was known
    /// before stays as it was.
    async fn load(&self, directory: Ino, extent: Extent, step: Option<&Step>, is_known: bool) -> Result<()> {
        let load = async {
            let enough = match self.tree.knowledge(directory) {
                Knowledge::Complete => true,
                Knowledge::Large => extent == Extent::FirstPage,
                Knowledge::Outdated | Knowledge::Unknown => false,
            };
            if enough { Ok(()) } else { self.load_now(directory, extent, step, is_known).await }
        };
        self.one_at_a_time(directory, load).await
    }

    /// Asks the store for names of a directory, after those who ask already.
    pub(super) async fn one_at_a_time<T>(&self, directory: Ino, ask: impl Future<Output = T>) -> T {
        let lock = self.listing_locks.lock().expect("no panic under this lock").entry(directory).or_default().clone();
        let guard = lock.lock().await;
        let result = ask.await;
        drop(guard);
        let mut locks = self.listing_locks.lock().expect("no panic under this lock");
        // Ours and the table's: nobody else waits.
        if Arc::strong_count(&lock) <= 2 {
            locks.remove(&directory);
        }
        result
    }

    async fn load_now(&self, directory: Ino, extent: Extent, step: Option<&Step>, is_known: bool) -> Result<()> {
        let is_known = is_known || self.tree.knowledge(directory) == Knowledge::Outdated;
        let asked = async {
            match step {
                Some(step) if self.is_brought(directory, step).await? => Ok(None),
                _ => self.listing(directory, extent).await.map(Some),
            }
        };
        self.tree.begin_listing(directory);
        let (listing, result) = match self.unless_silent(directory, is_known, asked).await {
            Some(Ok(listing)) => (listing, Ok(())),
            Some(Err(error)) => (None, Err(error)),
            None => (None, Ok(())),
        };
        self.tree.end_listing(directory, listing);
        result
    }

    /// What the store says about names of a directory. `None`: it is silent, and what is known from before has to do.
    pub(super) async fn unless_silent<T>(
        &self,
        directory: Ino,
        is_known: bool,
        asked: impl Future<Output = Result<T>>,
    ) -> Option<Result<T>> {
        let silent_until = || self.silent_until.lock().expect("no panic under this lock");
        if !is_known {
            return Some(asked.await);
        }
        if silent_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let answer = tokio::time::timeout(REFRESH_TIMEOUT, asked).await.ok();
        let answer = answer
            .filter(|answer| !answer.as_ref().is_err_and(|error| error.store_kind().is_some_and(Kind::is_transient)));
        if answer.is_none() {
            log::warn!("{}: the store does not answer; showing the names as last known", self.path(directory));
        }
        *silent_until() = answer.is_none().then(|| Instant::now() + SILENCE);
        answer
    }

    async fn listing(&self, directory: Ino, extent: Extent) -> Result<Listing> {
        match self.directory_place(directory)? {
            Place::Directory { bucket, prefix } => match self.versions_prefix(&bucket, &prefix) {
                Some(real) => self.list_of_versions(directory, &bucket, real).await,
                None => self.directory_listing(directory, bucket, prefix, extent).await,
            },
            _ => {
                let buckets = self.store.list_buckets().await?;
                let names = buckets
                    .into_iter()
                    .map(|entry| (entry.name.as_str().to_owned(), Sighting::Bucket { created: entry.created }));
                Ok(Listing { names: names.collect(), complete: true, ..Listing::default() })
            }
        }
    }

    async fn directory_listing(
        &self,
        directory: Ino,
        bucket: BucketName,
        prefix: Prefix,
        extent: Extent,
    ) -> Result<Listing> {
        let mut names = Names::new(prefix.as_str());
        let mut continuation = None;
        loop {
            let request = ListRequest {
                prefix: prefix.as_str().to_owned(),
                delimited: true,
                continuation,
                ..ListRequest::default()
            };
            let page = self.store.list(&bucket, &request).await?;
            continuation = page.continuation.clone();
            names.add(page);
            if continuation.is_none() || extent == Extent::FirstPage {
                break;
            }
        }
        self.tree.set_hidden_keys(directory, names.hidden_keys());
        self.judge(directory, &bucket, &prefix, &names).await?;
        let mut listing = names.into_listing(continuation.is_none(), self.clock.now());
        self.keep_versions_directory(&bucket, &prefix, &mut listing);
        Ok(listing)
    }

    /// Finds out whether a directory's files carry POSIX metadata.
    pub(super) async fn judge(
        &self,
        directory: Ino,
        bucket: &BucketName,
        prefix: &Prefix,
        names: &Names,
    ) -> Result<()> {
        let fixed = match self.config.attrs {
            Attrs::List => Some(false),
            Attrs::Full => Some(true),
            Attrs::Auto => None,
        };
        if let Some(posix) = fixed {
            self.tree.set_posix(directory, posix);
            return Ok(());
        }
        let posix = match (names.marker(), prefix.marker()) {
            (Some(marker), Some(key)) => {
                let known = self.tree.read(directory, |inode| {
                    let object = inode.object.as_ref().filter(|object| object.headers.is_some());
                    inode.local || object.is_some_and(|object| object.modified.is_none_or(|at| at == marker.modified))
                });
                match self.tree.posix(directory) {
                    Some(posix) if known == Some(true) => posix,
                    _ => self.judge_marker(directory, &Location { bucket: bucket.clone(), key }).await?,
                }
            }
            (None, Some(_)) => {
                self.tree.note_no_marker(directory);
                false
            }
            _ => match self.tree.posix(directory) {
                Some(posix) => posix,
                None => self.judge_root(bucket, names).await?,
            },
        };
        self.tree.set_posix(directory, posix);
        Ok(())
    }

    async fn judge_marker(&self, directory: Ino, marker: &Location) -> Result<bool> {
        match self.store.head(marker, None).await {
            Ok(head) => {
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
        let heads = names.newest(JUDGES_MAX).into_iter().filter_map(|key| Key::new(&key).ok());
        let heads = heads.map(|key| async move {
            let location = Location { bucket: bucket.clone(), key };
            self.store.head(&location, None).await
        });
        let heads: Vec<_> = futures_util::future::join_all(heads).await;
        let is_posix = |head: &ObjectHead| Posix::read(&head.headers.metadata).is_some();
        Ok(heads.iter().flatten().any(is_posix))
    }

    /// Whether an entry's attributes are all known as far as its directory asks for it.
    pub(crate) fn is_known(&self, parent: Ino, entry: &Entry) -> bool {
        if self.tree.posix(parent) != Some(true) {
            return true;
        }
        self.tree.read(entry.ino, |inode| inode.local || inode.attributes_known()).unwrap_or(true)
    }

    /// The entry with its attributes: in a POSIX directory, from one HEAD per version ever.
    pub(crate) async fn with_attributes(&self, parent: Ino, name: &str, entry: Entry) -> Result<Option<Entry>> {
        if self.is_known(parent, &entry) {
            return Ok(Some(entry));
        }
        let Some(location) = self.tree.place(entry.ino).and_then(|place| place.location()) else {
            return Ok(Some(entry));
        };
        match self.head_at(&location).await {
            Ok(head) => Ok(self.tree.sight(parent, name, self.full_sighting(&head, entry.attr.kind))),
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
