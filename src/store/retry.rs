//! Asks again: by the kind of the error, by whether the request may be repeated, bounded in time and in count.
//!
//! * Reads, listings, parts, deletes, aborts, ACLs, and PUT and COPY without a condition say the same when said twice;
//!   they are repeated after every transient error. A repeated CreateMultipartUpload may leave an empty upload behind.
//! * A conditional write, a copy of an object onto itself with If-Match, CompleteMultipartUpload and CreateBucket are
//!   repeated only after errors that mean that nothing was done: the second time, our own success would look like
//!   another's. Their ambiguous errors go to the caller, who can look what is stored.
//! * The time limit runs from the last answer or byte that the store gave for the operation, see
//!   [`crate::store::progress`]; an attempt is cut when it passes. A store that asks for more patience than is left is
//!   not waited for. A wait between attempts is doubled each time, and its second half is left to chance.
//! * A GET whose body breaks goes on by itself from where it stopped, demanding the ETag that it began with; when the
//!   object has changed meanwhile the body ends with [`Kind::PreconditionFailed`]. While the reader pauses, no time
//!   runs.
//!
//! It never repeats what the store has refused.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use crate::store::operation as op;
use crate::store::progress::{self, Watch};
use crate::store::{
    Acl, AclTarget, Body, BucketEntry, BucketHead, BucketName, Condition, CopyHeaders, CopySource, DeleteFailure, ETag,
    Error, GetOptions, Key, Kind, ListPage, ListRequest, Location, NewAcl, ObjectBody, ObjectHead, ObjectHeaders, Part,
    PresignRequest, Result, Store, Written,
};

/// How long and how often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Longest silence of the store before an operation fails.
    pub timeout: Duration,
    /// Attempts at most that bring no byte nearer, the first one included.
    pub attempts_max: u32,
    /// Wait before the second attempt, at most; at least half of it.
    pub backoff_min: Duration,
    /// Wait before any attempt at most, unless the store asks for more.
    pub backoff_max: Duration,
}

