//! Checks of whole objects: put, get, head, ranges, conditions, copies, deletes, buckets, links.

use std::collections::BTreeMap;

use bytes::Bytes;
use dreamfs::store::{
    BucketName, Condition, CopyHeaders, CopySource, ETag, GetOptions, Key, Kind, LinkMethod, ListRequest, Location,
    ObjectHeaders, PresignRequest, Store, Tags,
};

use super::{Check, Expectations, LINK_LIFETIME, at, checks, collect, pattern, put, put_with, read, refused};

pub fn checks() -> Vec<(&'static str, Check)> {
    checks![
        put_then_get_and_head,
        empty_object,
        put_replaces_whole,
        ranges,
        get_if_match,
        missing_things_have_their_kinds,
        put_if_absent,
        put_if_match,
        metadata_over_the_limit,
        copy_keeps_or_replaces,
        copy_onto_itself_replaces_headers,
        copy_if_match,
        delete_is_idempotent,
        delete_many_deletes_odd_names,
        buckets_come_and_go,
        full_bucket_stays,
        links,
    ]
}

fn headers() -> ObjectHeaders {
    ObjectHeaders {
        content_type: Some("text/x-check".to_owned()),
        cache_control: Some("max-age=60".to_owned()),
        content_disposition: Some("attachment; filename=\"a b\"".to_owned()),
        content_encoding: Some("x-check".to_owned()),
        content_language: Some("de".to_owned()),
        expires: Some("Thu, 01 Dec 2033 16:00:00 GMT".to_owned()),
        encryption: None,
        storage_class: None,
        metadata: BTreeMap::from([
            ("mode".to_owned(), "33188".to_owned()),
            ("some-name".to_owned(), "a b%20c".to_owned()),
        ]),
        tags: Tags::None,
        acl: None,
    }
}

/// Whether the answer has these headers; a store may add a content type or name its default storage class.
fn assert_headers(found: &ObjectHeaders, expected: &ObjectHeaders) {
    let content_type = expected.content_type.clone().or(found.content_type.clone());
    let storage_class = found.storage_class.clone();
    assert_eq!(*found, ObjectHeaders { content_type, storage_class, acl: None, ..expected.clone() });
}

async fn put_then_get_and_head(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "a/b c.txt");
    let bytes = pattern(200_000);
    let etag = put_with(store, &location, &bytes, &headers()).await;
    assert!(!etag.as_str().contains('"'));
    let head = store.head(&location, None).await.unwrap();
    assert_eq!((head.size_bytes, &head.etag), (200_000, &etag));
    assert_headers(&head.headers, &headers());
    let answer = store.get(&location, &GetOptions::default()).await.unwrap();
    assert_eq!(answer.range, 0..200_000);
    assert_eq!((answer.head.size_bytes, &answer.head.etag), (200_000, &etag));
    assert_eq!(answer.head.modified, head.modified);
    assert_headers(&answer.head.headers, &headers());
    assert!(collect(answer).await.unwrap() == bytes);
}

async fn empty_object(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "empty");
    put(store, &location, b"").await;
    assert_eq!(store.head(&location, None).await.unwrap().size_bytes, 0);
    let answer = store.get(&location, &GetOptions::default()).await.unwrap();
    assert_eq!(answer.range, 0..0);
    assert_eq!(collect(answer).await.unwrap(), b"");
    put(store, &at(bucket, "marker/"), b"").await;
    assert_eq!(store.head(&at(bucket, "marker/"), None).await.unwrap().size_bytes, 0);
    assert_eq!(refused(store.head(&at(bucket, "marker"), None).await), Kind::NotFound);
}

async fn put_replaces_whole(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "twice");
    let first = put_with(store, &location, b"longer than the next", &headers()).await;
    let second = put(store, &location, b"short").await;
    assert_ne!(first, second);
    assert_eq!(read(store, &location).await, b"short");
    let head = store.head(&location, None).await.unwrap();
    assert!(head.headers.metadata.is_empty() && head.headers.cache_control.is_none(), "{head:?}");
}

async fn ranges(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "ranges");
    let bytes = pattern(100_000);
    put(store, &location, &bytes).await;
    for (asked, given) in [
        (0..1, 0..1),
        (99_999..100_000, 99_999..100_000),
        (0..100_000, 0..100_000),
        (500..70_000, 500..70_000),
        (99_000..200_000, 99_000..100_000),
    ] {
        let options = GetOptions { range: Some(asked.clone()), ..GetOptions::default() };
        let answer = store.get(&location, &options).await.unwrap_or_else(|error| panic!("{asked:?}: {error}"));
        assert_eq!(answer.range, given, "{asked:?}");
        assert_eq!(answer.head.size_bytes, 100_000, "{asked:?}: the size is the whole object's");
        assert!(collect(answer).await.unwrap() == bytes[given.start as usize..given.end as usize], "{asked:?}");
    }
    let options = GetOptions { range: Some(100_000..100_001), ..GetOptions::default() };
    assert_eq!(refused(store.get(&location, &options).await), Kind::BadRange);
}

