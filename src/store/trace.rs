//! Counts the requests, their outcomes, bytes and time, and logs each at debug level. Changes nothing.
//!
//! It counts what passes through it. At the top of the stack, `trace(retry(limit(s3)))`, that is what was asked for:
//! an operation that [`crate::store::retry`] tried three times counts once, its time with all waiting, and its bytes
//! are those of the caller. For the requests that reach the network put another one below `retry`. Links cost no
//! request and are not counted. A log line holds the operation, the bucket and key, and never headers or bodies.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::store::operation as op;
use crate::store::{
    Acl, AclTarget, Body, BucketEntry, BucketHead, BucketName, Condition, CopyHeaders, CopySource, DeleteFailure,
    Error, GetOptions, Key, ListPage, ListRequest, Location, NewAcl, ObjectBody, ObjectHead, ObjectHeaders, Part,
    PresignRequest, Result, Store, Written,
};

/// What was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceCounts {
    /// By the S3 name of the operation (see [`crate::store::operation`]).
    pub operations: BTreeMap<String, OperationCounts>,
    /// Bytes of objects and parts in requests.
    pub up_bytes: u64,
    /// Bytes of objects as their bodies arrived.
    pub down_bytes: u64,
    /// Writes that carried an ACL in their headers.
    pub puts_with_acl_header: u64,
}

/// What was counted of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCounts {
    /// Requests that have been answered.
    pub requests: u64,
    /// Those that failed, by the name of their [`crate::store::Kind`]; bodies that broke in the middle too.
    pub errors: BTreeMap<String, u64>,
    /// Time from request to answer, summed up, in microseconds; of a GET without its body.
    pub time_us: u64,
}

/// A store that counts. See the module.
pub struct Trace {
    pub(super) inner: Arc<dyn Store>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally(Mutex<State>);

#[derive(Default)]
struct State {
    operations: BTreeMap<&'static str, OperationCounts>,
    up_bytes: u64,
    down_bytes: u64,
    puts_with_acl_header: u64,
}

impl Tally {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answered(&self, operation: &'static str, took: Duration, error: Option<&Error>) {
        self.with(|state| {
            let counts = state.operations.entry(operation).or_default();
            counts.requests += 1;
            counts.time_us += u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            if let Some(error) = error {
                *counts.errors.entry(format!("{:?}", error.kind)).or_default() += 1;
            }
        });
    }
}

impl Trace {
    /// Counts what is asked of `inner`.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Trace { inner, tally: Arc::default() }
    }

    /// Requests by operation; operations that were never asked for are absent.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.tally.with(|state| state.operations.iter().map(|(name, counts)| (*name, counts.requests)).collect())
    }

    /// How many write requests (PUT, COPY, begin of an upload) carried an ACL in their headers.
    pub fn puts_with_acl_header(&self) -> u64 {
        self.tally.with(|state| state.puts_with_acl_header)
    }

    /// Everything that was counted so far.
    pub fn snapshot(&self) -> TraceCounts {
        self.tally.with(|state| TraceCounts {
            operations: state.operations.iter().map(|(name, counts)| ((*name).to_owned(), counts.clone())).collect(),
            up_bytes: state.up_bytes,
            down_bytes: state.down_bytes,
            puts_with_acl_header: state.puts_with_acl_header,
        })
    }

    /// Counts one request; `bytes` is the length of the body that it sends.
    pub(super) async fn traced<T>(
        &self,
        operation: &'static str,
        subject: &(dyn fmt::Display + Sync),
        bytes: u64,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let started = Instant::now();
        let answer = request.await;
        let took = started.elapsed();
        self.tally.answered(operation, took, answer.as_ref().err());
        self.tally.with(|state| state.up_bytes += bytes);
        if log::log_enabled!(log::Level::Debug) {
            let outcome = answer.as_ref().map_or_else(|error| format!("{:?}", error.kind), |_| "ok".to_owned());
            // A key may hold a newline; a log line may not.
            let subject = subject.to_string();
            log::debug!("{operation} {}: {outcome} {} ms {bytes} B", subject.escape_debug(), took.as_millis());
        }
        answer
    }

    pub(super) fn note_acl(&self, headers: &ObjectHeaders) {
        if headers.acl.is_some() {
            self.tally.with(|state| state.puts_with_acl_header += 1);
        }
    }
}

/// What a GET asks for, as a log line names it.
struct Wanted<'a> {
    location: &'a Location,
    options: &'a GetOptions,
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.location)?;
        self.options.range.as_ref().map_or(Ok(()), |range| write!(f, " [{}..{}]", range.start, range.end))
    }
}

/// A body whose bytes are counted as they pass.
struct CountedBody {
    body: Body,
    tally: Arc<Tally>,
}

