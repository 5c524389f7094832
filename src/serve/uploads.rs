//! Multipart uploads on the disk: a folder with one record for the upload and one for each part.
//!
//! Parts own blobs; when the upload is completed, the object's record takes the blobs over and nothing is copied.
//! Refuses: parts for an upload that was completed or aborted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::blob::{Blobs, Body, kept_blobs};
use super::files::{lock, new_id, read_record, sync_folder, write_durably};
use super::record::{PartRecord, UploadRecord};

/// An upload in the index.
pub struct Upload {
    /// Its id.
    pub id: String,
    /// What the disk knows of it.
    pub record: UploadRecord,
    folder: PathBuf,
    /// Its parts; `None` once it is completed or aborted.
    parts: Mutex<Option<Parts>>,
}

/// The parts of an upload by number.
pub type Parts = BTreeMap<u32, Part>;

/// A part in the index.
pub struct Part {
    /// What the disk knows of it.
    pub record: PartRecord,
    /// Its blobs; `None` for an empty part that was found at start.
    pub blobs: Option<Arc<Blobs>>,
}

impl Upload {
    /// Begins an upload in the folder of all uploads by way of the folder `draft`, durably and in one step. Blocks.
    pub fn create(uploads_folder: &Path, draft: &Path, record: UploadRecord) -> io::Result<Upload> {
        let id = new_id();
        let folder = uploads_folder.join(&id);
        fs::create_dir(draft)?;
        write_durably(&draft.join("upload.json"), &record, &[])?;
        sync_folder(draft)?;
        fs::rename(draft, &folder)?;
        sync_folder(uploads_folder)?;
        Ok(Upload { id, record, folder, parts: Mutex::new(Some(Parts::new())) })
    }

    /// Reads an upload that an earlier run began. Blocks.
    pub fn load(folder: PathBuf, blobs_folder: &Path, id: String) -> io::Result<Upload> {
        let record = read_record(&folder.join("upload.json"))?;
        let mut parts = Parts::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name != "upload.json") {
                let record: PartRecord = read_record(&path)?;
                let blobs = kept_blobs(blobs_folder, &record.pieces);
                parts.insert(record.number, Part { record, blobs });
            }
        }
        Ok(Upload { id, record, folder, parts: Mutex::new(Some(parts)) })
    }

    /// Stores a part by way of the file `draft`, durably; one of the same number is replaced. Blocks.
    ///
    /// `false`: the upload has ended.
    pub fn store_part(&self, draft: &Path, mut record: PartRecord, body: Body) -> io::Result<bool> {
        let Body::Pieces(pieces, blobs) = body else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a part lies in blobs"));
        };
        record.pieces = pieces;
        write_durably(draft, &record, &[])?;
        let replaced;
        {
            let mut parts = lock(&self.parts);
            let Some(parts) = parts.as_mut() else {
                fs::remove_file(draft)?;
                return Ok(false);
            };
            fs::rename(draft, self.folder.join(format!("{}.json", record.number)))?;
            blobs.keep();
            let number = record.number;
            replaced = parts.insert(number, Part { record, blobs: Some(blobs) });
        }
        sync_folder(&self.folder)?;
        if let Some(old) = replaced {
            old.doom();
        }
        Ok(true)
    }

    /// Looks at the parts; `None` when the upload has ended.
    pub fn with_parts<R>(&self, look: impl FnOnce(&Parts) -> R) -> Option<R> {
        lock(&self.parts).as_ref().map(look)
    }

    /// Ends the upload for everyone else and hands out its parts. `None`: it had ended already.
    pub fn take_parts(&self) -> Option<Parts> {
        lock(&self.parts).take()
    }

    /// Opens the upload again, after a completion that came to nothing.
    pub fn give_back(&self, parts: Parts) {
        *lock(&self.parts) = Some(parts);
    }

    /// Drops the records from the disk. Blocks.
    pub fn remove_records(&self) -> io::Result<()> {
        // Without its head the rest is rubbish to the next start.
        fs::remove_file(self.folder.join("upload.json"))?;
        sync_folder(&self.folder)?;
        fs::remove_dir_all(&self.folder)
    }

    /// Names every blob that the parts refer to.
    pub fn each_blob(&self, mut name: impl FnMut(&str)) {
        self.with_parts(|parts| {
            for piece in parts.values().flat_map(|part| &part.record.pieces) {
                name(&piece.blob);
            }
        });
    }
}

impl Part {
    /// Its bytes may go.
    pub fn doom(&self) {
        if let Some(blobs) = &self.blobs {
            blobs.doom();
        }
    }
}