async fn get_if_match(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "matched");
    let etag = put(store, &location, b"one").await;
    let options = GetOptions { if_match: Some(etag), range: Some(1..3), ..GetOptions::default() };
    assert_eq!(collect(store.get(&location, &options).await.unwrap()).await.unwrap(), b"ne");
    put(store, &location, b"two").await;
    assert_eq!(refused(store.get(&location, &options).await), Kind::PreconditionFailed);
}

async fn missing_things_have_their_kinds(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let missing = at(bucket, "missing");
    assert_eq!(refused(store.head(&missing, None).await), Kind::NotFound);
    assert_eq!(refused(store.get(&missing, &GetOptions::default()).await), Kind::NotFound);
    let source = CopySource { location: missing.clone(), if_match: None };
    let keep = CopyHeaders::Keep { acl: None, storage_class: None };
    assert_eq!(refused(store.copy(&source, &at(bucket, "to"), &keep).await), Kind::NotFound);

    let nowhere = BucketName::new("dreamfs-no-such-bucket-anywhere").unwrap();
    let lost = Location { bucket: nowhere.clone(), key: missing.key.clone() };
    let gone = |kind| matches!(kind, Kind::NoSuchBucket | Kind::NotFound);
    assert!(gone(refused(store.head_bucket(&nowhere).await)));
    assert!(gone(refused(store.head(&lost, None).await)), "HEAD has no body to say more");
    assert_eq!(refused(store.get(&lost, &GetOptions::default()).await), Kind::NoSuchBucket);
    assert_eq!(refused(store.list(&nowhere, &ListRequest::default()).await), Kind::NoSuchBucket);
    if !what.deferred {
        let answer = store.put(&lost, Bytes::new(), &ObjectHeaders::default(), &Condition::None).await;
        assert_eq!(refused(answer), Kind::NoSuchBucket);
    }
    assert_eq!(refused(store.delete_bucket(&nowhere).await), Kind::NoSuchBucket);
}

async fn put_if_absent(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.conditions {
        return;
    }
    let (location, plain) = (at(bucket, "once"), ObjectHeaders::default());
    store.put(&location, Bytes::from("first"), &plain, &Condition::IfAbsent).await.unwrap();
    let again = store.put(&location, Bytes::from("second"), &plain, &Condition::IfAbsent).await;
    assert_eq!(refused(again), Kind::PreconditionFailed);
    assert_eq!(read(store, &location).await, b"first");
}

async fn put_if_match(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.conditions {
        return;
    }
    let (location, plain) = (at(bucket, "update"), ObjectHeaders::default());
    let first = Condition::IfMatch(put(store, &location, b"first").await);
    store.put(&location, Bytes::from("second"), &plain, &first).await.unwrap();
    let stale = store.put(&location, Bytes::from("third"), &plain, &first).await;
    assert_eq!(refused(stale), Kind::PreconditionFailed);
    assert_eq!(read(store, &location).await, b"second");
    if what.deferred {
        return;
    }
    let absent = store.put(&at(bucket, "absent"), Bytes::new(), &plain, &first).await;
    assert!(matches!(refused(absent), Kind::PreconditionFailed | Kind::NotFound));
}

async fn metadata_over_the_limit(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let location = at(bucket, "metadata");
    let with = |length| {
        let metadata = BTreeMap::from([("long".to_owned(), "x".repeat(length))]);
        ObjectHeaders { metadata, ..ObjectHeaders::default() }
    };
    put_with(store, &location, b"", &with(2000)).await;
    let found = store.head(&location, None).await.unwrap().headers;
    assert_eq!(found.metadata, with(2000).metadata);
    if what.metadata_bound {
        let answer = store.put(&location, Bytes::new(), &with(2100), &Condition::None).await;
        assert_eq!(refused(answer), Kind::TooLarge);
    }
}

