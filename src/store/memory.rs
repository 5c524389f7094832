//! A whole S3 store in memory: for tests, for trying dreamfs out, and as the reference of what the contract means.
//!
//! It behaves as Amazon S3 documents, for one account whose id is [`OWNER_ID`]: orders, conditions, ranges, limits,
//! multipart rules, ACLs that a copy resets; and as Ceph does where it comes to appends. It refuses versions: buckets are never versioned.
//! Everything happens under one short lock, so each request is atomic.

mod append;
mod listing;
mod state;
mod upload;
mod versions;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::clock::Clock;
use crate::format::acl::expand_canned;
use crate::store::operation as op;
use crate::store::{
    Acl, AclTarget, BucketEntry, BucketHead, BucketName, Condition, CopyHeaders, CopySource, DeleteFailure, GetOptions,
    Key, Kind, ListPage, ListRequest, Location, NewAcl, ObjectBody, ObjectHead, ObjectHeaders, Part, PresignRequest,
    Result, Store, Written,
};
use state::{Bucket, Object, Request, check_condition, check_match, clamp, find, in_pieces, slice};

pub use state::OWNER_ID;

/// Keys in one DeleteObjects at most (S3 API reference, "DeleteObjects").
const DELETE_KEYS_MAX: usize = 1000;

/// Lifetime of a presigned link at most: seven days (S3 API reference, "Authenticating requests: query parameters").
const PRESIGN_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What stays as it is in the path of a link.
const PATH_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The store's limits, which tests make smaller.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// Entries of a page of a listing at most.
    pub page_keys_max: usize,
    /// Bytes of every part but the last at least.
    pub part_bytes_min: usize,
    /// Bytes of one PUT, COPY or part at most.
    pub single_bytes_max: u64,
}

impl Default for MemoryLimits {
    /// Amazon S3's own (S3 user guide, "Amazon S3 multipart upload limits"; S3 API reference, "ListObjectsV2").
    fn default() -> Self {
        MemoryLimits { page_keys_max: 1000, part_bytes_min: 5 << 20, single_bytes_max: 5 << 30 }
    }
}

/// An S3 store in memory. See the module.
pub struct MemoryStore {
    clock: Clock,
    limits: MemoryLimits,
    buckets: Mutex<BTreeMap<BucketName, Bucket>>,
}

type Buckets<'a> = MutexGuard<'a, BTreeMap<BucketName, Bucket>>;

impl MemoryStore {
    /// An empty store that tells the time by `clock`.
    pub fn new(clock: Clock) -> Self {
        MemoryStore::with_limits(clock, MemoryLimits::default())
    }

    /// An empty store with other limits than Amazon's.
    pub fn with_limits(clock: Clock, limits: MemoryLimits) -> Self {
        MemoryStore { clock, limits, buckets: Mutex::default() }
    }

    /// Stores an object under any key, also one that no path can name, as other S3 tools do.
    pub fn put_raw(&self, bucket: &BucketName, raw_key: &str, bytes: Bytes) -> Result<()> {
        let request = Request::on_bucket(op::PUT_OBJECT, bucket);
        let object = Object::new(bytes, None, &ObjectHeaders::default(), self.now(), &request)?;
        bucket_of(&mut self.lock(), &request)?.objects.insert(raw_key.to_owned(), object);
        Ok(())
    }

    fn lock(&self) -> Buckets<'_> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the size of one PUT, COPY or part.
    fn check_single(&self, size_bytes: u64, request: &Request<'_>) -> Result<()> {
        if size_bytes <= self.limits.single_bytes_max {
            return Ok(());
        }
        Err(request.refuse(Kind::TooLarge, "EntityTooLarge"))
    }

    /// The time to the second, as S3 tells it.
    fn now(&self) -> SystemTime {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UNIX_EPOCH + Duration::from_secs(since.as_secs())
    }
}

fn bucket_of<'a>(buckets: &'a mut Buckets<'_>, request: &Request<'_>) -> Result<&'a mut Bucket> {
    buckets.get_mut(request.bucket).ok_or_else(|| request.refuse(Kind::NoSuchBucket, "NoSuchBucket"))
}

