//! WRITE-BACK: a [`Store`] that answers a change once it is on the local disk, and has the store carry it out later.
//!
//! It lies over the whole stack of the store, so that everything above it sees the store as it will be: reads and
//! listings show what waits here (`overlay`), writes become a `record` each in the `spool`, whose turn the `queue`
//! decides, and `send` carries them out with the same engine of bytes that a mount without a journal uses. A mount
//! that died left its records behind: the next one takes them up before it begins, and goes on with the multipart uploads
//! that were under way.
//!
//! What the store refuses for good is kept and shown, and tried again; what lost a race against another client goes
//! beside its name. It refuses to answer for what only the store can say: ACLs are asked and set once the name is
//! settled.

mod accept;
mod content;

mod overlay;
mod parts;
mod queue;
mod record;
mod record_log;
pub mod recover;
mod send;
mod settle;
mod spool;
mod through;
mod versions;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::error::{Error, Meaning};
use crate::store::{self, ETag, Kind, Location, Store};

use super::state::{Leftover, Orphan, State};
use super::{Data, Limits};

use parts::Uploads;
use queue::Queue;
use record::{Record, Segment};
use spool::Spool;

pub use settle::{Left, Progress};

/// Changes that wait at most: each takes about a kilobyte of memory.
const CHANGES_MAX: usize = 100_000;

/// Parts of one object in flight.
const PARTS_AT_ONCE: usize = 4;

/// What a journal is given.
pub struct Config {
    /// Whether changes are taken in; if not, what a former mount left is carried out and nothing else.
    pub accepts: bool,
    /// Whether a change is on the disk before it is answered, so that it survives a loss of power.
    pub sync: bool,
    /// Bytes on the local disk at most.
    pub bytes_max: u64,
    /// Memory for what is being sent, in bytes.
    pub memory_bytes_max: u64,
    /// Changes carried out at once.
    pub requests_max: usize,
    /// The store's limits.
    pub limits: Limits,
    /// The state folder.
    pub state: Arc<State>,
    /// The wall clock.
    pub clock: Clock,
    /// This machine's name, for what is kept beside another client's version.
    pub host_name: String,
}

/// What is known of all that waits.
#[derive(Default)]
struct Book {
    queue: Queue,
    next_order: u64,
    /// The journal's files, how many changes need each, and how long it is.
    files: HashMap<String, (u32, u64)>,
    bytes: u64,
    uploads: Uploads,
    /// Versions that the store calls otherwise than this mount does: what it calls them.
    aliases: HashMap<Location, (ETag, ETag)>,
    /// Names whose race was lost, and where the bytes are.
    conflicts: HashMap<Location, String>,
}

impl Book {
    fn need(&mut self, record: &Record) {
        for file in record.pending().into_iter().flat_map(|pending| pending.files()) {
            if let Some((needed, _)) = self.files.get_mut(file) {
                *needed += 1;
            }
        }
    }

    /// What a record needed, less what others still need: the files that may go.
    fn let_go(&mut self, record: &Record) -> Vec<String> {
        let mut unneeded = Vec::new();
        for file in record.pending().into_iter().flat_map(|pending| pending.files()) {
            let Some((needed, bytes)) = self.files.get_mut(file) else { continue };
            *needed -= 1;
            if *needed == 0 {
                self.bytes -= *bytes;
                self.files.remove(file);
                unneeded.push(file.to_owned());
            }
        }
        unneeded
    }

    /// What the store calls a version.
    fn real(&self, name: &Location, etag: &ETag) -> ETag {
        match self.aliases.get(name) {
            Some((ours, real)) if ours == etag => real.clone(),
            _ => etag.clone(),
        }
    }

    /// What this mount calls a version.
    fn ours(&self, name: &Location, etag: ETag) -> ETag {
        match self.aliases.get(name) {
            Some((ours, real)) if *real == etag => ours.clone(),
            _ => etag,
        }
    }
}

struct Inner {
    /// The store itself.
    store: Arc<dyn Store>,
    /// Carries changes out.
    sender: Data,
    spool: Arc<Spool>,
    book: Mutex<Book>,
    /// Held while a change is taken in, and while a version gets another name: a record and its place in the queue are
    /// one.
    accepting: tokio::sync::Mutex<()>,
    /// There may be something to carry out.
    kick: Notify,
    /// Counts changes of the book.
    changed: watch::Sender<u64>,
    full_told: AtomicBool,
    /// Versions that the store has not named yet.
    next_etag: AtomicU64,
    config: Config,
}

