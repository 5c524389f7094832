//! Versions, uploads, archived bytes and tags are the store's own affair: the journal passes on.

use async_trait::async_trait;

use crate::store::versions::{
    Marker, UploadsPage, VersionFailure, VersionName, Versions, VersionsPage, VersionsRequest,
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
