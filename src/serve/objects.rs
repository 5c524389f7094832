//! The verbs of objects: put, get, head, delete, copy, and their ACLs and tags.

use std::sync::Arc;

use hyper::header::HeaderValue;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::acl::{Permission as May, owner_to_xml};
use super::attributes::{check_tags, headers_from_request, headers_to_answer, is_encryption, tags_from_header};
use super::blob::{Body, link_pieces};
use super::conditions::{Conditions, etag_of, time_of};
use super::disk::{Bucket as Place, Object as Stored};
use super::files::new_id;
use super::receive::{Target, receive, send};
use super::record::{Attributes, ObjectRecord, to_ms};
use super::service::{Service, blocking};

/// Length of a key at most, in bytes of UTF-8; S3's limit.
const KEY_BYTES_MAX: usize = 1024;
/// Keys of one request to delete many, at most; S3's limit.
const DELETE_KEYS_MAX: usize = 1000;

impl Service {
    /// What a write gives an object beside its bytes.
    pub(super) fn new_attributes<T>(&self, request: &S3Request<T>, bucket: &Place) -> S3Result<Attributes> {
        Ok(Attributes {
            acl: self.new_object_acl(&request.headers, self.caller(request), bucket)?,
            headers: headers_from_request(&request.headers)?,
            storage_class: asked_storage_class(&request.headers),
            restored: false,
            tags: tags_from_header(&request.headers)?,
        })
    }

    pub(super) async fn store(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let bucket = self.bucket_for(&request.input.bucket, self.caller(&request), May::Write)?;
        check_key(&request.input.key)?;
        let attributes = self.new_attributes(&request, &bucket)?;
        let input = request.input;
        let written = receive(&bucket, input.body, input.content_md5.as_deref(), Target::Object).await?;
        let record = ObjectRecord {
            key: input.key,
            id: new_id(),
            size_bytes: written.size_bytes,
            etag: hex::encode(written.md5),
            modified_ms: to_ms(self.clock.now()),
            attributes,
            pieces: vec![],
        };
        let (if_match, if_none_match) = (input.if_match, input.if_none_match);
        let stored = blocking(move || {
            bucket.store(record, written.body, |now| {
                let conditions = Conditions {
                    if_match: if_match.as_ref(),
                    if_none_match: if_none_match.as_ref(),
                    if_modified_since: None,
                    if_unmodified_since: None,
                };
                conditions.allow_write(now.map(|now| &now.record))
            })
        });
        let object = stored.await?.ok_or_else(|| s3_error!(PreconditionFailed, "The object is not as demanded."))?;
        Ok(S3Response::new(PutObjectOutput { e_tag: etag_of(&object.record.etag), ..Default::default() }))
    }

