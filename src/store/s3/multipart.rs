//! Multipart uploads: create, parts sent or copied, complete, abort.

use std::ops::Range;

use bytes::Bytes;
use reqwest::Method;

use super::answer::text;
use super::client::Client;
use super::objects::written;
use super::request::Request;
use crate::format::xml;
use crate::store::{Condition, CopySource, ETag, Kind, Location, ObjectHeaders, Part, Result, Written, etag_of_parts};

pub(super) async fn create(client: &Client, location: &Location, headers: &ObjectHeaders) -> Result<String> {
    let request = Request::object("CreateMultipartUpload", Method::POST, location).query("uploads", "");
    let request = request.object_headers(headers)?;
    let request = if client.profile.tags_ride() { request.tags(&headers.tags)? } else { request };
    let (_, document) = client.send_for_text(request.clone()).await?;
    let upload_id = xml::parse_field(&document, "InitiateMultipartUploadResult", "UploadId");
    upload_id.map_err(|why| request.error(Kind::Malformed, why.to_string()))
}

fn part(operation: &'static str, location: &Location, upload_id: &str, number: u32) -> Request {
    Request::object(operation, Method::PUT, location)
        .query("partNumber", number.to_string())
        .query("uploadId", upload_id)
}

pub(super) async fn upload_part(
    client: &Client,
    location: &Location,
    upload_id: &str,
    number: u32,
    body: Bytes,
) -> Result<Part> {
    let request = part("UploadPart", location, upload_id, number).body(body);
    let response = client.send(request.clone()).await?;
    let etag = text(response.headers(), "etag");
    let etag = etag.ok_or_else(|| request.error(Kind::Malformed, "the answer has no ETag"))?;
    Ok(Part { number, etag: ETag::new(&etag) })
}

pub(super) async fn upload_part_copy(
    client: &Client,
    location: &Location,
    upload_id: &str,
    number: u32,
    source: &CopySource,
    range: Range<u64>,
) -> Result<Part> {
    let request = part("UploadPartCopy", location, upload_id, number)
        .copy_source(source, client.profile.if_match_quoted())?
        .header("x-amz-copy-source-range", &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))?;
    let (_, document) = client.send_for_text(request.clone()).await?;
    let etag = xml::parse_field(&document, "CopyPartResult", "ETag");
    let etag = etag.map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
    Ok(Part { number, etag: ETag::new(&etag) })
}

pub(super) async fn complete(
    client: &Client,
    location: &Location,
    upload_id: &str,
    parts: &[Part],
    condition: &Condition,
) -> Result<Written> {
    let document = xml::build_complete(parts.iter().map(|part| (part.number, part.etag.as_str())));
    let request = Request::object("CompleteMultipartUpload", Method::POST, location)
        .query("uploadId", upload_id)
        .header("content-type", "application/xml")?
        .condition(condition, client.profile.if_match_quoted())?
        .body(Bytes::from(document));
    let (headers, document) = client.send_for_text(request.clone()).await?;
    // RGW 16.2 leaves the tag out of its answer; it is what every store makes of the parts' tags.
    let told = |field| xml::parse_field(&document, "CompleteMultipartUploadResult", field);
    if let Err(why) = told("Key") {
        return Err(request.error(Kind::Malformed, why.to_string()));
    }
    written(&request, &headers, told("ETag").ok().or_else(|| etag_of_parts(parts).map(|etag| etag.to_string())))
}

pub(super) async fn abort(client: &Client, location: &Location, upload_id: &str) -> Result<()> {
    let request = Request::object("AbortMultipartUpload", Method::DELETE, location).query("uploadId", upload_id);
    match client.send(request).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
