//! What is stored a little later than the call that asked for it: markers of directories, and attributes of files whose
//! content is stored.
//!
//! Most directories that are made get a name at once, most that are emptied are removed next, and programs that copy
//! set times, mode and owner of a file one by one after its close, if they do not rename it besides. So all that waits up
//! to [`DELAY`]; what changes meanwhile costs no request of its own, and what is not needed by then costs none at all.
//! fsync of the file or the directory and the end of the mount wait for it. Nothing waits but where a bucket took a write
//! of this mount lately: elsewhere the call itself is to hear what the store says. Nor does anything with a journal, in
//! which it is safe at once and waits just as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::data::UploadState;
use crate::error::{Meaning, Result};
use crate::format::key::BucketName;
use crate::store::Kind;
use crate::tree::{FileKind, Ino};

use super::Fs;
use super::commit::UnsavedFile;

/// How long something waits at most.
const DELAY: Duration = Duration::from_secs(1);

/// How long after a failure it is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// For how long a bucket that took a write is expected to take another.
const WRITABLE: Duration = Duration::from_secs(60);

/// What is stored at once, besides what verbs store.
const AT_ONCE: usize = 8;

/// All that waits.
#[derive(Default)]
pub(super) struct Owed {
    table: Mutex<Table>,
    /// There was nothing, and now there is.
    some: Notify,
    /// One lock for each directory whose marker is being changed. Taken before `Fs::moving`, a child's before its parent's.
    markers: Mutex<HashMap<Ino, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Default)]
struct Table {
    /// Whether somebody stores what waits.
    is_served: bool,
    debts: HashMap<Ino, Debt>,
    writable: HashMap<BucketName, Instant>,
}

/// What one inode waits for.
struct Debt {
    due: Instant,
    /// How often it was asked for.
    times: u64,
    /// Whether a marker is needed whatever lies in the directory.
    is_demanded: bool,
    failure: Option<String>,
}

