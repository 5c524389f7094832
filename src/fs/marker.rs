//! Markers of directories: the objects that say that a directory is there, and what its attributes are.
//!
//! A marker is needed where no other key lies below the directory, or where the directory has attributes that nothing
//! else tells. Most directories that are made get a name at once, and most that are emptied are removed next; so a
//! marker may wait up to [`DELAY`], what changes it meanwhile costs no request of its own, and one that is not needed
//! by then costs none at all. An fsync of the directory, and the end of the mount, wait for it. It waits only where a
//! bucket took a write of this mount lately: elsewhere the call that needs a marker is to hear what the store says.
//!
//! With a journal, which must not forget a directory, a marker is journaled at once, and taken back out of the journal
//! when a name comes into the directory before it went up.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::data::UploadState;
use crate::error::Result;
use crate::format::key::BucketName;
use crate::store::{Condition, Location, ObjectHeaders};
use crate::tree::{AclState, Attr, FileKind, Ino, Inode, Object, ROOT};

use super::commit::UnsavedFile;
use super::{Attrs, Fs};

/// How long a marker waits at most.
const DELAY: Duration = Duration::from_secs(1);

/// How long after a failure a marker is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// For how long a bucket that took a write is expected to take another.
const WRITABLE: Duration = Duration::from_secs(60);

/// Markers stored at once, besides what verbs store.
const AT_ONCE: usize = 8;

/// Markers in the journal that are remembered as ones that may be taken back.
const SPARE_MAX: usize = 100_000;

/// What is known of markers that the store does not have.
#[derive(Default)]
pub(super) struct Markers {
    table: Mutex<Table>,
    /// There was nothing that waited, and now there is.
    owed: Notify,
    /// One lock for each directory whose marker is being changed. Taken before `Fs::moving`, a child's before its parent's.
    locks: Mutex<HashMap<Ino, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Default)]
struct Table {
    /// Whether somebody stores what waits.
    is_served: bool,
    waiting: HashMap<Ino, Waiting>,
    /// Directories whose marker is in the journal and says no more than that they are there.
    spare: HashSet<Ino>,
    writable: HashMap<BucketName, Instant>,
}

/// A marker that is to be stored.
struct Waiting {
    until: Instant,
    /// How often it was asked for.
    times: u64,
    /// Whether it is needed whatever lies in the directory.
    is_demanded: bool,
    failure: Option<String>,
}

impl Markers {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic under this lock")
    }

    /// Keeps a directory's marker as it is.
    pub(super) async fn hold(&self, directory: Ino) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().expect("no panic under this lock");
            // Ours alone: nobody holds it or waits for it.
            locks.retain(|ino, lock| *ino == directory || Arc::strong_count(lock) > 1);
            locks.entry(directory).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Notes that a bucket took a write.
    pub(super) fn note_writable(&self, bucket: &BucketName) {
        let mut table = self.lock();
        match table.writable.get_mut(bucket) {
            Some(at) => *at = Instant::now(),
            None => drop(table.writable.insert(bucket.clone(), Instant::now())),
        }
    }

    fn times(&self, ino: Ino) -> Option<u64> {
        self.lock().waiting.get(&ino).map(|waiting| waiting.times)
    }
}