/// The journal of a mount. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

impl Journal {
    /// Opens the journal in the state folder, over `store`, with what dead mounts have left. Carries nothing out
    /// before [`Journal::run`]. Needs to be called within a runtime.
    pub fn open(store: Arc<dyn Store>, config: Config, orphans: Vec<Orphan>) -> io::Result<Self> {
        let (spool, records) = Spool::open(&config.state.journal_folder(), orphans)?;
        let sender = super::Config {
            memory_bytes_max: config.memory_bytes_max,
            state: config.state.clone(),
            limits: config.limits,
            uploads_at_once: PARTS_AT_ONCE,
            journaled: false,
            // What it sends is in the journal already.
            stage_bytes_max: 0,
            disk: None,
        };
        let sender = Data::new(store.clone(), sender);
        let mut book = Book { next_order: 1, files: lengths_of(&records), ..Book::default() };
        book.bytes = book.files.values().map(|(_, bytes)| bytes).sum();
        for record in records {
            book.next_order = record.order + 1;
            book.need(&record);
            book.queue.push_tried(Arc::new(record));
        }
        if book.queue.len() > 0 {
            log::warn!("{} changes that a former mount left are being stored", book.queue.len());
        }
        let inner = Inner {
            store,
            sender,
            spool: Arc::new(spool),
            book: Mutex::new(book),
            accepting: Default::default(),
            kick: Notify::new(),
            changed: watch::Sender::new(0),
            full_told: AtomicBool::new(false),
            next_etag: AtomicU64::new(1),
            config,
        };
        Ok(Journal { inner: Arc::new(inner) })
    }

    /// Takes over uploads that a change which waits may go on with; answers the others. To be told before
    /// [`Journal::run`].
    pub fn go_on_with(&self, uploads: Vec<Leftover>) -> Vec<Leftover> {
        let book = self.inner.lock();
        let waits = |name: &Location| book.queue.of(name).any(|op| op.record.pending().is_some());
        let (wanted, others): (Vec<_>, Vec<_>) =
            uploads.into_iter().partition(|upload| upload.plan.is_some() && waits(&upload.location));
        drop(book);
        self.inner.sender.keep_unfinished(wanted);
        others
    }

    /// Whether changes are taken in.
    pub fn accepts(&self) -> bool {
        self.inner.config.accepts
    }

    /// A directory is there without its marker now: the marker need not go up. Answers whether it does not; a marker
    /// that was put with [`Condition::IfAbsent`](store::Condition::IfAbsent) and has not begun to go up can be taken out.
    pub async fn withdraw(&self, marker: &Location) -> bool {
        self.inner.withdraw(marker).await
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no code panics while it holds the journal")
    }

    /// The book has changed: whoever waits looks again.
    fn note(&self) {
        self.changed.send_modify(|count| *count += 1);
        self.kick.notify_one();
    }

    /// A name for a version that only the store can name.
    fn new_etag(&self) -> ETag {
        ETag::new(&format!("journal-{}-{}", std::process::id(), self.next_etag.fetch_add(1, Ordering::Relaxed)))
    }

    /// Removes files that nothing needs any more.
    fn remove(&self, unneeded: &[String]) {
        unneeded.iter().for_each(|file| self.spool.remove_content(file));
    }
}

/// The contents that records need, how many of them yet, and how long each is as far as they tell.
fn lengths_of(records: &[Record]) -> HashMap<String, (u32, u64)> {
    let mut ranges: HashMap<String, Range<u64>> = HashMap::new();
    for segment in records.iter().filter_map(Record::pending).flat_map(|pending| &pending.segments) {
        if let Segment::Local { file, range } = segment {
            let known = ranges.entry(file.clone()).or_insert_with(|| range.clone());
            *known = known.start.min(range.start)..known.end.max(range.end);
        }
    }
    ranges.into_iter().map(|(file, range)| (file, (0, range.end - range.start))).collect()
}

/// A failure of the local disk as the store's users hear it.
fn local_error(error: Error, to: &Location) -> store::Error {
    let kind = if error.meaning() == Meaning::NoSpace { Kind::QuotaExceeded } else { Kind::LocalDisk };
    let mut failed = store::Error::new(kind, "Journal", to.to_string(), error.to_string());
    failed.source = Some(Box::new(error));
    failed
}
