//! The journal's folder: `records/` has a file for each change, `content/` the bytes that they need, `aside/` records
//! that nothing can be made of and that wait for a person.
//!
//! A record is written after what it needs, with its checksum before it: it is there as a whole or not at all. Of two of
//! one turn the newer counts. A process that is killed loses nothing of it. Files are used again, since a file system
//! takes longer to make and remove one than to fill it. It refuses to fill the disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::data::disk::room;
use crate::data::stage::read_range;
use crate::data::state::{Orphan, make_folder, remove_known};

use super::record::{Change, Record, Segment};

pub(super) const RECORDS: &str = "records";
pub(super) const CONTENT: &str = "content";
pub(super) const ASIDE: &str = "aside";

/// Bytes before a record in its file: its length, its checksum, and which of a turn's records it is, counted up. A file
/// whose length is 0 is free.
const HEADER_BYTES: usize = 24;

/// A longer file of content is not worth being kept for the next user, nor are more of them than that.
const SPARE_BYTES_MAX: u64 = 1 << 20;
const SPARE_FILES_MAX: usize = 64;

/// The folder.
pub(super) struct Spool {
    folder: PathBuf,
    opened: File,
    files: Mutex<Files>,
    /// How many writes were made, and how many of these the disk has.
    written: AtomicU64,
    synced: tokio::sync::Mutex<u64>,
}

/// Which files there are.
#[derive(Default)]
struct Files {
    /// A number that no file has yet.
    next: u64,
    /// Counts records, so that the newer of two is known.
    generation: u64,
    /// The file of each turn's record.
    records: HashMap<u64, u64>,
    spare_records: Vec<u64>,
    spare_content: Vec<u64>,
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
        for part in [RECORDS, CONTENT, ASIDE] {
            make_folder(&folder.join(part))?;
        }
        let opened = File::open(&folder)?;
        let spool =
            Spool { folder, opened, files: Mutex::default(), written: AtomicU64::new(0), synced: Default::default() };
        let mut records = spool.take_stock()?;
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

    /// Finds what a former mount left, and removes the files that it had no use for any more.
    fn take_stock(&self) -> io::Result<Vec<Record>> {
        let folder = self.folder.join(RECORDS);
        let names = [names_in(&self.folder.join(CONTENT))?, names_in(&folder)?].concat();
        let Records { found, unused, .. } = read_records(&folder)?;
        for name in unused {
            remove_known(&folder.join(name))?;
        }
        let mut files = self.lock();
        files.next = names.iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0);
        let mut records = Vec::with_capacity(found.len());
        for one in found {
            files.generation = files.generation.max(one.generation);
            files.records.extend(one.name.parse().ok().map(|number: u64| (one.record.order, number)));
            records.push(one.record);
        }
        Ok(records)
    }

    /// Takes over the changes of a journal whose mount is gone, from `order` on.
    fn adopt(&self, orphan: &Orphan, mut order: u64) -> io::Result<Vec<Record>> {
        let records = orphan.folder.join(RECORDS);
        if !records.exists() {
            return Ok(Vec::new());
        }
        let mut adopted = Vec::new();
        let mut orders = HashMap::new();
        for Found { name: old, mut record, .. } in read_records(&records)?.found {
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
            self.write_record(&record)?;
            fs::remove_file(records.join(old))?;
            adopted.push(record);
        }
        remove_unneeded(&orphan.folder)?;
        Ok(adopted)
    }

    fn content(&self, name: &str) -> PathBuf {
        self.folder.join(CONTENT).join(file_of(name))
    }

    fn record(&self, number: u64) -> PathBuf {
        self.folder.join(RECORDS).join(number.to_string())
    }

    /// Writes bytes into a file that nothing else uses; answers a name for them that no others had: the file's, and which
    /// use of it this is. Storage full where too little would stay free.
    pub(super) fn write_content(&self, bytes: &Bytes) -> io::Result<String> {
        if !room(&self.opened)?.fits(bytes.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let name = {
            let mut files = self.lock();
            let number = files.spare_content.pop().unwrap_or_else(|| files.new_number());
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
        let may_stay = self.lock().spare_content.len() < SPARE_FILES_MAX;
        // One that was taken over may have another name, in the journal that it was taken from.
        match fs::metadata(&path) {
            Ok(found) if may_stay && found.len() <= SPARE_BYTES_MAX && found.nlink() == 1 => {
                self.lock().spare_content.extend(file_of(name).parse::<u64>().ok());
            }
            _ => remove(&path),
        }
    }

    /// Writes a record, or replaces the one with its turn.
    pub(super) fn write_record(&self, record: &Record) -> io::Result<()> {
        let json = serde_json::to_vec(record)?;
        let (number, generation) = {
            let mut files = self.lock();
            files.generation += 1;
            (files.spare_records.pop().unwrap_or_else(|| files.new_number()), files.generation)
        };
        let path = self.record(number);
        let written = open_to_write(&path).and_then(|file| file.write_all_at(&framed(&json, generation), 0));
        if let Err(error) = written {
            remove(&path);
            return Err(error);
        }
        self.written.fetch_add(1, Ordering::Relaxed);
        let replaced = self.lock().records.insert(record.order, number);
        if let Some(old) = replaced {
            self.free_record(old);
        }
        Ok(())
    }

    /// Removes the record of a change that is carried out or not wanted any more.
    pub(super) fn remove_record(&self, order: u64) {
        let number = self.lock().records.remove(&order);
        if let Some(number) = number {
            self.free_record(number);
        }
    }

    fn free_record(&self, number: u64) {
        let path = self.record(number);
        let freed = open_to_write(&path).and_then(|file| file.write_all_at(&[0; HEADER_BYTES], 0));
        match freed {
            Ok(()) => self.lock().spare_records.push(number),
            Err(error) => {
                log::warn!("{}: {error}", path.display());
                remove(&path);
            }
        }
    }

    /// Keeps a record, with what it needs, for a person; answers where.
    pub(super) fn set_aside(&self, order: u64) -> io::Result<PathBuf> {
        let number = self.lock().records.remove(&order).ok_or(io::ErrorKind::NotFound)?;
        let kept = self.folder.join(ASIDE).join(format!("{order}-{number}"));
        if let Err(error) = fs::rename(self.record(number), &kept) {
            self.lock().records.insert(order, number);
            return Err(error);
        }
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

/// The file of a content's name.
pub(super) fn file_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(file, _)| file)
}

fn open_to_write(path: &Path) -> io::Result<File> {
    // Old bytes behind what is written mean nothing.
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

fn framed(json: &[u8], generation: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + json.len());
    for number in [json.len() as u64, xxh3_64_with_seed(json, generation), generation] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(json);
    bytes
}

/// A record's file holds something, but no whole record.
struct Damaged;

/// The record in a file's bytes, and which it is; `None` where the file is free.
fn parse(bytes: &[u8]) -> Result<Option<(Record, u64)>, Damaged> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(Damaged)?;
    let mut numbers = header.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().expect("eight bytes")));
    let (Some(length), Some(sum), Some(generation)) = (numbers.next(), numbers.next(), numbers.next()) else {
        return Err(Damaged);
    };
    if length == 0 {
        return Ok(None);
    }
    let json = usize::try_from(length).ok().and_then(|length| rest.get(..length)).ok_or(Damaged)?;
    let record = serde_json::from_slice(json).ok().filter(|_| xxh3_64_with_seed(json, generation) == sum);
    record.map(|record| Some((record, generation))).ok_or(Damaged)
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

