//! How buckets and objects lie on the disk, and the index of them in memory.
//!
//! ```text
//! DATA/temporary/                     files that are not done; emptied at start
//! DATA/buckets/NAME/bucket.json       when it was created, its ACL
//! DATA/buckets/NAME/objects/SHA256    one JSON line (see record.rs), then the bytes of a small object
//! DATA/buckets/NAME/blobs/ID          the bytes of larger objects and of parts
//! DATA/buckets/NAME/uploads/ID/       upload.json and NUMBER.json of each part
//! ```
//! An object's file is named after the hash of its key, so that no key can leave the folder and `a` and `a/b` may
//! both exist. One rename of that file swaps bytes, headers, ACL and tags together; blobs that no record names are
//! removed at start. Every answer about names comes from the index, which is built from the records at start.
//! Refuses nothing: who may do what is decided above.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::acl::Acl;
use super::blob::{Blobs, Body, kept_blobs};
use super::files::{lock, new_id, read_record, sync_folder, write_durably};
use super::record::{BucketRecord, ObjectRecord};
use super::uploads::Upload;

/// An object in the index.
#[derive(Debug)]
pub struct Object {
    /// What the disk knows of it.
    pub record: ObjectRecord,
    /// Its blobs; `None` when its bytes are in the record's file.
    blobs: Option<Arc<Blobs>>,
}

/// The folder of all buckets.
pub struct Disk {
    root: PathBuf,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
}

/// A bucket.
pub struct Bucket {
    /// Its name.
    pub name: String,
    folder: PathBuf,
    temporary: PathBuf,
    record: Mutex<BucketRecord>,
    index: Mutex<Index>,
}

/// What is in a bucket. The lock is held over the rename of a record, so that disk and index change in one order.
#[derive(Default)]
struct Index {
    /// Set when the bucket is deleted: who still holds it may not write any more.
    deleted: bool,
    objects: BTreeMap<String, Arc<Object>>,
    used_bytes: u64,
    uploads: BTreeMap<(String, String), Arc<Upload>>,
}

/// What became of the deletion of a bucket.
#[derive(Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Done,
    /// It holds objects.
    NotEmpty,
}

impl Disk {
    /// Opens the folder, makes it where it is missing, tidies up after a crash and builds the index. Blocks.
    pub fn open(root: &Path) -> io::Result<Disk> {
        let temporary = root.join("temporary");
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&temporary)?,
        }
        fs::create_dir_all(root.join("buckets"))?;
        let mut buckets = BTreeMap::new();
        for entry in fs::read_dir(root.join("buckets"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            buckets.insert(name.clone(), Arc::new(Bucket::load(root, name)?));
        }
        Ok(Disk { root: root.to_owned(), buckets: RwLock::new(buckets) })
    }

    /// The bucket of this name.
    pub fn bucket(&self, name: &str) -> Option<Arc<Bucket>> {
        self.buckets.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All buckets in name order.
    pub fn buckets(&self) -> Vec<Arc<Bucket>> {
        self.buckets.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Creates a bucket, durably; the one that is there already is answered as the error. Blocks.
    pub fn create_bucket(&self, name: &str, record: BucketRecord) -> io::Result<Result<(), Arc<Bucket>>> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get(name) {
            return Ok(Err(bucket.clone()));
        }
        let draft = self.root.join("temporary").join(new_id());
        for folder in ["objects", "blobs", "uploads"] {
            fs::create_dir_all(draft.join(folder))?;
        }
        write_durably(&draft.join("bucket.json"), &record, &[])?;
        sync_folder(&draft)?;
        fs::rename(&draft, self.root.join("buckets").join(name))?;
        sync_folder(&self.root.join("buckets"))?;
        buckets.insert(name.to_owned(), Arc::new(Bucket::new(&self.root, name.to_owned(), record)));
        Ok(Ok(()))
    }

    /// Deletes a bucket that holds no object; uploads that are under way go with it. Blocks.
    pub fn delete_bucket(&self, bucket: &Bucket) -> io::Result<Deletion> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        let grave = self.root.join("temporary").join(new_id());
        {
            let mut index = lock(&bucket.index);
            if !index.objects.is_empty() {
                return Ok(Deletion::NotEmpty);
            }
            if index.deleted {
                return Ok(Deletion::Done);
            }
            fs::rename(&bucket.folder, &grave)?;
            index.deleted = true;
        }
        buckets.remove(&bucket.name);
        sync_folder(&self.root.join("buckets"))?;
        fs::remove_dir_all(&grave)?;
        Ok(Deletion::Done)
    }
}

