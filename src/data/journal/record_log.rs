//! The records of a journal, one behind the other in few files: to take a change in costs one write.
//!
//! A record is a frame: its length, its checksum, which of all records it is, and what it says. A frame that was
//! written in part, by a process that died over it, ends its file. One that is not wanted any more is marked in place, and
//! a file without any other goes; one that is stuck keeps its file, so no record ever has to be moved.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use twox_hash::XxHash3_64;

use crate::data::state::{make_folder, remove_known};

use super::record::Record;

/// Bytes before what a record says: its length, its checksum, and its generation, each of eight bytes, the lowest first.
const HEADER_BYTES: usize = 24;

/// In the last byte of its length: the record does not count any more. One byte is never written in part.
const REMOVED: u8 = 0x80;
const REMOVED_AT: u64 = 7;

/// A longer file is followed by another.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file of which nothing counts is begun anew once it is so long.
const RESTART_BYTES: u64 = 64 << 10;

/// A folder of records.
pub(super) struct RecordLog {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts records, so that the newer of two of one turn is known.
    generation: u64,
    files: BTreeMap<u64, RecordFile>,
    /// Where each turn's record is.
    places: HashMap<u64, Place>,
    /// Whether the last file is our own, and can be written on.
    may_append: bool,
    next_file: u64,
}

struct RecordFile {
    file: File,
    /// How many of its records count.
    live: usize,
    end: u64,
    /// What cannot be read is left for a person to look at.
    is_damaged: bool,
}

#[derive(Clone, Copy)]
struct Place {
    file: u64,
    offset: u64,
}

impl RecordLog {
    /// Opens or makes a folder; answers the records that count in it, in order.
    pub(super) fn open(folder: PathBuf) -> io::Result<(RecordLog, Vec<Record>)> {
        make_folder(&folder)?;
        let mut state = State { next_file: 1, ..State::default() };
        let records = read_records(&folder)?;
        for (name, read) in &records.files {
            let Ok(number) = name.parse() else { continue };
            state.next_file = state.next_file.max(number + 1);
            let file = open_to_write(&folder.join(name))?;
            let (live, is_damaged) = (read.frames, read.damaged > 0);
            state.files.insert(number, RecordFile { file, live, end: read.bytes, is_damaged });
        }
        let mut found = Vec::with_capacity(records.found.len());
        for one in records.found {
            state.generation = state.generation.max(one.generation);
            let Ok(file) = one.file.parse() else { continue };
            state.places.insert(one.record.order, Place { file, offset: one.offset });
            found.push(one.record);
        }
        for (file, offset) in records.outdated {
            file.parse().into_iter().for_each(|file| state.free(&folder, Place { file, offset }));
        }
        let empty = state.files.iter().filter(|(_, file)| file.live == 0 && !file.is_damaged);
        let empty: Vec<u64> = empty.map(|(number, _)| *number).collect();
        empty.into_iter().for_each(|number| state.remove_file(&folder, number));
        Ok((RecordLog { folder, state: Mutex::new(state) }, found))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Adds a record, or replaces the one with its turn. It is there as a whole or not at all.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let json = serde_json::to_vec(record)?;
        let mut state = self.lock();
        state.generation += 1;
        let frame = framed(&json, state.generation);
        let place = state.append(&self.folder, &frame)?;
        if let Some(old) = state.places.insert(record.order, place) {
            state.free(&self.folder, old);
        }
        Ok(())
    }

    /// The record of a change that is carried out, or not wanted any more.
    pub(super) fn remove(&self, order: u64) {
        let mut state = self.lock();
        if let Some(place) = state.places.remove(&order) {
            state.free(&self.folder, place);
        }
    }

    /// Moves a record into a file of its own in another folder; answers which.
    pub(super) fn move_out(&self, record: &Record, folder: &Path) -> io::Result<PathBuf> {
        let generation = self.lock().generation;
        let path = folder.join(format!("{}-{generation}", record.order));
        fs::write(&path, framed(&serde_json::to_vec(record)?, generation))?;
        self.remove(record.order);
        Ok(path)
    }
}