impl Stream for CountedBody {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.body.as_mut().poll_next(context);
        match &polled {
            Poll::Ready(Some(Ok(piece))) => self.tally.with(|state| state.down_bytes += piece.len() as u64),
            Poll::Ready(Some(Err(error))) => self.tally.with(|state| {
                let counts = state.operations.entry(op::GET_OBJECT).or_default();
                *counts.errors.entry(format!("{:?}", error.kind)).or_default() += 1;
            }),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for Trace {
    async fn list_buckets(&self) -> Result<Vec<BucketEntry>> {
        self.traced(op::LIST_BUCKETS, &"", 0, self.inner.list_buckets()).await
    }

    async fn create_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.traced(op::CREATE_BUCKET, bucket, 0, self.inner.create_bucket(bucket)).await
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.traced(op::DELETE_BUCKET, bucket, 0, self.inner.delete_bucket(bucket)).await
    }

    async fn head_bucket(&self, bucket: &BucketName) -> Result<BucketHead> {
        self.traced(op::HEAD_BUCKET, bucket, 0, self.inner.head_bucket(bucket)).await
    }

    async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage> {
        let subject = format!("{bucket}/{}", request.prefix);
        self.traced(op::LIST_OBJECTS, &subject, 0, self.inner.list(bucket, request)).await
    }

    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
        self.traced(op::HEAD_OBJECT, location, 0, self.inner.head(location, version_id)).await
    }

    async fn get(&self, location: &Location, options: &GetOptions) -> Result<ObjectBody> {
        let subject = Wanted { location, options };
        let answer = self.traced(op::GET_OBJECT, &subject, 0, self.inner.get(location, options)).await?;
        let body = CountedBody { body: answer.body, tally: self.tally.clone() };
        Ok(ObjectBody { body: Box::pin(body), ..answer })
    }

    async fn put(
        &self,
        location: &Location,
        body: Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        self.note_acl(headers);
        let bytes = body.len() as u64;
        self.traced(op::PUT_OBJECT, location, bytes, self.inner.put(location, body, headers, condition)).await
    }

    async fn copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written> {
        match headers {
            CopyHeaders::Keep { acl: None, .. } => {}
            CopyHeaders::Keep { acl: Some(_), .. } => self.tally.with(|state| state.puts_with_acl_header += 1),
            CopyHeaders::Replace(headers) => self.note_acl(headers),
        }
        self.traced(op::COPY_OBJECT, to, 0, self.inner.copy(source, to, headers)).await
    }

    async fn delete(&self, location: &Location, version_id: Option<&str>) -> Result<()> {
        self.traced(op::DELETE_OBJECT, location, 0, self.inner.delete(location, version_id)).await
    }

    async fn delete_many(&self, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        let subject = format!("{bucket} ({} keys)", keys.len());
        self.traced(op::DELETE_OBJECTS, &subject, 0, self.inner.delete_many(bucket, keys)).await
    }

    async fn create_upload(&self, location: &Location, headers: &ObjectHeaders) -> Result<String> {
        self.note_acl(headers);
        self.traced(op::CREATE_MULTIPART_UPLOAD, location, 0, self.inner.create_upload(location, headers)).await
    }

    async fn upload_part(&self, location: &Location, upload_id: &str, number: u32, body: Bytes) -> Result<Part> {
        let bytes = body.len() as u64;
        let request = self.inner.upload_part(location, upload_id, number, body);
        self.traced(op::UPLOAD_PART, location, bytes, request).await
    }

