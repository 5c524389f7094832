//! What an answer means: status and code become a [`Kind`] in one match, headers become an [`ObjectHead`].

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::request::{ENCRYPTION, ENCRYPTION_KEY, Request};
use crate::format::encryption;
use crate::format::xml::{self, ErrorDocument};
use crate::store::{ETag, Error, Kind, ObjectHead, ObjectHeaders, Result, Tags};

/// The error that a refusal stands for. `document` is the body, empty after a HEAD.
pub(super) fn refusal(request: &Request, status: StatusCode, headers: &HeaderMap, document: &str) -> Error {
    let told = xml::parse_error(document).unwrap_or_default();
    let kind = kind(request, status, &told);
    let region = text(headers, "x-amz-bucket-region").unwrap_or(told.region);
    let message = match (status.is_redirection() && !region.is_empty(), told.code.is_empty()) {
        (true, _) => format!("the bucket lies in region {region}: use --region {region} and that region's endpoint"),
        (false, true) => format!("status {}", status.as_u16()),
        (false, false) => format!("{}: {}", told.code, told.message),
    };
    let retry_after = text(headers, "retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    Error { retry_after, ..request.error(kind, message) }
}

/// The one place where status and code become a meaning.
fn kind(request: &Request, status: StatusCode, told: &ErrorDocument) -> Kind {
    match told.code.as_str() {
        "NoSuchKey" | "NoSuchVersion" | "NoSuchUpload" => Kind::NotFound,
        "NoSuchBucket" => Kind::NoSuchBucket,
        "BucketAlreadyExists" | "BucketAlreadyOwnedByYou" => Kind::AlreadyExists,
        "BucketNotEmpty" => Kind::NotEmpty,
        "InvalidAccessKeyId" => Kind::UnknownAccessKey,
        "SignatureDoesNotMatch" => Kind::BadSignature,
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" => Kind::ExpiredCredentials,
        "RequestTimeTooSkewed" => Kind::ClockSkewed,
        "PreconditionFailed" | "ConditionalRequestConflict" => Kind::PreconditionFailed,
        "InvalidRange" => Kind::BadRange,
        "NotImplemented" | "MethodNotAllowed" | "UnsupportedOperation" => Kind::Unsupported,
        // An append in a bucket that keeps versions.
        "InvalidBucketState" => Kind::Unsupported,
        "AccessControlListNotSupported" => Kind::Unsupported,
        "InvalidArgument" | "InvalidRequest"
            if request.operation == "PutAcl" && told.message.contains("canned acl") =>
        {
            Kind::Unsupported
        }
        "EntityTooLarge" | "MetadataTooLarge" | "KeyTooLongError" | "RequestHeaderSectionTooLarge" => Kind::TooLarge,
        "QuotaExceeded" | "TooManyBuckets" => Kind::QuotaExceeded,
        "InvalidObjectState" => Kind::Archived,
        "SlowDown" | "ServiceUnavailable" | "TooManyRequests" => Kind::Throttled,
        "InternalError" | "RequestTimeout" => Kind::ServerError,
        _ => kind_of_status(request, status),
    }
}

fn kind_of_status(request: &Request, status: StatusCode) -> Kind {
    match status.as_u16() {
        401 | 403 => Kind::AccessDenied,
        404 if request.key.is_none() => Kind::NoSuchBucket,
        404 => Kind::NotFound,
        405 | 501 => Kind::Unsupported,
        409 => Kind::PreconditionFailed,
        412 => Kind::PreconditionFailed,
        413 => Kind::TooLarge,
        416 => Kind::BadRange,
        429 | 503 => Kind::Throttled,
        500..=599 => Kind::ServerError,
        // A success that carries an error document of a code unknown here: the store failed on the way.
        200..=299 => Kind::ServerError,
        300..=499 => Kind::BadRequest,
        _ => Kind::Malformed,
    }
}

/// The error that a broken transport stands for.
pub(super) fn broken(request: &Request, error: reqwest::Error) -> Error {
    // Without the URL: a key in it must not be read as a reason.
    let error = error.without_url();
    request.error(kind_of_transport(&error), chain_of(error))
}

fn kind_of_transport(error: &reqwest::Error) -> Kind {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if text.contains("certificate") {
            return Kind::UntrustedCertificate;
        }
        if text.contains("dns error") || text.contains("failed to lookup address") {
            return Kind::Unresolvable;
        }
        source = cause.source();
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => return Kind::Interrupted,
            _ => source = cause.source(),
        }
    }
    match (error.is_timeout(), error.is_connect()) {
        (_, true) => Kind::Unreachable,
        (true, false) => Kind::TimedOut,
        (false, false) => Kind::Interrupted,
    }
}