impl State {
    fn append(&mut self, folder: &Path, frame: &[u8]) -> io::Result<Place> {
        let last = self.files.last_entry().filter(|last| self.may_append && last.get().end < FILE_BYTES_MAX);
        let number = match last {
            Some(last) => *last.key(),
            None => {
                let number = self.next_file;
                let file = open_to_write(&folder.join(number.to_string()))?;
                (self.next_file, self.may_append) = (number + 1, true);
                self.files.insert(number, RecordFile { file, live: 0, end: 0, is_damaged: false });
                number
            }
        };
        let log = self.files.get_mut(&number).ok_or(io::ErrorKind::NotFound)?;
        let offset = log.end;
        if let Err(error) = log.file.write_all_at(frame, offset) {
            // What was written of it must not be taken for a record that is damaged.
            if let Err(error) = log.file.set_len(offset) {
                log::warn!("the journal's records: {error}");
            }
            return Err(error);
        }
        log.end += frame.len() as u64;
        log.live += 1;
        Ok(Place { file: number, offset })
    }

    /// A record does not count any more.
    fn free(&mut self, folder: &Path, place: Place) {
        let Some(log) = self.files.get_mut(&place.file) else { return };
        log.live -= 1;
        let last = self.next_file - 1;
        let freed = match log.live {
            0 if log.is_damaged => log.file.write_all_at(&[REMOVED], place.offset + REMOVED_AT),
            0 if place.file != last || !self.may_append => return self.remove_file(folder, place.file),
            0 if log.end >= RESTART_BYTES => log.file.set_len(0).map(|()| log.end = 0),
            _ => log.file.write_all_at(&[REMOVED], place.offset + REMOVED_AT),
        };
        if let Err(error) = freed {
            log::warn!("the journal's records: {error}");
        }
    }

    fn remove_file(&mut self, folder: &Path, number: u64) {
        self.files.remove(&number);
        let path = folder.join(number.to_string());
        if let Err(error) = remove_known(&path) {
            log::warn!("{}: cannot be removed: {error}", path.display());
        }
    }
}

fn open_to_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

fn framed(json: &[u8], generation: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + json.len());
    for number in [json.len() as u64, XxHash3_64::oneshot_with_seed(generation, json), generation] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(json);
    bytes
}

/// A record that was found.
pub(super) struct Found {
    file: String,
    offset: u64,
    generation: u64,
    /// What it says.
    pub(super) record: Record,
}

impl Found {
    /// Marks it in the folder that it was found in: it does not count any more.
    pub(super) fn remove(&self, folder: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).open(folder.join(&self.file))?.write_all_at(&[REMOVED], self.offset + REMOVED_AT)
    }
}

/// What one file of a folder holds.
#[derive(Default)]
struct Read {
    frames: usize,
    damaged: usize,
    /// Up to the end of its last frame.
    bytes: u64,
}

/// What a folder of records holds.
#[derive(Default)]
pub(super) struct Records {
    /// In order.
    pub(super) found: Vec<Found>,
    /// Records of a turn that has a newer one.
    outdated: Vec<(String, u64)>,
    files: BTreeMap<String, Read>,
}

impl Records {
    /// Whether some of it cannot be read.
    pub(super) fn is_damaged(&self) -> bool {
        self.files.values().any(|read| read.damaged > 0)
    }
}

/// The records of a folder, whether its mount lives or not.
pub(super) fn read_records(folder: &Path) -> io::Result<Records> {
    let (mut records, mut found) = (Records::default(), BTreeMap::<u64, Found>::new());
    for name in names_in(folder)? {
        let path = folder.join(&name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        let mut read = Read::default();
        while let Some(frame) = Frame::at(&bytes, read.bytes) {
            let offset = read.bytes;
            read.bytes += frame.length();
            match frame.record() {
                _ if frame.is_removed => {}
                Some(record) => {
                    read.frames += 1;
                    let one = Found { file: name.clone(), offset, generation: frame.generation, record };
                    let older = match found.get(&one.record.order) {
                        Some(known) if known.generation > one.generation => Some(one),
                        _ => found.insert(one.record.order, one),
                    };
                    records.outdated.extend(older.map(|older| (older.file, older.offset)));
                }
                // Only the disk, or a loss of power, leaves such.
                None => {
                    log::error!("{}: a damaged record at {offset}, left as it is", path.display());
                    read.damaged += 1;
                }
            }
        }
        records.files.insert(name, read);
    }
    records.found = found.into_values().collect();
    Ok(records)
}

/// A record as it lies in a file.
struct Frame<'a> {
    is_removed: bool,
    sum: u64,
    generation: u64,
    json: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The whole frame at an offset, if there is one.
    fn at(bytes: &'a [u8], offset: u64) -> Option<Self> {
        let (header, rest) = bytes.get(usize::try_from(offset).ok()?..)?.split_at_checked(HEADER_BYTES)?;
        let mut numbers = header.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok().map(u64::from_le_bytes));
        let (length, sum, generation) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let removed = u64::from(REMOVED) << (8 * REMOVED_AT);
        let json = rest.get(..usize::try_from(length & !removed).ok()?)?;
        (!json.is_empty()).then_some(Frame { is_removed: length & removed != 0, sum, generation, json })
    }

    fn length(&self) -> u64 {
        (HEADER_BYTES + self.json.len()) as u64
    }

    fn record(&self) -> Option<Record> {
        let is_whole = XxHash3_64::oneshot_with_seed(self.generation, self.json) == self.sum;
        serde_json::from_slice(self.json).ok().filter(|_| is_whole)
    }
}

