//! Checks of multipart uploads.

use std::collections::BTreeMap;

use bytes::Bytes;
use dreamfs::store::versions::{ListedPart, PartsPage};
use dreamfs::store::{BucketName, Condition, CopySource, ETag, Kind, Location, ObjectHeaders, Part, Store};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::real::stack;
use super::{Check, Expectations, at, checks, fresh_bucket_name, pattern, put, read, refused};
use crate::harness::{Kind as Rigs, Rig};

pub fn checks() -> Vec<(&'static str, Check)> {
    checks![
        parts_make_an_object,
        part_can_be_sent_again,
        parts_can_be_copied_by_range,
        small_part_in_the_middle,
        wrong_parts_are_refused,
        abort_forgets,
        complete_twice,
        complete_if_absent,
        parts_are_listed,
    ]
}

fn plain() -> ObjectHeaders {
    ObjectHeaders::default()
}

async fn parts_make_an_object(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let location = at(bucket, "big file +.bin");
    let metadata = BTreeMap::from([("mode".to_owned(), "33188".to_owned())]);
    let headers = ObjectHeaders { content_type: Some("text/x-check".to_owned()), metadata, ..plain() };
    let bytes = pattern(what.part_bytes_min * 2 + 12_345);
    let id = store.create_upload(&location, &headers).await.unwrap();
    assert_eq!(refused(store.head(&location, None).await), Kind::NotFound, "nothing is there before it is complete");
    let mut parts = Vec::new();
    // Sent last first: the numbers give the order.
    for (number, piece) in (1..).zip(bytes.chunks(what.part_bytes_min)).collect::<Vec<_>>().into_iter().rev() {
        parts.push(store.upload_part(&location, &id, number, Bytes::copy_from_slice(piece)).await.unwrap());
    }
    parts.reverse();
    let written = store.complete_upload(&location, &id, &parts, &Condition::None).await.unwrap();
    let head = store.head(&location, None).await.unwrap();
    assert_eq!((head.size_bytes, &head.etag), (bytes.len() as u64, &written.etag));
    assert!(head.etag.as_str().ends_with("-3"), "{}", head.etag);
    assert_eq!((head.headers.content_type, head.headers.metadata), (headers.content_type, headers.metadata));
    assert!(read(store, &location).await == bytes);
}

async fn part_can_be_sent_again(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "again");
    let id = store.create_upload(&location, &plain()).await.unwrap();
    store.upload_part(&location, &id, 1, Bytes::from("first try")).await.unwrap();
    let part = store.upload_part(&location, &id, 1, Bytes::from("second")).await.unwrap();
    store.complete_upload(&location, &id, &[part], &Condition::None).await.unwrap();
    assert_eq!(read(store, &location).await, b"second");
}

/// The parts of an upload, page after page.
async fn all_parts(store: &dyn Store, location: &Location, id: &str) -> Vec<ListedPart> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_parts(location, id, after).await.unwrap();
        all.extend(page.parts);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

async fn parts_are_listed(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "listed ü?");
    let id = store.create_upload(&location, &plain()).await.unwrap();
    assert_eq!(store.list_parts(&location, &id, None).await.unwrap(), PartsPage::default(), "it has none yet");
    let mut sent = Vec::new();
    for (number, body) in [(1, "one"), (2, "too"), (2, "second"), (7, "seventh")] {
        let part = store.upload_part(&location, &id, number, Bytes::from(body)).await.unwrap();
        sent.retain(|one: &ListedPart| one.part.number != number);
        sent.push(ListedPart { part, size_bytes: body.len() as u64 });
    }
    assert_eq!(all_parts(store, &location, &id).await, sent);
    assert_eq!(store.list_parts(&location, &id, Some(2)).await.unwrap().parts, sent[2..]);
    assert!(store.list_parts(&location, &id, Some(7)).await.unwrap().parts.is_empty());
    store.abort_upload(&location, &id).await.unwrap();
    assert_eq!(refused(store.list_parts(&location, &id, None).await), Kind::NotFound);
}

async fn parts_can_be_copied_by_range(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let (from, to) = (at(bucket, "from ü?"), at(bucket, "to"));
    let bytes = pattern(what.part_bytes_min + 1000);
    let etag = put(store, &from, &bytes).await;
    let source = CopySource { location: from.clone(), if_match: Some(etag) };
    let id = store.create_upload(&to, &plain()).await.unwrap();
    let length = what.part_bytes_min as u64;
    let first = store.upload_part_copy(&to, &id, 1, &source, 10..10 + length).await.unwrap();
    let second = store.upload_part(&to, &id, 2, Bytes::from("tail")).await.unwrap();
    if !what.deferred {
        let beyond = store.upload_part_copy(&to, &id, 3, &source, 0..length * 2).await;
        assert!(matches!(refused(beyond), Kind::BadRange | Kind::BadRequest));
    }
    store.complete_upload(&to, &id, &[first, second], &Condition::None).await.unwrap();
    let expected = [&bytes[10..10 + what.part_bytes_min], b"tail"].concat();
    assert!(read(store, &to).await == expected);

    // A part of one byte, as the last of an upload.
    let id = store.create_upload(&to, &plain()).await.unwrap();
    let only = store.upload_part_copy(&to, &id, 1, &source, 999..1000).await.unwrap();
    store.complete_upload(&to, &id, &[only], &Condition::None).await.unwrap();
    assert_eq!(read(store, &to).await, &bytes[999..1000]);
}