impl Default for RetryConfig {
    /// One minute, as the design promises. The count is what that minute has room for at the longest waits, so that
    /// it ends only operations whose every attempt the store answers with an error.
    fn default() -> Self {
        RetryConfig {
            timeout: Duration::from_secs(60),
            attempts_max: 25,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// A store that is asked again. See the module.
pub struct Retry {
    inner: Arc<dyn Store>,
    config: RetryConfig,
}

/// After which errors a request may be sent again.
#[derive(Clone, Copy)]
enum Repeat {
    /// After every transient one.
    Always,
    /// After those that mean that nothing was done.
    IfNotDone,
}

impl Repeat {
    fn unless(conditional: bool) -> Self {
        if conditional { Repeat::IfNotDone } else { Repeat::Always }
    }

    fn allows(self, kind: Kind) -> bool {
        match self {
            Repeat::Always => kind.is_transient(),
            Repeat::IfNotDone => kind.is_transient() && !kind.may_have_happened(),
        }
    }
}

/// One operation with all its attempts.
struct Pursuit {
    config: RetryConfig,
    operation: &'static str,
    subject: String,
    watch: Arc<Watch>,
    failures: u32,
}

impl Pursuit {
    fn new(config: RetryConfig, operation: &'static str, subject: String) -> Self {
        Pursuit { config, operation, subject, watch: Arc::default(), failures: 0 }
    }

    fn error(&self, kind: Kind, message: String) -> Error {
        Error::new(kind, self.operation, self.subject.clone(), message)
    }

    /// Sends the request once, and cuts it when the store has been silent for too long.
    async fn attempt<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(answer) = self.watch.run(self.config.timeout, request).await else {
            let message = format!("no answer and no byte for {:?}", self.config.timeout);
            return Err(self.error(Kind::TimedOut, message));
        };
        if answer.as_ref().map_or_else(|error| progress::is_answer(error.kind), |_| true) {
            self.watch.beat();
        }
        answer
    }

    /// Waits until the next attempt may be made, or gives the error back.
    async fn wait(&mut self, error: Error, repeat: Repeat) -> Result<()> {
        self.failures += 1;
        let delay = self.backoff().max(error.retry_after.unwrap_or_default());
        let is_late = Instant::now() + delay >= self.watch.last() + self.config.timeout;
        if !repeat.allows(error.kind) || self.failures >= self.config.attempts_max || is_late {
            return Err(error);
        }
        log::debug!("{error}; asking again in {} ms", delay.as_millis());
        sleep(delay).await;
        Ok(())
    }

    fn backoff(&self) -> Duration {
        let doubled = self.config.backoff_min.saturating_mul(1 << (self.failures - 1).min(16));
        let longest = doubled.min(self.config.backoff_max);
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }

    /// A byte has come: time and count begin anew.
    fn renew(&mut self) {
        self.watch.beat();
        self.failures = 0;
    }
}

impl Retry {
    /// Asks `inner` again where that may help.
    pub fn new(inner: Arc<dyn Store>, config: RetryConfig) -> Self {
        Retry { inner, config }
    }

    async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        operation: &'static str,
        subject: &(dyn fmt::Display + Sync),
        repeat: Repeat,
        request: impl Fn() -> F,
    ) -> Result<T> {
        let mut pursuit = Pursuit::new(self.config, operation, subject.to_string());
        loop {
            match pursuit.attempt(request()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => pursuit.wait(error, repeat).await?,
            }
        }
    }

    /// The body of a GET, made to outlive its connection.
    fn resuming(&self, location: &Location, version_id: Option<String>, answer: ObjectBody) -> ObjectBody {
        let ObjectBody { head, range, body } = answer;
        let source = Source {
            inner: self.inner.clone(),
            location: location.clone(),
            version_id,
            etag: head.etag.clone(),
            rest: range.clone(),
            body: Some(body),
        };
        let pursuit = Pursuit::new(self.config, op::GET_OBJECT, location.to_string());
        ObjectBody { head, range, body: resumed(pursuit, source) }
    }
}

/// Where the bytes of a GET come from.
struct Source {
    inner: Arc<dyn Store>,
    location: Location,
    version_id: Option<String>,
    /// The version that the GET began with.
    etag: ETag,
    /// What has not arrived yet.
    rest: Range<u64>,
    /// The connection that brings it, unless it broke.
    body: Option<Body>,
}

impl Source {
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let body = self.reopen().await?;
                self.body.insert(body)
            }
        };
        let piece = body.next().await.transpose()?;
        let length = piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if length > self.rest.end - self.rest.start {
            return Err(self.error(Kind::Malformed, "more bytes than were announced"));
        }
        if piece.is_none() && !self.rest.is_empty() {
            return Err(self.error(Kind::Interrupted, "the body ended early"));
        }
        self.rest.start += length;
        Ok(piece)
    }

    async fn reopen(&mut self) -> Result<Body> {
        let (range, if_match) = (Some(self.rest.clone()), Some(self.etag.clone()));
        let options = GetOptions { range, if_match, version_id: self.version_id.clone() };
        let answer = self.inner.get(&self.location, &options).await?;
        // Not every store honours If-Match on a GET.
        if answer.head.etag != self.etag {
            return Err(self.error(Kind::PreconditionFailed, "the object changed while it was read"));
        }
        if answer.range != self.rest {
            return Err(self.error(Kind::Malformed, "another range than was asked for"));
        }
        Ok(answer.body)
    }

    fn error(&self, kind: Kind, message: &str) -> Error {
        Error::new(kind, op::GET_OBJECT, self.location.to_string(), message)
    }
}

