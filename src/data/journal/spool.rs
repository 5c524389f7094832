//! The journal's folder: `records/` is the log of changes, `content/` has the bytes that they need, `aside/` records
//! that nothing can be made of and that wait for a person.
//!
//! A record is written after what it needs: it is there as a whole or not at all. A process that is killed loses nothing
//! of it. Files of content are used again, since a file system takes longer to make and remove one than to fill it. It
//! refuses to fill the disk.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::data::disk::room;
use crate::data::stage::read_range;
use crate::data::state::{Orphan, make_folder, remove_known};

use super::record::{Change, Record, Segment};
use super::record_log::{Found, RecordLog, names_in, read_records};

pub(super) const RECORDS: &str = "records";
pub(super) const CONTENT: &str = "content";
pub(super) const ASIDE: &str = "aside";

/// A longer file of content is not worth being kept for the next user, nor are more of them than that.
const SPARE_BYTES_MAX: u64 = 1 << 20;
const SPARE_FILES_MAX: usize = 64;

/// The folder.
pub(super) struct Spool {
    folder: PathBuf,
    opened: File,
    log: RecordLog,
    files: Mutex<Files>,
    /// How many writes were made, and how many of these the disk has.
    written: AtomicU64,
    synced: tokio::sync::Mutex<u64>,
}

/// Which files of content there are.
struct Files {
    /// The last number that a file has.
    next: u64,
    spare: Vec<u64>,
}

impl Files {
    fn new_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Spool {
    /// Opens or makes the folder, takes over what `orphans` hold, and answers the changes that wait in it, in order.
    pub(super) fn open(folder: PathBuf, orphans: Vec<Orphan>) -> io::Result<(Spool, Vec<Record>)> {
        for part in [CONTENT, ASIDE] {
            make_folder(&folder.join(part))?;
        }
        let (log, mut records) = RecordLog::open(folder.join(RECORDS))?;
        let numbers = names_in(&folder.join(CONTENT))?;
        let next = numbers.iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0);
        let spool = Spool {
            opened: File::open(&folder)?,
            folder,
            log,
            files: Mutex::new(Files { next, spare: Vec::new() }),
            written: AtomicU64::new(0),
            synced: Default::default(),
        };
        for orphan in orphans {
            let next = records.last().map_or(1, |record| record.order + 1);
            records.extend(spool.adopt(&orphan, next)?);
        }
        remove_unneeded(&spool.folder)?;
        Ok((spool, records))
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("no panic under this lock")
    }

    /// Takes over the changes of a journal whose mount is gone, from `order` on.
    fn adopt(&self, orphan: &Orphan, mut order: u64) -> io::Result<Vec<Record>> {
        let records = orphan.folder.join(RECORDS);
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
                        Segment::Local { file, .. } => {
                            let name = self.lock().new_number().to_string();
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
            self.write_record(record)?;
            found.remove(&records)?;
            adopted.push(found.record);
        }
        remove_unneeded(&orphan.folder)?;
        Ok(adopted)
    }

    fn content(&self, name: &str) -> PathBuf {
        self.folder.join(CONTENT).join(file_of(name))
    }

    /// Writes bytes into a file that nothing else uses; answers a name for them that no others had: the file's, and which
    /// use of it this is. Storage full where too little would stay free.
    pub(super) fn write_content(&self, bytes: &Bytes) -> io::Result<String> {
        if !room(&self.opened)?.fits(bytes.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let name = {
            let mut files = self.lock();
            let number = files.spare.pop().unwrap_or_else(|| files.new_number());
            format!("{number}.{}", files.new_number())
        };
        let written = open_to_write(&self.content(&name)).and_then(|file| file.write_all_at(bytes, 0));
        if let Err(error) = written {
            remove(&self.content(&name));
            return Err(error);
        }
        self.written.fetch_add(1, Ordering::Relaxed);
        Ok(name)
    }

    /// The bytes of a file, in a range.
    pub(super) fn read_content(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        read_range(&File::open(self.content(name))?, range)
    }

    /// Nothing needs a file any more.
    pub(super) fn remove_content(&self, name: &str) {
        let path = self.content(name);
        let may_stay = self.lock().spare.len() < SPARE_FILES_MAX;
        // One that was taken over may have another name, in the journal that it was taken from.
        match fs::metadata(&path) {
            Ok(found) if may_stay && found.len() <= SPARE_BYTES_MAX && found.nlink() == 1 => {
                self.lock().spare.extend(file_of(name).parse::<u64>().ok());
            }
            _ => remove(&path),
        }
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
        self.log.move_out(record, &self.folder.join(ASIDE))
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

/// The file of a content's name.
pub(super) fn file_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(file, _)| file)
}

fn open_to_write(path: &Path) -> io::Result<File> {
    // Old bytes behind what is written mean nothing.
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        log::warn!("{}: cannot be removed: {error}", path.display());
    }
}

/// Removes content that no record needs: its change was carried out, or never recorded.
fn remove_unneeded(folder: &Path) -> io::Result<()> {
    let mut needed = HashSet::new();
    for part in [RECORDS, ASIDE] {
        let records = read_records(&folder.join(part))?;
        if records.is_damaged() {
            return Ok(());
        }
        for Found { record, .. } in records.found {
            let files = record.pending().into_iter().flat_map(|pending| pending.files());
            needed.extend(files.map(|name| file_of(name).to_owned()));
        }
    }
    for name in names_in(&folder.join(CONTENT))?.iter().filter(|name| !needed.contains(*name)) {
        remove_known(&folder.join(CONTENT).join(name))?;
    }
    Ok(())
}
