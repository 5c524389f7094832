//! Extended attributes: `user.s3.*` are virtual, any other `user.NAME` is the object's own metadata.
//!
//! Virtual names answer by name and are left out of listings, so that `cp -a` and `rsync -X` do not carry them along.
//! An unknown name is ENODATA, what the store lacks EOPNOTSUPP, a bad value EINVAL with a log line.

use std::ffi::OsStr;
use std::time::{Duration, UNIX_EPOCH};

use crate::data::UploadState;
use crate::error::{Error, Meaning, Result};
use crate::format::encryption;
use crate::format::header::{METADATA_BYTES_MAX, metadata_bytes};
use crate::format::xattr;
use crate::store::{Kind, ObjectHeaders};
use crate::tree::{FileKind, Ino, Place};

use super::files::OpenFile;
use super::{Caller, Fs, Notice};

/// How long the plain `user.s3.signed_url` works.
const SIGNED_URL_EXPIRES: Duration = Duration::from_secs(3600);

/// Bytes of one content header at most: far more than any that is meant, far less than what servers take of all
/// headers together (8 KiB).
const HEADER_BYTES_MAX: usize = 2048;

/// How setxattr treats a name that is, or is not, there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetFlag {
    /// Make or replace it.
    Any,
    /// It must not be there (XATTR_CREATE).
    Create,
    /// It must be there (XATTR_REPLACE).
    Replace,
}

/// What an attribute's name means.
enum Name<'a> {
    Virtual(&'a str),
    Socket,
    User(&'a str),
}

fn parse_name(name: &OsStr) -> Result<Name<'_>> {
    let text = name.to_str().ok_or_else(|| Error::new(Meaning::NoAttribute, format!("{name:?}")))?;
    match text.strip_prefix("user.") {
        Some("dreamfs.socket") => Ok(Name::Socket),
        Some(user) => match user.strip_prefix("s3.") {
            Some(name) => Ok(Name::Virtual(name)),
            None => Ok(Name::User(user)),
        },
        // Told so once, `ls -l` does not ask for `security.selinux` and the like of every file.
        None => Err(Error::new(Meaning::Unsupported, text)),
    }
}

/// The header behind a settable name.
fn settable_header<'a>(headers: &'a mut ObjectHeaders, name: &str) -> Option<&'a mut Option<String>> {
    match name {
        "content_type" => Some(&mut headers.content_type),
        "cache_control" => Some(&mut headers.cache_control),
        "content_disposition" => Some(&mut headers.content_disposition),
        "content_encoding" => Some(&mut headers.content_encoding),
        "content_language" => Some(&mut headers.content_language),
        "storage_class" => Some(&mut headers.storage_class),
        "encryption" => Some(&mut headers.encryption),
        _ => None,
    }
}

/// Whether a request can carry this value. Blanks around it would be lost on the way.
fn is_header_value(name: &str, value: &str) -> bool {
    if name == "encryption" {
        return encryption::is_valid(value);
    }
    let allowed = |byte: u8| match name {
        "storage_class" => byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-',
        _ => matches!(byte, b' '..=b'~'),
    };
    !value.is_empty() && value.len() <= HEADER_BYTES_MAX && value.trim() == value && value.bytes().all(allowed)
}

impl Fs {
    /// The value of an extended attribute.
    pub async fn getxattr(&self, ino: Ino, name: &OsStr, caller: Caller) -> Result<Vec<u8>> {
        match parse_name(name)? {
            Name::Socket => Ok(self.config.socket.as_os_str().as_encoded_bytes().to_vec()),
            Name::Virtual(name) => self.virtual_value(ino, name, caller).await.map(String::into_bytes),
            Name::User(name) => {
                let headers = self.known_headers(ino).await?;
                let value = headers.as_ref().and_then(|headers| xattr::get(&headers.metadata, name));
                value.ok_or_else(|| Error::new(Meaning::NoAttribute, name))
            }
        }
    }

