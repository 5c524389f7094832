//! Checks of ACLs: set, read, carried by writes, reset by copies.

use bytes::Bytes;
use dreamfs::format::acl::{Grant, Grantee, Permission};
use dreamfs::store::{
    Acl, AclHeaders, AclTarget, BucketName, Condition, CopyHeaders, CopySource, Kind, Location, NewAcl, ObjectHeaders,
    Store,
};

use super::{Check, Expectations, at, checks, put, put_with, refused};

pub fn checks() -> Vec<(&'static str, Check)> {
    checks![
        bucket_acl,
        object_acl_canned,
        object_acl_full,
        acl_rides_on_writes,
        grants_ride_on_writes,
        copy_resets_the_acl_unless_it_rides,
        acl_of_missing_things,
    ]
}

async fn acl_of(store: &dyn Store, location: &Location) -> Acl {
    store.get_acl(&AclTarget::Object(location.clone())).await.unwrap()
}

fn canned(name: &str) -> ObjectHeaders {
    ObjectHeaders { acl: Some(AclHeaders::Canned(name.to_owned())), ..ObjectHeaders::default() }
}

fn sorted(acl: &Acl) -> Vec<Grant> {
    let mut grants = acl.grants.clone();
    grants.sort();
    grants
}

async fn bucket_acl(store: &dyn Store, bucket: &BucketName, _: &Expectations) {
    let target = AclTarget::Bucket(bucket.clone());
    let fresh = store.get_acl(&target).await.unwrap();
    assert_eq!(fresh.canned_name(), Some("private"), "{fresh}");
    for name in ["public-read", "private"] {
        store.put_acl(&target, &NewAcl::Canned(name.to_owned())).await.unwrap();
        assert_eq!(store.get_acl(&target).await.unwrap().canned_name(), Some(name));
    }
}

async fn object_acl_canned(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.object_acl {
        return;
    }
    let location = at(bucket, "a b+ü");
    put(store, &location, b"x").await;
    assert_eq!(acl_of(store, &location).await.canned_name(), Some("private"));
    let target = AclTarget::Object(location.clone());
    for name in ["public-read", "public-read-write", "authenticated-read", "private"] {
        store.put_acl(&target, &NewAcl::Canned(name.to_owned())).await.unwrap();
        assert_eq!(acl_of(store, &location).await.canned_name(), Some(name));
    }
    let unknown = store.put_acl(&target, &NewAcl::Canned("no-such-name".to_owned())).await;
    assert_eq!(refused(unknown), Kind::BadRequest);
    put(store, &location, b"a new version is private").await;
    assert_eq!(acl_of(store, &location).await.canned_name(), Some("private"));
}

async fn object_acl_full(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.object_acl || !what.grants {
        return;
    }
    let location = at(bucket, "granted");
    put(store, &location, b"x").await;
    let mut acl = acl_of(store, &location).await;
    acl.grants.push(Grant { grantee: Grantee::AllUsers, permission: Permission::ReadAcp });
    acl.grants.push(Grant { grantee: Grantee::AuthenticatedUsers, permission: Permission::Read });
    store.put_acl(&AclTarget::Object(location.clone()), &NewAcl::Full(acl.clone())).await.unwrap();
    let found = acl_of(store, &location).await;
    assert_eq!((sorted(&found), &found.owner_id), (sorted(&acl), &acl.owner_id));
    assert_eq!(found.canned_name(), None);
}

async fn acl_rides_on_writes(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.object_acl {
        return;
    }
    let location = at(bucket, "public");
    put_with(store, &location, b"x", &canned("public-read")).await;
    assert_eq!(acl_of(store, &location).await.canned_name(), Some("public-read"));
    let location = at(bucket, "public upload");
    let id = store.create_upload(&location, &canned("authenticated-read")).await.unwrap();
    let part = store.upload_part(&location, &id, 1, Bytes::from("x")).await.unwrap();
    store.complete_upload(&location, &id, &[part], &Condition::None).await.unwrap();
    assert_eq!(acl_of(store, &location).await.canned_name(), Some("authenticated-read"));
}

async fn grants_ride_on_writes(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.object_acl || !what.grants {
        return;
    }
    let location = at(bucket, "granted");
    put(store, &location, b"x").await;
    let mut acl = acl_of(store, &location).await;
    acl.grants.push(Grant { grantee: Grantee::AllUsers, permission: Permission::Read });
    acl.grants.push(Grant { grantee: Grantee::AuthenticatedUsers, permission: Permission::ReadAcp });
    let headers = ObjectHeaders { acl: acl.as_headers(), ..ObjectHeaders::default() };
    assert!(matches!(headers.acl, Some(AclHeaders::Grants(_))));
    put_with(store, &location, b"new version", &headers).await;
    assert_eq!(sorted(&acl_of(store, &location).await), sorted(&acl));
}

async fn copy_resets_the_acl_unless_it_rides(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.object_acl {
        return;
    }
    let (from, to) = (at(bucket, "from"), at(bucket, "to"));
    put_with(store, &from, b"x", &canned("public-read")).await;
    let source = CopySource { location: from.clone(), if_match: None };
    let keep = |acl| CopyHeaders::Keep { acl, storage_class: None };
    store.copy(&source, &to, &keep(None)).await.unwrap();
    assert_eq!(acl_of(store, &to).await.canned_name(), Some("private"));
    store.copy(&source, &to, &keep(Some(AclHeaders::Canned("public-read".to_owned())))).await.unwrap();
    assert_eq!(acl_of(store, &to).await.canned_name(), Some("public-read"));

    store.copy(&source, &from, &CopyHeaders::Replace(canned("public-read"))).await.unwrap();
    assert_eq!(acl_of(store, &from).await.canned_name(), Some("public-read"), "onto itself, and it rides");
    store.copy(&source, &from, &CopyHeaders::Replace(ObjectHeaders::default())).await.unwrap();
    assert_eq!(acl_of(store, &from).await.canned_name(), Some("private"), "onto itself, and it does not ride");
}

async fn acl_of_missing_things(store: &dyn Store, bucket: &BucketName, what: &Expectations) {
    if !what.object_acl {
        return;
    }
    let target = AclTarget::Object(at(bucket, "missing"));
    assert_eq!(refused(store.get_acl(&target).await), Kind::NotFound);
    assert_eq!(refused(store.put_acl(&target, &NewAcl::Canned("private".to_owned())).await), Kind::NotFound);
    let nowhere = AclTarget::Bucket(BucketName::new("dreamfs-no-such-bucket-anywhere").unwrap());
    assert_eq!(refused(store.get_acl(&nowhere).await), Kind::NoSuchBucket);
}
