//! Calls on buckets and the account: list, create, delete, head.

use bytes::Bytes;
use reqwest::Method;

use super::answer::text;
use super::client::Client;
use super::request::Request;
use crate::format::xml;
use crate::store::profile::Family;
use crate::store::{BucketEntry, BucketHead, BucketName, ETag, Kind, ListPage, ListRequest, ListedObject, Result};

pub(super) async fn list_buckets(client: &Client) -> Result<Vec<BucketEntry>> {
    let request = Request::account("ListBuckets", Method::GET);
    let (_, document) = client.send_for_text(request.clone()).await?;
    let buckets = xml::parse_buckets(&document).map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
    let nameable = buckets.into_iter().filter_map(|(name, created)| {
        let name = BucketName::new(&name).ok()?;
        Some(BucketEntry { name, created })
    });
    let mut entries: Vec<BucketEntry> = nameable.collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

pub(super) async fn create(client: &Client, bucket: &BucketName) -> Result<()> {
    let request = Request::bucket("CreateBucket", Method::PUT, bucket);
    // Only Amazon wants to hear its region; RGW refuses one that it does not know.
    let region = Some(client.region()).filter(|region| !matches!(*region, "" | "us-east-1"));
    let request = match region.filter(|_| client.profile.family() == Family::Aws) {
        Some(region) => request.body(Bytes::from(xml::build_location(region))),
        None => request,
    };
    client.send_for_text(request).await.map(drop)
}

pub(super) async fn delete(client: &Client, bucket: &BucketName) -> Result<()> {
    client.send_for_text(Request::bucket("DeleteBucket", Method::DELETE, bucket)).await.map(drop)
}

pub(super) async fn head(client: &Client, bucket: &BucketName) -> Result<BucketHead> {
    let response = client.send(Request::bucket("HeadBucket", Method::HEAD, bucket)).await?;
    let number = |name| text(response.headers(), name).and_then(|value| value.parse().ok());
    Ok(BucketHead {
        used_bytes: number("x-rgw-bytes-used"),
        object_count: number("x-rgw-object-count"),
        // Where the store does not tell, the one that it takes requests for.
        region: text(response.headers(), "x-amz-bucket-region")
            .or_else(|| Some(client.region().to_owned()).filter(|region| !region.is_empty())),
    })
}

pub(super) async fn list(client: &Client, bucket: &BucketName, wanted: &ListRequest) -> Result<ListPage> {
    let mut request = Request::bucket("ListObjects", Method::GET, bucket)
        .query("list-type", "2")
        .query("encoding-type", "url")
        .query("prefix", wanted.prefix.clone());
    if wanted.delimited {
        request = request.query("delimiter", "/");
    }
    if let Some(key) = &wanted.start_after {
        request = request.query("start-after", key.clone());
    }
    if let Some(token) = &wanted.continuation {
        request = request.query("continuation-token", token.clone());
    }
    if let Some(keys) = wanted.keys_max {
        request = request.query("max-keys", keys.to_string());
    }
    let (_, document) = client.send_for_text(request.clone()).await?;
    let page = xml::parse_list(&document).map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
    let objects = page.objects.into_iter().map(|entry| ListedObject {
        key: entry.key,
        size_bytes: entry.size_bytes,
        etag: ETag::new(&entry.etag),
        modified: entry.modified,
        storage_class: entry.storage_class,
    });
    Ok(ListPage { objects: objects.collect(), prefixes: page.prefixes, continuation: page.continuation })
}