#[async_trait]
impl Store for MemoryStore {
    async fn list_buckets(&self) -> Result<Vec<BucketEntry>> {
        let buckets = self.lock();
        let entries =
            buckets.iter().map(|(name, bucket)| BucketEntry { name: name.clone(), created: Some(bucket.created) });
        Ok(entries.collect())
    }

    async fn create_bucket(&self, bucket: &BucketName) -> Result<()> {
        let request = Request::on_bucket(op::CREATE_BUCKET, bucket);
        let mut buckets = self.lock();
        if buckets.contains_key(bucket) {
            return Err(request.refuse(Kind::AlreadyExists, "BucketAlreadyOwnedByYou"));
        }
        buckets.insert(bucket.clone(), Bucket::new(self.now()));
        Ok(())
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<()> {
        let request = Request::on_bucket(op::DELETE_BUCKET, bucket);
        let mut buckets = self.lock();
        if !bucket_of(&mut buckets, &request)?.objects.is_empty() {
            return Err(request.refuse(Kind::NotEmpty, "BucketNotEmpty"));
        }
        buckets.remove(bucket);
        Ok(())
    }

    async fn head_bucket(&self, bucket: &BucketName) -> Result<BucketHead> {
        let mut buckets = self.lock();
        let found = bucket_of(&mut buckets, &Request::on_bucket(op::HEAD_BUCKET, bucket))?;
        let used_bytes = found.objects.values().map(|object| object.bytes.len() as u64).sum();
        Ok(BucketHead { used_bytes: Some(used_bytes), object_count: Some(found.objects.len() as u64), region: None })
    }

    async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage> {
        let what = Request::on_bucket(op::LIST_OBJECTS, bucket);
        let mut buckets = self.lock();
        let objects = &bucket_of(&mut buckets, &what)?.objects;
        listing::page(objects, request, self.limits.page_keys_max)
            .ok_or_else(|| what.refuse(Kind::BadRequest, "InvalidArgument: the continuation token is incorrect"))
    }

    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
        let request = Request::on(op::HEAD_OBJECT, location);
        let mut buckets = self.lock();
        find(bucket_of(&mut buckets, &request)?, version_id, &request).map(Object::head)
    }

    async fn get(&self, location: &Location, options: &GetOptions) -> Result<ObjectBody> {
        let request = Request::on(op::GET_OBJECT, location);
        let mut buckets = self.lock();
        let object = find(bucket_of(&mut buckets, &request)?, options.version_id.as_deref(), &request)?;
        check_match(options.if_match.as_ref(), object, &request)?;
        let range = clamp(options.range.as_ref(), object.bytes.len() as u64, &request)?;
        let body = in_pieces(slice(&object.bytes, &range));
        Ok(ObjectBody { head: object.head(), range, body })
    }

    async fn put(
        &self,
        location: &Location,
        body: Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        let request = Request::on(op::PUT_OBJECT, location);
        self.check_single(body.len() as u64, &request)?;
        let object = Object::new(body, None, headers, self.now(), &request)?;
        let mut buckets = self.lock();
        let bucket = bucket_of(&mut buckets, &request)?;
        check_condition(bucket, condition, &request)?;
        let written = object.written();
        bucket.objects.insert(location.key.to_string(), object);
        Ok(written)
    }