impl Fs {
    /// Stores markers that wait, each in its time. What waits when this is dropped is left to [`Fs::drain`].
    pub async fn store_markers(&self) -> ! {
        self.markers.lock().is_served = true;
        loop {
            let first = self.markers.lock().waiting.values().map(|waiting| waiting.until).min();
            // What comes to wait meanwhile waits for longer than this.
            let wake = first.map(|first| first.min(Instant::now() + DELAY).into());
            tokio::select! {
                () = self.markers.owed.notified(), if wake.is_none() => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(tokio::time::Instant::now)), if wake.is_some() => {}
            }
            let now = Instant::now();
            let due = |(ino, waiting): (&Ino, &Waiting)| (waiting.until <= now).then_some(*ino);
            let due: Vec<Ino> = self.markers.lock().waiting.iter().filter_map(due).collect();
            // What failed is tried again.
            let _ = self.store_waiting(due).await;
        }
    }

    /// Stores the markers that wait for these directories now; answers the first failure.
    async fn store_waiting(&self, directories: Vec<Ino>) -> Result<()> {
        let stored = stream::iter(directories).map(|ino| self.store_waiting_marker(ino)).buffer_unordered(AT_ONCE);
        stored.fold(Ok(()), |all, one| std::future::ready(all.and(one))).await
    }

    /// Stores the markers that wait for a directory and those below it.
    pub(super) async fn settle_markers(&self, directory: Ino) -> Result<()> {
        let waiting: Vec<Ino> = self.markers.lock().waiting.keys().copied().collect();
        self.store_waiting(waiting.into_iter().filter(|ino| self.tree.is_below(*ino, directory)).collect()).await
    }

    /// Stores all markers that wait.
    pub(super) async fn drain_markers(&self) {
        let waiting = self.markers.lock().waiting.keys().copied().collect();
        // A failure is told with what is not stored.
        let _ = self.store_waiting(waiting).await;
    }

    /// Directories whose markers wait.
    pub fn unsaved_markers(&self) -> Vec<UnsavedFile> {
        let table = self.markers.lock();
        let unsaved = table.waiting.iter().filter(|(ino, _)| self.needs_marker(**ino, &table));
        let unsaved = unsaved.map(|(ino, waiting)| UnsavedFile {
            path: format!("{}/", self.path(*ino)),
            state: match &waiting.failure {
                Some(reason) => UploadState::Failed { reason: reason.clone() },
                None => UploadState::Pending,
            },
            size_bytes: 0,
            parked: None,
        });
        unsaved.collect()
    }

    async fn store_waiting_marker(&self, ino: Ino) -> Result<()> {
        let _held = self.markers.hold(ino).await;
        let Some(times) = self.markers.times(ino) else { return Ok(()) };
        let needed = {
            let table = self.markers.lock();
            self.needs_marker(ino, &table)
        };
        if !needed {
            self.waits_no_longer(ino, times);
            return Ok(());
        }
        let stored = self.store_marker(ino).await;
        if let Err(error) = &stored {
            log::error!("{}: this directory is not stored yet: {error}", self.path(ino));
            let mut table = self.markers.lock();
            // The next call that needs a marker is to hear it.
            table.writable.clear();
            if let Some(waiting) = table.waiting.get_mut(&ino) {
                (waiting.until, waiting.failure) = (Instant::now() + RETRY_DELAY, Some(error.to_string()));
            }
        }
        stored
    }

    /// Whether a directory would vanish without a marker, or lose what only a marker tells.
    fn needs_marker(&self, ino: Ino, table: &Table) -> bool {
        if self.tree.place(ino).and_then(|place| place.location()).is_none() {
            return false;
        }
        let told = table.waiting.get(&ino).is_some_and(|waiting| waiting.is_demanded)
            || self.tree.read(ino, |inode| inode.object.is_some() || inode.times_set) == Some(true)
            || !self.is_plain(ino);
        let is_there = |child: Ino| {
            self.kind(child) == Some(FileKind::Directory)
                || self.tree.read(child, |inode| inode.object.is_some()) == Some(true)
        };
        told || !self.tree.children(ino).iter().any(|(_, child)| is_there(child.ino))
    }

    /// Whether mode and owner are those that the mount gives to what has none.
    pub(super) fn is_plain(&self, ino: Ino) -> bool {
        let defaults = self.config.defaults;
        let plain = self.tree.read(ino, |Inode { attr, .. }| {
            let mode = if attr.kind == FileKind::Directory { defaults.dir_mode } else { defaults.file_mode };
            attr.kind != FileKind::Symlink && (attr.mode, attr.uid, attr.gid) == (mode, defaults.uid, defaults.gid)
        });
        plain == Some(true)
    }

    /// The marker of a directory is as it was when it had been asked for so often.
    fn waits_no_longer(&self, ino: Ino, times: u64) {
        let mut table = self.markers.lock();
        if table.waiting.get(&ino).is_some_and(|waiting| waiting.times == times) {
            table.waiting.remove(&ino);
            self.tree.update(ino, |inode| inode.local = false);
        }
    }

    /// Has a directory with these attributes stored soon, if it needs a marker then; a `demanded` one is needed whatever
    /// lies in it. With a journal, or if there is reason for doubt, at once.
    pub(crate) async fn owe_marker(&self, ino: Ino, attr: &Attr, demanded: bool) -> Result<()> {
        let Some(Location { bucket, .. }) = self.tree.place(ino).and_then(|place| place.location()) else {
            return Ok(());
        };
        {
            let mut table = self.markers.lock();
            let is_writable = table.writable.get(&bucket).is_some_and(|at| at.elapsed() < WRITABLE);
            if table.is_served && is_writable && !self.has_journal() {
                self.tree.update(ino, |inode| (inode.attr, inode.local) = (*attr, true));
                if table.waiting.is_empty() {
                    self.markers.owed.notify_one();
                }
                let until = Instant::now() + DELAY;
                let waiting = table.waiting.entry(ino);
                let waiting = waiting.or_insert(Waiting { until, times: 0, is_demanded: false, failure: None });
                waiting.times += 1;
                waiting.is_demanded |= demanded;
                return Ok(());
            }
        }
        self.put_marker(ino, attr).await
    }

    pub(super) fn has_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.accepts())
    }

    /// Stores the marker of a directory with these attributes, keeping what else it has.
    pub(crate) async fn put_marker(&self, ino: Ino, attr: &Attr) -> Result<()> {
        if self.tree.place(ino).and_then(|place| place.location()).is_none() {
            return Ok(());
        }
        let _held = self.markers.hold(ino).await;
        let old = self.tree.update(ino, |inode| std::mem::replace(&mut inode.attr, *attr));
        let stored = self.store_marker(ino).await;
        if let (Err(_), Some(old)) = (&stored, old) {
            self.tree.update(ino, |inode| inode.attr = old);
        }
        stored
    }

    /// The same, with the marker held.
    async fn store_marker(&self, ino: Ino) -> Result<()> {
        let times = self.markers.times(ino);
        let known = self.tree.read(ino, |inode| (inode.object.is_none(), inode.attributes_known()));
        let (is_new, is_known) = known.unwrap_or((true, false));
        if is_new {
            self.tree.update(ino, |inode| inode.set_acl(AclState::Sent(self.created_acl())));
        }
        let headers = self.headers_to_store(ino).await?;
        let _moving = self.moving.read().await;
        let Some(location) = self.place(ino)?.location() else { return Ok(()) };
        // A journal can take back what it knows to be new. The store need not know: one marker is as good as another.
        let condition = if is_new && is_known && self.has_journal() { Condition::IfAbsent } else { Condition::None };
        self.markers.lock().spare.remove(&ino);
        let written = self.store.put(&location, Bytes::new(), &headers, &condition).await?;
        self.tree.update(ino, |inode| {
            inode.object = Some(Object {
                etag: written.etag,
                size_bytes: 0,
                modified: None,
                version_id: written.version_id,
                storage_class: headers.storage_class.clone(),
                headers: Some(ObjectHeaders { acl: None, ..headers }.into()),
            });
        });
        if self.config.attrs == Attrs::Auto {
            self.tree.set_posix(ino, true);
        }
        self.markers.note_writable(&location.bucket);
        if let Some(times) = times {
            self.waits_no_longer(ino, times);
        }
        Ok(())
    }

    /// A directory was made here: it gets a marker, if it needs one.
    pub(super) async fn make_marker(&self, ino: Ino, attr: &Attr) -> Result<()> {
        let is_plain = self.is_plain(ino);
        self.owe_marker(ino, attr, false).await?;
        match self.config.attrs {
            Attrs::List => self.tree.set_posix(ino, false),
            Attrs::Full => self.tree.set_posix(ino, true),
            Attrs::Auto if self.has_journal() => {
                if is_plain {
                    self.spare_marker(ino);
                }
            }
            Attrs::Auto => self.tree.set_posix(ino, !is_plain || self.markers.times(ino).is_none()),
        }
        Ok(())
    }

    /// Without names and without a marker a directory would vanish: it gets a marker when its last name leaves it.
    /// Called before, so that no listing ever misses it where the marker is stored at once; and after, if several left
    /// at the same time.
    pub(crate) async fn keep_directory(&self, directory: Ino, leaving: Option<&str>) {
        let needs_marker = self.tree.read(directory, |inode| inode.object.is_none()) == Some(true)
            && self.tree.children(directory).iter().all(|(name, _)| Some(&**name) == leaving)
            && self.tree.place(directory).and_then(|place| place.location()).is_some();
        if !needs_marker {
            return;
        }
        let Some(attr) = self.tree.read(directory, |inode| inode.attr) else { return };
        if let Err(error) = self.owe_marker(directory, &attr, false).await {
            log::warn!("{}: its last name leaves, and its marker could not be stored: {error}", self.path(directory));
        }
    }

    /// Notes that a marker in the journal says no more than that the directory is there.
    fn spare_marker(&self, ino: Ino) {
        self.tree.set_posix(ino, false);
        let mut table = self.markers.lock();
        if table.spare.len() < SPARE_MAX {
            table.spare.insert(ino);
        }
    }

    /// A file is in the journal: the directories that it is in may do without markers that are there too.
    pub(super) async fn release_markers(&self, child: Ino) {
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.accepts()) else { return };
        let above = |ino: &Ino| self.tree.read(*ino, |inode| inode.parent_and_name().0);
        let above = std::iter::successors(above(&child), above).take_while(|ino| *ino != ROOT);
        let mut spare: Vec<Ino> = above.collect();
        spare.retain(|ino| self.markers.lock().spare.contains(ino));
        for directory in spare {
            let _held = self.markers.hold(directory).await;
            let Some(location) = self.tree.place(directory).and_then(|place| place.location()) else { continue };
            if !self.markers.lock().spare.remove(&directory) {
                continue;
            }
            match journal.withdraw(&location).await {
                true => drop(self.tree.update(directory, |inode| inode.object = None)),
                false if self.config.attrs == Attrs::Auto => self.tree.set_posix(directory, true),
                false => {}
            }
        }
    }
}