async fn copy_keeps_or_replaces(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let (from, to) = (at(bucket, "from + %41 ü?&#=.txt"), at(bucket, "to/ä b"));
    put_with(store, &from, b"copied", &headers()).await;
    let source = CopySource { location: from.clone(), if_match: None };
    let keep = CopyHeaders::Keep { acl: None, storage_class: None };
    let written = store.copy(&source, &to, &keep).await.unwrap();
    let head = store.head(&to, None).await.unwrap();
    assert_eq!(head.etag, written.etag);
    assert_headers(&head.headers, &headers());
    assert_eq!(read(store, &to).await, b"copied");

    let metadata = BTreeMap::from([("other".to_owned(), "value".to_owned())]);
    let new = ObjectHeaders { content_type: Some("text/new".to_owned()), metadata, ..ObjectHeaders::default() };
    store.copy(&source, &to, &CopyHeaders::Replace(new.clone())).await.unwrap();
    assert_headers(&store.head(&to, None).await.unwrap().headers, &new);
    assert_eq!(read(store, &to).await, b"copied");
    assert_headers(&store.head(&from, None).await.unwrap().headers, &headers());
}

async fn copy_onto_itself_replaces_headers(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "itself");
    put_with(store, &location, b"same bytes", &headers()).await;
    let metadata = BTreeMap::from([("mode".to_owned(), "33261".to_owned())]);
    let new = ObjectHeaders { metadata, ..headers() };
    let source = CopySource { location: location.clone(), if_match: None };
    store.copy(&source, &location, &CopyHeaders::Replace(new.clone())).await.unwrap();
    assert_headers(&store.head(&location, None).await.unwrap().headers, &new);
    assert_eq!(read(store, &location).await, b"same bytes");
}

async fn copy_if_match(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let (from, to) = (at(bucket, "from"), at(bucket, "to"));
    let etag = put(store, &from, b"one").await;
    let keep = CopyHeaders::Keep { acl: None, storage_class: None };
    let source = CopySource { location: from.clone(), if_match: Some(etag) };
    store.copy(&source, &to, &keep).await.unwrap();
    assert_eq!(read(store, &to).await, b"one");
    if what.copy_if_match {
        let source = CopySource { location: from, if_match: Some(ETag::new("0123456789abcdef0123456789abcdef")) };
        assert_eq!(refused(store.copy(&source, &to, &keep).await), Kind::PreconditionFailed);
    }
}

async fn delete_is_idempotent(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "deleted");
    put(store, &location, b"x").await;
    store.delete(&location, None).await.unwrap();
    assert_eq!(refused(store.head(&location, None).await), Kind::NotFound);
    store.delete(&location, None).await.unwrap();
}

async fn delete_many_deletes_odd_names(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let names = super::listing::odd_names(what);
    for name in &names {
        put(store, &at(bucket, name), b"x").await;
    }
    put(store, &at(bucket, "stays"), b"x").await;
    let absent = Key::new("was never there").unwrap();
    let keys: Vec<Key> = names.iter().map(|name| Key::new(name).unwrap()).chain([absent]).collect();
    let failures = store.delete_many(bucket, &keys).await.unwrap();
    assert!(failures.is_empty(), "{failures:?}");
    let page = store.list(bucket, &ListRequest::default()).await.unwrap();
    assert_eq!(page.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["stays"]);
}

async fn buckets_come_and_go(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let listed = |entries: Vec<dreamfs::store::BucketEntry>| {
        assert!(entries.is_sorted_by(|one, next| one.name < next.name), "{entries:?}");
        entries.into_iter().any(|entry| entry.name == *bucket)
    };
    assert!(listed(store.list_buckets().await.unwrap()));
    store.head_bucket(bucket).await.unwrap();
    match store.create_bucket(bucket).await {
        Ok(()) => assert!(what.own_bucket_again_is_ok, "creating it again was answered with Ok"),
        Err(error) => assert_eq!((error.kind, what.own_bucket_again_is_ok), (Kind::AlreadyExists, false)),
    }
    store.delete_bucket(bucket).await.unwrap();
    assert!(!listed(store.list_buckets().await.unwrap()));
}

async fn full_bucket_stays(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    put(store, &at(bucket, "inside"), b"x").await;
    assert_eq!(refused(store.delete_bucket(bucket).await), Kind::NotEmpty);
    assert_eq!(read(store, &at(bucket, "inside")).await, b"x");
    if let Some(count) = store.head_bucket(bucket).await.unwrap().object_count {
        // Stores that keep statistics may be late with them.
        assert!(count <= 1, "{count}");
    }
}

async fn links(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let location = at(bucket, "dir/a b?c#d%41.txt");
    let url = store.url(&location);
    assert!(url.ends_with("/dir/a%20b%3Fc%23d%2541.txt"), "{url}");
    assert!(url.contains(bucket.as_str()), "{url}");
    if what.presign {
        let signed = store.presign(&PresignRequest {
            location,
            method: LinkMethod::Get,
            expires: LINK_LIFETIME,
            download_name: None,
        });
        let signed = signed.unwrap();
        assert!(signed.starts_with(&url), "{signed}");
        assert!(signed.contains("Signature=") && signed.contains("xpires=3600"), "{signed}");
    }
}
