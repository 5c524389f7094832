//! A bucket in memory keeps no versions: each object is its version `null`.

use async_trait::async_trait;

use super::state::{Request, find};
use super::{MemoryStore, bucket_of, listing, upload};
use crate::store::operation as op;
use crate::store::versions::{
    ListedPart, ListedVersion, Marker, PartsPage, UploadsPage, VersionFailure, VersionName, Versions, VersionsPage,
    VersionsRequest,
};
use crate::store::{BucketName, Kind, ListRequest, Location, Part, Result, Tag, Tags};

/// The one version of an object here.
const NULL: &str = "null";

#[async_trait]
impl Versions for MemoryStore {
    async fn is_versioned(&self, bucket: &BucketName) -> Result<bool> {
        bucket_of(&mut self.lock(), &Request::on_bucket(op::GET_BUCKET_VERSIONING, bucket)).map(|_| false)
    }

    async fn list_versions(&self, bucket: &BucketName, request: &VersionsRequest) -> Result<VersionsPage> {
        let what = Request::on_bucket(op::LIST_OBJECT_VERSIONS, bucket);
        let asked = ListRequest {
            prefix: request.prefix.clone(),
            delimited: request.delimited,
            continuation: request.after.as_ref().map(|marker| marker.key.clone()),
            ..ListRequest::default()
        };
        let mut buckets = self.lock();
        let objects = &bucket_of(&mut buckets, &what)?.objects;
        let page = listing::page(objects, &asked, self.limits.page_keys_max)
            .ok_or_else(|| what.refuse(Kind::BadRequest, "InvalidArgument: the marker is incorrect"))?;
        let versions = page.objects.into_iter().map(|object| ListedVersion {
            name: VersionName { key: object.key, version_id: NULL.to_owned() },
            is_latest: true,
            is_delete_marker: false,
            size_bytes: object.size_bytes,
            etag: object.etag.to_string(),
            modified: object.modified,
        });
        let next = page.continuation.map(|key| Marker { key, id: None });
        Ok(VersionsPage { versions: versions.collect(), prefixes: page.prefixes, next })
    }

    async fn delete_versions(&self, bucket: &BucketName, versions: &[VersionName]) -> Result<Vec<VersionFailure>> {
        let mut buckets = self.lock();
        let found = bucket_of(&mut buckets, &Request::on_bucket(op::DELETE_OBJECTS, bucket))?;
        for version in versions.iter().filter(|version| version.version_id == NULL) {
            found.objects.remove(&version.key);
        }
        Ok(Vec::new())
    }

    async fn list_uploads(&self, bucket: &BucketName, _after: Option<&Marker>) -> Result<UploadsPage> {
        let mut buckets = self.lock();
        let found = bucket_of(&mut buckets, &Request::on_bucket(op::LIST_MULTIPART_UPLOADS, bucket))?;
        let uploads = found.uploads.iter().map(|(id, upload)| (upload.key.to_string(), id.clone()));
        Ok(UploadsPage { uploads: uploads.collect(), next: None })
    }

    async fn list_parts(&self, location: &Location, upload_id: &str, after: Option<u32>) -> Result<PartsPage> {
        let request = Request::on(op::LIST_PARTS, location);
        let mut buckets = self.lock();
        let parts = &upload::under_way(bucket_of(&mut buckets, &request)?, upload_id, &request)?.parts;
        let mut behind = parts.range(after.map_or(0, |number| number.saturating_add(1))..);
        let page = behind.by_ref().take(self.limits.page_keys_max);
        let parts: Vec<ListedPart> = page
            .map(|(number, part)| ListedPart {
                part: Part { number: *number, etag: part.etag() },
                size_bytes: part.bytes.len() as u64,
            })
            .collect();
        let next = behind.next().and_then(|_| parts.last()).map(|last| last.part.number);
        Ok(PartsPage { parts, next })
    }

    async fn restore(&self, location: &Location, _version_id: Option<&str>, _days: u32) -> Result<()> {
        Err(Request::on(op::RESTORE_OBJECT, location).refuse(Kind::Unsupported, "nothing here is archived"))
    }

    async fn get_tags(&self, location: &Location) -> Result<Vec<Tag>> {
        let request = Request::on(op::GET_OBJECT_TAGGING, location);
        let mut buckets = self.lock();
        let object = find(bucket_of(&mut buckets, &request)?, None, &request)?;
        Ok(object.headers.tags.told().unwrap_or_default().to_vec())
    }

    async fn put_tags(&self, location: &Location, tags: &[Tag]) -> Result<()> {
        let request = Request::on(op::PUT_OBJECT_TAGGING, location);
        let mut buckets = self.lock();
        let bucket = bucket_of(&mut buckets, &request)?;
        find(bucket, None, &request)?;
        if let Some(object) = bucket.objects.get_mut(location.key.as_str()) {
            object.headers.tags = Tags::Are(tags.to_vec());
        }
        Ok(())
    }
}
