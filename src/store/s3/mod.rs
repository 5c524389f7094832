//! The S3 adapter: the calls of [`Store`] as signed HTTP requests.
//!
//! * `request`: what one call asks for, before anything is signed; `client`: the one road on which it goes out, but for
//!   `direct`, on which bytes of objects come in where no TLS and no proxy lies between.
//! * `sign`: Signature Version 4 over exactly what is sent, `sign_v2` for old stores; `credentials`: where keys come from, and when again.
//! * `answer`: status and code become a [`Kind`], headers become an [`ObjectHead`]; `body`: bytes out and in.
//! * `objects`, `buckets`, `multipart`, `acl`, `versions`, `append`: the calls themselves.
//!
//! It refuses to retry (that is a decorator's work), with two exceptions that are not retries: a request that was
//! refused because of its credentials goes out once more if newer ones are found, and one that was refused because of
//! the spelling of `If-Match` once more if the refusal told that this store wants the other spelling. It sends no
//! checksum trailers and follows no redirect.

mod acl;
mod answer;
mod append;
mod body;
mod buckets;
mod client;
mod credentials;
mod direct;
mod multipart;
mod objects;
mod request;
mod sign;
mod sign_v2;
#[cfg(test)]
mod tests;
mod versions;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::link::LINK_EXPIRES_MAX;
use super::profile::Profile;
use super::{
    Acl, AclTarget, BucketEntry, BucketHead, BucketName, Condition, CopyHeaders, CopySource, DeleteFailure, Error,
    GetOptions, Key, Kind, ListPage, ListRequest, Location, NewAcl, ObjectBody, ObjectHead, ObjectHeaders, Part,
    PresignRequest, Result, Store, Written,
};
use crate::clock::Clock;
use client::Client;

pub use credentials::{CredentialSource, Credentials};

/// How long nothing may arrive before a request is given up.
pub const STALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// Where a bucket's name goes in a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// What works with every store that dreamfs knows, which is path style.
    #[default]
    Auto,
    /// Into the path: `https://host/bucket/key`.
    Path,
    /// Into the host: `https://bucket.host/key`.
    Virtual,
}

/// How requests and links are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signature {
    /// Signature Version 4.
    #[default]
    V4,
    /// Version 2, for stores that lack it.
    V2,
}

/// What tells the store that a body arrived unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Integrity {
    /// TLS where there is TLS, nothing on loopback, else the body's SHA-256 in the signature.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// The body's SHA-256 in the signature, always.
    Sha256,
    /// `Content-MD5`, always.
    Md5,
}

/// How to reach a store.
#[derive(Clone, Debug)]
pub struct Config {
    /// `scheme://host[:port]`.
    pub endpoint: String,
    /// The region to sign for; empty is `us-east-1`, which stores without regions take.
    pub region: String,
    /// Where the bucket's name goes.
    pub addressing: Addressing,
    /// How requests and links are signed.
    pub signature: Signature,
    /// Whether requests go out unsigned.
    pub anonymous: bool,
    /// A PEM file of root certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What protects bodies.
    pub integrity: Integrity,
    /// How long nothing may arrive or leave before a request fails with [`Kind::TimedOut`].
    pub stall_timeout: Duration,
    /// The time that signatures carry.
    pub clock: Clock,
}

/// An S3 store behind HTTP.
pub struct S3Store {
    client: Client,
}

impl S3Store {
    /// Makes ready to talk; sends nothing. Reads the credentials once, on the calling thread, unless anonymous.
    ///
    /// Fails with [`Kind::BadRequest`] for a wrong endpoint, [`Kind::UntrustedCertificate`] for a bad `ca_file` and
    /// [`Kind::AccessDenied`] when there are no credentials.
    pub fn new(config: Config, credentials: CredentialSource, profile: Arc<Profile>) -> Result<Self> {
        Client::new(config, credentials, profile).map(|client| S3Store { client })
    }

    /// Reads the credentials again and answers whether they changed. Requests that are on their way keep the old.
    pub async fn reload_credentials(&self) -> Result<bool> {
        self.client.reload_credentials().await
    }
}

#[async_trait]
impl Store for S3Store {
    async fn list_buckets(&self) -> Result<Vec<BucketEntry>> {
        buckets::list_buckets(&self.client).await
    }

    async fn create_bucket(&self, bucket: &BucketName) -> Result<()> {
        buckets::create(&self.client, bucket).await
    }

    async fn delete_bucket(&self, bucket: &BucketName) -> Result<()> {
        buckets::delete(&self.client, bucket).await
    }

    async fn head_bucket(&self, bucket: &BucketName) -> Result<BucketHead> {
        buckets::head(&self.client, bucket).await
    }

    async fn list(&self, bucket: &BucketName, request: &ListRequest) -> Result<ListPage> {
        buckets::list(&self.client, bucket, request).await
    }

    async fn head(&self, location: &Location, version_id: Option<&str>) -> Result<ObjectHead> {
        objects::head(&self.client, location, version_id).await
    }

    async fn get(&self, location: &Location, options: &GetOptions) -> Result<ObjectBody> {
        objects::get(&self.client, location, options).await
    }

    async fn put(
        &self,
        location: &Location,
        body: Bytes,
        headers: &ObjectHeaders,
        condition: &Condition,
    ) -> Result<Written> {
        objects::put(&self.client, location, body, headers, condition).await
    }

    async fn copy(&self, source: &CopySource, to: &Location, headers: &CopyHeaders) -> Result<Written> {
        objects::copy(&self.client, source, to, headers).await
    }

    async fn delete(&self, location: &Location, version_id: Option<&str>) -> Result<()> {
        objects::delete(&self.client, location, version_id).await
    }

    async fn delete_many(&self, bucket: &BucketName, keys: &[Key]) -> Result<Vec<DeleteFailure>> {
        objects::delete_many(&self.client, bucket, keys).await
    }

    async fn create_upload(&self, location: &Location, headers: &ObjectHeaders) -> Result<String> {
        multipart::create(&self.client, location, headers).await
    }

    async fn upload_part(&self, location: &Location, upload_id: &str, number: u32, body: Bytes) -> Result<Part> {
        multipart::upload_part(&self.client, location, upload_id, number, body).await
    }

    async fn upload_part_copy(
        &self,
        location: &Location,
        upload_id: &str,
        number: u32,
        source: &CopySource,
        range: Range<u64>,
    ) -> Result<Part> {
        multipart::upload_part_copy(&self.client, location, upload_id, number, source, range).await
    }

    async fn complete_upload(
        &self,
        location: &Location,
        upload_id: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Written> {
        multipart::complete(&self.client, location, upload_id, parts, condition).await
    }

    async fn abort_upload(&self, location: &Location, upload_id: &str) -> Result<()> {
        multipart::abort(&self.client, location, upload_id).await
    }

    async fn get_acl(&self, target: &AclTarget) -> Result<Acl> {
        acl::get(&self.client, target).await
    }

    async fn put_acl(&self, target: &AclTarget, new: &NewAcl) -> Result<()> {
        acl::put(&self.client, target, new).await
    }

    fn presign(&self, request: &PresignRequest) -> Result<String> {
        let (seconds, seconds_max) = (request.expires.as_secs(), LINK_EXPIRES_MAX.as_secs());
        if (1..=seconds_max).contains(&seconds) {
            self.client.presign(request)
        } else {
            let why = format!("a link lasts from 1 s to {seconds_max} s, not {seconds} s");
            Err(Error::new(Kind::BadRequest, "Presign", request.location.to_string(), why))
        }
    }

    fn url(&self, location: &Location) -> String {
        self.client.plain_url(location)
    }
}
