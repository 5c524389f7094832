//! The verbs of buckets: list, create, delete, head, ACL, and pages of their keys.

use std::sync::Arc;

use hyper::header::HeaderValue;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::acl::{Acl, Permission as May, owner_to_xml};
use super::conditions::{etag_of, time_of};
use super::disk::{Deletion, Object as Stored};
use super::listing::{PAGE_ENTRIES_MAX, Page, Query, page, spell};
use super::record::{BucketRecord, to_ms};
use super::service::{Service, allow, blocking};

impl Service {
    pub(super) async fn list_own_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let caller = self.caller(&request).ok_or_else(|| s3_error!(AccessDenied, "Access denied."))?;
        let mut buckets = Vec::new();
        for bucket in self.disk.buckets() {
            let record = bucket.record();
            if record.acl.owner == caller {
                let creation_date = time_of(record.created_ms);
                buckets.push(Bucket { name: Some(bucket.name.clone()), creation_date, ..Default::default() });
            }
        }
        let owner = Some(owner_to_xml(caller, &self.users));
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), owner, ..Default::default() }))
    }

    pub(super) async fn make_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let caller = self.caller(&request).ok_or_else(|| s3_error!(AccessDenied, "Access denied."))?;
        let asked = Acl::from_headers(&request.headers, caller, caller, &self.users, self.profile)?;
        let acl = asked.unwrap_or_else(|| Acl::private(caller));
        let record = BucketRecord { created_ms: to_ms(self.clock.now()), acl };
        let (disk, name) = (self.disk.clone(), request.input.bucket.clone());
        if let Err(bucket) = blocking(move || disk.create_bucket(&name, record)).await? {
            if bucket.record().acl.owner != caller {
                return Err(s3_error!(BucketAlreadyExists, "The name is taken."));
            }
            if !self.profile.recreates_own_bucket() {
                return Err(s3_error!(BucketAlreadyOwnedByYou, "The bucket is there already."));
            }
        }
        let location = Some(format!("/{}", request.input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    pub(super) async fn drop_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let bucket = self.bucket(&request.input.bucket)?;
        if self.caller(&request) != Some(bucket.record().acl.owner.as_str()) {
            return Err(s3_error!(AccessDenied, "Only the owner deletes a bucket."));
        }
        let disk = self.disk.clone();
        match blocking(move || disk.delete_bucket(&bucket)).await? {
            Deletion::Done => Ok(S3Response::new(DeleteBucketOutput::default())),
            Deletion::NotEmpty => Err(s3_error!(BucketNotEmpty, "The bucket holds objects.")),
        }
    }

    pub(super) async fn look_at_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let bucket = self.bucket_for(&request.input.bucket, self.caller(&request), May::Read)?;
        let mut answer = S3Response::new(HeadBucketOutput::default());
        if self.profile.tells_usage() {
            let (objects, bytes) = bucket.usage();
            answer.headers.insert("x-rgw-object-count", HeaderValue::from(objects));
            answer.headers.insert("x-rgw-bytes-used", HeaderValue::from(bytes));
        }
        Ok(answer)
    }

    pub(super) async fn tell_bucket_acl(
        &self,
        request: S3Request<GetBucketAclInput>,
    ) -> S3Result<S3Response<GetBucketAclOutput>> {
        let acl = self.bucket_for(&request.input.bucket, self.caller(&request), May::ReadAcp)?.record().acl;
        let owner = Some(owner_to_xml(&acl.owner, &self.users));
        Ok(S3Response::new(GetBucketAclOutput { grants: Some(acl.to_grants(&self.users)), owner }))
    }

    pub(super) async fn change_bucket_acl(
        &self,
        request: S3Request<PutBucketAclInput>,
    ) -> S3Result<S3Response<PutBucketAclOutput>> {
        let bucket = self.bucket_for(&request.input.bucket, self.caller(&request), May::WriteAcp)?;
        let owner = bucket.record().acl.owner;
        let acl = self.asked_acl(&request.headers, request.input.access_control_policy.as_ref(), &owner, &owner)?;
        blocking(move || bucket.set_acl(acl)).await?;
        Ok(S3Response::new(PutBucketAclOutput::default()))
    }

    /// The list that a PUT of an ACL gives, in headers or as a document.
    pub(super) fn asked_acl(
        &self,
        headers: &hyper::HeaderMap,
        policy: Option<&AccessControlPolicy>,
        owner: &str,
        bucket_owner: &str,
    ) -> S3Result<Acl> {
        if let Some(acl) = Acl::from_headers(headers, owner, bucket_owner, &self.users, self.profile)? {
            return Ok(acl);
        }
        match policy {
            Some(_) if !self.profile.objects_have_acls() => {
                Err(s3_error!(InvalidArgument, "An ACL as a document is not supported by this store."))
            }
            Some(policy) => Acl::from_policy(policy, owner, &self.users),
            None => Err(s3_error!(MalformedACLError, "There is no ACL in the request.")),
        }
    }

    pub(super) fn look_up_page(
        &self,
        bucket: &str,
        caller: Option<&str>,
        query: (Option<&str>, Option<&str>, &str, Option<i32>),
    ) -> S3Result<Page> {
        let bucket = self.bucket_for(bucket, caller, May::Read)?;
        let (prefix, delimiter, after, max_keys) = query;
        let entries_max = entries_max(max_keys)?;
        let (prefix, delimiter) = (prefix.unwrap_or_default(), delimiter.unwrap_or_default());
        Ok(bucket.with_objects(|objects| page(objects, &Query { prefix, delimiter, after, entries_max })))
    }

    pub(super) async fn list_v1(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = &request.input;
        let after = input.marker.as_deref().unwrap_or_default();
        let query = (input.prefix.as_deref(), input.delimiter.as_deref(), after, input.max_keys);
        let page = self.look_up_page(&input.bucket, self.caller(&request), query)?;
        let url = is_url(input.encoding_type.as_ref());
        let spelled = |name: &Option<String>| name.as_deref().map(|name| spell(name, url));
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket.clone()),
            prefix: Some(spelled(&input.prefix).unwrap_or_default()),
            marker: Some(spelled(&input.marker).unwrap_or_default()),
            max_keys: Some(entries_max(input.max_keys)? as i32),
            is_truncated: Some(page.next.is_some()),
            contents: Some(self.entries(&page.objects, url, true)),
            common_prefixes: Some(prefixes(&page, url)),
            delimiter: spelled(&input.delimiter),
            next_marker: spelled(&page.next),
            encoding_type: input.encoding_type.clone(),
            ..Default::default()
        }))
    }

    pub(super) async fn list_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = &request.input;
        let token = input.continuation_token.as_deref().map(token_to_name).transpose()?;
        let after = token.as_deref().or(input.start_after.as_deref()).unwrap_or_default();
        let query = (input.prefix.as_deref(), input.delimiter.as_deref(), after, input.max_keys);
        let page = self.look_up_page(&input.bucket, self.caller(&request), query)?;
        let url = is_url(input.encoding_type.as_ref());
        let spelled = |name: &Option<String>| name.as_deref().map(|name| spell(name, url));
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket.clone()),
            prefix: Some(spelled(&input.prefix).unwrap_or_default()),
            max_keys: Some(entries_max(input.max_keys)? as i32),
            key_count: Some((page.objects.len() + page.prefixes.len()) as i32),
            continuation_token: input.continuation_token.clone(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_ref().map(hex::encode),
            contents: Some(self.entries(&page.objects, url, input.fetch_owner == Some(true))),
            common_prefixes: Some(prefixes(&page, url)),
            delimiter: spelled(&input.delimiter),
            encoding_type: input.encoding_type.clone(),
            start_after: spelled(&input.start_after),
            ..Default::default()
        }))
    }

    fn entries(&self, objects: &[Arc<Stored>], url: bool, with_owner: bool) -> Vec<Object> {
        let entry = |object: &Arc<Stored>| {
            let record = &object.record;
            let class = record.attributes.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned());
            Object {
                e_tag: etag_of(&record.etag),
                key: Some(spell(&record.key, url)),
                last_modified: time_of(record.modified_ms),
                owner: with_owner.then(|| owner_to_xml(&record.attributes.acl.owner, &self.users)),
                size: Some(record.size_bytes as i64),
                storage_class: Some(class.into()),
                ..Default::default()
            }
        };
        objects.iter().map(entry).collect()
    }

    /// Every object is the one version that it has, as in a bucket that was never versioned.
    pub(super) async fn list_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = &request.input;
        let after = input.key_marker.as_deref().unwrap_or_default();
        let query = (input.prefix.as_deref(), input.delimiter.as_deref(), after, input.max_keys);
        let page = self.look_up_page(&input.bucket, self.caller(&request), query)?;
        let url = is_url(input.encoding_type.as_ref());
        let version = |object: &Arc<Stored>| ObjectVersion {
            e_tag: etag_of(&object.record.etag),
            is_latest: Some(true),
            key: Some(spell(&object.record.key, url)),
            last_modified: time_of(object.record.modified_ms),
            owner: Some(owner_to_xml(&object.record.attributes.acl.owner, &self.users)),
            size: Some(object.record.size_bytes as i64),
            version_id: Some("null".to_owned()),
            ..Default::default()
        };
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(input.bucket.clone()),
            prefix: Some(spell(input.prefix.as_deref().unwrap_or_default(), url)),
            max_keys: Some(entries_max(input.max_keys)? as i32),
            is_truncated: Some(page.next.is_some()),
            versions: Some(page.objects.iter().map(version).collect()),
            common_prefixes: Some(prefixes(&page, url)),
            next_key_marker: page.next.as_deref().map(|next| spell(next, url)),
            next_version_id_marker: page.next.as_ref().map(|_| "null".to_owned()),
            encoding_type: input.encoding_type.clone(),
            ..Default::default()
        }))
    }

    /// Refuses who may not list the bucket; for the answers that say nothing else of it.
    pub(super) fn check_listable<T>(&self, request: &S3Request<T>, bucket: &str) -> S3Result<()> {
        allow(&self.bucket(bucket)?.record().acl, self.caller(request), May::Read)
    }
}

/// How many entries a page may have.
pub fn entries_max(asked: Option<i32>) -> S3Result<usize> {
    match asked.map(usize::try_from) {
        None => Ok(PAGE_ENTRIES_MAX),
        Some(Ok(asked)) => Ok(asked.min(PAGE_ENTRIES_MAX)),
        Some(Err(_)) => Err(s3_error!(InvalidArgument, "The size of the page is below zero.")),
    }
}

/// Whether names are to be percent-escaped.
pub fn is_url(encoding: Option<&EncodingType>) -> bool {
    encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL)
}

fn prefixes(page: &Page, url: bool) -> Vec<CommonPrefix> {
    page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(spell(prefix, url)) }).collect()
}

fn token_to_name(token: &str) -> S3Result<String> {
    let name = hex::decode(token).ok().and_then(|name| String::from_utf8(name).ok());
    name.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token is none of ours."))
}
