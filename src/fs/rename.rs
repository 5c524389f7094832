//! rename: a copy on the server and a delete; of a directory, of every object below it.
//!
//! The copy keeps headers and metadata; the ACL and the storage class ride on it, since a store resets them. What was
//! never stored only moves in memory, unless it replaces an object: then it is stored in its place. A directory's
//! copies are all made before anything is deleted, and taken back if one of them fails, so that an error leaves the
//! source as it was.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::data::{Replaces, Version};
use crate::error::{Error, Meaning, Result};
use crate::format::header::Posix;
use crate::format::key::{BucketName, Prefix};
use crate::store::{Acl, AclHeaders, AclTarget, CopyHeaders, Key, ListRequest, ListedObject, Location, ObjectHeaders};
use crate::tree::{AclState, FileKind, Ino, Place};

use super::files::OpenFile;
use super::{Fs, checked_name};

/// Copies of one directory's objects at once.
const COPIES_AT_ONCE: usize = 16;

/// Keys of one DeleteObjects request at most (S3 API reference).
const DELETES_MAX: usize = 1000;

/// From where to where a name moves.
#[derive(Clone, Copy)]
struct Names<'a> {
    parent: Ino,
    name: &'a str,
    new_parent: Ino,
    new_name: &'a str,
}

/// An object of a directory that is being moved, and where it went.
struct Moved {
    /// Its key below the directory.
    below: String,
    from: Key,
    version: Version,
}

impl Fs {
    /// Moves a name. With `no_replace` a target that exists is an error.
    pub async fn rename(
        &self,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        no_replace: bool,
    ) -> Result<()> {
        self.check_changeable(new_parent)?;
        let (name, new_name) = (checked_name(name)?, checked_name(new_name)?);
        let _held = (self.tree.hold(parent), self.tree.hold(new_parent));
        let source = self.existing(parent, name).await?;
        let target = self.find(new_parent, new_name).await?.map(|entry| entry.ino);
        self.check_changeable(source)?;
        target.map_or(Ok(()), |target| self.check_changeable(target))?;
        if target == Some(source) {
            return Ok(());
        }
        if no_replace && target.is_some() {
            return Err(Error::new(Meaning::Exists, new_name));
        }
        let account = |ino| self.directory_place(ino).map(|place| place == Place::Account);
        if account(parent)? || account(new_parent)? {
            return Err(Error::new(Meaning::CrossDevice, "a bucket cannot be renamed; mv copies it"));
        }
        let target_kind = target.and_then(|ino| self.kind(ino));
        let names = Names { parent, name, new_parent, new_name };
        if parent != new_parent {
            self.keep_directory(parent, Some(name)).await;
        }
        match (self.kind(source), target_kind) {
            (Some(FileKind::Directory), Some(FileKind::Directory) | None) => {
                self.rename_directory(source, target, names).await?;
            }
            (Some(FileKind::Directory), Some(_)) => return Err(Error::new(Meaning::NotDirectory, new_name)),
            (_, Some(FileKind::Directory)) => return Err(Error::new(Meaning::IsDirectory, new_name)),
            (_, _) => self.rename_file(source, target, names).await?,
        }
        if let Some(target) = target.filter(|target| !self.is_open(*target)) {
            self.files.remove(target);
        }
        self.note_names_changed(parent);
        self.note_names_changed(new_parent);
        self.keep_directory(parent, None).await;
        // Attributes that a plain listing does not show need a marker in the new directory too.
        self.keep_attributes(source).await
    }

    async fn rename_file(&self, source: Ino, target: Option<Ino>, names: Names<'_>) -> Result<()> {
        let to = self.file_location(names.new_parent, names.new_name)?;
        let file = self.open_file(source)?;
        let moved = self.rename_open_file(&file, target, names, &to).await;
        self.forget_file(file);
        moved
    }

