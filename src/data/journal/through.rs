//! The journal as a store: changes are taken in, questions answered with what waits in mind, and what only the store
//! can say or do waits until the name is settled.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use md5::{Digest, Md5};

use crate::store::append::Append;
use crate::store::operation::APPEND_OBJECT;
use crate::store::{
    Acl, AclTarget, BucketEntry, BucketHead, BucketName, Condition, CopyHeaders, CopySource, DeleteFailure, ETag,
    Error, GetOptions, Key, Kind, ListPage, ListRequest, Location, NewAcl, ObjectBody, ObjectHead, ObjectHeaders, Part,
    PresignRequest, Result, Store, Written,
};

use super::record::{Pending, Segment, check};
use super::{Inner, Journal};

impl Inner {
    /// What a name stands for must be in the store before this is asked of it.
    async fn settled(&self, target: &AclTarget) -> Result<()> {
        match target {
            AclTarget::Object(location) => self.settle_name(location).await,
            AclTarget::Bucket(_) => Ok(()),
        }
    }

    /// A condition in the store's own words.
    pub(super) fn real_condition(&self, to: &Location, condition: &Condition) -> Condition {
        match condition {
            // Whoever else made the same directory meanwhile is no rival.
            _ if to.key.as_str().ends_with('/') => Condition::None,
            Condition::IfMatch(etag) => Condition::IfMatch(self.lock().real(to, etag)),
            other => other.clone(),
        }
    }

    async fn accept_copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written> {
        let waiting = self.lock().waiting(&source.location, source.if_match.as_ref())?;
        let (headers, keeps_headers, etag, size_bytes) = match waiting {
            Some(pending) => {
                let (headers, keeps_headers) = pending.copied_headers(headers);
                (headers, keeps_headers, pending.etag.clone(), pending.size_bytes())
            }
            None => {
                let head = self.head_of(&source.location, None).await?;
                if let Some(etag) = &source.if_match {
                    check(&Condition::IfMatch(etag.clone()), Some(&head.etag), &source.location)?;
                }
                match headers {
                    CopyHeaders::Replace(headers) => (headers.clone(), false, head.etag, head.size_bytes),
                    CopyHeaders::Keep { acl, storage_class } => {
                        let (acl, storage_class) = (acl.clone(), storage_class.clone());
                        let headers = ObjectHeaders { acl, storage_class, ..head.headers };
                        (headers, true, head.etag, head.size_bytes)
                    }
                }
            }
        };
        let segment = Segment::Stored {
            source: source.location.clone(),
            etag: etag.clone(),
            range: 0..size_bytes,
            whole: true,
            made_by: None,
        };
        let pending = Pending {
            segments: vec![segment],
            headers,
            keeps_headers,
            condition: Condition::None,
            etag,
            modified: self.config.clock.now(),
        };
        self.accept(to, pending, source.location != *to).await
    }
}

/// What the store will call an object of these bytes, mostly.
fn tag(bytes: &Bytes) -> ETag {
    ETag::new(&hex::encode(Md5::digest(bytes)))
}

#[async_trait]
impl Store for Journal {
    async fn list_buckets(&self) -> Result<Vec<BucketEntry>> {
        self.inner.store.list_buckets().await
    }

