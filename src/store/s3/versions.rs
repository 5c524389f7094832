//! Calls on versions, uploads under way, archived objects and tags.

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;

use super::client::content_md5;
use super::objects::{delete, with_version};
use super::request::Request;
use super::{Client, S3Store};
use crate::format::xml;
use crate::store::operation as op;
use crate::store::versions::{
    ListedPart, ListedVersion, Marker, PartsPage, UploadsPage, VersionFailure, VersionName, Versions, VersionsPage,
    VersionsRequest,
};
use crate::store::{BucketName, ETag, Error, Key, Kind, Location, Part, Result, Tag};

#[async_trait]
impl Versions for S3Store {
    async fn is_versioned(&self, bucket: &BucketName) -> Result<bool> {
        let request = Request::bucket(op::GET_BUCKET_VERSIONING, Method::GET, bucket).query("versioning", "");
        let (_, document) = self.client.send_for_text(request).await?;
        // A bucket that never kept versions has no status, and some stores answer that with no document at all.
        Ok(xml::parse_field(&document, "VersioningConfiguration", "Status").is_ok())
    }

    async fn list_versions(&self, bucket: &BucketName, wanted: &VersionsRequest) -> Result<VersionsPage> {
        let mut request = Request::bucket(op::LIST_OBJECT_VERSIONS, Method::GET, bucket)
            .query("versions", "")
            .query("encoding-type", "url")
            .query("prefix", wanted.prefix.clone());
        if wanted.delimited {
            request = request.query("delimiter", "/");
        }
        let request = after(request, wanted.after.as_ref(), "version-id-marker");
        let (_, document) = self.client.send_for_text(request.clone()).await?;
        let page = xml::parse_versions(&document).map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
        let versions = page.versions.into_iter().map(|entry| ListedVersion {
            name: VersionName { key: entry.key, version_id: entry.version_id },
            is_latest: entry.is_latest,
            is_delete_marker: entry.is_delete_marker,
            size_bytes: entry.size_bytes,
            etag: entry.etag,
            modified: entry.modified,
        });
        let next = page.next.map(|(key, id)| Marker { key, id });
        Ok(VersionsPage { versions: versions.collect(), prefixes: page.prefixes, next })
    }

    async fn delete_versions(&self, bucket: &BucketName, versions: &[VersionName]) -> Result<Vec<VersionFailure>> {
        let (batch, single): (Vec<_>, Vec<_>) = versions.iter().partition(|version| xml::can_carry(&version.key));
        let mut failures = Vec::new();
        for version in single {
            if let Err(error) = delete_by_url(&self.client, bucket, version).await {
                failures.push(VersionFailure { key: version.key.clone(), error });
            }
        }
        if batch.is_empty() {
            return Ok(failures);
        }
        let names = batch.iter().map(|version| (version.key.as_str(), Some(version.version_id.as_str())));
        let document = Bytes::from(xml::build_delete(names));
        let mut request = Request::bucket(op::DELETE_OBJECTS, Method::POST, bucket).query("delete", "");
        request.headers.insert("content-md5", content_md5(&document));
        let request = request.header("content-type", "application/xml")?.body(document);
        let (_, answer) = self.client.send_for_text(request.clone()).await?;
        let errors =
            xml::parse_delete_result(&answer).map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
        let errors = errors.into_iter().filter(|failed| !matches!(failed.code.as_str(), "NoSuchKey" | "NoSuchVersion"));
        failures.extend(errors.map(|failed| {
            let kind = if failed.code == "AccessDenied" { Kind::AccessDenied } else { Kind::ServerError };
            let why = format!("{}: {}", failed.code, failed.message);
            let error = Error::new(kind, op::DELETE_OBJECTS, format!("{bucket}/{}", failed.key), why);
            VersionFailure { key: failed.key, error }
        }));
        Ok(failures)
    }

    async fn list_uploads(&self, bucket: &BucketName, wanted: Option<&Marker>) -> Result<UploadsPage> {
        // Asked to encode keys, RGW 16.2 does and does not say so.
        let request = Request::bucket(op::LIST_MULTIPART_UPLOADS, Method::GET, bucket).query("uploads", "");
        let request = after(request, wanted, "upload-id-marker");
        let (_, document) = self.client.send_for_text(request.clone()).await?;
        let page = xml::parse_uploads(&document).map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
        Ok(UploadsPage { uploads: page.uploads, next: page.next.map(|(key, id)| Marker { key, id }) })
    }

    async fn list_parts(&self, location: &Location, upload_id: &str, after: Option<u32>) -> Result<PartsPage> {
        let mut request = Request::object(op::LIST_PARTS, Method::GET, location).query("uploadId", upload_id);
        if let Some(number) = after {
            request = request.query("part-number-marker", number.to_string());
        }
        let (_, document) = self.client.send_for_text(request.clone()).await?;
        let page = xml::parse_parts(&document).map_err(|why| request.error(Kind::Malformed, why.to_string()))?;
        let parts = page.parts.into_iter().map(|entry| ListedPart {
            part: Part { number: entry.number, etag: ETag::new(&entry.etag) },
            size_bytes: entry.size_bytes,
        });
        Ok(PartsPage { parts: parts.collect(), next: page.next })
    }

    async fn restore(&self, location: &Location, version_id: Option<&str>, days: u32) -> Result<()> {
        let document = Bytes::from(xml::build_restore(days));
        let request = with_version(Request::object(op::RESTORE_OBJECT, Method::POST, location), version_id);
        let mut request = request.query("restore", "");
        request.headers.insert("content-md5", content_md5(&document));
        match self.client.send_for_text(request.header("content-type", "application/xml")?.body(document)).await {
            Err(error) if error.message.starts_with("RestoreAlreadyInProgress") => Ok(()),
            answer => answer.map(drop),
        }
    }

    async fn get_tags(&self, location: &Location) -> Result<Vec<Tag>> {
        let request = Request::object(op::GET_OBJECT_TAGGING, Method::GET, location).query("tagging", "");
        let (_, document) = self.client.send_for_text(request.clone()).await?;
        xml::parse_tagging(&document).map_err(|why| request.error(Kind::Malformed, why.to_string()))
    }

    async fn put_tags(&self, location: &Location, tags: &[Tag]) -> Result<()> {
        let document = Bytes::from(xml::build_tagging(tags));
        let mut request = Request::object(op::PUT_OBJECT_TAGGING, Method::PUT, location).query("tagging", "");
        request.headers.insert("content-md5", content_md5(&document));
        let request = request.header("content-type", "application/xml")?.body(document);
        self.client.send_for_text(request).await.map(drop)
    }
}

/// A request for the page behind a marker.
fn after(request: Request, marker: Option<&Marker>, id_name: &'static str) -> Request {
    let Some(Marker { key, id }) = marker else { return request };
    let request = request.query("key-marker", key.clone());
    match id {
        Some(id) => request.query(id_name, id.clone()),
        None => request,
    }
}

/// Deletes a version whose key XML cannot carry: in a batch the store would delete another, or nothing.
async fn delete_by_url(client: &Client, bucket: &BucketName, version: &VersionName) -> Result<()> {
    let key = Key::new(&version.key).map_err(|why| {
        let subject = format!("{bucket}/{}", version.key.escape_debug());
        Error::new(Kind::Unsupported, op::DELETE_OBJECT, subject, format!("no request can name it: {why}"))
    })?;
    delete(client, &Location { bucket: bucket.clone(), key }, Some(&version.version_id)).await
}
