//! What a bucket holds beside its present objects: versions, uploads that are under way, archived bytes; and tags. The second
//! half of [`super::Store`]'s border, under the same contract; and the decorators' part in it, which is to pass on.

use std::time::SystemTime;

use async_trait::async_trait;

use super::fault::Fault;
use super::limit::Limit;
use super::operation as op;
use super::retry::{Repeat, Retry};
use super::trace::Trace;
use super::{BucketName, Error, Location, Part, Result, Tag};

/// One page of a bucket's versions that is asked for.
#[derive(Clone, Debug, Default)]
pub struct VersionsRequest {
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys are folded at the first `/` after the prefix.
    pub delimited: bool,
    /// Where the page before ended.
    pub after: Option<Marker>,
}

/// Where a page ended: behind this key, and this version or upload of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The key, or what the store gave for one.
    pub key: String,
    /// The id of the version or upload; none after a folded prefix.
    pub id: Option<String>,
}

/// One page of versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionsPage {
    /// Versions by key, the newest of a key first. Keys are raw: some can be named by no path.
    pub versions: Vec<ListedVersion>,
    /// Folded prefixes, each with its closing `/`.
    pub prefixes: Vec<String>,
    /// How to ask for the next page; `None` on the last one.
    pub next: Option<Marker>,
}

/// A version as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedVersion {
    /// Which.
    pub name: VersionName,
    /// Whether it is what the key stands for now.
    pub is_latest: bool,
    /// Whether it says that the key was deleted, and has no bytes.
    pub is_delete_marker: bool,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Its entity tag as spelled; empty for a delete marker.
    pub etag: String,
    /// When it was stored.
    pub modified: SystemTime,
}

/// A version of a key that may be one that no path can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionName {
    /// The key, raw.
    pub key: String,
    /// The version; `null` for what was stored while the bucket kept none.
    pub version_id: String,
}

/// A version that could not be deleted.
#[derive(Debug)]
pub struct VersionFailure {
    /// Its key, raw.
    pub key: String,
    /// Why.
    pub error: Error,
}

/// One page of uploads that are under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadsPage {
    /// Raw keys, and the ids of their uploads.
    pub uploads: Vec<(String, String)>,
    /// How to ask for the next page; `None` on the last one.
    pub next: Option<Marker>,
}

/// A part of an upload that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPart {
    /// Which, and what the store calls its bytes.
    pub part: Part,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// One page of the parts of an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsPage {
    /// Parts in the order of their numbers.
    pub parts: Vec<ListedPart>,
    /// The number behind which the next page begins; `None` on the last one.
    pub next: Option<u32>,
}

/// What [`super::Store`] can tell and do beside the present objects.
#[async_trait]
pub trait Versions {
    /// Whether the bucket keeps versions, or has kept some before that was suspended.
    async fn is_versioned(&self, bucket: &BucketName) -> Result<bool>;
    /// One page of versions; in a bucket that keeps none each object is its version `null`.
    async fn list_versions(&self, bucket: &BucketName, request: &VersionsRequest) -> Result<VersionsPage>;
    /// Deletes up to 1000 versions for good; answers those that failed. One that is not there is no failure.
    async fn delete_versions(&self, bucket: &BucketName, versions: &[VersionName]) -> Result<Vec<VersionFailure>>;
    /// One page of the uploads that are neither completed nor given up.
    async fn list_uploads(&self, bucket: &BucketName, after: Option<&Marker>) -> Result<UploadsPage>;
    /// One page of the parts that an upload has, behind this number. [`super::Kind::NotFound`] once it is completed or
    /// given up.
    async fn list_parts(&self, location: &Location, upload_id: &str, after: Option<u32>) -> Result<PartsPage>;
    /// Asks for an archived object's bytes to be kept at hand for some days; `Ok` also when that is under way.
    async fn restore(&self, location: &Location, version_id: Option<&str>, days: u32) -> Result<()>;
    /// The tags of an object.
    async fn get_tags(&self, location: &Location) -> Result<Vec<Tag>>;
    /// Replaces the tags of an object.
    async fn put_tags(&self, location: &Location, tags: &[Tag]) -> Result<()>;
}

/// Writes [`Versions`] for a decorator: `$self`, an operation, its subject and the inner call become one expression.
macro_rules! pass_on {
    ($decorator:ty, |$self:ident, $operation:ident, $subject:ident, $call:ident| $pass:expr) => {
        #[async_trait]
        impl Versions for $decorator {
            async fn is_versioned(&self, bucket: &BucketName) -> Result<bool> {
                let ($self, $operation, $subject) = (self, op::GET_BUCKET_VERSIONING, bucket);
                let $call = || self.inner.is_versioned(bucket);
                $pass
            }

            async fn list_versions(&self, bucket: &BucketName, request: &VersionsRequest) -> Result<VersionsPage> {
                let ($self, $operation, $subject) = (self, op::LIST_OBJECT_VERSIONS, bucket);
                let $call = || self.inner.list_versions(bucket, request);
                $pass
            }

            async fn delete_versions(&self, bucket: &BucketName, all: &[VersionName]) -> Result<Vec<VersionFailure>> {
                let ($self, $operation, $subject) = (self, op::DELETE_OBJECTS, bucket);
                let $call = || self.inner.delete_versions(bucket, all);
                $pass
            }

            async fn list_uploads(&self, bucket: &BucketName, after: Option<&Marker>) -> Result<UploadsPage> {
                let ($self, $operation, $subject) = (self, op::LIST_MULTIPART_UPLOADS, bucket);
                let $call = || self.inner.list_uploads(bucket, after);
                $pass
            }

            async fn list_parts(&self, location: &Location, id: &str, after: Option<u32>) -> Result<PartsPage> {
                let ($self, $operation, $subject) = (self, op::LIST_PARTS, location);
                let $call = || self.inner.list_parts(location, id, after);
                $pass
            }

            async fn restore(&self, location: &Location, version_id: Option<&str>, days: u32) -> Result<()> {
                let ($self, $operation, $subject) = (self, op::RESTORE_OBJECT, location);
                let $call = || self.inner.restore(location, version_id, days);
                $pass
            }

            async fn get_tags(&self, location: &Location) -> Result<Vec<Tag>> {
                let ($self, $operation, $subject) = (self, op::GET_OBJECT_TAGGING, location);
                let $call = || self.inner.get_tags(location);
                $pass
            }

            async fn put_tags(&self, location: &Location, tags: &[Tag]) -> Result<()> {
                let ($self, $operation, $subject) = (self, op::PUT_OBJECT_TAGGING, location);
                let $call = || self.inner.put_tags(location, tags);
                $pass
            }
        }
    };
}

pass_on!(Trace, |trace, operation, subject, call| trace.traced(operation, subject, 0, call()).await);
pass_on!(Retry, |retry, operation, subject, call| retry.run(operation, subject, Repeat::Always, call).await);
pass_on!(Limit, |limit, _operation, _subject, call| limit.limited(call()).await);
pass_on!(Fault, |fault, operation, _subject, call| fault.call(operation, call()).await);
