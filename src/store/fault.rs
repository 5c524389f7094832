//! Seeded failures, for tests: a decorator that belongs under [`crate::store::retry`], where a network would fail.
//!
//! What must be survived, and is proven by the conformance suite over `retry(fault)`:
//! * [`Failure::Refuse`], [`Failure::ServerError`] on every request that may be repeated, [`Failure::Refuse`] on all;
//! * [`Failure::CutBody`] on every GET: the reader gets all bytes, of one version;
//! * [`Failure::StallBody`] and [`Failure::Slow`] for less than the time limit;
//! * [`Failure::DoneThenFailed`] on every request that may be repeated.
//!
//! What must be reported, never hidden: [`Failure::ServerError`] and [`Failure::DoneThenFailed`] on conditional writes,
//! appends, CompleteMultipartUpload and CreateBucket, whose error says that it may have happened; [`Failure::Slow`] beyond the
//! limit. Nothing here damages bytes: stores check those.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::store::operation as op;
use crate::store::{
    Acl, AclTarget, Body, BucketEntry, BucketHead, BucketName, Condition, CopyHeaders, CopySource, DeleteFailure,
    Error, GetOptions, Key, Kind, ListPage, ListRequest, Location, NewAcl, ObjectBody, ObjectHead, ObjectHeaders, Part,
    PresignRequest, Result, Store, Written,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: [`Kind::Unreachable`], and nothing has happened.
    Refuse,
    /// [`Kind::ServerError`] before anything is done.
    ServerError,
    /// The body of a GET breaks with [`Kind::Interrupted`] after so many bytes. Other requests pass.
    CutBody(u64),
    /// The body of a GET stands still after so many bytes, and goes on after this time. Other requests pass.
    StallBody(u64, Duration),
    /// The request is carried out after this time.
    Slow(Duration),
    /// The request is carried out, and then answered with [`Kind::Interrupted`].
    DoneThenFailed,
}

/// Which calls go wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Each with this probability, 0 to 1.
    Chance(f64),
    /// The nth of the operation, counted from 1 since the store was made.
    Nth(u64),
}

/// A rule of failure; of several that fit a call, the first is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The S3 name of the operation (see [`crate::store::operation`]); `None` is any.
    pub operation: Option<&'static str>,
    /// Which of its calls.
    pub when: When,
    /// What happens to them.
    pub failure: Failure,
}

/// A store that fails by rule. See the module.
pub struct Fault {
    pub(super) inner: Arc<dyn Store>,
    seed: u64,
    state: Mutex<State>,
}

struct State {
    chance: fastrand::Rng,
    rules: Vec<Rule>,
    calls: BTreeMap<&'static str, u64>,
    injected: u64,
}

impl Fault {
    /// Fails as the rules say; the same seed and the same order of calls fail alike.
    pub fn new(inner: Arc<dyn Store>, seed: u64, rules: Vec<Rule>) -> Self {
        let chance = fastrand::Rng::with_seed(seed);
        Fault { inner, seed, state: Mutex::new(State { chance, rules, calls: BTreeMap::new(), injected: 0 }) }
    }

    /// The seed, for the message of a test that fails.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Replaces the rules from now on; calls stay counted.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).rules = rules;
    }

    /// How many failures were injected.
    pub fn injected(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).injected
    }

    /// How often an operation was called, failed calls included.
    pub fn calls(&self, operation: &str) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.get(operation).copied().unwrap_or_default()
    }

    fn draw(&self, operation: &'static str) -> Option<Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { chance, rules, calls, injected } = &mut *state;
        let call = calls.entry(operation).or_default();
        *call += 1;
        let hits = |rule: &&Rule| {
            rule.operation.is_none_or(|name| name == operation)
                && match rule.when {
                    When::Chance(probability) => chance.f64() < probability,
                    When::Nth(nth) => nth == *call,
                }
        };
        let failure = rules.iter().find(hits)?.failure;
        if matches!(failure, Failure::CutBody(_) | Failure::StallBody(..)) && operation != op::GET_OBJECT {
            return None;
        }
        *injected += 1;
        Some(failure)
    }

    fn error(&self, kind: Kind, operation: &'static str) -> Error {
        Error::new(kind, operation, "", format!("injected, seed {}", self.seed))
    }

    pub(super) async fn call<T>(&self, operation: &'static str, request: impl Future<Output = Result<T>>) -> Result<T> {
        match self.draw(operation) {
            Some(failure) => self.fail(failure, operation, request).await,
            None => request.await,
        }
    }

    async fn fail<T>(
        &self,
        failure: Failure,
        operation: &'static str,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match failure {
            Failure::Refuse => Err(self.error(Kind::Unreachable, operation)),
            Failure::ServerError => Err(self.error(Kind::ServerError, operation)),
            Failure::CutBody(_) | Failure::StallBody(..) => request.await,
            Failure::Slow(delay) => {
                tokio::time::sleep(delay).await;
                request.await
            }
            Failure::DoneThenFailed => {
                request.await?;
                Err(self.error(Kind::Interrupted, operation))
            }
        }
    }
}

