//! Small files that hold a record: written so that a crash leaves the old one or the new one, whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Locks what no panic can leave half changed: every change under these locks is one insertion or removal.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new name that no other file has.
pub fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Makes what was done to a folder's names durable. Blocks.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a record and the bytes behind it to a new file that survives a crash once its folder is synced. Blocks.
pub fn write_durably(path: &Path, record: &impl Serialize, inline: &[u8]) -> io::Result<()> {
    let mut content = serde_json::to_vec(record)?;
    content.push(b'\n');
    content.extend_from_slice(inline);
    let mut file = File::create_new(path)?;
    file.write_all(&content)?;
    file.sync_all()
}

/// Reads a record, without the bytes behind it. Blocks.
pub fn read_record<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).read_until(b'\n', &mut line)?;
    serde_json::from_slice(&line)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}
