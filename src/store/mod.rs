//! Where requests go out: the only folder that names `s3` and `reqwest`.
//!
//! [`Store`] is the border. One method is one S3 request, there are no default methods, and nothing here knows
//! inodes, paths or the kernel. Every implementation and every decorator passes the same conformance suite.
//!
//! What the contract promises to callers:
//! * A write is atomic: a reader sees the old object or the new one, whole.
//! * An `Ok` means that the store said yes. A 200 that carries an error document is an error.
//! * An error with [`Kind::may_have_happened`] is ambiguous: the request may have been carried out.
//! * Locations are safe by construction: see [`crate::format::key`].

pub mod acl;
pub mod append;
pub mod buffers;
pub mod error;
mod etag;
pub mod fault;
pub mod limit;
pub mod link;
pub mod memory;
pub mod operation;
pub mod profile;
pub mod progress;
pub mod retry;
pub mod s3;
pub mod trace;
pub mod versions;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use crate::format::encryption::makes_up_tags;

pub use crate::format::acl::{Acl, AclHeaders};
pub use crate::format::key::{BucketName, Key};
pub use crate::format::tags::{Tag, Tags};
pub use acl::{AclTarget, NewAcl};
pub use buffers::Buffers;
pub use error::{Error, Kind};
pub use etag::{ETag, etag_of_parts};
pub use link::{LinkMethod, PresignRequest};

/// The result of a request to the store.
pub type Result<T> = std::result::Result<T, Error>;

/// Where the pieces of a body end, if they come whole: at multiples of this in the object.
pub const PIECE_BYTES: u64 = 1 << 20;

/// The bytes of an object as they arrive. Ends early only with an `Err`.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Where an object lies: a bucket and a key in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// The bucket.
    pub bucket: BucketName,
    /// The key in it.
    pub key: Key,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

/// What a write demands of the object that it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Nothing: the last writer wins.
    None,
    /// That there is no object yet (`If-None-Match: *`).
    IfAbsent,
    /// That the object is still this version (`If-Match`).
    IfMatch(ETag),
}

/// Everything but the bytes that a write gives an object, and that a HEAD or GET answers.
///
/// Metadata names are without `x-amz-meta-` and in lower case; values are what goes over the wire, so plain ASCII
/// (see [`crate::format::header`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectHeaders {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`, as spelled.
    pub expires: Option<String>,
    /// `x-amz-storage-class`; `None` is the store's default.
    pub storage_class: Option<String>,
    /// How the store encrypts it, as [`crate::format::encryption`] spells it; `None` is as the bucket says.
    pub encryption: Option<String>,
    /// `x-amz-meta-*`.
    pub metadata: BTreeMap<String, String>,
    /// The tags; an answer tells only whether there are any.
    pub tags: Tags,
    /// The ACL that rides on a write; never part of an answer.
    pub acl: Option<AclHeaders>,
}

impl ObjectHeaders {
    /// What an answer about the object tells, once it was written with these.
    pub fn seen(self) -> Self {
        ObjectHeaders { acl: None, tags: self.tags.seen(), ..self }
    }
}

/// What the store says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Length of the whole object in bytes, also when a range was asked for.
    pub size_bytes: u64,
    /// Which version of the content this is.
    pub etag: ETag,
    /// When it was stored, to the second.
    pub modified: SystemTime,
    /// The version's identity in a versioned bucket.
    pub version_id: Option<String>,
    /// Content headers and metadata.
    pub headers: ObjectHeaders,
    /// Whether it grows by appends; `None` where the store does not tell.
    pub grows: Option<bool>,
}

/// The answer to a GET: what the object is, and its bytes in the asked range.
pub struct ObjectBody {
    /// What the object is.
    pub head: ObjectHead,
    /// The range that [`ObjectBody::body`] covers, in bytes of the object.
    pub range: Range<u64>,
    /// The bytes.
    pub body: Body,
}

/// Which bytes of which version a GET wants.
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// Bytes wanted, end exclusive; never empty. `None` is the whole object.
    pub range: Option<Range<u64>>,
    /// Only if the object is still this one; else [`Kind::PreconditionFailed`].
    pub if_match: Option<ETag>,
    /// An older version of a versioned bucket.
    pub version_id: Option<String>,
    /// Memory to receive them in.
    pub buffers: Buffers,
}

/// One page of a listing that is asked for.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys are folded at the first `/` after the prefix.
    pub delimited: bool,
    /// Only keys after this one, as S3 sorts (bytes of UTF-8).
    pub start_after: Option<String>,
    /// Where the page before ended.
    pub continuation: Option<String>,
    /// Entries at most; `None` is the store's own limit (1000).
    pub keys_max: Option<u32>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Objects in key order. Keys are raw: some can be named by no path.
    pub objects: Vec<ListedObject>,
    /// Folded prefixes, each with its closing `/`, in order.
    pub prefixes: Vec<String>,
    /// How to ask for the next page; `None` on the last one.
    pub continuation: Option<String>,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// The key, raw.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Which version of the content.
    pub etag: ETag,
    /// When it was stored.
    pub modified: SystemTime,
    /// Storage class, where told.
    pub storage_class: Option<String>,
}

