//! The bound on disk: what the folder holds, and which files go first. The least recently used go, whole files at a
//! time, down to nine tenths of the bound, so that it is seldom done. Refuses to touch files that are not named as
//! ours are.

use std::collections::{BTreeMap, BinaryHeap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Shared;
use super::entry::{self, DATA, SUMS};

/// Candidates held in memory at most; more go with another look.
const CANDIDATES_MAX: usize = 65_536;

/// A file that may go. Ordered by its last use.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    used: SystemTime,
    bytes: u64,
    folder: PathBuf,
    stem: String,
}

/// What a look at the folder found.
pub(super) struct Scan {
    /// What all files take on disk.
    pub(super) used_bytes: u64,
    /// The least recently used ones.
    oldest: BinaryHeap<Found>,
}

/// Looks through the folder for what it holds, and for the least recently used files that take `wanted` bytes; `own`
/// is not among them.
pub(super) fn scan(root: &Path, wanted: u64, own: Option<&str>) -> io::Result<Scan> {
    let mut scan = Scan { used_bytes: 0, oldest: BinaryHeap::new() };
    let mut candidates_bytes = 0;
    let folders = match fs::read_dir(root) {
        // Somebody removed it all under our feet; the next chunk makes it anew.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(scan),
        folders => folders?,
    };
    for folder in folders {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for found in files(&folder.path())?.into_values() {
            scan.used_bytes += found.bytes;
            if own == Some(found.stem.as_str()) {
                continue;
            }
            candidates_bytes += found.bytes;
            scan.oldest.push(found);
            while let Some(newest) = scan.oldest.peek()
                && (candidates_bytes - newest.bytes >= wanted || scan.oldest.len() > CANDIDATES_MAX)
            {
                candidates_bytes -= newest.bytes;
                scan.oldest.pop();
            }
        }
    }
    Ok(scan)
}

/// The versions in a folder, each from its two files or the one that is left of them.
fn files(folder: &Path) -> io::Result<BTreeMap<String, Found>> {
    let mut all: BTreeMap<String, Found> = BTreeMap::new();
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        listed => listed?,
    };
    for file in listed {
        let file = file?;
        let name = file.file_name();
        let Some((stem, ending)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
        if ending != DATA && ending != SUMS || !entry::is_stem(stem) {
            continue;
        }
        let metadata = match file.metadata() {
            // Another mount evicts too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let found = all.entry(stem.to_owned()).or_insert_with(|| Found {
            used: SystemTime::UNIX_EPOCH,
            bytes: 0,
            folder: folder.to_owned(),
            stem: stem.to_owned(),
        });
        found.bytes += metadata.blocks() * 512;
        found.used = found.used.max(metadata.modified()?);
    }
    Ok(all)
}

/// Sees to it that `wanted` more bytes stay within the bound. Answers whether they do; `own` is not evicted for it.
pub(super) fn make_room(shared: &Shared, wanted: u64, own: Option<&str>) -> io::Result<bool> {
    let over = |limit: u64| shared.used_bytes.load(Ordering::Relaxed).saturating_add(wanted).saturating_sub(limit);
    if over(shared.bytes_max) == 0 {
        return Ok(true);
    }
    shared.lock.lock()?;
    let result = evict(shared, over, own);
    shared.lock.unlock()?;
    result
}

fn evict(shared: &Shared, over: impl Fn(u64) -> u64, own: Option<&str>) -> io::Result<bool> {
    let low_water = shared.bytes_max / 10 * 9;
    loop {
        let scan = scan(&shared.folder, over(low_water), own)?;
        shared.used_bytes.store(scan.used_bytes, Ordering::Relaxed);
        if over(shared.bytes_max) == 0 {
            return Ok(true);
        }
        let mut removed = 0;
        for found in scan.oldest.into_sorted_vec() {
            if over(low_water) == 0 {
                break;
            }
            entry::remove(&found.folder, &found.stem);
            shared.used_bytes.fetch_sub(found.bytes, Ordering::Relaxed);
            removed += 1;
        }
        if removed == 0 {
            return Ok(false);
        }
        log::debug!("the cache {} evicted {removed} files", shared.folder.display());
    }
}
