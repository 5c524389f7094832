//! Checks of tags: set with an object or after it, kept by copies.

use bytes::Bytes;
use dreamfs::store::{BucketName, Condition, CopyHeaders, CopySource, Kind, Location, ObjectHeaders, Store, Tag, Tags};

use super::{Check, Expectations, at, checks, put, put_with, refused};

pub fn checks() -> Vec<(&'static str, Check)> {
    checks![tags_are_set_with_and_after_the_object, tags_of_copies, tags_of_missing_things]
}

fn tags(pairs: &[(&str, &str)]) -> Vec<Tag> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn tagged(tags: &[Tag]) -> ObjectHeaders {
    ObjectHeaders { tags: Tags::Are(tags.to_vec()), ..ObjectHeaders::default() }
}

async fn sorted(store: &dyn Store, location: &Location) -> Vec<Tag> {
    let mut tags = store.get_tags(location).await.unwrap();
    tags.sort();
    tags
}

async fn seen(store: &dyn Store, location: &Location) -> Tags {
    store.head(location, None).await.unwrap().headers.tags
}

async fn tags_are_set_with_and_after_the_object(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let location = at(bucket, "a b+ü");
    let first = tags(&[("colour", "dark blue"), ("k=&", "x/y+z%41 ü")]);
    put_with(store, &location, b"x", &tagged(&first)).await;
    assert_eq!((sorted(store, &location).await, seen(store, &location).await), (first, Tags::Untold));
    let second = tags(&[("<a> & \"b\"", "")]);
    store.put_tags(&location, &second).await.unwrap();
    assert_eq!(sorted(store, &location).await, second);
    store.put_tags(&location, &[]).await.unwrap();
    assert_eq!((sorted(store, &location).await, seen(store, &location).await), (vec![], Tags::None));
    store.put_tags(&location, &second).await.unwrap();
    put(store, &location, b"a new version has none").await;
    assert_eq!((sorted(store, &location).await, seen(store, &location).await), (vec![], Tags::None));
}

async fn tags_of_copies(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    let (from, to) = (at(bucket, "from"), at(bucket, "to"));
    let (old, new) = (tags(&[("a", "1"), ("b", "2")]), tags(&[("c", "3")]));
    put_with(store, &from, b"x", &tagged(&old)).await;
    let source = CopySource { location: from.clone(), if_match: None };
    store.copy(&source, &to, &CopyHeaders::Keep { acl: None, storage_class: None }).await.unwrap();
    assert_eq!(sorted(store, &to).await, old, "kept with the other headers");
    let riding = if what.tags_ride { new.clone() } else { vec![] };
    store.copy(&source, &from, &CopyHeaders::Replace(tagged(&new))).await.unwrap();
    assert_eq!(sorted(store, &from).await, riding, "onto itself");
    let id = store.create_upload(&to, &tagged(&new)).await.unwrap();
    let part = store.upload_part(&to, &id, 1, Bytes::from("x")).await.unwrap();
    store.complete_upload(&to, &id, &[part], &Condition::None).await.unwrap();
    assert_eq!(sorted(store, &to).await, riding, "of parts");
}

async fn tags_of_missing_things(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let missing = at(bucket, "missing");
    assert_eq!(refused(store.get_tags(&missing).await), Kind::NotFound);
    assert_eq!(refused(store.put_tags(&missing, &tags(&[("a", "1")])).await), Kind::NotFound);
}