fn resumed(pursuit: Pursuit, source: Source) -> Body {
    Box::pin(stream::unfold(Some((pursuit, source)), |state| async move {
        let (mut pursuit, mut source) = state?;
        pursuit.renew();
        loop {
            let error = match pursuit.attempt(source.piece()).await {
                Ok(Some(piece)) => return Some((Ok(piece), Some((pursuit, source)))),
                Ok(None) => return None,
                // Broken behind the last byte: nothing is missing.
                Err(_) if source.rest.is_empty() => return None,
                Err(error) => error,
            };
            // The connection goes first, and with it the permit that it holds.
            source.body = None;
            if let Err(error) = pursuit.wait(error, Repeat::Always).await {
                return Some((Err(error), None));
            }
        }
    }))
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for Retry {
    async fn list_buckets(&self) -> Result<Vec<BucketEntry>> {
        self.run(op::LIST_BUCKETS, &"", Repeat::Always, || self.inner.list_buckets()).await
    }

    async fn create_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.run(op::CREATE_BUCKET, bucket, Repeat::IfNotDone, || self.inner.create_bucket(bucket)).await
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<()> {
        // After an ambiguous attempt a missing bucket is our own success.
        let may_be_gone = AtomicBool::new(false);
        let request = || async {
            let answer = self.inner.delete_bucket(bucket).await;
            match answer {
                Err(error) if error.kind == Kind::NoSuchBucket && may_be_gone.load(Ordering::Relaxed) => Ok(()),
                Err(error) => {
                    may_be_gone.fetch_or(error.kind.may_have_happened(), Ordering::Relaxed);
                    Err(error)
                }
                Ok(()) => Ok(()),
            }
        };
        self.run(op::DELETE_BUCKET, bucket, Repeat::Always, request).await
    }

    async fn head_bucket(&self, bucket: &BucketName) -> Result<BucketHead> {
        self.run(op::HEAD_BUCKET, bucket, Repeat::Always, || self.inner.head_bucket(bucket)).await
    }

    async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage> {
        self.run(op::LIST_OBJECTS, bucket, Repeat::Always, || self.inner.list(bucket, request)).await
    }

    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
        self.run(op::HEAD_OBJECT, location, Repeat::Always, || self.inner.head(location, version_id)).await
    }

    async fn get(&self, location: &Location, options: &GetOptions) -> Result<ObjectBody> {
        let request = || self.inner.get(location, options);
        let answer = self.run(op::GET_OBJECT, location, Repeat::Always, request).await?;
        Ok(self.resuming(location, options.version_id.clone(), answer))
    }

    async fn put(
        &self,
        location: &Location,
        body: Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        let repeat = Repeat::unless(*condition != Condition::None);
        let request = || self.inner.put(location, body.clone(), headers, condition);
        self.run(op::PUT_OBJECT, location, repeat, request).await
    }

    async fn copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written> {
        let repeat = Repeat::unless(source.if_match.is_some() && source.location == *to);
        self.run(op::COPY_OBJECT, to, repeat, || self.inner.copy(source, to, headers)).await
    }

    async fn delete(&self, location: &Location, version_id: Option<&str>) -> Result<()> {
        self.run(op::DELETE_OBJECT, location, Repeat::Always, || self.inner.delete(location, version_id)).await
    }

    async fn delete_many(&self, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        self.run(op::DELETE_OBJECTS, bucket, Repeat::Always, || self.inner.delete_many(bucket, keys)).await
    }

    async fn create_upload(&self, location: &Location, headers: &ObjectHeaders) -> Result<String> {
        let request = || self.inner.create_upload(location, headers);
        self.run(op::CREATE_MULTIPART_UPLOAD, location, Repeat::Always, request).await
    }

    async fn upload_part(&self, location: &Location, upload_id: &str, number: u32, body: Bytes) -> Result<Part> {
        let request = || self.inner.upload_part(location, upload_id, number, body.clone());
        self.run(op::UPLOAD_PART, location, Repeat::Always, request).await
    }

    async fn upload_part_copy(
        &self,
        location: &Location,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<Part> {
        let request = || self.inner.upload_part_copy(location, upload_id, number, source, range.clone());
        self.run(op::UPLOAD_PART_COPY, location, Repeat::Always, request).await
    }

    async fn complete_upload(
        &self,
        location: &Location,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        let request = || self.inner.complete_upload(location, upload_id, parts, condition);
        self.run(op::COMPLETE_MULTIPART_UPLOAD, location, Repeat::IfNotDone, request).await
    }

    async fn abort_upload(&self, location: &Location, upload_id: &str) -> Result<()> {
        let request = || self.inner.abort_upload(location, upload_id);
        self.run(op::ABORT_MULTIPART_UPLOAD, location, Repeat::Always, request).await
    }

    async fn get_acl(&self, target: &AclTarget) -> Result<Acl> {
        self.run(op::GET_ACL, target, Repeat::Always, || self.inner.get_acl(target)).await
    }

    async fn put_acl(&self, target: &AclTarget, acl: &NewAcl) -> Result<()> {
        self.run(op::PUT_ACL, target, Repeat::Always, || self.inner.put_acl(target, acl)).await
    }

    fn presign(&self, request: &PresignRequest) -> Result<String> {
        self.inner.presign(request)
    }

    fn url(&self, location: &Location) -> String {
        self.inner.url(location)
    }
}