    async fn create_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.inner.store.create_bucket(bucket).await
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.inner.settle(|name| name.bucket == *bucket).await?;
        self.inner.store.delete_bucket(bucket).await
    }

    async fn head_bucket(&self, bucket: &BucketName) -> Result<BucketHead> {
        self.inner.store.head_bucket(bucket).await
    }

    async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage> {
        self.inner.list_of(bucket, request).await
    }

    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
        self.inner.head_of(location, version_id).await
    }

    async fn get(&self, location: &Location, options: &GetOptions) -> Result<ObjectBody> {
        self.inner.get_of(location, options).await
    }

    async fn put(
        &self,
        location: &Location,
        body: Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        let kept = match (self.inner.config.accepts, body.is_empty()) {
            (false, _) => None,
            (true, true) => self.inner.room(0).await.then(|| (Vec::new(), tag(&body))),
            (true, false) => {
                let kept = self.inner.keep(body.clone(), location, tag).await?;
                kept.map(|(segment, etag)| (vec![segment], etag))
            }
        };
        let Some((segments, etag)) = kept else {
            self.inner.settle_name(location).await?;
            let condition = self.inner.real_condition(location, condition);
            let written = self.inner.store.put(location, body, headers, &condition).await?;
            self.inner.lock().aliases.remove(location);
            return Ok(written);
        };
        let pending = Pending {
            segments,
            headers: headers.clone(),
            keeps_headers: false,
            condition: condition.clone(),
            etag,
            modified: self.inner.config.clock.now(),
        };
        self.inner.accept(location, pending, false).await
    }

    async fn copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written> {
        if !self.inner.config.accepts {
            self.inner.settle_name(&source.location).await?;
            self.inner.settle_name(to).await?;
            let if_match = source.if_match.as_ref().map(|etag| self.inner.lock().real(&source.location, etag));
            let source = CopySource { location: source.location.clone(), if_match };
            return self.inner.store.copy(&source, to, headers).await;
        }
        self.inner.accept_copy(source, to, headers).await
    }

    async fn delete(&self, location: &Location, version_id: Option<&str>) -> Result<()> {
        if version_id.is_some() || !self.inner.config.accepts {
            self.inner.settle_name(location).await?;
            return self.inner.store.delete(location, version_id).await;
        }
        self.inner.accept_delete(location).await
    }

    async fn delete_many(&self, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        let mut failures = Vec::new();
        for key in keys {
            let location = Location { bucket: bucket.clone(), key: key.clone() };
            if let Err(error) = self.delete(&location, None).await {
                failures.push(DeleteFailure { key: key.clone(), error });
            }
        }
        Ok(failures)
    }

    async fn create_upload(&self, location: &Location, headers: &ObjectHeaders) -> Result<String> {
        match self.inner.config.accepts {
            true => Ok(self.inner.begin_upload(headers)),
            false => self.inner.store.create_upload(location, headers).await,
        }
    }

    async fn upload_part(&self, location: &Location, upload_id: &str, number: u32, body: Bytes) -> Result<Part> {
        match self.inner.config.accepts {
            true => self.inner.keep_part(location, upload_id, number, body).await,
            false => self.inner.store.upload_part(location, upload_id, number, body).await,
        }
    }

    async fn upload_part_copy(
        &self,
        location: &Location,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<Part> {
        if self.inner.config.accepts {
            return self.inner.refer_part(location, upload_id, number, source, range).await;
        }
        self.inner.settle_name(&source.location).await?;
        self.inner.store.upload_part_copy(location, upload_id, number, source, range).await
    }

    async fn complete_upload(
        &self,
        location: &Location,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        if self.inner.config.accepts {
            return self.inner.complete(location, upload_id, parts, condition).await;
        }
        self.inner.settle_name(location).await?;
        let condition = self.inner.real_condition(location, condition);
        self.inner.store.complete_upload(location, upload_id, parts, &condition).await
    }

    async fn abort_upload(&self, location: &Location, upload_id: &str) -> Result<()> {
        match self.inner.config.accepts {
            true => self.inner.abort(location, upload_id).await,
            false => self.inner.store.abort_upload(location, upload_id).await,
        }
    }

    async fn get_acl(&self, target: &AclTarget) -> Result<Acl> {
        self.inner.settled(target).await?;
        self.inner.store.get_acl(target).await
    }

    async fn put_acl(&self, target: &AclTarget, acl: &NewAcl) -> Result<()> {
        self.inner.settled(target).await?;
        self.inner.store.put_acl(target, acl).await
    }

    fn presign(&self, request: &PresignRequest) -> Result<String> {
        self.inner.store.presign(request)
    }

    fn url(&self, location: &Location) -> String {
        self.inner.store.url(location)
    }
}

#[async_trait]
impl Append for Journal {
    /// Changes that are taken in are whole; whoever carries them out appends.
    async fn append(&self, location: &Location, position: u64, body: Bytes, headers: &ObjectHeaders) -> Result<()> {
        if self.inner.config.accepts {
            let why = "the journal takes in whole versions";
            return Err(Error::new(Kind::Unsupported, APPEND_OBJECT, location.to_string(), why));
        }
        self.inner.settle_name(location).await?;
        self.inner.store.append(location, position, body, headers).await
    }
}