    async fn rename_open_file(
        &self,
        file: &Arc<OpenFile>,
        target: Option<Ino>,
        names: Names<'_>,
        to: &Location,
    ) -> Result<()> {
        let target_file = target.and_then(|ino| self.files.get(ino));
        let mut both: Vec<&Arc<OpenFile>> = [Some(file), target_file.as_ref()].into_iter().flatten().collect();
        both.sort_by_key(|file| file.ino);
        let mut guards = Vec::with_capacity(both.len());
        for file in both {
            guards.push(file.lock.lock().await);
        }
        if file.bytes.has_given_back() {
            // Its upload was begun under the old name, and what was sent of it is nowhere else.
            self.commit_locked(file).await?;
        }
        if let Some(target_file) = target_file.as_ref().filter(|file| self.is_open(file.ino)) {
            target_file.bytes.preserve().await?;
        }
        let replaces = target.is_some_and(|ino| self.tree.read(ino, |inode| inode.object.is_some()) == Some(true));
        match file.bytes.version() {
            Some(version) => self.move_object(file, &version, to).await?,
            // An object that stayed behind under the new name would come back when that name is moved or removed.
            None if replaces => self.commit_to(file, to, Replaces::Anything).await?,
            // What is not stored yet only changes its name; its bytes come at close.
            None => {}
        }
        // With the locks held: a commit of the file takes its key from the tree.
        self.move_name(names);
        Ok(())
    }

    fn move_name(&self, names: Names<'_>) {
        self.tree.rename(names.parent, names.name, names.new_parent, names.new_name);
    }

    /// Copies a stored file to its new key and deletes the old one.
    async fn move_object(&self, file: &OpenFile, version: &Version, to: &Location) -> Result<()> {
        let source = file.ino;
        // A copy has the encryption that its request names, so that of the file must be known.
        let known = self.known_headers(source).await?;
        let is_encrypted = self.is_encrypted(known.as_deref());
        let class =
            self.tree.read(source, |inode| inode.object.as_ref().and_then(|object| object.storage_class.clone()));
        // What went up while it was written has the time at which the store got it, which a copy would not have.
        let is_undated = known.is_some_and(|known| is_undated(&known.metadata));
        let in_parts = self.data.is_copied_in_parts(version.size_bytes);
        if in_parts {
            // One that is gone is told before its parts are asked for.
            self.store.head(&version.location, None).await?;
        }
        let headers = match is_undated || in_parts || is_encrypted || self.owes_attributes(source) {
            true => CopyHeaders::Replace(self.headers_to_store(source).await?),
            false => CopyHeaders::Keep { acl: self.riding_acl(source).await?, storage_class: class.flatten() },
        };
        self.keep_copies(Some(source), |at| at == to || *at == version.location).await?;
        let noted = self.note_finish(to, self.known_acl(source), headers.replaced_tags()).await?;
        let moved = self.data.copy_object(version, to, &headers).await?;
        self.finish(noted).await?;
        self.store.delete(&version.location, None).await?;
        self.note_moved(source, &moved);
        if let CopyHeaders::Replace(headers) = headers {
            self.stored(source, &moved, headers, file.bytes.is_dirty());
        }
        file.bytes.rebase(moved);
        Ok(())
    }

    fn note_moved(&self, ino: Ino, version: &Version) {
        self.tree.update(ino, |inode| {
            if let Some(object) = &mut inode.object {
                object.etag = version.etag.clone();
                object.modified = None;
            }
        });
    }

    fn file_location(&self, parent: Ino, name: &str) -> Result<Location> {
        match self.directory_place(parent)? {
            Place::Directory { bucket, prefix } => {
                let key = prefix.file(name).map_err(|why| super::bad_name(name, why))?;
                Ok(Location { bucket, key })
            }
            _ => Err(Error::new(Meaning::CrossDevice, name)),
        }
    }

