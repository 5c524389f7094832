//! The bytes that changes need. Small ones lie one behind the other in few files, which are used again; a long one has a
//! file of its own. A file system takes longer to make and remove a file than to fill it, the longer the more were
//! removed lately.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::data::disk::room;
use crate::data::stage::read_range;
use crate::data::state::{make_folder, remove_known};

use super::record_log::names_in;

/// Longer content has a file of its own: one that waits long keeps no others' room.
const PACKED_BYTES_MAX: u64 = 128 << 10;

/// Bytes in a file of many at most.
const PACK_BYTES_MAX: u64 = 1 << 20;

/// Files that wait to be used again at most.
const SPARE_FILES_MAX: usize = 16;

/// A folder of content.
pub(super) struct Contents {
    folder: PathBuf,
    opened: File,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last number that a file or a use of one has.
    next: u64,
    files: HashMap<u64, ContentFile>,
    /// The one that is being filled.
    current: Option<(u64, Arc<File>)>,
    spare: Vec<u64>,
}

#[derive(Default)]
struct ContentFile {
    /// How many contents in it are needed.
    uses: usize,
    end: u64,
    /// Whether it is one of many, which this mount has made.
    is_pack: bool,
}

impl State {
    fn new_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A file with room for so many bytes; answers it and where they go.
    fn reserve(&mut self, folder: &Path, length: u64) -> io::Result<(u64, Arc<File>, u64)> {
        let is_pack = length <= PACKED_BYTES_MAX;
        let fits = |number: &u64| self.files.get(number).is_some_and(|file| file.end + length <= PACK_BYTES_MAX);
        let current = self.current.clone().filter(|(number, _)| is_pack && fits(number));
        let (number, file) = match current {
            Some(current) => current,
            None => {
                let spare = is_pack.then(|| self.spare.pop()).flatten();
                let number = spare.unwrap_or_else(|| self.new_number());
                let path = folder.join(number.to_string());
                // Old bytes behind what is written mean nothing.
                let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
                let file = Arc::new(file);
                if is_pack {
                    self.current = Some((number, file.clone()));
                }
                self.files.insert(number, ContentFile { is_pack, ..ContentFile::default() });
                (number, file)
            }
        };
        let known = self.files.entry(number).or_default();
        let offset = known.end;
        known.end += length;
        known.uses += 1;
        Ok((number, file, offset))
    }

    /// One content less is needed of a file; answers whether the file may go.
    fn release(&mut self, number: u64) -> bool {
        let Some(file) = self.files.get_mut(&number) else { return false };
        file.uses -= 1;
        if file.uses > 0 {
            return false;
        }
        file.end = 0;
        if self.current.as_ref().is_some_and(|(current, _)| *current == number) {
            return false;
        }
        if file.is_pack && self.spare.len() < SPARE_FILES_MAX {
            self.spare.push(number);
            return false;
        }
        self.files.remove(&number);
        true
    }
}