    async fn copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written> {
        let (from, request) = (Request::on(op::COPY_OBJECT, &source.location), Request::on(op::COPY_OBJECT, to));
        let mut buckets = self.lock();
        let object = find(bucket_of(&mut buckets, &from)?, None, &from)?.clone();
        check_match(source.if_match.as_ref(), &object, &from)?;
        self.check_single(object.bytes.len() as u64, &from)?;
        // As on Ceph, a copy that keeps its headers grows as its source does, and has its tag.
        let grows = object.pieces.is_some() && matches!(headers, CopyHeaders::Keep { .. });
        let (etag, pieces) = (grows.then(|| object.etag.clone()), object.pieces.clone().filter(|_| grows));
        let headers = match headers {
            CopyHeaders::Replace(headers) => headers.clone(),
            CopyHeaders::Keep { storage_class, .. }
                if source.location == *to && *storage_class == object.headers.storage_class =>
            {
                return Err(request.refuse(Kind::BadRequest, "InvalidRequest: a copy to itself that changes nothing"));
            }
            CopyHeaders::Keep { acl, storage_class } => {
                let (acl, storage_class) = (acl.clone(), storage_class.clone());
                ObjectHeaders { acl, storage_class, encryption: None, ..object.headers }
            }
        };
        let copy = Object { pieces, ..Object::new(object.bytes, etag, &headers, self.now(), &request)? };
        let written = copy.written();
        bucket_of(&mut buckets, &request)?.objects.insert(to.key.to_string(), copy);
        Ok(written)
    }

    async fn delete(&self, location: &Location, version_id: Option<&str>) -> Result<()> {
        let mut buckets = self.lock();
        let bucket = bucket_of(&mut buckets, &Request::on(op::DELETE_OBJECT, location))?;
        if matches!(version_id, None | Some("null")) {
            bucket.objects.remove(location.key.as_str());
        }
        Ok(())
    }

    async fn delete_many(&self, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        let request = Request::on_bucket(op::DELETE_OBJECTS, bucket);
        if keys.len() > DELETE_KEYS_MAX {
            return Err(request.refuse(Kind::BadRequest, "MalformedXML: more than 1000 keys"));
        }
        let mut buckets = self.lock();
        let bucket = bucket_of(&mut buckets, &request)?;
        keys.iter().for_each(|key| drop(bucket.objects.remove(key.as_str())));
        Ok(Vec::new())
    }

    async fn create_upload(&self, location: &Location, headers: &ObjectHeaders) -> Result<String> {
        let request = Request::on(op::CREATE_MULTIPART_UPLOAD, location);
        upload::begin(bucket_of(&mut self.lock(), &request)?, location, headers, &request)
    }

    async fn upload_part(&self, location: &Location, upload_id: &str, number: u32, body: Bytes) -> Result<Part> {
        let request = Request::on(op::UPLOAD_PART, location);
        self.check_single(body.len() as u64, &request)?;
        upload::keep(bucket_of(&mut self.lock(), &request)?, upload_id, number, body, &request)
    }

