//! At most so many requests at once. A decorator under [`crate::store::retry`]: a permit is held for one attempt, and
//! never while waiting to try again.
//!
//! A GET holds its permit until its body has ended or is dropped. So whoever keeps as many half-read bodies as there
//! are permits, and waits for one more request, waits for himself. It refuses nothing and orders nothing: permits are
//! given in the order of asking.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::progress::{self, Heartbeat};
use crate::store::{
    Acl, AclTarget, Body, BucketEntry, BucketHead, BucketName, Condition, CopyHeaders, CopySource, DeleteFailure,
    GetOptions, Key, ListPage, ListRequest, Location, NewAcl, ObjectBody, ObjectHead, ObjectHeaders, Part,
    PresignRequest, Result, Store, Written,
};

/// Bounds the requests that are under way. See the module.
pub struct Limit {
    pub(super) inner: Arc<dyn Store>,
    permits: Arc<Semaphore>,
    /// When the store last answered anyone: while it does, those who queue are not timed out.
    heartbeat: Arc<Heartbeat>,
}

impl Limit {
    /// Lets at most `requests_max` requests reach `inner` at once.
    pub fn new(inner: Arc<dyn Store>, requests_max: NonZeroUsize) -> Self {
        let permits = requests_max.get().min(Semaphore::MAX_PERMITS);
        Limit { inner, permits: Arc::new(Semaphore::new(permits)), heartbeat: Arc::default() }
    }

    /// Requests that could be sent now without waiting.
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let waiting = self.permits.clone().acquire_owned();
        progress::queued(&self.heartbeat, waiting).await.expect("the semaphore is never closed")
    }

    pub(super) async fn limited<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let _permit = self.permit().await;
        let answer = request.await;
        self.note(&answer);
        answer
    }

    fn note<T>(&self, answer: &Result<T>) {
        if answer.as_ref().map_or_else(|error| progress::is_answer(error.kind), |_| true) {
            self.heartbeat.beat();
        }
    }
}

/// A body and the permit that its request holds; both are gone at the end.
struct HeldBody {
    rest: Option<(Body, OwnedSemaphorePermit)>,
    heartbeat: Arc<Heartbeat>,
}