/// Lets `bytes_left` bytes of a body pass, and then breaks it, also where it would have ended just there.
fn cut(body: Body, bytes_left: u64, error: Error) -> Body {
    let state = Some((body, bytes_left, error));
    Box::pin(stream::unfold(state, |state| async move {
        let (mut body, bytes_left, error) = state?;
        if bytes_left == 0 {
            return Some((Err(error), None));
        }
        match body.next().await? {
            Ok(mut piece) => {
                piece.truncate(usize::try_from(bytes_left).unwrap_or(usize::MAX));
                let bytes_left = bytes_left - piece.len() as u64;
                Some((Ok(piece), Some((body, bytes_left, error))))
            }
            Err(broken) => Some((Err(broken), None)),
        }
    }))
}

/// Lets `bytes_left` bytes of a body pass, and the rest after a delay.
fn stall(body: Body, bytes_left: u64, delay: Duration) -> Body {
    let state = (body, Some(bytes_left), None);
    Box::pin(stream::unfold(state, move |(mut body, bytes_left, held)| async move {
        if let Some(held) = held {
            tokio::time::sleep(delay).await;
            return Some((Ok(held), (body, None, None)));
        }
        match (body.next().await?, bytes_left) {
            (Ok(mut piece), Some(bytes_left)) if piece.len() as u64 > bytes_left => {
                let held = piece.split_off(bytes_left as usize);
                Some((Ok(piece), (body, None, Some(held))))
            }
            (Ok(piece), Some(bytes_left)) => {
                let bytes_left = bytes_left - piece.len() as u64;
                Some((Ok(piece), (body, Some(bytes_left), None)))
            }
            (piece, _) => Some((piece, (body, None, None))),
        }
    }))
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for Fault {
    async fn list_buckets(&self) -> Result<Vec<BucketEntry>> {
        self.call(op::LIST_BUCKETS, self.inner.list_buckets()).await
    }

    async fn create_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.call(op::CREATE_BUCKET, self.inner.create_bucket(bucket)).await
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<()> {
        self.call(op::DELETE_BUCKET, self.inner.delete_bucket(bucket)).await
    }

    async fn head_bucket(&self, bucket: &BucketName) -> Result<BucketHead> {
        self.call(op::HEAD_BUCKET, self.inner.head_bucket(bucket)).await
    }

    async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage> {
        self.call(op::LIST_OBJECTS, self.inner.list(bucket, request)).await
    }

    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
        self.call(op::HEAD_OBJECT, self.inner.head(location, version_id)).await
    }

    async fn get(&self, location: &Location, options: &GetOptions) -> Result<ObjectBody> {
        let failure = self.draw(op::GET_OBJECT);
        let request = self.inner.get(location, options);
        match failure {
            Some(Failure::CutBody(after_bytes)) => {
                let answer = request.await?;
                let error = self.error(Kind::Interrupted, op::GET_OBJECT);
                Ok(ObjectBody { body: cut(answer.body, after_bytes, error), ..answer })
            }
            Some(Failure::StallBody(after_bytes, delay)) => {
                let answer = request.await?;
                Ok(ObjectBody { body: stall(answer.body, after_bytes, delay), ..answer })
            }
            Some(failure) => self.fail(failure, op::GET_OBJECT, request).await,
            None => request.await,
        }
    }

    async fn put(
        &self,
        location: &Location,
        body: Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        self.call(op::PUT_OBJECT, self.inner.put(location, body, headers, condition)).await
    }

    async fn copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written> {
        self.call(op::COPY_OBJECT, self.inner.copy(source, to, headers)).await
    }

    async fn delete(&self, location: &Location, version_id: Option<&str>) -> Result<()> {
        self.call(op::DELETE_OBJECT, self.inner.delete(location, version_id)).await
    }

    async fn delete_many(&self, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        self.call(op::DELETE_OBJECTS, self.inner.delete_many(bucket, keys)).await
    }

    async fn create_upload(&self, location: &Location, headers: &ObjectHeaders) -> Result<String> {
        self.call(op::CREATE_MULTIPART_UPLOAD, self.inner.create_upload(location, headers)).await
    }

    async fn upload_part(&self, location: &Location, upload_id: &str, number: u32, body: Bytes) -> Result<Part> {
        self.call(op::UPLOAD_PART, self.inner.upload_part(location, upload_id, number, body)).await
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
        self.call(op::UPLOAD_PART_COPY, request).await
    }

    async fn complete_upload(
        &self,
        location: &Location,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        let request = self.inner.complete_upload(location, upload_id, parts, condition);
        self.call(op::COMPLETE_MULTIPART_UPLOAD, request).await
    }

    async fn abort_upload(&self, location: &Location, upload_id: &str) -> Result<()> {
        self.call(op::ABORT_MULTIPART_UPLOAD, self.inner.abort_upload(location, upload_id)).await
    }

    async fn get_acl(&self, target: &AclTarget) -> Result<Acl> {
        self.call(op::GET_ACL, self.inner.get_acl(target)).await
    }

    async fn put_acl(&self, target: &AclTarget, acl: &NewAcl) -> Result<()> {
        self.call(op::PUT_ACL, self.inner.put_acl(target, acl)).await
    }

    fn presign(&self, request: &PresignRequest) -> Result<String> {
        self.inner.presign(request)
    }

    fn url(&self, location: &Location) -> String {
        self.inner.url(location)
    }
}