/// An error of the transport with its causes, without the URL: a URL may carry a signature.
pub(super) fn chain_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A header as text.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// What the headers of a HEAD or GET say of the object. `size_bytes` is told apart, since a range has another length.
pub(super) fn object_head(request: &Request, headers: &HeaderMap, size_bytes: u64) -> Result<ObjectHead> {
    let missing = |name: &str| request.error(Kind::Malformed, format!("the answer has no {name}"));
    let modified = text(headers, "last-modified").and_then(|date| http_date(&date));
    let metadata: BTreeMap<String, String> = headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-amz-meta-")?;
            Some((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        })
        .collect();
    Ok(ObjectHead {
        size_bytes,
        etag: ETag::new(&text(headers, "etag").ok_or_else(|| missing("ETag"))?),
        modified: modified.ok_or_else(|| missing("Last-Modified"))?,
        version_id: text(headers, "x-amz-version-id"),
        headers: ObjectHeaders {
            content_type: text(headers, "content-type"),
            cache_control: text(headers, "cache-control"),
            content_disposition: text(headers, "content-disposition"),
            content_encoding: text(headers, "content-encoding"),
            content_language: text(headers, "content-language"),
            expires: text(headers, "expires"),
            storage_class: text(headers, "x-amz-storage-class"),
            encryption: encryption::join(text(headers, ENCRYPTION), text(headers, ENCRYPTION_KEY)),
            metadata,
            tags: match text(headers, "x-amz-tagging-count").and_then(|count| count.parse().ok()) {
                None | Some(0) => Tags::None,
                Some(1_u32..) => Tags::Untold,
            },
            acl: None,
        },
        grows: text(headers, "x-rgw-object-type").map(|kind| kind == "Appendable"),
    })
}

/// Where the next append to an object begins.
pub(super) fn next_append(headers: &HeaderMap) -> Option<u64> {
    text(headers, "x-rgw-next-append-position")?.parse().ok()
}

/// `Content-Length`, which every answer about an object has.
pub(super) fn content_length(request: &Request, headers: &HeaderMap) -> Result<u64> {
    let length = text(headers, "content-length").and_then(|length| length.parse().ok());
    length.ok_or_else(|| request.error(Kind::Malformed, "the answer has no Content-Length"))
}

/// First byte, byte after the last, and whole length, of `Content-Range: bytes 0-9/100`.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let value = text(headers, "content-range")?;
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?, size.parse().ok()?))
}

fn http_date(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc2822).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::Method;

    #[test]
    fn what_stores_say_becomes_what_it_means() {
        let request = Request::account("PutAcl", Method::PUT);
        let told = |code: &str, message: &str| {
            let document = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
            refusal(&request, StatusCode::BAD_REQUEST, &HeaderMap::new(), &document).kind
        };
        assert_eq!(told("SignatureDoesNotMatch", ""), Kind::BadSignature);
        assert_eq!(told("RequestTimeTooSkewed", ""), Kind::ClockSkewed);
        assert_eq!(told("InvalidArgument", "Unsupported value for canned acl 'private'"), Kind::Unsupported);
        assert_eq!(told("InvalidArgument", "other"), Kind::BadRequest);
        assert_eq!(refusal(&request, StatusCode::NOT_FOUND, &HeaderMap::new(), "").kind, Kind::NoSuchBucket);
    }

    #[test]
    fn dates_and_ranges_are_read() {
        let date = http_date("Wed, 21 Oct 2015 07:28:00 GMT").expect("a date of HTTP");
        assert_eq!(date, SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480));
        let mut headers = HeaderMap::new();
        headers.insert("content-range", "bytes 5-9/100".parse().expect("a header"));
        assert_eq!(content_range(&headers), Some((5, 10, 100)));
    }
}