    async fn upload_part_copy(
        &self,
        location: &Location,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<Part> {
        let from = Request::on(op::UPLOAD_PART_COPY, &source.location);
        let request = Request::on(op::UPLOAD_PART_COPY, location);
        self.check_single(range.end.saturating_sub(range.start), &request)?;
        let mut buckets = self.lock();
        let bytes = upload::bytes_to_copy(bucket_of(&mut buckets, &from)?, source, &range, &from)?;
        upload::keep(bucket_of(&mut buckets, &request)?, upload_id, number, bytes, &request)
    }

    async fn complete_upload(
        &self,
        location: &Location,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        let request = Request::on(op::COMPLETE_MULTIPART_UPLOAD, location);
        let mut buckets = self.lock();
        let bucket = bucket_of(&mut buckets, &request)?;
        check_condition(bucket, condition, &request)?;
        let object = upload::join(bucket, upload_id, parts, self.limits.part_bytes_min, self.now(), &request)?;
        let written = object.written();
        bucket.objects.insert(location.key.to_string(), object);
        bucket.uploads.remove(upload_id);
        Ok(written)
    }

    async fn abort_upload(&self, location: &Location, upload_id: &str) -> Result<()> {
        let mut buckets = self.lock();
        let bucket = bucket_of(&mut buckets, &Request::on(op::ABORT_MULTIPART_UPLOAD, location))?;
        bucket.uploads.retain(|id, upload| id != upload_id || !upload.is_for(&location.key));
        Ok(())
    }

    async fn get_acl(&self, target: &AclTarget) -> Result<Acl> {
        let request = acl_request(op::GET_ACL, target);
        acl_of(&mut self.lock(), &request).cloned()
    }

    async fn put_acl(&self, target: &AclTarget, acl: &NewAcl) -> Result<()> {
        let request = acl_request(op::PUT_ACL, target);
        let grants = match acl {
            NewAcl::Full(acl) => acl.grants.clone(),
            NewAcl::Canned(name) => match expand_canned(name, OWNER_ID, None) {
                Some(acl) => acl.grants,
                None => return Err(request.refuse(Kind::BadRequest, "InvalidArgument: no such canned ACL")),
            },
        };
        acl_of(&mut self.lock(), &request)?.grants = grants;
        Ok(())
    }

    fn presign(&self, request: &PresignRequest) -> Result<String> {
        if request.expires > PRESIGN_MAX {
            let refused = Request::on(op::GET_OBJECT, &request.location);
            return Err(refused.refuse(Kind::BadRequest, "a link lives for seven days at most"));
        }
        let method = request.method.name();
        let signed = format!("{}?{method}&X-Amz-Expires={}", self.url(&request.location), request.expires.as_secs());
        let signature = hex::encode(Md5::digest(&signed));
        Ok(format!("{signed}&X-Amz-Signature={signature}"))
    }

    fn url(&self, location: &Location) -> String {
        let key = utf8_percent_encode(location.key.as_str(), PATH_PLAIN);
        format!("memory://{}/{key}", location.bucket)
    }
}

fn acl_request<'a>(operation: &'static str, target: &'a AclTarget) -> Request<'a> {
    match target {
        AclTarget::Bucket(bucket) => Request::on_bucket(operation, bucket),
        AclTarget::Object(location) => Request::on(operation, location),
    }
}

fn acl_of<'a>(buckets: &'a mut Buckets<'_>, request: &Request<'_>) -> Result<&'a mut Acl> {
    let bucket = bucket_of(buckets, request)?;
    match request.key {
        None => Ok(&mut bucket.acl),
        Some(key) => match bucket.objects.get_mut(key.as_str()) {
            Some(object) => Ok(&mut object.acl),
            None => Err(request.refuse(Kind::NotFound, "NoSuchKey")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ETag;
    use crate::store::LinkMethod;

    fn at(key: &str) -> Location {
        Location { bucket: BucketName::new("bucket").unwrap(), key: Key::new(key).unwrap() }
    }

    async fn stand(limits: MemoryLimits) -> (MemoryStore, Clock) {
        let clock = Clock::fixed(UNIX_EPOCH + Duration::from_millis(1_700_000_000_700));
        let store = MemoryStore::with_limits(clock.clone(), limits);
        store.create_bucket(&at("k").bucket).await.unwrap();
        (store, clock)
    }

    async fn put(store: &MemoryStore, key: &str, bytes: &'static str) -> ETag {
        let headers = ObjectHeaders::default();
        store.put(&at(key), Bytes::from(bytes), &headers, &Condition::None).await.unwrap().etag
    }

    #[tokio::test]
    async fn tags_and_times_are_those_of_s3() {
        let (store, clock) = stand(MemoryLimits::default()).await;
        assert_eq!(put(&store, "k", "hello").await.as_str(), "5d41402abc4b2a76b9719d911017c592");
        clock.advance(Duration::from_millis(400));
        put(&store, "later", "x").await;
        let modified = async |key| store.head(&at(key), None).await.unwrap().modified;
        assert_eq!(modified("k").await, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert_eq!(modified("later").await, UNIX_EPOCH + Duration::from_secs(1_700_000_001));

        let id = store.create_upload(&at("k"), &ObjectHeaders::default()).await.unwrap();
        let part = store.upload_part(&at("k"), &id, 1, Bytes::from("hello")).await.unwrap();
        let written = store.complete_upload(&at("k"), &id, &[part], &Condition::None).await.unwrap();
        let of_md5 = hex::encode(Md5::digest(Md5::digest("hello")));
        assert_eq!(written.etag.as_str(), format!("{of_md5}-1"));
    }

    #[tokio::test]
    async fn keys_that_no_path_can_name_are_listed_in_pages() {
        let (store, _) = stand(MemoryLimits { page_keys_max: 1, ..MemoryLimits::default() }).await;
        for raw in ["", "/", "a/", "a//", "a//b", "a/./c", "a/z", "a0", ".."] {
            store.put_raw(&at("k").bucket, raw, Bytes::new()).unwrap();
        }
        let listed = async |prefix: &str| {
            let (mut names, mut continuation) = (Vec::new(), None);
            loop {
                let request =
                    ListRequest { prefix: prefix.to_owned(), delimited: true, continuation, ..ListRequest::default() };
                let page = store.list(&at("k").bucket, &request).await.unwrap();
                names.extend(page.objects.into_iter().map(|object| object.key));
                names.extend(page.prefixes);
                continuation = page.continuation;
                if continuation.is_none() {
                    return names;
                }
            }
        };
        assert_eq!(listed("").await, ["", "..", "/", "a/", "a0"]);
        assert_eq!(listed("a/").await, ["a/", "a/./", "a//", "a/z"]);
        assert_eq!(listed("a//").await, ["a//", "a//b"]);
    }

    #[tokio::test]
    async fn a_foreign_continuation_is_refused() {
        let (store, _) = stand(MemoryLimits::default()).await;
        for token in ["", "a/b", "zz", "00"] {
            let request = ListRequest { continuation: Some(token.to_owned()), ..ListRequest::default() };
            let error = store.list(&at("k").bucket, &request).await.unwrap_err();
            assert_eq!(error.kind, Kind::BadRequest, "{token:?}");
        }
    }

    #[tokio::test]
    async fn a_single_request_moves_only_so_much() {
        let (store, _) = stand(MemoryLimits { single_bytes_max: 4, ..MemoryLimits::default() }).await;
        let headers = ObjectHeaders::default();
        let five = store.put(&at("k"), Bytes::from("12345"), &headers, &Condition::None).await;
        assert_eq!(five.unwrap_err().kind, Kind::TooLarge);
        store.put_raw(&at("k").bucket, "k", Bytes::from("12345")).unwrap();
        let source = CopySource { location: at("k"), if_match: None };
        let copied = store.copy(&source, &at("to"), &CopyHeaders::Replace(headers.clone())).await;
        assert_eq!(copied.unwrap_err().kind, Kind::TooLarge);
        let id = store.create_upload(&at("to"), &headers).await.unwrap();
        let part = store.upload_part_copy(&at("to"), &id, 1, &source, 0..5).await;
        assert_eq!(part.unwrap_err().kind, Kind::TooLarge);
        store.upload_part_copy(&at("to"), &id, 1, &source, 0..4).await.unwrap();
    }

    #[tokio::test]
    async fn a_copy_onto_itself_must_change_something() {
        let (store, _) = stand(MemoryLimits::default()).await;
        put(&store, "k", "x").await;
        let source = CopySource { location: at("k"), if_match: None };
        let keep = |storage_class| CopyHeaders::Keep { acl: None, storage_class };
        assert_eq!(store.copy(&source, &at("k"), &keep(None)).await.unwrap_err().kind, Kind::BadRequest);
        store.copy(&source, &at("k"), &keep(Some("COLD".to_owned()))).await.unwrap();
        assert_eq!(store.head(&at("k"), None).await.unwrap().headers.storage_class.as_deref(), Some("COLD"));
        store.copy(&source, &at("to"), &keep(None)).await.unwrap();
        assert_eq!(store.head(&at("to"), None).await.unwrap().headers.storage_class, None, "never the source's");
    }

    #[tokio::test]
    async fn a_link_lives_for_a_week_at_most() {
        let (store, _) = stand(MemoryLimits::default()).await;
        let link = |expires| {
            let (location, method) = (at("a b"), LinkMethod::Get);
            store.presign(&PresignRequest { location, method, expires, download_name: None })
        };
        assert!(link(PRESIGN_MAX).unwrap().starts_with("memory://bucket/a%20b?"));
        assert_eq!(link(PRESIGN_MAX + Duration::from_secs(1)).unwrap_err().kind, Kind::BadRequest);
    }
}
