//! opendir, readdir, and how a directory is learned from the store: pages of a listing. The first is told while the
//! next ones come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use crate::error::{Error, Result};
use crate::format::key::{BucketName, Prefix};
use crate::store::{Kind, ListRequest};
use crate::tree::{Before, Entry, Ino, Knowledge, Listing, News, Place, Sighting};

use super::files::Handle;
use super::flat::{Brought, Step};
use super::names::Names;
use super::open::HandleId;
use super::pages::Pages;
use super::snapshot::{Growing, Snapshot, Told};
use super::{Fs, Notice};

/// How long the store may take to confirm a listing that we still have, before the old one is shown.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// For how long a store that did not answer is not asked again about names that are known: what is done to them goes on
/// at once meanwhile.
const SILENCE: Duration = Duration::from_secs(30);

/// Names of an open directory that are made ready together.
const BATCH_NAMES: usize = 128;

/// How much of a directory is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    FirstPage,
    All,
}

/// What is left of a listing after its first page.
struct Rest {
    pages: Pages,
    names: Names,
    /// The names that were known before.
    before: Before,
}

/// Names of an open directory that the kernel is about to be told; they are not forgotten until this is dropped.
pub struct Batch {
    fs: Arc<Fs>,
    directory: Ino,
    /// The names, each with its place in the directory.
    pub names: Vec<(u64, Told)>,
    /// What each leads to, where that was asked for.
    pub entries: Vec<Entry>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.fs.tree.let_go(self.directory);
    }
}

impl Fs {
    /// Opens a directory; its names are read when they are first asked for, and stay the same for this handle.
    pub fn open_directory(&self) -> HandleId {
        self.files.add_handle(Handle::Directory { snapshot: None })
    }

    /// Names of an open directory from a place on, with what they lead to if asked for; `rewound` reads them anew, as
    /// rewinddir does. None are left if none are answered.
    pub async fn read_directory(
        self: &Arc<Self>,
        ino: Ino,
        id: HandleId,
        (first, rewound): (u64, bool),
        entries: bool,
    ) -> Result<Batch> {
        let snapshot = match self.files.handle(id)? {
            Handle::Directory { snapshot: Some(snapshot) } if !rewound => {
                self.walks.go_on();
                snapshot
            }
            _ => {
                let snapshot = Arc::new(self.open_snapshot(ino).await?);
                self.files.set_snapshot(id, snapshot.clone());
                snapshot
            }
        };
        self.batch(ino, &snapshot, first, entries).await
    }

    /// Closes a directory.
    pub fn close_directory(&self, id: HandleId) {
        self.files.take_handle(id);
    }

    /// All names of a directory, with attributes.
    pub async fn list(self: &Arc<Self>, directory: Ino) -> Result<Vec<(Arc<str>, Entry)>> {
        let snapshot = self.open_snapshot(directory).await?;
        let (mut all, mut next) = (Vec::new(), 0);
        loop {
            let batch = self.batch(directory, &snapshot, next, true).await?;
            let Some((last, _)) = batch.names.last() else { return Ok(all) };
            next = last + 1;
            all.extend(batch.names.iter().map(|(_, told)| told.name.clone()).zip(batch.entries.iter().cloned()));
        }
    }

