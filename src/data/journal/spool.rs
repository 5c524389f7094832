//! The journal's folder: `records/` is the log of changes, `content/` has the bytes that they need, `aside/` records
//! that nothing can be made of and that wait for a person.
//!
//! A record is written after what it needs: it is there as a whole or not at all. A process that is killed loses nothing
//! of it. It refuses to fill the disk.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::data::state::{Orphan, make_folder};

use super::content::Contents;
use super::record::{Change, Record, Segment};
use super::record_log::{Found, RecordLog, read_records};

pub(super) const RECORDS: &str = "records";
pub(super) const CONTENT: &str = "content";
pub(super) const ASIDE: &str = "aside";

/// The folder.
pub(super) struct Spool {
    aside: PathBuf,
    opened: File,
    log: RecordLog,
    contents: Contents,
    /// How many writes were made, and how many of these the disk has.
    written: AtomicU64,
    synced: tokio::sync::Mutex<u64>,
}

impl Spool {
    /// Opens or makes the folder, takes over what `orphans` hold, and answers the changes that wait in it, in order.
    pub(super) fn open(folder: &Path, orphans: Vec<Orphan>) -> io::Result<(Spool, Vec<Record>)> {
        let aside = folder.join(ASIDE);
        make_folder(&aside)?;
        let (log, mut records) = RecordLog::open(folder.join(RECORDS))?;
        let spool = Spool {
            aside,
            opened: File::open(folder)?,
            log,
            contents: keep_needed(folder)?,
            written: AtomicU64::new(0),
            synced: Default::default(),
        };
        for orphan in orphans {
            let next = records.last().map_or(1, |record| record.order + 1);
            records.extend(spool.adopt(&orphan, next)?);
        }
        Ok((spool, records))
    }

    /// Takes over the changes of a journal whose mount is gone, from `order` on.
    fn adopt(&self, orphan: &Orphan, mut order: u64) -> io::Result<Vec<Record>> {
        let (records, content) = (orphan.folder.join(RECORDS), orphan.folder.join(CONTENT));
        if !records.exists() {
            return Ok(Vec::new());
        }
        let mut adopted = Vec::new();
        let mut orders = HashMap::new();
        for mut found in read_records(&records)?.found {
            let record = &mut found.record;
            if orphan.bucket.as_deref().is_some_and(|bucket| bucket != record.to.bucket.as_str()) {
                continue;
            }
            if let Change::Store(pending) = &mut record.change {
                for segment in &mut pending.segments {
                    match segment {
                        Segment::Local { file, .. } => *file = self.contents.adopt(&content, file)?,
                        Segment::Stored { made_by, .. } => *made_by = made_by.and_then(|by| orders.get(&by).copied()),
                    }
                }
            }
            orders.insert(record.order, order);
            record.order = order;
            order += 1;
            self.write_record(record)?;
            found.remove(&records)?;
            adopted.push(found.record);
        }
        keep_needed(&orphan.folder)?;
        Ok(adopted)
    }

    /// Writes bytes; answers a name for them that no others had, and where in the file of that name they are. Storage
    /// full where too little would stay free.
    pub(super) fn write_content(&self, bytes: &Bytes) -> io::Result<(String, Range<u64>)> {
        let written = self.contents.write(bytes)?;
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(written)
    }

    /// The bytes of a file, in a range.
    pub(super) fn read_content(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        self.contents.read(name, range)
    }

    /// Nothing needs a content any more.
    pub(super) fn remove_content(&self, name: &str) {
        self.contents.remove(name);
    }

    /// Writes a record, or replaces the one with its turn.
    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        self.log.write(record)?;
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the record of a change that is carried out or not wanted any more.
    pub(super) fn remove_record(&self, order: u64) {
        self.log.remove(order);
    }

    /// Keeps a record, with what it needs, for a person; answers where.
    pub(super) fn set_aside(&self, record: &Record) -> io::Result<PathBuf> {
        self.log.move_out(record, &self.aside)
    }

    /// Has the disk keep all that was written so far, so that it survives a loss of power. Many who ask at once share
    /// one flush.
    pub(super) async fn sync(self: &Arc<Self>) -> io::Result<()> {
        let mine = self.written.load(Ordering::Relaxed);
        let mut synced = self.synced.lock().await;
        if *synced >= mine {
            return Ok(());
        }
        let now = self.written.load(Ordering::Relaxed);
        let spool = self.clone();
        let flush = move || rustix::fs::syncfs(&spool.opened).map_err(io::Error::from);
        tokio::task::spawn_blocking(flush).await.map_err(io::Error::other).flatten()?;
        *synced = now;
        Ok(())
    }
}

/// Opens a journal's content, without what no record needs: its change was carried out, or never recorded.
fn keep_needed(folder: &Path) -> io::Result<Contents> {
    let (mut needed, mut is_damaged) = (HashSet::new(), false);
    for part in [RECORDS, ASIDE] {
        let records = read_records(&folder.join(part))?;
        is_damaged |= records.is_damaged();
        for Found { record, .. } in records.found {
            let files = record.pending().into_iter().flat_map(|pending| pending.files());
            needed.extend(files.map(str::to_owned));
        }
    }
    let contents = Contents::open(folder.join(CONTENT))?;
    contents.keep(&needed, is_damaged)?;
    Ok(contents)
}