impl Bucket {
    fn new(root: &Path, name: String, record: BucketRecord) -> Bucket {
        Bucket {
            folder: root.join("buckets").join(&name),
            temporary: root.join("temporary"),
            record: Mutex::new(record),
            index: Mutex::default(),
            name,
        }
    }

    fn load(root: &Path, name: String) -> io::Result<Bucket> {
        let record = read_record(&root.join("buckets").join(&name).join("bucket.json"))?;
        let mut bucket = Bucket::new(root, name, record);
        let mut index = Index::default();
        let mut named_blobs = HashSet::new();
        let mut ids = HashSet::new();
        for entry in fs::read_dir(bucket.folder.join("objects"))? {
            let record: ObjectRecord = read_record(&entry?.path())?;
            named_blobs.extend(record.pieces.iter().map(|piece| piece.blob.clone()));
            ids.insert(record.id.clone());
            let blobs = kept_blobs(&bucket.blobs_folder(), &record.pieces);
            index.used_bytes += record.size_bytes;
            index.objects.insert(record.key.clone(), Arc::new(Object { record, blobs }));
        }
        for entry in fs::read_dir(bucket.folder.join("uploads"))? {
            let id = entry?.file_name().to_string_lossy().into_owned();
            // The object's record was renamed, but the crash came before the upload was removed: the object owns the
            // blobs. The same holds for an upload that had begun to vanish.
            let folder = bucket.uploads_folder().join(&id);
            if ids.contains(&id) || !folder.join("upload.json").exists() {
                fs::remove_dir_all(folder)?;
                continue;
            }
            let upload = Upload::load(folder, &bucket.blobs_folder(), id)?;
            let mut names = HashSet::new();
            upload.each_blob(|blob| {
                names.insert(blob.to_owned());
            });
            // It was completed too, and its object was replaced or removed before the crash: the blobs went with that.
            if names.iter().any(|blob| !bucket.blobs_folder().join(blob).exists()) {
                upload.remove_records()?;
                continue;
            }
            named_blobs.extend(names);
            index.uploads.insert((upload.record.key.clone(), upload.id.clone()), Arc::new(upload));
        }
        for entry in fs::read_dir(bucket.blobs_folder())? {
            let entry = entry?;
            if !named_blobs.contains(entry.file_name().to_string_lossy().as_ref()) {
                fs::remove_file(entry.path())?;
            }
        }
        bucket.index = Mutex::new(index);
        Ok(bucket)
    }