    async fn rename_directory(&self, source: Ino, target: Option<Ino>, names: Names<'_>) -> Result<()> {
        if self.tree.is_below(names.new_parent, source) {
            return Err(Error::new(Meaning::InvalidArgument, "a directory cannot move into itself"));
        }
        let _held = match target {
            Some(target) => {
                let held = self.owed.hold_marker(target).await;
                self.remove_directory(target).await?;
                Some(held)
            }
            None => None,
        };
        let Place::Directory { bucket, prefix } = self.place(source)? else {
            return Err(Error::new(Meaning::NotDirectory, self.path(source)));
        };
        let new_key = self.file_location(names.new_parent, names.new_name)?;
        let new_prefix = Prefix::new(new_key.key.as_str()).map_err(|why| super::bad_name(names.new_name, why))?;
        let below: Vec<_> = self.files.all().into_iter().filter(|file| self.tree.is_below(file.ino, source)).collect();
        let mut guards = Vec::with_capacity(below.len());
        for file in &below {
            guards.push(file.lock.lock().await);
            if file.bytes.has_given_back() {
                self.commit_locked(file).await?;
            }
        }
        let _moving = self.moving.write().await;
        let objects = self.objects_below(&bucket, &prefix).await?;
        let moves = self.checked_moves(&bucket, &prefix, &new_key.bucket, &new_prefix, objects)?;
        self.keep_copies(None, |at| at.bucket == bucket && at.key.as_str().starts_with(prefix.as_str())).await?;
        let moved = self.copy_all(moves).await?;
        self.delete_all(&bucket, moved.iter().map(|moved| moved.from.clone()).collect()).await?;
        for one in &moved {
            let Some(ino) = self.tree.resolve(source, &one.below) else { continue };
            self.note_moved(ino, &one.version);
        }
        self.rebase_all(source, &moved);
        self.move_name(names);
        // What came into the table while the copies were made was opened where it lay.
        self.rebase_all(source, &moved);
        drop(guards);
        for file in below {
            self.forget_file(file);
        }
        Ok(())
    }

    /// Has the files of a directory that moved read from where they lie now.
    fn rebase_all(&self, directory: Ino, moved: &[Moved]) {
        for one in moved {
            let file = self.tree.resolve(directory, &one.below).and_then(|ino| self.files.get(ino));
            if let Some(file) = file
                && file.bytes.version().is_some_and(|version| version.location != one.version.location)
            {
                file.bytes.rebase(one.version.clone());
            }
        }
    }

    async fn objects_below(&self, bucket: &BucketName, prefix: &Prefix) -> Result<Vec<ListedObject>> {
        let mut objects = Vec::new();
        let mut request = ListRequest { prefix: prefix.as_str().to_owned(), ..ListRequest::default() };
        loop {
            let page = self.store.list(bucket, &request).await?;
            objects.extend(page.objects);
            match page.continuation {
                Some(continuation) => request.continuation = Some(continuation),
                None => return Ok(objects),
            }
        }
    }

    /// Every copy that a directory's move needs; refused as a whole if one of its keys cannot move.
    fn checked_moves(
        &self,
        bucket: &BucketName,
        prefix: &Prefix,
        new_bucket: &BucketName,
        new_prefix: &Prefix,
        objects: Vec<ListedObject>,
    ) -> Result<Vec<(ListedObject, Location, Location, String)>> {
        let one = |object: ListedObject| {
            let below = object.key.strip_prefix(prefix.as_str()).unwrap_or_default().to_owned();
            let unmovable = |why| {
                log::warn!("{}: no path can name the key {:?} below it: {why}", prefix, object.key);
                Error::new(Meaning::Unsupported, format!("{prefix} holds a key that no path can name"))
            };
            let from = Key::new(&object.key).map_err(unmovable)?;
            let to = Key::new(&format!("{new_prefix}{below}")).map_err(|why| super::bad_name(&below, why))?;
            let from = Location { bucket: bucket.clone(), key: from };
            Ok((object, from, Location { bucket: new_bucket.clone(), key: to }, below))
        };
        objects.into_iter().map(one).collect()
    }

