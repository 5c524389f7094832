//! What one call asks for, before anything is signed.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RANGE};

use crate::format::encryption;
use crate::format::tags::header;
use crate::store::{
    AclHeaders, AclTarget, BucketName, Buffers, Condition, CopySource, ETag, Error, Kind, Location, ObjectHeaders,
    Result, Tags,
};

/// How the store is to encrypt an object, or does.
pub(super) const ENCRYPTION: &str = "x-amz-server-side-encryption";
/// With which key.
pub(super) const ENCRYPTION_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";

/// A request to the store.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) operation: &'static str,
    pub(super) method: Method,
    pub(super) bucket: Option<BucketName>,
    pub(super) key: Option<String>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Memory for the answer's body.
    pub(super) buffers: Buffers,
}

impl Request {
    /// A request about the account.
    pub(super) fn account(operation: &'static str, method: Method) -> Self {
        Request {
            operation,
            method,
            bucket: None,
            key: None,
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            buffers: Buffers::default(),
        }
    }

    /// A request about a bucket.
    pub(super) fn bucket(operation: &'static str, method: Method, bucket: &BucketName) -> Self {
        Request { bucket: Some(bucket.clone()), ..Request::account(operation, method) }
    }

    /// A request about an object.
    pub(super) fn object(operation: &'static str, method: Method, location: &Location) -> Self {
        Request { key: Some(location.key.to_string()), ..Request::bucket(operation, method, &location.bucket) }
    }

    /// A request about a bucket or an object.
    pub(super) fn target(operation: &'static str, method: Method, target: &AclTarget) -> Self {
        match target {
            AclTarget::Bucket(bucket) => Request::bucket(operation, method, bucket),
            AclTarget::Object(location) => Request::object(operation, method, location),
        }
    }

    /// What it is about, for messages.
    pub(super) fn subject(&self) -> String {
        match (&self.bucket, &self.key) {
            (None, _) => "the account".to_owned(),
            (Some(bucket), None) => bucket.to_string(),
            (Some(bucket), Some(key)) => format!("{bucket}/{key}"),
        }
    }

    /// Where the bytes begin that a GET of an object asks for; `None` for other requests.
    pub(super) fn reads_from(&self) -> Option<u64> {
        let range = self.headers.get(RANGE).map(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
        match range {
            _ if self.operation != "GetObject" => None,
            None => Some(0),
            Some(range) => range?.0.parse().ok(),
        }
    }

    /// An error of this request.
    pub(super) fn error(&self, kind: Kind, message: impl Into<String>) -> Error {
        Error::new(kind, self.operation, self.subject(), message)
    }

    /// The same with a query parameter; a subresource has an empty value.
    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// The same with a body.
    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    /// The same with a header, or an error if the text cannot be in one.
    pub(super) fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let bad = |request: &Request| request.error(Kind::BadRequest, format!("{name}: cannot be sent as a header"));
        let header_name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(&self))?;
        let ascii = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let header_value = HeaderValue::from_str(value).ok().filter(|_| ascii).ok_or_else(|| bad(&self))?;
        self.headers.append(header_name, header_value);
        Ok(self)
    }

    fn optional(self, name: &str, value: &Option<String>) -> Result<Self> {
        match value {
            Some(value) => self.header(name, value),
            None => Ok(self),
        }
    }

    /// The same with everything that a write gives an object.
    pub(super) fn object_headers(self, headers: &ObjectHeaders) -> Result<Self> {
        let mut request = self
            .optional("content-type", &headers.content_type)?
            .optional("cache-control", &headers.cache_control)?
            .optional("content-disposition", &headers.content_disposition)?
            .optional("content-encoding", &headers.content_encoding)?
            .optional("content-language", &headers.content_language)?
            .optional("expires", &headers.expires)?
            .optional("x-amz-storage-class", &headers.storage_class)?;
        for (name, value) in &headers.metadata {
            request = request.header(&format!("x-amz-meta-{name}"), value)?;
        }
        if let Some((method, key_id)) = headers.encryption.as_deref().map(encryption::split) {
            request = request.header(ENCRYPTION, method)?;
            request = request.optional(ENCRYPTION_KEY, &key_id.map(str::to_owned))?;
        }
        request.acl(headers.acl.as_ref())
    }

    /// The same with tags that ride along.
    pub(super) fn tags(self, tags: &Tags) -> Result<Self> {
        match tags.told() {
            Some(tags) => self.header("x-amz-tagging", &header(tags)),
            None => Ok(self),
        }
    }

    /// The same with an ACL that rides along.
    pub(super) fn acl(self, acl: Option<&AclHeaders>) -> Result<Self> {
        match acl {
            None => Ok(self),
            Some(AclHeaders::Canned(name)) => self.header("x-amz-acl", name),
            Some(AclHeaders::Grants(grants)) => {
                grants.iter().try_fold(self, |request, (name, value)| request.header(name, value))
            }
        }
    }

    /// The same with a condition, in the spelling that the store understands.
    pub(super) fn condition(self, condition: &Condition, quoted: bool) -> Result<Self> {
        match condition {
            Condition::None => Ok(self),
            Condition::IfAbsent => self.header("if-none-match", "*"),
            Condition::IfMatch(etag) => self.header("if-match", &spelled(etag, quoted)),
        }
    }

    /// The same with the source of a copy.
    pub(super) fn copy_source(self, source: &CopySource, quoted: bool) -> Result<Self> {
        let Location { bucket, key } = &source.location;
        let path = format!("/{bucket}/{}", crate::format::url::encode_path(key.as_str()));
        let request = self.header("x-amz-copy-source", &path)?;
        match &source.if_match {
            Some(etag) => request.header("x-amz-copy-source-if-match", &spelled(etag, quoted)),
            None => Ok(request),
        }
    }
}

/// An entity tag as a condition spells it.
pub(super) fn spelled(etag: &ETag, quoted: bool) -> String {
    if quoted { format!("\"{etag}\"") } else { etag.to_string() }
}
