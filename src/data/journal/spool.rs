//! The journal's folder: `records/` has a file for each change, named by its turn, `content/` the bytes that they
//! need, `aside/` records that nothing can be made of and that wait for a person.
//!
//! A record is written under another name and then renamed, so it is there as a whole or not at all; what it needs
//! was written before. A process that is killed loses nothing of it. It refuses to fill the disk.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::data::disk::room;
use crate::data::stage::read_range;
use crate::data::state::{Orphan, make_folder};

use super::record::{Change, Record, Segment};

pub(super) const RECORDS: &str = "records";
pub(super) const CONTENT: &str = "content";
pub(super) const ASIDE: &str = "aside";

/// The folder.
pub(super) struct Spool {
    folder: PathBuf,
    opened: File,
    next_file: AtomicU64,
    /// How many writes were made, and how many of these the disk has.
    written: AtomicU64,
    synced: tokio::sync::Mutex<u64>,
}

impl Spool {
    /// Opens or makes the folder, takes over what `orphans` hold, and answers the changes that wait in it, in order.
    pub(super) fn open(folder: PathBuf, orphans: Vec<Orphan>) -> io::Result<(Spool, Vec<Record>)> {
        for part in [RECORDS, CONTENT, ASIDE] {
            make_folder(&folder.join(part))?;
        }
        let opened = File::open(&folder)?;
        let (next_file, written) = (AtomicU64::new(1), AtomicU64::new(0));
        let spool = Spool { folder, opened, next_file, written, synced: Default::default() };
        let files = names_in(&spool.folder.join(CONTENT))?;
        let last = files.iter().filter_map(|name| name.parse::<u64>().ok()).max().unwrap_or(0);
        spool.next_file.store(last + 1, Ordering::Relaxed);
        let (mut records, _) = read_records(&spool.folder.join(RECORDS))?;
        for orphan in orphans {
            let next = records.last().map_or(1, |record| record.order + 1);
            records.extend(spool.adopt(&orphan, next)?);
        }
        remove_unneeded(&spool.folder)?;
        Ok((spool, records))
    }

    /// Takes over the changes of a journal whose mount is gone, from `order` on.
    fn adopt(&self, orphan: &Orphan, mut order: u64) -> io::Result<Vec<Record>> {
        let records = orphan.folder.join(RECORDS);
        if !records.exists() {
            return Ok(Vec::new());
        }
        let mut adopted = Vec::new();
        let mut orders = HashMap::new();
        for mut record in read_records(&records)?.0 {
            if orphan.bucket.as_deref().is_some_and(|bucket| bucket != record.to.bucket.as_str()) {
                continue;
            }
            let old = records.join(record_name(record.order));
            if let Change::Store(pending) = &mut record.change {
                for segment in &mut pending.segments {
                    match segment {
                        Segment::Local { file, .. } => {
                            let name = self.new_name();
                            fs::hard_link(orphan.folder.join(CONTENT).join(&*file), self.content(&name))?;
                            *file = name;
                        }
                        Segment::Stored { made_by, .. } => *made_by = made_by.and_then(|by| orders.get(&by).copied()),
                    }
                }
            }
            orders.insert(record.order, order);
            record.order = order;
            order += 1;
            self.write_record(&record)?;
            fs::remove_file(old)?;
            adopted.push(record);
        }
        remove_unneeded(&orphan.folder)?;
        Ok(adopted)
    }

    fn new_name(&self) -> String {
        self.next_file.fetch_add(1, Ordering::Relaxed).to_string()
    }

    fn content(&self, name: &str) -> PathBuf {
        self.folder.join(CONTENT).join(name)
    }

    fn record(&self, order: u64) -> PathBuf {
        self.folder.join(RECORDS).join(record_name(order))
    }

    /// Writes bytes into a new file; answers its name. Storage full where too little would stay free.
    pub(super) fn write_content(&self, bytes: &Bytes) -> io::Result<String> {
        if !room(&self.opened)?.fits(bytes.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let name = self.new_name();
        let path = self.content(&name);
        let written = fs::write(&path, bytes);
        if let Err(error) = written {
            self.remove_content(&name);
            return Err(error);
        }
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(name)
    }

    /// The bytes of a file, in a range.
    pub(super) fn read_content(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        read_range(&File::open(self.content(name))?, range)
    }

    /// Removes a file that nothing needs any more.
    pub(super) fn remove_content(&self, name: &str) {
        remove(&self.content(name));
    }

    /// Writes a record, or replaces the one with its turn.
    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        let path = self.record(record.order);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(record)?).and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
            // Left over, it means nothing.
            let _ = fs::remove_file(&new);
        })?;
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the record of a change that is carried out or not wanted any more.
    pub(super) fn remove_record(&self, order: u64) {
        remove(&self.record(order));
    }

    /// Keeps a record, with what it needs, for a person; answers where.
    pub(super) fn set_aside(&self, order: u64) -> io::Result<PathBuf> {
        let kept = self.folder.join(ASIDE).join(record_name(order));
        fs::rename(self.record(order), &kept)?;
        Ok(kept)
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

fn record_name(order: u64) -> String {
    format!("{order:016x}")
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        log::warn!("{}: cannot be removed: {error}", path.display());
    }
}

fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// The records of a folder in order, and how many files are none.
pub(super) fn read_records(folder: &Path) -> io::Result<(Vec<Record>, usize)> {
    let (mut records, mut damaged) = (Vec::new(), 0);
    for name in names_in(folder)?.iter().filter(|name| !name.ends_with(".new")) {
        let path = folder.join(name);
        match serde_json::from_slice::<Record>(&fs::read(&path)?) {
            Ok(record) => records.push(record),
            // Only a loss of power cuts a record; its bytes stay for a person.
            Err(error) => {
                log::error!("{}: not a whole record, left as it is: {error}", path.display());
                damaged += 1;
            }
        }
    }
    Ok((records, damaged))
}

/// Removes content that no record needs: its change was carried out, or never recorded.
fn remove_unneeded(folder: &Path) -> io::Result<()> {
    let mut needed = HashSet::new();
    for part in [RECORDS, ASIDE] {
        let (records, damaged) = read_records(&folder.join(part))?;
        if damaged > 0 {
            return Ok(());
        }
        for record in records {
            needed.extend(record.pending().into_iter().flat_map(|pending| pending.files()).map(str::to_owned));
        }
    }
    for name in names_in(&folder.join(CONTENT))?.iter().filter(|name| !needed.contains(*name)) {
        fs::remove_file(folder.join(CONTENT).join(name))?;
    }
    Ok(())
}