async fn small_part_in_the_middle(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if what.deferred {
        return;
    }
    let location = at(bucket, "small");
    let id = store.create_upload(&location, &plain()).await.unwrap();
    let first = store.upload_part(&location, &id, 1, Bytes::from("too small")).await.unwrap();
    let second = store.upload_part(&location, &id, 2, Bytes::from("last")).await.unwrap();
    let answer = store.complete_upload(&location, &id, &[first, second], &Condition::None).await;
    assert_eq!(refused(answer), Kind::BadRequest);
    assert_eq!(refused(store.head(&location, None).await), Kind::NotFound);
    store.abort_upload(&location, &id).await.unwrap();
}

async fn wrong_parts_are_refused(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let location = at(bucket, "wrong");
    let id = store.create_upload(&location, &plain()).await.unwrap();
    let part = store.upload_part(&location, &id, 1, Bytes::from("x")).await.unwrap();
    let wrong_tag = Part { number: 1, etag: ETag::new("0123456789abcdef0123456789abcdef") };
    let unknown = Part { number: 2, ..part.clone() };
    for parts in [vec![wrong_tag], vec![unknown.clone()], vec![unknown, part]] {
        let answer = store.complete_upload(&location, &id, &parts, &Condition::None).await;
        assert_eq!(refused(answer), Kind::BadRequest, "{parts:?}");
    }
    if what.strict_uploads {
        let beyond = store.upload_part(&location, &id, 10_001, Bytes::from("x")).await;
        assert_eq!(refused(beyond), Kind::BadRequest);
    }
    store.abort_upload(&location, &id).await.unwrap();
}

async fn abort_forgets(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let location = at(bucket, "aborted");
    put(store, &location, b"old").await;
    let id = store.create_upload(&location, &plain()).await.unwrap();
    let part = store.upload_part(&location, &id, 1, Bytes::from("new")).await.unwrap();
    store.abort_upload(&location, &id).await.unwrap();
    store.abort_upload(&location, &id).await.expect("to abort again is Ok");
    let answer = store.complete_upload(&location, &id, &[part], &Condition::None).await;
    let kind = refused(answer);
    if what.strict_uploads {
        assert_eq!(kind, Kind::NotFound);
        assert_eq!(refused(store.upload_part(&location, &id, 1, Bytes::from("x")).await), Kind::NotFound);
    }
    assert_eq!(read(store, &location).await, b"old");
}

async fn complete_twice(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "twice");
    let id = store.create_upload(&location, &plain()).await.unwrap();
    let parts = [store.upload_part(&location, &id, 1, Bytes::from("done")).await.unwrap()];
    let written = store.complete_upload(&location, &id, &parts, &Condition::None).await.unwrap();
    match store.complete_upload(&location, &id, &parts, &Condition::None).await {
        Ok(again) => assert_eq!(again.etag, written.etag),
        Err(error) => assert_eq!(error.kind, Kind::NotFound),
    }
    assert_eq!(read(store, &location).await, b"done");
}

async fn complete_if_absent(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.complete_conditions {
        return;
    }
    let location = at(bucket, "raced");
    let id = store.create_upload(&location, &plain()).await.unwrap();
    let parts = [store.upload_part(&location, &id, 1, Bytes::from("ours")).await.unwrap()];
    put(store, &location, b"theirs").await;
    let answer = store.complete_upload(&location, &id, &parts, &Condition::IfAbsent).await;
    assert_eq!(refused(answer), Kind::PreconditionFailed);
    assert_eq!(read(store, &location).await, b"theirs");
    store.abort_upload(&location, &id).await.unwrap();
}

/// Stores list a thousand parts at once.
#[tokio::test]
async fn the_parts_of_a_long_upload_are_listed_page_by_page() {
    for kind in [Rigs::Embedded, Rigs::Rgw] {
        let Some(rig) = Rig::start(kind, "the_parts_of_a_long_upload_are_listed_page_by_page") else { continue };
        let store = stack(&rig.endpoint);
        let bucket = fresh_bucket_name("pages_of_parts");
        store.create_bucket(&bucket).await.unwrap();
        let location = at(&bucket, "long");
        let id = store.create_upload(&location, &plain()).await.unwrap();
        let parts = (1..=1003).map(|number| store.upload_part(&location, &id, number, Bytes::from("x")));
        stream::iter(parts).buffer_unordered(8).try_collect::<Vec<_>>().await.unwrap();
        let page = store.list_parts(&location, &id, None).await.unwrap();
        assert_eq!((page.parts.len(), page.next), (1000, Some(1000)));
        let numbers = all_parts(&*store, &location, &id).await.into_iter().map(|one| one.part.number);
        assert!(numbers.eq(1..=1003));
        store.abort_upload(&location, &id).await.unwrap();
        store.delete_bucket(&bucket).await.unwrap();
    }
}