impl Stream for HeldBody {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some((body, _)) = &mut self.rest else { return Poll::Ready(None) };
        let polled = body.as_mut().poll_next(context);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) => self.heartbeat.beat(),
            Poll::Ready(None | Some(Err(_))) => self.rest = None,
        }
        polled
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for Limit {
    async fn list_buckets(&self) -> Result<Vec<BucketEntry>> {
        self.limited(self.inner.list_buckets()).await
    }

    async fn create_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.limited(self.inner.create_bucket(bucket)).await
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.limited(self.inner.delete_bucket(bucket)).await
    }

    async fn head_bucket(&self, bucket: &BucketName) -> Result<BucketHead> {
        self.limited(self.inner.head_bucket(bucket)).await
    }

    async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage> {
        self.limited(self.inner.list(bucket, request)).await
    }

    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
        self.limited(self.inner.head(location, version_id)).await
    }

    async fn get(&self, location: &Location, options: &GetOptions) -> Result<ObjectBody> {
        let permit = self.permit().await;
        let answer = self.inner.get(location, options).await;
        self.note(&answer);
        let ObjectBody { head, range, body } = answer?;
        let held = HeldBody { rest: Some((body, permit)), heartbeat: self.heartbeat.clone() };
        Ok(ObjectBody { head, range, body: Box::pin(held) })
    }

    async fn put(
        &self,
        location: &Location,
        body: Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        self.limited(self.inner.put(location, body, headers, condition)).await
    }

    async fn copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written> {
        self.limited(self.inner.copy(source, to, headers)).await
    }

    async fn delete(&self, location: &Location, version_id: Option<&str>) -> Result<()> {
        self.limited(self.inner.delete(location, version_id)).await
    }

    async fn delete_many(&self, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        self.limited(self.inner.delete_many(bucket, keys)).await
    }

    async fn create_upload(&self, location: &Location, headers: &ObjectHeaders) -> Result<String> {
        self.limited(self.inner.create_upload(location, headers)).await
    }

    async fn upload_part(&self, location: &Location, upload_id: &str, number: u32, body: Bytes) -> Result<Part> {
        self.limited(self.inner.upload_part(location, upload_id, number, body)).await
    }

    async fn upload_part_copy(
        &self,
        location: &Location,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<Part> {
        self.limited(self.inner.upload_part_copy(location, upload_id, number, source, range)).await
    }

    async fn complete_upload(
        &self,
        location: &Location,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        self.limited(self.inner.complete_upload(location, upload_id, parts, condition)).await
    }

    async fn abort_upload(&self, location: &Location, upload_id: &str) -> Result<()> {
        self.limited(self.inner.abort_upload(location, upload_id)).await
    }

    async fn get_acl(&self, target: &AclTarget) -> Result<Acl> {
        self.limited(self.inner.get_acl(target)).await
    }

    async fn put_acl(&self, target: &AclTarget, acl: &NewAcl) -> Result<()> {
        self.limited(self.inner.put_acl(target, acl)).await
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
    use crate::store::{Kind, operation};
    use futures_util::StreamExt;
    use futures_util::future::join_all;
    use std::time::Duration;
    use tokio::time::Instant;

    async fn stand(failure: Failure, requests_max: usize) -> (Arc<Limit>, Location) {
        let memory = Arc::new(MemoryStore::new(Clock::system()));
        let location = Location { bucket: BucketName::new("bucket").unwrap(), key: Key::new("k").unwrap() };
        memory.create_bucket(&location.bucket).await.unwrap();
        let body = Bytes::from(vec![7; 200_000]);
        memory.put(&location, body, &ObjectHeaders::default(), &Condition::None).await.unwrap();
        let rule = Rule { operation: Some(operation::HEAD_OBJECT), when: When::Chance(1.0), failure };
        let fault = Arc::new(Fault::new(memory, 1, vec![rule]));
        (Arc::new(Limit::new(fault, NonZeroUsize::new(requests_max).unwrap())), location)
    }

    #[tokio::test(start_paused = true)]
    async fn never_more_than_allowed_at_once() {
        let (limit, location) = stand(Failure::Slow(Duration::from_secs(1)), 3).await;
        let started = Instant::now();
        let heads = join_all((0..10).map(|_| limit.head(&location, None)));
        let watch = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(950)).await;
                assert_eq!(limit.free(), 0);
            }
        };
        let (answers, ()) = tokio::join!(heads, watch);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(started.elapsed(), Duration::from_secs(4), "ten requests of a second, three at a time");
        assert_eq!(limit.free(), 3);
    }

    #[tokio::test]
    async fn a_body_holds_its_permit_until_it_ends_or_is_dropped() {
        let (limit, location) = stand(Failure::Refuse, 2).await;
        let mut read = limit.get(&location, &GetOptions::default()).await.unwrap().body;
        let dropped = limit.get(&location, &GetOptions::default()).await.unwrap().body;
        assert_eq!(limit.free(), 0);
        drop(dropped);
        assert_eq!(limit.free(), 1);
        while let Some(piece) = read.next().await {
            piece.unwrap();
            assert_eq!(limit.free(), 1);
        }
        assert_eq!(limit.free(), 2, "the end frees it, though the body is still there");
        assert!(read.next().await.is_none());
    }

    #[tokio::test]
    async fn a_refused_get_and_a_request_that_is_given_up_hold_nothing() {
        let (limit, location) = stand(Failure::Slow(Duration::from_secs(3600)), 1).await;
        let missing = Location { key: Key::new("missing").unwrap(), ..location.clone() };
        assert!(limit.get(&missing, &GetOptions::default()).await.is_err());
        assert_eq!(limit.free(), 1);
        let mut given_up = Box::pin(limit.head(&location, None));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        assert_eq!(limit.free(), 0);
        drop(given_up);
        assert_eq!(limit.free(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_is_no_silence_while_the_store_answers_others() {
        let (limit, location) = stand(Failure::Slow(Duration::from_secs(50)), 1).await;
        let retry = Retry::new(limit, RetryConfig::default());
        let started = Instant::now();
        let answers = join_all((0..10).map(|_| retry.head(&location, None))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(started.elapsed(), Duration::from_secs(500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_before_a_dead_store_ends_in_time() {
        let (limit, location) = stand(Failure::Slow(Duration::from_secs(1_000_000)), 1).await;
        let retry = Retry::new(limit, RetryConfig::default());
        let started = Instant::now();
        let answers = join_all((0..10).map(|_| retry.head(&location, None))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap_err().kind == Kind::TimedOut));
        assert_eq!(started.elapsed(), Duration::from_secs(60));
    }
}
