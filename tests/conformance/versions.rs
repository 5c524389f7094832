//! Versions and uploads under way, of a bucket that keeps no versions; what a versioned one keeps is checked on RGW.

use bytes::Bytes;
use dreamfs::store::versions::{ListedVersion, VersionName, VersionsRequest};
use dreamfs::store::{BucketName, Condition, GetOptions, Kind, ListRequest, ObjectHeaders, Store};

use super::real::stack;
use super::{Check, Expectations, at, checks, collect, fresh_bucket_name, put, refused};
use crate::harness::{Kind as Rigs, Rig};

pub fn checks() -> Vec<(&'static str, Check)> {
    checks![an_unversioned_bucket_lists_what_it_holds, uploads_under_way_are_listed, what_is_at_hand_is_not_restored]
}

/// All versions of a bucket, page after page.
async fn versions(store: &dyn Store, bucket: &BucketName, prefix: &str) -> Vec<ListedVersion> {
    let mut request = VersionsRequest { prefix: prefix.to_owned(), ..VersionsRequest::default() };
    let mut all = Vec::new();
    loop {
        let page = store.list_versions(bucket, &request).await.unwrap();
        all.extend(page.versions);
        request.after = page.next;
        if request.after.is_none() {
            return all;
        }
    }
}

async fn an_unversioned_bucket_lists_what_it_holds(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if what.deferred {
        return;
    }
    assert!(!store.is_versioned(bucket).await.unwrap());
    for key in ["a b", "d/x", "d/y", "e"] {
        put(store, &at(bucket, key), b"123").await;
    }
    let all = versions(store, bucket, "").await;
    let named: Vec<_> = all.iter().map(|version| (version.name.key.as_str(), version.size_bytes)).collect();
    assert_eq!(named, [("a b", 3), ("d/x", 3), ("d/y", 3), ("e", 3)]);
    assert!(all.iter().all(|version| version.is_latest && !version.is_delete_marker));
    let folded = VersionsRequest { delimited: true, ..VersionsRequest::default() };
    assert_eq!(store.list_versions(bucket, &folded).await.unwrap().prefixes, ["d/"]);
    let mut names: Vec<VersionName> =
        all.into_iter().map(|version| version.name).filter(|name| name.key != "e").collect();
    names.push(VersionName { key: "never there".into(), version_id: "null".into() });
    assert!(store.delete_versions(bucket, &names).await.unwrap().is_empty());
    let left = store.list(bucket, &ListRequest::default()).await.unwrap();
    assert_eq!(left.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["e"]);
}

async fn uploads_under_way_are_listed(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if what.deferred {
        return;
    }
    let (a, b) = (at(bucket, "a b"), at(bucket, "d/c"));
    let mut begun = Vec::new();
    for location in [&a, &b] {
        let id = store.create_upload(location, &ObjectHeaders::default()).await.unwrap();
        begun.push((location.key.to_string(), id));
    }
    // A request that was sent twice may have begun another.
    let listed = store.list_uploads(bucket, None).await.unwrap().uploads;
    assert!(begun.iter().all(|upload| listed.contains(upload)), "{listed:?} has not all of {begun:?}");
    for (key, id) in &listed {
        store.abort_upload(&at(bucket, key), id).await.unwrap();
    }
    assert!(store.list_uploads(bucket, None).await.unwrap().uploads.is_empty());
}

async fn what_is_at_hand_is_not_restored(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if what.deferred {
        return;
    }
    let location = at(bucket, "a");
    put(store, &location, b"123").await;
    refused(store.restore(&location, None, 1).await);
}

/// What was replaced or deleted is listed, read by its id, and goes for good when that is deleted.
#[tokio::test]
async fn a_versioned_bucket_keeps_what_was_replaced() {
    let Some(rig) = Rig::start(Rigs::Rgw, "a_versioned_bucket_keeps_what_was_replaced") else { return };
    let store = stack(&rig.endpoint);
    let bucket = fresh_bucket_name("versions");
    store.create_bucket(&bucket).await.unwrap();
    rig.boto(&format!("conn.get_bucket('{bucket}').configure_versioning(True)"));
    assert!(store.is_versioned(&bucket).await.unwrap());
    let location = at(&bucket, "d/a b");
    let mut ids = Vec::new();
    for bytes in [&b"one"[..], b"two!"] {
        let body = Bytes::copy_from_slice(bytes);
        let written = store.put(&location, body, &ObjectHeaders::default(), &Condition::None).await.unwrap();
        ids.extend(written.version_id);
    }
    store.delete(&location, None).await.unwrap();
    let all = versions(&*store, &bucket, "d/").await;
    let shown: Vec<_> = all.iter().map(|v| (v.is_latest, v.is_delete_marker, v.size_bytes)).collect();
    assert_eq!(shown, [(true, true, 0), (false, false, 4), (false, false, 3)]);
    assert_eq!(all[2].name.version_id, ids[0]);
    let old = GetOptions { version_id: Some(ids[0].clone()), ..GetOptions::default() };
    assert_eq!(collect(store.get(&location, &old).await.unwrap()).await.unwrap(), b"one");
    assert_eq!(store.head(&location, Some(&ids[1])).await.unwrap().size_bytes, 4);
    assert_eq!(refused(store.head(&location, None).await), Kind::NotFound);
    assert_eq!(refused(store.delete_bucket(&bucket).await), Kind::NotEmpty);
    store.delete(&location, Some(&ids[1])).await.unwrap();
    let names: Vec<VersionName> =
        versions(&*store, &bucket, "").await.into_iter().map(|version| version.name).collect();
    assert_eq!(names.len(), 2);
    assert!(store.delete_versions(&bucket, &names).await.unwrap().is_empty());
    store.delete_bucket(&bucket).await.unwrap();
}