/// A record that was found.
pub(super) struct Found {
    /// Its file.
    name: String,
    generation: u64,
    /// What it says.
    pub(super) record: Record,
}

/// What a folder of records holds.
#[derive(Default)]
pub(super) struct Records {
    /// In order.
    pub(super) found: Vec<Found>,
    /// Files that hold none that counts.
    unused: Vec<String>,
    damaged: usize,
}

/// The records of a folder.
pub(super) fn read_records(folder: &Path) -> io::Result<Records> {
    let (mut records, mut found) = (Records::default(), BTreeMap::<u64, Found>::new());
    for name in names_in(folder)? {
        let path = folder.join(&name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        match parse(&bytes) {
            Ok(None) => records.unused.push(name),
            Ok(Some((record, generation))) => {
                let older = match found.get(&record.order) {
                    Some(known) if known.generation > generation => Some(name),
                    _ => found.insert(record.order, Found { name, generation, record }).map(|older| older.name),
                };
                records.unused.extend(older);
            }
            // Only a process that dies in the middle of a change, or a loss of power, leaves such.
            Err(Damaged) => {
                log::error!("{}: not a whole record, left as it is", path.display());
                records.damaged += 1;
            }
        }
    }
    records.found = found.into_values().collect();
    Ok(records)
}

/// Removes content that no record needs: its change was carried out, or never recorded.
fn remove_unneeded(folder: &Path) -> io::Result<()> {
    let mut needed = HashSet::new();
    for part in [RECORDS, ASIDE] {
        let Records { found, damaged, .. } = read_records(&folder.join(part))?;
        if damaged > 0 {
            return Ok(());
        }
        for Found { record, .. } in found {
            let files = record.pending().into_iter().flat_map(|pending| pending.files());
            needed.extend(files.map(|name| file_of(name).to_owned()));
        }
    }
    for name in names_in(&folder.join(CONTENT))?.iter().filter(|name| !needed.contains(*name)) {
        remove_known(&folder.join(CONTENT).join(name))?;
    }
    Ok(())
}
