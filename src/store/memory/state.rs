//! What the store in memory holds, and the checks that several of its requests share. No lock and no clock here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream;
use md5::{Digest, Md5};

use crate::format::acl::{Grant, Grantee, Permission};
use crate::store::{
    Acl, Body, BucketName, Condition, ETag, Error, Key, Kind, Location, ObjectHead, ObjectHeaders, Result, Written,
};

/// The canonical id of the one account, owner of everything.
pub const OWNER_ID: &str = "memory";

/// Bytes of the pieces in which a body streams: several for all but small objects, as over a network.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes of user metadata at most, names and values together (S3 user guide, "User-defined object metadata").
const METADATA_BYTES_MAX: usize = 2 * 1024;

pub(super) struct Bucket {
    pub(super) created: SystemTime,
    pub(super) acl: Acl,
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) uploads_begun: u64,
}

#[derive(Clone)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    pub(super) etag: ETag,
    pub(super) modified: SystemTime,
    /// Without the ACL.
    pub(super) headers: ObjectHeaders,
    pub(super) acl: Acl,
    /// The pieces of an object that grows.
    pub(super) pieces: Option<Pieces>,
}

/// How many pieces an object has, and how many were ever made that begin with these: its copies share them.
#[derive(Clone)]
pub(super) struct Pieces {
    pub(super) count: u32,
    pub(super) made: Arc<AtomicU32>,
}

impl Bucket {
    pub(super) fn new(created: SystemTime) -> Self {
        Bucket { created, acl: private_acl(), objects: BTreeMap::new(), uploads: BTreeMap::new(), uploads_begun: 0 }
    }
}

impl Object {
    pub(super) fn new(
        bytes: Bytes,
        etag: Option<ETag>,
        headers: &ObjectHeaders,
        modified: SystemTime,
        request: &Request<'_>,
    ) -> Result<Self> {
        let acl = check_headers(headers, request)?;
        let etag = etag.unwrap_or_else(|| ETag::new(&hex::encode(Md5::digest(&bytes))));
        let headers = ObjectHeaders { acl: None, ..headers.clone() };
        Ok(Object { bytes, etag, modified, headers, acl, pieces: None })
    }

    pub(super) fn head(&self) -> ObjectHead {
        ObjectHead {
            size_bytes: self.bytes.len() as u64,
            etag: self.etag.clone(),
            modified: self.modified,
            version_id: None,
            headers: self.headers.clone().seen(),
            grows: Some(self.pieces.is_some()),
        }
    }

    pub(super) fn written(&self) -> Written {
        Written { etag: self.etag.clone(), version_id: None }
    }
}

/// An upload that is neither completed nor given up.
pub(super) struct Upload {
    pub(super) key: Key,
    pub(super) headers: ObjectHeaders,
    pub(super) parts: BTreeMap<u32, StoredPart>,
}

/// A part of it.
pub(super) struct StoredPart {
    pub(super) bytes: Bytes,
    pub(super) md5: [u8; 16],
}

impl StoredPart {
    pub(super) fn etag(&self) -> ETag {
        ETag::new(&hex::encode(self.md5))
    }
}

impl Upload {
    /// Whether this upload is for that key: an id is good for its own key only.
    pub(super) fn is_for(&self, key: &Key) -> bool {
        self.key == *key
    }
}

/// A request in hand: its name and what it is about, for its errors.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) operation: &'static str,
    pub(super) bucket: &'a BucketName,
    pub(super) key: Option<&'a Key>,
}

impl<'a> Request<'a> {
    pub(super) fn on(operation: &'static str, location: &'a Location) -> Self {
        Request { operation, bucket: &location.bucket, key: Some(&location.key) }
    }

    pub(super) fn on_bucket(operation: &'static str, bucket: &'a BucketName) -> Self {
        Request { operation, bucket, key: None }
    }

    pub(super) fn refuse(&self, kind: Kind, message: &str) -> Error {
        let subject = match self.key {
            Some(key) => format!("{}/{key}", self.bucket),
            None => self.bucket.to_string(),
        };
        Error::new(kind, self.operation, subject, message)
    }
}

/// Checks the headers of a write and answers the ACL that it makes.
pub(super) fn check_headers(headers: &ObjectHeaders, request: &Request<'_>) -> Result<Acl> {
    let metadata_bytes: usize = headers.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if metadata_bytes > METADATA_BYTES_MAX {
        return Err(request.refuse(Kind::TooLarge, "MetadataTooLarge: user metadata is limited to 2 KiB"));
    }
    let Some(acl) = &headers.acl else { return Ok(private_acl()) };
    Acl::from_headers(acl, OWNER_ID, Some(OWNER_ID))
        .map_err(|bad| request.refuse(Kind::BadRequest, &format!("InvalidArgument: {bad}")))
}

/// What everything gets for which no other ACL was asked.
fn private_acl() -> Acl {
    let own = Grant { grantee: Grantee::Id(OWNER_ID.to_owned()), permission: Permission::FullControl };
    Acl { owner_id: OWNER_ID.to_owned(), owner_name: Some(OWNER_ID.to_owned()), grants: vec![own] }
}

/// Finds an object. A bucket that is not versioned has but the version `null`.
pub(super) fn find<'a>(bucket: &'a Bucket, version_id: Option<&str>, request: &Request<'_>) -> Result<&'a Object> {
    let key = request.key.map_or("", Key::as_str);
    let object = bucket.objects.get(key).filter(|_| matches!(version_id, None | Some("null")));
    object.ok_or_else(|| request.refuse(Kind::NotFound, "NoSuchKey"))
}

pub(super) fn check_match(if_match: Option<&ETag>, object: &Object, request: &Request<'_>) -> Result<()> {
    match if_match {
        Some(etag) if *etag != object.etag => Err(request.refuse(Kind::PreconditionFailed, "PreconditionFailed")),
        _ => Ok(()),
    }
}

/// Checks what a write demands of the object it replaces (S3 user guide, "Conditional writes": If-Match on an absent
/// key is 404).
pub(super) fn check_condition(bucket: &Bucket, condition: &Condition, request: &Request<'_>) -> Result<()> {
    match (condition, find(bucket, None, request)) {
        (Condition::None, _) | (Condition::IfAbsent, Err(_)) => Ok(()),
        (Condition::IfAbsent, Ok(_)) => Err(request.refuse(Kind::PreconditionFailed, "PreconditionFailed")),
        (Condition::IfMatch(etag), found) => check_match(Some(etag), found?, request),
    }
}

/// The bytes of a range as S3 gives them: the end is clamped, a start beyond the object is refused.
pub(super) fn clamp(range: Option<&Range<u64>>, size_bytes: u64, request: &Request<'_>) -> Result<Range<u64>> {
    match range {
        None => Ok(0..size_bytes),
        Some(range) if range.start >= size_bytes || range.is_empty() => {
            Err(request.refuse(Kind::BadRange, "InvalidRange"))
        }
        Some(range) => Ok(range.start..range.end.min(size_bytes)),
    }
}

pub(super) fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    bytes.slice(range.start as usize..range.end as usize)
}

pub(super) fn in_pieces(bytes: Bytes) -> Body {
    let starts = (0..bytes.len()).step_by(PIECE_BYTES);
    Box::pin(stream::iter(starts.map(move |at| Ok(bytes.slice(at..bytes.len().min(at + PIECE_BYTES))))))
}