/// The names in a folder, sorted.
pub(super) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::journal::record::Change;
    use crate::store::{BucketName, Key, Location};

    fn record(order: u64, key: &str) -> Record {
        let to = Location { bucket: BucketName::new("bucket").expect("plain"), key: Key::new(key).expect("plain") };
        Record { order, after_closes: false, to, change: Change::Delete }
    }

    fn keys(records: &[Record]) -> Vec<(u64, &str)> {
        records.iter().map(|record| (record.order, record.to.key.as_str())).collect()
    }

    fn reopened(folder: &Path) -> Vec<Record> {
        RecordLog::open(folder.to_owned()).expect("a log").1
    }

    #[test]
    fn what_was_written_is_found_in_order_and_the_newer_of_two_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, found) = RecordLog::open(folder.path().to_owned()).expect("a log");
        assert!(found.is_empty());
        for (order, key) in [(2, "b"), (1, "a"), (3, "c"), (2, "b again"), (4, "d")] {
            log.write(&record(order, key)).expect("written");
        }
        log.remove(3);
        drop(log);
        assert_eq!(keys(&reopened(folder.path())), [(1, "a"), (2, "b again"), (4, "d")]);
    }

    #[test]
    fn a_record_that_was_cut_off_ends_its_file_and_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, _) = RecordLog::open(folder.path().to_owned()).expect("a log");
        log.write(&record(1, "a")).expect("written");
        log.write(&record(2, "b")).expect("written");
        drop(log);
        let path = folder.path().join("1");
        let whole = fs::read(&path).expect("the file");
        let first = Frame::at(&whole, 0).expect("a frame").length() as usize;
        for length in first..whole.len() {
            fs::write(&path, &whole[..length]).expect("cut");
            let read = read_records(folder.path()).expect("readable");
            assert_eq!((read.found.len(), read.is_damaged()), (1, false), "cut at {length} of {}", whole.len());
        }
        // What comes after a restart does not lie behind the cut.
        let (log, _) = RecordLog::open(folder.path().to_owned()).expect("a log");
        log.write(&record(3, "c")).expect("written");
        drop(log);
        assert_eq!(keys(&reopened(folder.path())), [(1, "a"), (3, "c")]);
    }

    #[test]
    fn a_damaged_record_is_kept_and_the_others_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, _) = RecordLog::open(folder.path().to_owned()).expect("a log");
        (1..=3).for_each(|order| log.write(&record(order, "a")).expect("written"));
        drop(log);
        let path = folder.path().join("1");
        let mut bytes = fs::read(&path).expect("the file");
        let at = Frame::at(&bytes, 0).expect("a frame").length() as usize + HEADER_BYTES + 3;
        bytes[at] ^= 1;
        fs::write(&path, &bytes).expect("damaged");
        let (log, found) = RecordLog::open(folder.path().to_owned()).expect("a log");
        assert_eq!(keys(&found), [(1, "a"), (3, "a")]);
        [1, 3].into_iter().for_each(|order| log.remove(order));
        drop(log);
        assert!(path.exists(), "a person may look at it");
        assert!(reopened(folder.path()).is_empty());
    }

    #[test]
    fn files_go_when_nothing_in_them_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, _) = RecordLog::open(folder.path().to_owned()).expect("a log");
        let long = "k/".repeat(500) + "k";
        let count = 3 * FILE_BYTES_MAX / 1000;
        (1..=count).for_each(|order| log.write(&record(order, &long)).expect("written"));
        assert!(names_in(folder.path()).expect("names").len() >= 3);
        // The first one of all is stuck, and keeps its file.
        (2..=count).for_each(|order| log.remove(order));
        assert_eq!(names_in(folder.path()).expect("names").len(), 2);
        drop(log);
        assert_eq!(keys(&reopened(folder.path())), [(1, long.as_str())]);
        let (log, _) = RecordLog::open(folder.path().to_owned()).expect("a log");
        log.remove(1);
        assert!(names_in(folder.path()).expect("names").is_empty());
    }
}
