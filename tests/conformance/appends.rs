//! Checks of objects that grow, where the store has such.

use bytes::Bytes;
use dreamfs::store::append::etag_after;
use dreamfs::store::{
    AclHeaders, AclTarget, BucketName, CopyHeaders, CopySource, Kind, Location, ObjectHead, ObjectHeaders, Store,
};

use super::{Check, Expectations, at, checks, put, read, refused};

pub fn checks() -> Vec<(&'static str, Check)> {
    checks![objects_grow, only_what_grows_grows, a_copy_grows_under_one_name]
}

async fn append(store: &dyn Store, to: &Location, position: u64, piece: &'static str) -> dreamfs::store::Result<()> {
    store.append(to, position, Bytes::from(piece), &ObjectHeaders::default()).await
}

async fn head(store: &dyn Store, location: &Location) -> ObjectHead {
    store.head(location, None).await.unwrap()
}

/// The tag is a chain over the pieces; the headers and the ACL are those of the last append.
async fn objects_grow(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.appends {
        return;
    }
    let log = at(bucket, "d/a b+ü");
    let headers = |colour: &str| ObjectHeaders {
        content_type: Some("text/x-log".to_owned()),
        metadata: [("colour".to_owned(), colour.to_owned())].into(),
        acl: Some(AclHeaders::Canned("public-read".to_owned())),
        ..ObjectHeaders::default()
    };
    let (mut etag, mut all) = (None, Vec::new());
    for (piece, colour) in [("first", "red"), ("second", "blue"), ("x", "green")] {
        store.append(&log, all.len() as u64, Bytes::from(piece), &headers(colour)).await.unwrap();
        etag = etag_after(etag.as_ref(), piece.as_bytes());
        all.extend_from_slice(piece.as_bytes());
        let found = head(store, &log).await;
        assert_eq!((Some(&found.etag), found.size_bytes), (etag.as_ref(), all.len() as u64));
        assert_eq!((&found.headers, found.grows), (&headers(colour).seen(), Some(true)));
        assert_eq!(read(store, &log).await, all);
    }
    if what.object_acl {
        let acl = store.get_acl(&AclTarget::Object(log.clone())).await.unwrap();
        assert_eq!(acl.canned_name(), Some("public-read"));
    }
    append(store, &log, all.len() as u64, "!").await.unwrap();
    assert!(head(store, &log).await.headers.metadata.is_empty(), "its headers are replaced");
}

/// A wrong position and a plain object are refused, and leave what was there as it was. A store that takes an append for
/// a PUT says of no object whether it grows.
async fn only_what_grows_grows(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let (plain, log) = (at(bucket, "plain"), at(bucket, "log"));
    put(store, &plain, b"plain").await;
    if !what.appends {
        if !what.deferred {
            assert_eq!(head(store, &plain).await.grows, None);
        }
        return;
    }
    assert_eq!(head(store, &plain).await.grows, Some(false));
    assert_eq!(refused(append(store, &plain, 5, "!").await), Kind::PreconditionFailed);
    assert_eq!(refused(append(store, &log, 5, "!").await), Kind::PreconditionFailed, "there is none");
    append(store, &log, 0, "first").await.unwrap();
    for position in [0, 4, 6] {
        assert_eq!(refused(append(store, &log, position, "!").await), Kind::PreconditionFailed);
    }
    assert_eq!((read(store, &plain).await, read(store, &log).await), (b"plain".to_vec(), b"first".to_vec()));
    put(store, &log, b"first").await;
    assert_eq!(head(store, &log).await.grows, Some(false), "a PUT makes it plain");
}

/// A copy that keeps the headers grows as its source does, also when that is gone; both do not. One that replaces them
/// does not grow.
async fn a_copy_grows_under_one_name(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.appends {
        return;
    }
    let [source, copy, plain] = ["source", "copy", "plain"].map(|key| at(bucket, key));
    append(store, &source, 0, "one,").await.unwrap();
    append(store, &source, 4, "two,").await.unwrap();
    put(store, &copy, b"what is replaced").await;
    let from = CopySource { location: source.clone(), if_match: None };
    let keep = CopyHeaders::Keep { acl: None, storage_class: None };
    let copied = store.copy(&from, &copy, &keep).await.unwrap();
    store.copy(&from, &plain, &CopyHeaders::Replace(ObjectHeaders::default())).await.unwrap();
    assert_eq!(copied.etag, head(store, &source).await.etag);
    assert_eq!((head(store, &copy).await.grows, head(store, &plain).await.grows), (Some(true), Some(false)));
    append(store, &copy, 8, "three").await.unwrap();
    assert_eq!(refused(append(store, &source, 8, "three").await), Kind::AlreadyExists);
    store.delete(&source, None).await.unwrap();
    append(store, &copy, 13, "!").await.unwrap();
    assert_eq!(read(store, &copy).await, b"one,two,three!");
    assert_eq!(read(store, &plain).await, b"one,two,");
}