impl Contents {
    /// Opens or makes a folder.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        make_folder(&folder)?;
        let numbers = names_in(&folder)?;
        let next = numbers.iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0);
        let state = Mutex::new(State { next, ..State::default() });
        Ok(Contents { opened: File::open(&folder)?, folder, state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(file_of(name))
    }

    /// These, which a former mount left, are needed; `others` too, whatever they are. All else may go.
    pub(super) fn keep(&self, needed: &HashSet<String>, others: bool) -> io::Result<()> {
        let mut state = self.lock();
        for number in needed.iter().filter_map(|name| file_of(name).parse().ok()) {
            state.files.entry(number).or_default().uses += 1;
        }
        for name in names_in(&self.folder)? {
            let known = name.parse().ok().filter(|number| others || state.files.contains_key(number));
            match known {
                Some(number) if others => state.files.entry(number).or_default().uses += 1,
                Some(_) => {}
                None => remove_known(&self.folder.join(name))?,
            }
        }
        Ok(())
    }

    /// Takes a file over from the folder of a mount that is gone; answers what its content is called here.
    pub(super) fn adopt(&self, folder: &Path, name: &str) -> io::Result<String> {
        let number = self.lock().new_number();
        fs::hard_link(folder.join(file_of(name)), self.folder.join(number.to_string()))?;
        self.lock().files.insert(number, ContentFile { uses: 1, ..ContentFile::default() });
        Ok(number.to_string())
    }

    /// Writes bytes; answers a name for them that no others had, which tells the file and which use of it this is, and
    /// where in the file they are. Storage full where too little would stay free.
    pub(super) fn write(&self, bytes: &Bytes) -> io::Result<(String, Range<u64>)> {
        let length = bytes.len() as u64;
        if !room(&self.opened)?.fits(length) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (number, file, offset, name) = {
            let mut state = self.lock();
            let (number, file, offset) = state.reserve(&self.folder, length)?;
            (number, file, offset, format!("{number}.{}", state.new_number()))
        };
        match file.write_all_at(bytes, offset) {
            Ok(()) => Ok((name, offset..offset + length)),
            Err(error) => {
                self.release(number);
                Err(error)
            }
        }
    }

    /// The bytes of a file, in a range.
    pub(super) fn read(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        read_range(&File::open(self.path(name))?, range)
    }

    /// Nothing needs a content any more.
    pub(super) fn remove(&self, name: &str) {
        file_of(name).parse().into_iter().for_each(|number| self.release(number));
    }

    fn release(&self, number: u64) {
        let may_go = self.lock().release(number);
        let path = self.folder.join(number.to_string());
        if may_go && let Err(error) = remove_known(&path) {
            log::warn!("{}: cannot be removed: {error}", path.display());
        }
    }
}

/// The file of a content's name.
pub(super) fn file_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(file, _)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> usize {
        names_in(folder).expect("names").len()
    }

    #[test]
    fn small_ones_share_files_that_are_used_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let contents = Contents::open(folder.path().to_owned()).expect("contents");
        let bytes = |seed: u32| Bytes::from(vec![seed as u8; 40_000]);
        let mut names = HashSet::new();
        for round in 0..10 {
            let kept: Vec<_> = (0..50).map(|n| contents.write(&bytes(n + round)).expect("written")).collect();
            for (n, (name, range)) in (0..).zip(&kept) {
                assert_eq!(contents.read(name, range.clone()).expect("read"), bytes(n + round));
                assert!(names.insert(name.clone()), "no name is used twice: {name}");
            }
            assert!(files(folder.path()) <= 3, "2 MB lie in files of 1 MiB");
            kept.iter().for_each(|(name, _)| contents.remove(name));
        }
    }

    #[test]
    fn a_long_one_goes_with_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let contents = Contents::open(folder.path().to_owned()).expect("contents");
        let (small, _) = contents.write(&Bytes::from_static(b"small")).expect("written");
        let (long, range) = contents.write(&Bytes::from(vec![7; 200_000])).expect("written");
        assert_eq!((range, files(folder.path())), (0..200_000, 2));
        contents.remove(&long);
        assert_eq!(files(folder.path()), 1);
        contents.remove(&small);
    }

    #[test]
    fn what_a_former_mount_left_goes_with_the_last_that_needs_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let contents = Contents::open(folder.path().to_owned()).expect("contents");
        let kept: Vec<_> = (0..3).map(|n| contents.write(&Bytes::from(vec![n; 10])).expect("written")).collect();
        contents.write(&Bytes::from(vec![1; 200_000])).expect("written");
        drop(contents);
        let contents = Contents::open(folder.path().to_owned()).expect("contents");
        let needed = kept.iter().skip(1).map(|(name, _)| name.clone()).collect();
        contents.keep(&needed, false).expect("kept");
        assert_eq!(files(folder.path()), 1, "what nothing needs is gone");
        contents.remove(&kept[1].0);
        assert_eq!(contents.read(&kept[2].0, kept[2].1.clone()).expect("read"), vec![2; 10]);
        contents.remove(&kept[2].0);
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn what_cannot_be_told_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let contents = Contents::open(folder.path().to_owned()).expect("contents");
        let (name, _) = contents.write(&Bytes::from_static(b"bytes")).expect("written");
        drop(contents);
        let contents = Contents::open(folder.path().to_owned()).expect("contents");
        contents.keep(&HashSet::from([name.clone()]), true).expect("kept");
        contents.remove(&name);
        assert_eq!(files(folder.path()), 1);
    }
}