    /// The next names of a snapshot. Those that were forgotten since are asked for again where entries are wanted.
    async fn batch(
        self: &Arc<Self>,
        directory: Ino,
        snapshot: &Snapshot,
        mut next: u64,
        entries: bool,
    ) -> Result<Batch> {
        loop {
            let told = snapshot.from(next as usize, BATCH_NAMES).await?;
            self.tree.hold(directory).keep();
            let mut batch = Batch { fs: self.clone(), directory, names: Vec::new(), entries: Vec::new() };
            let count = told.len() as u64;
            let found = stream::iter((next..).zip(told)).map(|(at, mut told)| async move {
                let entry = match self.tree.child(directory, &told.name).and_then(|ino| self.tree.entry(ino)) {
                    Some(entry) => self.with_attributes(directory, &told.name, entry).await?,
                    None if entries => self.find(directory, &told.name).await?,
                    None => return Ok(Some((at, told, None))),
                };
                Ok::<_, Error>(entry.map(|entry| {
                    told.kind = entry.attr.kind;
                    (at, told, Some(entry))
                }))
            });
            let found: Vec<_> = found.buffered(self.config.requests_max).collect().await;
            for found in found.into_iter().filter_map(Result::transpose) {
                let (at, told, entry) = found?;
                batch.names.push((at, told));
                batch.entries.extend(entry);
            }
            next += count;
            if count == 0 || !batch.names.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// The names of a directory as they are now.
    async fn open_snapshot(self: &Arc<Self>, directory: Ino) -> Result<Snapshot> {
        let _held = self.tree.hold(directory);
        let step = self.step(directory)?;
        if self.tree.knowledge(directory) != Knowledge::Complete
            && let Some(rest) = self.load(directory, Extent::All, step.as_ref(), false).await?
        {
            return Ok(self.stream(directory, rest));
        }
        self.run_ahead(step);
        self.tell_kernel();
        Ok(Snapshot::whole(self.visible_children(directory)))
    }

    /// Has the kernel forget names that are too many, and what other clients have changed.
    pub(super) fn tell_kernel(&self) {
        for (directory, name) in self.tree.take_unwanted() {
            self.notify(Notice::Entry(directory, name));
        }
        for news in self.tree.take_news() {
            self.notify(match news {
                News::Entry(directory, name) => Notice::Entry(directory, name),
                News::Inode(ino) => Notice::Inode(ino),
            });
        }
    }

    /// A snapshot whose first page is here, while the next ones come.
    fn stream(self: &Arc<Self>, directory: Ino, mut rest: Rest) -> Snapshot {
        let (snapshot, growing) = Snapshot::growing();
        let first = rest.names.take_certain(false);
        growing.add(self.take_page(directory, first));
        let fs = self.clone();
        self.data.spawn(async move {
            let streamed = fs.stream_rest(directory, rest, &growing).await;
            if let Ok(false) | Err(_) = streamed {
                fs.tree.end_listing(directory, None);
            }
            growing.end(streamed.map(drop));
        });
        snapshot
    }

    fn take_page(&self, directory: Ino, names: Vec<(String, Sighting)>) -> Vec<(Arc<str>, Entry)> {
        let children = self.tree.take_page(directory, names);
        self.tell_kernel();
        self.visible(directory, children)
    }

    /// Answers whether somebody wanted them to the end.
    async fn stream_rest(&self, directory: Ino, mut rest: Rest, growing: &Growing) -> Result<bool> {
        let place = self.directory_place(directory)?;
        while let Some((page, _)) = rest.pages.next().await? {
            if growing.is_closed() {
                return Ok(false);
            }
            rest.names.add(page);
            rest.before.newest_age =
                rest.names.newest_age(self.clock.now()).into_iter().chain(rest.before.newest_age).min();
            let certain = rest.names.take_certain(false);
            growing.add(self.take_page(directory, certain));
        }
        let last = rest.names.take_certain(true);
        growing.add(self.take_page(directory, last));
        if let Place::Directory { bucket, prefix } = &place {
            let mut kept = Listing::default();
            self.keep_versions_directory(bucket, prefix, &mut kept);
            self.tree.take_page(directory, kept.names);
        }
        self.tree.set_hidden_keys(directory, rest.names.hidden_keys());
        if self.tree.end_pages(directory, &rest.before) {
            growing.add_missing(self.visible_children(directory));
        }
        self.tell_kernel();
        Ok(true)
    }

    /// Learns the first page of a directory, which is all of most directories, for the sake of a name that is known
    /// from before, or not.
    pub(crate) async fn load_page(&self, directory: Ino, is_known: bool) -> Result<()> {
        let step = self.look(directory)?;
        self.load(directory, Extent::FirstPage, step.as_ref(), is_known).await.map(drop)
    }

    /// Learns a directory, or the first page of a large one: answers what is left then, which begins a listing of its
    /// own. Many who ask at once cost one listing. While the store is away, a directory that was known before stays as
    /// it was.
    async fn load(&self, directory: Ino, extent: Extent, step: Option<&Step>, is_known: bool) -> Result<Option<Rest>> {
        let load = async {
            let enough = match self.tree.knowledge(directory) {
                Knowledge::Complete => true,
                Knowledge::Large => extent == Extent::FirstPage,
                Knowledge::Outdated | Knowledge::Unknown => false,
            };
            if enough { Ok(None) } else { self.load_now(directory, extent, step, is_known).await }
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

    async fn load_now(
        &self,
        directory: Ino,
        extent: Extent,
        step: Option<&Step>,
        is_known: bool,
    ) -> Result<Option<Rest>> {
        let is_known = is_known || self.tree.knowledge(directory) == Knowledge::Outdated;
        let asked = async {
            let begun = match step {
                Some(step) => self.bring(directory, step).await?,
                None => Brought::Nothing,
            };
            let first = match begun {
                Brought::All => return Ok(None),
                Brought::First(names) => Some(*names),
                Brought::Nothing => None,
            };
            self.listing(directory, extent, first).await.map(Some)
        };
        self.tree.begin_listing(directory);
        let answer = self.unless_silent(directory, is_known, asked).await;
        let (listing, result) = match answer {
            Some(Ok(Some((listing, None)))) => (Some(listing), Ok(None)),
            Some(Ok(Some((_, rest)))) => return Ok(rest),
            Some(Ok(None)) | None => (None, Ok(None)),
            Some(Err(error)) => (None, Err(error)),
        };
        self.tree.end_listing(directory, listing);
        self.tell_kernel();
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

    /// Asks for the names of a directory; of a large one all of which is wanted, the `first` may be known from a listing of
    /// more than that.
    async fn listing(&self, directory: Ino, extent: Extent, first: Option<Names>) -> Result<(Listing, Option<Rest>)> {
        match self.directory_place(directory)? {
            Place::Directory { bucket, prefix } => match self.versions_prefix(&bucket, &prefix) {
                Some(real) => Ok((self.list_of_versions(directory, &bucket, real).await?, None)),
                None => self.directory_listing(directory, (bucket, prefix), extent, first).await,
            },
            _ => {
                let buckets = self.store.list_buckets().await?;
                let names = buckets
                    .into_iter()
                    .map(|entry| (entry.name.as_str().to_owned(), Sighting::Bucket { created: entry.created }));
                Ok((Listing { names: names.collect(), complete: true, ..Listing::default() }, None))
            }
        }
    }

    async fn directory_listing(
        &self,
        directory: Ino,
        (bucket, prefix): (BucketName, Prefix),
        extent: Extent,
        first: Option<Names>,
    ) -> Result<(Listing, Option<Rest>)> {
        let mut before = self.tree.before(directory);
        let below = (prefix.as_str().to_owned(), true);
        let (names, ended, pages) = match first.filter(|names| names.prefix() == prefix.as_str()) {
            Some(names) => {
                let pages = Pages::after(self.store.clone(), bucket.clone(), below, names.last());
                (names, false, Some(pages))
            }
            None => {
                let mut names = Names::new(prefix.as_str());
                let request = ListRequest { prefix: below.0.clone(), delimited: true, ..ListRequest::default() };
                let page = self.store.list(&bucket, &request).await?;
                let ended = page.continuation.is_none();
                let pages = (!ended && extent == Extent::All)
                    .then(|| Pages::behind(self.store.clone(), bucket.clone(), below, &page));
                names.add(page);
                (names, ended, pages)
            }
        };
        self.tree.set_hidden_keys(directory, names.hidden_keys());
        self.judge(directory, &bucket, &prefix, &names).await?;
        if let Some(pages) = pages {
            before.newest_age = names.newest_age(self.clock.now());
            return Ok((Listing::default(), Some(Rest { pages, names, before })));
        }
        let mut listing = names.into_listing(ended, self.clock.now());
        self.keep_versions_directory(&bucket, &prefix, &mut listing);
        Ok((listing, None))
    }
}