    async fn upload_part_copy(
        &self,
        location: &Location,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<Part> {
        let request = self.inner.upload_part_copy(location, upload_id, number, source, range);
        self.traced(op::UPLOAD_PART_COPY, location, 0, request).await
    }

    async fn complete_upload(
        &self,
        location: &Location,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        let request = self.inner.complete_upload(location, upload_id, parts, condition);
        self.traced(op::COMPLETE_MULTIPART_UPLOAD, location, 0, request).await
    }

    async fn abort_upload(&self, location: &Location, upload_id: &str) -> Result<()> {
        self.traced(op::ABORT_MULTIPART_UPLOAD, location, 0, self.inner.abort_upload(location, upload_id)).await
    }

    async fn get_acl(&self, target: &AclTarget) -> Result<Acl> {
        self.traced(op::GET_ACL, target, 0, self.inner.get_acl(target)).await
    }

    async fn put_acl(&self, target: &AclTarget, acl: &NewAcl) -> Result<()> {
        self.traced(op::PUT_ACL, target, 0, self.inner.put_acl(target, acl)).await
    }

    fn presign(&self, request: &PresignRequest) -> Result<String> {
        self.inner.presign(request)
    }

    fn url(&self, location: &Location) -> String {
        self.inner.url(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::fault::{Failure, Fault, Rule, When};
    use crate::store::memory::MemoryStore;
    use crate::store::retry::{Retry, RetryConfig};
    use crate::store::{AclHeaders, NewAcl};
    use futures_util::TryStreamExt;

    fn location() -> Location {
        Location { bucket: BucketName::new("bucket").unwrap(), key: Key::new("k").unwrap() }
    }

    async fn stand(rules: Vec<Rule>) -> Trace {
        let memory = Arc::new(MemoryStore::new(Clock::system()));
        memory.create_bucket(&location().bucket).await.unwrap();
        let fault = Arc::new(Fault::new(memory, 1, rules));
        Trace::new(Arc::new(Retry::new(fault, RetryConfig::default())))
    }

    fn public() -> ObjectHeaders {
        ObjectHeaders { acl: Some(AclHeaders::Canned("public-read".to_owned())), ..ObjectHeaders::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_bytes_errors_and_time_are_counted() {
        let slow = Failure::Slow(Duration::from_millis(250));
        let trace = stand(vec![Rule { operation: Some(op::PUT_OBJECT), when: When::Chance(1.0), failure: slow }]).await;
        let to = location();
        for _ in 0..2 {
            let body = Bytes::from(vec![1; 1000]);
            trace.put(&to, body, &ObjectHeaders::default(), &Condition::None).await.unwrap();
        }
        let range = Some(0..300);
        let body = trace.get(&to, &GetOptions { range, ..GetOptions::default() }).await.unwrap().body;
        assert_eq!(trace.snapshot().down_bytes, 0, "nothing has been read yet");
        body.try_collect::<Vec<Bytes>>().await.unwrap();
        let missing = Location { key: Key::new("missing").unwrap(), ..to.clone() };
        trace.head(&missing, None).await.unwrap_err();
        trace.url(&to);

        assert_eq!(trace.counts(), BTreeMap::from([(op::PUT_OBJECT, 2), (op::GET_OBJECT, 1), (op::HEAD_OBJECT, 1)]));
        let counts = trace.snapshot();
        assert_eq!((counts.up_bytes, counts.down_bytes), (2000, 300));
        assert_eq!(counts.operations[op::PUT_OBJECT].time_us, 500_000);
        assert_eq!(counts.operations[op::HEAD_OBJECT].errors, BTreeMap::from([("NotFound".to_owned(), 1)]));
        assert!(counts.operations[op::GET_OBJECT].errors.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_retry_repeats_counts_once_at_the_top() {
        let rule = |nth| Rule { operation: Some(op::PUT_OBJECT), when: When::Nth(nth), failure: Failure::Refuse };
        let trace = stand(vec![rule(1), rule(2)]).await;
        trace.put(&location(), Bytes::from("x"), &ObjectHeaders::default(), &Condition::None).await.unwrap();
        assert_eq!(trace.counts(), BTreeMap::from([(op::PUT_OBJECT, 1)]));
        assert_eq!(trace.snapshot().up_bytes, 1);
    }

    #[tokio::test]
    async fn writes_that_carry_an_acl_are_counted() {
        let trace = stand(vec![]).await;
        let (to, plain) = (location(), ObjectHeaders::default());
        let source = CopySource { location: to.clone(), if_match: None };
        trace.put(&to, Bytes::new(), &plain, &Condition::None).await.unwrap();
        trace.copy(&source, &to, &CopyHeaders::Replace(plain.clone())).await.unwrap();
        trace.create_upload(&to, &plain).await.unwrap();
        trace.put_acl(&AclTarget::Object(to.clone()), &NewAcl::Canned("private".to_owned())).await.unwrap();
        assert_eq!(trace.puts_with_acl_header(), 0);
        trace.put(&to, Bytes::new(), &public(), &Condition::None).await.unwrap();
        trace.copy(&source, &to, &CopyHeaders::Replace(public())).await.unwrap();
        let other = Location { key: Key::new("other").unwrap(), ..to.clone() };
        let keep = CopyHeaders::Keep { acl: public().acl, storage_class: None };
        trace.copy(&source, &other, &keep).await.unwrap();
        trace.create_upload(&to, &public()).await.unwrap();
        assert_eq!((trace.puts_with_acl_header(), trace.snapshot().puts_with_acl_header), (4, 4));
    }

    #[tokio::test]
    async fn counts_survive_json() {
        let trace = stand(vec![]).await;
        trace.list_buckets().await.unwrap();
        let counts = trace.snapshot();
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(serde_json::from_str::<TraceCounts>(&json).unwrap(), counts);
    }
}