impl Owed {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic under this lock")
    }

    /// Keeps a directory's marker as it is.
    pub(super) async fn hold_marker(&self, directory: Ino) -> OwnedMutexGuard<()> {
        let lock = {
            let mut markers = self.markers.lock().expect("no panic under this lock");
            // Ours alone: nobody holds it or waits for it.
            markers.retain(|ino, lock| *ino == directory || Arc::strong_count(lock) > 1);
            markers.entry(directory).or_default().clone()
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

    /// How often something was asked for that an inode waits for.
    pub(super) fn times(&self, ino: Ino) -> Option<u64> {
        self.lock().debts.get(&ino).map(|debt| debt.times)
    }

    /// Whether a marker was asked for that is needed whatever lies in the directory.
    pub(super) fn is_demanded(&self, ino: Ino) -> bool {
        self.lock().debts.get(&ino).is_some_and(|debt| debt.is_demanded)
    }
}

impl Fs {
    /// Has an inode stored soon, as `note` leaves it; answers false, and changes nothing, where that must not wait.
    pub(super) fn owe(&self, ino: Ino, demanded: bool, note: impl FnOnce()) -> bool {
        let Some(location) = self.tree.place(ino).and_then(|place| place.location()) else { return false };
        let mut table = self.owed.lock();
        let is_writable = table.writable.get(&location.bucket).is_some_and(|at| at.elapsed() < WRITABLE);
        if !table.is_served || !is_writable || self.has_journal() {
            return false;
        }
        note();
        self.tree.update(ino, |inode| inode.local = true);
        if table.debts.is_empty() {
            self.owed.some.notify_one();
        }
        let new = || Debt { due: Instant::now() + DELAY, times: 0, is_demanded: false, failure: None };
        let debt = table.debts.entry(ino).or_insert_with(new);
        debt.times += 1;
        debt.is_demanded |= demanded;
        true
    }

    /// Whether attributes of a file wait that no other request has brought to the store meanwhile.
    pub(super) fn owes_attributes(&self, ino: Ino) -> bool {
        self.owed.times(ino).is_some() && self.tree.read(ino, |inode| inode.local) == Some(true)
    }

    pub(super) fn has_journal(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.accepts())
    }

    /// Stores what waits, each in its time. What waits when this is dropped is left to [`Fs::drain`].
    pub async fn store_owed(&self) -> ! {
        self.owed.lock().is_served = true;
        loop {
            let first = self.owed.lock().debts.values().map(|debt| debt.due).min();
            // What comes to wait meanwhile waits for longer than this.
            let wake = first.map(|first| first.min(Instant::now() + DELAY).into());
            tokio::select! {
                () = self.owed.some.notified(), if wake.is_none() => {}
                () = tokio::time::sleep_until(wake.unwrap_or_else(tokio::time::Instant::now)), if wake.is_some() => {}
            }
            let now = Instant::now();
            let due = |(ino, debt): (&Ino, &Debt)| (debt.due <= now).then_some(*ino);
            let due: Vec<Ino> = self.owed.lock().debts.iter().filter_map(due).collect();
            // What failed is tried again.
            let _ = self.pay_all(due).await;
        }
    }

    /// Stores what waits for a directory and what lies below it.
    pub(super) async fn settle_owed(&self, directory: Ino) -> Result<()> {
        // What is stored may need a marker that nobody has asked for yet.
        for _ in 0..2 {
            let owed: Vec<Ino> = self.owed.lock().debts.keys().copied().collect();
            self.pay_all(owed.into_iter().filter(|ino| self.tree.is_below(*ino, directory)).collect()).await?;
        }
        Ok(())
    }

    /// Stores what these wait for now; answers the first failure.
    async fn pay_all(&self, owed: Vec<Ino>) -> Result<()> {
        let paid = stream::iter(owed).map(|ino| self.pay(ino)).buffer_unordered(AT_ONCE);
        paid.fold(Ok(()), |all, one| std::future::ready(all.and(one))).await
    }

    async fn pay(&self, ino: Ino) -> Result<()> {
        let paid = match self.kind(ino) {
            Some(FileKind::Directory) => self.pay_marker(ino).await,
            _ => self.pay_attributes(ino).await,
        };
        if let Err(error) = &paid {
            log::error!("{}: its attributes are not stored yet: {error}", self.path(ino));
            let mut table = self.owed.lock();
            // The next call that needs the store is to hear it.
            table.writable.clear();
            if let Some(debt) = table.debts.get_mut(&ino) {
                (debt.due, debt.failure) = (Instant::now() + RETRY_DELAY, Some(error.to_string()));
            }
        }
        paid
    }

    /// Stores the attributes of a file whose content is stored. Those of one that is being written ride with its close.
    async fn pay_attributes(&self, ino: Ino) -> Result<()> {
        let Some(times) = self.owed.times(ino) else { return Ok(()) };
        let unstored = self.tree.place(ino).is_some() && self.owes_attributes(ino);
        let paid = match self.open_file(ino).ok().filter(|_| unstored) {
            Some(file) => {
                let guard = file.lock.lock().await;
                let paid = if file.bytes.is_dirty() { Ok(()) } else { self.commit_locked(&file).await };
                drop(guard);
                self.forget_file(file);
                paid
            }
            None => Ok(()),
        };
        let is_gone = |error: &crate::error::Error| {
            error.meaning() == Meaning::Stale
                || matches!(error.store_kind(), Some(Kind::PreconditionFailed | Kind::NotFound))
        };
        match paid {
            Err(error) if is_gone(&error) => {
                log::warn!("{}: changed by another client; what was set here is lost: {error}", self.path(ino));
                self.tree.update(ino, |inode| inode.local = false);
                self.tree.expire(ino);
            }
            paid => paid?,
        }
        self.owes_no_longer(ino, times, || ());
        Ok(())
    }

    /// An inode is stored as it was when that had been asked for so often.
    pub(super) fn owes_no_longer(&self, ino: Ino, times: u64, note: impl FnOnce()) {
        let mut table = self.owed.lock();
        if table.debts.get(&ino).is_some_and(|debt| debt.times == times) {
            table.debts.remove(&ino);
            note();
        }
    }

    /// What waits to be stored.
    pub fn unsaved_attributes(&self) -> Vec<UnsavedFile> {
        let owed: Vec<(Ino, Option<String>)> =
            self.owed.lock().debts.iter().map(|(ino, debt)| (*ino, debt.failure.clone())).collect();
        let unsaved = owed.into_iter().filter(|(ino, _)| match self.kind(*ino) {
            Some(FileKind::Directory) => self.needs_marker(*ino),
            _ => self.tree.place(*ino).is_some() && self.owes_attributes(*ino),
        });
        let unsaved = unsaved.map(|(ino, failure)| UnsavedFile {
            path: self.path(ino),
            state: failure.map_or(UploadState::Pending, |reason| UploadState::Failed { reason }),
            size_bytes: 0,
            parked: None,
        });
        unsaved.collect()
    }
}