    async fn copy_all(&self, moves: Vec<(ListedObject, Location, Location, String)>) -> Result<Vec<Moved>> {
        let copies = stream::iter(moves).map(|(object, from, to, below)| async move {
            let (told, headers) = tokio::join!(self.acl_of_object(&from), self.copied_headers(&object, &from));
            let (acl, known) = told?;
            let headers = match headers? {
                Some(headers) => {
                    let tags = self.told_tags(headers.tags, &from).await?;
                    CopyHeaders::Replace(ObjectHeaders { acl, tags, ..headers })
                }
                None => CopyHeaders::Keep { acl, storage_class: object.storage_class },
            };
            let source =
                Version { location: from.clone(), etag: object.etag, size_bytes: object.size_bytes, version_id: None };
            let noted = self.note_finish(&to, known, headers.replaced_tags()).await?;
            let version = self.data.copy_object(&source, &to, &headers).await?;
            self.finish(noted).await?;
            Ok::<_, Error>(Moved { below, from: from.key, version })
        });
        let results: Vec<Result<Moved>> = copies.buffer_unordered(COPIES_AT_ONCE).collect().await;
        if results.iter().all(Result::is_ok) {
            return results.into_iter().collect();
        }
        let mut failure = None;
        for result in results {
            match result {
                Ok(made) => {
                    if let Err(error) = self.store.delete(&made.version.location, None).await {
                        log::warn!("{}: a copy made in vain is left behind: {error}", made.version.location);
                    }
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(Meaning::Io, "copying a directory failed")))
    }

    /// The headers with which an object is copied where it does not keep its own: those of one that is copied in parts or
    /// encrypted, and of one of ours whose time is that of its storing, with that time: the copy is stored later.
    async fn copied_headers(&self, object: &ListedObject, location: &Location) -> Result<Option<ObjectHeaders>> {
        let mut head = self.store.head(location, None).await?;
        let is_told = self.data.is_copied_in_parts(object.size_bytes) || self.is_encrypted(Some(&head.headers));
        head.headers.encryption = head.headers.encryption.or_else(|| self.config.encryption.clone());
        let metadata = &mut head.headers.metadata;
        if is_undated(metadata) {
            Posix { mtime: Some(head.modified), ..Posix::read(metadata) }.write(metadata);
        } else if !is_told {
            return Ok(None);
        }
        Ok(Some(head.headers))
    }

    /// Whether what is stored with these headers is to be encrypted otherwise than as the bucket says.
    fn is_encrypted(&self, known: Option<&ObjectHeaders>) -> bool {
        self.config.encryption.is_some() || known.is_some_and(|known| known.encryption.is_some())
    }

    async fn delete_all(&self, bucket: &BucketName, keys: Vec<Key>) -> Result<()> {
        let batches = stream::iter(keys.chunks(DELETES_MAX).map(<[Key]>::to_vec).collect::<Vec<_>>());
        let failures: Vec<_> = batches
            .map(|batch| async move { self.store.delete_many(bucket, &batch).await })
            .buffer_unordered(COPIES_AT_ONCE)
            .try_collect()
            .await?;
        match failures.into_iter().flatten().next() {
            Some(failure) => Err(failure.error.into()),
            None => Ok(()),
        }
    }

    /// The ACL that must ride on a copy of an object that has no inode here, and the whole of it.
    async fn acl_of_object(&self, location: &Location) -> Result<(Option<AclHeaders>, Option<Arc<Acl>>)> {
        self.riding_acl_of(&AclState::Unknown, &AclTarget::Object(location.clone())).await
    }
}

/// Whether an object of ours carries no time.
fn is_undated(metadata: &BTreeMap<String, String>) -> bool {
    metadata.contains_key("mode") && !metadata.contains_key("mtime")
}
