//! Headers and tags of objects, from requests and into answers. Values travel as they came, without interpretation.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use s3s::{S3Result, s3_error};

/// The content headers that an object keeps.
const CONTENT_HEADERS: [&str; 6] =
    ["content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires"];
/// How it is said to be encrypted: told again, and not done.
const ENCRYPTION_PREFIX: &str = "x-amz-server-side-encryption";
const METADATA_PREFIX: &str = "x-amz-meta-";
/// User metadata of one object at most: names and values together; S3's limit in bytes.
const METADATA_BYTES_MAX: usize = 2048;
/// Tags of one object at most; S3's limit.
const TAGS_MAX: usize = 10;
/// Length of a tag's key and value at most, in characters; S3's limits.
const TAG_KEY_MAX: usize = 128;
const TAG_VALUE_MAX: usize = 256;

/// Whether this header says how an object is encrypted.
pub fn is_encryption(name: &str) -> bool {
    name.starts_with(ENCRYPTION_PREFIX)
}

/// Takes what an object keeps out of the headers of a request.
pub fn headers_from_request(headers: &HeaderMap) -> S3Result<BTreeMap<String, String>> {
    let mut kept = BTreeMap::new();
    let mut metadata_bytes = 0;
    for (name, value) in headers {
        let name = name.as_str();
        let metadata = name.strip_prefix(METADATA_PREFIX);
        let is_told_again = CONTENT_HEADERS.contains(&name) || is_encryption(name);
        if metadata.is_none_or(str::is_empty) && !is_told_again {
            continue;
        }
        let mut value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| s3_error!(InvalidArgument, "The header {name} is not UTF-8."))?
            .to_owned();
        if name == "content-encoding" {
            // aws-chunked is how the request travelled, not how the object is encoded.
            let codings =
                value.split(',').map(str::trim).filter(|coding| *coding != "aws-chunked" && !coding.is_empty());
            value = codings.collect::<Vec<_>>().join(",");
        }
        if let Some(metadata) = metadata {
            metadata_bytes += metadata.len() + value.len();
        }
        if metadata.is_some() || !value.is_empty() {
            kept.insert(name.to_owned(), value);
        }
    }
    if metadata_bytes > METADATA_BYTES_MAX {
        return Err(s3_error!(MetadataTooLarge, "The metadata is larger than 2 KiB."));
    }
    Ok(kept)
}

/// The headers of an answer that tells what an object is.
pub fn headers_to_answer(kept: &BTreeMap<String, String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("binary/octet-stream"));
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
            headers.insert(name, value);
        }
    }
    headers
}

/// The tags of `x-amz-tagging`, which is spelled as a query string.
pub fn tags_from_header(headers: &HeaderMap) -> S3Result<Vec<(String, String)>> {
    let Some(value) = headers.get("x-amz-tagging") else { return Ok(vec![]) };
    let invalid = || s3_error!(InvalidTag, "The tags cannot be read.");
    let text = value.to_str().map_err(|_| invalid())?;
    let decode = |word: &str| {
        let word = word.replace('+', " ");
        percent_encoding::percent_decode_str(&word).decode_utf8().map(|word| word.into_owned()).map_err(|_| invalid())
    };
    let mut tags = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        tags.push((decode(key)?, decode(value)?));
    }
    check_tags(tags)
}

/// Refuses tags that S3 does not take.
pub fn check_tags(tags: Vec<(String, String)>) -> S3Result<Vec<(String, String)>> {
    if tags.len() > TAGS_MAX {
        return Err(s3_error!(InvalidTag, "An object has 10 tags at most."));
    }
    for (index, (key, value)) in tags.iter().enumerate() {
        let too_long = key.chars().count() > TAG_KEY_MAX || value.chars().count() > TAG_VALUE_MAX;
        if key.is_empty() || too_long || tags[..index].iter().any(|(other, _)| other == key) {
            return Err(s3_error!(InvalidTag, "A tag is empty, too long or given twice."));
        }
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_content_headers_and_metadata_only() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("content-encoding", "aws-chunked,gzip"),
            ("x-amz-meta-mode", "33188"),
            ("x-amz-acl", "private"),
            ("x-amz-server-side-encryption", "AES256"),
            ("host", "h"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let kept = headers_from_request(&headers).unwrap();
        let names: Vec<_> = kept.keys().map(String::as_str).collect();
        assert_eq!(names, ["content-encoding", "content-type", "x-amz-meta-mode", "x-amz-server-side-encryption"]);
        assert_eq!(kept["content-encoding"], "gzip");
        headers.insert("x-amz-meta-big", HeaderValue::from_str(&"x".repeat(METADATA_BYTES_MAX)).unwrap());
        assert!(headers_from_request(&headers).is_err());
    }

    #[test]
    fn reads_tags_as_a_query_string() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-tagging", HeaderValue::from_static("a=1%202&b+c=d&e"));
        let tags = tags_from_header(&headers).unwrap();
        assert_eq!(tags, [("a", "1 2"), ("b c", "d"), ("e", "")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        headers.insert("x-amz-tagging", HeaderValue::from_static("a=1&a=2"));
        assert!(tags_from_header(&headers).is_err());
    }
}