    /// Where the bucket's blobs lie.
    pub fn blobs_folder(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    /// Where the records of uploads lie.
    pub fn uploads_folder(&self) -> PathBuf {
        self.folder.join("uploads")
    }

    /// Where a record is written before it is renamed.
    pub fn draft(&self) -> PathBuf {
        self.temporary.join(new_id())
    }

    /// Its record.
    pub fn record(&self) -> BucketRecord {
        lock(&self.record).clone()
    }

    /// Gives the bucket another ACL, durably. Blocks.
    pub fn set_acl(&self, acl: Acl) -> io::Result<()> {
        let mut record = lock(&self.record);
        let changed = BucketRecord { acl, ..record.clone() };
        let draft = self.draft();
        write_durably(&draft, &changed, &[])?;
        fs::rename(&draft, self.folder.join("bucket.json"))?;
        sync_folder(&self.folder)?;
        *record = changed;
        Ok(())
    }

    /// How many objects it holds, and how many bytes they have.
    pub fn usage(&self) -> (u64, u64) {
        let index = lock(&self.index);
        (index.objects.len() as u64, index.used_bytes)
    }

    /// The object of this key.
    pub fn object(&self, key: &str) -> Option<Arc<Object>> {
        lock(&self.index).objects.get(key).cloned()
    }

    /// Runs over the objects in key order while the bucket stands still; for listings.
    pub fn with_objects<R>(&self, look: impl FnOnce(&BTreeMap<String, Arc<Object>>) -> R) -> R {
        look(&lock(&self.index).objects)
    }

    /// Stores an object, durably and in one step, if `allow` says so of what is there now. Blocks.
    ///
    /// `Ok(None)`: it was not allowed. [`io::ErrorKind::NotFound`]: the bucket was deleted meanwhile.
    pub fn store(
        &self,
        mut record: ObjectRecord,
        body: Body,
        allow: impl FnOnce(Option<&Arc<Object>>) -> bool,
    ) -> io::Result<Option<Arc<Object>>> {
        let (inline, blobs) = match body {
            Body::Inline(bytes) => (bytes, None),
            Body::Pieces(pieces, blobs) => {
                record.pieces = pieces;
                (Bytes::new(), Some(blobs))
            }
        };
        let draft = self.draft();
        write_durably(&draft, &record, &inline)?;
        let object = Arc::new(Object { record, blobs });
        let replaced;
        {
            let mut index = lock(&self.index);
            let key = object.record.key.clone();
            if index.deleted || !allow(index.objects.get(&key)) {
                let gone = index.deleted;
                drop(index);
                fs::remove_file(&draft)?;
                return if gone { Err(io::ErrorKind::NotFound.into()) } else { Ok(None) };
            }
            fs::rename(&draft, self.object_path(&key))?;
            if let Some(blobs) = &object.blobs {
                blobs.keep();
            }
            index.used_bytes += object.record.size_bytes;
            replaced = index.objects.insert(key, object.clone());
            if let Some(old) = &replaced {
                index.used_bytes -= old.record.size_bytes;
            }
        }
        sync_folder(&self.folder.join("objects"))?;
        if let Some(old) = replaced {
            old.doom_unless(object.blobs.as_ref());
        }
        Ok(Some(object))
    }

    /// Changes the ACL or the tags of an object; bytes and time of change stay. `None`: there is no object. Blocks.
    pub fn change(&self, key: &str, change: impl Fn(&mut ObjectRecord)) -> io::Result<Option<()>> {
        while let Some(object) = self.object(key) {
            let Some(body) = self.body(&object)? else { continue };
            let mut record = object.record.clone();
            change(&mut record);
            let unchanged = |now: Option<&Arc<Object>>| now.is_some_and(|now| Arc::ptr_eq(now, &object));
            if self.store(record, body, unchanged)?.is_some() {
                return Ok(Some(()));
            }
        }
        Ok(None)
    }

    /// Removes an object, durably. Blocks.
    pub fn remove(&self, key: &str) -> io::Result<()> {
        let removed = {
            let mut index = lock(&self.index);
            let Some(object) = index.objects.get(key).cloned() else { return Ok(()) };
            fs::remove_file(self.object_path(key))?;
            index.objects.remove(key);
            index.used_bytes -= object.record.size_bytes;
            object
        };
        sync_folder(&self.folder.join("objects"))?;
        removed.doom_unless(None);
        Ok(())
    }

    /// The bytes of an object, read now where they are small. `None`: it was replaced, ask the index again. Blocks.
    pub fn body(&self, object: &Object) -> io::Result<Option<Body>> {
        if let Some(body) = object.pieces_body() {
            return Ok(Some(body));
        }
        if object.record.size_bytes == 0 {
            return Ok(Some(Body::Inline(Bytes::new())));
        }
        let file = match File::open(self.object_path(&object.record.key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let record: ObjectRecord = serde_json::from_slice(&line)?;
        if record.id != object.record.id {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(record.size_bytes as usize);
        reader.read_to_end(&mut bytes)?;
        if bytes.len() as u64 != record.size_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the record's file has lost bytes"));
        }
        Ok(Some(Body::Inline(Bytes::from(bytes))))
    }

    fn object_path(&self, key: &str) -> PathBuf {
        self.folder.join("objects").join(hex::encode(Sha256::digest(key.as_bytes())))
    }

    /// Takes a new upload into the index; `false` when the bucket was deleted.
    pub fn insert_upload(&self, upload: Arc<Upload>) -> bool {
        let mut index = lock(&self.index);
        if !index.deleted {
            index.uploads.insert((upload.record.key.clone(), upload.id.clone()), upload);
        }
        !index.deleted
    }

    /// The upload of this key and id.
    pub fn upload(&self, key: &str, id: &str) -> Option<Arc<Upload>> {
        lock(&self.index).uploads.get(&(key.to_owned(), id.to_owned())).cloned()
    }

    /// Drops an upload from the index and its records from the disk. Blocks.
    pub fn forget_upload(&self, upload: &Upload) -> io::Result<()> {
        lock(&self.index).uploads.remove(&(upload.record.key.clone(), upload.id.clone()));
        upload.remove_records()
    }

    /// All uploads by key and id.
    pub fn uploads(&self) -> Vec<Arc<Upload>> {
        lock(&self.index).uploads.values().cloned().collect()
    }
}

impl Object {
    /// Whether its bytes lie in the file of its record.
    pub fn is_inline(&self) -> bool {
        self.blobs.is_none()
    }

    /// Its bytes where they lie in blobs.
    pub fn pieces_body(&self) -> Option<Body> {
        self.blobs.as_ref().map(|blobs| Body::Pieces(self.record.pieces.clone(), blobs.clone()))
    }

    /// Its blobs may go when the last reader has let go, unless the new version has the same ones.
    fn doom_unless(&self, kept: Option<&Arc<Blobs>>) {
        if let Some(blobs) = &self.blobs
            && kept.is_none_or(|kept| !Arc::ptr_eq(kept, blobs))
        {
            blobs.doom();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Attributes, PartRecord, UploadRecord};
    use super::*;

    fn record(key: &str, bytes: &[u8]) -> ObjectRecord {
        ObjectRecord {
            key: key.into(),
            id: new_id(),
            size_bytes: bytes.len() as u64,
            etag: "etag".into(),
            modified_ms: 1,
            attributes: Attributes {
                acl: Acl::private("alice"),
                headers: BTreeMap::new(),
                storage_class: None,
                restored: false,
                tags: vec![],
            },
            pieces: vec![],
        }
    }

    fn bucket(disk: &Disk) -> Arc<Bucket> {
        let created = disk.create_bucket("bucket", BucketRecord { created_ms: 1, acl: Acl::private("alice") }).unwrap();
        assert!(created.is_ok());
        disk.bucket("bucket").unwrap()
    }

    fn put(bucket: &Bucket, key: &str, bytes: &'static [u8]) {
        let body = Body::Inline(Bytes::from_static(bytes));
        bucket.store(record(key, bytes), body, |_| true).unwrap().unwrap();
    }

    fn read(bucket: &Bucket, key: &str) -> Bytes {
        match bucket.body(&bucket.object(key).unwrap()).unwrap().unwrap() {
            Body::Inline(bytes) => bytes,
            Body::Pieces(pieces, _) => super::super::blob::chunks(&bucket.blobs_folder(), &pieces)
                .flat_map(|chunk| chunk.read().unwrap())
                .collect(),
        }
    }

    #[test]
    fn no_key_leaves_the_folder_and_all_survive_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let keys =
            ["a", "a/b", "a//b", "../../evil", "/", ".", "..", "a\nb\r\t", "%41 +", "\u{0}", "é", &"x".repeat(1024)];
        {
            let disk = Disk::open(&root.path().join("data")).unwrap();
            let bucket = bucket(&disk);
            for key in keys {
                put(&bucket, key, b"bytes");
            }
            assert_eq!(bucket.usage(), (keys.len() as u64, 5 * keys.len() as u64));
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "something lies outside of the folder");
        let disk = Disk::open(&root.path().join("data")).unwrap();
        let bucket = disk.bucket("bucket").unwrap();
        for key in keys {
            assert_eq!(read(&bucket, key), "bytes", "{key:?}");
        }
        assert_eq!(bucket.usage(), (keys.len() as u64, 5 * keys.len() as u64));
    }

    #[test]
    fn a_start_removes_what_a_crash_left() {
        let root = tempfile::tempdir().unwrap();
        drop(bucket(&Disk::open(root.path()).unwrap()));
        let folder = root.path().join("buckets/bucket");
        fs::write(folder.join("blobs/stray"), b"x").unwrap();
        fs::write(root.path().join("temporary/stray"), b"x").unwrap();
        fs::create_dir(folder.join("uploads/half")).unwrap();
        Disk::open(root.path()).unwrap();
        for stray in ["buckets/bucket/blobs/stray", "temporary/stray", "buckets/bucket/uploads/half"] {
            assert!(!root.path().join(stray).exists(), "{stray} is still there");
        }
    }

    #[test]
    fn an_upload_appears_whole_and_goes_with_the_blobs_of_its_object() {
        let root = tempfile::tempdir().unwrap();
        let bucket = bucket(&Disk::open(root.path()).unwrap());
        let begin = |draft: &Path| {
            let attributes = record("a", b"").attributes;
            let record = UploadRecord { key: "a".into(), initiated_ms: 1, attributes };
            Upload::create(&bucket.uploads_folder(), draft, record)
        };
        assert!(begin(&root.path().join("missing/draft")).is_err());
        assert_eq!(fs::read_dir(bucket.uploads_folder()).unwrap().count(), 0, "half an upload is seen");

        let upload = begin(&bucket.draft()).unwrap();
        let written = super::super::blob::write_bytes(&bucket.blobs_folder(), b"bytes").unwrap();
        let part = PartRecord { number: 1, size_bytes: 5, md5: written.md5, modified_ms: 1, pieces: vec![] };
        assert!(upload.store_part(&bucket.draft(), part, written.body).unwrap());
        let uploads = || Disk::open(root.path()).unwrap().bucket("bucket").unwrap().uploads().len();
        assert_eq!(uploads(), 1, "with its part's bytes it is kept");
        upload.each_blob(|blob| fs::remove_file(bucket.blobs_folder().join(blob)).unwrap());
        assert_eq!(uploads(), 0, "its bytes are gone, so it cannot be completed again");
        assert_eq!(fs::read_dir(bucket.uploads_folder()).unwrap().count(), 0);
    }

    #[test]
    fn conditions_and_deletion_are_decided_under_the_lock() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::open(root.path()).unwrap();
        let bucket = bucket(&disk);
        put(&bucket, "a", b"one");
        let refused = bucket.store(record("a", b"two"), Body::Inline("two".into()), |old| old.is_none()).unwrap();
        assert!(refused.is_none());
        assert_eq!(read(&bucket, "a"), "one");
        assert_eq!(disk.delete_bucket(&bucket).unwrap(), Deletion::NotEmpty);
        bucket.remove("a").unwrap();
        assert_eq!(disk.delete_bucket(&bucket).unwrap(), Deletion::Done);
        let late = bucket.store(record("a", b"two"), Body::Inline("two".into()), |_| true).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(root.path().join("temporary")).unwrap().count(), 0);
    }

    #[test]
    fn a_reader_keeps_the_bytes_that_it_reads() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::open(root.path()).unwrap();
        let bucket = bucket(&disk);
        let blob = bucket.blobs_folder().join("blob");
        fs::write(&blob, b"old bytes").unwrap();
        let pieces = vec![super::super::record::Piece { blob: "blob".into(), offset: 0, length: 9 }];
        let body = Body::Pieces(pieces, Arc::new(Blobs::new(vec![blob.clone()])));
        bucket.store(record("a", b"old bytes"), body, |_| true).unwrap().unwrap();
        bucket.change("a", |record| record.attributes.tags.push(("k".into(), "v".into()))).unwrap().unwrap();
        assert_eq!(read(&bucket, "a"), "old bytes", "a change of tags keeps the bytes");
        let reader = bucket.object("a").unwrap();
        put(&bucket, "a", b"new");
        assert!(blob.exists(), "the reader's blob is gone");
        drop(reader);
        assert!(!blob.exists(), "nobody needs the blob any more");
    }
}
