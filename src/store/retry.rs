//! Asks again: by the kind of the error, by whether the request may be repeated, bounded in time and in count.
//!
//! * Reads, listings, parts, deletes, aborts, ACLs, and PUT and COPY without a condition say the same when said twice;
//!   they are repeated after every transient error. A repeated CreateMultipartUpload may leave an empty upload behind.
//! * A conditional write, an append, a copy of an object onto itself with If-Match, CompleteMultipartUpload and
//!   CreateBucket are repeated only after errors that mean that nothing was done: the second time, our own success
//!   would look like another's. Their ambiguous errors go to the caller, who can look what is stored.
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
    Acl, AclTarget, Body, BucketEntry, BucketHead, BucketName, Buffers, Condition, CopyHeaders, CopySource,
    DeleteFailure, ETag, Error, GetOptions, Key, Kind, ListPage, ListRequest, Location, NewAcl, ObjectBody, ObjectHead,
    ObjectHeaders, Part, PresignRequest, Result, Store, Written,
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
    pub(super) inner: Arc<dyn Store>,
    config: RetryConfig,
}

/// After which errors a request may be sent again.
#[derive(Clone, Copy)]
pub(super) enum Repeat {
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

    pub(super) async fn run<T, F: Future<Output = Result<T>>>(
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
    fn resuming(&self, location: &Location, options: &GetOptions, answer: ObjectBody) -> ObjectBody {
        let ObjectBody { head, range, body } = answer;
        let source = Source {
            inner: self.inner.clone(),
            location: location.clone(),
            version_id: options.version_id.clone(),
            buffers: options.buffers.clone(),
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
    buffers: Buffers,
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
        let options =
            GetOptions { range, if_match, version_id: self.version_id.clone(), buffers: self.buffers.clone() };
        let answer = self.inner.get(&self.location, &options).await?;
        self.check(&answer)?;
        Ok(answer.body)
    }

    /// Whether the answer goes on where the body stopped. Not every store honours If-Match on a GET.
    fn check(&self, answer: &ObjectBody) -> Result<()> {
        if answer.head.etag != self.etag {
            return Err(self.error(Kind::PreconditionFailed, "the object changed while it was read"));
        }
        if answer.range != self.rest {
            return Err(self.error(Kind::Malformed, "another range than was asked for"));
        }
        Ok(())
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
        Ok(self.resuming(location, options, answer))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::fault::{Failure, Fault, Rule, When};
    use crate::store::memory::MemoryStore;
    use futures_util::TryStreamExt;

    /// A store with the bucket and the object `k`, faults over it, and retry over those.
    struct Stand {
        memory: Arc<MemoryStore>,
        fault: Arc<Fault>,
        retry: Retry,
        location: Location,
    }

    fn rule(operation: &'static str, when: When, failure: Failure) -> Rule {
        Rule { operation: Some(operation), when, failure }
    }

    async fn stand(rules: Vec<Rule>) -> Stand {
        let memory = Arc::new(MemoryStore::new(Clock::system()));
        let location = Location { bucket: BucketName::new("bucket").unwrap(), key: Key::new("k").unwrap() };
        memory.create_bucket(&location.bucket).await.unwrap();
        put(&*memory, &location, vec![7; 300_000], &Condition::None).await.unwrap();
        let fault = Arc::new(Fault::new(memory.clone(), 1, rules));
        let retry = Retry::new(fault.clone(), RetryConfig::default());
        Stand { memory, fault, retry, location }
    }

    async fn put(store: &dyn Store, to: &Location, bytes: Vec<u8>, condition: &Condition) -> Result<Written> {
        store.put(to, bytes.into(), &ObjectHeaders::default(), condition).await
    }

    async fn collect(body: Body) -> Result<Vec<u8>> {
        body.try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
    }

    const ALWAYS: When = When::Chance(1.0);

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_end_with_the_time() {
        let stand = stand(vec![rule(op::HEAD_OBJECT, ALWAYS, Failure::Refuse)]).await;
        let started = Instant::now();
        let error = stand.retry.head(&stand.location, None).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "the reason is told, not the time");
        let took = started.elapsed();
        assert!(took > Duration::from_secs(50) && took <= Duration::from_secs(60), "{took:?}");
        let calls = stand.fault.calls(op::HEAD_OBJECT);
        assert!((15..=25).contains(&calls), "{calls} attempts");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_that_are_answers_end_with_the_count() {
        let stand = stand(vec![rule(op::HEAD_OBJECT, ALWAYS, Failure::ServerError)]).await;
        let error = stand.retry.head(&stand.location, None).await.unwrap_err();
        assert_eq!(error.kind, Kind::ServerError);
        assert_eq!(stand.fault.calls(op::HEAD_OBJECT), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_an_answer_is_cut() {
        let never = Duration::from_secs(1_000_000);
        let stand = stand(vec![rule(op::HEAD_OBJECT, ALWAYS, Failure::Slow(never))]).await;
        let started = Instant::now();
        let error = stand.retry.head(&stand.location, None).await.unwrap_err();
        assert_eq!((error.kind, started.elapsed()), (Kind::TimedOut, Duration::from_secs(60)));
        assert_eq!(stand.fault.calls(op::HEAD_OBJECT), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_not_asked_again() {
        let stand = stand(vec![]).await;
        let missing = Location { key: Key::new("missing").unwrap(), ..stand.location.clone() };
        assert_eq!(stand.retry.head(&missing, None).await.unwrap_err().kind, Kind::NotFound);
        assert_eq!(stand.fault.calls(op::HEAD_OBJECT), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_plain_write_is_repeated_after_an_ambiguous_error() {
        for failure in [Failure::ServerError, Failure::DoneThenFailed, Failure::Refuse] {
            let stand = stand(vec![rule(op::PUT_OBJECT, When::Nth(1), failure)]).await;
            put(&stand.retry, &stand.location, vec![1], &Condition::None).await.unwrap();
            assert_eq!(stand.fault.calls(op::PUT_OBJECT), 2, "{failure:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_conditional_write_is_repeated_only_when_nothing_was_done() {
        for (failure, kind) in [(Failure::ServerError, Kind::ServerError), (Failure::DoneThenFailed, Kind::Interrupted)]
        {
            let stand = stand(vec![rule(op::PUT_OBJECT, When::Nth(1), failure)]).await;
            let etag = stand.memory.head(&stand.location, None).await.unwrap().etag;
            let answer = put(&stand.retry, &stand.location, vec![1], &Condition::IfMatch(etag)).await;
            assert_eq!(answer.unwrap_err().kind, kind, "our own success is never called a conflict");
            assert_eq!(stand.fault.calls(op::PUT_OBJECT), 1, "{failure:?}");
        }
        let stand = stand(vec![rule(op::PUT_OBJECT, When::Nth(1), Failure::Refuse)]).await;
        let etag = stand.memory.head(&stand.location, None).await.unwrap().etag;
        put(&stand.retry, &stand.location, vec![1], &Condition::IfMatch(etag)).await.unwrap();
        assert_eq!(stand.fault.calls(op::PUT_OBJECT), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn completing_and_creating_are_not_repeated_blindly() {
        let stand = stand(vec![
            rule(op::COMPLETE_MULTIPART_UPLOAD, When::Nth(1), Failure::DoneThenFailed),
            rule(op::CREATE_BUCKET, When::Nth(1), Failure::DoneThenFailed),
        ])
        .await;
        let id = stand.retry.create_upload(&stand.location, &ObjectHeaders::default()).await.unwrap();
        let parts = [stand.retry.upload_part(&stand.location, &id, 1, Bytes::from("x")).await.unwrap()];
        let answer = stand.retry.complete_upload(&stand.location, &id, &parts, &Condition::None).await;
        assert_eq!(answer.unwrap_err().kind, Kind::Interrupted);
        let answer = stand.retry.create_bucket(&BucketName::new("other").unwrap()).await;
        assert_eq!(answer.unwrap_err().kind, Kind::Interrupted);
        let own = CopySource { location: stand.location.clone(), if_match: Some(ETag::new("x")) };
        stand.fault.set_rules(vec![rule(op::COPY_OBJECT, When::Nth(1), Failure::ServerError)]);
        let headers = CopyHeaders::Replace(ObjectHeaders::default());
        let answer = stand.retry.copy(&own, &stand.location, &headers).await;
        assert_eq!(answer.unwrap_err().kind, Kind::ServerError);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_that_we_deleted_ourselves_is_a_success() {
        let stand = stand(vec![rule(op::DELETE_BUCKET, When::Nth(1), Failure::DoneThenFailed)]).await;
        stand.memory.delete(&stand.location, None).await.unwrap();
        stand.retry.delete_bucket(&stand.location.bucket).await.unwrap();
        let again = stand.retry.delete_bucket(&stand.location.bucket).await;
        assert_eq!(again.unwrap_err().kind, Kind::NoSuchBucket);
    }

    #[tokio::test(start_paused = true)]
    async fn the_stores_wish_to_wait_is_heard_unless_it_is_too_long() {
        let mut pursuit = Pursuit::new(RetryConfig::default(), op::HEAD_OBJECT, String::new());
        let slow_down = |seconds| {
            let error = Error::new(Kind::Throttled, op::HEAD_OBJECT, "", "");
            Error { retry_after: Some(Duration::from_secs(seconds)), ..error }
        };
        let started = Instant::now();
        pursuit.wait(slow_down(20), Repeat::IfNotDone).await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(20));
        pursuit.wait(slow_down(41), Repeat::Always).await.unwrap_err();
        assert_eq!(started.elapsed(), Duration::from_secs(20), "given up at once");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_doubled_within_their_bounds() {
        let mut pursuit = Pursuit::new(RetryConfig::default(), op::HEAD_OBJECT, String::new());
        for (failures, longest_ms) in [(1, 100), (2, 200), (4, 800), (6, 3200), (7, 5000), (4_000_000, 5000)] {
            pursuit.failures = failures;
            let waits: Vec<Duration> = (0..100).map(|_| pursuit.backoff()).collect();
            let (half, longest) = (Duration::from_millis(longest_ms / 2), Duration::from_millis(longest_ms));
            assert!(waits.iter().all(|wait| (half..=longest).contains(wait)), "{failures}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "all alike: clients would come back together");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_body_goes_on_where_it_stopped() {
        let cuts = [0, 1, 65_536, 100_000].into_iter().zip(1..);
        let cuts = cuts.map(|(bytes, nth)| rule(op::GET_OBJECT, When::Nth(nth), Failure::CutBody(bytes)));
        let stand = stand(cuts.collect()).await;
        let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        put(&*stand.memory, &stand.location, bytes.clone(), &Condition::None).await.unwrap();
        let options = GetOptions { range: Some(5..299_000), ..GetOptions::default() };
        let answer = stand.retry.get(&stand.location, &options).await.unwrap();
        assert!(collect(answer.body).await.unwrap() == bytes[5..299_000]);
        assert_eq!(stand.fault.calls(op::GET_OBJECT), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_never_mixes_versions() {
        let stand = stand(vec![rule(op::GET_OBJECT, When::Nth(1), Failure::CutBody(70_000))]).await;
        let mut body = stand.retry.get(&stand.location, &GetOptions::default()).await.unwrap().body;
        assert_eq!(body.next().await.unwrap().unwrap().len(), 65_536);
        put(&*stand.memory, &stand.location, vec![8; 300_000], &Condition::None).await.unwrap();
        let rest: Vec<Result<Bytes>> = body.collect().await;
        assert_eq!(rest.last().unwrap().as_ref().unwrap_err().kind, Kind::PreconditionFailed);
        let pieces = rest.iter().filter_map(|piece| piece.as_ref().ok());
        assert!(pieces.flatten().all(|byte| *byte == 7), "bytes of the new version");
    }

    #[tokio::test]
    async fn an_answer_of_another_version_or_range_is_refused_whatever_the_store_says() {
        let Stand { memory, location, .. } = stand(vec![]).await;
        let answer = memory.get(&location, &GetOptions::default()).await.unwrap();
        let etag = answer.head.etag.clone();
        let (version_id, body, buffers) = (None, None, Buffers::default());
        let (etag, rest) = (etag.clone(), 0..300_000);
        let mut source = Source { inner: memory, location, version_id, buffers, etag, rest, body };
        source.check(&answer).unwrap();
        source.rest.start = 1;
        assert_eq!(source.check(&answer).unwrap_err().kind, Kind::Malformed);
        source.etag = ETag::new("another");
        assert_eq!(source.check(&answer).unwrap_err().kind, Kind::PreconditionFailed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_progress_ends_and_one_with_progress_does_not() {
        let stand = stand(vec![rule(op::GET_OBJECT, ALWAYS, Failure::CutBody(0))]).await;
        let answer = stand.retry.get(&stand.location, &GetOptions::default()).await.unwrap();
        assert_eq!(collect(answer.body).await.unwrap_err().kind, Kind::Interrupted);
        assert!(stand.fault.calls(op::GET_OBJECT) <= 26);

        // 300 cuts: more than attempts_max, and each one brings bytes.
        stand.fault.set_rules(vec![rule(op::GET_OBJECT, ALWAYS, Failure::CutBody(1000))]);
        let answer = stand.retry.get(&stand.location, &GetOptions::default()).await.unwrap();
        assert_eq!(collect(answer.body).await.unwrap(), vec![7; 300_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_pause() {
        let stand = stand(vec![rule(op::GET_OBJECT, When::Nth(1), Failure::CutBody(70_000))]).await;
        let mut body = stand.retry.get(&stand.location, &GetOptions::default()).await.unwrap().body;
        body.next().await.unwrap().unwrap();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(collect(body).await.unwrap().len(), 300_000 - 65_536);
    }
}
