//! Calls on objects: head, get, put, copy, delete.

use bytes::Bytes;
use reqwest::Method;

use super::answer::{content_length, content_range, object_head, text};
use super::client::{Client, content_md5};
use super::request::{Request, spelled};
use crate::format::xml;
use crate::store::profile::Family;
use crate::store::{
    BucketName, Condition, CopyHeaders, CopySource, DeleteFailure, ETag, Error, GetOptions, Key, Kind, Location,
    ObjectBody, ObjectHead, ObjectHeaders, Result, Written,
};

pub(super) async fn head(client: &Client, location: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
    let request = with_version(Request::object("HeadObject", Method::HEAD, location), version_id);
    let response = client.send(request.clone()).await?;
    let size_bytes = content_length(&request, response.headers())?;
    object_head(&request, response.headers(), size_bytes)
}

pub(super) async fn get(client: &Client, location: &Location, options: &GetOptions) -> Result<ObjectBody> {
    let mut plain = with_version(Request::object("GetObject", Method::GET, location), options.version_id.as_deref());
    plain.buffers = options.buffers.clone();
    if options.range.as_ref().is_some_and(|range| range.is_empty()) {
        return Err(plain.error(Kind::BadRange, "an empty range"));
    }
    let build = |quoted| {
        let mut request = plain.clone();
        if let Some(range) = &options.range {
            request = request.header("range", &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))?;
        }
        match &options.if_match {
            Some(etag) => request.header("if-match", &spelled(etag, quoted)),
            None => Ok(request),
        }
    };
    let response = spelled_twice(client, build).await?;
    let headers = response.headers().clone();
    let length = content_length(&plain, &headers)?;
    let (start, end, size_bytes) = content_range(&headers).unwrap_or((0, length, length));
    if end.checked_sub(start) != Some(length) {
        return Err(plain.error(Kind::Malformed, "Content-Range and Content-Length do not agree"));
    }
    if options.range.as_ref().is_some_and(|asked| asked.start != start || end > asked.end) {
        return Err(plain.error(Kind::Malformed, "another range than was asked for"));
    }
    let head = object_head(&plain, &headers, size_bytes)?;
    let body = client.download(response, length, location.to_string());
    Ok(ObjectBody { head, range: start..end, body })
}

pub(super) async fn put(
    client: &Client,
    location: &Location,
    body: Bytes,
    headers: &ObjectHeaders,
    condition: &Condition,
) -> Result<Written> {
    let plain = Request::object("PutObject", Method::PUT, location).object_headers(headers)?.tags(&headers.tags)?;
    let plain = plain.body(body);
    let unheeded = || plain.error(Kind::Unsupported, "in a bucket with versions this store heeds no condition");
    if *condition != Condition::None && !client.profile.heeds_conditions(&location.bucket) {
        return Err(unheeded());
    }
    let response = match spelled_twice(client, |quoted| plain.clone().condition(condition, quoted)).await {
        // A refusal does not tell whether the bucket keeps versions; what is there does.
        Err(error) if error.kind == Kind::PreconditionFailed && client.profile.family() == Family::Rgw => {
            let _ = head(client, location, None).await;
            return Err(if client.profile.heeds_conditions(&location.bucket) { error } else { unheeded() });
        }
        answer => answer?,
    };
    written(&plain, response.headers(), text(response.headers(), "etag"))
}

pub(super) async fn copy(
    client: &Client,
    source: &CopySource,
    to: &Location,
    headers: &CopyHeaders,
) -> Result<Written> {
    let request =
        Request::object("CopyObject", Method::PUT, to).copy_source(source, client.profile.if_match_quoted())?;
    let request = match headers {
        CopyHeaders::Replace(headers) if headers.encryption.is_some() && client.profile.family() == Family::Rgw => {
            // RGW 16.2 refuses to copy what is encrypted, and copies what is not without heeding that it is to be.
            return Err(request.error(Kind::Unsupported, "this store copies nothing that is to be encrypted"));
        }
        CopyHeaders::Replace(headers) => {
            let request = request.header("x-amz-metadata-directive", "REPLACE")?.object_headers(headers)?;
            match headers.tags.told().is_some() && client.profile.tags_ride() {
                true => request.header("x-amz-tagging-directive", "REPLACE")?.tags(&headers.tags)?,
                false => request,
            }
        }
        CopyHeaders::Keep { acl, storage_class } => {
            let request = request.header("x-amz-metadata-directive", "COPY")?.acl(acl.as_ref())?;
            match storage_class {
                Some(class) => request.header("x-amz-storage-class", class)?,
                None => request,
            }
        }
    };
    let (headers, document) = client.send_for_text(request.clone()).await?;
    let etag = xml::parse_field(&document, "CopyObjectResult", "ETag");
    let etag = etag.map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
    written(&request, &headers, Some(etag))
}

pub(super) async fn delete(client: &Client, location: &Location, version_id: Option<&str>) -> Result<()> {
    let request = with_version(Request::object("DeleteObject", Method::DELETE, location), version_id);
    match client.send(request).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) async fn delete_many(client: &Client, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
    let mut failures = Vec::new();
    let (batch, single): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| xml::can_carry(key.as_str()));
    // What XML cannot carry is deleted by its URL: in a batch the store would delete another key, or nothing.
    for key in single {
        let location = Location { bucket: bucket.clone(), key: key.clone() };
        if let Err(error) = delete(client, &location, None).await {
            failures.push(DeleteFailure { key: key.clone(), error });
        }
    }
    if batch.is_empty() {
        return Ok(failures);
    }
    let document = Bytes::from(xml::build_delete(batch.iter().map(|key| (key.as_str(), None))));
    let mut request = Request::bucket("DeleteObjects", Method::POST, bucket).query("delete", "");
    request.headers.insert("content-md5", content_md5(&document));
    let request = request.header("content-type", "application/xml")?.body(document);
    let (_, answer) = client.send_for_text(request.clone()).await?;
    let errors = xml::parse_delete_result(&answer).map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
    for failed in errors {
        let Some(key) = batch.iter().find(|key| key.as_str() == failed.key) else { continue };
        let kind = if failed.code == "AccessDenied" { Kind::AccessDenied } else { Kind::ServerError };
        let why = format!("{}: {}", failed.code, failed.message);
        let error = Error::new(kind, "DeleteObjects", format!("{bucket}/{key}"), why);
        failures.push(DeleteFailure { key: (*key).clone(), error });
    }
    Ok(failures)
}

/// Sends a request that may carry `If-Match`. If a refusal taught that this store spells it otherwise, once more so.
async fn spelled_twice(client: &Client, build: impl Fn(bool) -> Result<Request>) -> Result<reqwest::Response> {
    let quoted = client.profile.if_match_quoted();
    match client.send(build(quoted)?).await {
        Err(error) if error.kind == Kind::PreconditionFailed && client.profile.if_match_quoted() != quoted => {
            client.send(build(!quoted)?).await
        }
        result => result,
    }
}

pub(super) fn with_version(request: Request, version_id: Option<&str>) -> Request {
    match version_id {
        Some(version_id) => request.query("versionId", version_id),
        None => request,
    }
}

/// What a write answered.
pub(super) fn written(
    request: &Request,
    headers: &reqwest::header::HeaderMap,
    etag: Option<String>,
) -> Result<Written> {
    let etag = etag.ok_or_else(|| request.error(Kind::Malformed, "the answer has no ETag"))?;
    Ok(Written { etag: ETag::new(&etag), version_id: text(headers, "x-amz-version-id") })
}