/// A bucket of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketEntry {
    /// Its name.
    pub name: BucketName,
    /// When it was created.
    pub created: Option<SystemTime>,
}

/// What the store says of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketHead {
    /// Bytes stored in it, where the store tells (RGW).
    pub used_bytes: Option<u64>,
    /// Objects in it, where the store tells (RGW).
    pub object_count: Option<u64>,
    /// Its region, where the store tells.
    pub region: Option<String>,
}

/// A version that a write made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its entity tag.
    pub etag: ETag,
    /// Its version id in a versioned bucket.
    pub version_id: Option<String>,
}

/// The source of a copy on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// The object.
    pub location: Location,
    /// Only if it still is this version. Some stores ignore this (RGW 16.2 does): compare afterwards.
    pub if_match: Option<ETag>,
}

/// What headers the copy of an object gets. The ACL is never kept by the store: it rides along here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one lives as long as its request, and there is no heap of them")]
pub enum CopyHeaders {
    /// The source's content headers and metadata (`x-amz-metadata-directive: COPY`).
    Keep {
        /// The copy's ACL; `None` is the store's default, private.
        acl: Option<AclHeaders>,
        /// The copy's storage class; `None` is the store's default, not the source's.
        storage_class: Option<String>,
    },
    /// These and no others (`REPLACE`).
    Replace(ObjectHeaders),
}

impl CopyHeaders {
    /// Whether the store makes up the copy's tag. What is encrypted so is copied with its headers.
    pub fn has_made_up_tags(&self) -> bool {
        match self {
            CopyHeaders::Keep { .. } => false,
            CopyHeaders::Replace(headers) => makes_up_tags(headers.encryption.as_deref()),
        }
    }

    /// The tags that replace the source's, if any do.
    pub fn replaced_tags(&self) -> &Tags {
        match self {
            CopyHeaders::Keep { .. } => &Tags::None,
            CopyHeaders::Replace(headers) => &headers.tags,
        }
    }
}

/// A part of a multipart upload that the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Its entity tag.
    pub etag: ETag,
}

/// A key that a batch delete could not delete.
#[derive(Debug)]
pub struct DeleteFailure {
    /// The key.
    pub key: Key,
    /// Why.
    pub error: Error,
}

/// An S3 store. See the module for the contract, and [`versions`] and [`append`] for what else it can tell and do.
#[async_trait]
pub trait Store: versions::Versions + append::Append + Send + Sync + 'static {
    /// Every bucket of the account, in name order.
    async fn list_buckets(&self) -> Result<Vec<BucketEntry>>;
    /// Creates a bucket. [`Kind::AlreadyExists`] when the name is taken, by us or by others.
    async fn create_bucket(&self, bucket: &BucketName) -> Result<()>;
    /// Deletes an empty bucket. [`Kind::NotEmpty`] while it holds any object or version.
    async fn delete_bucket(&self, bucket: &BucketName) -> Result<()>;
    /// Asks whether the bucket is there and may be used, and how full it is.
    async fn head_bucket(&self, bucket: &BucketName) -> Result<BucketHead>;
    /// One page of keys.
    async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage>;
    /// What an object is, without its bytes.
    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectHead>;
    /// An object's bytes. The answer comes when its headers are there; the body streams.
    async fn get(&self, location: &Location, options: &GetOptions) -> Result<ObjectBody>;
    /// Stores a whole object.
    async fn put(
        &self,
        location: &Location,
        body: Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written>;
    /// Copies an object on the server.
    async fn copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written>;
    /// Deletes an object; `Ok` also when there was none.
    async fn delete(&self, location: &Location, version_id: Option<&str>) -> Result<()>;
    /// Deletes up to 1000 keys of a bucket; answers those that failed.
    async fn delete_many(&self, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>>;
    /// Begins a multipart upload and answers its id.
    async fn create_upload(&self, location: &Location, headers: &ObjectHeaders) -> Result<String>;
    /// Uploads one part.
    async fn upload_part(&self, location: &Location, upload_id: &str, number: u32, body: Bytes) -> Result<Part>;
    /// Makes a part of a range of another object, on the server.
    async fn upload_part_copy(
        &self,
        location: &Location,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<Part>;
    /// Makes the object of its parts.
    async fn complete_upload(
        &self,
        location: &Location,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written>;
    /// Gives up a multipart upload; `Ok` also when there is none.
    async fn abort_upload(&self, location: &Location, upload_id: &str) -> Result<()>;
    /// The ACL of a bucket or object.
    async fn get_acl(&self, target: &AclTarget) -> Result<Acl>;
    /// Replaces the ACL of a bucket or object.
    async fn put_acl(&self, target: &AclTarget, acl: &NewAcl) -> Result<()>;
    /// A link that lets anyone get or store the object for a while. Costs no request.
    fn presign(&self, request: &PresignRequest) -> Result<String>;
    /// The object's plain link, without a signature. Costs no request.
    fn url(&self, location: &Location) -> String;
}