    /// The names of an object's own attributes, each ended by a NUL.
    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let headers = self.known_headers(ino).await?;
        let names = headers.iter().flat_map(|headers| xattr::names(&headers.metadata));
        Ok(names.flat_map(|name| format!("user.{name}\0").into_bytes()).collect())
    }

    /// Sets an extended attribute.
    pub async fn setxattr(&self, ino: Ino, name: &OsStr, value: &[u8], flag: SetFlag, caller: Caller) -> Result<()> {
        self.check_changeable(ino)?;
        match parse_name(name) {
            Ok(Name::Virtual(name)) => self.set_virtual(ino, name, value, caller).await,
            Ok(Name::User(name)) if xattr::is_allowed(name) => {
                self.change_headers(ino, |headers| match (flag, xattr::get(&headers.metadata, name).is_some()) {
                    (SetFlag::Create, true) => Err(Error::new(Meaning::Exists, name)),
                    (SetFlag::Replace, false) => Err(Error::new(Meaning::NoAttribute, name)),
                    _ => {
                        xattr::set(&mut headers.metadata, name, value);
                        Ok(())
                    }
                })
                .await
            }
            Ok(_) | Err(_) => Err(Error::new(Meaning::Unsupported, name.to_string_lossy())),
        }
    }

    /// Removes an extended attribute.
    pub async fn removexattr(&self, ino: Ino, name: &OsStr, caller: Caller) -> Result<()> {
        self.check_changeable(ino)?;
        match parse_name(name)? {
            Name::User(name) if xattr::is_allowed(name) => {
                self.change_headers(ino, |headers| match xattr::remove(&mut headers.metadata, name) {
                    true => Ok(()),
                    false => Err(Error::new(Meaning::NoAttribute, name)),
                })
                .await
            }
            Name::Virtual("default_acl") => self.set_default_acl(ino, None, caller).await,
            Name::Virtual("tags") => self.set_tags(ino, "").await,
            Name::Virtual(name) if settable_header(&mut ObjectHeaders::default(), name).is_some() => {
                self.set_header(ino, name, None).await
            }
            _ => Err(Error::new(Meaning::NotPermitted, name.to_string_lossy())),
        }
    }

    /// Sets or removes a content header or the storage class.
    pub(super) async fn set_header(&self, ino: Ino, name: &str, value: Option<&str>) -> Result<()> {
        if self.kind(ino) == Some(FileKind::Directory) {
            return Err(Error::new(Meaning::Unsupported, format!("user.s3.{name} of a directory cannot be set")));
        }
        if let Some(value) = value.filter(|value| !is_header_value(name, value)) {
            let valid = match name {
                "storage_class" => "a name in capitals that the store knows, such as STANDARD",
                "encryption" => encryption::VALID,
                _ => "1 to 2048 characters of ASCII without line breaks",
            };
            let why = format!("{value:?} cannot be user.s3.{name}; valid is {valid}");
            return Err(Error::new(Meaning::InvalidArgument, why));
        }
        self.change_headers(ino, |headers| {
            let none = || Error::new(Meaning::NoAttribute, format!("user.s3.{name}"));
            let header = settable_header(headers, name).ok_or_else(none)?;
            if value.is_none() && header.is_none() {
                return Err(none());
            }
            *header = value.map(str::to_owned);
            Ok(())
        })
        .await
    }

    /// Changes headers and user metadata: at once for what is stored, with its upload for what is not.
    pub(super) async fn change_headers(
        &self,
        ino: Ino,
        change: impl FnOnce(&mut ObjectHeaders) -> Result<()>,
    ) -> Result<()> {
        if self.place(ino)?.location().is_none() {
            return Err(Error::new(Meaning::Unsupported, "a bucket has no headers and no user metadata"));
        }
        if self.kind(ino) == Some(FileKind::Directory) {
            return self.change_headers_of(ino, None, change).await;
        }
        let file = self.open_file(ino)?;
        let changed = self.change_headers_of(ino, Some(&file), change).await;
        self.forget_file(file);
        changed
    }

    async fn change_headers_of(
        &self,
        ino: Ino,
        file: Option<&OpenFile>,
        change: impl FnOnce(&mut ObjectHeaders) -> Result<()>,
    ) -> Result<()> {
        let _guard = match file {
            Some(file) => Some(file.lock.lock().await),
            None => None,
        };
        let old = self.known_headers(ino).await?;
        let mut new: ObjectHeaders = old.as_deref().cloned().unwrap_or_else(|| self.new_headers(ino));
        change(&mut new)?;
        if metadata_bytes(&new.metadata) > METADATA_BYTES_MAX {
            return Err(Error::new(
                Meaning::NoSpace,
                format!("user metadata is limited to {METADATA_BYTES_MAX} bytes"),
            ));
        }
        self.pending_headers(ino, Some(new));
        let stored = match file {
            Some(file) if file.bytes.is_dirty() => Ok(()),
            Some(file) => self.commit_locked(file).await,
            None => match self.tree.read(ino, |inode| inode.attr) {
                Some(attr) => self.put_marker(ino, &attr).await,
                None => Ok(()),
            },
        };
        if stored.is_err() {
            self.pending_headers(ino, old.as_deref().cloned());
        }
        stored
    }

    fn pending_headers(&self, ino: Ino, headers: Option<ObjectHeaders>) {
        self.tree.update(ino, |inode| inode.set_headers(headers));
    }

    async fn virtual_value(&self, ino: Ino, name: &str, caller: Caller) -> Result<String> {
        let none = || Error::new(Meaning::NoAttribute, format!("user.s3.{name}"));
        let place = self.place(ino)?;
        let bucket = match &place {
            Place::Account => return Err(none()),
            Place::Directory { bucket, .. } => bucket.to_string(),
            Place::File(location) => location.bucket.to_string(),
        };
        let is_bucket = place.location().is_none();
        let of_present =
            matches!(name, "acl" | "grants" | "owner" | "key" | "url" | "tags") || name.starts_with("signed_url");
        if of_present && self.is_old(ino) {
            return Err(Error::new(Meaning::Unsupported, format!("user.s3.{name} of an old version")));
        }
        if name == "url" || name.starts_with("signed_url") {
            self.settle_name(ino).await?;
        }
        match name {
            "bucket" => Ok(bucket),
            "acl" => self.canned_acl(ino).await,
            "grants" => Ok(self.acl(ino).await?.to_string()),
            "owner" => Ok(self.acl(ino).await?.owner_id.clone()),
            "tags" if !is_bucket => self.tags(ino).await,
            "upload" if !is_bucket => Ok(self.upload_state(ino)),
            "url" => self.url(ino),
            "signed_url" => self.signed_url(ino, SIGNED_URL_EXPIRES, caller),
            "created" if is_bucket => self.created(&bucket).await,
            "region" if is_bucket => {
                let Place::Directory { bucket, .. } = &place else { return Err(none()) };
                self.store.head_bucket(bucket).await?.region.ok_or_else(none)
            }
            _ => match name.strip_prefix("signed_url.") {
                Some(seconds) => {
                    let no_number = || format!("{seconds:?} in user.s3.signed_url.SECONDS is no number");
                    let seconds = seconds.parse().map_err(|_| Error::new(Meaning::InvalidArgument, no_number()))?;
                    self.signed_url(ino, Duration::from_secs(seconds), caller)
                }
                None if is_bucket => Err(none()),
                None => self.object_value(ino, &place, name).await,
            },
        }
    }

    /// What the object's own headers tell.
    async fn object_value(&self, ino: Ino, place: &Place, name: &str) -> Result<String> {
        let none = || Error::new(Meaning::NoAttribute, format!("user.s3.{name}"));
        if name == "key" {
            return place.location().map(|location| location.key.to_string()).ok_or_else(none);
        }
        let of_object = |look: fn(&crate::tree::Object) -> Option<String>| {
            self.tree.read(ino, |inode| inode.object.as_ref().and_then(look)).flatten().ok_or_else(none)
        };
        if name == "etag" {
            return of_object(|object| Some(object.etag.to_string()));
        }
        let headers = self.known_headers(ino).await?.ok_or_else(none)?;
        match name {
            "version_id" => match of_object(|object| object.version_id.clone()) {
                Ok(id) => Ok(id),
                Err(_) => self.present_version_id(ino).await?.ok_or_else(none),
            },
            "storage_class" => match &headers.storage_class {
                Some(class) => Ok(class.clone()),
                None => of_object(|object| object.storage_class.clone().or_else(|| Some("STANDARD".to_owned()))),
            },
            "encryption" => self.encryption(ino).await?.ok_or_else(none),
            "content_type" => headers.content_type.clone().ok_or_else(none),
            "cache_control" => headers.cache_control.clone().ok_or_else(none),
            "content_disposition" => headers.content_disposition.clone().ok_or_else(none),
            "content_encoding" => headers.content_encoding.clone().ok_or_else(none),
            "content_language" => headers.content_language.clone().ok_or_else(none),
            "default_acl" => headers.metadata.get(xattr::DEFAULT_ACL).cloned().ok_or_else(none),
            _ => Err(none()),
        }
    }

    fn upload_state(&self, ino: Ino) -> String {
        let dirty = self.files.get(ino).is_some_and(|file| file.bytes.is_dirty());
        if let Some(journal) = self.journal.as_ref().filter(|_| !dirty)
            && let Some(location) = self.tree.place(ino).and_then(|place| place.location())
        {
            match (journal.state(&location), journal.conflict(&location)) {
                (Some(state), _) => return state.to_string(),
                (None, Some(place)) => return format!("conflict {place}"),
                (None, None) => {}
            }
        }
        let state = self.files.get(ino).map(|file| file.bytes.upload_state()).unwrap_or(UploadState::Stored);
        match (state, dirty) {
            (UploadState::Stored, true) => UploadState::Pending.to_string(),
            (state, _) => state.to_string(),
        }
    }

    /// A bucket's date of creation, which only the account's listing tells.
    async fn created(&self, bucket: &str) -> Result<String> {
        let buckets = self.store.list_buckets().await?;
        let time = buckets.into_iter().find(|entry| entry.name.as_str() == bucket).and_then(|entry| entry.created);
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let date = since.and_then(|since| time::OffsetDateTime::from_unix_timestamp(since.as_secs() as i64).ok());
        let text = date.and_then(|date| date.format(&time::format_description::well_known::Rfc3339).ok());
        text.ok_or_else(|| Error::new(Meaning::NoAttribute, "user.s3.created"))
    }

    /// Asks for an archived object's bytes to be at hand for so many days.
    async fn restore(&self, ino: Ino, days: &str) -> Result<()> {
        let Place::File(location) = self.place(ino)? else {
            return Err(Error::new(Meaning::Unsupported, "user.s3.restore of a directory"));
        };
        let Some(days) = days.parse().ok().filter(|days: &u32| *days > 0) else {
            let why = format!("{days:?} cannot be user.s3.restore; valid is a number of days, such as 7");
            return Err(Error::new(Meaning::InvalidArgument, why));
        };
        match self.store.restore(&location, None, days).await {
            Err(error) if error.kind == Kind::Archived => {
                Err(Error::with_source(Meaning::InvalidArgument, "it is not archived", error))
            }
            answer => Ok(answer?),
        }
    }

    async fn set_virtual(&self, ino: Ino, name: &str, value: &[u8], caller: Caller) -> Result<()> {
        let text = || {
            let text = std::str::from_utf8(value).map(|text| text.trim_end_matches(['\n', '\0']));
            text.map_err(|_| Error::new(Meaning::InvalidArgument, format!("user.s3.{name}: not text")))
        };
        match name {
            "acl" => self.set_canned_acl(ino, text()?, caller).await,
            "grants" => self.set_grants(ino, text()?, caller).await,
            "restore" => self.restore(ino, text()?).await,
            "refresh" => {
                self.refresh(ino);
                Ok(())
            }
            "tags" => self.set_tags(ino, text()?).await,
            "default_acl" => self.set_default_acl(ino, Some(text()?), caller).await,
            "encryption" => self.set_encryption(ino, text()?).await,
            _ if settable_header(&mut ObjectHeaders::default(), name).is_some() => {
                self.set_header(ino, name, Some(text()?)).await
            }
            _ => Err(Error::new(Meaning::NotPermitted, format!("user.s3.{name} cannot be set"))),
        }
    }

    /// Forgets what is cached of an inode and all below it, here and in the kernel.
    pub(crate) fn refresh(&self, ino: Ino) {
        for (ino, parent, name) in self.tree.expire(ino) {
            self.notify(Notice::Inode(ino));
            if !name.is_empty() {
                self.notify(Notice::Entry(parent, name));
            }
        }
    }
}
