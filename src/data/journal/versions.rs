//! Versions, uploads, archived bytes and tags are the store's own affair: the journal passes on. The parts of its own
//! uploads it knows.

use async_trait::async_trait;

use crate::store::versions::{
    Marker, PartsPage, UploadsPage, VersionFailure, VersionName, Versions, VersionsPage, VersionsRequest,
};
use crate::store::{BucketName, Location, Result, Tag};

use super::Journal;

#[async_trait]
impl Versions for Journal {
    async fn is_versioned(&self, bucket: &BucketName) -> Result<bool> {
        self.inner.store.is_versioned(bucket).await
    }

    async fn list_versions(&self, bucket: &BucketName, request: &VersionsRequest) -> Result<VersionsPage> {
        self.inner.store.list_versions(bucket, request).await
    }

    async fn delete_versions(&self, bucket: &BucketName, versions: &[VersionName]) -> Result<Vec<VersionFailure>> {
        self.inner.store.delete_versions(bucket, versions).await
    }

    async fn list_uploads(&self, bucket: &BucketName, after: Option<&Marker>) -> Result<UploadsPage> {
        self.inner.store.list_uploads(bucket, after).await
    }

    async fn list_parts(&self, location: &Location, upload_id: &str, after: Option<u32>) -> Result<PartsPage> {
        match self.inner.parts_of(upload_id) {
            Some(parts) => {
                let parts = parts.into_iter().filter(|one| after.is_none_or(|number| one.part.number > number));
                Ok(PartsPage { parts: parts.collect(), next: None })
            }
            // One that a former mount has begun is the store's.
            None => self.inner.store.list_parts(location, upload_id, after).await,
        }
    }

    async fn restore(&self, location: &Location, version_id: Option<&str>, days: u32) -> Result<()> {
        self.inner.settle_name(location).await?;
        self.inner.store.restore(location, version_id, days).await
    }

    async fn get_tags(&self, location: &Location) -> Result<Vec<Tag>> {
        self.inner.settle_name(location).await?;
        self.inner.store.get_tags(location).await
    }

    async fn put_tags(&self, location: &Location, tags: &[Tag]) -> Result<()> {
        self.inner.settle_name(location).await?;
        self.inner.store.put_tags(location, tags).await
    }
}
