//! One suite for everything that is a [`Store`]: what the trait promises, checked against any implementation.
//!
//! To run it over another store call [`run_all`] with what is to be expected of it; the account needs no bucket, each
//! check makes its own and removes it. All checks run, and those that fail are named together.

#![expect(clippy::unwrap_used, reason = "a check that cannot go on has failed")]

mod acls;
mod appends;
mod listing;
mod objects;
pub mod real;
mod stacks;
mod tags;
mod uploads;
mod versions;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dreamfs::store::{
    BucketName, Condition, ETag, Error, GetOptions, Key, Kind, ListRequest, Location, ObjectBody, ObjectHeaders,
    Result, Store,
};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};

/// What differs between good stores.
#[derive(Clone, Copy, Debug)]
pub struct Expectations {
    /// Objects have ACLs of their own, which can be read and replaced.
    pub object_acl: bool,
    /// Grants to single accounts and groups can be set, beyond canned names.
    pub grants: bool,
    /// Tags ride on copies and uploads of parts too.
    pub tags_ride: bool,
    /// Creating a bucket that one owns already is answered with Ok.
    pub own_bucket_again_is_ok: bool,
    /// A change is answered before the store has seen it: what only the store can refuse is refused later.
    pub deferred: bool,
    /// PUT honours If-None-Match and If-Match.
    pub conditions: bool,
    /// CompleteMultipartUpload honours them too.
    pub complete_conditions: bool,
    /// A copy honours If-Match on its source.
    pub copy_if_match: bool,
    /// Keys may hold the control characters tab, newline and carriage return.
    pub control_characters: bool,
    /// Part numbers over 10,000, and uploads that were given up, are refused as S3 documents it. RGW 16.2 takes the
    /// former and fails inside on the latter.
    pub strict_uploads: bool,
    /// User metadata over 2 KiB is refused.
    pub metadata_bound: bool,
    /// A GET without a signature is possible with the answer of presign.
    pub presign: bool,
    /// Objects can grow.
    pub appends: bool,
    /// Every part but the last must have so many bytes.
    pub part_bytes_min: usize,
}

impl Default for Expectations {
    /// What Amazon S3 documents.
    fn default() -> Self {
        Expectations {
            object_acl: true,
            grants: true,
            tags_ride: true,
            own_bucket_again_is_ok: false,
            deferred: false,
            conditions: true,
            complete_conditions: true,
            copy_if_match: true,
            control_characters: true,
            strict_uploads: true,
            metadata_bound: true,
            presign: true,
            appends: false,
            part_bytes_min: 5 << 20,
        }
    }
}

/// One check: a store, a bucket of its own, and what to expect.
type Check = for<'a> fn(&'a dyn Store, &'a BucketName, &'a Expectations) -> BoxFuture<'a, ()>;

/// `checks![one, two]` is a list of (name, check).
macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        vec![$({
            let check: crate::conformance::Check = |store, bucket, what| Box::pin($name(store, bucket, what));
            (stringify!($name), check)
        }),*]
    };
}
pub(crate) use checks;

/// Runs every check, each in a fresh bucket, and panics with the names of those that failed.
pub async fn run_all(store: Arc<dyn Store>, what: Expectations) {
    let checks = [
        objects::checks(),
        listing::checks(),
        uploads::checks(),
        acls::checks(),
        tags::checks(),
        versions::checks(),
        appends::checks(),
    ]
    .concat();
    let mut failed = Vec::new();
    for (name, check) in checks {
        let bucket = fresh_bucket_name(name);
        store.create_bucket(&bucket).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let outcome = AssertUnwindSafe(check(&*store, &bucket, &what)).catch_unwind().await;
        if let Err(panic) = outcome {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            failed.push(format!("{name}: {}", said.unwrap_or_default()));
        }
        remove_bucket(&*store, &bucket).await.unwrap_or_else(|error| panic!("{name}, cleaning up: {error}"));
    }
    assert!(failed.is_empty(), "{} checks failed:\n{}", failed.len(), failed.join("\n"));
}

/// A name that no other run has.
fn fresh_bucket_name(check: &str) -> BucketName {
    let tail: String = std::iter::repeat_with(fastrand::alphanumeric).take(8).collect();
    let check: String = check.replace('_', "-").chars().take(40).collect();
    let check = check.trim_end_matches('-');
    BucketName::new(&format!("dreamfs-{check}-{}", tail.to_lowercase())).expect("letters, digits and dashes")
}

/// Deletes all that a check left, and the bucket.
async fn remove_bucket(store: &dyn Store, bucket: &BucketName) -> Result<()> {
    loop {
        let page = match store.list(bucket, &ListRequest::default()).await {
            Err(error) if error.kind == Kind::NoSuchBucket => return Ok(()),
            page => page?,
        };
        for object in &page.objects {
            let location = at(bucket, &object.key);
            store.delete(&location, None).await?;
        }
        if page.continuation.is_none() {
            return store.delete_bucket(bucket).await;
        }
    }
}

/// An object of a bucket.
fn at(bucket: &BucketName, key: &str) -> Location {
    Location { bucket: bucket.clone(), key: Key::new(key).expect("checks use keys that paths can name") }
}

/// Stores an object without headers and conditions.
async fn put(store: &dyn Store, location: &Location, bytes: &[u8]) -> ETag {
    put_with(store, location, bytes, &ObjectHeaders::default()).await
}

async fn put_with(store: &dyn Store, location: &Location, bytes: &[u8], headers: &ObjectHeaders) -> ETag {
    let body = Bytes::copy_from_slice(bytes);
    let written = store.put(location, body, headers, &Condition::None).await;
    written.unwrap_or_else(|error| panic!("PUT {location:?}: {error}")).etag
}

/// All bytes of an answer.
async fn collect(answer: ObjectBody) -> Result<Vec<u8>> {
    answer
        .body
        .try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

/// All bytes of an object.
async fn read(store: &dyn Store, location: &Location) -> Vec<u8> {
    let answer = store.get(location, &GetOptions::default()).await;
    let answer = answer.unwrap_or_else(|error| panic!("GET {location:?}: {error}"));
    collect(answer).await.unwrap_or_else(|error| panic!("body of {location:?}: {error}"))
}

/// Bytes that repeat late, so that a part in the wrong place is seen.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect()
}

/// The kind of the error that was expected.
fn refused<T>(answer: Result<T>) -> Kind {
    match answer {
        Ok(_) => panic!("it was answered with Ok"),
        Err(Error { kind, .. }) => kind,
    }
}

/// A link's lifetime in checks.
const LINK_LIFETIME: Duration = Duration::from_secs(3600);