    pub(super) async fn fetch(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = &request.input;
        let caller = self.caller(&request);
        if caller.is_none() && request.uri.query().is_some_and(|query| query.contains("response-")) {
            return Err(s3_error!(InvalidRequest, "Headers of the answer are chosen by signed requests only."));
        }
        let bucket = self.bucket(&input.bucket)?;
        loop {
            let object = self.object_for(&bucket, &input.key, caller, May::Read)?;
            let record = &object.record;
            Conditions {
                if_match: input.if_match.as_ref(),
                if_none_match: input.if_none_match.as_ref(),
                if_modified_since: input.if_modified_since.as_ref(),
                if_unmodified_since: input.if_unmodified_since.as_ref(),
            }
            .check_read(record)?;
            check_at_hand(record)?;
            let range = match &input.range {
                Some(range) => range.check(record.size_bytes)?,
                None => 0..record.size_bytes,
            };
            let Some(body) = send(&bucket, &object, range.clone()).await? else { continue };
            let content_range = input
                .range
                .is_some()
                .then(|| format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), record.size_bytes));
            let output = GetObjectOutput {
                accept_ranges: Some("bytes".to_owned()),
                body: Some(body),
                content_length: Some((range.end - range.start) as i64),
                content_range,
                e_tag: etag_of(&record.etag),
                last_modified: time_of(record.modified_ms),
                storage_class: record.attributes.storage_class.clone().map(Into::into),
                tag_count: (!record.attributes.tags.is_empty()).then_some(record.attributes.tags.len() as i32),
                ..Default::default()
            };
            let mut headers = headers_to_answer(&record.attributes.headers);
            for (name, asked) in [
                ("content-type", input.response_content_type.is_some()),
                ("cache-control", input.response_cache_control.is_some()),
                ("content-disposition", input.response_content_disposition.is_some()),
                ("content-encoding", input.response_content_encoding.is_some()),
                ("content-language", input.response_content_language.is_some()),
                ("expires", input.response_expires.is_some()),
            ] {
                // What the request asked for is set by the protocol's layer.
                if asked {
                    headers.remove(name);
                }
            }
            return Ok(S3Response::with_headers(output, headers));
        }
    }

    pub(super) async fn look_at(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = &request.input;
        let bucket = self.bucket(&input.bucket)?;
        let object = self.object_for(&bucket, &input.key, self.caller(&request), May::Read)?;
        let record = &object.record;
        Conditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        }
        .check_read(record)?;
        let output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(record.size_bytes as i64),
            e_tag: etag_of(&record.etag),
            last_modified: time_of(record.modified_ms),
            storage_class: record.attributes.storage_class.clone().map(Into::into),
            ..Default::default()
        };
        let mut headers = headers_to_answer(&record.attributes.headers);
        if !record.attributes.tags.is_empty() {
            headers.insert("x-amz-tagging-count", HeaderValue::from(record.attributes.tags.len()));
        }
        Ok(S3Response::with_headers(output, headers))
    }

    pub(super) async fn delete(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let bucket = self.bucket_for(&request.input.bucket, self.caller(&request), May::Write)?;
        blocking(move || bucket.remove(&request.input.key)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn delete_many(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let bucket = self.bucket_for(&request.input.bucket, self.caller(&request), May::Write)?;
        let Delete { objects, quiet } = request.input.delete;
        if objects.is_empty() || objects.len() > DELETE_KEYS_MAX {
            return Err(s3_error!(MalformedXML, "A request deletes 1 to 1000 keys."));
        }
        let (deleted, errors) = blocking(move || {
            let (mut deleted, mut errors) = (Vec::new(), Vec::new());
            for object in objects {
                match bucket.remove(&object.key) {
                    Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
                    Err(error) => errors.push(Error {
                        code: Some("InternalError".to_owned()),
                        key: Some(object.key),
                        message: Some(error.to_string()),
                        version_id: None,
                    }),
                }
            }
            Ok((deleted, errors))
        })
        .await?;
        let deleted = (quiet != Some(true)).then_some(deleted);
        Ok(S3Response::new(DeleteObjectsOutput { deleted, errors: Some(errors), ..Default::default() }))
    }

    /// The source of a copy, if the caller may read it and it is as demanded.
    pub(super) fn copy_source(
        &self,
        source: &CopySource,
        caller: Option<&str>,
        conditions: &Conditions<'_>,
    ) -> S3Result<(Arc<Place>, Arc<Stored>)> {
        let CopySource::Bucket { bucket, key, .. } = source else {
            return Err(s3_error!(InvalidArgument, "The source of a copy is a bucket and a key."));
        };
        let bucket = self.bucket(bucket)?;
        let object = self.object_for(&bucket, key, caller, May::Read)?;
        conditions.check_copy(&object.record)?;
        check_at_hand(&object.record)?;
        Ok((bucket, object))
    }

    pub(super) async fn copy(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = &request.input;
        let caller = self.caller(&request);
        let bucket = self.bucket_for(&input.bucket, caller, May::Write)?;
        check_key(&input.key)?;
        let conditions = Conditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        let replace = input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let replace_tags = input.tagging_directive.as_ref().is_some_and(|d| d.as_str() == TaggingDirective::REPLACE);
        let asked = self.new_attributes(&request, &bucket)?;
        loop {
            let (from, source) = self.copy_source(&input.copy_source, caller, &conditions)?;
            if source.record.size_bytes > self.copy_bytes_max {
                return Err(s3_error!(InvalidRequest, "The source is larger than a single copy may be."));
            }
            self.check_copied(&source.record.attributes, &asked)?;
            if !replace && from.name == bucket.name && source.record.key == input.key {
                return Err(s3_error!(InvalidRequest, "A copy onto itself must replace the metadata."));
            }
            let mut attributes = asked.clone();
            if !replace {
                // A copy is encrypted as its own request says.
                attributes.headers.retain(|name, _| is_encryption(name));
                let kept = source.record.attributes.headers.iter().filter(|(name, _)| !is_encryption(name));
                attributes.headers.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
            }
            if !replace_tags && (self.profile.copies_keep_tags() || !replace) {
                attributes.tags = source.record.attributes.tags.clone();
            }
            let record = ObjectRecord {
                key: input.key.clone(),
                id: new_id(),
                modified_ms: to_ms(self.clock.now()),
                attributes,
                pieces: vec![],
                ..source.record.clone()
            };
            let bucket = bucket.clone();
            let copied = blocking(move || {
                let body = match from.body(&source)? {
                    Some(Body::Pieces(pieces, kept)) => {
                        let linked = link_pieces(&from.blobs_folder(), &pieces, &bucket.blobs_folder())?;
                        drop(kept);
                        linked
                    }
                    Some(inline) => inline,
                    None => return Ok(None),
                };
                bucket.store(record, body, |_| true)
            });
            if let Some(object) = copied.await? {
                let (e_tag, last_modified) = (etag_of(&object.record.etag), time_of(object.record.modified_ms));
                let copy_object_result = Some(CopyObjectResult { e_tag, last_modified, ..Default::default() });
                return Ok(S3Response::new(CopyObjectOutput { copy_object_result, ..Default::default() }));
            }
        }
    }

    /// Refuses a copy that is encrypted at either end, where the store makes none.
    pub(super) fn check_copied(&self, source: &Attributes, target: &Attributes) -> S3Result<()> {
        let is_encrypted = |of: &Attributes| of.headers.keys().any(|name| is_encryption(name));
        match self.profile.copies_encrypted() || !is_encrypted(source) && !is_encrypted(target) {
            true => Ok(()),
            false => Err(s3_error!(NotImplemented, "What is encrypted is not copied here.")),
        }
    }

    /// An archived object's bytes are at hand at once, and for ever.
    pub(super) async fn bring_back(
        &self,
        request: S3Request<RestoreObjectInput>,
    ) -> S3Result<S3Response<RestoreObjectOutput>> {
        let input = &request.input;
        let bucket = self.bucket(&input.bucket)?;
        let object = self.object_for(&bucket, &input.key, self.caller(&request), May::Write)?;
        if !object.record.attributes.is_archived() {
            return Err(s3_error!(InvalidObjectState, "The object is not archived."));
        }
        let key = input.key.clone();
        let changed = blocking(move || bucket.change(&key, |record| record.attributes.restored = true)).await?;
        changed.ok_or_else(|| s3_error!(NoSuchKey, "There is no such object."))?;
        Ok(S3Response::new(RestoreObjectOutput::default()))
    }

    pub(super) async fn tell_acl(
        &self,
        request: S3Request<GetObjectAclInput>,
    ) -> S3Result<S3Response<GetObjectAclOutput>> {
        let bucket = self.bucket(&request.input.bucket)?;
        let object = self.object_for(&bucket, &request.input.key, self.caller(&request), May::ReadAcp)?;
        let acl = self.acl_of(&bucket, &object);
        Ok(S3Response::new(GetObjectAclOutput {
            grants: Some(acl.to_grants(&self.users)),
            owner: Some(owner_to_xml(&acl.owner, &self.users)),
            ..Default::default()
        }))
    }

    pub(super) async fn change_acl(
        &self,
        request: S3Request<PutObjectAclInput>,
    ) -> S3Result<S3Response<PutObjectAclOutput>> {
        let input = &request.input;
        let bucket = self.bucket(&input.bucket)?;
        let object = self.object_for(&bucket, &input.key, self.caller(&request), May::WriteAcp)?;
        let bucket_acl = bucket.record().acl;
        if !self.profile.objects_have_acls() {
            self.demand_bucket_acl(&request.headers, &bucket_acl)?;
        }
        let owner = self.acl_of(&bucket, &object).owner;
        let policy = input.access_control_policy.as_ref();
        let acl = self.asked_acl(&request.headers, policy, &owner, &bucket_acl.owner)?;
        let key = input.key.clone();
        let changed = blocking(move || bucket.change(&key, |record| record.attributes.acl = acl.clone())).await?;
        changed.ok_or_else(|| s3_error!(NoSuchKey, "There is no such object."))?;
        Ok(S3Response::new(PutObjectAclOutput::default()))
    }

    pub(super) async fn tell_tags(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        self.check_taggable()?;
        let bucket = self.bucket(&request.input.bucket)?;
        let object = self.object_for(&bucket, &request.input.key, self.caller(&request), May::Read)?;
        let tag = |(key, value): &(String, String)| Tag { key: Some(key.clone()), value: Some(value.clone()) };
        let tag_set = object.record.attributes.tags.iter().map(tag).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id: None }))
    }

    fn check_taggable(&self) -> S3Result<()> {
        match self.profile.has_tags() {
            true => Ok(()),
            false => Err(s3_error!(NotImplemented, "This store has no tags.")),
        }
    }

    /// Replaces the tags; none for the verb that deletes them.
    pub(super) async fn change_tags<T>(
        &self,
        request: &S3Request<T>,
        bucket: &str,
        key: &str,
        tag_set: Vec<Tag>,
    ) -> S3Result<()> {
        self.check_taggable()?;
        let bucket = self.bucket(bucket)?;
        self.object_for(&bucket, key, self.caller(request), May::Write)?;
        let pair = |tag: Tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default());
        let tags = check_tags(tag_set.into_iter().map(pair).collect())?;
        let key = key.to_owned();
        let changed = blocking(move || bucket.change(&key, |record| record.attributes.tags = tags.clone())).await?;
        changed.ok_or_else(|| s3_error!(NoSuchKey, "There is no such object."))
    }
}

/// Refuses the bytes of an archived object.
fn check_at_hand(record: &ObjectRecord) -> S3Result<()> {
    match record.attributes.is_archived() {
        true => Err(s3_error!(InvalidObjectState, "The object is archived.")),
        false => Ok(()),
    }
}

/// Refuses keys that S3 does not take.
pub(super) fn check_key(key: &str) -> S3Result<()> {
    if key.len() > KEY_BYTES_MAX { Err(s3_error!(KeyTooLongError, "The key is too long.")) } else { Ok(()) }
}

fn asked_storage_class(headers: &hyper::HeaderMap) -> Option<String> {
    let class = headers.get("x-amz-storage-class")?.to_str().ok()?;
    (class != "STANDARD").then(|| class.to_owned())
}
