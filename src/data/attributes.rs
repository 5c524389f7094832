//! POSIX attributes that a HEAD told, kept over mounts: of each object those of its last known version. What was told of
//! a version stays true, so nothing here grows old.
//!
//! A file beside the stage, written in batches. Where it cannot be read or written there is nothing in it, and the store
//! is asked; what a killed daemon had not written yet is asked for again.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::format::header::Posix;
use crate::store::{ETag, Location};

use super::stage::off_worker;

/// By bucket and key.
const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("attributes");

/// Objects that are remembered at most; with one more all are forgotten. Each takes about 300 bytes of the disk.
const OBJECTS_MAX: u64 = 1_000_000;

/// Objects that are written together.
const BATCH_OBJECTS: usize = 1000;

/// Memory for pages of the file, in bytes.
const MEMORY_BYTES: usize = 4 << 20;

/// What is remembered of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Which version this is about.
    pub etag: ETag,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was stored.
    pub modified: SystemTime,
    /// What its metadata tells.
    pub posix: Posix,
    /// Bytes of the target, if its metadata holds that of a symbolic link.
    pub target_bytes: Option<u64>,
}

/// The attributes of objects.
#[derive(Debug)]
pub struct Attributes {
    path: PathBuf,
    objects_max: u64,
    file: OnceCell<Option<Arc<Database>>>,
    /// What is to be written.
    pending: Mutex<HashMap<String, Remembered>>,
}

impl Attributes {
    /// Those in a file, which is made when there are any.
    pub(super) fn new(path: PathBuf) -> Self {
        Attributes { path, objects_max: OBJECTS_MAX, file: OnceCell::new(), pending: Mutex::default() }
    }

    /// What is remembered of this version of an object.
    pub async fn find(
        &self,
        location: &Location,
        etag: &ETag,
        size_bytes: u64,
        modified: SystemTime,
    ) -> Option<Remembered> {
        if !self.file.initialized() && !self.path.exists() {
            return None;
        }
        let read = |file: &Database| -> Result<Option<Remembered>, redb::Error> {
            let table = match file.begin_read()?.open_table(TABLE) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let value = table.get(&*location.to_string())?;
            Ok(value.and_then(|value| serde_json::from_slice(value.value()).ok()))
        };
        let found = read(&*self.file().await?).unwrap_or_else(|error| {
            log::debug!("{}: {error}", self.path.display());
            None
        });
        let is_it =
            |found: &Remembered| found.etag == *etag && found.size_bytes == size_bytes && found.modified == modified;
        found.filter(is_it)
    }

    /// Remembers what a HEAD told; it is written with others.
    pub async fn note(&self, location: &Location, told: Remembered) {
        let count = {
            let mut pending = self.pending.lock().expect("no panic under this lock");
            pending.insert(location.to_string(), told);
            pending.len()
        };
        if count >= BATCH_OBJECTS {
            self.write().await;
        }
    }

    /// Writes what is not written yet.
    pub(super) async fn write(&self) {
        let batch = std::mem::take(&mut *self.pending.lock().expect("no panic under this lock"));
        if batch.is_empty() {
            return;
        }
        let Some(file) = self.file().await else { return };
        let objects_max = self.objects_max;
        let written = off_worker(move || write(&file, &batch, objects_max).map_err(io::Error::other)).await;
        if let Err(error) = written {
            log::debug!("{}: attributes are not remembered: {error}", self.path.display());
        }
    }

    async fn file(&self) -> Option<Arc<Database>> {
        let path = self.path.clone();
        let open = || async move { off_worker(move || Ok(open(&path))).await.ok().flatten().map(Arc::new) };
        self.file.get_or_init(open).await.clone()
    }
}

/// Opens the file; one that is damaged makes room for a new one.
fn open(path: &Path) -> Option<Database> {
    let try_open = || Database::builder().set_cache_size(MEMORY_BYTES).create(path);
    let opened = try_open().or_else(|error| {
        log::warn!("{}: not readable, begun anew: {error}", path.display());
        // If it cannot be removed, it cannot be made either.
        let _ = std::fs::remove_file(path);
        try_open()
    });
    opened.inspect_err(|error| log::warn!("{}: attributes are not remembered: {error}", path.display())).ok()
}

fn write(file: &Database, batch: &HashMap<String, Remembered>, objects_max: u64) -> Result<(), redb::Error> {
    let mut change = file.begin_write()?;
    // After a crash it opens without being read through.
    change.set_quick_repair(true);
    if change.open_table(TABLE)?.len()? + batch.len() as u64 > objects_max {
        change.delete_table(TABLE)?;
    }
    {
        let mut table = change.open_table(TABLE)?;
        for (name, told) in batch {
            // A time before 1970 has no spelling there.
            if let Ok(value) = serde_json::to_vec(told) {
                table.insert(&**name, &*value)?;
            }
        }
    }
    Ok(change.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BucketName, Key};
    use std::time::{Duration, UNIX_EPOCH};

    fn location(key: &str) -> Location {
        Location { bucket: BucketName::new("bucket").expect("plain"), key: Key::new(key).expect("plain") }
    }

    fn told(etag: &str) -> Remembered {
        Remembered {
            etag: ETag::new(etag),
            size_bytes: 5,
            modified: UNIX_EPOCH + Duration::from_secs(7),
            posix: Posix { mode: Some(0o100640), uid: Some(3), ..Posix::default() },
            target_bytes: None,
        }
    }

    async fn find(attributes: &Attributes, key: &str, told: &Remembered) -> Option<Remembered> {
        attributes.find(&location(key), &told.etag, told.size_bytes, told.modified).await
    }

    #[tokio::test]
    async fn what_was_told_of_a_version_is_found_again_and_of_no_other() {
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("attributes");
        let first = Attributes::new(path.clone());
        assert_eq!(find(&first, "a", &told("1")).await, None);
        assert!(!path.exists(), "who only asks leaves nothing behind");
        first.note(&location("a"), told("1")).await;
        first.note(&location("b"), told("1")).await;
        first.note(&location("b"), told("2")).await;
        first.write().await;
        drop(first);
        let next = Attributes::new(path);
        assert_eq!(find(&next, "a", &told("1")).await, Some(told("1")));
        assert_eq!(find(&next, "b", &told("2")).await, Some(told("2")));
        for other in [
            told("2"),
            Remembered { size_bytes: 6, ..told("1") },
            Remembered { modified: UNIX_EPOCH + Duration::from_secs(8), ..told("1") },
        ] {
            assert_eq!(find(&next, "a", &other).await, None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn a_damaged_file_is_begun_anew_and_a_full_one_too() {
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("attributes");
        std::fs::write(&path, vec![7; 100_000]).expect("written");
        let attributes = Attributes { objects_max: 3, ..Attributes::new(path) };
        assert_eq!(find(&attributes, "a", &told("1")).await, None);
        for keys in [&["a", "b", "c"][..], &["d"]] {
            for key in keys {
                attributes.note(&location(key), told("1")).await;
            }
            attributes.write().await;
            assert_eq!(find(&attributes, keys[0], &told("1")).await, Some(told("1")));
        }
        assert_eq!(find(&attributes, "a", &told("1")).await, None, "there are never more than three");
    }
}
